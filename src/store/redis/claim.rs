//! Whose a token is, as the store has it: a pointer from the token to the session and its home.

use futures_util::StreamExt;

use super::layout::{Home, Said, home_alone, id_bytes, number, pointer, read_pointer};
use super::link::LuaScript;
use super::port::{Port, WriteFault};
use super::replica::{Pointer, Write};
use crate::session::{Moment, SessionId};

/// How many tokens are claimed at once.
const AT_ONCE: usize = 64;

pub(super) static POINTER: LuaScript = LuaScript::new(include_str!("pointer.lua"));

/// What came of saying whose a token is.
#[derive(PartialEq, Eq)]
pub(super) enum Claimed {
    /// Said, or not to be said.
    Settled,
    /// Somebody signed in on the visitor's session at another gateway, and it is kept elsewhere now; this gateway has just
    /// heard of it.
    Moved,
}

/// Says in the store whose the token is. Where another session holds it, that one is met first.
async fn claim(port: &Port, home: Home, pointer_to: &Pointer, now: Moment) -> Result<Claimed, WriteFault> {
    let keys = [port.layout.token(pointer_to.key)];
    let value = pointer(home, pointer_to.id);
    let args = |how: &str| [value.clone(), pointer_to.ttl.to_string().into(), how.into()];
    let how = if home == home_alone(pointer_to.id) { "2" } else { "0" };
    let Said::Held(other) = port.eval(&POINTER, &keys, &args(how)).await? else {
        return Ok(Claimed::Settled);
    };
    let Some((other_home, other_id)) = read_pointer(&other) else { return Err(WriteFault::Answer) };
    let is_same = other_id == pointer_to.id;
    if is_same || port.replica.table.cell_by_id(other_id).is_none() {
        port.follow(other_home).await?;
    }
    if !is_same {
        if port.replica.table.holds_after_all(pointer_to.key, pointer_to.id, other_id, now) {
            port.eval(&POINTER, &keys, &args("1")).await?;
        }
        return Ok(Claimed::Settled);
    }
    if port.replica.is_identified(other_id) {
        return Ok(Claimed::Moved);
    }
    let is_there = redis::cmd("HEXISTS")
        .arg(port.layout.records(other_home))
        .arg(id_bytes(other_id).as_slice())
        .to_owned();
    // Where it is there a newer program wrote it: it cannot be read here, and stays.
    if number(&port.link.call(&is_there).await?) == Some(0) {
        port.eval(&POINTER, &keys, &args("1")).await?;
        // Whoever signed in on it may have been about to store it there.
        port.follow(other_home).await?;
        if port.replica.is_identified(other_id) {
            return Ok(Claimed::Moved);
        }
    }
    Ok(Claimed::Settled)
}

/// Says anew whose the tokens of a session are that has moved from its visitor's home: a gateway that had not heard of that
/// may have said otherwise meanwhile.
pub(super) async fn claim_again(port: &Port, write: &Write, id: SessionId) -> Result<(), WriteFault> {
    for pointer_to in write.pointers.iter().filter(|pointer_to| pointer_to.id == id) {
        let (value, ttl) = (pointer(write.home, id), pointer_to.ttl.to_string());
        let args = [value, ttl.into(), b"1".to_vec()];
        port.eval(&POINTER, &[port.layout.token(pointer_to.key)], &args).await?;
    }
    Ok(())
}

/// Says so of all tokens of what is to be stored, before it is.
pub(super) async fn claim_all(port: &Port, write: &Write, now: Moment) -> Result<Claimed, WriteFault> {
    let claims = write.pointers.iter().map(|held| claim(port, write.home, held, now));
    let mut claims = futures_util::stream::iter(claims).buffer_unordered(AT_ONCE);
    while let Some(claimed) = claims.next().await {
        if claimed? == Claimed::Moved {
            return Ok(Claimed::Moved);
        }
    }
    Ok(Claimed::Settled)
}
