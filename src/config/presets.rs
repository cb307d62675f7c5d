//! The numbers of the presets, and how a config changes them key by key. They are the Python system's numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::document::Section;
use super::units::{self, Fault, duration_text};
use crate::core::attack::PortThresholds;
use crate::core::ladder::{self, Ladder};

/// The names that `mode` and `base` may have, `custom` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Aggressive,
    Standard,
    Lenient,
}

impl Base {
    pub(super) const ALL: [(&'static str, Base); 3] = [
        ("aggressive", Base::Aggressive),
        ("standard", Base::Standard),
        ("lenient", Base::Lenient),
    ];

    pub(super) fn preset(self) -> Preset {
        let (ports, hours, ladder, snapshot) = match self {
            Base::Aggressive => (3, 1, [5 * MINUTE, HOUR, 12 * HOUR, 3 * DAY], 30),
            Base::Standard => (7, 2, [10 * MINUTE, 2 * HOUR, DAY, 7 * DAY], 120),
            Base::Lenient => (15, 24, [30 * MINUTE, 4 * HOUR, 2 * DAY, 14 * DAY], 300),
        };
        // web, ssh, development, databases, any other
        let [web, ssh, development, database, default] = match self {
            Base::Aggressive => [1, 2, 3, 2, 5],
            Base::Standard => [2, 3, 10, 5, 10],
            Base::Lenient => [100, 20, 200, 50, 50],
        };
        let by_port = [
            (22, ssh),
            (80, web),
            (443, web),
            (3306, database),
            (5432, database),
            (8000, development),
            (8080, development),
        ];
        Preset {
            ports,
            udp_ports: None,
            stealth: STEALTH,
            window: Duration::from_secs(hours * HOUR),
            ladder: Ladder::new(ladder.map(Duration::from_secs).to_vec())
                .expect("built-in steps are in bounds"),
            attempts: PortThresholds {
                default,
                ports: by_port.into(),
            },
            snapshot_every: Duration::from_secs(snapshot),
            places: Places::new(),
        }
    }
}

/// What a security mode means, in numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Preset {
    pub(super) ports: u32,
    /// `None`: by the other threshold.
    udp_ports: Option<u32>,
    pub(super) stealth: u32,
    pub(super) window: Duration,
    pub(super) ladder: Ladder,
    pub(super) attempts: PortThresholds,
    pub(super) snapshot_every: Duration,
    /// Where the file gives what is not built in.
    places: Places,
}

/// Line and full name, by key.
type Places = BTreeMap<&'static str, (usize, String)>;

impl Preset {
    /// UDP has a looser threshold: one visit to a page can be a dozen QUIC and DNS ports.
    pub(super) fn udp_ports(&self) -> u32 {
        self.udp_ports
            .unwrap_or(self.ports.saturating_mul(UDP_FACTOR).min(MOST_PORTS))
    }

    pub(super) fn change(&mut self, changes: &Changes) {
        self.ports = changes.ports.unwrap_or(self.ports);
        self.udp_ports = changes.udp_ports.or(self.udp_ports);
        self.stealth = changes.stealth.unwrap_or(self.stealth);
        self.window = changes.window.unwrap_or(self.window);
        self.attempts.default = changes.default_attempts.unwrap_or(self.attempts.default);
        self.attempts.ports.extend(changes.attempts.iter().copied());
        if let Some(ladder) = &changes.ladder {
            self.ladder = ladder.clone();
        }
        self.places.extend(changes.places.clone());
    }

    /// Line and full name of `key`, if the file gives it.
    pub(super) fn place(&self, key: &str) -> Option<&(usize, String)> {
        self.places.get(key)
    }

    /// What stands in the place of a `[custom]` key that has no effect.
    fn instead_of(&self, key: &str) -> Option<String> {
        let text = match key {
            "unique_ports_threshold" => self.ports.to_string(),
            "udp_ports_threshold" => self.udp_ports().to_string(),
            "stealth_threshold" => self.stealth.to_string(),
            "default_port_threshold" => self.attempts.default.to_string(),
            "activity_window_hours" => format!("{}", self.window.as_secs_f64() / HOUR as f64),
            "state_save_interval" => self.snapshot_every.as_secs().to_string(),
            "block_durations" => {
                let steps = self
                    .ladder
                    .steps()
                    .iter()
                    .map(|step| format!("\"{}\"", duration_text(*step)));
                format!("[{}]", steps.collect::<Vec<_>>().join(", "))
            }
            _ => return None,
        };
        Some(text)
    }
}

/// The keys of a preset that a section gives.
#[derive(Debug, Default)]
pub(super) struct Changes {
    ports: Option<u32>,
    udp_ports: Option<u32>,
    stealth: Option<u32>,
    default_attempts: Option<u32>,
    window: Option<Duration>,
    ladder: Option<Ladder>,
    attempts: Vec<(u16, u32)>,
    places: Places,
}

impl Changes {
    pub(super) fn read(section: &mut Section<'_>) -> Changes {
        let place = |key| {
            section
                .has(key)
                .then(|| (key, (section.line_of(key), section.full(key))))
        };
        Changes {
            places: PLACED.into_iter().filter_map(place).collect(),
            ports: section.get("unique_ports_threshold", units::whole(1..=MOST_PORTS)),
            udp_ports: section.get("udp_ports_threshold", units::whole(1..=MOST_PORTS)),
            stealth: section.get("stealth_threshold", units::whole(1..=MOST_STEALTH)),
            default_attempts: section.get("default_port_threshold", units::whole(1..=MOST_ATTEMPTS)),
            window: section.get("activity_window_hours", units::hours),
            ladder: read_ladder(section, "block_durations"),
            attempts: section
                .section("port_thresholds")
                .map(|ports| ports.by_port(units::whole(1..=MOST_ATTEMPTS)))
                .unwrap_or_default()
                .into_iter()
                .map(|(_, port, attempts)| (port, attempts))
                .collect(),
        }
    }
}

fn read_ladder(section: &mut Section<'_>, key: &'static str) -> Option<Ladder> {
    let right = "write a list, as in [\"10m\", \"2h\", \"1d\", \"7d\"]";
    let given = section.list(key, right, units::seconds(ladder::SHORTEST..=ladder::LONGEST))?;
    let steps: Vec<Duration> = given.values.into_iter().map(|(_, step)| step).collect();
    if steps.is_empty() && given.all_good {
        section.refuse(key, Fault::new("[]", "is empty", right));
    }
    Ladder::new(steps).ok()
}

/// Says of each key of `[custom]` that another mode is chosen, and what counts instead.
pub(super) fn note_without_effect(custom: &Section<'_>, mode: &str, preset: &Preset) {
    for (key, line, value) in custom.given() {
        let counts = if key == "base" {
            Some(String::new())
        } else {
            preset.instead_of(key)
        };
        if let Some(counts) = counts {
            note(custom, line, key, value, mode, &counts);
        } else if let (Some(ports), "port_thresholds") = (custom.peek("port_thresholds"), key) {
            for (port, line, value) in ports.given() {
                let threshold = port
                    .parse()
                    .map(|port| preset.attempts.of(port).to_string())
                    .unwrap_or_default();
                note(&ports, line, port, value, mode, &threshold);
            }
        }
    }
}

fn note(section: &Section<'_>, line: usize, key: &str, value: &DeValue<'_>, mode: &str, counts: &str) {
    let key = section.full(key);
    let value = units::shown(value);
    let counts = if counts.is_empty() {
        String::new()
    } else {
        format!(" ({counts})")
    };
    let text = format!(
        "{key} = {value} has no effect: mode is \"{mode}\"{counts}; write mode = \"custom\", base = \"{mode}\""
    );
    section.report().note(line, key, text);
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const UDP_FACTOR: u32 = 4;

/// Late and broken packets of honest stacks come one at a time; a scanner does not stop at three.
const STEALTH: u32 = 3;

/// Beyond it the threshold is off in all but name.
const MOST_STEALTH: u32 = 1_000;

/// The keys that are looked at together with others once all are read.
const PLACED: [&str; 3] = ["unique_ports_threshold", "udp_ports_threshold", "block_durations"];

/// There are no more ports in one protocol.
const MOST_PORTS: u32 = 65_535;

/// Ten thousand a minute for an hour and a half: beyond it the threshold is off in all but name.
const MOST_ATTEMPTS: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_those_of_the_python_system() {
        let lenient = Base::Lenient.preset();
        assert_eq!((lenient.ports, lenient.udp_ports(), lenient.stealth), (15, 60, 3));
        assert_eq!(lenient.window, Duration::from_secs(86_400));
        assert_eq!(
            lenient.instead_of("block_durations").unwrap(),
            r#"["30m", "4h", "2d", "14d"]"#
        );
        let aggressive = Base::Aggressive.preset().attempts;
        let of = [22, 80, 443, 3306, 5432, 8000, 8080, 25].map(|port| aggressive.of(port));
        assert_eq!(of, [2, 1, 1, 2, 2, 3, 3, 5]);
    }

    #[test]
    fn udp_threshold_follows_the_other_until_it_is_given() {
        let mut preset = Base::Standard.preset();
        preset.change(&Changes {
            ports: Some(20),
            ..Changes::default()
        });
        assert_eq!(preset.udp_ports(), 80);
        preset.change(&Changes {
            udp_ports: Some(9),
            ..Changes::default()
        });
        assert_eq!(preset.udp_ports(), 9);
        preset.change(&Changes {
            ports: Some(60_000),
            ..Changes::default()
        });
        assert_eq!(preset.udp_ports(), 9);
    }
}
