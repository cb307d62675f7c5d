//! Capabilities: CAP_NET_ADMIN and nothing else, also when root started us.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::{Errno, Result};
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Gives up all but CAP_NET_ADMIN for the calling thread and what it starts; says what is left.
///
/// Root who writes in the folders of another user (`write`) does so by CAP_DAC_OVERRIDE: it is kept then, and said.
pub(super) fn give_up(write: &[PathBuf]) -> Result<String> {
    let had = capabilities(None)?;
    let foreign = geteuid()
        .is_root()
        .then(|| write.iter().find(|path| is_foreign(path)))
        .flatten();
    let mut wanted = CapabilitySet::NET_ADMIN;
    if foreign.is_some() {
        wanted |= CapabilitySet::DAC_OVERRIDE;
    }
    let kept = had.permitted & wanted;
    match clear_ambient_capability_set() {
        Err(Errno::INVAL) | Ok(()) => {} // before Linux 4.3 there is none
        Err(error) => return Err(error),
    }
    if had.effective.contains(CapabilitySet::SETPCAP) {
        // Counted, not named: a kernel may know more of them than we do.
        for capability in (0..64).map(|number| CapabilitySet::from_bits_retain(1 << number)) {
            if kept.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                Err(Errno::INVAL) => break, // past the last one that this kernel has
                Err(error) => return Err(error),
            }
        }
    }
    let wanted = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    match set_capabilities(None, wanted) {
        // The unit's filter of system calls refuses this one, and its CapabilityBoundingSet= left no more than is kept.
        // What is inheritable leads nowhere: no program is ever started.
        Err(Errno::PERM) if had.permitted == kept => {}
        other => other?,
    }
    Ok(told(kept, foreign))
}

fn is_foreign(path: &Path) -> bool {
    path.metadata().is_ok_and(|folder| folder.uid() != 0)
}

fn told(kept: CapabilitySet, foreign: Option<&PathBuf>) -> String {
    let mut text = match kept.contains(CapabilitySet::NET_ADMIN) {
        true => "capabilities net_admin".to_owned(),
        false => "no capabilities".to_owned(),
    };
    if let Some(path) = foreign.filter(|_| kept.contains(CapabilitySet::DAC_OVERRIDE)) {
        text += &format!(" and dac_override ({} is another user's)", path.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_said_with_its_reason() {
        let (net, both) = (
            CapabilitySet::NET_ADMIN,
            CapabilitySet::NET_ADMIN | CapabilitySet::DAC_OVERRIDE,
        );
        let folder = PathBuf::from("/var/lib/verdictd");
        assert_eq!(told(net, None), "capabilities net_admin");
        assert_eq!(told(net, Some(&folder)), "capabilities net_admin");
        assert_eq!(
            told(both, Some(&folder)),
            "capabilities net_admin and dac_override (/var/lib/verdictd is another user's)"
        );
        assert_eq!(told(CapabilitySet::empty(), None), "no capabilities");
    }
}
