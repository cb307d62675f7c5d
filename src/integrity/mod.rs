//! The seal: what this program is made of (binaries, units, configuration, nft file), as it was when an administrator
//! last said that it is right, and what differs from that now.
//!
//! `manifest` is the file, `format` its text, which `sha256sum -c` reads; `verify` compares it with the disk; `seal` makes it and sets
//! owners and modes first; `files` says what belongs to it; `root` opens files that nobody vouches for.
//!
//! Fails closed: a manifest that cannot be trusted is an error, never an empty list of differences. What that means for
//! traffic is none: engine and kernel policy go on whatever is found here.

mod accounts;
mod files;
mod format;
mod manifest;
mod reseal;
mod root;
mod seal;
mod verify;

pub use self::files::DEFAULT_BINARIES;
pub use self::manifest::{Manifest, ManifestError, SyntaxError};
pub use self::seal::{Change, Difference, Options, Plan, SealError, Turn};
pub use self::verify::{Mismatch, What};

/// What to do about a difference, whoever tells of one.
pub const HINT: &str = "verdictctl harden seals it anew, if the change was yours";
