//! Redis servers of the test's own, on free ports and ended with their guard: one, one under Sentinel, or a cluster.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tenure::clock::Stopwatch;
use tenure::config::{Redis, RedisMode, RedisNode};

/// How long anything may take that a server does.
const PATIENCE_US: u64 = 20_000_000;

/// Debian's `redis-tools` hold the server's own program under this name; what it does depends on how it is called. So no
/// service of the system is installed for the tests.
const PROGRAM: &str = "redis-check-rdb";

/// A server.
pub(crate) struct Server {
    child: Option<Child>,
    port: u16,
    place: TempDir,
    arguments: Vec<String>,
    /// What `redis-cli` needs besides the port.
    cli: Vec<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A server with these options beside those that every test wants.
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::at("--port", options, &[])
    }

    /// A server that speaks TLS alone, with these options; `cli` is what `redis-cli` needs to be let in.
    pub(crate) fn with_tls(options: &[&str], cli: &[&str]) -> Self {
        Self::at("--tls-port", &[&["--port", "0"], options].concat(), cli)
    }

    fn at(port_option: &str, options: &[&str], cli: &[&str]) -> Self {
        let port = free_port();
        let plain =
            ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", port_option, &port.to_string()];
        let arguments = plain.iter().chain(options).map(|option| (*option).to_owned()).collect();
        let cli = cli.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { child: None, port, place: tempfile::tempdir().unwrap(), arguments, cli };
        server.restart();
        server
    }

    /// Starts it again, with nothing in it.
    pub(crate) fn restart(&mut self) {
        let mut command = Command::new(PROGRAM);
        command.arg0("redis-server").args(&self.arguments).arg("--dir").arg(self.place.path());
        let child = command.stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("the server runs: install Debian's redis-tools"));
        eventually("the server listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn settings(&self) -> Redis {
        settings(RedisMode::Single, &[self.port])
    }

    /// What `redis-cli` says.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        let output = cli.args(["-p", &self.port.to_string()]).args(&self.cli).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
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

/// A primary, its replica, and three sentinels that watch them.
pub(crate) struct Sentinels {
    pub(crate) primary: Server,
    replica: Server,
    sentinels: Vec<Server>,
}

impl Sentinels {
    pub(crate) fn start() -> Self {
        let primary = Server::start();
        let replica = Server::with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
        eventually("the replica follows", || {
            replica.ask(&["info", "replication"]).contains("link_status:up")
        });
        let sentinels = (0..3).map(|_| sentinel(primary.port)).collect();
        let all = Self { primary, replica, sentinels };
        for sentinel in &all.sentinels {
            eventually("the sentinels know each other", || {
                let known = sentinel.ask(&["sentinel", "master", "mymaster"]);
                let field =
                    |name: &str| known.lines().skip_while(|line| *line != name).nth(1).unwrap_or_default();
                field("num-other-sentinels") == "2" && field("num-slaves") == "1"
            });
        }
        all
    }

    pub(crate) fn settings(&self) -> Redis {
        settings(RedisMode::Sentinel("mymaster".to_owned()), &self.ports())
    }

    /// Those of the sentinels.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.sentinels.iter().map(|sentinel| sentinel.port).collect()
    }

    /// The primary dies, and the sentinels make the replica the primary.
    pub(crate) fn fail_over(&mut self) {
        self.primary.kill();
        eventually("the replica takes over", || self.replica.ask(&["role"]).starts_with("master"));
    }
}

fn sentinel(primary: u16) -> Server {
    let (port, place) = (free_port(), tempfile::tempdir().unwrap());
    let file = place.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n"
    );
    std::fs::write(&file, text).unwrap();
    let arguments = vec![text_of(&file), "--sentinel".to_owned()];
    let mut server = Server { child: None, port, place, arguments, cli: Vec::new() };
    server.restart();
    server
}

/// Three nodes that share all slots.
pub(crate) struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let nodes: Vec<Server> = (0..3).map(|_| Server::with(&options)).collect();
        let mut create = vec!["--cluster".to_owned(), "create".to_owned()];
        create.extend(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
        create.push("--cluster-yes".to_owned());
        let made = Command::new("redis-cli").args(&create).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            eventually("the cluster is whole", || {
                node.ask(&["cluster", "info"]).contains("cluster_state:ok")
            });
        }
        cluster
    }

    pub(crate) fn settings(&self) -> Redis {
        settings(RedisMode::Cluster, &self.ports())
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// Moves as many slots, with what is in them, from the first node to the second.
    pub(crate) fn move_slots(&self, count: u32) {
        let id = |node: &Server| node.ask(&["cluster", "myid"]).trim().to_owned();
        let (from, to) = (id(&self.nodes[0]), id(&self.nodes[1]));
        let at = format!("127.0.0.1:{}", self.nodes[0].port);
        let moved = Command::new("redis-cli")
            .args(["--cluster", "reshard", &at, "--cluster-from", &from, "--cluster-to", &to])
            .args(["--cluster-slots", &count.to_string(), "--cluster-yes"])
            .output()
            .unwrap();
        assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stdout));
    }
}

fn settings(mode: RedisMode, ports: &[u16]) -> Redis {
    Redis {
        nodes: ports.iter().map(|port| RedisNode { host: "127.0.0.1".to_owned(), port: *port }).collect(),
        mode,
        tls: false,
        ca: None,
        client: None,
        database: 0,
        username: None,
        password: None,
        prefix: "tenure:".to_owned(),
    }
}

fn free_port() -> u16 {
    // A node of a cluster also listens 10000 ports above its own.
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

fn text_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Stopwatch::start();
    while !is_so() {
        assert!(began.elapsed_us() < PATIENCE_US, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
