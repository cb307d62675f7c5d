//! The command line of `verdictctl webhook`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Subcommand};

use crate::places::CONFIG;
use crate::webhook::wire::EventType;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum WebhookVerb {
    Setup(Setup),
    Test(Test),
    Send(Send),
    /// Say how the sending of events goes: delivered, failed, waiting, dead letters
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Try at once what waits, and dead letters once more
    Retry {
        /// The endpoint's name [default: every endpoint]
        endpoint: Option<String>,
    },
    /// Print the systemd unit of the receiver: webhook service > /etc/systemd/system/verdict-receiver.service
    Service,
}

/// Add, change, disable or remove an endpoint of the configuration
///
/// Asks, and shows what is there. The file keeps its comments, is checked before it is written, and the old one stays
/// beside it with the ending .bak.
#[derive(Debug, Args)]
pub(in crate::cli) struct Setup {
    /// The configuration to change
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub(super) config: PathBuf,
    /// Ask nothing: add the endpoint --name, or change it if it is there
    #[arg(long, requires = "name")]
    pub(super) non_interactive: bool,
    /// Its name
    #[arg(long, requires = "non_interactive")]
    pub(super) name: Option<String>,
    /// Where events are posted; needed for a new endpoint
    #[arg(long, requires = "non_interactive")]
    pub(super) url: Option<String>,
    /// Only these events, with commas between
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', value_parser = event(), requires = "non_interactive")]
    pub(super) include: Vec<EventType>,
    /// Not these events
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', value_parser = event(), requires = "non_interactive")]
    pub(super) exclude: Vec<EventType>,
    /// File with the secret; made, with a new secret, if it is not there [default: one beside the configuration]
    #[arg(long, value_name = "FILE", requires = "non_interactive")]
    pub(super) secret_file: Option<PathBuf>,
    /// Do not sign requests
    #[arg(long, requires = "non_interactive", conflicts_with = "secret_file")]
    pub(super) no_secret: bool,
    /// Let http:// lead to a public address, readable on its way
    #[arg(long, requires = "non_interactive")]
    pub(super) allow_http: bool,
    /// Then send it a test event
    #[arg(long, requires = "non_interactive")]
    pub(super) test: bool,
    /// Then tell the running engine to reload
    #[arg(long, requires = "non_interactive")]
    pub(super) reload: bool,
}

/// Send a test event now, past the engine, and say what is wrong
///
/// To every enabled endpoint of the configuration, to one of them, or to any address. What is sent is a
/// firewall_started with "test": true in its data.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").args(["endpoint", "url"]))]
pub(in crate::cli) struct Test {
    /// The configuration [default: /etc/verdictd/verdictd.toml; none with --url]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// One endpoint of the configuration, enabled or not
    #[arg(long, value_name = "NAME")]
    pub(super) endpoint: Option<String>,
    /// An address instead
    #[arg(long)]
    pub(super) url: Option<String>,
    /// The secret to sign with. Other users of this machine can read it here: --secret-file keeps it to yourself
    #[arg(long, requires = "whom", conflicts_with = "secret_file")]
    pub(super) secret: Option<String>,
    /// File with the secret to sign with
    #[arg(long, value_name = "FILE", requires = "whom")]
    pub(super) secret_file: Option<PathBuf>,
    /// Let http:// lead to a public address
    #[arg(long, requires = "url")]
    pub(super) allow_http: bool,
}

/// Send a sample of an event now, past the engine
///
/// To every enabled endpoint that wants such events, or to one whatever it wants. Data are made up and hold "test":
/// true; addresses are of 192.0.2.0/24, which is for examples.
#[derive(Debug, Args)]
pub(in crate::cli) struct Send {
    /// Which event
    #[arg(value_parser = event())]
    pub(super) event: EventType,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub(super) config: PathBuf,
    /// Only to this endpoint, enabled or not
    #[arg(long, value_name = "NAME")]
    pub(super) endpoint: Option<String>,
}

/// Names are listed by help, suggested for slips, and known to completions.
fn event() -> impl TypedValueParser<Value = EventType> {
    let names = EventType::ALL.iter().map(|kind| kind.name());
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}
