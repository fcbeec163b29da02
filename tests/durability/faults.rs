//! Faults below the database, and power cuts: `faults.c` says what they are made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::compare::compare;
use crate::gateway::{Custody, Live, Site};
use crate::ledger::Ledger;
use crate::load::{Working, fetch, user_of};
use crate::number;
use crate::running::Running;
use crate::support::app::PASSWORD;
use crate::support::browser::{Ask, Browser};
use crate::support::random::Random;

/// Rounds of each fault, and of power cuts.
const ROUNDS: u64 = 5;
/// Power cuts on one directory, before another begins.
const CUTS_IN_A_LIFE: u64 = 5;
/// A power cut comes within so many calls that write or sync: a few batches, or a start.
const MOST_CALLS: usize = 120;
/// Leaving in order takes fewer: one checkpoint.
const MOST_CALLS_AT_LEAVING: usize = 12;
/// As `faults.c` leaves.
const CUT: i32 = 137;
/// How often it is looked whether a gateway serves or has died.
const LOOK: Duration = Duration::from_millis(50);

/// The library, built once.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/durability/faults.c");
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (library, new) =
            (place.join("faults.so"), place.join(format!("faults-{}.so", std::process::id())));
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]).arg(&new).arg(source);
        let done = cc.args(["-ldl", "-lpthread"]).output().expect("a C compiler, as the build needs one");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        // In one step: another run of the tests may use the one that is there.
        fs::rename(new, &library).unwrap();
        library
    })
}

/// A site whose gateway runs above the library.
struct Faulty {
    site: Site,
    ledger: Arc<Ledger>,
}

impl Faulty {
    async fn new(custody: Custody) -> Self {
        Self { site: Site::new(custody).await, ledger: Arc::default() }
    }

    fn begin(&self) -> Running {
        let place = self.site.place.path().canonicalize().unwrap();
        let (library, below, control) = (library().display(), place.join("data"), self.control());
        let (below, control) = (below.display(), control.display());
        self.site.begin(&format!(
            "export LD_PRELOAD='{library}' TENURE_FAULTS_BELOW='{below}' TENURE_FAULTS='{control}'; "
        ))
    }

    fn control(&self) -> PathBuf {
        self.site.place.path().join("faults")
    }

    /// In one step: the library reads it at any moment.
    fn set(&self, mode: &str) {
        let new = self.site.place.path().join("faults.new");
        fs::write(&new, mode).unwrap();
        fs::rename(new, self.control()).unwrap();
    }

    fn load(&self, live: &Live, round: u64, random: &mut Random) -> Working {
        Working::begin(live, &self.ledger, self.site.custody, round, random.next())
    }

    /// Starts without the library, and compares.
    async fn agrees(&self, random: &mut Random, is_last: bool, when: &str) {
        let live = self.site.start().await;
        let wrong = compare(&live, &self.ledger, &self.site.app, random, is_last).await;
        assert!(wrong.is_empty(), "{:?}, {when}:\n{wrong:#?}", self.site.custody);
        live.leave_or_die(random).await;
    }
}

async fn some_ms(random: &mut Random, least: usize, most: usize) {
    sleep(Duration::from_millis((least + random.below(most - least)) as u64)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_writes_fall_short_nothing_is_acknowledged_that_a_death_could_lose() {
    outlive("short", Custody::Track).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_nothing_is_acknowledged_that_a_death_could_lose() {
    outlive("full", Custody::Vault).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_syncs_fail_nothing_is_acknowledged_that_a_death_could_lose() {
    outlive("fsync", Custody::Track).await;
}

/// Rounds of one fault on one directory, each with a death: after the fault, or within it.
async fn outlive(mode: &str, custody: Custody) {
    let (rounds, seed) = (number("TENURE_POWER_CUTS", ROUNDS), number("TENURE_SEED", 1));
    let faulty = Faulty::new(custody).await;
    let mut random = Random(seed.wrapping_mul(2000).wrapping_add(mode.len() as u64));
    for round in 0..rounds {
        faulty.meet(mode, round, &mut random).await;
        faulty.agrees(&mut random, round + 1 == rounds, &format!("{mode}, round {round}")).await;
    }
    let counts = faulty.ledger.counts();
    eprintln!("{mode}: {rounds} rounds, {counts:?}: none was lost");
    assert!(counts.sign_ins as u64 > rounds && counts.ends as u64 > rounds, "{mode}: next to no load");
}

impl Faulty {
    async fn meet(&self, mode: &str, round: u64, random: &mut Random) {
        self.set("off");
        let live = self.site.serves(self.begin()).await;
        let before = Before::set(&live, self, round).await;
        let working = self.load(&live, round, random);
        some_ms(random, 50, 200).await;
        self.set(mode);
        live.operator().degraded_becomes(1).await;
        before.holds(&live, self).await;
        some_ms(random, 50, 300).await;
        if round.is_multiple_of(2) {
            self.set("off");
            live.operator().degraded_becomes(0).await;
            some_ms(random, 20, 150).await;
        }
        live.kill().await;
        assert!(working.ends().await > 0, "{mode}, round {round}: the load met no fault");
    }
}

/// Users besides the load, who were there before the fault.
struct Before {
    cookie: String,
    users: [String; 2],
}

impl Before {
    async fn set(live: &Live, faulty: &Faulty, round: u64) -> Self {
        let users = [format!("stays{round}"), format!("goes{round}")];
        let browsers = [sign_in(live, &users[0]).await, sign_in(live, &users[1]).await];
        assert_eq!(browsers.each_ref().map(|(status, _)| *status), [302, 302]);
        let name = faulty.site.custody.cookie();
        let cookie = format!("{name}={}", browsers[0].1.cookie(name).unwrap());
        Self { cookie, users }
    }

    /// While nothing can be written: who is signed in goes on, nobody is told of an end or a beginning that is not safe; not
    /// when it is asked for once more either, though there is nothing left to end.
    async fn holds(&self, live: &Live, faulty: &Faulty) {
        let (operator, [stays, goes]) = (live.operator(), &self.users);
        let me = fetch(&Browser::at(live.http), "/me", &self.cookie).await.unwrap();
        assert_eq!(user_of(&me).as_ref(), Some(stays), "{}", me.status);
        let (status, browser) = sign_in(live, "late").await;
        assert_eq!((status, browser.cookie(faulty.site.custody.cookie())), (503, None));
        let id = operator.id_of(goes).await.unwrap().expect("signed in");
        for attempt in 0..2 {
            let body = json!({ "user": goes });
            let page = operator.ask(Method::POST, "/v1/sessions/revoke", Some(&body)).await.unwrap();
            assert_eq!(page.status, 503, "attempt {attempt}: {}", page.text());
            assert_eq!(page.json()["in_force"], "local");
            let page = operator.ask(Method::DELETE, &format!("/v1/sessions/{id}"), None).await.unwrap();
            assert_eq!(page.status, 503, "attempt {attempt}: {}", page.text());
        }
    }
}

async fn sign_in(live: &Live, user: &str) -> (u16, Browser) {
    let browser = Browser::at(live.http);
    let ask = Ask::form("/login", &[("username", user), ("password", PASSWORD)]).no_follow();
    (browser.send(ask).await.unwrap().status, browser)
}

/// When the power goes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    AtStart,
    UnderLoad,
    AtLeaving,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let (rounds, seed) = (number("TENURE_POWER_CUTS", ROUNDS), number("TENURE_SEED", 1));
    let (mut cuts, mut sign_ins, mut ends) = (0, 0, 0);
    for life in 0..rounds.div_ceil(CUTS_IN_A_LIFE) {
        let faulty = Faulty::new(Custody::of(life)).await;
        let mut random = Random(seed.wrapping_mul(3000).wrapping_add(life));
        let in_this = CUTS_IN_A_LIFE.min(rounds - life * CUTS_IN_A_LIFE);
        for round in 0..in_this {
            let moment =
                random.pick(&[Moment::UnderLoad, Moment::UnderLoad, Moment::AtStart, Moment::AtLeaving]);
            cuts += u64::from(faulty.is_cut(moment, round, &mut random).await);
            let when = format!("life {life}, round {round}, {moment:?}");
            faulty.agrees(&mut random, round + 1 == in_this, &when).await;
        }
        let counts = faulty.ledger.counts();
        sign_ins += counts.sign_ins;
        ends += counts.ends;
    }
    eprintln!("{cuts} power cuts: of {sign_ins} acknowledged sign-ins and {ends} ends none was lost");
    assert!(cuts > 0 && sign_ins as u64 > cuts, "the power hardly went, or the load did next to nothing");
}

impl Faulty {
    /// Runs until the power goes; `false` where it left in order before that.
    async fn is_cut(&self, moment: Moment, round: u64, random: &mut Random) -> bool {
        let is_leaving = matches!(moment, Moment::AtLeaving);
        let calls = random.below(if is_leaving { MOST_CALLS_AT_LEAVING } else { MOST_CALLS });
        let cut = format!("power {} {calls}", random.next());
        self.set(if matches!(moment, Moment::AtStart) { &cut } else { "off" });
        let Some(mut live) = self.serves_or_dies().await else { return true };
        let working = self.load(&live, round, random);
        some_ms(random, 20, 250).await;
        let working = if is_leaving {
            // What is under way at the end of a load would use up the calls.
            working.ends().await;
            None
        } else {
            Some(working)
        };
        self.set(&cut);
        if is_leaving {
            live.gateway.signal(Signal::TERM);
        }
        let status = live.gateway.ends().await.code();
        if let Some(working) = working {
            working.ends().await;
        }
        live.assert_no_panic();
        let may_leave = is_leaving && status == Some(0);
        assert!(status == Some(CUT) || may_leave, "{status:?}\n{}", live.gateway.err());
        status == Some(CUT)
    }

    async fn serves_or_dies(&self) -> Option<Live> {
        let mut gateway = self.begin();
        loop {
            if gateway.err().contains(" ready") {
                return Some(self.site.serves(gateway).await);
            }
            if let Ok(status) = timeout(LOOK, gateway.ends()).await {
                assert_eq!(status.code(), Some(CUT), "{}", gateway.err());
                return None;
            }
        }
    }
}
