//! The command line: one file per command.
//!
//! Data goes to stdout, words about it to stderr. Exit codes: 0; 1 failed; 2 usage; 78 bad configuration.

mod check;
mod client;
mod completions;
mod demo;
mod policy;
mod policy_set;
mod process;
mod revoke;
mod serve;
mod sessions;
mod store;
mod table;
mod token;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The command did not do what it was asked for.
pub const FAILED: u8 = 1;

/// The command line cannot be understood.
pub const USAGE: u8 = 2;

/// The configuration is faulty (`EX_CONFIG` of sysexits.h).
pub const BAD_CONFIG: u8 = 78;

/// Enforces idle time-out, forced re-login and a limit of concurrent sessions in front of any web app.
#[derive(Parser)]
#[command(name = "tenure", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The commands in the order in which a person meets them.
#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Serve(ConfigArgs),
    /// Run a small legacy app and the gateway before it, on this machine alone, to look at
    Demo,
    /// Tell every fault of the configuration at once, with line and hint
    Check(ConfigArgs),
    /// List the sessions of a running gateway
    Sessions(sessions::Args),
    /// End sessions
    Revoke(revoke::Args),
    /// Show the policies in force
    #[command(subcommand)]
    Policy(policy::Command),
    /// Make tokens for the admin API
    #[command(subcommand)]
    Token(token::Command),
    /// Carry everything that the store holds elsewhere
    #[command(subcommand)]
    Store(store::Command),
    /// Read the configuration again
    Reload(client::Remote),
    /// Readiness off, finish what is in progress, and leave
    Drain(client::Remote),
    /// Ask whether traffic may be sent to the gateway: exit code 0, or 1
    Health(client::Remote),
    /// Print the completions of a shell
    Completions(completions::Args),
}

/// `--config`, for every command that reads the file.
#[derive(Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,
}

/// Runs the command that `args` name, the program's own name first.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // Not locked: a command's other threads write too.
    let (out, err) = (&mut std::io::stdout(), &mut std::io::stderr());
    let done = match cli.command {
        Command::Serve(args) => serve::run(args.config, err),
        Command::Demo => demo::run(out, err),
        Command::Sessions(args) => sessions::run(&args, out, err),
        Command::Revoke(args) => revoke::run(&args, out, err),
        Command::Policy(command) => policy::run(&command, out, err),
        Command::Reload(remote) => process::reload(&remote, out, err),
        Command::Drain(remote) => process::drain(&remote, out, err),
        Command::Health(remote) => process::health(&remote, out, err),
        Command::Check(args) => check::run(&args.config, out, err),
        Command::Store(command) => store::run(&command, out, err),
        Command::Token(command) => token::run(&command, out, err),
        Command::Completions(args) => completions::run(&args, out),
    };
    // A reader that has gone away, as in `tenure check | head -1`, is no reason for words.
    ExitCode::from(done.unwrap_or(FAILED))
}

/// Help and version are asked for and go to stdout; anything else is a fault of usage.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    match (printed, error.use_stderr()) {
        (Err(_), _) => ExitCode::from(FAILED),
        (Ok(()), true) => ExitCode::from(USAGE),
        (Ok(()), false) => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
