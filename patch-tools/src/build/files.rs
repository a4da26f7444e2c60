//! The few file operations that several parts of a build need: replacing a file whole, running jobs on all
//! processors.

use std::io::{self, Write};
use std::path::Path;

/// Writes a file so that a reader finds the old or the new content, never a part.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(permissions(0o644)).tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn permissions(mode: u32) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}
