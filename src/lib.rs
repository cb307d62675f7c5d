//! verdictd: an NFQUEUE verdict engine for Linux.
//!
//! nftables hands each new inbound connection to a multi-threaded loop that answers accept or drop; offenders
//! go into nft sets whose elements time out by themselves, so that the kernel enforces bans and they outlive
//! this process.
//!
//! Imports point inwards only: [`core`] ◀ [`webhook`] ◀ [`config`] ◀ [`kernel`], [`state`], [`notify`], [`stats`], [`control`], [`audit`] ◀ [`engine`], [`selftest`], [`integrity`] ◀ [`monitor`], [`preflight`] ◀ [`cli`].
//! `core` decides and touches no clock, thread, file or socket; `tests/layers.rs` holds it to that.

pub mod audit;
pub mod cli;
pub mod config;
pub mod control;
pub mod core;
pub mod engine;
pub mod files;
pub mod integrity;
pub mod kernel;
pub mod monitor;
pub mod notify;
pub mod places;
pub mod preflight;
pub mod selftest;
pub mod state;
pub mod stats;
pub mod webhook;
