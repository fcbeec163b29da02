//! Sets logging up: text for people or JSON for machines, on stderr.

use tracing::Level;
use tracing_subscriber::EnvFilter;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends everything at least as severe as `level` to stderr. A second call changes nothing (tests share a process).
pub fn init(format: LogFormat, level: Level) {
    // Libraries speak only when something is wrong; `level` is about our own lines.
    let filter = EnvFilter::new(format!("warn,tenure={level},access={level},audit=info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already_set = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
}
