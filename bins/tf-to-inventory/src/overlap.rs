//! Whether a run would write over what it reads, or over its own output. A state that is gone is worse than no inventory.

use crate::Args;
use crate::error::Error;
use crate::fetch;
use crate::folder::Place;
use crate::source::Source;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Compares `--output` and `--report` with the sources and with each other. To be asked before anything can write the
/// report, which an error would do, too.
///
/// # Errors
/// [`Error::Usage`] names the flag and the file.
pub fn check(args: &Args) -> Result<(), Error> {
    let written = [("--output", args.output.as_ref()), ("--report", args.common.report.as_ref())];
    for (flag, path) in written.iter().filter_map(|(flag, path)| Some((flag, (*path)?))) {
        for source in &args.sources {
            if files(source, args).iter().any(|file| is_same(file, path)) {
                return Err(Error::Usage(format!(
                    "`{flag} {}` would overwrite the source `{source}`",
                    path.display()
                )));
            }
        }
    }
    if let [(_, Some(output)), (_, Some(report))] = written
        && is_same(output, report)
    {
        return Err(Error::Usage(format!(
            "`--output` and `--report` are the same file `{}`",
            output.display()
        )));
    }
    Ok(())
}

/// The files that a source is read from. What else is wrong with the source is said when it is read.
fn files(source: &str, args: &Args) -> Vec<PathBuf> {
    match Source::of(source, None, &args.workspace_key_prefix) {
        Ok(Source::File(path)) => vec![path],
        Ok(Source::Folder(folder)) => {
            let mut files = vec![folder.join("terraform.tfstate")];
            if let Ok(Place::File(path)) = fetch::place(&folder, args) {
                files.push(path);
            }
            files
        }
        Ok(Source::Stdin | Source::Object(_)) | Err(_) => Vec::new(),
    }
}

/// Whether both paths lead to one file, by whatever spelling or link. Devices and pipes hold nothing that could be lost.
fn is_same(a: &Path, b: &Path) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), Err(_)) => future(a) == future(b),
        _ => false,
    }
}

/// Where a file that does not exist yet would be made: its nearest folder that exists, links resolved, and the rest.
fn future(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest: Vec<OsString> = Vec::new();
    let mut known = path.as_path();
    loop {
        if let Ok(found) = known.canonicalize() {
            return found.join(rest.iter().rev().collect::<PathBuf>());
        }
        let (Some(parent), Some(name)) = (known.parent(), known.file_name()) else {
            return path.clone();
        };
        rest.push(name.to_owned());
        known = parent;
    }
}
