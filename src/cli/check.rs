//! `verdictd check`: every problem of a configuration, or in plain words what it does, and what it would do to this
//! host: listeners that it closes, SSH sessions that it would lock out. Changes nothing.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::detection;
use super::engine::{answer, chain, refuse};
use crate::config::{self, Config};
use crate::core::policy::{Mode, OnLoss, OtherProtocols, Policy};
use crate::core::ports::PortSet;
use crate::engine::lockout;
use crate::kernel::facts::services;
use crate::kernel::host;
use crate::preflight::closing::Closing;
pub(super) use crate::preflight::closing::{closed_among, closing_lines};

/// Checks the file at `path`: exit code 0, or 2 with every problem in it.
pub(super) fn check(path: &Path, out: &mut dyn Write) -> ExitCode {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    let mut text = meaning(path, &config);
    if config.policy.mode.filters_ports() {
        text += &match closing(&config.policy) {
            Ok(closing) => closing_words(&closing),
            Err(why) => format!("which listeners of this host would close is not known: {why}\n"),
        };
        for locked in lockout::locked_out(&config.policy, &lockout::filtered_sessions(&config)) {
            let outcome = match config.engine.allow_lockout {
                true => "allow_lockout = true",
                false => "start and reload refuse this configuration",
            };
            text += &format!("{outcome}: {locked}\n");
        }
    }
    text += &format!("{}: fine\n", path.display());
    answer(out, &text, ExitCode::SUCCESS)
}

/// What a good configuration means, the most important first.
fn meaning(path: &Path, config: &Config) -> String {
    let policy = &config.policy;
    let mut text = String::new();
    if !policy.enforce {
        text += OBSERVING;
        text += match policy.mode.filters_ports() {
            true => "; the port filter holds all the same\n",
            false => "; nothing whatever is dropped\n",
        };
    }
    for note in &config.notes {
        let _ = writeln!(text, "{}:{}: {}", path.display(), note.line, note.text);
    }
    text += &mode_words(policy);
    text += &detection::words(policy);
    if !policy.observes_only() {
        text += match config.engine.on_loss {
            OnLoss::Open => {
                "while the engine does not answer, new connections to open ports pass (on_loss = \"open\")\n"
            }
            OnLoss::Closed => {
                "while the engine does not answer, new connections are dropped (on_loss = \"closed\")\n"
            }
        };
    }
    text
}

fn mode_words(policy: &Policy) -> String {
    let mode = policy.mode;
    if !mode.filters_ports() {
        return format!("mode {mode}: no port is refused\n");
    }
    let mut text = format!(
        "mode {mode}: open are {} and {}; every other port of this host is refused silently, for trusted sources too\n",
        open("tcp", &policy.tcp_allowed),
        open("udp", &policy.udp_allowed)
    );
    if policy.other_protocols == OtherProtocols::Drop {
        text += "other protocols than TCP and UDP are refused but for what a host cannot do without\n";
    }
    if mode == Mode::Corporate {
        text += "every refusal is recorded\n";
    }
    text
}

fn open(proto: &str, ports: &PortSet) -> String {
    match ports.is_empty() {
        true => format!("no {proto} port"),
        false => format!("{proto} {ports}"),
    }
}

/// The listeners of this host that `policy` closes.
fn closing(policy: &Policy) -> Result<Vec<Closing>, String> {
    let facts = host::gather().map_err(|error| chain(&error))?;
    let services = services::services().map_err(|error| chain(&error))?;
    Ok(closed_among(&services, policy, &facts.local_ports))
}

fn closing_words(closing: &[Closing]) -> String {
    if closing.is_empty() {
        return "no listener of this host is closed by it\n".into();
    }
    let mut text = format!(
        "{} of this host {} closed by it, but to internal interfaces:\n",
        match closing.len() {
            1 => "1 listener".into(),
            many => format!("{many} listeners"),
        },
        if closing.len() == 1 { "is" } else { "are" }
    );
    for line in closing_lines(closing) {
        let _ = writeln!(text, "  {line}");
    }
    text
}

const OBSERVING: &str = "OBSERVING: offenders are recorded, none is banned (bans.enforce = false)";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::core::verdict::Proto;
    use crate::kernel::sockets::Listener;

    fn told(text: &str) -> String {
        let path = Path::new("f.toml");
        meaning(path, &config::parse(text, path).unwrap())
    }

    #[test]
    fn observing_comes_first_then_notes_with_their_lines() {
        let text = told(
            "[firewall]\nmode = \"lenient\"\n[bans]\nenforce = false\n[custom]\nunique_ports_threshold = 20\n",
        );
        assert_eq!(
            text.lines().take(3).collect::<Vec<_>>(),
            [
                "OBSERVING: offenders are recorded, none is banned (bans.enforce = false); nothing whatever is dropped",
                "f.toml:6: custom.unique_ports_threshold = 20 has no effect: mode is \"lenient\" (15); \
                 write mode = \"custom\", base = \"lenient\"",
                "mode detection_only: no port is refused",
            ]
        );
        assert!(text.contains("\npreset lenient: what is tolerated within 1d; "));
    }

    #[test]
    fn a_filter_is_told_with_what_it_leaves_open() {
        let text = told(
            "[firewall]\nfirewall_mode = \"corporate\"\nother_protocols = \"drop\"\n[allowed_ports]\ntcp = [22, 80]\n\
             [engine]\non_loss = \"closed\"\n",
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "mode corporate: open are tcp 22, 80 and no udp port; every other port of this host is refused \
                 silently, for trusted sources too",
                "other protocols than TCP and UDP are refused but for what a host cannot do without",
                "every refusal is recorded",
            ]
        );
        assert_eq!(
            lines.last(),
            Some(&"while the engine does not answer, new connections are dropped (on_loss = \"closed\")")
        );
    }

    #[test]
    fn listeners_are_counted_and_named() {
        let closing = |port| Closing {
            listener: Listener {
                proto: Proto::Tcp,
                port,
                addr: "::".parse().unwrap(),
            },
            names: BTreeSet::from(["mysqld".to_owned()]),
        };
        assert_eq!(closing_words(&[]), "no listener of this host is closed by it\n");
        assert_eq!(
            closing_words(&[closing(3306)]),
            "1 listener of this host is closed by it, but to internal interfaces:\n  tcp 3306 on every address (mysqld)\n"
        );
        let two = closing_words(&[closing(25), closing(3306)]);
        assert!(
            two.starts_with("2 listeners of this host are closed by it"),
            "{two}"
        );
        assert_eq!(two.lines().count(), 3);
    }
}
