//! `outrigger demo`: the whole thing on one machine, nothing else needed.
//!
//! Somebody who has never heard of breakers should see one open and close within half a minute of
//! cloning the repository. So one command starts three services that fail on a schedule, the sidecar
//! in front of them, and a caller; draws what happens; and tells it in words at the end. Its parts
//! can also be had alone, `demo upstream` and `demo caller`, which are the apps of the compose example.
//!
//! | file | |
//! |---|---|
//! | `cast`, `character` | who plays: services, their policies, their schedule of trouble |
//! | `upstream`, `caller`, `client` | the two ends: an HTTP server, an open-loop caller |
//! | `sidecar` | the product between them |
//! | `statistics`, `histogram`, `watch` | what was seen: pure |
//! | `picture`, `story`, `figures` | how it is told: pure |
//! | `screen`, `show`, `parts` | the terminal, and the order in which things happen |
//!
//! Deliberately absent: any short cut between demo and sidecar. What the picture shows came by HTTP.

mod caller;
mod cast;
mod character;
mod client;
mod figures;
mod grpc;
mod histogram;
mod parts;
mod picture;
mod screen;
mod show;
mod sidecar;
mod statistics;
mod story;
mod upstream;
mod watch;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use tokio::{signal::unix, time::Instant};

use self::{
    screen::{Screen, say},
    show::{Show, Upstreams},
    sidecar::Sidecar,
};

/// Exit code of an internal error (EX_SOFTWARE of sysexits).
const INTERNAL: u8 = 70;
const ANY_PORT: &str = "127.0.0.1:0";

/// What `outrigger demo` takes.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DemoArgs {
    #[command(subcommand)]
    part: Option<parts::Part>,
    /// End after this time (20s, 2m) with a summary; without it, Ctrl-C ends the demo.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    length: Option<Duration>,
    /// Calls per second to each of the three services.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(5..=2_000))]
    rate: u32,
    /// The sidecar's shared port; port 0 is any free one.
    #[arg(long, default_value = ANY_PORT, value_name = "ADDR")]
    http: SocketAddr,
    /// The sidecar's observe port; port 0 is any free one.
    #[arg(long, default_value = ANY_PORT, value_name = "ADDR")]
    observe: SocketAddr,
    /// Print a line a second, also on a terminal.
    #[arg(long)]
    lines: bool,
}

/// Runs the demo, or the part of it that was asked for: exit code 0; 1 when a port cannot
/// be had, 70 when something broke.
pub fn run(args: &DemoArgs) -> ExitCode {
    let done = match &args.part {
        None => whole(args),
        Some(part) => part.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough (`outrigger demo | head`).
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell when this fails as well.
            let _ = writeln!(io::stderr(), "outrigger demo: {failure}");
            ExitCode::from(match failure {
                // A port that is taken is no fault of ours.
                Failure::Sidecar(_) | Failure::Listen(..) => 1,
                Failure::Upstreams(_) | Failure::Output(_) => INTERNAL,
            })
        }
    }
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the embedded upstreams do not start: {0}")]
    Upstreams(#[source] io::Error),
    #[error("the sidecar does not start: {0}")]
    Sidecar(String),
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("{0}")]
    Output(#[from] io::Error),
}

fn whole(args: &DemoArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let upstreams = Upstreams::start(start).map_err(Failure::Upstreams)?;
    let admin = admin_socket();
    let yaml = cast::yaml(args.rate, args.http, args.observe, &admin, &upstreams.endpoints);
    let sidecar = Sidecar::start(&yaml).map_err(Failure::Sidecar)?;
    let (http, observe) = (sidecar.http, sidecar.observe);
    let shown = runtime.block_on(async {
        let screen = Screen::take(args.lines)?;
        if matches!(screen, Screen::Lines) {
            say(&format!(
                "catalog, payments and search (by gRPC) through outrigger at http://{http}\n{}\n",
                hints(http, observe, &admin)
            ))?;
        }
        Show { start, http, observe, rate: args.rate, length: args.length }.run(screen).await
    });
    sidecar.stop();
    say(&format!("\n{}\n{NEXT}", shown?))?;
    Ok(())
}

/// What to try while it runs.
fn hints(http: SocketAddr, observe: SocketAddr, admin: &std::path::Path) -> String {
    format!(
        "  a call:     curl -iH 'Host: catalog' http://{http}/\n  \
           metrics:    curl http://{observe}/metrics\n  \
           a breaker:  OUTRIGGER_ADMIN={} outrigger breaker payments open",
        admin.display()
    )
}

const NEXT: &str = "\
Next: run it once more and look at it from outside,
  outrigger demo --http 127.0.0.1:8470 --observe 127.0.0.1:8471
  curl -iH 'Host: catalog' http://127.0.0.1:8470/     and     curl http://127.0.0.1:8471/metrics
or put your own services into outrigger.yaml, one line each:
  services:
    orders: { dns: orders:8080 }
and start  outrigger run
";

/// A socket that no other sidecar of this machine uses, in a folder that is this user's alone where there is one.
fn admin_socket() -> PathBuf {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    folder.join(format!("outrigger-demo-{}.sock", std::process::id()))
}

/// Waits for Ctrl-C, or for the word of a supervisor or of a terminal that closes, to end.
pub(crate) async fn end_asked_for() -> io::Result<()> {
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut hangup = unix::signal(unix::SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Reads `500ms`, `20s`, `2m` or `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a time is a number and its unit, such as 20s, 500ms, 2m or 1h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "this is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        demo: DemoArgs,
    }

    fn parse(args: &str) -> Result<DemoArgs, clap::Error> {
        let words = std::iter::once("demo").chain(args.split_whitespace());
        Command::try_parse_from(words).map(|command| command.demo)
    }

    #[test]
    fn the_command_line_is_understood() {
        let args = parse("--for 20s --rate 50 --http 127.0.0.1:8470").unwrap();
        assert_eq!((args.length, args.rate), (Some(Duration::from_secs(20)), 50));
        assert_eq!((args.http.port(), args.observe.port(), args.lines), (8470, 0, false));
        assert!(parse("").unwrap().length.is_none());
        assert!(parse("upstream --listen 0.0.0.0:8080 --name orders --behaviour slow").unwrap().part.is_some());
        assert!(
            parse("caller --via http://127.0.0.1:8470 --services a,b --rate 20 --for 3s --json")
                .unwrap()
                .part
                .is_some()
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for args in [
            "--for 20",
            "--for s",
            "--for 99999999999999999h",
            "--rate 0",
            "--rate 1000000",
            "--http here",
            "upstream --name orders",
            "caller --via https://127.0.0.1:1 --services a",
            "caller --via http://127.0.0.1 --services ,",
            "caller --via http://example.org --services a",
            "--for 20s upstream --listen 127.0.0.1:0 --name a",
        ] {
            assert!(parse(args).is_err(), "{args}");
        }
    }
}
