//! What goes over the wire between the engine and those who listen: events, the batch they travel in, and the
//! signature that says who sent it; and the sending of them.
//!
//! `wire` and `signature` are shared by the sender (in `verdictd`) and the receiver (`verdict-receiver`), and know
//! nothing of either: no socket, no file, no clock. Names of headers, events and keys are contracts with programs that
//! others run.
//!
//! The sender: whoever sees something happen builds its `event` and hands it to the `outbox`, which never waits. One
//! thread writes what was handed over to the `spool` on disk; one thread an endpoint (`endpoint`) reads it from
//! there, at its own pace (`pace`), and sends it (`http`) to an address that may be sent to (`address`).

pub mod address;
pub mod config;
mod dead;
mod endpoint;
pub mod event;
mod handle;
mod http;
mod merge;
mod outbox;
mod pace;
mod sample;
pub mod secret;
mod sender;
pub mod signature;
mod spool;
pub mod status;
mod steady;
pub mod trial;
pub mod wire;

pub use self::http::Lookup;
pub use self::outbox::Outbox;
pub use self::sender::{StartError, Webhooks};
