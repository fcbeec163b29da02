//! Where the API listens: a Unix socket, and what is there already.

use std::path::Path;

use tenure::clock::Clock;
use tenure::config::check_text;
use tenure::server::Gateway;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::api::{OPS, START, config_text};

fn start(socket: &Path) -> Result<Gateway, tenure::server::StartError> {
    let admin = format!("[admin]\nlisten = \"unix:{}\"", socket.display());
    let text =
        config_text("http://127.0.0.1:9", &[], "").replace("[admin]\nlisten = \"127.0.0.1:0\"", &admin);
    let config = check_text("test.toml", &text, Path::new(".")).unwrap_or_else(|faults| panic!("{faults}"));
    Gateway::start(config, Clock::manual(START))
}

async fn ask(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "GET /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPS}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_unix_socket_serves_the_api_to_its_owner_alone() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let gateway = start(&socket).unwrap();
    let found = std::fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o007, 0, "not for everybody on the machine");
    assert!(ask(&socket).await.starts_with("HTTP/1.1 200 OK\r\n"));
    drop(gateway);
}

#[tokio::test]
async fn a_socket_in_use_is_left_alone_and_a_forgotten_one_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "forgotten by a process that is gone");
    let first = start(&socket).expect("taken over");
    let second = start(&socket).err().expect("in use");
    assert!(second.to_string().contains("admin.sock"), "{second}");
    assert!(ask(&socket).await.starts_with("HTTP/1.1 200 OK\r\n"), "the first goes on");
    drop(first);
}

#[tokio::test]
async fn a_file_at_the_sockets_place_is_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "mine").unwrap();
    let refused = start(&file).err().expect("occupied");
    assert!(refused.to_string().contains("notes.txt"), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}
