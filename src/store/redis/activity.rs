//! When sessions were last active: what this gateway tells the store, and what it asks before it takes one for idle.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::Value;

use super::layout::{Home, Said, bytes, home_alone, id_bytes, number, read_pointer, term};
use super::link::LuaScript;
use super::port::{Port, WriteFault, epoch_arg};
use crate::session::{Moment, TokenKey};
use crate::store::cell::Cell;
use crate::store::journal::Changed;
use crate::store::sharing::stored_at;

/// A record is stored anew after this long, so that its tokens are kept as long as it: half of what is added to each term.
const RENEWED_EVERY_SECS: u32 = 12 * 3600;

static TOUCH: LuaScript = LuaScript::new(concat!(include_str!("common.lua"), include_str!("touch.lua")));
static ACTIVE: LuaScript = LuaScript::new(include_str!("active.lua"));

/// Stores the last activity of a session. Returns which that was.
pub(super) async fn touch(port: &Port, cell: &Arc<Cell>, now: Moment) -> Result<Moment, WriteFault> {
    let home = port.replica.home(cell);
    let mut keys = port.layout.home(home).to_vec();
    keys.extend([port.layout.epoch(home.0[0]), port.layout.homes(home.0[0])]);
    let (last, term, is_of_user) = {
        let session = cell.session.lock();
        let kept = port.replica.table.bound.load().book.ended_kept;
        (session.times.last_active_at, term(&session, kept), session.identity.is_some())
    };
    let slot = cell.slot.load(Ordering::Relaxed);
    let is_old = stored_at(now, true).saturating_sub(slot) > RENEWED_EVERY_SECS;
    let args = [
        id_bytes(cell.id).to_vec(),
        last.unix_ms().to_string().into(),
        term.to_string().into(),
        now.unix_ms().to_string().into(),
        epoch_arg(&port.replica),
        if is_of_user { home.0.to_vec() } else { Vec::new() },
    ];
    match port.eval(&TOUCH, &keys, &args).await? {
        Said::Stored(..) if !is_old => Ok(last),
        Said::Stored(..) | Said::Missing => {
            port.replica.table.mark(cell, Changed::AGAIN);
            Ok(last)
        }
        Said::Epoch => Err(WriteFault::Epoch),
        Said::Behind(..) | Said::Read(..) | Said::Part(..) | Said::Held(_) => Err(WriteFault::Answer),
    }
}

/// Asks the store when the session was last active, and has it judged by that.
pub(super) async fn ask_activity(port: &Port, cell: &Arc<Cell>, at: Moment) -> Result<(), WriteFault> {
    if port.replica.epoch() == 0 || !port.link.is_settled() || !port.policies_unheard_for().is_zero() {
        return Err(WriteFault::Unsettled);
    }
    let home = port.replica.home(cell);
    let is_stored = cell.slot.load(Ordering::Relaxed) != 0;
    let moved =
        if is_stored && home == home_alone(cell.id) { moved_to(port, home, cell).await? } else { None };
    let active = match active_at(port, moved.unwrap_or(home), cell).await? {
        Some(active) => active,
        // Nobody else can know it.
        None if !is_stored => None,
        None => {
            port.replica.table.mark(cell, Changed::AGAIN);
            return Err(WriteFault::Unsettled);
        }
    };
    port.sure().await?;
    port.replica.table.heard(cell, active, at, port.clock.now());
    Ok(())
}

/// When the session was last active, if that is known; `None` where it is not kept there.
async fn active_at(port: &Port, home: Home, cell: &Arc<Cell>) -> Result<Option<Option<Moment>>, WriteFault> {
    let [records, _, _, activity, _] = port.layout.home(home);
    let keys = [records, activity, port.layout.epoch(home.0[0])];
    let answer =
        port.link.eval(&ACTIVE, &keys, &[id_bytes(cell.id).to_vec(), epoch_arg(&port.replica)]).await?;
    let Value::Array(parts) = &answer else { return Err(WriteFault::Answer) };
    match parts.first().and_then(bytes) {
        Some(b"active") => Ok(Some(parts.get(1).and_then(number).map(Moment::from_unix_ms))),
        Some(b"missing") => Ok(None),
        Some(b"epoch") => Err(WriteFault::Epoch),
        Some(_) | None => Err(WriteFault::Answer),
    }
}

/// Where its tokens say that a visitor's session is kept since somebody signed in on it at another gateway, of which this one
/// has not heard yet; with what is kept there taken over. What stands at its old home may be left over from before.
async fn moved_to(port: &Port, home: Home, cell: &Arc<Cell>) -> Result<Option<Home>, WriteFault> {
    let keys: Vec<TokenKey> = cell.session.lock().keys().collect();
    for key in keys {
        let answer = port.link.call(redis::cmd("GET").arg(port.layout.token(key))).await?;
        if let Some((other, id)) = bytes(&answer).and_then(read_pointer)
            && (id, other != home) == (cell.id, true)
        {
            port.follow(other).await?;
            return Ok(Some(other));
        }
    }
    Ok(None)
}
