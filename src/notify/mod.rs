//! What the engine tells people: its log, and the lines about refused packets.
//!
//! Nothing here decides, and nothing here can make a worker wait.

pub mod log;
pub mod refusals;
pub mod text;
pub mod throttle;
