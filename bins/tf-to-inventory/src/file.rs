//! Stdin, and the output: reading it, replacing it in one step.

use std::io::{self, Read, Write};
use std::path::Path;

/// Reads stdin to its end.
pub(crate) fn read_stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What stands in the file now; `None` when there is none.
pub(crate) fn current(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the file in one step, so that a reader sees the old content or the new one. Mode 0600.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    if path.metadata().is_ok_and(|meta| !meta.is_file()) {
        return Err(io::Error::other("it exists and is not a regular file"));
    }
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Temporary files are made with mode 0600, and removed when this returns early.
    let mut file = tempfile::Builder::new().prefix(".inventory-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
