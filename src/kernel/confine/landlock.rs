//! Landlock: which files can be opened, from which no TCP port can be bound, and that no process outside can be looked
//! into, signalled or, by an abstract name, spoken to. Rights are bound to inodes and what lies below them.

use std::fs;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::places::Grants;

/// Confines the calling thread and what it starts; says to what, or why not.
pub(super) fn enter(grants: &Grants) -> Result<String, String> {
    let status = restrict(grants).map_err(|error| error.to_string())?;
    match (status.ruleset, status.landlock) {
        (_, LandlockStatus::NotImplemented) => Err("this kernel is built without it".into()),
        (_, LandlockStatus::NotEnabled) => {
            Err("this kernel does not enable it: see its lsm= parameter".into())
        }
        (RulesetStatus::NotEnforced, _) => Err("the kernel refused it".into()),
        (
            _,
            LandlockStatus::Available {
                effective_abi,
                kernel_abi,
            },
        ) => {
            let abi = kernel_abi.unwrap_or(effective_abi as i32);
            Ok(format!("landlock (ABI {abi})"))
        }
    }
}

fn restrict(grants: &Grants) -> Result<landlock::RestrictionStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::BindTcp)?
        .scope(scopes())?
        .create()?;
    let lists = [
        (&grants.read, AccessFs::ReadFile | AccessFs::ReadDir),
        (&grants.write, WRITE),
    ];
    for (paths, access) in lists {
        for path in paths {
            // What is not there cannot be let in; most of the usual places of other distributions are not.
            let (Ok(metadata), Ok(handle)) = (fs::metadata(path), PathFd::new(path)) else {
                continue;
            };
            let access = match metadata.is_dir() {
                true => access,
                false => access & AccessFs::from_file(KNOWN),
            };
            ruleset = ruleset.add_rule(PathBeneath::new(handle, access))?;
        }
    }
    ruleset.restrict_self()
}

/// A service manager may listen at an abstract name (`@…`, in some containers): it has to hear that we are ready.
fn scopes() -> BitFlags<Scope> {
    let manager = std::env::var_os("NOTIFY_SOCKET");
    match manager.is_some_and(|name| name.as_encoded_bytes().starts_with(b"@")) {
        true => Scope::Signal.into(),
        false => Scope::Signal | Scope::AbstractUnixSocket,
    }
}

/// No links, sockets, fifos or devices are made, and nothing is executed.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
});
/// Linux 6.10: every right that files had then is refused unless it is given. Older kernels refuse what they know.
const KNOWN: ABI = ABI::V5;
