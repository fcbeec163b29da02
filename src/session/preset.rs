//! Presets: what is known of the cookies of common frameworks, as data. Each fact has its source beside it.
//!
//! A preset holds what a framework does when nobody configured it otherwise. Paths stand here only where the framework itself
//! has them; what every app chooses for itself (Tomcat, Rails, Flask, Express, PHP) is left to the configuration, because a
//! person who is sent to a wrong login page is worse off than one whom the app sends to the right one.

use super::profile::{Extract, NamePattern};

/// What is known of a framework.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Names of its session cookies, `*` at the end for a prefix; empty where each app has a name of its own.
    pub cookies: &'static [&'static str],
    /// How the id is taken out of a session cookie whose name says nothing about it.
    pub extract: Extract,
    /// Cookies that sign a browser in again.
    pub companions: &'static [&'static str],
    /// The login page, where the framework has one of its own.
    pub login: Option<&'static str>,
    /// Where people sign in besides a POST to the login page, in the configuration's form.
    pub sign_in: &'static [&'static str],
    /// The logout path in the configuration's form, where the framework has one of its own.
    pub logout: Option<&'static str>,
    /// It reads the id of a session, under its cookie's name, in parameters of the path too (F11). `;jsessionid=` is every
    /// app's.
    pub ids_in_path: bool,
    /// It reads the id of a session, under its cookie's name, in the query too (F11).
    pub ids_in_query: bool,
    /// After an end the app makes a session under the very id that the browser still sends (F1, R12).
    pub recycles: bool,
    /// Why `track` cannot hold, when it cannot: the cookie is the session itself or changes with every response.
    pub needs_vault: Option<&'static str>,
    /// Cookies that pages of the framework read with a script, by its own documentation: they must reach the browser.
    pub pass_cookies: &'static [&'static str],
}

impl Preset {
    /// What most frameworks have in common: nothing.
    const NONE: Self = Self {
        name: "",
        cookies: &[],
        extract: Extract::Whole,
        companions: &[],
        login: None,
        sign_in: &[],
        logout: None,
        ids_in_path: false,
        ids_in_query: false,
        recycles: false,
        needs_vault: None,
        pass_cookies: &[],
    };
}

/// All presets, in the order of the documentation.
pub const PRESETS: [Preset; 11] =
    [TOMCAT, SPRING, PHP, LARAVEL, RAILS, DJANGO, FLASK, EXPRESS, ASPNET, ASPNETCORE, COLDFUSION];

/// The preset of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    static ALL: [Preset; 11] = PRESETS;
    ALL.iter().find(|preset| preset.name == name)
}

const TOMCAT: Preset = Preset {
    name: "tomcat",
    // Servlet 6.0 specification, 7.1.1: "the standard name of the session tracking cookie must be JSESSIONID".
    cookies: &["JSESSIONID"],
    // Tomcat, Engine `jvmRoute`: the route stands behind a dot at the end of the id and changes at a failover.
    extract: Extract::WithoutRoute,
    // Tomcat, `SingleSignOn` valve: its cookie signs in to every app of the host. `remember-me`: Spring Security, below.
    companions: &["JSESSIONIDSSO", "remember-me"],
    // Tomcat, `SessionConfig.getSessionUriParamName`: the cookie's name, where the app gave it one.
    ids_in_path: true,
    ..Preset::NONE
};

const SPRING: Preset = Preset {
    name: "spring",
    // The container's own cookie, or Spring Session's `DefaultCookieSerializer`: `cookieName = "SESSION"`.
    cookies: &["JSESSIONID", "SESSION"],
    // `DefaultCookieSerializer.setJvmRoute` appends a dot and the route, as containers do; base64 holds no dot.
    extract: Extract::WithoutRoute,
    // `AbstractRememberMeServices.SPRING_SECURITY_REMEMBER_ME_COOKIE_KEY`.
    companions: &["remember-me"],
    // `FormLoginConfigurer` and `LogoutConfigurer`: the generated page is at /login, signing out is POST /logout.
    login: Some("/login"),
    logout: Some("POST /logout"),
    // The container's, as above; Spring Session writes and reads none (`CookieHttpSessionIdResolver`).
    ids_in_path: true,
    // `CookieCsrfTokenRepository.DEFAULT_CSRF_COOKIE_NAME`: "to support a JavaScript based application".
    pass_cookies: &["XSRF-TOKEN"],
    ..Preset::NONE
};

const PHP: Preset = Preset {
    name: "php",
    // php.ini `session.name`.
    cookies: &["PHPSESSID"],
    // php.ini `session.use_only_cookies` and `session.use_trans_sid`.
    ids_in_query: true,
    // php.ini `session.use_strict_mode`, 0 by default: an id that PHP does not know begins a session under that very id.
    recycles: true,
    ..Preset::NONE
};

const LARAVEL: Preset = Preset {
    name: "laravel",
    // config/session.php: slug of APP_NAME, "laravel" by default, and `_session`; `-session` from Laravel 13 on. An app with
    // a name of its own has a cookie of its own.
    cookies: &["laravel_session", "laravel-session"],
    // `SessionGuard::getRecallerName`: `remember_{guard}_{sha1}`, of which `web` is the default guard.
    companions: &["remember_web_*"],
    // Middleware `Authenticate` sends to the route `login`; the starter kits put it at /login and POST /logout.
    login: Some("/login"),
    logout: Some("POST /logout"),
    // Middleware `EncryptCookies`: each response has new bytes for the same id. With SESSION_DRIVER=cookie the cookie holds
    // the session itself.
    needs_vault: Some("Laravel encrypts its cookie anew for every response, and each copy stays valid"),
    // Laravel, CSRF Protection, X-XSRF-TOKEN: scripts read the cookie and send it back as a header.
    pass_cookies: &["XSRF-TOKEN"],
    ..Preset::NONE
};

const RAILS: Preset = Preset {
    name: "rails",
    // `config.session_store :cookie_store, key: "_myapp_session"`: the name is the app's, and `_*` would cover those of
    // analytics too.
    cookies: &[],
    // Devise, `Rememberable`: `remember_{scope}_token`, of which `user` is the default scope.
    companions: &["remember_user_token"],
    // `ActionDispatch::Session::CookieStore`: the session is in the cookie; old ones replay for ever (devise#4272).
    needs_vault: Some(
        "Rails keeps the whole session in its cookie, and every copy of it stays valid after a logout",
    ),
    ..Preset::NONE
};

const DJANGO: Preset = Preset {
    name: "django",
    // Settings `SESSION_COOKIE_NAME`, `LOGIN_URL`; `django.contrib.auth.urls` has logout/ beside login/. The key is stable
    // until `cycle_key` at a sign-in, and deleted by `flush` at a logout.
    cookies: &["sessionid"],
    login: Some("/accounts/login/"),
    logout: Some("/accounts/logout/"),
    // Django, "How to use CSRF protection", with AJAX: the script takes the token out of this cookie.
    pass_cookies: &["csrftoken"],
    ..Preset::NONE
};

const FLASK: Preset = Preset {
    name: "flask",
    // Flask, `SESSION_COOKIE_NAME`.
    cookies: &["session"],
    // Flask-Login, `COOKIE_NAME`.
    companions: &["remember_token"],
    // Flask, `SecureCookieSessionInterface`: the session is in the signed cookie.
    needs_vault: Some(
        "Flask keeps the whole session in its signed cookie, and every copy of it stays valid after a logout",
    ),
    ..Preset::NONE
};

const EXPRESS: Preset = Preset {
    name: "express",
    // express-session, option `name`. The value `s:id.signature` is stable; the session is the store's.
    cookies: &["connect.sid"],
    ..Preset::NONE
};

const ASPNET: Preset = Preset {
    name: "aspnet",
    // <sessionState cookieName>, <forms name> and, for OWIN, `CookieAuthenticationDefaults` of ASP.NET Identity. The sign-in
    // is in the two tickets: `ASP.NET_SessionId` does not change with it.
    cookies: &["ASP.NET_SessionId", ".ASPXAUTH", ".AspNet.ApplicationCookie"],
    // Microsoft, "How and why session IDs are reused in ASP.NET" (KB 899918); `regenerateExpiredSessionId`.
    recycles: true,
    ..Preset::NONE
};

const ASPNETCORE: Preset = Preset {
    name: "aspnetcore",
    // `CookieAuthenticationDefaults`: prefix `.AspNetCore.` and the scheme, "Cookies"; `IdentityConstants.ApplicationScheme`;
    // `SessionDefaults.CookieName`.
    cookies: &[".AspNetCore.Cookies", ".AspNetCore.Identity.Application", ".AspNetCore.Session"],
    // `ChunkingCookieManager`: also of an app that names its cookie itself.
    extract: Extract::Chunked,
    // `CookieAuthenticationDefaults.LoginPath` and `LogoutPath`.
    login: Some("/Account/Login"),
    // `OpenIdConnectOptions.CallbackPath`: there an identity provider sends people back, by default by a form of its own.
    sign_in: &["/signin-oidc"],
    logout: Some("/Account/Logout"),
    needs_vault: Some(
        "ASP.NET Core keeps the sign-in in the cookie itself, and every copy of it stays valid after a logout",
    ),
    // Microsoft, "Prevent Cross-Site Request Forgery", with JavaScript: the app writes the request token to this cookie.
    // `RemoteAuthenticationOptions.CorrelationCookie` and `OpenIdConnectOptions.NonceCookie`: an identity provider answers by a
    // form from its own site, with which the browser sends none but cookies of SameSite=None. They are worth nothing alone.
    pass_cookies: &["XSRF-TOKEN", ".AspNetCore.Correlation.*", ".AspNetCore.OpenIdConnect.Nonce.*"],
    ..Preset::NONE
};

const COLDFUSION: Preset = Preset {
    name: "coldfusion",
    // Adobe ColdFusion, session variables: CFID and CFTOKEN, or JSESSIONID with J2EE sessions. CFID is a number that counts
    // up, so whoever guesses one would be taken for its owner: CFTOKEN alone is the token (a UUID by default from 10 on).
    // Lucee has it the other way round, `cftoken` is 0 for everybody: there, `cookie = "cfid"`.
    cookies: &["CFTOKEN", "JSESSIONID"],
    // <cflogin> with loginStorage = "cookie": CFAUTHORIZATION_{application}.
    companions: &["CFAUTHORIZATION_*"],
    // Adobe ColdFusion, `URLSessionFormat` and <cflocation addToken>: CFID, CFTOKEN and jsessionid go into the query.
    ids_in_query: true,
    // The same CFID and CFTOKEN begin the next session after a time-out (Ben Nadel, "The same CFID-CFTOKEN values are used
    // across ColdFusion session timeouts").
    recycles: true,
    ..Preset::NONE
};

/// Why a cookie of this name is recognisably the session itself, whatever the app is; `None` for all others.
/// `.AspNetCore.Session` is the id of a session that the server keeps.
#[must_use]
pub fn session_itself(name: &NamePattern) -> Option<&'static str> {
    let stem = name.stem();
    let dotnet = match name {
        NamePattern::Exact(exact) => exact.starts_with(".AspNetCore.") && exact != ".AspNetCore.Session",
        NamePattern::Prefix(_) => stem.starts_with(".AspNetCore.") || ".AspNetCore.".starts_with(stem),
    };
    if dotnet {
        return ASPNETCORE.needs_vault;
    }
    LARAVEL
        .cookies
        .iter()
        .any(|cookie| name.matches(cookie.as_bytes()))
        .then_some(LARAVEL.needs_vault)
        .flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail as loudly as it can")]
    use super::super::path::{Pattern, normalise};
    use super::*;

    #[test]
    fn every_preset_is_found_by_its_name() {
        let names = [
            "tomcat",
            "spring",
            "php",
            "laravel",
            "rails",
            "django",
            "flask",
            "express",
            "aspnet",
            "aspnetcore",
            "coldfusion",
        ];
        assert_eq!(PRESETS.map(|preset| preset.name), names);
        assert!(names.iter().all(|name| find(name).is_some_and(|preset| preset.name == *name)));
        assert_eq!((find("Tomcat"), find("")), (None, None));
    }

    #[test]
    fn paths_are_in_the_form_in_which_requests_are_compared() {
        for preset in &PRESETS {
            for path in preset.login.iter().chain(preset.sign_in).chain(&preset.logout) {
                let path = path.split(' ').next_back().unwrap();
                assert_eq!(normalise(path, &[""; 0]).unwrap().path, path, "{}", preset.name);
                assert!(Pattern::parse(path).unwrap().matches(path));
            }
        }
    }

    #[test]
    fn no_cookie_of_a_preset_is_two_things_at_once() {
        for preset in &PRESETS {
            let all: Vec<_> =
                preset.cookies.iter().chain(preset.companions).chain(preset.pass_cookies).collect();
            for (i, a) in all.iter().enumerate() {
                let pattern = NamePattern::parse(a);
                let others = all.iter().enumerate().filter(|(j, _)| *j != i);
                let covers = |b: &str| pattern.matches(b.trim_end_matches('*').as_bytes());
                assert!(others.into_iter().all(|(_, b)| !covers(b)), "{}: {a}", preset.name);
            }
        }
    }

    #[test]
    fn cookies_that_are_the_session_itself_are_recognised() {
        for (name, itself) in [
            (".AspNetCore.Cookies", true),
            (".AspNetCore.*", true),
            (".Asp*", true),
            (".AspNetCore.Session", false),
            ("laravel_session", true),
            ("laravel*", true),
            ("JSESSIONID", false),
            ("session", false),
        ] {
            assert_eq!(session_itself(&NamePattern::parse(name)).is_some(), itself, "{name}");
        }
    }

    #[test]
    fn presets_of_cookies_that_are_the_session_itself_need_the_vault() {
        let needing = PRESETS.iter().filter(|preset| preset.needs_vault.is_some()).map(|preset| preset.name);
        assert_eq!(needing.collect::<Vec<_>>(), ["laravel", "rails", "flask", "aspnetcore"]);
        let recycling = PRESETS.iter().filter(|preset| preset.recycles).map(|preset| preset.name);
        assert_eq!(recycling.collect::<Vec<_>>(), ["php", "aspnet", "coldfusion"]);
    }
}
