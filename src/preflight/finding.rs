//! One sentence of what is so, one of what to do about it.

use serde::Serialize;

/// What it asks of the admin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    Fine,
    /// To know it.
    Note,
    /// To do something, or the engine will not do what is expected of it here.
    Act,
}

impl Level {
    /// On the screen.
    pub fn shown(self) -> &'static str {
        match self {
            Level::Fine => "ok",
            Level::Note => "note",
            Level::Act => "ACT",
        }
    }
}

macro_rules! codes {
    ($($variant:ident $word:literal $doc:literal,)+) => {
        /// What a finding is about; a contract, for scripts and for `docs/preflight.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum Code {
            $(#[doc = $doc] #[serde(rename = $word)] $variant,)+
        }

        impl Code {
            /// Every one.
            #[cfg(test)]
            pub(super) const ALL: &[Code] = &[$(Code::$variant),+];

            /// Its word.
            pub fn word(self) -> &'static str {
                match self {
                    $(Code::$variant => $word,)+
                }
            }
        }
    };
}

codes! {
    Config "config" "By which configuration this is judged.",
    Rights "rights" "What could not be seen for want of rights.",
    Queue "queue" "How packets get into a queue.",
    Packet "packet" "Whether verdicts hold.",
    Table "table" "Whether the table loads.",
    Log "log" "Copies to log groups.",
    Socket "socket" "The look for own sockets.",
    Owner "owner" "Tables that belong to the engine.",
    QueueCt "queue-ct" "Conntrack's word in queued packets.",
    Timeouts "timeouts" "Whether timeouts can be changed.",
    UdpGso "udp-gso" "CVE-2026-45859.",
    CtEvents "ct-events" "Announcements of handshakes.",
    CtRoom "ct-room" "Whether conntrack has room.",
    CtQueues "ct-queues" "Whether it has room for what waits.",
    CtLoose "ct-loose" "Connections that are older than conntrack.",
    CtListeners "ct-listeners" "Who else hears of handshakes.",
    Queues "queues" "Who else holds queues.",
    LogGroups "log-groups" "Who else holds log groups.",
    BootTable "boot-table" "Our table in what nft loads at boot.",
    BootFlush "boot-flush" "Whether nft empties the kernel at boot.",
    Before "tables-before" "Who drops before us.",
    After "tables-after" "Who drops after us.",
    Legacy "tables-legacy" "The old iptables.",
    Bans "other-bans" "Who else bans.",
    Published "published" "Ports of containers.",
    Proxy "proxy" "Whether strangers are hidden behind a proxy.",
    Trusted "trusted" "Whether nearly everybody is trusted.",
    Listeners "listeners" "What a port filter closes.",
    SshPort "ssh-port" "Whether SSH stays open.",
    SshSession "ssh-session" "Whether somebody would be locked out.",
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    #[serde(rename = "finding")]
    pub code: Code,
    /// How pressing it is.
    pub level: Level,
    /// What is so.
    pub what: String,
    /// What to do; empty if that is nothing.
    #[serde(rename = "do")]
    pub remedy: String,
}

impl Finding {
    /// Nothing to do.
    pub fn fine(code: Code, what: impl Into<String>) -> Finding {
        Finding {
            code,
            level: Level::Fine,
            what: what.into(),
            remedy: String::new(),
        }
    }

    /// To know.
    pub fn note(code: Code, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            level: Level::Note,
            remedy: remedy.into(),
            ..Finding::fine(code, what)
        }
    }

    /// To act on.
    pub fn act(code: Code, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            level: Level::Act,
            ..Finding::note(code, what, remedy)
        }
    }

    /// To act on if `pressing`, else to know.
    pub fn act_if(pressing: bool, code: Code, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        match pressing {
            true => Finding::act(code, what, remedy),
            false => Finding::note(code, what, remedy),
        }
    }
}

/// "a", "a and b", "a, b and c"; of more than `most`, "a, b and 7 more".
pub(super) fn listed<T: ToString>(all: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    if all.len() > most.max(1) {
        let more = all.len() - most;
        all.truncate(most);
        all.push(format!("{more} more"));
    }
    match all.pop() {
        None => String::new(),
        Some(last) if all.is_empty() => last,
        Some(last) => format!("{} and {last}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_well() {
        assert_eq!(listed([1; 0], 3), "");
        assert_eq!(listed([1], 3), "1");
        assert_eq!(listed([1, 2], 3), "1 and 2");
        assert_eq!(listed([1, 2, 3], 3), "1, 2 and 3");
        assert_eq!(listed([1, 2, 3, 4, 5], 3), "1, 2, 3 and 2 more");
    }

    #[test]
    fn words_are_told_apart_and_the_same_in_json() {
        let words: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.word());
        }
    }
}
