//! A Redis server of the test's own, on a free port and ended with its guard.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tenure::config::{Redis, RedisMode, RedisNode};

pub(crate) struct Server {
    child: Option<Child>,
    port: u16,
    place: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { child: None, port, place: tempfile::tempdir().unwrap() };
        server.restart();
        server
    }

    pub(crate) fn restart(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.place.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs: install Debian's package of that name");
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "the server does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn settings(&self) -> Redis {
        Redis {
            nodes: vec![RedisNode { host: "127.0.0.1".to_owned(), port: self.port }],
            mode: RedisMode::Single,
            tls: false,
            ca: None,
            client: None,
            database: 0,
            username: None,
            password: None,
            prefix: "tenure:".to_owned(),
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
