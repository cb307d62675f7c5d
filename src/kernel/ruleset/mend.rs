//! The way back after damage, as short as it can be: one look, one transaction with policy and the first bans. What it
//! made is read back by the caller once the other bans are in force too.

use std::time::Duration;

use super::apply::{Applied, adopting, keep, overtaken, read_to_change, replace};
use super::readback::{Loaded, generation};
use super::{Ruleset, RulesetError};
use crate::core::prefix::Prefix;
use crate::kernel::netlink::Netlink;

/// Bans, and how long each lasts (`None`: for ever), that are put into sets which are made anew, in the transaction
/// that makes them. What finds its set there is left to [`super::super::sets::BanSets`].
pub type First<'a> = &'a [(Prefix, Option<Duration>)];

/// What there is of our table, and which state of the kernel's ruleset that was.
pub struct Look {
    generation: u32,
    /// The table; none: it is gone.
    pub found: Option<Loaded>,
}

/// Looks at our table, to change it by what is found.
///
/// # Errors
/// If it cannot be read, is not ours, or belongs to another socket.
pub fn look(netlink: &mut Netlink) -> Result<Look, RulesetError> {
    // Before the look: the batch made of it is refused if anything has changed since.
    let generation = generation(netlink)?;
    Ok(Look {
        generation,
        found: read_to_change(netlink)?,
    })
}

/// Makes what was found what `ruleset` says, in one transaction, without reading it back. Sets of bans whose type
/// is wrong are made anew: who calls knows all bans.
///
/// # Errors
/// [`RulesetError::Overtaken`] if somebody changed anything since the look: look again. Nothing was changed, but
/// where a [`RulesetError::Netlink`] calls the kernel's state unknown.
pub fn mend(
    netlink: &mut Netlink,
    ruleset: &Ruleset,
    look: &Look,
    first: First<'_>,
) -> Result<Applied, RulesetError> {
    put(netlink, ruleset, look, first, false).map_err(|error| match error {
        RulesetError::Refused { source, .. } if overtaken(&source) => RulesetError::Overtaken,
        error => error,
    })
}

/// The transaction; `spare`: the bans in a set are known to nobody else.
pub(super) fn put(
    netlink: &mut Netlink,
    ruleset: &Ruleset,
    look: &Look,
    first: First<'_>,
    spare: bool,
) -> Result<Applied, RulesetError> {
    let mut applied = Applied {
        created: look.found.is_none(),
        ..Applied::default()
    };
    let none = Loaded::default();
    let found = look.found.as_ref().unwrap_or(&none);
    let ruleset = adopting(ruleset, found, &mut applied);
    keep(&ruleset, found, spare, &mut applied)?;
    let flags = ruleset.table_flags(look.found.as_ref());
    replace(&ruleset, found, flags, first).send_at(netlink, Some(look.generation))?;
    Ok(applied)
}
