//! For the VM lab only (feature `power-cuts`): stand still at every boundary until the lab has seen it.
//!
//! `UPDATE_CUT_SIGNAL` names a device on which each boundary is announced; the program goes on when a line
//! is answered there. While it waits the lab keeps what a power cut would leave of the disk.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::sync::{Mutex, OnceLock};

use crate::transaction::driver::{Boundary, Moment};

/// The device and the number of the next boundary; absent when nobody wants to know.
static LAB: OnceLock<Option<Mutex<(BufReader<File>, usize)>>> = OnceLock::new();

pub(super) fn reached(boundary: &Boundary<'_>) {
    let lab = LAB.get_or_init(|| {
        let device = env::var_os("UPDATE_CUT_SIGNAL")?;
        let device = OpenOptions::new().read(true).write(true).open(device).ok()?;
        Some(Mutex::new((BufReader::new(device), 0)))
    });
    let Some(mut lab) = lab.as_ref().and_then(|lab| lab.lock().ok()) else { return };
    let side = match boundary.moment {
        Moment::BeforeRecord => "before",
        Moment::AfterRecord => "after",
    };
    let event = serde_json::to_string(boundary.event).unwrap_or_default();
    let (device, number) = &mut *lab;
    let announced = writeln!(device.get_mut(), "cut {number} {side} {event}");
    *number += 1;
    if announced.is_ok() {
        // Whatever the answer says, it means: go on.
        let _ = device.read_line(&mut String::new());
    }
}
