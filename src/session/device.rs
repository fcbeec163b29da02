//! Which device a browser runs on, as far as its `User-Agent` tells: enough for a person to recognise it in a list
//! of sessions. It is a courtesy to people; nothing is ever decided by it, since anybody can send any text.
//!
//! Names come from small tables, looked up in order: the more particular entry stands before the general one that
//! its text contains as well (every Edge says `Chrome/`, every Chrome says `Safari/`).

use std::fmt;

/// No more than this many bytes are read; what real browsers send stays far below.
const MAX_READ_BYTES: usize = 512;

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// A desktop or laptop computer.
    Desktop,
    /// A telephone.
    Phone,
    /// A tablet.
    Tablet,
    /// A television or a games console.
    Tv,
    /// A crawler that names itself as one.
    Bot,
    /// A program other than a browser.
    Program,
}

impl DeviceKind {
    /// The contract's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Phone => "phone",
            Self::Tablet => "tablet",
            Self::Tv => "tv",
            Self::Bot => "bot",
            Self::Program => "program",
        }
    }
}

/// What a `User-Agent` tells; `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The browser or program, without version.
    pub browser: Option<&'static str>,
    /// The operating system, without version: browsers no longer tell it truly.
    pub os: Option<&'static str>,
    /// What kind of device.
    pub kind: Option<DeviceKind>,
}

/// "Firefox on Linux", or what is known of it.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.browser, self.os) {
            (Some(browser), Some(os)) => write!(f, "{browser} on {os}"),
            (Some(browser), None) => f.write_str(browser),
            (None, Some(os)) => write!(f, "A browser on {os}"),
            (None, None) => f.write_str("An unknown device"),
        }
    }
}

type Table = &'static [(&'static str, &'static str)];

/// Programs that begin with their name.
const PROGRAMS: Table = &[
    ("curl/", "curl"),
    ("Wget/", "Wget"),
    ("python-requests/", "Python Requests"),
    ("python-httpx/", "HTTPX"),
    ("Python-urllib/", "Python"),
    ("aiohttp/", "aiohttp"),
    ("okhttp/", "OkHttp"),
    ("Go-http-client/", "Go"),
    ("Java/", "Java"),
    ("Java-http-client/", "Java"),
    ("Apache-HttpClient/", "Apache HttpClient"),
    ("PostmanRuntime/", "Postman"),
    ("insomnia/", "Insomnia"),
    ("HTTPie/", "HTTPie"),
    ("axios/", "axios"),
    ("node", "Node.js"),
    ("Ruby", "Ruby"),
    ("k6/", "k6"),
    ("hey/", "hey"),
];

/// Browsers, the particular before the general.
const BROWSERS: Table = &[
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("Edg/", "Edge"),
    ("Edge/", "Edge"),
    ("OPR/", "Opera"),
    ("OPT/", "Opera"),
    ("OPiOS/", "Opera"),
    ("Opera", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("YaBrowser/", "Yandex Browser"),
    ("UCBrowser/", "UC Browser"),
    ("MiuiBrowser/", "Mi Browser"),
    ("HuaweiBrowser/", "Huawei Browser"),
    ("Whale/", "Whale"),
    ("Silk/", "Silk"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("Ddg/", "DuckDuckGo"),
    ("Brave/", "Brave"),
    ("FBAN/", "Facebook app"),
    ("FBAV/", "Facebook app"),
    ("Instagram ", "Instagram app"),
    ("Teams/", "Teams"),
    ("Slack", "Slack"),
    ("GSA/", "Google app"),
    ("Electron/", "Electron app"),
    ("SeaMonkey/", "SeaMonkey"),
    ("PaleMoon/", "Pale Moon"),
    ("FxiOS/", "Firefox"),
    ("Focus/", "Firefox Focus"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Headless Chrome"),
    ("Chromium/", "Chromium"),
    ("; wv)", "Android WebView"),
    ("Chrome/", "Chrome"),
    ("MSIE ", "Internet Explorer"),
    ("Trident/", "Internet Explorer"),
    ("Epiphany/", "GNOME Web"),
    ("Konqueror/", "Konqueror"),
    ("Safari/", "Safari"),
    ("AppleWebKit/", "WebKit"),
    ("Lynx/", "Lynx"),
    ("w3m/", "w3m"),
];

/// Systems, the particular before the general: Android says Linux, Xbox says Windows, an iPhone says Mac OS X.
const SYSTEMS: &[(&str, &str, DeviceKind)] = &[
    ("Xbox", "Xbox", DeviceKind::Tv),
    ("PlayStation", "PlayStation", DeviceKind::Tv),
    ("Nintendo", "Nintendo", DeviceKind::Tv),
    ("Web0S", "webOS", DeviceKind::Tv),
    ("SMART-TV", "Tizen", DeviceKind::Tv),
    ("Tizen", "Tizen", DeviceKind::Phone),
    ("Windows Phone", "Windows Phone", DeviceKind::Phone),
    ("Windows", "Windows", DeviceKind::Desktop),
    ("iPhone", "iOS", DeviceKind::Phone),
    ("iPod", "iOS", DeviceKind::Phone),
    ("iPad", "iPadOS", DeviceKind::Tablet),
    ("HarmonyOS", "HarmonyOS", DeviceKind::Phone),
    ("KAIOS", "KaiOS", DeviceKind::Phone),
    ("Android", "Android", DeviceKind::Tablet),
    ("CrOS", "ChromeOS", DeviceKind::Desktop),
    ("Macintosh", "macOS", DeviceKind::Desktop),
    ("Mac OS X", "macOS", DeviceKind::Desktop),
    ("FreeBSD", "FreeBSD", DeviceKind::Desktop),
    ("OpenBSD", "OpenBSD", DeviceKind::Desktop),
    ("Linux", "Linux", DeviceKind::Desktop),
    ("X11", "Unix", DeviceKind::Desktop),
];

/// Marks by which crawlers name themselves (some telephones are of the make "CUBOT", hence the character after it).
const BOT_MARKS: &[&str] = &["bot/", "bot;", "bot)", "crawler", "spider", "slurp"];

impl Device {
    /// Reads the value of a `User-Agent` header.
    #[must_use]
    pub fn read(user_agent: &str) -> Self {
        let text = bounded(user_agent);
        if let Some((_, name)) = PROGRAMS.iter().find(|(mark, _)| text.starts_with(mark)) {
            return Self { browser: Some(name), os: None, kind: Some(DeviceKind::Program) };
        }
        let lower = text.to_ascii_lowercase();
        if BOT_MARKS.iter().any(|mark| lower.contains(mark)) {
            return Self { browser: Some("Crawler"), os: None, kind: Some(DeviceKind::Bot) };
        }
        let browser = BROWSERS.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| *name);
        let system = SYSTEMS.iter().find(|(mark, _, _)| text.contains(mark));
        Self {
            browser,
            os: system.map(|(_, name, _)| *name),
            kind: system.map(|(_, name, kind)| narrowed(name, *kind, text)),
        }
    }
}

/// Android tells telephones and televisions from tablets by further words.
fn narrowed(os: &str, kind: DeviceKind, text: &str) -> DeviceKind {
    match os {
        "Android" if text.contains("TV") => DeviceKind::Tv,
        "Android" if text.contains("Mobile") => DeviceKind::Phone,
        _ => kind,
    }
}

fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_READ_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// User agent (W and A stand for the words that nearly all contain), what a person reads, kind.
    const CASES: &[(&str, &str, &str)] = &[
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox on Linux",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) W Chrome/141.0.0.0 Safari/537.36",
            "Chrome on Windows",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) W Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0",
            "Edge on Windows",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) W Chrome/141.0.0.0 Safari/537.36 OPR/120.0.0.0",
            "Opera on Windows",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) A Version/18.5 Safari/605.1.15",
            "Safari on macOS",
            "desktop",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) A Version/18.5 Mobile/15E148 Safari/604.1",
            "Safari on iOS",
            "phone",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) A CriOS/141.0.0.0 Mobile/15E148 Safari/604.1",
            "Chrome on iOS",
            "phone",
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 17_0 like Mac OS X) A FxiOS/140.0 Mobile/15E148 Safari/605.1.15",
            "Firefox on iPadOS",
            "tablet",
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) W Chrome/141.0.0.0 Mobile Safari/537.36",
            "Chrome on Android",
            "phone",
        ),
        (
            "Mozilla/5.0 (Linux; Android 13; SM-X900) W Chrome/141.0.0.0 Safari/537.36",
            "Chrome on Android",
            "tablet",
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; SM-S901B) W SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
            "Samsung Internet on Android",
            "phone",
        ),
        (
            "Mozilla/5.0 (Linux; Android 12; CUBOT X30 Build/SP1A) W Chrome/141.0.0.0 Mobile Safari/537.36",
            "Chrome on Android",
            "phone",
        ),
        (
            "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) W Chrome/141.0.0.0 Safari/537.36",
            "Chrome on ChromeOS",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
            "Internet Explorer on Windows",
            "desktop",
        ),
        (
            "Mozilla/5.0 (X11; Linux x86_64) W HeadlessChrome/141.0.0.0 Safari/537.36",
            "Headless Chrome on Linux",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; Xbox; Xbox One) W Chrome/90 Safari/537.36 Edge/44.18363.8131",
            "Edge on Xbox",
            "tv",
        ),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Crawler", "bot"),
        ("curl/8.11.0", "curl", "program"),
        ("python-requests/2.32.3", "Python Requests", "program"),
    ];

    #[test]
    fn common_browsers_are_recognised() {
        let blink = " AppleWebKit/537.36 (KHTML, like Gecko) ";
        let apple = " AppleWebKit/605.1.15 (KHTML, like Gecko) ";
        assert!(CASES.len() > 10);
        for (user_agent, shown, kind) in CASES {
            let full = user_agent.replace(" W ", blink).replace(" A ", apple);
            let device = Device::read(&full);
            assert_eq!(device.to_string(), *shown, "{full}");
            assert_eq!(device.kind.map(DeviceKind::as_str), Some(*kind), "{full}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(Device::read(""), Device::default());
        assert_eq!(Device::read("<script>alert(1)</script>").to_string(), "An unknown device");
        assert_eq!(Device::read("Mozilla/5.0 (Linux)").to_string(), "A browser on Linux");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let long = format!("{}ä Firefox/1", "x".repeat(MAX_READ_BYTES - 1));
        assert_eq!(Device::read(&long), Device::default());
    }
}
