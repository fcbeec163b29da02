//! Sets logging up: text for people or JSON for machines, on stderr.
//!
//! Lines go through bounded queues to threads that write them: a reader of stderr who stalls holds no request up, and one
//! who is gone ends nothing. A line that finds its queue full is dropped and counted; an audit line waits instead.

use std::sync::OnceLock;

use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait in each queue.
const QUEUE_LINES: usize = 16 * 1024;

static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Writes out what still waits when dropped, within a moment.
pub struct LogGuard {
    _queues: [WorkerGuard; 2],
}

struct Queues {
    lines: NonBlocking,
    audit: NonBlocking,
}

impl<'a> MakeWriter<'a> for Queues {
    type Writer = NonBlocking;

    fn make_writer(&'a self) -> NonBlocking {
        self.lines.clone()
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> NonBlocking {
        if of.target() == "audit" { self.audit.clone() } else { self.make_writer() }
    }
}

/// Sends everything at least as severe as `level` to stderr. A second call changes nothing (tests share a process).
#[must_use]
pub fn init(format: LogFormat, level: Level) -> LogGuard {
    // Libraries speak only when something is wrong; `level` is about our own lines.
    let filter = EnvFilter::new(format!("warn,tenure={level},access={level},audit=info"));
    let queue = || NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LINES);
    let (lines, of_lines) = queue().thread_name("log").finish(std::io::stderr());
    let (audit, of_audit) = queue().lossy(false).thread_name("audit").finish(std::io::stderr());
    let _already_set = LOST.set(lines.error_counter());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Queues { lines, audit })
        // It would tell of an error on stderr by panicking on stderr.
        .log_internal_errors(false);
    let _already_set = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    LogGuard { _queues: [of_lines, of_audit] }
}

/// Lines that were dropped because nobody took them off in time.
pub(super) fn lost_lines() -> u64 {
    LOST.get().map_or(0, |counter| counter.dropped_lines() as u64)
}
