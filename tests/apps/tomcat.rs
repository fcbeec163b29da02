//! Tomcat 10.1 with its packaged examples: a container's own form sign-in (`j_security_check`) and `JSESSIONID`.
//!
//! What it does, as [`what_it_does_with_its_cookie`] sees it:
//!
//! * Any page below `security/protected/` shows the sign-in form to a stranger in its own place, with status 200. There
//!   is no address of a form to send people to: `login` is the protected folder, which shows the form to strangers.
//! * The id changes **twice**: when the form is shown to a browser that has a session already, and at sign-in. The id
//!   from before is dead at once. Nothing is deleted: a new `Set-Cookie` takes the place of the old.
//! * The cookie is `Path=/examples; HttpOnly; SameSite=Strict`, sent with the answer that makes an id and not again.
//! * A page that makes an id does not know yet whether the browser takes cookies: its form and its links carry
//!   `;jsessionid=`, and Tomcat takes an id from there as well as from the cookie.
//! * Success is `303` with a new cookie; a wrong password is the error page with `200` and without one. Posting the
//!   form without having been shown it is `408`; posting it where one is signed in is `404`.
//! * Signing out (`index.jsp?logoff=true`) makes the id dead, deletes no cookie, and leads to `index.jsp`, where the old
//!   id gets a new one in its place, as any unknown id does. So `logout` is `index.jsp`: a new id on that page means
//!   that Tomcat knows the user no longer.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::form::{asks_for, submit, text_after};
use crate::process::Process;
use crate::scenario::RealApp;
use crate::source;
use crate::support::browser::{Browser, Page};

/// Where Debian puts the server, and the examples' web application.
const HOME: &str = "/usr/share/tomcat10";
const PROTECTED: &str = "/examples/jsp/security/protected/index.jsp";

/// An instance of its own, with nothing but the examples.
pub(crate) struct Tomcat {
    addr: SocketAddr,
    _process: Process,
    _base: TempDir,
}

impl RealApp for Tomcat {
    const NAME: &str = "tomcat";
    const COOKIE: &str = "JSESSIONID";
    const LOGIN: &str = "/examples/jsp/security/protected/";
    const WORK: &str = "/examples/servlets/servlet/SessionExample";
    const POLLED: &str = "/examples/servlets/servlet/RequestInfoExample";
    const ID_IN_PATH: Option<&str> = Some(";jsessionid=");
    const SETTINGS: &str = r#"
cookie = "JSESSIONID"
login = "/examples/jsp/security/protected/"
logout = "/examples/jsp/security/protected/index.jsp"
inactive = ["GET /examples/servlets/servlet/RequestInfoExample"]
[[app.identity]]
from = "login-form"
path = "/examples/jsp/security/protected/j_security_check"
user = "j_username"
"#;

    async fn start() -> Self {
        let base = tempfile::tempdir().expect("there is room for an instance");
        furnish(base.path());
        let (process, [addr]) =
            Process::start(Self::NAME, base.path(), "/examples/", |[port]| command(base.path(), port)).await;
        Self { addr, _process: process, _base: base }
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn asks_to_sign_in(page: &Page) -> bool {
        asks_for(page, "j_username")
    }

    async fn fill_in(browser: &Browser, form: &Page, user: &str, password: &str) -> Page {
        submit(browser, form, &[("j_username", user), ("j_password", password)]).await
    }

    async fn who(browser: &Browser) -> Option<String> {
        text_after(&browser.navigate(PROTECTED).await, "logged in as remote user\n<b>")
    }

    async fn sign_out(browser: &Browser) {
        browser.navigate(&format!("{PROTECTED}?logoff=true")).await;
    }
}

/// What Debian's `tomcat10-instance-create` would make, without ports of the system.
fn furnish(base: &Path) {
    for folder in ["conf", "logs", "temp", "work"] {
        fs::create_dir(base.join(folder)).expect("a folder can be made");
    }
    for file in ["server.xml", "tomcat-users.xml"] {
        fs::copy(source("tomcat").join(file), base.join("conf").join(file)).expect("a file can be copied");
    }
    let web = Path::new(HOME).join("skel/conf/web.xml");
    fs::copy(web, base.join("conf/web.xml")).expect("Tomcat is not installed: run tests/apps/install.sh");
}

fn command(base: &Path, port: u16) -> Command {
    let mut command = Command::new(Path::new(HOME).join("bin/catalina.sh"));
    command.arg("run").env("CATALINA_HOME", HOME).env("CATALINA_BASE", base);
    // It starts twice as fast without the optimising compiler, which would hardly be done before the test is.
    command.env("JAVA_OPTS", format!("-Dtest.port={port} -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx192m"));
    command
}

#[tokio::test]
async fn what_it_does_with_its_cookie() {
    let app = Tomcat::start().await;
    let browser = Browser::at(app.addr());
    let id = || browser.cookie_at(Tomcat::COOKIE, PROTECTED).unwrap();
    let page = browser.navigate(Tomcat::WORK).await;
    let anonymous = id();
    let set = page.all("set-cookie");
    assert_eq!(set, [format!("JSESSIONID={anonymous}; Path=/examples; HttpOnly; SameSite=Strict")]);
    assert!(page.text().contains(&format!(";jsessionid={anonymous}\"")), "ids stand in links");
    let page = browser.navigate(Tomcat::WORK).await;
    assert!(page.all("set-cookie").is_empty() && !page.text().contains(";jsessionid="));

    let form = browser.navigate(PROTECTED).await;
    assert_eq!((form.statuses(), Tomcat::asks_to_sign_in(&form)), (vec![200], true));
    let shown = id();
    assert_ne!(shown, anonymous, "a new id when the form is shown");
    let wrong = Tomcat::fill_in(&browser, &form, "ann", "wrong").await;
    assert_eq!((wrong.statuses(), id() == shown), (vec![200], true));
    let form = browser.navigate(PROTECTED).await;
    let shown = id();
    let page = Tomcat::fill_in(&browser, &form, "ann", "ann-secret").await;
    assert_eq!(page.statuses(), [303, 200]);
    let signed_in = id();
    assert_ne!(signed_in, shown, "and another at sign-in");
    assert_eq!(Tomcat::who(&browser).await.as_deref(), Some("ann"));
    let again = browser.post_form("j_security_check", &[("j_username", "bob"), ("j_password", "bob-secret")]);
    assert_eq!(again.await.status, 404);

    // Either of the two ways to bring an id serves, whoever brings it.
    let stranger = Browser::at(app.addr());
    let by_link = stranger.fetch(&format!("{PROTECTED};jsessionid={signed_in}")).await;
    assert!(by_link.text().contains("<b>ann</b>"));
    let by_cookie = stranger.fetch_with_cookie(PROTECTED, &format!("JSESSIONID={signed_in}")).await;
    assert!(by_cookie.text().contains("<b>ann</b>"));
    let old = stranger.fetch_with_cookie(PROTECTED, &format!("JSESSIONID={shown}")).await;
    assert!(Tomcat::asks_to_sign_in(&old), "the id from before the sign-in is dead");

    let page = browser.navigate(&format!("{PROTECTED}?logoff=true")).await;
    assert_eq!(page.statuses(), [302, 200]);
    assert!(!page.chain[0].headers.contains_key("set-cookie") && Tomcat::asks_to_sign_in(&page));
    assert_ne!(id(), signed_in, "replaced by the page that follows");
    let old = stranger.fetch_with_cookie(PROTECTED, &format!("JSESSIONID={signed_in}")).await;
    assert!(Tomcat::asks_to_sign_in(&old), "an id does not outlive the sign-out");
    let unseen = Browser::at(app.addr());
    let fields = [("j_username", "ann"), ("j_password", "ann-secret")];
    let page = unseen.post_form("/examples/jsp/security/protected/j_security_check", &fields).await;
    assert_eq!(page.status, 408);
}
