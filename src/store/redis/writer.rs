//! What this gateway makes of sessions, on its way to the store: one batch after the other, the homes of a batch at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::activity::{ask_activity, touch};
use super::claim::{Claimed, claim_again, claim_all};
use super::layout::{Home, Layout, Said, home_alone, id_bytes};
use super::link::LuaScript;
use super::port::{MAX_TRIES, Port, WriteFault, epoch_arg};
use super::replica::{Changes, Put, Taken, Write};
use crate::session::{Moment, SessionId, Span};
use crate::store::Trouble;
use crate::store::audit::Entry;
use crate::store::cell::{Cell, SIGNED_IN};
use crate::store::journal::{Batch, Changed, Facts, Journal};
use crate::store::sharing::stored_at;

/// What nobody waits for is written this often: well within the second that is promised (R22).
const REST: Duration = Duration::from_millis(100);

/// Homes that are written at once: more would only queue up in the server.
const AT_ONCE: usize = 128;

/// Sessions of one home that are written in one step: a robot may have very many, and nobody else is to wait for it.
const MOST_AT_ONCE: usize = 1000;

/// A session's activity is stored at most once in this part of its idle time-out, and once a second (issue of R20: what
/// nobody stored when a server is lost makes a session seem idle for that much longer).
const PARTS_OF_IDLE: u64 = 60;
const OFTENEST: Span = Span::from_secs(1);
/// And at least this often: a policy may become much stricter, at one gateway before another.
const SELDOMEST: Span = Span::from_secs(60);

pub(super) static WRITE: LuaScript =
    LuaScript::new(concat!(include_str!("common.lua"), include_str!("write.lua")));
pub(super) struct Writer {
    port: Rc<Port>,
    trouble: Arc<Trouble>,
    /// Sessions whose activity is to be stored again if there was any, by the moment; with what was stored.
    due: BTreeMap<Moment, Vec<(Arc<Cell>, Moment)>>,
    /// Sessions that are to be asked for once the others have heard of new policies.
    asked_early: Vec<Arc<Cell>>,
}

impl Writer {
    pub(super) fn new(port: Port, trouble: Arc<Trouble>) -> Self {
        Self { port: Rc::new(port), trouble, due: BTreeMap::new(), asked_early: Vec::new() }
    }

    /// Writes until the journal is closed.
    pub(super) fn run(mut self, journal: &Arc<Journal>, runtime: &tokio::runtime::Runtime) {
        loop {
            let batch = journal.take(REST);
            let last = batch.last;
            let tasks = tokio::task::LocalSet::new();
            let is_written = tasks.block_on(runtime, self.write(journal, batch));
            if last {
                return;
            }
            if !is_written {
                std::thread::sleep(REST);
            }
        }
    }

    async fn write(&mut self, journal: &Arc<Journal>, batch: Batch) -> bool {
        let now = self.port.clock.now();
        let (mut homes, mut active, mut asked) = (HashMap::<Home, Changes>::new(), Vec::new(), Vec::new());
        for cell in batch.cells {
            let changed = cell.set_out(false);
            if changed.has(Changed::ASK) {
                asked.push(Arc::clone(&cell));
            }
            let whole = [Changed::RECORD, Changed::JAR, Changed::GONE, Changed::AGAIN];
            if whole.into_iter().any(|what| changed.has(what)) {
                homes.entry(self.port.replica.home(&cell)).or_default().push((cell, changed));
                continue;
            }
            cell.arrived();
            if changed.has(Changed::ACTIVITY) && cell.schedule() {
                active.push((cell, Moment::default()));
            }
        }
        if self.port.policies_unheard_for().is_zero() {
            asked.append(&mut self.asked_early);
        } else {
            self.asked_early.append(&mut asked);
        }
        let is_last = batch.last;
        let nothing = batch.facts.is_empty() && batch.entries.is_empty() && homes.is_empty();
        active.extend(self.take_due(if is_last { Moment::MAX } else { now }));
        if nothing && active.is_empty() && asked.is_empty() {
            journal.done(batch.number, true);
            return true;
        }
        let mut fault = None;
        // First: no end by a new policy is stored before the policy.
        if let Err((why, facts)) = self.write_facts(batch.facts).await {
            journal.put_back(facts, Vec::new());
            fault.get_or_insert(why);
        }
        if let Err(why) = self.write_homes(journal, homes, now).await {
            fault.get_or_insert(why);
        }
        if let Err(why) = self.write_activity(active, now).await {
            fault.get_or_insert(why);
        }
        if let Err((why, entries)) = self.write_entries(batch.entries).await {
            journal.put_back(Facts::default(), entries);
            fault.get_or_insert(why);
        }
        self.ask(asked, now).await;
        let is_written = fault.is_none();
        if let (Some(why), true) = (&fault, is_last) {
            tracing::error!(%why, "the store could not be written at the end: what happened last is known to no other gateway");
        }
        self.trouble.told(fault.map(|why| why.to_string()), now);
        journal.done(batch.number, is_written);
        is_written
    }

    /// Writes every home, many at once. What could not be written is queued again.
    async fn write_homes(
        &self,
        journal: &Arc<Journal>,
        homes: HashMap<Home, Changes>,
        now: Moment,
    ) -> Result<(), WriteFault> {
        let room = Rc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        let write = |home, changes| {
            let (port, journal, room) = (Rc::clone(&self.port), Arc::clone(journal), Rc::clone(&room));
            async move {
                let _place = room.acquire().await;
                write_and_note(&port, &journal, home, changes, now).await
            }
        };
        for (home, changes) in homes {
            tasks.spawn_local(write(home, changes));
        }
        let mut outcome = Ok(());
        while let Some(done) = tasks.join_next().await {
            let (written, moved) = done.unwrap_or((Err(WriteFault::Answer), Vec::new()));
            outcome = outcome.and(written);
            for (cell, changed) in moved {
                tasks.spawn_local(write(self.port.replica.home(&cell), vec![(cell, changed)]));
            }
        }
        outcome
    }

    fn take_due(&mut self, now: Moment) -> Vec<(Arc<Cell>, Moment)> {
        let later = match now {
            Moment::MAX => BTreeMap::new(),
            now => self.due.split_off(&now.plus(Span::from_ms(1))),
        };
        std::mem::replace(&mut self.due, later).into_values().flatten().collect()
    }

    /// Stores the activity of these sessions where it is newer than what was stored. The first after a while is stored at
    /// once, so that nobody ends a session elsewhere that has just come back to life; what follows is stored together.
    async fn write_activity(
        &mut self,
        active: Vec<(Arc<Cell>, Moment)>,
        now: Moment,
    ) -> Result<(), WriteFault> {
        let room = Rc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for (cell, stored) in active {
            let (last, idle) = {
                let session = cell.session.lock();
                let last = session.times.last_active_at;
                (last, session.policy.idle_timeout.filter(|_| !session.is_over()))
            };
            if last <= stored {
                // ORDER: off the schedule, then looked at again: an activity meanwhile saw it on the schedule.
                cell.unschedule();
                let is_newer = cell.session.lock().times.last_active_at > last;
                if !(is_newer && cell.schedule()) {
                    continue;
                }
            }
            let part = idle.map_or(SELDOMEST, |idle| Span::from_ms(idle.as_ms() / PARTS_OF_IDLE));
            let (next, again) = (now.plus(part.clamp(OFTENEST, SELDOMEST)), now.plus(OFTENEST));
            let (port, room, session) = (Rc::clone(&self.port), Rc::clone(&room), Arc::clone(&cell));
            tasks.spawn_local(async move {
                let _place = room.acquire().await;
                let written = touch(&port, &session, now).await;
                let at = if written.is_ok() { next } else { again };
                (written, session, stored, at)
            });
        }
        let mut outcome = Ok(());
        while let Some(task) = tasks.join_next().await {
            let Ok((written, cell, before, at)) = task else { continue };
            let stored = *written.as_ref().unwrap_or(&before);
            self.due.entry(at).or_default().push((cell, stored));
            outcome = outcome.and(written.map(|_| ()));
        }
        outcome
    }

    /// Asks when these sessions were last active elsewhere. Where the store cannot say, the sweeper has it asked again.
    async fn ask(&self, asked: Vec<Arc<Cell>>, now: Moment) {
        let room = Rc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for cell in asked {
            let (port, room) = (Rc::clone(&self.port), Rc::clone(&room));
            tasks.spawn_local(async move {
                let _place = room.acquire().await;
                ask_activity(&port, &cell, now).await
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// With a fault comes what is left to be written.
    async fn write_facts(&self, mut facts: Facts) -> Result<(), (WriteFault, Facts)> {
        let Port { replica, clock, .. } = &*self.port;
        while let Some((name, value)) = facts.pop_first() {
            if let Err(why) = replica.facts.write(&self.port, name, &value, clock.now()).await {
                facts.insert(name, value);
                return Err((why, facts));
            }
            // Only now can the others hear of it.
            replica.table.note_other_policies();
        }
        Ok(())
    }

    /// With a fault comes what is left to be written.
    async fn write_entries(&self, entries: Vec<Entry>) -> Result<(), (WriteFault, Vec<Entry>)> {
        let mut entries = VecDeque::from(entries);
        while let Some(entry) = entries.front() {
            if let Ok(line) = serde_json::to_vec(&entry.found()) {
                let (audit, most) = (self.port.layout.whole("audit"), crate::store::audit::SHARED);
                let mut add = redis::cmd("XADD");
                add.arg(audit).arg("MAXLEN").arg("~").arg(most).arg("*").arg("e").arg(line);
                if let Err(why) = self.port.link.call(&add).await {
                    return Err((why.into(), entries.into()));
                }
            }
            entries.pop_front();
        }
        Ok(())
    }
}

/// Stores the changes of one home. What could not be stored is queued again; what belongs to another home is returned.
async fn write_and_note(
    port: &Port,
    journal: &Arc<Journal>,
    home: Home,
    mut changes: Changes,
    now: Moment,
) -> (Result<(), WriteFault>, Changes) {
    let (mut outcome, mut moved) = (Ok(()), Vec::new());
    while !changes.is_empty() {
        let left = changes.split_off(changes.len().min(MOST_AT_ONCE));
        let written = write_home(port, home, &mut changes, &mut moved, now).await;
        for (cell, changed) in std::mem::replace(&mut changes, left) {
            cell.arrived();
            if let (Err(_), Some(left)) = (&written, changed.without(Changed::ACTIVITY)) {
                journal.mark(&cell, left);
            }
        }
        outcome = outcome.and(written);
    }
    (outcome, moved)
}

/// First takes over what others stored there, as often as it takes.
async fn write_home(
    port: &Port,
    home: Home,
    changes: &mut Changes,
    moved: &mut Changes,
    now: Moment,
) -> Result<(), WriteFault> {
    for _ in 0..MAX_TRIES {
        let (write, elsewhere) = port.replica.plan(home, changes, now);
        moved.extend(elsewhere);
        if write.puts.is_empty() {
            return Ok(());
        }
        if claim_all(port, &write, now).await? == Claimed::Moved {
            continue;
        }
        let sent_again = port.link.sent_again();
        let said = store(port, &write, now).await;
        if said.is_err() || port.link.sent_again() != sent_again {
            // ORDER: before anything is taken over, which would move what may have been heard.
            note_unsure(&write, changes);
        }
        match said? {
            Said::Stored(version, ended_before) => {
                // ORDER: the sessions first: whoever follows the home from here would take them for unheard of.
                let moved_away = note_stored(&write, changes, now);
                port.replica.reached(home, write.base, version);
                confirm(port, &write, &ended_before, moved_away).await;
                return Ok(());
            }
            Said::Behind(version, rows) => {
                let at = (home, write.base);
                // Else all was forgotten meanwhile, or it was followed: what is missing came before that base.
                if let Taken::Over(taken) = port.take_over(at, version, &rows) {
                    let mut concerned =
                        changes.first().map_or_else(Vec::new, |(cell, _)| port.replica.siblings(cell));
                    concerned.extend(taken);
                    add_changed(changes, concerned);
                }
            }
            Said::Epoch => return Err(WriteFault::Epoch),
            Said::Read(..) | Said::Part(..) | Said::Missing | Said::Held(_) => {
                return Err(WriteFault::Answer);
            }
        }
    }
    Err(WriteFault::Busy)
}

/// Whom the limit ended when the sessions of all gateways came together is stored in the same step (law 5).
fn add_changed(changes: &mut Changes, concerned: Vec<Arc<Cell>>) {
    for cell in concerned {
        if !cell.is_changed() || changes.iter().any(|(known, _)| Arc::ptr_eq(known, &cell)) {
            continue;
        }
        let changed = cell.set_out(true);
        changes.push((cell, changed.and(Changed::AGAIN)));
    }
}

async fn store(port: &Port, write: &Write, now: Moment) -> Result<Said, WriteFault> {
    let args = write_args(&port.layout, port.replica.name, write, epoch_arg(&port.replica), now);
    port.eval(&WRITE, &write_keys(&port.layout, write.home), &args).await
}

/// The keys of [`WRITE`].
pub(super) fn write_keys(layout: &Layout, home: Home) -> Vec<Vec<u8>> {
    let bucket = home.0[0];
    let mut keys = layout.home(home).to_vec();
    keys.extend([layout.log(bucket), layout.epoch(bucket), layout.homes(bucket)]);
    keys
}

/// The arguments of [`WRITE`]; `by` names the gateway that writes.
pub(super) fn write_args(
    layout: &Layout,
    by: [u8; 8],
    write: &Write,
    epoch: Vec<u8>,
    now: Moment,
) -> Vec<Vec<u8>> {
    let is_of_user = write.puts.iter().any(|put| put.signed_in);
    let ids: Vec<SessionId> = write.puts.iter().map(|put| put.id).collect();
    let announcement = super::layout::Announcement { by, is_of_user, home: write.home, ids };
    let mut args: Vec<Vec<u8>> = vec![
        write.base.version.to_string().into(),
        proposed_version(now).to_string().into(),
        now.unix_ms().to_string().into(),
        epoch,
        layout.channel().into(),
        announcement.to_bytes(),
        if is_of_user { write.home.0.to_vec() } else { Vec::new() },
    ];
    write.puts.iter().for_each(|put| args.extend(put_args(put, by)));
    args
}

fn put_args(put: &Put, by: [u8; 8]) -> [Vec<u8>; 7] {
    let (change, jar) = put.jar.parts();
    [
        id_bytes(put.id).to_vec(),
        put.record.clone().unwrap_or_default(),
        change.to_vec(),
        jar.to_vec(),
        put.term.to_string().into(),
        put.active_at.unix_ms().to_string().into(),
        if put.ended { by.to_vec() } else { Vec::new() },
    ]
}

/// Versions grow with time and differ by chance: what was lost and written anew is never taken for what it was.
pub(super) fn proposed_version(now: Moment) -> u64 {
    let [chance] = crate::store::random_bytes::<1>();
    now.unix_ms().saturating_mul(256) + u64::from(chance)
}

/// A session that is kept at its user's home now and was stored alone before.
struct Moved {
    cell: Arc<Cell>,
    /// By this write; else by another gateway's, while this one was on its way to the visitor's old home.
    is_ours: bool,
}

/// Nobody knows whether the store took these sign-ins.
fn note_unsure(write: &Write, changes: &Changes) {
    for put in write.puts.iter().filter(|put| put.signed_in) {
        if let Some((cell, _)) = changes.iter().find(|(cell, _)| cell.id == put.id) {
            cell.may_be_heard.store(true, Ordering::Relaxed);
        }
    }
}

/// Others can hear of these sessions now. Returns those that have moved.
fn note_stored(write: &Write, changes: &Changes, now: Moment) -> Vec<Moved> {
    let mut moved = Vec::new();
    for put in &write.puts {
        let Some((cell, _)) = changes.iter().find(|(cell, _)| cell.id == put.id) else { continue };
        let stored = stored_at(now, put.signed_in);
        // Whoever follows may have heard of a sign-in while a visitor's session was being stored.
        let with_theirs = |before| Some(stored | (before & SIGNED_IN));
        let before = cell.slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_theirs);
        let before = before.unwrap_or_default();
        if before != 0 && (before & SIGNED_IN != 0) != put.signed_in {
            moved.push(Moved { cell: Arc::clone(cell), is_ours: put.signed_in });
        }
    }
    moved
}

/// The store has it.
async fn confirm(port: &Port, write: &Write, ended_before: &[SessionId], moved: Vec<Moved>) {
    let table = &port.replica.table;
    for put in write.puts.iter().filter(|put| put.ended) {
        table.is_told(put.id, !ended_before.contains(&put.id));
    }
    for Moved { cell, is_ours } in moved {
        if is_ours && claim_again(port, write, cell.id).await.is_err() {
            table.mark(&cell, Changed::AGAIN);
        }
        // What stays behind for lack of an answer is forgotten in time.
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(port.layout.home(home_alone(cell.id)).as_slice());
        let _left_behind = port.link.call(&unlink).await;
    }
}
