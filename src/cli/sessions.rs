//! `tenure sessions`.

use std::io::{self, Write};

use serde_json::Value;

use super::client::{Client, Failed, Remote, outcome};
use super::table;

const PAGE: &str = "1000";
const HEAD: [&str; 8] = ["ID", "USER", "TENANT", "APP", "STATE", "LAST ACTIVE", "ENDS", "DEVICE"];

/// `tenure sessions`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Of this user alone
    #[arg(long)]
    user: Option<String>,
    /// Of this tenant alone
    #[arg(long)]
    tenant: Option<String>,
    /// Of this app alone
    #[arg(long)]
    app: Option<String>,
    /// Those that have ended, with the reason
    #[arg(long)]
    ended: bool,
    /// One JSON object a line, as the API gives it
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    outcome(list(args, out), err)
}

fn list(args: &Args, out: &mut impl Write) -> Result<u8, Failed> {
    let client = Client::new(&args.remote)?;
    let states: &[&str] = if args.ended { &["ended"] } else { &["active", "pending"] };
    let mut rows = Vec::new();
    for state in states {
        let mut cursor = None;
        loop {
            let page = page(&client, args, state, cursor.as_deref())?;
            for session in page["items"].as_array().into_iter().flatten() {
                if args.json {
                    writeln!(out, "{session}")?;
                } else {
                    rows.push(row(session));
                }
            }
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
    }
    if !args.json {
        table::write(out, HEAD, &rows)?;
        write_advice(&client, args, out)?;
    }
    Ok(0)
}

/// What the gateway noticed of the apps. A token that may not ask about it hears nothing of it.
fn write_advice(client: &Client, args: &Args, out: &mut impl Write) -> Result<(), Failed> {
    let list = client.get("/v1/advice", &[]).unwrap_or_default();
    for item in list["items"].as_array().into_iter().flatten() {
        let app = item["app"].as_str().unwrap_or("-");
        if args.app.as_deref().is_none_or(|wanted| wanted == app) {
            let (count, advice) = (&item["count"], item["advice"].as_str().unwrap_or("-"));
            writeln!(out, "advice for {app}: {advice} ({count} times so far)")?;
        }
    }
    Ok(())
}

fn page(client: &Client, args: &Args, state: &str, cursor: Option<&str>) -> Result<Value, Failed> {
    client.get(
        "/v1/sessions",
        &[
            ("user", args.user.as_deref()),
            ("tenant", args.tenant.as_deref()),
            ("app", args.app.as_deref()),
            ("state", Some(state)),
            ("limit", Some(PAGE)),
            ("cursor", cursor),
        ],
    )
}

fn row(session: &Value) -> [String; 8] {
    let text = |member: &str| session[member].as_str().unwrap_or("-").to_owned();
    let device = ["browser", "os"].map(|part| session["device"][part].as_str());
    let device: Vec<&str> = device.into_iter().flatten().collect();
    let state = match session["end_reason"].as_str() {
        Some(reason) => reason.to_owned(),
        None => text("state"),
    };
    [
        text("id"),
        text("user"),
        text("tenant"),
        text("app"),
        state,
        time(&session["last_active_at"]),
        ends(session),
        if device.is_empty() { "-".to_owned() } else { device.join(" on ") },
    ]
}

/// When it ended, or the sooner of its two deadlines.
fn ends(session: &Value) -> String {
    let [ended, idle, lifetime] =
        ["ended_at", "idle_expires_at", "lifetime_expires_at"].map(|member| session[member].as_str());
    // RFC 3339 in UTC sorts as text.
    ended.or(idle.into_iter().chain(lifetime).min()).map_or_else(|| "never".to_owned(), short)
}

fn time(at: &Value) -> String {
    at.as_str().map_or_else(|| "-".to_owned(), short)
}

/// `2026-05-04T10:20:30.400Z` to the second.
fn short(at: &str) -> String {
    at.split_once('.').map_or(at, |(seconds, _)| seconds).replace('T', " ")
}
