//! What lies between one gateway and the server: it passes bytes, holds them back, or is cut, as a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// They pass.
    Passes,
    /// They are held back, and pass later: the other side seems to have stopped.
    Held,
    /// Those of the server are held back: what is asked is done, and nobody is told.
    Deaf,
    /// As [`Flow::Passes`], until something is about to be stored: from that command on as [`Flow::Deaf`].
    DeafToStoring,
    /// Nothing connects.
    Cut,
}

impl Flow {
    const fn lets_ask(self) -> bool {
        matches!(self, Self::Passes | Self::Deaf | Self::DeafToStoring)
    }

    const fn lets_answer(self) -> bool {
        matches!(self, Self::Passes | Self::DeafToStoring)
    }
}

/// What happens to commands with their answers, and to announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flows {
    commands: Flow,
    news: Flow,
}

impl Flows {
    fn of(self, is_news: bool) -> Flow {
        if is_news { self.news } else { self.commands }
    }

    /// Something is about to be stored: nothing answers from now on, where that was asked for. Returns whether it was.
    fn no_answer_to_storing(&mut self) -> bool {
        let is_due = self.commands == Flow::DeafToStoring;
        if is_due {
            self.commands = Flow::Deaf;
        }
        is_due
    }
}

/// One connection through the link.
struct Wire {
    /// By which the server knows it.
    name: SocketAddr,
    is_news: Arc<AtomicBool>,
    task: AbortHandle,
}

type Wires = Arc<Mutex<Vec<Wire>>>;

/// Whatever is stored is announced, and the channel's name stands in the same command. A command is small enough to be read in one
/// piece.
const STORING: &[u8] = b"changes\r\n";

/// See the module.
pub(crate) struct Link {
    pub(crate) port: u16,
    flows: watch::Sender<Flows>,
    wires: Wires,
    accepting: AbortHandle,
}

impl Link {
    /// `losses` counts how often the server has lost something.
    pub(crate) fn to(server: u16, losses: &Arc<AtomicU32>, runtime: &Handle) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let flows = watch::Sender::new(Flows { commands: Flow::Passes, news: Flow::Passes });
        let wires = Wires::default();
        let far = (server, Arc::clone(losses));
        let accepting = runtime.spawn(accept(listener, far, flows.clone(), Arc::clone(&wires)));
        Self { port, flows, wires, accepting: accepting.abort_handle() }
    }

    pub(crate) fn set(&self, flow: Flow) {
        self.flows.send_replace(Flows { commands: flow, news: flow });
    }

    pub(crate) fn set_news(&self, flow: Flow) {
        self.flows.send_modify(|flows| flows.news = flow);
    }

    pub(crate) fn flow(&self) -> Flow {
        self.flows.borrow().commands
    }

    pub(crate) fn passes(&self) -> bool {
        *self.flows.borrow() == Flows { commands: Flow::Passes, news: Flow::Passes }
    }

    /// All connections, or those that announcements come by: they break when what is returned is dropped. By then the server
    /// should have hung up: what it has not read of them yet it would still carry out.
    pub(crate) fn sever(&self, news_alone: bool) -> Severed {
        let mut wires = self.wires.lock();
        // The address of one that is gone may be somebody else's by now.
        wires.retain(|wire| !wire.task.is_finished());
        let goes = |wire: &mut Wire| !news_alone || wire.is_news.load(Ordering::Acquire);
        Severed(wires.extract_if(.., goes).collect())
    }
}

/// Connections about to break.
pub(crate) struct Severed(Vec<Wire>);

impl Severed {
    /// By which the server knows them; of no other connection as long as this lives.
    pub(crate) fn names(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|wire| wire.name)
    }
}

impl Drop for Severed {
    fn drop(&mut self) {
        self.0.iter().for_each(|wire| wire.task.abort());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
        drop(self.sever(false));
    }
}

async fn accept(
    listener: std::net::TcpListener,
    (server, losses): (u16, Arc<AtomicU32>),
    flows: watch::Sender<Flows>,
    wires: Wires,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        if flows.borrow().commands == Flow::Cut {
            continue;
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let name = far.local_addr().unwrap();
        let is_news = Arc::new(AtomicBool::new(false));
        // ORDER: noted before anything passes, so that who severs the link misses none.
        let mut noted = wires.lock();
        let task = tokio::spawn(carry(near, far, Arc::clone(&losses), flows.clone(), Arc::clone(&is_news)));
        noted.retain(|wire| !wire.task.is_finished());
        noted.push(Wire { name, is_news, task: task.abort_handle() });
    }
}

async fn carry(
    near: TcpStream,
    far: TcpStream,
    losses: Arc<AtomicU32>,
    flows: watch::Sender<Flows>,
    is_news: Arc<AtomicBool>,
) {
    let (near_reads, near_writes) = near.into_split();
    let (far_reads, far_writes) = far.into_split();
    let asks = asks(near_reads, far_writes, &flows, &is_news);
    let answers = answers(far_reads, near_writes, &losses, flows.subscribe(), &is_news);
    // What was sent before the gateway gave up is carried out by the server all the same.
    tokio::join!(asks, answers);
}

async fn asks(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    flows: &watch::Sender<Flows>,
    is_news: &AtomicBool,
) {
    let mut bytes = vec![0; 16 * 1024];
    let mut heard = flows.subscribe();
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if bytes[..count].windows(9).any(|word| word.eq_ignore_ascii_case(b"SUBSCRIBE")) {
            is_news.store(true, Ordering::Release);
        }
        let stores = || bytes[..count].windows(STORING.len()).any(|word| word == STORING);
        if !is_news.load(Ordering::Acquire) && stores() {
            flows.send_if_modified(Flows::no_answer_to_storing);
        }
        let goes_on = |flows: &Flows| flows.of(is_news.load(Ordering::Acquire)).lets_ask();
        if heard.wait_for(goes_on).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    losses: &AtomicU32,
    mut flows: watch::Receiver<Flows>,
    is_news: &AtomicBool,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        rename(&mut bytes[..count], losses.load(Ordering::Acquire));
        let goes_on = |flows: &Flows| flows.of(is_news.load(Ordering::Acquire)).lets_answer();
        if flows.wait_for(goes_on).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A server that has lost something is another one: it ran anew, or another one took its place. That of the tests goes on for
/// the other seeds.
fn rename(answer: &mut [u8], losses: u32) {
    const NAME: &[u8] = b"\nrun_id:";
    let number = format!("{losses:08x}");
    if let Some(at) = answer.windows(NAME.len()).position(|word| word == NAME)
        && let Some(id) = answer[at + NAME.len()..].first_chunk_mut::<8>()
    {
        id.copy_from_slice(number.as_bytes());
    }
}
