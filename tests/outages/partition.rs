//! A network between gateways and their store that can be cut: bytes stay on their way until it is healed, as TCP has it.

use std::net::SocketAddr;

use tenure::clock::Stopwatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// See the module. Ends with its guard.
pub(crate) struct Partition {
    address: SocketAddr,
    is_cut: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Partition {
    /// A network that leads to this port.
    pub(crate) fn before(port: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (is_cut, cut) = watch::channel(false);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = carry(listener, port, cut) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, is_cut, thread: Some(thread), stop: Some(stop) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on nothing gets through.
    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Everything gets through again; measures from now.
    pub(crate) fn heal(&self) -> Stopwatch {
        self.is_cut.send_replace(false);
        Stopwatch::start()
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

async fn carry(listener: std::net::TcpListener, port: u16, cut: watch::Receiver<bool>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let cut = cut.clone();
        tokio::spawn(async move {
            whole(&mut cut.clone()).await;
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(from_near, to_far, cut.clone()));
            tokio::spawn(pass(from_far, to_near, cut));
        });
    }
}

/// Waits until nothing is cut.
async fn whole(cut: &mut watch::Receiver<bool>) {
    let _ = cut.wait_for(|is_cut| !is_cut).await;
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        whole(&mut cut).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
