//! Answers what the table asks while requests wait, each question once however many wait for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use redis::Value;
use tokio::sync::{mpsc, oneshot};

use super::activity::ask_activity;
use super::layout::{Home, bytes, home_alone, id_bytes, number, read_pointer, read_record};
use super::port::{Port, WriteFault};
use crate::clock::Stopwatch;
use crate::session::{Moment, SessionId, TokenKey};
use crate::store::cell::Cell;
use crate::store::sharing::{Inquiry, Question};

/// For how long nobody asks again for a token that is unknown: a browser repeats it with every request.
const UNKNOWN_FOR_US: u64 = 1_000_000;

/// How many tokens are remembered as unknown; more are asked for again.
const MAX_UNKNOWN: usize = 100_000;

/// What one look-up is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Flight {
    Token(TokenKey),
    Activity(SessionId),
    User([u8; 16]),
}

pub(super) struct Reader {
    port: Rc<Port>,
    /// Who waits for what is being looked up.
    flights: RefCell<HashMap<Flight, Vec<oneshot::Sender<bool>>>>,
    /// Tokens that nobody knows, and since when that is known.
    unknown: RefCell<HashMap<TokenKey, Stopwatch>>,
}

impl Reader {
    pub(super) fn new(port: Rc<Port>) -> Rc<Self> {
        Rc::new(Self { port, flights: RefCell::default(), unknown: RefCell::default() })
    }

    /// Answers until nobody can ask any more. On a `LocalSet`.
    pub(super) async fn run(self: Rc<Self>, mut asked: mpsc::Receiver<Inquiry>) {
        while let Some(inquiry) = asked.recv().await {
            self.take(inquiry);
        }
    }

    fn take(self: &Rc<Self>, Inquiry { question, at, answer }: Inquiry) {
        let flight = match &question {
            Question::Token(key) if self.is_unknown(*key) => {
                let _gone = answer.send(true);
                return;
            }
            Question::Token(key) => Flight::Token(*key),
            Question::Activity(cell) => Flight::Activity(cell.id),
            Question::User(user) => Flight::User(self.port.replica.home_of_user(user).0),
        };
        let mut flights = self.flights.borrow_mut();
        let waiting = flights.entry(flight).or_default();
        waiting.push(answer);
        if waiting.len() > 1 {
            return;
        }
        let reader = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let known = reader.look_up(question, at).await;
            if let Err(why) = &known {
                tracing::debug!(%why, "the store cannot say");
            }
            for waiting in reader.flights.borrow_mut().remove(&flight).into_iter().flatten() {
                let _gone = waiting.send(known.is_ok());
            }
        });
    }

    async fn look_up(&self, question: Question, at: Moment) -> Result<(), WriteFault> {
        match question {
            Question::Token(key) => {
                let is_held = self.find(key).await?;
                if self.port.replica.table.cell_by_token(key).is_none() {
                    self.port.sure().await?;
                    // Else it may be on its way.
                    if !is_held {
                        self.note_unknown(key);
                    }
                }
                Ok(())
            }
            Question::Activity(cell) => self.ask_activity(&cell, at).await,
            Question::User(user) => {
                self.port.follow(self.port.replica.home_of_user(&user)).await?;
                // Whoever is idle everywhere takes no place.
                for cell in self.port.replica.table.unsure_of(&user, at) {
                    self.ask_activity(&cell, at).await?;
                }
                Ok(())
            }
        }
    }

    async fn ask_activity(&self, cell: &Arc<Cell>, at: Moment) -> Result<(), WriteFault> {
        tokio::time::sleep(self.port.policies_unheard_for()).await;
        ask_activity(&self.port, cell, at).await
    }

    /// Returns whether the store says that a session holds the token.
    async fn find(&self, key: TokenKey) -> Result<bool, WriteFault> {
        let Port { link, layout, replica, .. } = &*self.port;
        let mut ask = redis::cmd("MGET");
        ask.arg(layout.token(key)).arg(layout.epoch(key.0[0]));
        let answer = link.call(&ask).await?;
        let Value::Array(values) = &answer else { return Err(WriteFault::Answer) };
        let [pointer, epoch] = values.as_slice() else { return Err(WriteFault::Answer) };
        // A server that lost what it held must not make anybody's token an unknown one.
        if replica.epoch() == 0 || number(epoch) != Some(replica.epoch()) {
            return Err(WriteFault::Epoch);
        }
        match bytes(pointer).and_then(read_pointer) {
            Some((home, id)) => {
                self.port.follow(home).await?;
                if replica.table.cell_by_id(id).is_some() {
                    return Ok(true);
                }
                self.expect_nothing(home, id).await?;
                // Somebody was signing in on it, and their gateway died on the way: it is a visitor's still.
                if home != home_alone(id) {
                    self.port.follow(home_alone(id)).await?;
                    if replica.table.cell_by_id(id).is_none() {
                        self.expect_nothing(home_alone(id), id).await?;
                    }
                }
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// The session of a token is not known though its home was followed: it is gone, or it cannot be read here, and then nobody
    /// can say what the token is worth.
    async fn expect_nothing(&self, home: Home, id: SessionId) -> Result<(), WriteFault> {
        let Port { link, layout, .. } = &*self.port;
        let mut ask = redis::cmd("HGET");
        ask.arg(layout.records(home)).arg(id_bytes(id).as_slice());
        match bytes(&link.call(&ask).await?) {
            None => Ok(()),
            Some(record) => {
                let read = read_record(id, record);
                read.map(|_| ()).map_err(|why| WriteFault::Record(why.to_string()))
            }
        }
    }

    fn is_unknown(&self, key: TokenKey) -> bool {
        self.port.replica.epoch() != 0
            && self.unknown.borrow().get(&key).is_some_and(|since| since.elapsed_us() < UNKNOWN_FOR_US)
    }

    fn note_unknown(&self, key: TokenKey) {
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() >= MAX_UNKNOWN {
            unknown.retain(|_, since| since.elapsed_us() < UNKNOWN_FOR_US);
        }
        if unknown.len() < MAX_UNKNOWN {
            unknown.insert(key, Stopwatch::start());
        }
    }
}
