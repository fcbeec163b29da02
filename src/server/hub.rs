//! Hears of every event of the table: counts it, writes the audit line, and has busy sessions cut.

use std::sync::Arc;

use super::cuts::Cuts;
use crate::proxy::Farewells;
use crate::session::EndReason;
use crate::store::{Event, EventKind, Observer};
use crate::telemetry::{Metrics, audit};

/// The table's observer.
pub(super) struct Hub {
    metrics: Arc<Metrics>,
    cuts: Cuts,
    farewells: Farewells,
}

impl Hub {
    /// An observer that counts in `metrics`, cuts through `cuts`, and leaves what the apps are to be told in `farewells`.
    #[must_use]
    pub(super) fn new(metrics: Arc<Metrics>, cuts: Cuts, farewells: Farewells) -> Self {
        Self { metrics, cuts, farewells }
    }

    fn cut(&self, event: &Event, reason: EndReason) {
        if event.busy {
            self.cuts.session(event.id, reason);
        }
    }

    fn ended(&self, event: &Event, reason: EndReason, by: Option<&Arc<str>>) {
        // ORDER: cut first; counting and logging must not delay it.
        self.cut(event, reason);
        let metrics = self.metrics.app(&event.app);
        metrics.ended(reason);
        if event.is_signed_in() {
            if let Some(jar) = &event.jar {
                self.farewells.of_jar(&event.app, jar, reason, &metrics, event.at);
            }
            audit::ended(&record(event), reason, by.map(AsRef::as_ref));
        }
    }
}

impl Observer for Hub {
    fn observe(&self, event: &Event) {
        match &event.kind {
            EventKind::Ended { reason, by } => self.ended(event, *reason, by.as_ref()),
            EventKind::Over(reason) => self.cut(event, *reason),
            EventKind::SignedIn => {
                self.metrics.app(&event.app).signed_in();
                audit::signed_in(&record(event));
            }
            EventKind::HeldBack => {
                self.metrics.app(&event.app).held_back();
                audit::held_back(&record(event));
            }
            EventKind::WouldEnd(reason) => self.metrics.app(&event.app).would_end(*reason),
            EventKind::Evicted => self.metrics.app(&event.app).evicted(),
            EventKind::Recycled => self.metrics.app(&event.app).recycled(),
        }
    }
}

fn record(event: &Event) -> audit::Subject<'_> {
    let identity = event.identity.as_deref();
    audit::Subject {
        session: event.id,
        app: &event.app,
        user: identity.map(|i| i.user.as_str()),
        tenant: identity.map(|i| i.tenant.as_str()),
        at: event.at,
    }
}
