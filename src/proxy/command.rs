//! What the app commands by a response header (`app_commands = true`): `Tenure-Command: end | end-user | no-activity`.
//!
//! Heard from the upstream only; the field never reaches a browser, and no browser's field reaches the app.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::visit::Visit;
use crate::session::{EndReason, Moment};
use crate::store::{Filter, SessionRef, Table};

const TENURE_COMMAND: HeaderName = HeaderName::from_static("tenure-command");

/// Who ended a session that the app commanded to end; for the audit.
const BY: &str = "app";

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// Ends the session of this request, as a log-out.
    End,
    /// The same, and revokes all other sessions of its user.
    EndUser,
    /// The request was no activity of its user.
    NoActivity,
}

/// The commands of a response, each once; what is no command of ours is counted as nothing.
fn commands(headers: &HeaderMap) -> impl Iterator<Item = Command> {
    let text = headers.get_all(TENURE_COMMAND).iter().filter_map(|value| value.to_str().ok());
    text.flat_map(|text| text.split(',')).filter_map(|word| match word.trim() {
        "end" => Some(Command::End),
        "end-user" => Some(Command::EndUser),
        "no-activity" => Some(Command::NoActivity),
        other => {
            tracing::warn!(command = %other.escape_default(), "the app sent a Tenure-Command that is none");
            None
        }
    })
}

/// Carries out what the response commands. Returns whether its session has ended by that.
pub(super) fn obey(table: &Table, visit: &Visit, headers: &HeaderMap, now: Moment) -> bool {
    let Some((session, _)) = &visit.session else { return false };
    let mut ended = false;
    for command in commands(headers) {
        match command {
            Command::End => ended |= end(table, session, now),
            Command::EndUser => {
                end_others(table, session, &visit.app.config.name, now);
                ended |= end(table, session, now);
            }
            Command::NoActivity => {
                if let Some(before) = visit.active_before {
                    table.take_back(session, before, visit.began, now);
                }
            }
        }
    }
    ended
}

fn end(table: &Table, session: &SessionRef, now: Moment) -> bool {
    table.end(session, EndReason::Logout, Some(BY.into()), now)
}

/// The other sessions of the same user, in the same app and tenant.
fn end_others(table: &Table, session: &SessionRef, app: &str, now: Moment) {
    let Some(identity) = table.inspect(session, now, |s| s.identity.clone()) else { return };
    let filter = Filter {
        app: Some(app.to_owned()),
        tenant: Some(vec![identity.tenant.clone()]),
        user: Some(vec![identity.user.clone()]),
        ..Filter::default()
    };
    table.revoke(&filter, &[session.id()], false, &Arc::from(BY), now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_from_every_field() {
        let mut headers = HeaderMap::new();
        headers.append(TENURE_COMMAND, "no-activity, bogus".parse().unwrap());
        headers.append(TENURE_COMMAND, " end-user".parse().unwrap());
        assert_eq!(commands(&headers).collect::<Vec<_>>(), [Command::NoActivity, Command::EndUser]);
    }
}
