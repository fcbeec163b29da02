//! `tenure policy set`.

use std::io::{self, Write};

use clap::ArgGroup;
use serde_json::{Value, json};

use super::client::{Client, Failed, Remote, outcome, segment};

/// `tenure policy set`. What is not named stays as it was set before.
#[derive(clap::Args)]
#[command(group = ArgGroup::new("whose").required(true).multiple(true).args(["app", "tenant", "role", "user"]))]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args([
    "idle_timeout", "force_relogin", "max_concurrent", "on_limit", "unset", "remove",
]))]
pub(super) struct Args {
    #[command(flatten)]
    remote: Remote,
    /// The layer of this app
    #[arg(long, conflicts_with_all = ["tenant", "role", "user"])]
    app: Option<String>,
    /// The layer of this tenant; with --user, the user's tenant
    #[arg(long, conflicts_with = "role")]
    tenant: Option<String>,
    /// The layer of this role
    #[arg(long, conflicts_with = "user")]
    role: Option<String>,
    /// The layer of this user
    #[arg(long)]
    user: Option<String>,
    /// Ends a session this long after its user's last activity: 30m, or off
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<String>,
    /// Ends a session this long after its sign-in: 12h, or off
    #[arg(long, value_name = "DURATION")]
    force_relogin: Option<String>,
    /// Sessions that a user may have at once: a number, or off
    #[arg(long, value_name = "NUMBER")]
    max_concurrent: Option<String>,
    /// What a sign-in beyond that does: end-oldest, end-idlest, ask or refuse
    #[arg(long, value_name = "ACTION")]
    on_limit: Option<String>,
    /// Takes back what was set in this field
    #[arg(long, value_name = "FIELD", value_parser = ["idle_timeout", "force_relogin", "max_concurrent", "on_limit"])]
    unset: Vec<String>,
    /// Takes back all that was set in this layer
    #[arg(long, conflicts_with_all = ["idle_timeout", "force_relogin", "max_concurrent", "on_limit", "unset"])]
    remove: bool,
    /// Only tell how many sessions would end
    #[arg(long)]
    preview: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    outcome(set(args, out), err)
}

fn set(args: &Args, out: &mut impl Write) -> Result<u8, Failed> {
    let client = Client::new(&args.remote)?;
    let (path, tenant) = place(args);
    let preview = args.preview.then_some("true");
    let parameters = [("tenant", tenant), ("preview", preview)];
    let change = if args.remove {
        client.delete(&path, &parameters)?
    } else {
        let present = client.get(&path, &[("tenant", tenant)])?;
        client.put(&path, &parameters, &changed(args, &present["set"]))?
    };
    let Some(ended) = change["ended"].as_u64() else { return Err(client.strange(&"no count")) };
    let sessions = if ended == 1 { "session" } else { "sessions" };
    writeln!(out, "{ended} {sessions} {}", if args.preview { "would end" } else { "ended" })?;
    if change["kept"] == json!(false) {
        writeln!(out, "it holds until the gateway ends: [store] path = \"off\" keeps nothing")?;
    }
    Ok(0)
}

/// The path of the layer, and the tenant of a user.
fn place(args: &Args) -> (String, Option<&str>) {
    let places = [("user", &args.user), ("tenant", &args.tenant), ("role", &args.role), ("app", &args.app)];
    let named = places.into_iter().find_map(|(kind, name)| Some((kind, name.as_deref()?)));
    // One of them is there: the command line demands it.
    let (kind, name) = named.unwrap_or_default();
    let tenant = args.tenant.as_deref().filter(|_| kind == "user");
    (format!("/v1/policy/{kind}/{}", segment(name)), tenant)
}

/// What was set, with what the command line changes of it.
fn changed(args: &Args, present: &Value) -> Value {
    let mut settings = present.as_object().cloned().unwrap_or_default();
    let texts = [
        ("idle_timeout", &args.idle_timeout),
        ("force_relogin", &args.force_relogin),
        ("on_limit", &args.on_limit),
    ];
    for (field, text) in texts {
        settings.extend(text.as_ref().map(|text| (field.to_owned(), json!(text))));
    }
    // The gateway says what is wrong with one that is no number.
    let number = |text: &String| text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number));
    settings.extend(args.max_concurrent.as_ref().map(|text| ("max_concurrent".to_owned(), number(text))));
    settings.retain(|field, _| !args.unset.contains(field));
    Value::Object(settings)
}
