//! The app's own sessions, kept the way the switched profile keeps them. The app knows nothing of a gateway: what it
//! is told by cookies is all it has.

use std::collections::{HashMap, HashSet, VecDeque};

use super::switches::{Profile, Resurrect, Switches};
use super::wire::Head;

/// A chunk of [`Profile::Chunked`], as ASP.NET Core cuts them.
const CHUNK_BYTES: usize = 4050;
/// A chunked value is so long: two chunks.
const CHUNKED_BYTES: usize = 6000;
const REMEMBER_SECONDS: u64 = 14 * 24 * 3600;

/// Whom a session belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name given at sign-in.
    pub user: String,
    /// What stands between `@` and the next dot; `default` when there is none.
    pub tenant: String,
    /// `admin` for names that begin so, else `user`.
    pub roles: Vec<String>,
}

impl Person {
    /// The person of a name.
    pub fn named(user: &str) -> Self {
        let tenant =
            user.split_once('@').map_or("default", |(_, domain)| domain.split('.').next().unwrap_or(domain));
        let role = if user.starts_with("admin") { "admin" } else { "user" };
        Self { user: user.to_owned(), tenant: tenant.to_owned(), roles: vec![role.to_owned()] }
    }
}

#[derive(Clone, Debug, Default)]
struct Record {
    user: Option<String>,
    half_way: Option<String>,
    moved: bool,
    token: String,
}

/// What one request means to the sessions, and the cookies that its answer will set.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// The session's inner id.
    pub id: Option<String>,
    /// Who it is.
    pub user: Option<String>,
    token: String,
    session_cookies: Vec<String>,
    other_cookies: Vec<String>,
}

impl Visit {
    /// The values of the answer's `Set-Cookie` lines.
    pub fn set_cookies(&self) -> impl Iterator<Item = &String> {
        self.session_cookies.iter().chain(&self.other_cookies)
    }
}

/// All sessions of the app.
#[derive(Debug, Default)]
pub struct Sessions {
    records: HashMap<String, Record>,
    ids_by_token: HashMap<String, String>,
    remembered: HashMap<String, String>,
    next_tokens: VecDeque<String>,
    issued: HashSet<String>,
}

impl Sessions {
    /// Every token that was ever put into a `Set-Cookie`, companions and chunks included.
    pub fn issued(&self) -> Vec<String> {
        self.issued.iter().cloned().collect()
    }

    /// The next value to hand out, in place of a random one.
    pub fn hand_out(&mut self, token: &str) {
        self.next_tokens.push_back(token.to_owned());
    }

    /// Forgets all sessions, as a restart of the app would.
    pub fn forget(&mut self) {
        self.records.clear();
        self.ids_by_token.clear();
        self.remembered.clear();
    }

    /// How many sessions are signed in.
    pub fn signed_in(&self) -> usize {
        self.records.values().filter(|record| record.user.is_some()).count()
    }

    /// Reads a request's cookies.
    pub fn arrive(&mut self, s: &Switches, head: &Head) -> Visit {
        let cookies = cookies(head);
        let mut visit = Visit { id: self.find(s, head, &cookies), ..Visit::default() };
        if let Some(record) = visit.id.as_ref().and_then(|id| self.records.get(id)) {
            visit.user.clone_from(&record.user);
            visit.token.clone_from(&record.token);
        }
        if visit.user.is_none() {
            self.sign_in_again(s, &cookies, &mut visit);
        }
        if visit.id.is_none() && s.anonymous_cookie {
            visit.id = Some(self.open());
            self.set_session_cookie(s, &mut visit);
        } else if visit.session_cookies.is_empty() && self.refreshes(s, &cookies, &visit) {
            self.set_session_cookie(s, &mut visit);
        }
        visit
    }

    fn find(&mut self, s: &Switches, head: &Head, cookies: &[(String, String)]) -> Option<String> {
        let token = presented(s, head, cookies)?;
        if let Some(id) = self.ids_by_token.get(&token).filter(|id| self.records.contains_key(*id)) {
            return Some(id.clone());
        }
        if s.profile != Profile::Recycle {
            return None;
        }
        self.records.insert(token.clone(), Record { token: token.clone(), ..Record::default() });
        self.ids_by_token.insert(token.clone(), token.clone());
        Some(token)
    }

    /// A live companion signs the browser in without being asked.
    fn sign_in_again(&mut self, s: &Switches, cookies: &[(String, String)], visit: &mut Visit) {
        let Some(name) = &s.remember_me else { return };
        let companion = cookies.iter().find(|(n, _)| n == name);
        let Some(user) = companion.and_then(|(_, value)| self.remembered.get(value)).cloned() else { return };
        self.enter(s, visit, &user);
    }

    fn refreshes(&self, s: &Switches, cookies: &[(String, String)], visit: &Visit) -> bool {
        let by_profile = || match s.profile {
            Profile::RotateEach => true,
            Profile::Route => !cookies
                .iter()
                .any(|(name, value)| *name == s.cookie && value.ends_with(&format!(".{}", s.route))),
            Profile::Opaque
            | Profile::Recycle
            | Profile::RotateLogin
            | Profile::Chunked
            | Profile::DoubleSet => false,
        };
        visit.id.is_some() && (s.rolling || by_profile())
    }

    /// Remembers that the password was right and the second step is still to come.
    pub fn half_way(&mut self, s: &Switches, visit: &mut Visit, user: &str) {
        let id = visit.id.clone().unwrap_or_else(|| self.open());
        self.records.entry(id.clone()).or_default().half_way = Some(user.to_owned());
        visit.id = Some(id);
        self.set_session_cookie(s, visit);
    }

    /// Who waits for the second step.
    pub fn waiting(&self, visit: &Visit) -> Option<String> {
        self.records.get(visit.id.as_ref()?)?.half_way.clone()
    }

    /// Signs in.
    pub fn sign_in(&mut self, s: &Switches, visit: &mut Visit, user: &str) {
        self.enter(s, visit, user);
        if let Some(name) = &s.remember_me {
            let value = random_hex(16);
            self.issued.insert(value.clone());
            self.remembered.insert(value.clone(), user.to_owned());
            visit
                .other_cookies
                .push(format!("{name}={value}{}", attributes(s, false, Some(REMEMBER_SECONDS))));
        }
    }

    fn enter(&mut self, s: &Switches, visit: &mut Visit, user: &str) {
        let renewed = matches!(s.profile, Profile::RotateLogin | Profile::Chunked);
        let id = match visit.id.take() {
            Some(old) if renewed => {
                if s.profile == Profile::RotateLogin {
                    self.records.remove(&old);
                }
                self.open()
            }
            Some(same) => same,
            None => self.open(),
        };
        let record = self.records.entry(id.clone()).or_default();
        record.user = Some(user.to_owned());
        record.half_way = None;
        record.moved = true;
        visit.id = Some(id);
        visit.user = Some(user.to_owned());
        self.set_session_cookie(s, visit);
    }

    /// Signs out.
    pub fn sign_out(&mut self, s: &Switches, visit: &mut Visit) {
        let id = visit.id.take();
        let moved = id.as_ref().and_then(|id| self.records.get(id)).is_some_and(|record| record.moved);
        let user = visit.user.take();
        if let Some(name) = &s.remember_me {
            visit.other_cookies.push(format!("{name}={}", attributes(s, false, Some(0))));
        }
        if let (Some(id), false) = (&id, s.replay) {
            self.records.remove(id);
            self.remembered.retain(|_, owner| Some(&*owner) != user.as_ref());
        }
        if s.profile == Profile::Recycle {
            visit.session_cookies.clear();
        } else if s.anonymous_cookie {
            visit.id = Some(self.open());
            self.set_session_cookie(s, visit);
        } else {
            visit.session_cookies = deletions(s, moved);
        }
    }

    /// What `/slow` leaves behind: `before` is the visit as it was when the request began.
    pub fn finish_slow(&mut self, s: &Switches, before: &Visit, visit: &mut Visit) {
        let Some(id) = &before.id else { return };
        let alive = self.records.contains_key(id);
        match s.resurrect {
            Resurrect::None if !alive => return,
            Resurrect::None => {}
            Resurrect::Same => {
                let record = self.records.entry(id.clone()).or_default();
                record.user.clone_from(&before.user);
                record.token.clone_from(&before.token);
                self.ids_by_token.insert(before.token.clone(), id.clone());
                visit.id = Some(id.clone());
            }
            Resurrect::New => {
                let fresh = self.open();
                self.records.entry(fresh.clone()).or_default().user.clone_from(&before.user);
                visit.id = Some(fresh);
            }
        }
        self.set_session_cookie(s, visit);
    }

    fn open(&mut self) -> String {
        let id = random_hex(16);
        self.records.insert(id.clone(), Record::default());
        id
    }

    fn mint(&mut self, length: usize) -> String {
        self.next_tokens.pop_front().unwrap_or_else(|| random_hex(length / 2))
    }

    /// Sets the cookie of the visit's session in its answer; an earlier one of the same answer is forgotten.
    fn set_session_cookie(&mut self, s: &Switches, visit: &mut Visit) {
        let Some(id) = visit.id.clone() else { return };
        let record = self.records.get(&id).cloned().unwrap_or_default();
        let token = if record.token.is_empty() || s.profile == Profile::RotateEach {
            let token = self.mint(if s.profile == Profile::Chunked { CHUNKED_BYTES } else { 32 });
            self.ids_by_token.insert(token.clone(), id.clone());
            self.records.entry(id).or_default().token.clone_from(&token);
            token
        } else {
            record.token
        };
        visit.token.clone_from(&token);
        self.issued.extend(chunks(&token).map(|(_, chunk)| chunk));
        let tail = attributes(s, record.moved, s.attributes.max_age);
        let name = &s.cookie;
        visit.session_cookies = match s.profile {
            Profile::Chunked => chunks(&token)
                .map(|(number, chunk)| format!("{name}C{number}={chunk}{tail}"))
                .chain([format!("{name}=chunks-2{tail}")])
                .collect(),
            Profile::Route => vec![format!("{name}={token}.{}{tail}", s.route)],
            Profile::DoubleSet => {
                let unmeant = random_hex(16);
                self.issued.insert(unmeant.clone());
                vec![format!("{name}={unmeant}{tail}"), format!("{name}={token}{tail}")]
            }
            Profile::Opaque | Profile::Recycle | Profile::RotateEach | Profile::RotateLogin => {
                vec![format!("{name}={token}{tail}")]
            }
        };
    }
}

fn chunks(token: &str) -> impl Iterator<Item = (usize, String)> {
    token
        .as_bytes()
        .chunks(CHUNK_BYTES)
        .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
        .enumerate()
        .map(|(at, chunk)| (at + 1, chunk))
}

/// The pairs of all `Cookie` fields, in order.
pub fn cookies(head: &Head) -> Vec<(String, String)> {
    head.all("cookie")
        .flat_map(|value| String::from_utf8_lossy(value).split(';').map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pair| {
            pair.trim().split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The token that the app would read from this request.
fn presented(s: &Switches, head: &Head, cookies: &[(String, String)]) -> Option<String> {
    let named = |name: &str| {
        let mut values = cookies.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone());
        let value = if s.last_duplicate { values.next_back() } else { values.next() };
        if s.decodes_cookies { value.map(|value| decoded(&value)) } else { value }
    };
    let token = match s.profile {
        Profile::Chunked => {
            named(&s.cookie)?;
            Some([1, 2].iter().filter_map(|number| named(&format!("{}C{number}", s.cookie))).collect())
        }
        Profile::Route => named(&s.cookie).map(|value| without_route(&value)),
        Profile::Opaque
        | Profile::Recycle
        | Profile::RotateEach
        | Profile::RotateLogin
        | Profile::DoubleSet => named(&s.cookie),
    };
    token.or_else(|| if s.url_ids { in_url(s, head) } else { None })
}

fn decoded(value: &str) -> String {
    let Some(quoted) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
    };
    let mut parts = quoted.split('\\');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
        Some(byte) => text + &char::from(byte).to_string() + &part[3..],
        None => text + part,
    })
}

fn without_route(value: &str) -> String {
    value.rsplit_once('.').map_or(value, |(id, _)| id).to_owned()
}

fn in_url(s: &Switches, head: &Head) -> Option<String> {
    let parameters = head.path().split(';').skip(1);
    let in_path = parameters.filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
        let value = value.split('/').next().unwrap_or(value);
        name.eq_ignore_ascii_case(&s.cookie).then(|| value.to_owned())
    });
    in_path.or_else(|| head.query(&s.cookie))
}

fn attributes(s: &Switches, moved: bool, max_age: Option<u64>) -> String {
    let a = &s.attributes;
    let path = s.move_path.as_ref().filter(|_| moved).unwrap_or(&a.path);
    let domain = s.move_domain.as_ref().filter(|_| moved).or(a.domain.as_ref());
    let mut text = format!("; Path={path}");
    let mut add = |part: String| text.push_str(&part);
    if let Some(domain) = domain {
        add(format!("; Domain={domain}"));
    }
    if let Some(seconds) = max_age {
        add(format!("; Max-Age={seconds}"));
    }
    if a.secure {
        add("; Secure".to_owned());
    }
    if a.http_only {
        add("; HttpOnly".to_owned());
    }
    if let Some(same_site) = a.same_site {
        add(format!("; SameSite={same_site}"));
    }
    if a.partitioned {
        add("; Partitioned".to_owned());
    }
    text
}

fn deletions(s: &Switches, moved: bool) -> Vec<String> {
    let tail = format!("; Expires=Thu, 01 Jan 1970 00:00:00 GMT{}", attributes(s, moved, None));
    let suffixes: &[&str] = if s.profile == Profile::Chunked { &["", "C1", "C2"] } else { &[""] };
    suffixes.iter().map(|suffix| format!("{}{suffix}={tail}", s.cookie)).collect()
}

fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).expect("the system gives random bytes");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
