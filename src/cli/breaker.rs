//! `outrigger breaker`: an operator's word against the breaker's own.

use clap::builder::PossibleValuesParser;

use super::{Failure, find, print};
use crate::{model::ServiceName, policy::breaker::Forced};

/// Which breaker, and what it shall do.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The service, by name or alias
    #[arg(value_parser = find::name)]
    name: ServiceName,
    /// Refuse calls, admit them whatever happens, or decide again
    #[arg(value_parser = PossibleValuesParser::new([Forced::Open, Forced::Closed, Forced::Auto].map(Forced::as_str)))]
    state: String,
    #[command(flatten)]
    place: find::Place,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Args { name, state, place } = args;
    place.for_changes()?.post(&format!("/breaker/{name}/{state}"))?.accepted()?;
    print(&match Forced::parse(state) {
        Some(Forced::Open) => {
            format!("{name}: the breaker is forced open, calls are refused until `outrigger breaker {name} auto`\n")
        }
        Some(Forced::Closed) => {
            format!("{name}: the breaker is forced closed, calls flow until `outrigger breaker {name} auto`\n")
        }
        Some(Forced::Auto) | None => format!("{name}: the breaker decides again\n"),
    })
}
