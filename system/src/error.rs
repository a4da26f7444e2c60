//! An error on one line, for records that keep text only.

use std::error::Error;
use std::iter::successors;

/// The error and its causes, outermost first.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
