//! The lines that others' programs read (`NOTICE [port_scanning] Ban 203.0.113.9`): made when it is decided, printed
//! once it is so and will outlive us.

use tracing::info;

use crate::core::verdict::Ban;
use crate::notify::log::NOTICE;

/// That a ban is in force, or was.
#[derive(Clone, Debug)]
pub enum Notice {
    /// It begins.
    Ban {
        /// Who and why.
        ban: Ban,
        /// When it ends, by the wall clock.
        until: Option<String>,
    },
    /// It ended.
    Unban {
        /// Who and why.
        ban: Ban,
        /// The word for what ended it.
        why: &'static str,
    },
}

impl Notice {
    /// Says it.
    pub fn print(&self) {
        match self {
            Notice::Ban { ban, until } => info!(
                target: NOTICE, event = "ban", source = %ban.source, reason = %ban.reason, step = ban.step,
                offences = ban.offences, until, "NOTICE [{}] Ban {}", ban.reason, ban.source
            ),
            Notice::Unban { ban, why } => info!(
                target: NOTICE, event = "unban", source = %ban.source, reason = %ban.reason, step = ban.step,
                why, "NOTICE [{}] Unban {}", ban.reason, ban.source
            ),
        }
    }
}
