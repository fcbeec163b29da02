//! Which server it is that a connection leads to, and whether it can have lost anything since: what a server was told it has
//! for as long as it runs (`run_id`) and follows no other one (`master_replid` is another one after it did; also after the
//! first replica has come, or the last was gone for long, which costs nothing but writing). In a cluster all primaries
//! together.
//!
//! Without that every new connection would have to be taken for one to another server, which is given everything that is
//! known here: of a server that is merely slow, that would make a slower one.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use redis::{Cmd, Value};

use super::link::LinkFault;
use crate::clock::Stopwatch;

/// Whom a link has led to.
#[derive(Clone, Debug, Default)]
pub(super) enum Met {
    /// It has never been connected.
    #[default]
    Nobody,
    /// As far as that could be told.
    Somebody(Option<Incarnation>),
}

/// What a gateway's links know together of the server that they lead to.
pub(in crate::store) struct Server {
    state: Mutex<State>,
    /// Called whenever it turns out to be another one, before anything is asked of it.
    on_other: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    last: Option<Incarnation>,
    generation: u64,
    another_since: Option<Stopwatch>,
}

impl Server {
    /// `on_other` is called whenever it turns out to be another server than before.
    pub(super) fn new(on_other: impl Fn() + Send + Sync + 'static) -> Self {
        Self { state: Mutex::default(), on_other: Box::new(on_other) }
    }

    /// Of links that nothing is followed over.
    pub(super) fn unwatched() -> Self {
        Self::new(|| {})
    }

    /// Rises with every other server, for each link that led to the one before; with every new connection where it cannot be
    /// told which one it leads to; and where something turned out to be lost.
    pub(super) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Since when it has been another one than the first.
    pub(super) fn another_since(&self) -> Option<Stopwatch> {
        self.state.lock().another_since
    }

    /// A link leads to `found`, and led to `before` until now; a new link, to where others led last. Returns what is known of
    /// it from now on, and the generation.
    pub(super) fn is_met(&self, before: Met, found: Option<Incarnation>) -> (Met, u64) {
        let mut state = self.state.lock();
        let is_first = matches!(before, Met::Nobody);
        let known = match before {
            Met::Nobody => state.last.clone(),
            Met::Somebody(before) => before,
        };
        let is_same = match (&known, &found) {
            (Some(known), Some(found)) => found.is_part_of(known),
            // Another link has said so before, or would have.
            (None, None) => is_first && state.generation != 0,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            self.is_another(&mut state);
        }
        let known = if is_same { known.unwrap_or_default() } else { Incarnation::default() };
        state.last = found.map(|found| found.or(known));
        (Met::Somebody(state.last.clone()), state.generation)
    }

    /// It turned out to have lost something, whoever it says that it is.
    pub(super) fn has_lost(&self) {
        self.is_another(&mut self.state.lock());
    }

    fn is_another(&self, state: &mut State) {
        if state.generation != 0 {
            (self.on_other)();
            state.another_since = Some(Stopwatch::start());
        }
        state.generation += 1;
    }
}

/// Which run of which servers it is: see the module. By their addresses, where there are several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Incarnation(BTreeMap<String, [String; 2]>);

impl Incarnation {
    /// Whether nobody answered who is not known. A primary that does not answer for a moment is left out of what a cluster
    /// says; who takes its place has another address.
    fn is_part_of(&self, known: &Self) -> bool {
        self.0.iter().all(|(address, run)| known.0.get(address) == Some(run))
    }

    /// With what is known of those who did not answer.
    fn or(mut self, known: Self) -> Self {
        for (address, run) in known.0 {
            self.0.entry(address).or_insert(run);
        }
        self
    }
}

/// Asks who it is. `None` where that cannot be told: not every service that speaks the protocol says it, and the user may
/// not be allowed to ask (`+info`).
///
/// # Errors
/// [`LinkFault`] where it may be told in a moment.
pub(super) async fn of<F: Future<Output = Result<Value, LinkFault>>>(
    ask: impl Fn(Cmd) -> F,
) -> Result<Option<Incarnation>, LinkFault> {
    let about = |section: &str| {
        let mut info = redis::cmd("INFO");
        info.arg(section);
        ask(info)
    };
    let asked = futures_util::future::try_join(about("server"), about("replication")).await;
    let (server, replication) = match asked {
        Err(LinkFault::Refused(why)) if why.contains("NOPERM") || why.contains("unknown command") => {
            tracing::debug!(%why, "the store's server does not say which one it is");
            return Ok(None);
        }
        answers => answers?,
    };
    let (runs, followed) = (fields(&server, "run_id")?, fields(&replication, "master_replid")?);
    let of_one = |(address, run): (String, String)| {
        let followed = followed.iter().find(|(other, _)| *other == address)?;
        Some((address, [run, followed.1.clone()]))
    };
    let all: BTreeMap<_, _> = runs.into_iter().filter_map(of_one).collect();
    Ok((!all.is_empty()).then_some(Incarnation(all)))
}

/// What the server says under that name; in a cluster each of them, by its address.
fn fields(answer: &Value, name: &str) -> Result<Vec<(String, String)>, LinkFault> {
    let one = |address: &Value, said: &Value| {
        if let Value::ServerError(why) = said {
            return Err(LinkFault::Away(format!(
                "a server of the cluster does not say which one it is: {why:?}"
            )));
        }
        let value = text(said).and_then(|said| {
            said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::to_owned)
        });
        let address = text(address).unwrap_or_default().to_owned();
        Ok(value.filter(|value| !value.is_empty()).map(|value| (address, value)))
    };
    let found = match answer {
        Value::Map(servers) => {
            servers.iter().map(|(address, said)| one(address, said)).collect::<Result<Vec<_>, _>>()?
        }
        said => vec![one(&Value::Nil, said)?],
    };
    Ok(found.into_iter().flatten().collect())
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(said: &str) -> Value {
        Value::BulkString(said.as_bytes().to_vec())
    }

    fn told(server: Value, replication: Value) -> Option<Incarnation> {
        let answers = std::cell::RefCell::new(vec![replication, server]);
        let asked = of(|_| std::future::ready(Ok(answers.borrow_mut().pop().unwrap_or(Value::Nil))));
        futures_util::FutureExt::now_or_never(asked).and_then(Result::ok).flatten()
    }

    fn of_server(run: &str, replid: &str) -> Option<Incarnation> {
        let server = format!("# Server\r\nredis_version:7.0.15\r\nrun_id:{run}\r\ntcp_port:6379\r\n");
        told(text(&server), text(&format!("# Replication\r\nrole:master\r\nmaster_replid:{replid}\r\n")))
    }

    #[test]
    fn a_server_that_ran_anew_or_followed_another_one_is_not_the_same() {
        let known = of_server("aa", "bb");
        assert!(known.is_some());
        assert_eq!(known, of_server("aa", "bb"));
        assert_ne!(known, of_server("ab", "bb"));
        assert_ne!(known, of_server("aa", "bc"));
    }

    #[test]
    fn links_agree_on_when_it_is_another_one() {
        let (first, second) = (of_server("aa", "bb"), of_server("ab", "bb"));
        let times = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = std::sync::Arc::clone(&times);
        let server = Server::new(move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let met = |before: &Met, found: &Option<Incarnation>| {
            let (now, _) = server.is_met(before.clone(), found.clone());
            (now, times.load(std::sync::atomic::Ordering::Relaxed))
        };
        let (one, n) = met(&Met::Nobody, &first);
        assert_eq!(n, 0, "nothing was written to another one");
        let (other, n) = met(&Met::Nobody, &first);
        assert_eq!(n, 0, "a second link leads there, too");
        assert!(server.another_since().is_none());
        assert_eq!(met(&one, &first).1, 0, "after a connection broke");
        let (one, n) = met(&one, &second);
        assert_eq!(n, 1);
        assert!(server.another_since().is_some());
        assert_eq!(met(&other, &second).1, 2, "what the other link wrote last was written to the first");
        let (one, n) = met(&one, &None);
        assert_eq!(n, 3, "it does not say");
        assert_eq!(met(&one, &None).1, 4, "nobody knows whether it is the same");
        assert_eq!(met(&Met::Nobody, &None).1, 4, "a link that was never connected has written nothing");
        server.has_lost();
        assert_eq!((met(&one, &None).1, server.generation()), (6, 7));
    }

    #[test]
    fn who_does_not_say_who_he_is_is_nobody_known() {
        assert_eq!(told(text("# Server\r\n"), text("master_replid:bb\r\n")), None);
        assert_eq!(told(text("run_id:\r\n"), text("master_replid:bb\r\n")), None);
        assert_eq!(told(Value::Nil, Value::Nil), None);
        assert_eq!(told(Value::Map(Vec::new()), Value::Map(Vec::new())), None);
        let refused = |why: &str| {
            let asked = of(|_| std::future::ready(Err(LinkFault::Refused(why.to_owned()))));
            futures_util::FutureExt::now_or_never(asked)
        };
        assert!(matches!(refused("NOPERM: no permission for 'info'"), Some(Ok(None))));
        assert!(matches!(refused("NOAUTH: sign in first"), Some(Err(_))), "it may say so later");
    }

    #[test]
    fn of_a_cluster_all_primaries_count_but_one_that_does_not_answer() {
        let all = |runs: &[(&str, &str)]| {
            let of = |name: &str, value: &dyn Fn(&str) -> String| {
                let said = |(at, run): &(&str, &str)| (text(at), text(&format!("{name}:{}\r\n", value(run))));
                Value::Map(runs.iter().map(said).collect())
            };
            let own = |run: &str| run.to_owned();
            told(of("run_id", &own), of("master_replid", &|_| "bb".to_owned())).unwrap()
        };
        let known = all(&[("a", "1"), ("b", "2")]);
        assert!(all(&[("b", "2"), ("a", "1")]).is_part_of(&known));
        assert!(all(&[("a", "1")]).is_part_of(&known), "the other one is slow");
        assert_eq!(all(&[("a", "1")]).or(known.clone()), known);
        assert!(!all(&[("a", "1"), ("b", "3")]).is_part_of(&known), "it ran anew");
        assert!(!all(&[("a", "1"), ("c", "2")]).is_part_of(&known), "one took the place of another");
    }
}
