//! Which server it is that a connection leads to, and whether it can have lost anything since: what a server was told it has
//! for as long as it runs (`run_id`) and follows no other one (`master_replid` is another one after it did). In a cluster all
//! primaries together.
//!
//! Without that every new connection would have to be taken for one to another server, which is given everything that is
//! known here: of a server that is merely slow, that would make a slower one.

use parking_lot::Mutex;
use redis::{Cmd, Value};

use super::link::LinkFault;
use crate::clock::Stopwatch;

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

    /// Rises with every other server, and with every new connection where it cannot be told which one it leads to: what was
    /// written last may be lost by then.
    pub(super) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Since when it has been another one than the first.
    pub(super) fn another_since(&self) -> Option<Stopwatch> {
        self.state.lock().another_since
    }

    /// A link leads to `found`, and led to `before` until now; a new link, to where others led last.
    pub(super) fn is_met(&self, before: Option<&Incarnation>, found: Option<&Incarnation>) {
        let mut state = self.state.lock();
        let is_same = found.is_some() && found == before.or(state.last.as_ref());
        if !is_same {
            self.is_another(&mut state);
        }
        state.last = found.cloned();
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

/// Which run of which servers it is: see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Incarnation(Vec<String>);

/// Asks who it is. `None` where that cannot be told: not every service that speaks the protocol says it, and the user may
/// not be allowed to ask (`+info`).
pub(super) async fn of<F: Future<Output = Result<Value, LinkFault>>>(
    ask: impl Fn(Cmd) -> F,
) -> Result<Option<Incarnation>, LinkFault> {
    let mut found = Vec::new();
    for (section, name) in [("server", "run_id"), ("replication", "master_replid")] {
        let mut info = redis::cmd("INFO");
        info.arg(section);
        match ask(info).await {
            Ok(answer) => match field(&answer, name) {
                Some(values) => found.extend(values),
                None => return Ok(None),
            },
            Err(LinkFault::Refused(why)) => {
                tracing::debug!(%why, "the store's server does not say which one it is");
                return Ok(None);
            }
            Err(away) => return Err(away),
        }
    }
    found.sort_unstable();
    Ok(Some(Incarnation(found)))
}

/// What the server says under that name; in a cluster each of them.
fn field(answer: &Value, name: &str) -> Option<Vec<String>> {
    let text = match answer {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text,
        Value::Map(servers) => {
            let all: Option<Vec<Vec<String>>> = servers.iter().map(|(_, said)| field(said, name)).collect();
            return all.filter(|all| !all.is_empty()).map(|all| all.concat());
        }
        _ => return None,
    };
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    (!value.is_empty()).then(|| vec![value.to_owned()])
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
        let (first, second) = (first.as_ref(), second.as_ref());
        let times = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = std::sync::Arc::clone(&times);
        let server = Server::new(move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let met = |before, found| {
            server.is_met(before, found);
            times.load(std::sync::atomic::Ordering::Relaxed)
        };
        assert_eq!(met(None, first), 0, "nothing was written to another one");
        assert_eq!(met(None, first), 0, "a second link leads there, too");
        assert!(server.another_since().is_none());
        assert_eq!(met(first, first), 0, "after a connection broke");
        assert_eq!(met(first, second), 1);
        assert!(server.another_since().is_some());
        assert_eq!(met(first, second), 2, "what the other link wrote last was written to the first");
        assert_eq!(met(second, None), 3, "it does not say");
        assert_eq!(met(None, None), 4, "nobody knows whether it is the same");
        server.has_lost();
        assert_eq!((met(None, None), server.generation()), (6, 7));
    }

    #[test]
    fn who_does_not_say_who_he_is_is_nobody_known() {
        assert_eq!(told(text("# Server\r\n"), text("master_replid:bb\r\n")), None);
        assert_eq!(told(text("run_id:\r\n"), text("master_replid:bb\r\n")), None);
        assert_eq!(told(Value::Nil, Value::Nil), None);
        assert_eq!(told(Value::Map(Vec::new()), Value::Map(Vec::new())), None);
    }

    #[test]
    fn of_a_cluster_all_primaries_count_in_any_order() {
        let all = |runs: [&str; 2]| {
            let server = |run: &&str| (text("127.0.0.1:7000"), text(&format!("run_id:{run}\r\n")));
            let said = Value::Map(runs.iter().map(server).collect());
            told(said, Value::Map(vec![(text("127.0.0.1:7000"), text("master_replid:bb\r\n"))]))
        };
        assert_eq!(all(["aa", "ab"]), all(["ab", "aa"]));
        assert_ne!(all(["aa", "ab"]), all(["aa", "ac"]));
        assert!(all(["aa", "ab"]).is_some());
    }
}
