//! What `tracing` emitted, kept for assertions.

use std::io;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tracing::Subscriber;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// A write beyond this is refused; a test run stays far below.
const MOST_BYTES: usize = 64 << 20;

/// A buffer that many threads may log to; clones share it.
#[derive(Clone, Debug, Default)]
pub struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl LogBuffer {
    /// The buffer that every thread of this test binary logs to, and to which its panics are told; installed at the first
    /// call. It hears what an operator hears at the level `debug`.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<LogBuffer> = OnceLock::new();
        GLOBAL.get_or_init(|| {
            let buffer = Self::default();
            // Another subscriber may stand already (a gateway started in-process); then its output is its own.
            let filter = tracing_subscriber::EnvFilter::new("warn,tenure=debug,access=info,audit=info");
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(false)
                .with_writer(buffer.clone())
                .finish();
            let _ = tracing::subscriber::set_global_default(subscriber);
            let (panics, before) = (buffer.clone(), std::panic::take_hook());
            std::panic::set_hook(Box::new(move |panic| {
                let _ = io::Write::write_all(&mut panics.clone(), format!("{panic}\n").as_bytes());
                before(panic);
            }));
            buffer
        })
    }

    /// Captures what this thread alone logs, until the guard is dropped.
    pub fn capture() -> (Self, DefaultGuard) {
        let buffer = Self::default();
        let guard = tracing::subscriber::set_default(buffer.subscriber());
        (buffer, guard)
    }

    /// A subscriber that writes every level to this buffer, as text without colours.
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(self.clone())
            .finish()
    }

    /// How much was logged so far, in bytes.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// What was logged since there were `len` bytes.
    pub fn since(&self, len: usize) -> Vec<u8> {
        self.0.lock().get(len..).unwrap_or_default().to_vec()
    }

    /// Everything logged so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }

    /// Whether `needle` was logged.
    pub fn contains(&self, needle: &str) -> bool {
        self.text().contains(needle)
    }

    /// Forgets what was logged.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

impl io::Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock();
        if kept.len() + bytes.len() > MOST_BYTES {
            return Err(io::Error::other("the log buffer is full"));
        }
        kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogBuffer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
