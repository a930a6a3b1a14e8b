//! The commands: what an operator types, and the exit code that a script reads.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | fine |
//! | 1 | the answer is no: invalid config, not ready, no such service, nobody answers |
//! | 2 | wrong usage |
//! | 70 | an internal error (`EX_SOFTWARE` of sysexits.h) |
//! | any | `run -- APP`: the app's own; 126 and 127 as a shell has them |
//!
//! A file a command: its arguments and a `run` that ends well or in a `Failure`. What an operator asked for goes to
//! stdout, everything else to stderr. The commands about a running sidecar find it by `find` and speak with it
//! by `client`; they hold no logic of their own about what they show.

mod breaker;
mod check;
mod client;
pub mod demo;
mod drain;
mod explain;
mod find;
mod health;
mod hosts;
mod intercept;
mod layout;
mod run;
mod schema;
mod shutdown;
mod top;

use std::{
    io::{self, Write},
    panic,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// A sidecar that gives its app every other service under a stable name, and absorbs their failures.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar, and an app beside it if one is given.
    Run(run::Args),
    /// Validate a configuration: every problem at once.
    Check(check::Args),
    /// Show the whole thing on this machine, nothing else needed.
    Demo(demo::DemoArgs),
    /// What a service's name means right now.
    Explain(explain::Args),
    /// A live table of the services.
    Top(top::Args),
    /// Force a breaker, or let it decide again.
    Breaker(breaker::Args),
    /// Stop new attempts to an endpoint, or get ready to stop.
    Drain(drain::Args),
    /// Stop the sidecar, as SIGTERM does.
    Shutdown(shutdown::Args),
    /// The /etc/hosts lines for the VIPs.
    Hosts(hosts::Args),
    /// The firewall rules that redirect an app's connections to the sidecar.
    Intercept(intercept::Args),
    /// The JSON schema of the configuration, for editors.
    Schema,
    /// Exit 0 when the sidecar is ready, for container health checks.
    Health(health::Args),
}

/// Why a command did not end well.
#[derive(Debug)]
enum Failure {
    /// The answer is no, in these words.
    No(String),
    /// The program itself is at fault.
    Internal(String),
    /// Whoever read our output has seen enough.
    ReaderGone,
}

impl From<io::Error> for Failure {
    /// What a write to stdout can end in.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Internal(format!("cannot write the answer: {error}")),
        }
    }
}

/// The whole program: reads the command line, does what it says. Wrong usage ends the process here, with 2.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    // The panic's own message is on stderr by then.
    let Ok(ended) = panic::catch_unwind(|| perform(&command)) else { return ExitCode::from(70) };
    match ended {
        Ok(code) => code,
        Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::No(why)) => fail(1, &why),
        Err(Failure::Internal(why)) => fail(70, &format!("internal error: {why}")),
    }
}

fn perform(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(args) => return Ok(demo::run(args)),
        Command::Run(args) => return run::run(args),
        Command::Shutdown(args) => shutdown::run(args),
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Top(args) => top::run(args),
        Command::Breaker(args) => breaker::run(args),
        Command::Drain(args) => drain::run(args),
        Command::Hosts(args) => hosts::run(args),
        Command::Intercept(args) => intercept::run(args),
        Command::Schema => schema::run(),
        Command::Health(args) => health::run(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn fail(code: u8, why: &str) -> ExitCode {
    // With nobody at stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", why.trim_end());
    ExitCode::from(code)
}

/// Writes to stdout, all of it, at once.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

#[cfg(test)]
mod conversation;
#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_contract_writes_is_understood() {
        for line in [
            "run -c outrigger.yaml",
            "check -c outrigger.yaml",
            "demo",
            "explain orders",
            "explain orders --json -c x.yaml",
            "top --for 5s",
            "breaker orders open",
            "breaker orders closed",
            "breaker payments.prod auto -c x.yaml",
            "drain 10.0.0.1:8080",
            "drain [fd00::1]:8080",
            "drain --all",
            "shutdown",
            "shutdown --wait -c x.yaml",
            "run -c x.yaml -- app --flag -c y",
            "hosts",
            "intercept --print",
            "intercept --apply -c x.yaml --ports 80,8080 --user outrigger --mark 7",
            "intercept --remove",
            "schema",
            "health -c x.yaml",
        ] {
            let parsed = Cli::try_parse_from(["outrigger"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "fly",
            "explain",
            "explain a/b",
            "breaker orders ajar",
            "breaker orders",
            "drain",
            "drain orders",
            "drain 10.0.0.1:80 --all",
            "top --for soon",
            "intercept",
            "intercept --print --apply",
            "intercept --remove --ports 80",
            "intercept --print --ports 0",
            "intercept --print --ports http",
            "intercept --print --mark 0",
            "run --unknown",
            "run app",
            "shutdown now",
        ] {
            let error = Cli::try_parse_from(["outrigger"].into_iter().chain(line.split(' '))).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        let help = Cli::try_parse_from(["outrigger", "--help"]).unwrap_err();
        assert_eq!((help.kind(), help.exit_code()), (ErrorKind::DisplayHelp, 0));
    }

    #[test]
    fn the_page_has_a_section_a_command_and_names_every_option() {
        let page = include_str!("../../docs/commands.md");
        let sections: Vec<_> = page.split("\n## outrigger ").skip(1).collect();
        let commands: Vec<_> = Cli::command().get_subcommands().cloned().collect();
        let documented: Vec<_> = sections.iter().map(|section| section.lines().next().unwrap_or_default()).collect();
        assert_eq!(documented, commands.iter().map(|command| command.get_name()).collect::<Vec<_>>());
        // The demo's options are for playing with: its own --help lists them.
        for (section, command) in sections.iter().zip(&commands).filter(|(_, command)| command.get_name() != "demo") {
            for long in command.get_arguments().filter_map(|argument| argument.get_long()) {
                let told =
                    section.contains(&format!("--{long}")) || long == "config" && page.contains("`-c FILE` names");
                assert!(told, "{}: --{long}", command.get_name());
            }
        }
    }
}
