//! An error with its causes: the only place that walks the chain.

use std::error::Error;
use std::iter::successors;

/// What lies below an error, outermost first.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(error.source(), |cause: &&'a (dyn Error + 'static)| (*cause).source())
}

/// The error and its causes on one line, for records that keep text only.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    causes(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn every_cause_is_told_once_and_in_order() {
        let error = Outer(io::Error::other(fmt::Error));
        assert_eq!(with_causes(&error), format!("outer: {}", fmt::Error));
        assert_eq!(with_causes(&fmt::Error), fmt::Error.to_string());
    }
}
