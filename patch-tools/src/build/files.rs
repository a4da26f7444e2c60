//! Replacing a file of the cache whole.

use std::io::{self, Write};
use std::path::Path;

use system::durable::Unnamed;

/// Writes a file that everybody may read, so that a reader finds the old or the new content, never a part.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = Unnamed::with_mode(path, 0o644)?;
    file.write_all(content)?;
    file.replace()
}
