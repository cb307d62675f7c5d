//! The command line, and nothing of what it does.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::apply::ApplyArgs;
use super::audit::AuditVerb;
use super::confirm::{ConfirmArgs, GoBackArgs};
use super::control::{MonitorArgs, PlaceArgs, StopArgs};
use super::exporter::ExporterArgs;
use super::harden::HardenArgs;
use super::state::StateVerb;
use super::status::StatusArgs;
use super::verify::VerifyArgs;
use super::webhook::WebhookVerb;

/// Ask and command the running verdictd.
#[derive(Debug, Parser)]
#[command(name = "verdictctl", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct Args {
    /// The engine's control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Say whether the host is protected, and how engine and monitor run
    Status(StatusArgs),
    /// Start the engine: through systemd where it has the unit, else detached, with its log in the log directory
    Start(PlaceArgs),
    /// Stop monitor and engine; rules and bans stay in the kernel
    Stop(StopArgs),
    /// Stop the engine and start it again; the monitor stays
    Restart(PlaceArgs),
    /// Start the engine, and the monitor that watches it
    Monitor(MonitorArgs),
    /// Show verdicts by reason, rates, latency, queues, bans and the busiest sources
    Stats(StatsArgs),
    /// List every live ban
    List {
        /// Print JSON: an array
        #[arg(long)]
        json: bool,
    },
    /// Ban an address or a prefix, in every mode
    Ban {
        /// IPv4 or IPv6 address, or prefix such as 198.51.100.0/24
        #[arg(value_name = "ADDR|PREFIX")]
        target: String,
        /// How long: 90s, 10m, 2h, 1d [default: the first step of the ladder]
        #[arg(long = "for", value_name = "DURATION")]
        length: Option<String>,
        /// Why, in your own words; shown by `list`
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Read the configuration again: all of it goes into force, or nothing changes
    Reload,
    /// Try out a configuration: say what it changes, put it in force, and go back by itself unless it is confirmed
    Apply(ApplyArgs),
    /// Keep what `apply` put in force; from a new connection, which proves that you still get in
    Confirm(ConfirmArgs),
    /// Give up what `apply` put in force, and go back at once
    GoBack(GoBackArgs),
    /// Lift the ban of an address or a prefix
    Unban {
        /// As `list` shows it
        #[arg(value_name = "ADDR|PREFIX")]
        target: String,
    },
    /// Serve metrics for Prometheus on loopback, or write them into a file for node_exporter
    Exporter(ExporterArgs),
    /// Verify the audit log
    #[command(subcommand, arg_required_else_help = true)]
    Audit(AuditVerb),
    /// Set owners and modes of programs, units and configuration, and seal them: writes the manifest for `verify`
    Harden(HardenArgs),
    /// Compare programs, units and configuration with what was sealed: exit 1 and a line for each difference, exit 2 without
    /// a manifest to go by
    Verify(VerifyArgs),
    /// Set up, try out and watch the sending of events
    #[command(subcommand, arg_required_else_help = true)]
    Webhook(WebhookVerb),
    /// Show, export, forget or import what is remembered: bans, ladder positions, half-done scans
    #[command(subcommand, arg_required_else_help = true)]
    State(StateVerb),
    /// Save the state now, and say where and how much of it
    Snapshot {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct StatsArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Refresh every second, with the rates of that second; end with Ctrl-C
    #[arg(long)]
    pub(super) watch: bool,
    /// How many of the busiest sources to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(super) top: usize,
}

const EXIT_CODES: &str = "\
Exit codes: 0 fine, 1 refused or failed, 2 usage, 3 engine not running, 4 degraded or unprotected (status)";
