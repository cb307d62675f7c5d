//! Everything that speaks netlink. Nothing here decides; `unsafe` lives here and nowhere else.

pub mod netlink;
pub mod ruleset;
mod sys;
