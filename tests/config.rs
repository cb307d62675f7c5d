//! The config as its users meet it: good files and what they mean, bad ones and what is said of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use verdictd::audit::AuditConfig;
use verdictd::config::{Config, ConfigError, load, parse};
use verdictd::core::attack::Counting;
use verdictd::core::policy::{Mode, OnLoss, OtherProtocols};
use verdictd::webhook::config::{Delivery, SecretSource, WebhookConfig};
use verdictd::webhook::signature::Secret;
use verdictd::webhook::wire::EventType;

const MISSION: &str = include_str!("data/mission_firewall_config.toml");
const SHIPPED: &str = include_str!("../config/verdictd.toml");

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(text, Path::new("f.toml"))
}

#[track_caller]
fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refusals(text: &str) -> String {
    let error = read(text).expect_err(text);
    assert!(
        error.problems.iter().all(|problem| problem.line.is_some()),
        "no line: {error}"
    );
    error.to_string()
}

fn notes(config: &Config) -> Vec<String> {
    config.notes.iter().map(ToString::to_string).collect()
}

fn steps(config: &Config) -> Vec<u64> {
    config
        .policy
        .ladder
        .steps()
        .iter()
        .map(Duration::as_secs)
        .collect()
}

#[test]
fn an_empty_file_is_the_python_systems_default() {
    let Config {
        policy,
        engine,
        webhooks,
        audit,
        sha256,
        notes,
    } = good("");
    assert_eq!(webhooks, WebhookConfig::default());
    assert_eq!(audit, AuditConfig::default());
    // Of nothing.
    assert_eq!(
        sha256,
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    assert_eq!(
        (policy.mode, &*policy.preset, policy.enforce),
        (Mode::DetectionOnly, "standard", true)
    );
    assert_eq!((policy.ports_threshold, policy.udp_ports_threshold), (7, 28));
    assert_eq!(policy.window, Duration::from_secs(7_200));
    assert_eq!(policy.forgive_after, Duration::from_secs(30 * 86_400));
    assert_eq!(
        (policy.max_bans_per_minute, policy.v6_prefix, policy.max_sources),
        (600, 64, 1_000_000)
    );
    assert_eq!(policy.other_protocols, OtherProtocols::Pass);
    assert!((1..=4).contains(&engine.workers));
    assert_eq!(
        (engine.queue_base, engine.log_base, engine.queue_length),
        (None, None, 4096)
    );
    assert_eq!(
        (engine.on_loss, engine.ban_set_size, policy.jitter),
        (OnLoss::Open, 1_048_576, true)
    );
    assert!(engine.manage_ruleset && !engine.allow_lockout && engine.confine);
    let internal: Vec<String> = engine
        .internal_interfaces
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        internal.join(" "),
        "docker0 br-* podman* cni* virbr* lxdbr* incusbr*"
    );
    assert_eq!((policy.stealth_threshold, policy.count_completed), (3, false));
    assert_eq!(policy.unproven_cap, None);
    let distributed = &policy.distributed;
    assert_eq!(distributed.thresholds.of(22), 3);
    assert_eq!(
        (
            distributed.counting,
            distributed.by_port.len(),
            distributed.baseline_factor
        ),
        (Counting::Incomplete, 0, 5)
    );
    assert_eq!(
        [distributed.known_after, distributed.attack_quiet].map(|time| time.as_secs()),
        [3_600, 600]
    );
    assert_eq!(notes, []);
}

#[test]
fn the_missions_config_loads_unchanged() {
    let config = good(MISSION);
    let policy = &config.policy;
    assert_eq!(
        (policy.mode, &*policy.preset, policy.enforce),
        (Mode::DetectionOnly, "standard", true)
    );
    assert_eq!(policy.tcp_allowed.to_string(), "22, 80, 443");
    assert!(policy.udp_allowed.is_empty());
    assert_eq!(policy.ports_threshold, 7);
    assert_eq!(steps(&config), [600, 7_200, 86_400, 604_800]);
    assert_eq!(
        config.engine.state_file.as_deref(),
        Some(Path::new("firewall_state.toml"))
    );
    assert_eq!(config.engine.snapshot_every, Duration::from_secs(120));
    for trusted in [
        "127.0.0.1",
        "192.168.1.1",
        "192.168.77.8",
        "10.1.2.3",
        "172.31.0.1",
    ] {
        assert!(policy.trusted.contains(trusted.parse().unwrap()), "{trusted}");
    }
    assert!(!policy.trusted.contains("172.32.0.1".parse().unwrap()));
    assert_eq!(
        notes(&config)[..2],
        [
            "line 16: firewall.sleep_interval = 5 has no effect: the kernel's own clock ends bans",
            "line 92: custom.unique_ports_threshold = 7 has no effect: mode is \"standard\" (7); \
             write mode = \"custom\", base = \"standard\"",
        ]
    );
    assert_eq!(
        config.notes.len(),
        12,
        "sleep_interval and eleven keys of [custom]: {:#?}",
        notes(&config)
    );
}

#[test]
fn the_presets_of_the_mission_are_the_built_in_ones() {
    for mode in ["aggressive", "standard", "lenient"] {
        let given = good(&MISSION.replace("mode = \"standard\"\n", &format!("mode = \"{mode}\"\n")));
        let built_in = good(&format!("[firewall]\nmode = \"{mode}\""));
        assert_eq!(&*given.policy.preset, mode);
        assert_eq!(given.policy.ports_threshold, built_in.policy.ports_threshold);
        assert_eq!(given.policy.window, built_in.policy.window);
        assert_eq!(given.policy.ladder, built_in.policy.ladder);
        assert_eq!(given.policy.distributed, built_in.policy.distributed);
    }
}

#[test]
fn save_intervals_follow_the_mode_and_custom_has_its_own() {
    let every = |text| good(text).engine.snapshot_every.as_secs();
    assert_eq!(every("[firewall]\nmode = \"aggressive\""), 30);
    assert_eq!(
        every("[firewall]\nmode = \"lenient\"\nstate_save_interval = 60"),
        300
    );
    assert_eq!(
        every("[firewall]\nmode = \"custom\"\nstate_save_interval = 60"),
        60
    );
    assert_eq!(
        every("[firewall]\nmode = \"custom\"\n[custom]\nstate_save_interval = \"5m\""),
        300
    );
    let both = "[firewall]\nmode = \"custom\"\nstate_save_interval = 60\n[custom]\nstate_save_interval = 45";
    assert_eq!(every(both), 45);
    assert_eq!(
        notes(&good(both)),
        ["line 3: firewall.state_save_interval = 60 has no effect: [custom] has one of its own"]
    );
}

#[test]
fn custom_starts_from_its_base_and_the_base_from_its_overrides() {
    let config = good(
        "[firewall]\nmode = \"custom\"\n[modes.lenient]\nactivity_window_hours = 12\n\
         [modes.lenient.port_thresholds]\n25 = 7\n\
         [custom]\nbase = \"lenient\"\nunique_ports_threshold = 20\n[custom.port_thresholds]\n80 = 150\n",
    );
    let policy = &config.policy;
    assert_eq!((policy.ports_threshold, policy.udp_ports_threshold), (20, 80));
    assert_eq!(policy.window, Duration::from_secs(12 * 3_600));
    assert_eq!(steps(&config), [1_800, 14_400, 172_800, 1_209_600]);
    assert_eq!(
        [80, 443, 25, 24].map(|port| config.policy.distributed.thresholds.of(port)),
        [150, 100, 7, 50]
    );
    assert_eq!(notes(&config), [""; 0]);
}

#[test]
fn custom_beside_another_mode_is_noted_key_by_key() {
    let config = good(
        "[firewall]\nmode = \"lenient\"\n[custom]\nbase = \"lenient\"\nunique_ports_threshold = 20\n\
         activity_window_hours = 48\n[custom.port_thresholds]\n80 = 150\n81 = 2\n",
    );
    assert_eq!(config.policy.ports_threshold, 15);
    let write = "write mode = \"custom\", base = \"lenient\"";
    assert_eq!(
        notes(&config),
        [
            format!("line 4: custom.base = \"lenient\" has no effect: mode is \"lenient\"; {write}"),
            format!(
                "line 5: custom.unique_ports_threshold = 20 has no effect: mode is \"lenient\" (15); {write}"
            ),
            format!(
                "line 6: custom.activity_window_hours = 48 has no effect: mode is \"lenient\" (24); {write}"
            ),
            format!(
                "line 8: custom.port_thresholds.80 = 150 has no effect: mode is \"lenient\" (100); {write}"
            ),
            format!("line 9: custom.port_thresholds.81 = 2 has no effect: mode is \"lenient\" (50); {write}"),
        ]
    );
}

#[test]
fn ports_and_ranges_are_merged() {
    let config = good(
        "[firewall]\nfirewall_mode = \"corporate\"\nother_protocols = \"drop\"\n\
         [allowed_ports]\ntcp = [443, 22]\nudp = [53]\nranges = [\"6000-6010\", \"6011 - 6020\"]",
    );
    assert_eq!(config.policy.mode, Mode::Corporate);
    assert_eq!(config.policy.other_protocols, OtherProtocols::Drop);
    assert_eq!(config.policy.tcp_allowed.to_string(), "22, 443, 6000-6020");
    assert_eq!(config.policy.udp_allowed.to_string(), "53, 6000-6020");
}

#[test]
fn nothing_allowed_wants_a_word() {
    let none = "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\nallow_none = true";
    assert!(good(none).policy.tcp_allowed.is_empty());
    let ranges = "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\nranges = [\"1-2\"]";
    assert_eq!(good(ranges).policy.tcp_allowed.to_string(), "1-2");
}

#[test]
fn host_bits_are_masked_with_a_note() {
    let config =
        good("[trusted]\nips = [\n  \"192.168.1.5/24\",\n  \"2001:db8::1/32\"]\nnetworks = [\"192.0.2.1\"]");
    assert_eq!(
        notes(&config),
        [
            "line 3: trusted.ips: \"192.168.1.5/24\" has host bits set; \"192.168.1.0/24\" is trusted",
            "line 4: trusted.ips: \"2001:db8::1/32\" has host bits set; \"2001:db8::/32\" is trusted",
        ]
    );
    assert!(config.policy.trusted.contains("192.0.2.1".parse().unwrap()));
    assert!(!config.policy.trusted.contains("192.0.2.2".parse().unwrap()));
}

#[test]
fn networks_wider_than_anybodys_own_are_noted() {
    let config = good(
        "[trusted]\nips = [\"10.0.0.0/8\", \"fc00::/7\", \"fe80::/10\", \"2001::/16\"]\n\
         networks = [\"64.0.0.0/2\", \"2000::/12\"]",
    );
    assert_eq!(
        notes(&config),
        [
            "line 3: trusted.networks: \"64.0.0.0/2\" is 1073741824 IPv4 addresses; nobody in it is ever counted or banned",
            "line 3: trusted.networks: \"2000::/12\" is more than anybody has been given; nobody in it is ever counted or \
             banned",
        ]
    );
    // All but one /8 is not everybody.
    let most: Vec<String> = (1..=222).map(|first| format!("\"{first}.0.0.0/8\"")).collect();
    assert!(notes(&good(&format!("[trusted]\nips = [{}]", most.join(", ")))).is_empty());
    let said = refusals(&format!(
        "[trusted]\nips = [{}, \"223.0.0.0/8\"]",
        most.join(", ")
    ));
    assert!(said.contains("every IPv4 address trusted"), "{said}");
}

#[test]
fn detection_is_told_its_numbers() {
    let policy = good(
        "[firewall]\nmode = \"custom\"\ncount_completed = true\n[modes.aggressive]\nstealth_threshold = 9\n\
         [custom]\nbase = \"aggressive\"\n[bans]\nunproven_cap = \"6h\"\n\
         [distributed]\ncounting = \"new_sources\"\nbaseline_factor = 0\nknown_after = \"2d\"\nattack_quiet = \"90s\"\n\
         [distributed.ports]\n22 = \"all\"\n443 = \"incomplete\"\n",
    )
    .policy;
    assert_eq!((policy.stealth_threshold, policy.count_completed), (9, true));
    assert_eq!(policy.unproven_cap, Some(Duration::from_secs(6 * 3_600)));
    let distributed = policy.distributed;
    assert_eq!(
        [22, 443, 25].map(|port| distributed.counting_of(port)),
        [Counting::All, Counting::Incomplete, Counting::NewSources]
    );
    assert_eq!(
        [22, 443, 25].map(|port| distributed.thresholds.of(port)),
        [2, 1, 5]
    );
    assert_eq!(
        (
            distributed.baseline_factor,
            distributed.known_after,
            distributed.attack_quiet
        ),
        (0, Duration::from_secs(2 * 86_400), Duration::from_secs(90))
    );
    let own = "[firewall]\nmode = \"custom\"\n[modes.standard]\nstealth_threshold = 9\n[custom]\nstealth_threshold = 5";
    assert_eq!(good(own).policy.stealth_threshold, 5);
    assert_eq!(good("[bans]\nunproven_cap = \"off\"").policy.unproven_cap, None);
    let shortest = "[modes.standard]\nactivity_window_hours = 0.0028";
    assert_eq!(good(shortest).policy.window, Duration::from_millis(10_080));
    let bounds = "[bans]\nforgive_after = \"1h\"\n[modes.standard]\nblock_durations = [\"1m\"]";
    assert_eq!(
        good(bounds).policy.distributed.known_after,
        Duration::from_secs(3_600)
    );
}

/// Each text alone, and all notes that it earns.
const NOTED: &[(&str, &[&str])] = &[
    (
        "[modes.standard]\nudp_ports_threshold = 3",
        &[
            "line 2: modes.standard.udp_ports_threshold = 3 is below unique_ports_threshold = 7: UDP, which anybody can \
           forge, is judged harder than TCP",
        ],
    ),
    (
        "[modes.standard]\nblock_durations = [\"10m\", \"1d\", \"2h\", \"7d\"]",
        &[
            "line 2: modes.standard.block_durations: \"2h\" follows \"1d\": a further offence earns a shorter ban",
        ],
    ),
    ("[modes.lenient]\nblock_durations = [\"1d\", \"2h\"]", &[]),
    (
        "[bans]\nunproven_cap = \"7d\"",
        &["line 2: bans.unproven_cap = \"7d\" has no effect: no ban is longer than \"7d\""],
    ),
    ("[bans]\nunproven_cap = \"10m\"", &[]),
    (
        "[bans]\njitter = true\nforgive_after = \"2h\"",
        &[
            "line 3: bans.forgive_after: when a ban of \"2h\" ends its offence is forgiven (bans.forgive_after = \"2h\"): \
           later steps of the ladder are never reached",
        ],
    ),
    (
        "[modes.standard]\nblock_durations = [\"60d\", \"90d\"]",
        &[
            "line 2: modes.standard.block_durations: when a ban of \"60d\" ends its offence is forgiven \
           (bans.forgive_after = \"30d\"): later steps of the ladder are never reached",
        ],
    ),
    ("[modes.standard]\nblock_durations = [\"60d\"]", &[]),
    (
        "[engine]\n\nmax_sources = 10_000_000",
        &[
            "line 3: engine.max_sources: 10000000 sources with 35 tolerated ports each (TCP and UDP) can come to 8 GiB of \
           evidence; lower engine.max_sources or the thresholds",
        ],
    ),
    (
        "[modes.standard]\nunique_ports_threshold = 65535",
        &[
            "line 2: modes.standard.unique_ports_threshold: 1000000 sources with 131070 tolerated ports each (TCP and UDP) \
           can come to 2930 GiB of evidence; lower engine.max_sources or the thresholds",
        ],
    ),
    ("[firewall]\nmode = \"lenient\"", &[]),
    (
        "[firewall]\nfirewall_mode = \"firewall\"\n[allowed_ports]\ntcp = [22]\n[distributed.ports]\n\
         22 = \"all\"\n3306 = \"new_sources\"",
        &[
            "line 7: distributed.ports.3306 = \"new_sources\" has no effect: allowed_ports.tcp does not list 3306, and what \
           is refused is evidence of a port scan only",
        ],
    ),
    ("[distributed.ports]\n3306 = \"new_sources\"", &[]),
    (
        "[distributed]\nbaseline_factor = 0\ncounting = \"all\"",
        &[
            "line 3: distributed.counting = \"all\" with baseline_factor = 0: every connection counts and none is usual, so \
           that visitors of a busy port are banned; give baseline_factor, or thresholds above what is usual",
        ],
    ),
    ("[distributed]\ncounting = \"all\"", &[]),
    (
        "[custom]\nstealth_threshold = 9",
        &[
            "line 2: custom.stealth_threshold = 9 has no effect: mode is \"standard\" (3); write mode = \"custom\", \
           base = \"standard\"",
        ],
    ),
];

#[test]
fn what_cannot_have_been_meant_is_noted() {
    for (text, expected) in NOTED {
        assert_eq!(notes(&good(text)), *expected, "{text}");
    }
}

#[test]
fn an_engine_that_keeps_every_right_is_noted() {
    let config = good("[engine]\nconfine = false\n");
    assert!(!config.engine.confine);
    let notes: Vec<String> = config.notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains("line 2") && notes[0].contains("confine = false: the engine keeps every right"),
        "{notes:?}"
    );
}

#[test]
fn the_engine_is_told_its_numbers() {
    let config = good(
        "[bans]\nenforce = false\njitter = false\nforgive_after = \"12h\"\nmax_bans_per_minute = 5\nipv6_prefix = 56\n\
         [engine]\nworkers = 3\nqueue_base = 65530\nlog_base = 7\nqueue_length = 64\non_loss = \"closed\"\n\
         manage_ruleset = false\nallow_lockout = true\ninternal_interfaces = []\nban_set_size = 4\nmax_sources = 10\n",
    );
    let (policy, engine) = (config.policy, config.engine);
    assert!(policy.observes_only());
    assert_eq!(
        (policy.max_bans_per_minute, policy.v6_prefix, policy.max_sources),
        (5, 56, 10)
    );
    assert_eq!(
        (engine.workers, engine.queue_base, engine.log_base),
        (3, Some(65_530), Some(7))
    );
    assert_eq!(
        (engine.queue_length, engine.on_loss, engine.ban_set_size),
        (64, OnLoss::Closed, 4)
    );
    assert!(!engine.manage_ruleset && engine.allow_lockout && !policy.jitter);
    assert_eq!(engine.internal_interfaces, []);
}

#[test]
fn a_seed_is_a_number_in_any_notation() {
    let seed = |text: &str| good(&format!("[engine]\nseed = {text}")).engine.seed;
    assert_eq!(good("").engine.seed, None);
    for (text, number) in [
        ("0", 0),
        ("24301", 0x5eed),
        ("0x5eed", 0x5eed),
        ("0xFFFF_ffff", u32::MAX),
    ] {
        assert_eq!(seed(text), Some(number), "{text}");
    }
}

#[test]
fn a_table_of_the_admins_own_wants_its_three_numbers() {
    let said = refusals("[engine]\nmanage_ruleset = false");
    for key in ["workers", "queue_base", "log_base"] {
        let start = format!("f.toml:2: engine.{key}: missing: manage_ruleset = false");
        assert!(said.lines().any(|line| line.starts_with(&start)), "{said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
    let whole = "[engine]\nmanage_ruleset = false\nworkers = 2\nqueue_base = 4100\nlog_base = 4100";
    assert!(!good(whole).engine.manage_ruleset);
}

#[test]
fn the_missions_webhooks_are_who_is_told() {
    let config = good(&MISSION.replacen("enabled = false", "enabled = true", 1));
    let webhooks = &config.webhooks;
    let told: Vec<_> = webhooks
        .live()
        .map(|endpoint| (endpoint.name.as_str(), endpoint.url.to_string()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "Security Operations Center",
                "https://soc.example.com/…".to_owned()
            ),
            ("Incident Response Team", "https://ir.example.com/…".to_owned()),
        ]
    );
    assert_eq!(webhooks.endpoints.len(), 3);
    assert_eq!(webhooks.defaults, Delivery::default());
    let soc = &webhooks.endpoints[0];
    assert_eq!(
        soc.secret,
        SecretSource::Inline(Secret::new("your-webhook-secret-key-here").unwrap())
    );
    let names: Vec<&str> = soc.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["X-Environment", "X-Organization-ID"]);
    assert!(soc.filter.wants(EventType::IpUnblocked) && !soc.filter.wants(EventType::ConnectionAttempt));
    let (second, third) = (&webhooks.endpoints[1], &webhooks.endpoints[2]);
    assert!(second.filter.wants(EventType::BlockError) && !second.filter.wants(EventType::IpUnblocked));
    assert_eq!((&third.secret, third.enabled), (&SecretSource::None, false));
    assert!(third.filter.wants(EventType::ConnectionAttempt));
    let said = notes(&config);
    let said: Vec<&String> = said.iter().filter(|note| note.contains("webhooks")).collect();
    assert!(
        said.len() == 1 && said[0].contains("everybody can sign with it"),
        "{said:?}"
    );
}

#[test]
fn an_endpoint_may_have_numbers_of_its_own() {
    let text = "[webhooks]\nenabled = true\nbatch_size = 50\ntimeout = \"3s\"\nspool_max_age = \"2h\"\n\
                [[webhooks.endpoints]]\nname = \"a\"\nurl = \"https://a/\"\nrate_limit = 1000\nbatch_size = 1\n\
                secret_file = \"/etc/verdictd/soc\"\n\
                [[webhooks.endpoints]]\nname = \"b\"\nurl = \"https://b/\"\nsecret_env = \"SOC\"\n\
                [[webhooks.endpoints]]\nname = \"c\"\nurl = \"http://10.0.0.1/\"\nsecret_credential = \"soc\"\n\
                [webhooks.endpoints.events]\nexclude = [\"connection_attempt\"]";
    let config = good(text);
    let webhooks = &config.webhooks;
    let numbers = |at: usize| {
        let delivery = webhooks.endpoints[at].delivery;
        (
            delivery.batch_size,
            delivery.rate_limit,
            delivery.timeout.as_secs(),
        )
    };
    assert_eq!((numbers(0), numbers(1)), ((1, 1000, 3), (50, 100, 3)));
    assert_eq!(webhooks.spool_max_age, Duration::from_secs(7_200));
    let secrets: Vec<_> = webhooks
        .endpoints
        .iter()
        .map(|endpoint| &endpoint.secret)
        .collect();
    assert_eq!(secrets[0], &SecretSource::File("/etc/verdictd/soc".into()));
    assert_eq!(secrets[1], &SecretSource::Env("SOC".into()));
    assert_eq!(secrets[2], &SecretSource::Credential("soc".into()));
    let filter = webhooks.endpoints[2].filter;
    assert!(filter.wants(EventType::IpBlocked) && !filter.wants(EventType::ConnectionAttempt));
    let said = notes(&config);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("line 18: webhooks.endpoints.url: http://: everybody on the way"),
        "{said:?}"
    );
}

#[test]
fn webhooks_that_do_nothing_say_so() {
    let endpoint = "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\n";
    for (text, said) in [
        (
            "[webhooks]\nenabled = true".to_owned(),
            "line 2: webhooks.enabled = true has no effect: no endpoint is enabled",
        ),
        (
            format!("{endpoint}secret = \"\""),
            "line 4: webhooks.endpoints.secret is empty: requests of this endpoint are not signed",
        ),
        (
            format!("{endpoint}events = {{ include = [] }}"),
            "line 4: webhooks.endpoints.events.include = [] has no effect: every event is sent that is not excluded",
        ),
        (
            format!("{endpoint}events = {{ include = [\"ip_blocked\"], exclude = [\"ip_blocked\"] }}"),
            "line 4: webhooks.endpoints.events.exclude leaves nothing: no event is sent to this endpoint",
        ),
    ] {
        assert_eq!(notes(&good(&text)), [said], "{text}");
    }
}

/// Each text alone, and all that is said of it.
const REFUSED: &[(&str, &str)] = &[
    // wrong types
    (
        "[bans]\nenforce = \"yes\"",
        "2: bans.enforce: \"yes\" is a string; write true or false, without quotes",
    ),
    (
        "[bans]\nenforce = 1",
        "2: bans.enforce: 1 is a whole number; write true or false, without quotes",
    ),
    (
        "[allowed_ports]\ntcp = 22",
        "2: allowed_ports.tcp: 22 is a whole number; write a list, as in [22, 80, 443]",
    ),
    (
        "[allowed_ports]\ntcp = [\"22\"]",
        "2: allowed_ports.tcp: \"22\" is a string; write a number from 1 to 65535",
    ),
    (
        "[engine]\nworkers = 2.0",
        "2: engine.workers: 2.0 is a number with a fraction; write a whole number from 1 to 64",
    ),
    (
        "firewall = 5",
        "1: firewall: 5 is a whole number; write it as a section: [firewall]",
    ),
    (
        "[[firewall]]",
        "1: firewall: is an array of sections; write [firewall] once, in single brackets",
    ),
    (
        "[firewall]\nmode = 3",
        "2: firewall.mode: 3 is a whole number; write \"aggressive\", \"standard\", \"lenient\" or \"custom\"",
    ),
    (
        "[custom]\nactivity_window_hours = 2026-01-01",
        "2: custom.activity_window_hours: 2026-01-01 is a date; write a number of hours from 0.003 to 8760, \
         without quotes",
    ),
    // ports
    (
        "\n\n[allowed_ports]\ntcp = [\n 22,\n 70000]",
        "6: allowed_ports.tcp: 70000 is not a port; write a number from 1 to 65535",
    ),
    (
        "[allowed_ports]\nudp = [0]",
        "2: allowed_ports.udp: 0 is not a port; write a number from 1 to 65535",
    ),
    (
        "[allowed_ports]\nudp = [-1]",
        "2: allowed_ports.udp: -1 is not a port; write a number from 1 to 65535",
    ),
    (
        "[allowed_ports]\ntcp = [99999999999999999999999]",
        "2: allowed_ports.tcp: 99999999999999999999999 is not a port; write a number from 1 to 65535",
    ),
    (
        "[allowed_ports]\nranges = [\"6010-6000\"]",
        "2: allowed_ports.ranges: \"6010-6000\" runs backwards; write \"6000-6010\"",
    ),
    (
        "[allowed_ports]\nranges = [\"6000-70000\"]",
        "2: allowed_ports.ranges: \"6000-70000\" is not a range of ports; write first and last port in quotes, \
         as in \"6000-6010\"",
    ),
    (
        "[firewall]\nfirewall_mode = \"firewall\"",
        "2: allowed_ports.tcp: is empty: in mode \"firewall\" every TCP port would be refused; list the ports \
         that stay open, as in tcp = [22], or write allow_none = true",
    ),
    (
        "[firewall]\nfirewall_mode = \"corporate\"\n[allowed_ports]\nudp = [53]\ntcp = []",
        "5: allowed_ports.tcp: is empty: in mode \"corporate\" every TCP port would be refused; list the ports \
         that stay open, as in tcp = [22], or write allow_none = true",
    ),
    // networks
    (
        "[trusted]\nnetworks = [\"10.0.0.0/33\"]",
        "2: trusted.networks: \"10.0.0.0/33\" has a prefix longer than 32 bits; write a length from 1 to 32",
    ),
    (
        "[trusted]\nips = [\"2001:db8::/129\"]",
        "2: trusted.ips: \"2001:db8::/129\" has a prefix longer than 128 bits; write a length from 1 to 128",
    ),
    (
        "[trusted]\nips = [\"10.0.0.0/x\"]",
        "2: trusted.ips: \"10.0.0.0/x\" has no number after the slash; write a length from 1 to 32",
    ),
    (
        "[trusted]\nips = [\"0.0.0.0/0\"]",
        "2: trusted.ips: \"0.0.0.0/0\" is every address there is; write the networks that are meant",
    ),
    (
        "[trusted]\nips = [\"::1/0\"]",
        "2: trusted.ips: \"::1/0\" is every address there is; write the networks that are meant",
    ),
    (
        "[trusted]\nips = [\"192.0.2.1\"]\nnetworks = [\n \"128.0.0.0/1\",\n \"0.0.0.0/1\"]",
        "4: trusted.networks: \"128.0.0.0/1\" makes, with the others of the list, every IPv4 address trusted; write \
         the networks that are meant",
    ),
    (
        "[trusted]\nips = [\"2000::/4\"]\nnetworks = [\"3000::/4\", \"10.0.0.0/8\"]",
        "2: trusted.ips: \"2000::/4\" makes, with the others of the list, every IPv6 address trusted; write the \
         networks that are meant",
    ),
    (
        "[trusted]\nips = [\"gw.example.com\"]",
        "2: trusted.ips: \"gw.example.com\" is a name; names are not looked up; write an address or a network \
         in quotes, as in \"192.0.2.7\" or \"192.0.2.0/24\"",
    ),
    (
        "[trusted]\nips = [\"\"]",
        "2: trusted.ips: \"\" is not an address or network; write an address or a network in quotes, as in \
         \"192.0.2.7\" or \"192.0.2.0/24\"",
    ),
    (
        "[trusted]\nips = [\"::ffff:192.0.2.7\"]",
        "2: trusted.ips: \"::ffff:192.0.2.7\" is an IPv4 address in IPv6 clothes; write \"192.0.2.7\"",
    ),
    // unknown keys
    (
        "[firewall]\nfirewal_mode = 1",
        "2: firewall.firewal_mode: no such key; did you mean \"firewall_mode\"?",
    ),
    (
        "[fierwall]\nmode = 1",
        "1: fierwall: no such section; did you mean \"firewall\"?",
    ),
    (
        "firewall_mode = \"firewall\"",
        "1: firewall_mode: no such key; belongs under [firewall]",
    ),
    (
        "\nmode = \"custom\"",
        "2: mode: no such key; belongs under [firewall]",
    ),
    (
        "[firewall]\nenforce = true",
        "2: firewall.enforce: no such key; belongs under [bans]",
    ),
    (
        "[modes.custom]",
        "1: modes.custom: no such section; belongs under [custom]",
    ),
    (
        "[modes.lenjent]",
        "1: modes.lenjent: no such section; did you mean \"lenient\"?",
    ),
    (
        "[trusted]\nzebra = 1",
        "2: trusted.zebra: no such key; known here: ips, networks",
    ),
    (
        "[trusted]\n\"a\\u001b[2J\" = 1",
        "2: trusted.\"a\\u{1b}[2J\": no such key; known here: ips, networks",
    ),
    // thresholds, ladders, durations
    (
        "[modes.standard]\nunique_ports_threshold = 0",
        "2: modes.standard.unique_ports_threshold: 0 is out of range; write a whole number from 1 to 65535",
    ),
    (
        "[custom.port_thresholds]\n22 = 0",
        "2: custom.port_thresholds.22: 0 is out of range; write a whole number from 1 to 1000000",
    ),
    (
        "[custom.port_thresholds]\nssh = 3",
        "2: custom.port_thresholds.ssh: \"ssh\" is not a port; write a number from 1 to 65535",
    ),
    (
        "[custom]\nblock_durations = []",
        "2: custom.block_durations: [] is empty; write a list, as in [\"10m\", \"2h\", \"1d\", \"7d\"]",
    ),
    (
        "[custom]\nblock_durations = [\"10m\", \"-5m\"]",
        "2: custom.block_durations: \"-5m\" is negative; write a whole number with s, m, h or d, as in \"30s\", \
         \"10m\", \"2h\", \"1d\"",
    ),
    (
        "[custom]\nblock_durations = [\"0s\"]",
        "2: custom.block_durations: \"0s\" is out of range; write a duration from 1s to 365d",
    ),
    (
        "[custom]\nblock_durations = [\"366d\"]",
        "2: custom.block_durations: \"366d\" is out of range; write a duration from 1s to 365d",
    ),
    (
        "[custom]\nblock_durations = [\"10 min\"]",
        "2: custom.block_durations: \"10 min\" does not end with s, m, h or d; write a whole number with s, m, h \
         or d, as in \"30s\", \"10m\", \"2h\", \"1d\"",
    ),
    (
        "[bans]\nforgive_after = \"99999999999999999999d\"",
        "2: bans.forgive_after: \"99999999999999999999d\" is too long to count; write a whole number with s, m, \
         h or d, as in \"30s\", \"10m\", \"2h\", \"1d\"",
    ),
    (
        "[bans]\nforgive_after = 30",
        "2: bans.forgive_after: 30 has no unit; write it in quotes with s, m, h or d, as in \"30s\"",
    ),
    (
        "[custom]\nstate_save_interval = -5",
        "2: custom.state_save_interval: -5 is out of range; write a duration from 1s to 1d",
    ),
    (
        "[custom]\nactivity_window_hours = -1",
        "2: custom.activity_window_hours: -1 is out of range; write a number of hours from 0.003 to 8760, \
         without quotes",
    ),
    (
        "[custom]\nactivity_window_hours = nan",
        "2: custom.activity_window_hours: nan is out of range; write a number of hours from 0.003 to 8760, \
         without quotes",
    ),
    (
        "[bans]\nipv6_prefix = 32",
        "2: bans.ipv6_prefix: 32 is out of range; write a whole number from 48 to 128",
    ),
    (
        "[firewall]\nmode = \"custom\"\n[custom]\nactivity_window_hours = 0.001",
        "4: custom.activity_window_hours: 0.001 is 3.6s, shorter than a handshake may take (10s); write a number of \
         hours from 0.003 to 8760, without quotes",
    ),
    (
        "[modes.lenient]\nactivity_window_hours = 0",
        "2: modes.lenient.activity_window_hours: 0 is out of range; write a number of hours from 0.003 to 8760, \
         without quotes",
    ),
    (
        "[custom]\nudp_ports_threshold = 0\nstealth_threshold = 0\ndefault_port_threshold = 0",
        "2: custom.udp_ports_threshold: 0 is out of range; write a whole number from 1 to 65535\n\
         f.toml:3: custom.stealth_threshold: 0 is out of range; write a whole number from 1 to 1000\n\
         f.toml:4: custom.default_port_threshold: 0 is out of range; write a whole number from 1 to 1000000",
    ),
    (
        "[custom.port_thresholds]\n22 = 3\n022 = 4",
        "3: custom.port_thresholds.022: is port 22 again; keep one of them",
    ),
    (
        "[custom]\ncount_completed = true\nunproven_cap = \"1d\"",
        "2: custom.count_completed: no such key; belongs under [firewall]\n\
         f.toml:3: custom.unproven_cap: no such key; belongs under [bans]",
    ),
    (
        "[bans]\nunproven_cap = \"5m\"",
        "2: bans.unproven_cap: \"5m\" is shorter than the first ban (10m); write a duration from 10m to 7d, or \
         shorten block_durations",
    ),
    (
        "[bans]\nunproven_cap = \"of\"",
        "2: bans.unproven_cap: \"of\" does not begin with a number; write \"off\", or a whole number with s, m, h or d, \
         as in \"30s\", \"10m\", \"2h\", \"1d\"",
    ),
    (
        "[bans]\nunproven_cap = \"400d\"",
        "2: bans.unproven_cap: \"400d\" is out of range; write \"off\", or a duration from 1s to 365d",
    ),
    // many sources on one port
    (
        "[distributed]\ncounting = \"new_source\"",
        "2: distributed.counting: \"new_source\" is not a counting; did you mean \"new_sources\"?",
    ),
    (
        "[distributed]\ncounting = \"everything\"",
        "2: distributed.counting: \"everything\" is not a counting; write \"incomplete\", \"new_sources\" or \"all\"",
    ),
    (
        "[distributed.ports]\n0 = \"all\"\n70000 = \"all\"\nssh = \"all\"\n22 = \"Incomplet\"",
        "2: distributed.ports.0: \"0\" is not a port; write a number from 1 to 65535\n\
         f.toml:3: distributed.ports.70000: \"70000\" is not a port; write a number from 1 to 65535\n\
         f.toml:4: distributed.ports.ssh: \"ssh\" is not a port; write a number from 1 to 65535\n\
         f.toml:5: distributed.ports.22: \"Incomplet\" is not a counting; did you mean \"incomplete\"?",
    ),
    (
        "[distributed.ports]\n22 = \"all\"\n22 = \"new_sources\"",
        "3: distributed.ports.22: 22 is given twice; keep one of them",
    ),
    (
        "[distributed.ports]\n22 = \"all\"\n0022 = \"new_sources\"",
        "3: distributed.ports.0022: is port 22 again; keep one of them",
    ),
    (
        "[distributed]\nports = [22]",
        "2: distributed.ports: is an array of sections; write [distributed.ports] once, in single brackets",
    ),
    (
        "[distributed]\nbaseline_factor = -1\nknown_after = \"0s\"\nattack_quiet = \"9s\"",
        "2: distributed.baseline_factor: -1 is out of range; write a whole number from 0 to 1000\n\
         f.toml:3: distributed.known_after: \"0s\" is out of range; write a duration from 10s to 30d\n\
         f.toml:4: distributed.attack_quiet: \"9s\" is out of range; write a duration from 10s to 1d",
    ),
    (
        "[distributed]\nknown_after = \"2d\"\n[bans]\nforgive_after = \"1d\"",
        "2: distributed.known_after: \"2d\" is longer than sources are remembered (bans.forgive_after, 1d); write at \
         most \"1d\", or raise bans.forgive_after",
    ),
    (
        "known_after = \"1h\"",
        "1: known_after: no such key; belongs under [distributed]",
    ),
    // engine
    (
        "[engine]\nworkers = 4\nqueue_base = 65530",
        "3: engine.queue_base: 65530 is out of range; write a whole number from 1 to 65528",
    ),
    (
        "[engine]\nseed = -1",
        "2: engine.seed: -1 is out of range; write a whole number from 0 to 4294967295",
    ),
    (
        "[engine]\nseed = 0x1_0000_0000",
        "2: engine.seed: 0x100000000 is out of range; write a whole number from 0 to 4294967295",
    ),
    (
        "[engine]\nworkers = 2\n\nmanage_ruleset = false\nlog_base = 0",
        "4: engine.queue_base: missing: manage_ruleset = false, and the table that you load holds this number; \
         write the table's own, as in queue_base = 4100; verdictd ruleset prints by it\n\
         f.toml:5: engine.log_base: 0 is out of range; write a whole number from 1 to 65534",
    ),
    (
        "[engine]\ninternal_interfaces = [\"*\"]",
        "2: engine.internal_interfaces: \"*\" names no interface; write the name of an interface, as in \
         \"docker0\" or \"br-*\"",
    ),
    (
        "[engine]\ninternal_interfaces = [\"a\\\"\"]",
        "2: engine.internal_interfaces: \"a\\\"\" holds a character that no interface name has; write the \
         name of an interface, as in \"docker0\" or \"br-*\"",
    ),
    (
        "[firewall]\nstate_file = \"../../etc/passwd\"",
        "2: firewall.state_file: \"../../etc/passwd\" cannot name the state file; write a file name, as in \
         \"state.toml\", or an absolute path",
    ),
    // webhooks: no value of a secret is repeated
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\nsecret = \"hush\"\nsecret_file = \"hush\"",
        "5: webhooks.endpoints.secret_file: is a second secret of this endpoint; keep one of secret, secret_file\n\
         f.toml:5: webhooks.endpoints.secret_file: is not an absolute path; write an absolute path in quotes",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\nsecret_env = \"hush!\"",
        "4: webhooks.endpoints.secret_env: is not the name of a variable; write the name of an environment variable, as \
         in \"SOC_SECRET\"",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\nsecret_credential = \"../hush\"",
        "4: webhooks.endpoints.secret_credential: is not the name of a credential; write the name of a systemd \
         credential, as in \"soc\" of LoadCredential=soc:/path",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\n[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://y/\"",
        "5: webhooks.endpoints.name: \"x\" is the name of another endpoint; give each endpoint a name of its own",
    ),
    (
        "[[webhooks.endpoints]]\nname = \" \"\nurl = \"https://hush@169.254.169.254/hush\"",
        "2: webhooks.endpoints.name: \" \" is not a name; write a name in quotes, of at most 100 characters\n\
         f.toml:3: webhooks.endpoints.url: leads nowhere: 169.254.169.254 is the metadata service of a cloud; write \
         where events may go",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"http://192.0.2.1/hush\"",
        "3: webhooks.endpoints.url: leads by http:// to a public address: everybody on the way can read and change what \
         is sent; write https://, or allow_http = true for this endpoint",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\nheaders = { Host = \"hush\", \"X Y\" = \"hush\", Z = \
         \"hush\\n\" }",
        "4: webhooks.endpoints.headers.Host: is a header that verdictd writes itself; write the name of another header\n\
         f.toml:4: webhooks.endpoints.headers.\"X Y\": is not the name of a header; write the name of another header\n\
         f.toml:4: webhooks.endpoints.headers.Z: is not the value of a header; write visible ASCII characters",
    ),
    (
        "[webhooks]\nsignature_header = \"x-firewall-timestamp\"",
        "2: webhooks.signature_header: \"x-firewall-timestamp\" is the name of another header of the request; give each \
         of the three headers a name of its own",
    ),
    (
        "[webhooks]\nspool_max_bytes = 1\nbatch_sice = 3",
        "2: webhooks.spool_max_bytes: 1 is out of range; write a whole number from 1048576 to 1073741824\n\
         f.toml:3: webhooks.batch_sice: no such key; did you mean \"batch_size\"?",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\nsignature_header = \"X\"",
        "4: webhooks.endpoints.signature_header: no such key; belongs under [webhooks]",
    ),
    (
        "[webhooks]\n[[webhooks.endpoints]]\nname = \"x\"",
        "2: webhooks.endpoints.url: missing; write url = \"…\" for this endpoint",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\nsecret = 12345",
        "4: webhooks.endpoints.secret: holds a whole number; write it in quotes",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\nsecret = hush",
        "4: webhooks.endpoints.secret: is not quoted; put it between \" and \"",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"ftp://u:hush@x/\"",
        "3: webhooks.endpoints.url: not a web address; write an address in quotes that begins with https:// or \
         http://",
    ),
    (
        "[[webhooks.endpoints]]\nname = \"x\"\nurl = \"https://x/\"\nevents = { include = [\"ip_block\"] }",
        "4: webhooks.endpoints.events.include: \"ip_block\" is not an event; did you mean \"ip_blocked\"?",
    ),
    // not TOML
    (
        "[bans]\njitter = true\njitter = false",
        "3: bans.jitter: jitter is given twice; keep one of them",
    ),
    (
        "[bans]\n[trusted]\n[bans]",
        "3: bans is given twice; keep one of them",
    ),
    (
        "[firewall]\nmode = standard",
        "2: firewall.mode: standard is not quoted; put it between \" and \"",
    ),
    (
        "[firewall]\nmode =",
        "2: firewall.mode: there is no value after the =; write one, or remove the line",
    ),
    (
        "[firewall]\nmode",
        "2: firewall: there is no value; write the line as key = value",
    ),
    (
        "[allowed_ports]\ntcp = [22, 80\n[bans]\nenforce = maybe\n",
        "2: allowed_ports.tcp: opens a bracket that is never closed; close it with ] or }",
    ),
    (
        "[firewall]\nmode = \"sta\0ndard\"",
        "2: firewall.mode: invalid basic string, expected non-double-quote visible characters, `\\`; see \
         https://toml.io for how it is written",
    ),
];

#[test]
fn bad_input_is_told_in_full() {
    for (text, message) in REFUSED {
        assert_eq!(refusals(text), format!("f.toml:{message}"), "{text}");
    }
}

#[test]
fn every_problem_is_told_in_the_order_of_the_file() {
    let said = refusals(
        "mode = 1\n[bans]\nenforce = 2\nipv6_prefix = \n[allowed_ports]\ntcp = [0,\n1,\n70000]\nfoo = 1\n[trusted]\nips = \"x\"",
    );
    let lines: Vec<&str> = said
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "f.toml:1",
            "f.toml:3",
            "f.toml:4",
            "f.toml:6",
            "f.toml:8",
            "f.toml:9",
            "f.toml:11"
        ]
    );
}

#[test]
fn deep_nesting_is_refused_without_falling() {
    for (open, key) in [("[", ""), ("{a=", ""), ("a.", "a.")] {
        let text = format!("[bans]\n{}x = {}", key.repeat(20_000), open.repeat(20_000));
        assert!(refusals(&text).starts_with("f.toml:2: "), "{open}");
    }
}

#[test]
fn a_value_of_any_length_is_cut_and_escaped() {
    let said = refusals(&format!(
        "[firewall]\nmode = \"\\u001b[31m\\u202e{}\"",
        "x".repeat(100_000)
    ));
    assert!(
        said.len() < 400 && !said.contains(['\u{1b}', '\u{202e}']),
        "{said}"
    );
}

#[test]
fn a_megabyte_of_problems_takes_no_minute() {
    let start = Instant::now();
    let text: String = (0..60_000).map(|n| format!("k{n} = {n}\n")).collect();
    assert_eq!(read(&text).unwrap_err().problems.len(), 1_001);
    assert!(refusals(&"a\n".repeat(1 << 19)).ends_with("these are the first 1000 problems"));
    assert!(refusals(&"[".repeat(1 << 20)).starts_with("f.toml:1: "));
    assert!(refusals(&"x=[\n".repeat(1 << 18)).starts_with("f.toml:1: "));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn the_missions_config_cut_anywhere_names_a_line_or_loads() {
    for end in (0..MISSION.len()).filter(|end| MISSION.is_char_boundary(*end)) {
        if let Err(error) = read(&MISSION[..end]) {
            assert!(
                error.problems.iter().all(|problem| problem.line.is_some()),
                "cut at {end}: {error}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn mutations_never_panic_and_name_a_line(
        edits in prop::collection::vec((0..MISSION.len(), any::<u8>(), 0..4u8), 1..12),
    ) {
        let mut bytes = MISSION.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at % bytes.len();
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"[]{}=\"'\n#.,0-"[usize::from(byte) % 13]),
                2 => drop(bytes.remove(at)),
                _ => bytes.rotate_left(at % 64),
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.toml");
        fs::write(&path, bytes).unwrap();
        if let Err(error) = load(&path) {
            prop_assert!(!error.problems.is_empty());
            prop_assert!(error.problems.iter().all(|problem| problem.line.is_some()), "{}", error);
        }
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        let _ = read(&text);
    }
}

#[test]
fn what_is_no_readable_file_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let said = |name: &str| {
        load(&path(name))
            .unwrap_err()
            .to_string()
            .replace(folder.path().to_str().unwrap(), "")
    };
    assert_eq!(
        said("none"),
        "/none: no such file; write one, or name another with --config"
    );
    assert_eq!(said(""), "/: is a directory; name a regular file");
    assert!(
        Command::new("mkfifo")
            .arg(path("fifo"))
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        said("fifo"),
        "/fifo: is a pipe, device or socket; name a regular file"
    );
    assert!(
        load(Path::new("/dev/zero"))
            .unwrap_err()
            .to_string()
            .contains("is a pipe, device or socket")
    );
    fs::File::create(path("sparse"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    assert_eq!(
        said("sparse"),
        "/sparse: is larger than 1 MiB; keep it below: no config needs more"
    );
    fs::write(path("latin1"), b"[bans]\n# caf\xe9\n").unwrap();
    assert_eq!(
        said("latin1"),
        "/latin1:2: byte 0xe9 is not UTF-8; save the file as UTF-8"
    );
    symlink(path("loop"), path("loop")).unwrap();
    assert!(said("loop").contains("cannot be read"), "{}", said("loop"));
}

#[test]
fn files_of_other_editors_load() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("dos"),
        format!("\u{feff}{}", MISSION.replace('\n', "\r\n")),
    )
    .unwrap();
    symlink("dos", folder.path().join("link")).unwrap();
    assert_eq!(
        load(&folder.path().join("link")).unwrap().policy.ports_threshold,
        7
    );
}

#[test]
fn the_shipped_config_watches_only() {
    let shipped = good(SHIPPED);
    assert!(shipped.policy.observes_only());
    assert_eq!(notes(&shipped), [""; 0]);
}

#[test]
fn the_audit_log_goes_with_corporate_mode_and_says_what_has_no_effect() {
    let corporate = "[firewall]\nfirewall_mode = \"corporate\"\n[allowed_ports]\ntcp = [22]\n";
    assert!(good(corporate).audit.enabled && !good("").audit.enabled);
    let told = |more: &str| notes(&good(&format!("{corporate}{more}"))).join("\n");
    assert_eq!(told("[engine]\non_audit_failure = \"closed\""), "");
    assert!(told("[audit]\nenabled = false").contains("nothing of what corporate mode refuses"));
    assert!(
        told("[audit]\nenabled = false\n[engine]\non_audit_failure = \"closed\"")
            .contains("there is no audit log")
    );
    assert!(
        told("[bans]\nenforce = false\n[engine]\non_audit_failure = \"closed\"")
            .contains("only orders are refused")
    );
    let all = good("[audit]\nenabled = true\npath = \"/srv/log/a.jsonl\"\nmax_bytes = 65536\nkeep = 1").audit;
    assert_eq!(all.place(Path::new("/var/log")), Path::new("/srv/log/a.jsonl"));
    assert_eq!((all.enabled, all.max_bytes, all.keep), (true, 65_536, 1));
    for (bad, words) in [
        ("[audit]\nkeep = 0", "write a whole number from 1 to 1000"),
        ("[audit]\nmax_bytes = 100", "65536"),
        ("[audit]\npath = \"../x\"", "cannot name the audit log"),
        ("[audit]\npath = \"a/b\"", "as in \"audit.jsonl\""),
        (
            "[engine]\non_audit_failure = \"close\"",
            "did you mean \"closed\"?",
        ),
        ("[audit]\non_audit_failure = \"closed\"", "belongs under [engine]"),
    ] {
        assert!(refusals(bad).contains(words), "{bad}: {}", refusals(bad));
    }
}

/// What stands behind a "#" is a default, and every key is there.
#[test]
fn the_shipped_config_shows_every_key_at_its_default() {
    let uncommented: String = SHIPPED.lines().map(uncomment).collect();
    let shown = good(&uncommented.replace("mode = \"standard\"\n", "mode = \"custom\"\n"));
    let default = good("");
    assert_eq!(shown.policy.ladder, default.policy.ladder);
    assert_eq!(shown.policy.window, default.policy.window);
    assert_eq!(shown.policy.ports_threshold, default.policy.ports_threshold);
    assert_eq!(
        shown.policy.udp_ports_threshold,
        default.policy.udp_ports_threshold
    );
    assert_eq!(shown.policy.forgive_after, default.policy.forgive_after);
    assert_eq!(
        shown.policy.max_bans_per_minute,
        default.policy.max_bans_per_minute
    );
    assert_eq!(shown.policy.jitter, default.policy.jitter);
    assert_eq!(shown.policy.v6_prefix, default.policy.v6_prefix);
    assert_eq!(shown.policy.max_sources, default.policy.max_sources);
    assert_eq!(shown.policy.other_protocols, default.policy.other_protocols);
    assert_eq!(shown.policy.distributed, default.policy.distributed);
    assert_eq!(shown.policy.stealth_threshold, default.policy.stealth_threshold);
    assert_eq!(shown.policy.count_completed, default.policy.count_completed);
    assert_eq!(shown.policy.unproven_cap, default.policy.unproven_cap);
    assert_eq!(shown.audit, default.audit);
    let mut webhooks = shown.webhooks;
    assert_eq!(std::mem::take(&mut webhooks.endpoints), []);
    assert_eq!(webhooks, default.webhooks);
    let twice = "firewall.state_save_interval = 120 has no effect: [custom] has one of its own";
    assert!(
        shown.notes.iter().all(|note| note.text == twice),
        "{:?}",
        shown.notes
    );
    let mut engine = shown.engine;
    assert_eq!(
        (engine.workers, engine.queue_base, engine.log_base),
        (4, Some(4100), Some(4100))
    );
    assert_eq!(engine.state_file.take().as_deref(), Some(Path::new("state.toml")));
    assert_eq!(engine.seed.take(), Some(0x5eed));
    (engine.workers, engine.queue_base, engine.log_base) = (default.engine.workers, None, None);
    assert_eq!(engine, default.engine);
    for section in [
        "firewall",
        "trusted",
        "allowed_ports",
        "bans",
        "distributed",
        "engine",
        "audit",
        "custom",
        "webhooks",
    ] {
        let known = refusals(&format!("[{section}]\nzzzzzzzzzzzz = 1"));
        for key in known
            .trim_start_matches(|c| c != ';')
            .trim_start_matches("; known here: ")
            .split(", ")
        {
            assert!(
                SHIPPED.contains(&format!("{key} "))
                    || SHIPPED.contains(&format!("{key},"))
                    || SHIPPED.contains(&format!(".{key}]")),
                "{section}.{key}"
            );
        }
    }
}

fn uncomment(line: &str) -> String {
    let default = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
    format!("{}\n", default.unwrap_or(line))
}
