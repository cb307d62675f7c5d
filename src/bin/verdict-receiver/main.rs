//! Receives webhooks.
fn main() {}
