//! Stub.

/// Stub.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {}

/// Stub.
pub fn run(_args: &DemoArgs) -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
