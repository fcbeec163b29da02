//! The life of a connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::answer::Answer;
use super::routes::{Exchange, Reply};
use super::sessions::{Person, Visit};
use super::switches::{CloseAfter, Switches};
use super::wire::{Head, Wire};
use super::{Counted, MOST_RECORDED, Seen, Shared, streams};

const MOST_BODY_KEPT: usize = 64 * 1024;

/// Accepts until the task is aborted; its connections end with it.
pub async fn accept(app: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(app.clone(), stream));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(app: Arc<Shared>, stream: TcpStream) {
    let number = app.connections.fetch_add(1, Ordering::SeqCst) + 1;
    let _counted = Counted::one(&app.open_connections);
    let _ = stream.set_nodelay(true);
    let mut wire = Wire::new(stream);
    let mut answers = 0;
    loop {
        let idle = match app.switches.lock().close_after {
            // A connection without a request yet is not idle but new.
            CloseAfter::Idle(idle) if answers > 0 => Some(idle),
            CloseAfter::Idle(_)
            | CloseAfter::Never
            | CloseAfter::Answers(_)
            | CloseAfter::Reset
            | CloseAfter::FinMidAnswer => None,
        };
        match wire.head(idle).await {
            Ok(Some(head)) => match exchange(&app, wire, head, number).await {
                Ok(Some(kept)) => wire = kept,
                Ok(None) | Err(_) => return,
            },
            Ok(None) => return,
            // Not HTTP, or broken off: a legacy server says so and hangs up.
            Err(_) => return wire_fault(wire).await,
        }
        answers += 1;
        if matches!(app.switches.lock().close_after, CloseAfter::Answers(most) if answers >= most) {
            return wire.finish().await;
        }
    }
}

async fn wire_fault(mut wire: Wire) {
    let _ = wire.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    wire.finish().await;
}

/// One request and its answer; gives the connection back when it can carry another.
async fn exchange(app: &Shared, mut wire: Wire, head: Head, connection: usize) -> io::Result<Option<Wire>> {
    let s = app.switches.lock().clone();
    let mut visit = app.sessions.lock().arrive(&s, &head);
    let place = record(app, &head, connection, visit.user.clone());
    if s.close_after == CloseAfter::Reset {
        wire.reset();
        return Ok(None);
    }
    if !s.ignore_expect && head.lists("expect", "100-continue") {
        wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    if head.query("early").is_some() {
        let early = dressed(&s, &visit, Answer::html(200, "Before it came.")).bytes(&s, &head.method, false);
        wire.write(&early).await?;
        read_body(app, &mut wire, &head).await?;
        return Ok(None);
    }
    let (body, body_length) = read_body(app, &mut wire, &head).await?;
    if let Some(seen) = app.seen.lock().get_mut(place) {
        seen.body.clone_from(&body);
    }
    let reply = Exchange { app, s: &s, head: &head, body: &body, body_length }.reply(&mut visit).await;
    let close = s.http10 || head.lists("connection", "close") || head.version == 0;
    match reply {
        Reply::Whole(answer) => {
            let bytes = dressed(&s, &visit, answer).bytes(&s, &head.method, close);
            wire.write(&bytes).await?;
        }
        download @ Reply::Download { .. } => {
            streams::download(app, &s, &mut wire, dressed(&s, &visit, bare(200)), &download).await?;
        }
        Reply::Events => {
            let user = visit.user.clone().unwrap_or_default();
            streams::events(app, &s, &mut wire, dressed(&s, &visit, bare(200)), &user).await?;
            return Ok(None);
        }
        Reply::WebSocket => {
            streams::web_socket(app, &s, wire, &head, dressed(&s, &visit, bare(101))).await?;
            return Ok(None);
        }
    }
    if close || s.close_after == CloseAfter::FinMidAnswer {
        wire.finish().await;
        return Ok(None);
    }
    Ok(Some(wire))
}

async fn read_body(app: &Shared, wire: &mut Wire, head: &Head) -> io::Result<(Vec<u8>, u64)> {
    let counts = head.path() == "/upload";
    let (mut kept, mut length) = (Vec::new(), 0);
    let reading = wire.body(head, |piece| {
        length += piece.len() as u64;
        if counts {
            app.uploaded.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
        let room = MOST_BODY_KEPT - kept.len();
        kept.extend_from_slice(&piece[..piece.len().min(room)]);
    });
    reading.await?;
    Ok((kept, length))
}

fn record(app: &Shared, head: &Head, connection: usize, user: Option<String>) -> usize {
    let mut seen = app.seen.lock();
    if seen.len() < MOST_RECORDED {
        seen.push(Seen {
            connection,
            raw: head.raw.to_vec(),
            method: head.method.clone(),
            target: head.target.clone(),
            headers: head.headers.clone(),
            body: Vec::new(),
            user,
        });
    }
    seen.len() - 1
}

fn bare(status: u16) -> Answer {
    Answer { status, ..Answer::default() }
}

/// The answer with the visit's cookies and, when switched on, the headers that name the user.
fn dressed(s: &Switches, visit: &Visit, mut answer: Answer) -> Answer {
    for cookie in visit.set_cookies() {
        answer = answer.with("Set-Cookie", cookie);
    }
    match visit.user.as_deref().map(Person::named) {
        Some(person) if s.identity_headers => answer
            .with("X-Session-User", &person.user)
            .with("X-Session-Tenant", &person.tenant)
            .with("X-Session-Roles", &if s.all_admins { "admin".into() } else { person.roles.join(",") }),
        Some(_) | None => answer,
    }
}
