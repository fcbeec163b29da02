//! Tenure: a session enforcement gateway.
//!
//! It stands in front of a web app that nobody can change, follows the app's own session cookies, and enforces idle
//! time-out, forced re-login and a limit of concurrent sessions on every request.
//!
//! # The promise
//!
//! A session that must be over is over: on every connection, at every request. A session that is not is left alone.
//! Everything else stands around this promise and never weakens it.
//!
//! # Words
//!
//! *Token*: the secret value of a configured cookie; only its keyed hash, the *key*, is kept. *Session*: the record
//! of one login or one anonymous visit; its public *id* is no credential. *Identity*: user, tenant and roles, as a
//! *source* named them. *Policy*: what a session is held to; it comes from *layers*. *Evidence*: what the presented
//! tokens turned out to be. *Action*: what happens to a request. *Lesson*: what a response teaches.
//!
//! # Map
//!
//! | module | what it does |
//! |---|---|
//! | `clock` | the only file that reads the time; manual in tests |
//! | `session` | the pure core: deadlines, admission, the gate, cookies, paths, lessons. Values in, values out |
//! | `config` | file -> checked configuration, with all faults at once |
//! | `telemetry` | logs, access and audit lines, metrics |
//! | `store` | the table in memory; makes the core's decisions atomic |
//! | `vault` | custody of an app's cookies, where the browser must not hold them |
//! | `proxy` | the data path: request -> verdict -> upstream -> lesson -> answer |
//! | `pages` | the few pages of our own |
//! | `admin` | the API on its own listener |
//! | `server` | listeners, workers, reload, drain; ties proxy and admin together |
//! | `cli`, `demo` | the commands, and the demonstration app |
//!
//! Dependencies point downwards only: `clock, config, session <- telemetry <- store <- vault <- proxy`; `store <- pages`;
//! `{proxy, admin} <- server <- {cli, demo} <- main`. `tests/tidy.rs` holds this.
//!
//! # The path of a request
//!
//! `Proxy::handle`: framing checked -> app by host -> path normalised (what the rules saw is what is forwarded) ->
//! reserved prefix? -> tokens out of `Cookie` -> keyed hash -> table -> [`session::gate::weigh`] ->
//! [`session::gate::decide`] -> answer, or the head written anew -> registered as an exchange of its session -> judged
//! again right before the head is written -> upstream. The response: identity sources asked ->
//! [`session::lesson::learn`] -> table -> headers -> body streams -> one access line, written by a guard's drop.
//!
//! # How an end reaches everything
//!
//! The table marks the session under its lock; the observer tells every worker; each worker cuts its exchanges of
//! that session: an answer whose head is not written is replaced, WebSockets get close code 4401, event streams end.
//! The admin API waits for all workers to have done so before a revocation's call returns.
//!
//! # Threads
//!
//! One current-thread runtime per worker, listeners shared by `SO_REUSEPORT`; services and bodies are `!Send`. One
//! control runtime for the admin API, sweeping, reload, signals and the keys of identity providers. No lock or map
//! guard is held across an await.
//!
//! # Invariants
//!
//! * Only `session::policy::judge` says whether a session is live; the sweeper never decides.
//! * There is no transition out of `State::Ended`.
//! * Only `proxy::intake::forwarded` says which tokens reach the app.
//! * A touch happens in `Table::note_request` and `Table::touch`, after a verdict under the same lock.
//! * No `Debug` of the core prints a token or a key.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod pages;
pub mod proxy;
pub mod server;
pub mod session;
pub mod store;
pub mod telemetry;
pub mod vault;
