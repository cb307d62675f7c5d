//! One bit between the audit log and the workers: whether new connections wait until it can be written again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Shared by its clones; open at first.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Whether nothing new may begin. One load, for the verdict path.
    pub fn is_shut(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Shuts or opens it.
    pub fn set(&self, shut: bool) {
        self.0.store(shut, Relaxed);
    }
}
