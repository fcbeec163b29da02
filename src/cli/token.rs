//! `tenure token new`: makes an operator's token. Only its hash goes into the file; the token is shown once.

use std::io::{self, Write};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::FAILED;
use crate::config::known_scope;
use crate::session::identity::{UserCase, normal_name};

/// Tells people and scanners of leaked secrets whose token it is.
const PREFIX: &str = "tnr_";

/// `tenure token`.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Print a new token, then the entry for [admin] tokens in the configuration
    New(New),
}

/// `tenure token new`.
#[derive(clap::Args)]
pub(super) struct New {
    /// Who will use it; stands in the audit
    #[arg(long, value_parser = name)]
    name: String,
    /// What it may do: "*", or permissions such as sessions.read,sessions.revoke
    #[arg(long, value_delimiter = ',', required = true, value_parser = scope)]
    scopes: Vec<String>,
    /// The one tenant that it is bound to
    #[arg(long, default_value = "*", value_parser = name)]
    tenant: String,
}

fn name(text: &str) -> Result<String, String> {
    let name = normal_name(text, UserCase::Exact).map_err(|error| error.to_string())?;
    name.ok_or_else(|| "a name has a visible character and no control character".to_owned())
}

fn scope(text: &str) -> Result<String, String> {
    known_scope(text).map(|()| text.to_owned())
}

pub(super) fn run(command: &Command, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let Command::New(new) = command;
    let token = match fresh() {
        Ok(token) => token,
        Err(error) => {
            writeln!(err, "the system gives no random numbers: {error}")?;
            return Ok(FAILED);
        }
    };
    writeln!(out, "{}", *token)?;
    writeln!(out, "{}", entry(new, &token))?;
    Ok(0)
}

/// A token of 256 random bits.
pub(super) fn fresh() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes)?;
    Ok(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(*bytes))))
}

/// What stands in the configuration in place of the token.
pub(super) fn hash(token: &str) -> String {
    let hash = digest(&SHA256, token.as_bytes());
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The entry of `[admin] tokens`.
fn entry(new: &New, token: &str) -> String {
    let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
    let scopes: Vec<String> = new.scopes.iter().map(quoted).collect();
    format!(
        "{{ name = {}, hash = \"{}\", scopes = [{}], tenant = {} }}",
        quoted(&new.name),
        hash(token),
        scopes.join(", "),
        quoted(&new.tenant)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_printed_entry_is_one_that_the_configuration_reads() {
        let scopes = vec!["sessions.read".to_owned(), "gateway.drain".to_owned()];
        let new = New { name: "on \"call\"".into(), scopes: scopes.clone(), tenant: "acme".into() };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(run(&Command::New(new), &mut out, &mut err).unwrap(), 0);
        let out = String::from_utf8(out).unwrap();
        let (token, entry) = out.trim_end().split_once('\n').unwrap();
        assert!(token.starts_with(PREFIX) && token.len() == PREFIX.len() + 43, "256 bits in base64url");
        assert!(!entry.contains(&token[PREFIX.len()..]), "the token stands in the file");

        let smallest = "[listen]\nhttp = \"127.0.0.1:0\"\n[[app]]\nupstream = \"http://127.0.0.1:1\"\ncookie = \"sid\"\n";
        let text = format!("{smallest}[admin]\ntokens = [{entry}]\n");
        let config = crate::config::check_text("config.toml", &text, Path::new("")).unwrap();
        let [read] = &config.admin.tokens[..] else { panic!("one token: {:?}", config.admin.tokens) };
        assert_eq!((read.name.as_str(), &read.scopes), ("on \"call\"", &scopes));
        assert_eq!(read.hash, digest(&SHA256, token.as_bytes()).as_ref());
        assert_eq!(read.tenant.as_deref(), Some("acme"));
    }
}
