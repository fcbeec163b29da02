//! A browser's connection over HTTP/1.1, watched from outside the library for what the library would see at a price.
//!
//! It would look whether a browser has gone by reading on while the app is asked, into a new buffer of 8 KiB for each request;
//! and it would start a timer of its own for each head. Here a browser is looked for by a single byte, and the timer that is
//! handed to the library does no more than note when one was asked for.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::clock::Since;

/// Pieces of no more than this many bytes together, as most answers' heads and bodies, are written as one: to copy them costs
/// less than to have the kernel gather them.
const ONE_PIECE: usize = 4 * 1024;

/// What is known of one connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Watch(Arc<Watched>);

struct Watched {
    /// Since when a request's head is awaited.
    head: Since,
    /// The head of a request has come, and its answer is not over.
    is_asked: AtomicBool,
    /// Something of the head that is awaited has come.
    has_begun: AtomicBool,
    /// For the library, which reckons from it when an [`Endless`] sleep should end.
    base: Instant,
}

impl Watch {
    pub(super) fn new() -> Self {
        let base = sleep(Duration::ZERO).deadline().into_std();
        let (is_asked, has_begun) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Watched { head: Since::default(), is_asked, has_begun, base }))
    }

    /// The head of a request has come.
    pub(super) fn head_came(&self) {
        self.0.head.end();
        self.0.is_asked.store(true, Ordering::Relaxed);
    }

    /// The library waits for the head of a request.
    fn head_is_awaited(&self) {
        self.0.is_asked.store(false, Ordering::Relaxed);
        self.0.has_begun.store(false, Ordering::Relaxed);
        self.0.head.begin();
    }

    /// Whether something of the head that is awaited has come. What came before the last answer was over does not count.
    pub(super) fn head_has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::Relaxed)
    }

    /// The connection carries no HTTP any more.
    pub(super) fn rest(&self) {
        self.0.is_asked.store(false, Ordering::Relaxed);
    }

    fn is_asked(&self) -> bool {
        self.0.is_asked.load(Ordering::Relaxed)
    }
}

/// To the library it is the timer for request heads, which is asked for a sleep when, and only when, a head is awaited.
impl hyper::rt::Timer for Watch {
    fn now(&self) -> Instant {
        self.0.base
    }

    fn sleep(&self, _: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.head_is_awaited();
        // Takes no memory.
        Box::pin(Endless)
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep(Duration::ZERO)
    }
}

/// A sleep that [`Late`] ends, by ending the connection.
struct Endless;

impl hyper::rt::Sleep for Endless {}

impl Future for Endless {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Ready once a head has been awaited for as long as it may take. What is in tokio's wheel is one alarm, which is moved only
/// when it has come up. Polled by one task alone.
pub(super) struct Late {
    watch: Watch,
    limit: Duration,
    /// `None` until it is first set.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Late {
    pub(super) const fn new(watch: Watch, limit: Duration) -> Self {
        Self { watch, limit, alarm: None }
    }
}

impl Future for Late {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // One that is set and has not come up knows the task.
        while self.alarm.as_ref().is_none_or(|alarm| alarm.is_elapsed()) {
            let left = self.limit.saturating_sub(self.watch.0.head.elapsed());
            if left.is_zero() {
                return Poll::Ready(());
            }
            let alarm = self.alarm.insert(Box::pin(sleep(left)));
            // Whatever is left of the task's budget: an alarm that was put off would not be set, nor seem to have come up.
            if pin!(tokio::task::unconstrained(alarm)).poll(cx).is_pending() {
                break;
            }
        }
        Poll::Pending
    }
}

/// The bytes of a connection. While the app is asked, a browser that closes its side has gone, as for nginx: whoever waits for
/// the app's answer is told by an error, whether it writes or not.
pub(super) struct Browser<S> {
    stream: S,
    watch: Watch,
    /// The library waits for bytes, of an upload for instance, and will see the end by itself.
    is_read: bool,
    /// What was found in looking for the end: what the browser sends before it has its answer, or before its upload is taken.
    ahead: Option<u8>,
}

impl<S: AsyncRead + Unpin> Browser<S> {
    pub(super) const fn new(stream: S, watch: Watch) -> Self {
        Self { stream, watch, is_read: false, ahead: None }
    }

    /// Of a browser that sends on, the end is not seen before that was read.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.watch.is_asked() || self.is_read || self.ahead.is_some() {
            return Poll::Pending;
        }
        let mut byte = [0];
        let mut room = ReadBuf::new(&mut byte);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room)) {
            Ok(()) => match room.filled() {
                [byte] => {
                    self.ahead = Some(*byte);
                    Poll::Pending
                }
                _ => Poll::Ready(io::ErrorKind::ConnectionAborted.into()),
            },
            Err(error) => Poll::Ready(error),
        }
    }

    fn unless_gone<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.poll_gone(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => polled,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Browser<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        let ahead = self.ahead.take_if(|_| room.remaining() > 0);
        if let Some(byte) = ahead {
            room.put_slice(&[byte]);
        }
        let read = match (Pin::new(&mut self.stream).poll_read(cx, room), ahead) {
            (read, None) => read,
            // What failed fails again, or is the end from now on.
            (_, Some(_)) => Poll::Ready(Ok(())),
        };
        self.is_read = read.is_pending();
        if room.filled().len() > before {
            self.watch.0.has_begun.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Browser<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_pending() { self.unless_gone(cx, written) } else { written }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [piece] = pieces {
            return self.poll_write(cx, piece);
        }
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if length <= ONE_PIECE {
            let mut whole = SmallVec::<[u8; ONE_PIECE]>::new();
            pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
            return self.poll_write(cx, &whole);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        if written.is_pending() { self.unless_gone(cx, written) } else { written }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The library flushes each time that it has looked at the connection, also while there is nothing to be written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.unless_gone(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::clock::Stopwatch;

    fn pair() -> (DuplexStream, Browser<DuplexStream>, Watch) {
        let watch = Watch::new();
        let (browser, stream) = duplex(16);
        (browser, Browser::new(stream, watch.clone()), watch)
    }

    fn flush(io: &mut Browser<DuplexStream>) -> Poll<io::Result<()>> {
        Pin::new(io).poll_flush(&mut Context::from_waker(Waker::noop()))
    }

    /// A stream that notes of each write whether it came in pieces.
    #[derive(Default)]
    struct Writes(Vec<(bool, Vec<u8>)>);

    impl AsyncRead for Writes {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Writes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push((false, bytes.to_vec()));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            let count = whole.len();
            self.0.push((true, whole));
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_small_is_written_in_one_piece() {
        let mut io = Browser::new(Writes::default(), Watch::new());
        let head = [b'h'; 100];
        let cases =
            [(0, false), (1, false), (ONE_PIECE - 100, false), (ONE_PIECE - 99, true), (64 * 1024, true)];
        for (body, in_pieces) in cases {
            let body = vec![b'b'; body];
            let both = [io::IoSlice::new(&head), io::IoSlice::new(&body)];
            assert_eq!(io.write_vectored(&both).await.unwrap(), head.len() + body.len());
            assert_eq!(io.stream.0.pop(), Some((in_pieces, [&head[..], &body].concat())));
        }
        let alone = vec![b'b'; 64 * 1024];
        assert_eq!(io.write_vectored(&[io::IoSlice::new(&alone)]).await.unwrap(), alone.len());
        assert_eq!(io.stream.0.pop(), Some((false, alone)), "nothing to be gathered");
    }

    #[tokio::test]
    async fn who_goes_while_the_app_is_asked_is_noticed() {
        let (browser, mut io, watch) = pair();
        watch.head_came();
        assert!(matches!(flush(&mut io), Poll::Ready(Ok(()))));
        // The task is woken, though it reads nothing.
        let gone = tokio::spawn(async move { poll_fn(|cx| io.poll_gone(cx)).await.kind() });
        tokio::task::yield_now().await;
        drop(browser);
        assert_eq!(gone.await.unwrap(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn who_goes_while_an_answer_does_not_flow_is_noticed() {
        let (browser, mut io, watch) = pair();
        watch.head_came();
        assert_eq!(io.write(&[0; 16]).await.unwrap(), 16);
        let (_reads_nothing, mut writes) = tokio::io::split(browser);
        let writing = tokio::spawn(async move { io.write(b"more").await.unwrap_err().kind() });
        tokio::task::yield_now().await;
        writes.shutdown().await.unwrap();
        assert_eq!(writing.await.unwrap(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn what_is_sent_ahead_is_read_in_its_order() {
        let (mut browser, mut io, watch) = pair();
        watch.head_came();
        browser.write_all(b"GET / next").await.unwrap();
        assert!(flush(&mut io).is_ready());
        assert_eq!(io.ahead, Some(b'G'));
        drop(browser);
        assert!(matches!(flush(&mut io), Poll::Ready(Ok(()))), "no end before what was sent");
        let mut read = [0; 16];
        assert_eq!(io.read(&mut read).await.unwrap(), 10, "in one piece");
        assert_eq!(&read[..10], b"GET / next");
        assert_eq!(io.read(&mut read).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_upload_that_is_read_is_not_looked_into() {
        let (mut browser, mut io, watch) = pair();
        watch.head_came();
        let cx = &mut Context::from_waker(Waker::noop());
        let mut room = [0; 16];
        assert!(Pin::new(&mut io).poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
        browser.write_all(b"piece").await.unwrap();
        assert!(flush(&mut io).is_ready());
        assert_eq!(io.ahead, None);
        assert_eq!(io.read(&mut room).await.unwrap(), 5);
        assert!(flush(&mut io).is_ready());
        browser.write_all(b"x").await.unwrap();
        assert!(flush(&mut io).is_ready());
        assert_eq!((io.ahead, io.read(&mut room).await.unwrap()), (Some(b'x'), 1), "nothing more has come");
        drop(browser);
        assert!(matches!(flush(&mut io), Poll::Ready(Err(_))), "it has come whole");
    }

    #[tokio::test]
    async fn between_requests_and_in_a_tunnel_nothing_is_looked_for() {
        for idle in [Watch::rest, Watch::head_is_awaited] {
            let (browser, mut io, watch) = pair();
            watch.head_came();
            idle(&watch);
            drop(browser);
            assert!(matches!(flush(&mut io), Poll::Ready(Ok(()))));
        }
    }

    #[tokio::test]
    async fn a_head_is_late_from_when_it_is_awaited() {
        let limit = Duration::from_millis(60);
        let watch = Watch::new();
        let mut late = Late::new(watch.clone(), limit);
        let never = Duration::from_millis(150);
        for idle in [|_: &Watch| {}, Watch::head_came] {
            idle(&watch);
            assert!(tokio::time::timeout(never, &mut late).await.is_err(), "nothing is awaited");
        }
        for _ in 0..3 {
            // As the library tells it.
            drop(hyper::rt::Timer::sleep(&watch, limit));
            assert!(tokio::time::timeout(limit / 2, &mut late).await.is_err());
            watch.head_came();
        }
        watch.head_is_awaited();
        let began = Stopwatch::start();
        late.await;
        // The kernel's tick lies back.
        assert!(began.elapsed_us() >= 50_000);
    }

    #[tokio::test]
    async fn a_head_is_late_also_where_a_task_has_used_up_its_budget() {
        let watch = Watch::new();
        let mut late = Late::new(watch.clone(), Duration::from_millis(30));
        watch.head_is_awaited();
        let mut has_budget = true;
        let spent = poll_fn(move |cx| {
            while let (true, Poll::Ready(piece)) = (has_budget, tokio::task::coop::poll_proceed(cx)) {
                piece.made_progress();
            }
            has_budget = false;
            Pin::new(&mut late).poll(cx)
        });
        tokio::time::timeout(Duration::from_secs(10), tokio::spawn(spent)).await.expect("it is").unwrap();
    }

    /// The library itself: what it does with the timer and with the bytes is what the watch lives by.
    #[tokio::test]
    async fn the_library_tells_when_it_waits_for_a_head() {
        let limit = Duration::from_millis(100);
        let (mut browser, stream) = duplex(1024);
        let watch = Watch::new();
        let asked = watch.clone();
        let service = hyper::service::service_fn(move |_| {
            asked.head_came();
            async move {
                tokio::time::sleep(limit * 2).await;
                Ok::<_, std::convert::Infallible>(hyper::Response::new(String::from("late, but here")))
            }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(watch.clone())
            .header_read_timeout(limit)
            .half_close(true)
            .serve_connection(hyper_util::rt::TokioIo::new(Browser::new(stream, watch.clone())), service);
        let mut serving = pin!(serving);
        let (seen, mut late) = (watch.clone(), Late::new(watch, limit));
        let mut served = pin!(poll_fn(|cx| match serving.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => Pin::new(&mut late).poll(cx).map(|()| None),
        }));
        let mut answers = Vec::new();
        let asking = async {
            for _ in 0..2 {
                browser.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
                let mut answer = vec![0; 1024];
                let count = browser.read(&mut answer).await.unwrap();
                answers.push(String::from_utf8_lossy(&answer[..count]).ends_with("late, but here"));
            }
        };
        tokio::select! {
            ended = &mut served => panic!("cut off: {ended:?}"),
            () = asking => {}
        }
        assert_eq!(answers, [true, true], "an answer may take longer than a head");
        assert!(!seen.head_has_begun(), "the connection is idle");
        browser.write_all(b"GET / HT").await.unwrap();
        let late = tokio::time::timeout(Duration::from_secs(10), served).await.expect("ends");
        assert!(late.is_none(), "by the time-out, not by {late:?}");
        assert!(seen.head_has_begun());
    }
}
