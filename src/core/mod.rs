//! What is decided, and nothing else: no I/O, no clock, no thread, no lock. Time is an argument.
#![forbid(unsafe_code)]

pub mod attack;
pub mod bounded;
pub mod judge;
pub mod ladder;
pub mod ledger;
pub mod policy;
pub mod ports;
pub mod prefix;
pub mod prefix_map;
pub mod probe;
pub mod recent;
pub mod scan;
pub mod services;
pub mod shard;
pub mod source;
pub mod tiers;
pub mod verdict;
