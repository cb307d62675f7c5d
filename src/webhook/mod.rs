//! What goes over the wire between the engine and those who listen: events, the batch they travel in, and the
//! signature that says who sent it.
//!
//! Shared by the sender (in `verdictd`) and the receiver (`verdict-receiver`), and knows nothing of either: no socket,
//! no file, no clock. Names of headers, events and keys are contracts with programs that others run.

pub mod signature;
pub mod wire;
