//! Where the package puts things, in one place; every option that names another has its default from here.

/// The configuration file.
pub const CONFIG: &str = "/etc/verdictd/verdictd.toml";
/// The sums of the files that must not change.
pub const MANIFEST: &str = "/etc/verdictd/integrity.sha256";
/// Where state is kept.
pub const STATE_DIR: &str = "/var/lib/verdictd";
/// Where the engine's socket and pid file are.
pub const RUNTIME_DIR: &str = "/run/verdictd";
/// Where logs are.
pub const LOG_DIR: &str = "/var/log/verdictd";
