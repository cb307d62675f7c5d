//! What `status` tells of a policy that is tried out, and what is answered to who ends that.

use serde::{Deserialize, Serialize};

/// How far an `apply` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyState {
    /// The new policy is in force, and goes back unless it is confirmed.
    #[default]
    Pending,
    /// It is confirmed, and the configuration file still holds the old text.
    Unsaved,
    /// It was not confirmed; the old policy is in force again.
    WentBack,
}

/// The last `apply`, as long as there is something to say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApplyView {
    /// How far it is.
    pub state: ApplyState,
    /// When it goes back, or went back: RFC 3339, UTC.
    pub until: Option<String>,
    /// Time left until then, rounded up.
    pub seconds_left: Option<u64>,
    /// The mode before.
    pub from: String,
    /// The mode that is tried.
    pub to: String,
    /// SHA-256 of the text that is tried.
    pub sha256: String,
    /// When it came into force, in milliseconds since boot: what came to the host before proves nothing about it.
    pub since_boot_ms: u64,
    /// Why it went back, or cannot.
    pub why: Option<String>,
}

/// What came of a wish to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneBack {
    /// The old policy is in force again.
    Back,
    /// Nothing was tried out, and nothing changed.
    Nothing,
    /// It is confirmed already, and stays.
    Confirmed,
    /// Something else is tried out now, which stays.
    Another,
}
