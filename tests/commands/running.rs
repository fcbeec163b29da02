//! A child that runs until it is told to leave, what it prints, and where it listens.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::command;
use crate::support::wait::{PATIENCE, comes_true};

/// A running program. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    /// What takes down what it prints.
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::begin(command(args))
    }

    /// Runs a line of the shell, which has to `exec` the program.
    pub(crate) fn start_shell(script: &str, folder: &std::path::Path) -> Self {
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(script).current_dir(folder);
        Self::begin(shell)
    }

    fn begin(mut command: std::process::Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (<Arc<Mutex<String>>>::default(), <Arc<Mutex<String>>>::default());
        let stderr: ChildStderr = child.stderr.take().unwrap();
        let readers = vec![keep(child.stdout.take().unwrap(), &out), keep(stderr, &err)];
        Self { child, out, err, readers }
    }

    pub(crate) fn out(&self) -> String {
        self.out.lock().clone()
    }

    pub(crate) fn err(&self) -> String {
        self.err.lock().clone()
    }

    /// Waits until what it prints on either holds `words`.
    pub(crate) async fn says(&self, words: &str) {
        let said = async || self.out.lock().contains(words) || self.err.lock().contains(words);
        assert!(comes_true(PATIENCE, said).await, "never says {words:?}:\n{}{}", self.out(), self.err());
    }

    /// How often it said so.
    pub(crate) fn times(&self, words: &str) -> usize {
        self.err.lock().matches(words).count()
    }

    /// The address after "listening for `what`", as the log has it.
    pub(crate) async fn address(&self, what: &str) -> std::net::SocketAddr {
        let words = format!("listening for {what} address=");
        self.says(&words).await;
        let err = self.err();
        let (_, rest) = err.split_once(&words).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended or has said `words`; its status where it has ended.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub(crate) async fn ends_or_says(&mut self, words: &str) -> Option<ExitStatus> {
        let mut status = None;
        let decided = comes_true(Duration::from_secs(20), async || {
            status = self.child.try_wait().unwrap();
            status.is_some() || self.err().contains(words)
        });
        assert!(decided.await, "it neither ends nor says {words:?}:\n{}", self.err());
        status
    }

    /// Waits for its end.
    pub(crate) async fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = comes_true(Duration::from_secs(20), async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended.await, "it goes on:\n{}", self.err());
        // Its last words may still be on their way.
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        status.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep(from: impl Read + Send + 'static, to: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut text = to.lock();
            text.push_str(&line);
            text.push('\n');
        }
    })
}
