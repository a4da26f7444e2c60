//! For the VM lab only (feature `power-cuts`): stand still at every boundary until the lab has seen it.
//!
//! `UPDATE_CUT_SIGNAL` names a device on which each boundary is announced; the program goes on when a line
//! is answered there. While it waits the lab keeps what a power cut would leave of the disk.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::sync::{Mutex, OnceLock};

use crate::transaction::driver::{Boundary, Moment};

/// Who is told of boundaries.
struct Lab {
    device: BufReader<File>,
    /// The number of the next boundary.
    next: usize,
}

/// Absent when nobody wants to know.
static LAB: OnceLock<Option<Mutex<Lab>>> = OnceLock::new();

pub(crate) fn reached(boundary: &Boundary<'_>) {
    let lab = LAB.get_or_init(|| {
        let device = env::var_os("UPDATE_CUT_SIGNAL")?;
        let device = OpenOptions::new().read(true).write(true).open(device).ok()?;
        Some(Mutex::new(Lab { device: BufReader::new(device), next: 0 }))
    });
    let Some(mut lab) = lab.as_ref().and_then(|lab| lab.lock().ok()) else { return };
    let side = match boundary.moment {
        Moment::BeforeRecord => "before",
        Moment::AfterRecord => "after",
    };
    let event = serde_json::to_string(boundary.event).unwrap_or_default();
    let Lab { device, next } = &mut *lab;
    let announced = writeln!(device.get_mut(), "cut {next} {side} {event}");
    *next += 1;
    if announced.is_ok() {
        // Whatever the answer says, it means: go on.
        let _ = device.read_line(&mut String::new());
    }
}
