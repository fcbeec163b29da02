//! How a store that is new, or has lost what it held, is brought together by the gateways: each bucket has an epoch, and one
//! that is missing or lower than before tells of the loss.

use std::collections::HashSet;

use redis::Value;

use super::layout::{bytes, number};
use super::link::LuaScript;
use super::pace::has_passed;
use super::port::{Port, WriteFault};
use super::watch::Watch;
use crate::clock::Stopwatch;
use crate::session::Span;

/// How many buckets' epochs are looked at with each beat: all of them within 4 s.
const LOOKED_AT_ONCE: u8 = 32;

/// How long it is known which gateways have stored what they know, in milliseconds: far longer than bringing together takes.
const MERGED_KEPT_MS: u32 = 60_000;

static MERGED: LuaScript = LuaScript::new(include_str!("merged.lua"));

impl Watch {
    /// The store's epoch; 0 where a bucket has none, or an older one than is known. While all is well a few buckets are
    /// looked at with each beat, in turn: who reads or writes in another one looks at that one's.
    pub(super) async fn epoch(&self) -> Result<u64, WriteFault> {
        let known = self.port.replica.epoch();
        let first = self.looked_at.get();
        self.looked_at.set(first.wrapping_add(LOOKED_AT_ONCE));
        if known != 0 {
            let some: Vec<u8> = (0..LOOKED_AT_ONCE).map(|n| first.wrapping_add(n)).collect();
            if self.lowest_epoch(&some).await? == known {
                return Ok(known);
            }
        }
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let lowest = self.lowest_epoch(&all).await?;
        Ok(if lowest < self.known_epoch.get() { 0 } else { lowest })
    }

    async fn lowest_epoch(&self, buckets: &[u8]) -> Result<u64, WriteFault> {
        let Port { link, layout, .. } = &*self.port;
        let mut asks = buckets.chunks(link.at_once(buckets.len())).map(|buckets| {
            let mut ask = redis::cmd("MGET");
            ask.arg(buckets.iter().map(|bucket| layout.epoch(*bucket)).collect::<Vec<_>>());
            async move { link.call(&ask).await }
        });
        let mut lowest = u64::MAX;
        for answer in futures_util::future::join_all(&mut asks).await {
            let Value::Array(epochs) = answer? else { return Err(WriteFault::Answer) };
            lowest = epochs.iter().map(|epoch| number(epoch).unwrap_or(0)).fold(lowest, u64::min);
        }
        Ok(lowest)
    }

    /// The store is without its epoch: it is new, or a server lost what it held. Until every gateway has stored what it
    /// knows, nobody takes the store's word that something is unknown (R23).
    pub(super) async fn bring_together(&self) -> Result<(), WriteFault> {
        let Port { link, layout, replica, .. } = &*self.port;
        let since = match self.without_epoch.get() {
            Some(since) => since,
            None => {
                tracing::warn!("the store has lost what it held, or is new: gateways store what they know");
                replica.set_epoch(0);
                replica.mark_all();
                let since = Stopwatch::start();
                self.without_epoch.set(Some(since));
                since
            }
        };
        // A server that loses it once more meanwhile is another one by then: everything is marked anew.
        if replica.is_merged() {
            // Whoever begins with the new epoch must find the policies that were set.
            replica.facts.follow(&self.port).await?;
            let merged = layout.whole("merged");
            let args = [replica.name.to_vec(), MERGED_KEPT_MS.to_string().into_bytes()];
            let Value::Array(names) = link.eval(&MERGED, &[merged], &args).await? else {
                return Err(WriteFault::Answer);
            };
            let merged: HashSet<&[u8]> = names.iter().filter_map(bytes).collect();
            let all = self.others.borrow().keys().all(|other| merged.contains(other.as_slice()));
            let waited = Span::from_ms(since.elapsed_us() / 1000);
            if waited >= self.patience && (all || has_passed(since, self.pace.gone_after().to_std())) {
                return self.open_epoch().await;
            }
        }
        Err(WriteFault::Epoch)
    }

    async fn open_epoch(&self) -> Result<(), WriteFault> {
        let Port { link, layout, replica, .. } = &*self.port;
        let epoch = self.known_epoch.get() + 1;
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for buckets in all.chunks(link.at_once(all.len())) {
            let mut set = redis::cmd("MSET");
            for bucket in buckets {
                set.arg(layout.epoch(*bucket)).arg(epoch);
            }
            link.call(&set).await?;
        }
        link.call(redis::cmd("DEL").arg(layout.whole("merged"))).await?;
        self.known_epoch.set(epoch);
        replica.set_epoch(epoch);
        self.generation.set(link.generation());
        self.without_epoch.set(None);
        tracing::info!(epoch, "the store holds again what the gateways know");
        Ok(())
    }
}
