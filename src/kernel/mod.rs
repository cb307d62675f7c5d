//! Everything that speaks netlink. Nothing here decides; `unsafe` lives here and nowhere else.

pub mod netlink;
mod setelem;
pub mod sets;
mod sys;
