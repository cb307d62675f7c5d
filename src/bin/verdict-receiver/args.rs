//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Receives the webhooks of verdictd, and of the Python system before it.
#[derive(Debug, Parser)]
#[command(name = "verdict-receiver", version, propagate_version = true, after_help = EXITS)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Serve(Serve),
    TestServer(TestServer),
}

/// Keep events in SQLite, answer /health, /stats, /events, alert by e-mail and Slack
///
/// Settings come from --config and from environment variables of the same names in upper case; the environment wins.
/// Without a secret it does not start.
#[derive(Debug, ClapArgs)]
#[command(after_help = SETTINGS)]
pub(crate) struct Serve {
    /// Settings in TOML; must not be readable by everybody if it holds a secret
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) bind: Option<SocketAddr>,
}

/// Print every request readably and say what is wrong with it
///
/// Takes POST on any path. A request that is not signed well is answered 401, a good one 200, unless --fail or --drop
/// say otherwise.
#[derive(Debug, ClapArgs)]
pub(crate) struct TestServer {
    /// Port to listen on; 0 for any free one
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    /// The secret that requests are signed with. Other users of this machine can read it here: --secret-file and the
    /// variable WEBHOOK_SECRET keep it to yourself
    #[arg(long, conflicts_with = "secret_file")]
    pub(crate) secret: Option<String>,
    /// File with the secret, one a line if there are several
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Answer every request with this status instead
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(200..=599), conflicts_with = "drop")]
    pub(crate) fail: Option<u16>,
    /// Wait this long before each answer: 500ms, 2s, 1m
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "0s")]
    pub(crate) delay: Duration,
    /// Close the connection instead of answering
    #[arg(long)]
    pub(crate) drop: bool,
}

/// `500ms`, `2s`, `1m` or plain seconds.
fn span(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => return Err(WRITE_SPAN.to_owned()),
    };
    let count = digits.parse::<u32>().map_err(|_| WRITE_SPAN.to_owned())?;
    match Duration::from_millis(u64::from(count) * unit) {
        long if long > LONGEST => Err("an hour is the longest".to_owned()),
        span => Ok(span),
    }
}

const WRITE_SPAN: &str = "write 500ms, 2s or 1m";
const LONGEST: Duration = Duration::from_secs(3_600);

const EXITS: &str = "Exit codes: 0 fine, 1 failed, 2 wrong command line or configuration";
const SETTINGS: &str = "\
Settings (TOML keys; in upper case environment variables, but for bind):
  webhook_secret            what requests are signed with (or webhook_secret_file, one a line)
  webhook_secret_previous   also accepted, while the secret is being changed
  require_v2                true: refuse requests without the signature that covers their timestamp
  retention_days            events are deleted so many days after they came; 365, 0 for never
  database_path             events.db in $STATE_DIRECTORY or here
  smtp_server, smtp_port    mail server; 587 (STARTTLS), 465 is TLS from the first byte
  email_user, email_pass    login there (or email_pass_file)
  email_from, alert_email   sender (email_user if not given) and recipients, with commas between
  smtp_plain                true: no TLS; refused with a password unless the server is on loopback
  slack_webhook_url         where Slack takes alerts (or slack_webhook_url_file)
  wide_scan_ports           scans of so many ports alert; 1
  alert_interval            at least so many seconds between two messages of one kind; 60
  read_token                lets others than loopback read /stats, /events, /blocked: Authorization: Bearer …
  log_file                  appended to, reopened on SIGHUP; standard error if not given
  bind                      127.0.0.1:5000
Secrets are also found as systemd credentials of these names: webhook_secret, email_pass, slack_webhook_url, read_token.

Exit codes: 0 fine, 1 failed, 2 wrong command line or configuration";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        assert_eq!(
            Args::command().get_name(),
            "verdict-receiver",
            "what --version says"
        );
    }

    #[test]
    fn spans_are_read() {
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("2"), span("2s"));
        assert_eq!(span("1m"), Ok(Duration::from_secs(60)));
        for bad in ["", "s", "-1s", "2h", "99999999999s", "61m", "1.5s", "ä"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
