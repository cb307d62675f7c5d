//! The running engine: threads and what flows between them. No decisions are made here; `core` makes them.
//!
//! ```text
//! worker 0..N ──Offence──▶ analyst ──Job──▶ enforcer ──▶ nft sets
//!      ▲  │                  │  ▲ ▲            │
//!      ├──│──────Order───────┘  │ └──Failed────┘
//!      │  └─Attempt─▶ handshakes (conntrack) ──Attempts that count──▶ analyst
//!      └──Completed─────┘       │
//!                    control ───┼── protector (addresses, routes, resolvers, logins)
//!                                └── keeper ◀─Export─▶ workers; snapshot of the state
//! ```
//! Workers never wait for anybody: what they tell goes through a bounded channel with `try_send`.

mod alarm;
pub mod analyst;
pub mod attack_lines;
pub mod clock;
mod confine;
pub mod daemon;
pub mod denials;
pub mod early;
pub mod enforcer;
pub mod error;
pub mod handler;
pub mod handshakes;
mod health;
pub mod herald;
mod imports;
pub mod keeper;
pub mod last_good;
pub mod lockout;
pub mod notice;
pub mod open;
pub mod orders;
pub mod peers;
pub mod protect;
pub mod pulse;
pub mod reconciler;
pub mod refusals;
pub mod reload;
pub mod report;
pub mod restore;
pub mod room;
pub mod scribe;
mod selftest;
mod state_answers;
mod state_facts;
pub mod storm;
pub mod trial;
mod troubles;
pub mod unmade;
pub mod worker;
