//! The whole engine on real packets: the built binary between network namespaces, one test a promise.
//!
//! Every test makes its own namespaces, so they run side by side and leave nothing behind. They need root and
//! fail without it: `sudo make test`.

#[path = "../common/mod.rs"]
mod common;

mod audit;
mod bad_input;
mod bans;
mod containers;
mod continuity;
mod early;
mod flood;
mod honest;
mod import;
mod include;
mod lab;
mod lockout;
mod logs;
mod mishaps;
mod mission;
mod modes;
mod odd;
mod protected;
mod pulse;
mod reconcile;
mod reload;
mod scan_table;
mod scans;
mod state;
mod traffic;
mod under_attack;
mod webhook_endurance;
mod webhook_peers;
mod webhooks;
