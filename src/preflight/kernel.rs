//! Findings about what this kernel can do.

use super::facts::Facts;
use super::finding::{Code, Finding};
use crate::config::Config;
use crate::kernel::facts::Unknown;
use crate::kernel::facts::release::Release;
use crate::kernel::facts::trial::Trial;
use crate::kernel::ruleset::Backend;

/// All of them.
pub(super) fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let trial = &facts.trial;
    let mut findings: Vec<Finding> = rights(facts).into_iter().collect();
    // What nobody may try is not known, and `rights` has said so.
    if !trial.forbidden {
        findings.push(queue(trial));
        findings.push(packet(trial));
        findings.push(table(trial));
        findings.push(part(
            Code::Log,
            &trial.log,
            "copies to log groups work",
            "nft_log nfnetlink_log",
        ));
        findings.push(part(
            Code::Socket,
            &trial.socket,
            "rules can look for a socket of this host",
            "nft_socket",
        ));
    }
    findings.push(owner(trial, config.engine.own_table));
    findings.push(queue_conntrack(trial));
    findings.push(timeouts(trial));
    findings.extend(facts.release.as_ref().map(udp_gso));
    findings
}

fn rights(facts: &Facts) -> Option<Finding> {
    let trial = &facts.trial;
    if trial.forbidden {
        return Some(Finding::act(
            Code::Rights,
            "nothing of what the engine needs could be tried, that takes CAP_NET_ADMIN",
            AS_ROOT,
        ));
    }
    match (facts.root, &trial.not_apart) {
        (true, None) => None,
        (true, Some(why)) => Some(Finding::note(
            Code::Rights,
            format!("no network namespace could be made to try things in ({why}), so less was tried"),
            "run it outside the container, or with CAP_SYS_ADMIN, to have everything tried",
        )),
        (false, _) => Some(Finding::note(
            Code::Rights,
            "not all can be seen without root",
            AS_ROOT,
        )),
    }
}

fn queue(trial: &Trial) -> Finding {
    match &trial.backend {
        Ok(Backend::Native) => Finding::fine(
            Code::Queue,
            "packets go to a queue by nft's own expression \"queue\"",
        ),
        Ok(Backend::Xt) => Finding::note(
            Code::Queue,
            "this kernel has no nft expression \"queue\", so rules use the xt target NFQUEUE, and what \"nft list ruleset\" \
             prints of them cannot be loaded again",
            "keep table inet verdictd out of files that nft loads; the engine loads it by itself",
        ),
        Err(why) => Finding::act(
            Code::Queue,
            format!("no rule that hands packets to a queue can be made: {why}"),
            "modprobe nft_queue, else modprobe -a nft_compat xt_NFQUEUE, else boot your \
             distribution's own kernel",
        ),
    }
}

fn packet(trial: &Trial) -> Finding {
    match &trial.packet {
        Some(Ok(())) => Finding::fine(
            Code::Packet,
            "one packet was queued and dropped, one queued and let pass, in a network namespace made for it",
        ),
        Some(Err(why)) => Finding::act(
            Code::Packet,
            format!("verdicts do not work on this kernel: {why}"),
            "see to what it names, then run this again; until then the engine cannot hold or drop what is new",
        ),
        None => Finding::note(
            Code::Packet,
            "whether verdicts hold was not tried: that takes a network namespace",
            "run it as root outside a container, or rely on \"verdictd selftest\" once the engine runs",
        ),
    }
}

fn table(trial: &Trial) -> Finding {
    match &trial.table {
        Some(Ok(())) => Finding::fine(
            Code::Table,
            "the table of this configuration loads and reads back as written, tried in a network namespace made for it",
        ),
        Some(Err(why)) => Finding::act(
            Code::Table,
            format!("the table of this configuration does not load on this kernel: {why}"),
            "load the module of what it names (modprobe nft_ct nft_fib_inet nft_hash nft_limit nft_socket nft_log …), or boot \
             your distribution's own kernel",
        ),
        None => Finding::note(
            Code::Table,
            "whether the table of this configuration loads was not tried",
            "see to the findings above, then run this again as root",
        ),
    }
}

fn part(code: Code, tried: &Result<(), Unknown>, fine: &str, modules: &str) -> Finding {
    match tried {
        Ok(()) => Finding::fine(code, fine),
        Err(why) => Finding::act(
            code,
            format!("a rule that the engine needs is refused: {why}"),
            format!("modprobe -a {modules}, else boot your distribution's own kernel"),
        ),
    }
}

fn owner(trial: &Trial, wanted: bool) -> Finding {
    match (&trial.owner, wanted) {
        (Ok(true), true) => Finding::fine(
            Code::Owner,
            "the table can belong to the engine alone (own_table = true)",
        ),
        (Ok(true), false) => Finding::fine(
            Code::Owner,
            "the table could belong to the engine alone, if you want that: own_table = true under [engine]",
        ),
        (_, false) => Finding::fine(
            Code::Owner,
            "no table can belong to the engine alone here, and own_table = false does not ask for it",
        ),
        (Ok(false), true) => Finding::act(
            Code::Owner,
            "own_table = true has no effect: this kernel has no tables with an owner that outlive it",
            "boot Linux 6.9 or later, or write own_table = false under [engine]",
        ),
        (Err(why), true) => Finding::note(
            Code::Owner,
            format!("whether the table can belong to the engine alone is not known: {why}"),
            "run this again as root",
        ),
    }
}

/// The class of a packet comes from the number of its queue, so that nothing hangs on this.
fn queue_conntrack(trial: &Trial) -> Finding {
    let what = match &trial.queue_conntrack {
        Some(Ok(true)) => {
            "queued packets could tell what conntrack holds of them; the engine does not need it"
        }
        Some(Ok(false)) => {
            "queued packets cannot tell what conntrack holds of them; the engine knows it by the number of the queue"
        }
        _ => {
            "whether queued packets could tell what conntrack holds of them was not tried; the engine does not need it"
        }
    };
    Finding::fine(Code::QueueCt, what)
}

/// A ban is renewed by taking it out and putting it in anew, so that nothing hangs on this.
fn timeouts(trial: &Trial) -> Finding {
    let what = match &trial.refresh {
        Some(Ok(true)) => "the length of a ban that stands can be changed",
        Some(Ok(false)) => {
            "this kernel keeps the length of a ban that stands (before Linux 6.12); the engine takes it out and puts it in anew"
        }
        _ => {
            "whether the length of a ban that stands can be changed was not tried; the engine puts it in anew anyhow"
        }
    };
    Finding::fine(Code::Timeouts, what)
}

fn udp_gso(release: &Release) -> Finding {
    let Release { version, vendor, .. } = release;
    let name = match vendor {
        Some(vendor) => format!("{vendor}'s kernel, made of Linux {version},"),
        None => format!("Linux {version}"),
    };
    if !release.may_drop_merged_udp() {
        return Finding::fine(
            Code::UdpGso,
            format!("{name} is outside the range of CVE-2026-45859"),
        );
    }
    Finding::note(
        Code::UdpGso,
        format!(
            "{name} is in the range of CVE-2026-45859 (queues that do not ask for merged packets whole lose UDP: QUIC, \
             WireGuard); the engine asks for them whole (F_GSO) on each queue, other programs with queues may not"
        ),
        "update the kernel (apt full-upgrade) to 6.12.75, 6.18.14, 6.19.4 or later; your distribution may have put the fix into \
         an older one: look for the number in its changelog",
    )
}

const AS_ROOT: &str = "run it again: sudo verdictd check --kernel";

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::sample;
    use super::*;
    use crate::kernel::facts::release::Version;

    fn found(change: impl FnOnce(&mut Facts), config: &str, code: Code) -> Finding {
        let mut facts = sample::facts();
        change(&mut facts);
        sample::one(judge(&facts, &sample::config(config)), code)
    }

    #[test]
    fn both_ways_to_a_queue_are_fine_and_none_is_not() {
        let level = |backend| found(|facts| facts.trial.backend = backend, "", Code::Queue).level;
        assert_eq!(level(Ok(Backend::Native)), Level::Fine);
        assert_eq!(level(Ok(Backend::Xt)), Level::Note);
        let none = found(
            |facts| facts.trial.backend = Err(sample::unknown("no such")),
            "",
            Code::Queue,
        );
        assert_eq!(none.level, Level::Act);
        assert!(none.what.ends_with("no such") && none.remedy.contains("modprobe nft_queue"));
    }

    #[test]
    fn what_fails_is_to_act_on_and_what_was_not_tried_is_to_know() {
        for (code, tried) in [
            (Code::Packet, true),
            (Code::Table, true),
            (Code::Packet, false),
            (Code::Table, false),
        ] {
            let finding = found(
                |facts| {
                    facts.trial.packet = tried.then(|| Err(sample::unknown("lost")));
                    facts.trial.table = tried.then(|| Err(sample::unknown("lost")));
                },
                "",
                code,
            );
            let expected = if tried { Level::Act } else { Level::Note };
            assert_eq!(finding.level, expected, "{finding:?}");
        }
        for code in [Code::Log, Code::Socket] {
            let finding = found(
                |facts| {
                    facts.trial.log = Err(sample::unknown("EOPNOTSUPP"));
                    facts.trial.socket = Err(sample::unknown("EOPNOTSUPP"));
                },
                "",
                code,
            );
            assert_eq!(finding.level, Level::Act);
            assert!(finding.remedy.contains("modprobe -a nft_"), "{finding:?}");
        }
    }

    #[test]
    fn an_owner_matters_to_who_asks_for_one() {
        let without = |facts: &mut Facts| facts.trial.owner = Ok(false);
        assert_eq!(found(without, "", Code::Owner).level, Level::Fine);
        assert_eq!(
            found(without, "[engine]\nown_table = true\n", Code::Owner).level,
            Level::Act
        );
        assert_eq!(
            found(|_| (), "[engine]\nown_table = true\n", Code::Owner).level,
            Level::Fine
        );
    }

    #[test]
    fn without_rights_it_is_said_once() {
        let finding = found(|facts| facts.root = false, "", Code::Rights);
        assert!(finding.remedy.starts_with("run it again: sudo"), "{finding:?}");
        let boxed = found(
            |facts| facts.trial.not_apart = Some(std::io::Error::other("EPERM")),
            "",
            Code::Rights,
        );
        assert!(boxed.what.contains("EPERM"), "{boxed:?}");
        assert_eq!(rights(&sample::facts()), None);
        let mut forbidden = sample::facts();
        forbidden.trial.forbidden = true;
        forbidden.trial.backend = Err(sample::unknown("not permitted"));
        let found = judge(&forbidden, &sample::config(""));
        assert!(found.iter().all(|one| one.code != Code::Queue), "{found:?}");
        assert_eq!(sample::one(found, Code::Rights).level, Level::Act);
    }

    #[test]
    fn neither_the_tuple_nor_the_timeouts_are_needed() {
        type Tried = Option<Result<bool, Unknown>>;
        let failed = || Some(Err(sample::unknown("x")));
        let tries: [&dyn Fn() -> Tried; 4] = [&|| None, &|| Some(Ok(true)), &|| Some(Ok(false)), &failed];
        for tried in tries {
            for code in [Code::QueueCt, Code::Timeouts] {
                let change = |facts: &mut Facts| {
                    facts.trial.queue_conntrack = tried();
                    facts.trial.refresh = tried();
                };
                assert_eq!(found(change, "", code).level, Level::Fine);
            }
        }
    }

    #[test]
    fn a_kernel_in_the_range_is_named_with_the_distributions_word() {
        let release = |version, vendor| Release {
            version,
            name: "x".into(),
            vendor,
        };
        let bad = udp_gso(&release(Version(6, 12, 74), Some("Debian")));
        assert_eq!(bad.level, Level::Note);
        assert!(
            bad.what
                .starts_with("Debian's kernel, made of Linux 6.12.74, is in the range"),
            "{bad:?}"
        );
        assert!(
            bad.what.contains("F_GSO") && bad.remedy.contains("changelog"),
            "{bad:?}"
        );
        assert_eq!(udp_gso(&release(Version(6, 12, 75), None)).level, Level::Fine);
    }
}
