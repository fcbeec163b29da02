//! `tenure policy show | set | explain`.

use std::io::{self, Write};

use serde_json::Value;

use super::client::{Client, Failed, Remote, outcome};
use super::{policy_set, table};

/// The fields of a policy, in the order of the documentation.
const FIELDS: [&str; 4] = ["idle_timeout", "force_relogin", "max_concurrent", "on_limit"];

/// `tenure policy`.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Print every layer
    Show(Show),
    /// Set a layer above the file's, in force at once and kept
    Set(policy_set::Args),
    /// Print what holds for somebody, and which layer says so
    Explain(Explain),
}

/// `tenure policy show`.
#[derive(clap::Args)]
pub(super) struct Show {
    #[command(flatten)]
    remote: Remote,
    /// The API's JSON
    #[arg(long)]
    json: bool,
}

/// `tenure policy explain`.
#[derive(clap::Args)]
pub(super) struct Explain {
    #[command(flatten)]
    remote: Remote,
    /// The app; needed where there are several
    #[arg(long)]
    app: Option<String>,
    /// The tenant; the app's own by default
    #[arg(long)]
    tenant: Option<String>,
    /// The user
    #[arg(long)]
    user: Option<String>,
    /// One more role to assume
    #[arg(long)]
    role: Option<String>,
    /// The API's JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    match command {
        Command::Show(args) => outcome(show(args, out), err),
        Command::Set(args) => policy_set::run(args, out, err),
        Command::Explain(args) => outcome(explain(args, out), err),
    }
}

fn show(args: &Show, out: &mut impl Write) -> Result<u8, Failed> {
    let policy = Client::new(&args.remote)?.get("/v1/policy", &[])?;
    if args.json {
        writeln!(out, "{policy}")?;
        return Ok(0);
    }
    let mut rows = layer("policy", &policy["base"]);
    rows.extend(layers(&policy, ""));
    rows.extend(layers(&policy["set"], ", set"));
    rows.extend(bounds(&policy["bounds"]));
    table::write(out, ["LAYER", "FIELD", "VALUE"], &rows)?;
    Ok(0)
}

/// Layers of the file, or those that were set above it.
fn layers(policy: &Value, origin: &str) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    for (kind, layers) in [("app", "apps"), ("tenant", "tenants"), ("role", "roles")] {
        for (name, fields) in policy[layers].as_object().into_iter().flatten() {
            rows.extend(layer(&format!("{kind} {name}{origin}"), fields));
        }
    }
    for entry in policy["users"].as_array().into_iter().flatten() {
        let name = |member: &str| entry[member].as_str().unwrap_or("-");
        rows.extend(layer(&format!("user {} of {}{origin}", name("user"), name("tenant")), entry));
    }
    rows
}

fn layer(name: &str, fields: &Value) -> Vec<[String; 3]> {
    let stated = FIELDS.iter().filter_map(|field| Some((*field, fields.get(field)?)));
    stated.map(|(field, value)| [name.to_owned(), field.to_owned(), text(value)]).collect()
}

fn bounds(bounds: &Value) -> Vec<[String; 3]> {
    let stated = FIELDS.iter().filter_map(|field| Some((*field, bounds.get(field)?)));
    let open = |value: &Value, word: &str| if value.is_null() { word.to_owned() } else { text(value) };
    stated
        .filter(|(_, range)| !(range["min"].is_null() && range["max"].is_null()))
        .map(|(field, range)| {
            let range = format!("{} to {}", open(&range["min"], "any"), open(&range["max"], "any"));
            ["bounds".to_owned(), field.to_owned(), range]
        })
        .collect()
}

fn explain(args: &Explain, out: &mut impl Write) -> Result<u8, Failed> {
    let parameters = [
        ("app", args.app.as_deref()),
        ("tenant", args.tenant.as_deref()),
        ("user", args.user.as_deref()),
        ("role", args.role.as_deref()),
    ];
    let found = Client::new(&args.remote)?.get("/v1/policy/effective", &parameters)?;
    if args.json {
        writeln!(out, "{found}")?;
        return Ok(0);
    }
    let row = |field: &str| {
        let (value, source) = (&found[field], found[field]["source"].as_str().unwrap_or("-"));
        let from =
            value["name"].as_str().map_or_else(|| source.to_owned(), |name| format!("{source} {name}"));
        let from = if value["origin"] == "set" { format!("{from}, set") } else { from };
        [field.to_owned(), text(&value["value"]), from]
    };
    table::write(out, ["FIELD", "VALUE", "FROM"], &FIELDS.map(row))?;
    Ok(0)
}

/// A field's value; `null` is no limit.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "off".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
