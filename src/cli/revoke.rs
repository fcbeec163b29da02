//! `tenure revoke`.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::FAILED;
use super::client::{Client, Failed, Remote, outcome, segment};

/// `tenure revoke`. User, tenant and app together mean the sessions that fit all of them.
#[derive(clap::Args)]
#[group(id = "whose", required = true, multiple = true, args = ["session", "user", "tenant", "app", "everyone"])]
pub(super) struct Args {
    #[command(flatten)]
    remote: Remote,
    /// The one with this id
    #[arg(long, value_name = "ID", conflicts_with_all = ["user", "tenant", "app", "everyone"])]
    session: Option<String>,
    /// Those of this user
    #[arg(long)]
    user: Option<String>,
    /// Those of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Those of this app
    #[arg(long)]
    app: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["user", "tenant", "app"])]
    everyone: bool,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    outcome(revoke(args, out), err)
}

fn revoke(args: &Args, out: &mut impl Write) -> Result<u8, Failed> {
    let client = Client::new(&args.remote)?;
    if let (Some(id), false) = (&args.session, args.dry_run) {
        let session = client.delete(&format!("/v1/sessions/{}", segment(id)), &[])?;
        let reason = session["end_reason"].as_str().ok_or_else(|| client.strange(&"no end_reason"))?;
        writeln!(out, "{id} has ended: {reason}")?;
        return Ok(0);
    }
    let done = client.post("/v1/sessions/revoke", Some(&request(args)))?;
    let (Some(matched), Some(ended)) = (done["matched"].as_u64(), done["ended"].as_u64()) else {
        return Err(client.strange(&"no counts"));
    };
    if args.dry_run {
        writeln!(out, "{matched} would end")?;
    } else {
        writeln!(out, "{ended} ended")?;
    }
    // One that is not there is a mistake; a user without sessions is what was wished for.
    Ok(if args.session.is_some() && matched == 0 { FAILED } else { 0 })
}

fn request(args: &Args) -> Value {
    let mut request = serde_json::Map::new();
    let members = [("id", &args.session), ("user", &args.user), ("tenant", &args.tenant), ("app", &args.app)];
    for (name, value) in members {
        if let Some(value) = value {
            request.insert(name.to_owned(), json!(value));
        }
    }
    request.insert("dry_run".to_owned(), json!(args.dry_run));
    request.insert("everyone".to_owned(), json!(args.everyone));
    Value::Object(request)
}
