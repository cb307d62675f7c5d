//! The wall clock and the clock of this boot, for what outlives the process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

use crate::state::{Boot, Moment};

/// This moment.
pub fn moment() -> Moment {
    Moment {
        wall: OffsetDateTime::now_utc(),
        boot: boot(),
    }
}

/// `None` where /proc is not to be read: then the wall clock has to do.
fn boot() -> Option<Boot> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let up = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
    Some(Boot {
        id: id.trim().into(),
        up,
    })
}
