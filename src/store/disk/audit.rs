//! The table of the audit: written with everything else, read beside it by a connection of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, params, params_from_iter};

use crate::session::Moment;
use crate::store::audit::{AuditFilter, DAY_MS, Day, DayKey, Entry, Found};

/// Columns of their own, so that operators can search them by `sqlite3` too. `at` in milliseconds since the Unix epoch.
pub(super) const TABLE: &str = "
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, act TEXT NOT NULL, session TEXT, app TEXT,
        tenant TEXT, user TEXT, reason TEXT, by TEXT, detail TEXT
    );
";

const INSERT: &str = "
    INSERT INTO audit (at, act, session, app, tenant, user, reason, by, detail)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
";

/// Most entries that are kept, whatever `ended_kept` says.
const MOST: i64 = 10_000_000;

/// How many old entries are removed at once.
const REMOVED_AT_ONCE: i64 = 10_000;

/// Writes one entry; within a transaction.
pub(super) fn write(connection: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    connection.prepare_cached(INSERT)?.execute(params![
        as_integer(entry.at),
        entry.act.as_str(),
        entry.session.map(|id| id.to_string()),
        entry.app.as_deref(),
        entry.tenant,
        entry.user,
        entry.act.reason().map(crate::session::EndReason::as_str),
        entry.by.as_deref(),
        entry.detail,
    ])?;
    Ok(())
}

/// Columns in the order in which [`found`] reads them.
const COLUMNS: &str = "number, at, act, session, app, tenant, user, reason, by, detail";

/// All entries, oldest first.
pub(super) const EVERYTHING: &str =
    "SELECT number, at, act, session, app, tenant, user, reason, by, detail FROM audit ORDER BY number";

/// Writes an entry that was found elsewhere, under a number of its own; within a transaction.
pub(super) fn write_found(connection: &Connection, found: &Found) -> rusqlite::Result<()> {
    connection.prepare_cached(INSERT)?.execute(params![
        as_integer(found.at),
        found.act,
        found.session,
        found.app,
        found.tenant,
        found.user,
        found.reason,
        found.by,
        found.detail,
    ])?;
    Ok(())
}

/// Removes some of the entries from before `moment`, and some of those that are too many. Returns whether there were any.
pub(super) fn trim(connection: &Connection, moment: Moment) -> rusqlite::Result<bool> {
    // Numbers grow with time, as near as makes no difference: the oldest stand first.
    let trim = "DELETE FROM audit WHERE number IN (SELECT number FROM audit ORDER BY number LIMIT ?1)
                AND (at < ?2 OR number <= (SELECT max(number) FROM audit) - ?3)";
    let removed =
        connection.prepare_cached(trim)?.execute(params![REMOVED_AT_ONCE, as_integer(moment), MOST])?;
    Ok(removed > 0)
}

fn as_integer(moment: Moment) -> i64 {
    i64::try_from(moment.unix_ms()).unwrap_or(i64::MAX)
}

/// Reads the audit of a database that another connection writes.
pub(in crate::store) struct AuditFile(PathBuf);

impl AuditFile {
    pub(in crate::store) fn new(database: PathBuf) -> Self {
        Self(database)
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&self.0, flags)
    }

    /// The newest entries that fit, newest first.
    pub(in crate::store) fn page(&self, filter: &AuditFilter, limit: usize) -> rusqlite::Result<Vec<Found>> {
        let (condition, mut values) = conditions(filter);
        values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        let select = format!("SELECT {COLUMNS} FROM audit WHERE {condition} ORDER BY number DESC LIMIT ?");
        let connection = self.open()?;
        let mut statement = connection.prepare(&select)?;
        statement.query_map(params_from_iter(values), found)?.collect()
    }

    /// What happened on each day, of what fits.
    pub(in crate::store) fn days(&self, filter: &AuditFilter) -> rusqlite::Result<BTreeMap<DayKey, Day>> {
        let (condition, values) = conditions(filter);
        let select = format!(
            "SELECT at / {DAY_MS}, app, tenant, act, reason, count(*) FROM audit
             WHERE {condition} AND app IS NOT NULL AND tenant IS NOT NULL GROUP BY 1, 2, 3, 4, 5"
        );
        let connection = self.open()?;
        let mut statement = connection.prepare(&select)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut days: BTreeMap<DayKey, Day> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let act: String = row.get(3)?;
            let key = (row.get(0)?, row.get(1)?, row.get(2)?);
            days.entry(key).or_default().count(&act, row.get(4)?, row.get(5)?);
        }
        Ok(days)
    }
}

pub(super) fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found {
        number: row.get(0)?,
        at: Moment::from_unix_ms(row.get(1)?),
        act: row.get(2)?,
        session: row.get(3)?,
        app: row.get(4)?,
        tenant: row.get(5)?,
        user: row.get(6)?,
        reason: row.get(7)?,
        by: row.get(8)?,
        detail: row.get(9)?,
    })
}

/// The condition of a filter, with the values of its question marks in their order. SECURITY: nothing that was asked for
/// becomes part of the text.
fn conditions(filter: &AuditFilter) -> (String, Vec<Value>) {
    let mut condition = String::from("TRUE");
    let mut values = Vec::new();
    let mut add = |text: &str, found: Vec<Value>| {
        condition.push_str(" AND ");
        condition.push_str(text);
        values.extend(found);
    };
    let text = |text: &String| Value::Text(text.clone());
    let number = |n: u64| vec![Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))];
    for (column, names) in [("tenant", &filter.tenants), ("user", &filter.users)] {
        if let Some(names) = names {
            let marks = vec!["?"; names.len()].join(", ");
            add(&format!("{column} IN ({marks})"), names.iter().map(text).collect());
        }
    }
    for (column, value) in [
        ("app", filter.app.clone()),
        ("act", filter.act.clone()),
        ("session", filter.session.map(|id| id.to_string())),
    ] {
        if let Some(value) = value {
            add(&format!("{column} = ?"), vec![Value::Text(value)]);
        }
    }
    for (comparison, value) in [
        ("at >= ?", filter.since.map(Moment::unix_ms)),
        ("at < ?", filter.until.map(Moment::unix_ms)),
        ("number < ?", filter.before),
    ] {
        if let Some(value) = value {
            add(comparison, number(value));
        }
    }
    (condition, values)
}
