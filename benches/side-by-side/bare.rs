//! The least that a proxy of hyper's server and client halves can be: no session, no check, no error handling. What it
//! costs per request is the floor under Tenure's own figure, and no part of the product.
//!
//! `bare LISTEN UPSTREAM`, both `address:port`.
#![allow(clippy::unwrap_used, reason = "a measuring tool that may fail loudly")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Idle = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

/// An answer's body, which gives its connection back at its end.
struct Streaming {
    body: Incoming,
    sender: Option<SendRequest<Incoming>>,
    idle: Idle,
}

impl Body for Streaming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() && self.body.is_end_stream() {
            let sender = self.sender.take();
            self.idle.borrow_mut().extend(sender);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn sender(idle: &Idle, upstream: &str) -> SendRequest<Incoming> {
    loop {
        let Some(sender) = idle.borrow_mut().pop() else { break };
        if sender.is_ready() {
            return sender;
        }
        if !sender.is_closed() {
            idle.borrow_mut().insert(0, sender);
            tokio::task::yield_now().await;
        }
    }
    let stream = TcpStream::connect(upstream).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) =
        http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}

async fn proxy(mut request: Request<Incoming>, idle: Idle, upstream: Rc<str>) -> Response<Streaming> {
    let mut sender = sender(&idle, &upstream).await;
    request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("127.0.0.1"));
    request.headers_mut().insert("x-forwarded-proto", HeaderValue::from_static("http"));
    let target = request.uri().path_and_query().unwrap().clone();
    *request.uri_mut() = Uri::from(target);
    let (mut head, body) = sender.send_request(request).await.unwrap().into_parts();
    head.headers.remove("connection");
    Response::from_parts(head, Streaming { body, sender: Some(sender), idle })
}

async fn serve(listen: &str, upstream: Rc<str>) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let idle = Idle::default();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (idle, upstream) = (Rc::clone(&idle), Rc::clone(&upstream));
        let service = hyper::service::service_fn(move |request| {
            let (idle, upstream) = (Rc::clone(&idle), Rc::clone(&upstream));
            async move { Ok::<_, Infallible>(proxy(request, idle, upstream).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::task::spawn_local(connection);
    }
}

fn main() {
    let mut addresses = std::env::args().skip(1);
    let (listen, upstream) = (addresses.next().unwrap(), addresses.next().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(serve(&listen, upstream.into()));
}
