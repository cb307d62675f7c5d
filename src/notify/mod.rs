//! What the engine tells people: its log, and the lines about refused packets; and what systemd is told.
//!
//! Nothing here decides, and nothing here can make a worker wait.

pub mod log;
pub mod refusals;
pub mod systemd;
pub mod text;
pub mod throttle;
