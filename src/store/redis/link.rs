use std::cell::{Cell, RefCell};
use std::time::Duration;
use redis::{Cmd, Value};
use redis::aio::MultiplexedConnection;
use crate::config;
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum LinkFault { #[error("{0}")] Away(String), #[error("{0}")] Refused(String) }
pub(in crate::store) struct LuaScript { text: &'static str }
impl LuaScript { pub(in crate::store) const fn new(text: &'static str) -> Self { Self { text } } }
pub(in crate::store) struct Link { url: String, connection: RefCell<Option<MultiplexedConnection>>, generation: Cell<u64> }
pub(in crate::store) struct Messages(redis::aio::PubSub);
impl Messages { pub(in crate::store) async fn next(&mut self) -> Option<Vec<u8>> {
    use futures_util::StreamExt; self.0.on_message().next().await.map(|m| m.get_payload_bytes().to_vec()) } }
const T: Duration = Duration::from_millis(500);
impl Link {
    pub(in crate::store) fn new(settings: &config::Redis) -> Self { Self { url: settings.url.clone(), connection: RefCell::default(), generation: Cell::new(0) } }
    pub(in crate::store) async fn call(&self, cmd: &Cmd) -> Result<Value, LinkFault> {
        let away = |e: String| LinkFault::Away(e);
        let known = self.connection.borrow().clone();
        let mut c = match known { Some(c) => c, None => {
            let client = redis::Client::open(self.url.clone()).map_err(|e| away(e.to_string()))?;
            let c = tokio::time::timeout(T, client.get_multiplexed_async_connection()).await.map_err(|_| away("t".into()))?.map_err(|e| away(e.to_string()))?;
            self.generation.set(self.generation.get() + 1);
            *self.connection.borrow_mut() = Some(c.clone()); c } };
        match tokio::time::timeout(T, c.send_packed_command(cmd)).await {
            Err(_) => { self.connection.borrow_mut().take(); Err(away("time-out".into())) }
            Ok(Err(e)) if e.code() == Some("NOSCRIPT") => Err(LinkFault::Refused("NOSCRIPT".into())),
            Ok(Err(e)) => { if e.is_io_error() || e.is_connection_dropped() { self.connection.borrow_mut().take(); Err(away(e.to_string())) } else { Err(LinkFault::Refused(e.to_string())) } }
            Ok(Ok(Value::ServerError(e))) => Err(LinkFault::Refused(format!("{e:?}"))),
            Ok(Ok(v)) => Ok(v),
        }
    }
    pub(in crate::store) async fn eval(&self, script: &LuaScript, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Result<Value, LinkFault> {
        let mut c = redis::cmd("EVAL"); c.arg(script.text).arg(keys.len()); for k in keys { c.arg(k); } for a in args { c.arg(a); }
        self.call(&c).await
    }
    pub(in crate::store) fn generation(&self) -> u64 { self.generation.get() }
    pub(in crate::store) async fn listen(&self, channel: &str) -> Result<Messages, LinkFault> {
        let away = |e: redis::RedisError| LinkFault::Away(e.to_string());
        let client = redis::Client::open(self.url.clone()).map_err(away)?;
        let mut p = client.get_async_pubsub().await.map_err(away)?;
        p.subscribe(channel).await.map_err(away)?;
        Ok(Messages(p))
    }
}
