//! Stands between the gateway and an app and keeps what the gateway sends: whether the app was told a dead token is
//! then a matter of looking, not of trust.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use memchr::memmem;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Far beyond what a scenario sends; more would mean a loop.
const MOST_BYTES: usize = 16 << 20;

/// A relay of bytes that remembers one direction. Connections are relayed until it is dropped.
pub(crate) struct Tap {
    addr: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    relay: JoinHandle<()>,
}

impl Tap {
    /// A tap on the way to `app`.
    pub(crate) async fn before(app: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let addr = listener.local_addr().expect("a listener has an address");
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let relay = tokio::spawn(accept(listener, app, heard.clone()));
        Self { addr, heard, relay }
    }

    /// Where the gateway is to find the app.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// This very moment, for [`Tap::heard_since`].
    pub(crate) fn mark(&self) -> usize {
        self.heard.lock().len()
    }

    /// Whether the app was sent these bytes after `mark`.
    pub(crate) fn heard_since(&self, mark: usize, bytes: &str) -> bool {
        memmem::find(&self.heard.lock()[mark..], bytes.as_bytes()).is_some()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn accept(listener: TcpListener, app: SocketAddr, heard: Arc<Mutex<Vec<u8>>>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let heard = heard.clone();
        // What a connection breaks with is seen by both its ends.
        connections.spawn(async move { relay(near, app, &heard).await.ok() });
    }
}

async fn relay(near: TcpStream, app: SocketAddr, heard: &Mutex<Vec<u8>>) -> io::Result<()> {
    let (from_gateway, mut to_gateway) = near.into_split();
    let (mut from_app, to_app) = TcpStream::connect(app).await?.into_split();
    let back = async {
        let copied = tokio::io::copy(&mut from_app, &mut to_gateway).await;
        to_gateway.shutdown().await.and(copied)
    };
    let (sent, _) = tokio::join!(listen_in(from_gateway, to_app, heard), back);
    sent
}

async fn listen_in(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    heard: &Mutex<Vec<u8>>,
) -> io::Result<()> {
    let mut piece = [0; 16 << 10];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        {
            let mut heard = heard.lock();
            if heard.len() + length > MOST_BYTES {
                return Err(io::Error::other("more than a scenario sends"));
            }
            heard.extend_from_slice(&piece[..length]);
        }
        to.write_all(&piece[..length]).await?;
    }
}
