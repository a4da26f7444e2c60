//! For the VM lab only (feature `power-cuts`): stand still at a chosen boundary until the power is cut.
//!
//! `UPDATE_CUT_SIGNAL` names a device on which each boundary is announced; at boundary number
//! `UPDATE_CUT_AT` (counted from 0) the program announces it and never goes on.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::transaction::driver::{Boundary, Moment};

static REACHED: AtomicUsize = AtomicUsize::new(0);

pub(super) fn reached(boundary: &Boundary<'_>) {
    let number = REACHED.fetch_add(1, Ordering::SeqCst);
    let wanted = std::env::var("UPDATE_CUT_AT").ok().and_then(|text| text.parse::<usize>().ok());
    let Some(device) = std::env::var_os("UPDATE_CUT_SIGNAL").filter(|_| wanted == Some(number)) else {
        return;
    };
    let side = match boundary.moment {
        Moment::BeforeRecord => "before",
        Moment::AfterRecord => "after",
    };
    let event = serde_json::to_string(boundary.event).unwrap_or_default();
    let announced = OpenOptions::new()
        .write(true)
        .open(device)
        .and_then(|mut device| writeln!(device, "cut {number} {side} {event}").and_then(|()| device.flush()));
    if announced.is_ok() {
        loop {
            std::thread::park();
        }
    }
}
