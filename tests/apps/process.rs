//! Programs as children of the test: on free ports, with their output kept, and gone with the test however it ends.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::wait::comes_true;

/// A Java machine beside a compiler on a small computer takes its time.
const START: Duration = Duration::from_secs(60);
const ONE_LOOK: Duration = Duration::from_secs(2);
/// A free port may be taken between its choice and its use.
const ATTEMPTS: usize = 3;
/// Leads a process group and lives as long as the shorter of two: the program, and the pipe on which it reads. The
/// pipe closes when the test drops it and when the test's process dies in any way; then the whole group is killed.
const KEEPER: &str = r#"("$@"; kill -KILL 0) </dev/null & read -r _; kill -KILL 0"#;

/// A running program. Dropping it kills it, and all that it started.
pub(crate) struct Process {
    keeper: Child,
    log: PathBuf,
}

impl Process {
    /// Starts what `command` makes for free ports, and waits until `GET ready` on the last of them is answered with
    /// anything but a 5xx. What the program prints goes to `dir/NAME.log`.
    pub(crate) async fn start<const PORTS: usize>(
        name: &str,
        dir: &Path,
        ready: &str,
        command: impl Fn([u16; PORTS]) -> Command,
    ) -> (Self, [SocketAddr; PORTS]) {
        let log = dir.join(name).with_extension("log");
        for _ in 0..ATTEMPTS {
            let ports = free_ports::<PORTS>();
            let mut process = Self::spawn(&command(ports), log.clone());
            let addrs = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            let last = *addrs.last().expect("a program has a port");
            let settled = comes_true(START, async || process.has_ended() || answers(last, ready).await);
            if settled.await && !process.has_ended() {
                return (process, addrs);
            }
        }
        panic!("{name} does not start:\n{}", read(&log));
    }

    fn spawn(command: &Command, log: PathBuf) -> Self {
        let out = File::create(&log).expect("the log can be written");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(command.get_program()).args(command.get_args());
        keeper.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        keeper.process_group(0).stdin(Stdio::piped());
        keeper.stdout(out.try_clone().expect("a file can be shared")).stderr(out);
        Self { keeper: keeper.spawn().expect("there is a shell"), log }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.keeper.try_wait(), Ok(None))
    }

    /// What it printed so far.
    pub(crate) fn output(&self) -> String {
        read(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // The keeper kills itself along with its group, so this ends.
        let _ = self.keeper.wait();
    }
}

/// Runs a program to its end; panics with its output when it fails.
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program can be started");
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{:?}: {}", command.get_program(), String::from_utf8_lossy(&told));
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}

/// Ports that nobody listens on; held all at once, so that they differ.
fn free_ports<const PORTS: usize>() -> [u16; PORTS] {
    let held = [(); PORTS].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free"));
    held.map(|listener| listener.local_addr().expect("a listener has an address").port())
}

async fn answers(addr: SocketAddr, path: &str) -> bool {
    let asking = async {
        let mut stream = TcpStream::connect(addr).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        (head.starts_with(b"HTTP/1.") && head[9] < b'5').then_some(())
    };
    matches!(timeout(ONE_LOOK, asking).await, Ok(Some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "import http.server, sys, subprocess\n\
        child = subprocess.Popen(['sleep', '600']); print('child', child.pid, flush=True)\n\
        http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')";

    #[tokio::test]
    async fn a_dropped_process_takes_its_children_along() {
        let dir = tempfile::tempdir().unwrap();
        let (process, [addr]) = Process::start("server", dir.path(), "/", |[port]| {
            let mut command = Command::new("python3");
            command.args(["-c", SERVER, &port.to_string()]);
            command
        })
        .await;
        let output = process.output();
        let child = output.split_whitespace().skip_while(|word| *word != "child").nth(1).unwrap();
        let child = PathBuf::from("/proc").join(child);
        assert!(child.exists());
        drop(process);
        let gone = async || !child.exists() && TcpStream::connect(addr).await.is_err();
        assert!(comes_true(Duration::from_secs(5), gone).await, "something was left behind");
    }
}
