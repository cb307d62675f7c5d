//! The control socket: how an operator asks the running engine, and nothing else does.
//!
//! [`wire`] (with [`views`]) is all that engine and `verdictctl` share; [`server`] answers on the unix socket and knows nothing of
//! what is asked.

pub mod apply_view;
pub mod client;
pub mod health_view;
pub mod metrics_view;
pub mod monitor_view;
pub mod pidfile;
pub mod rights;
pub mod selftest_view;
pub mod server;
mod socket;
pub mod state_view;
pub mod stats_view;
pub mod upkeep_view;
pub mod views;
pub mod webhook_view;
pub mod wire;
