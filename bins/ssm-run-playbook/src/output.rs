//! Files that are written at the end: whether they can be is known before anything is sent, and what a run needs is not
//! written over.

use crate::args::Args;
use crate::error::Error;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

/// Tries `--report`, `--junit` and `--log-dir`; makes the folders that they need.
pub(crate) fn check(args: &Args) -> Result<(), Error> {
    let files = [("--report", &args.common.report), ("--junit", &args.junit)];
    let real = |path: &Path| fs::canonicalize(path).ok();
    let vars = args.extra_vars.iter().filter_map(|text| text.strip_prefix('@')).map(Path::new);
    let read: Vec<PathBuf> =
        vars.chain([args.inventory.as_path(), &args.playbook]).filter_map(real).collect();
    for (flag, path) in files {
        let Some(path) = path else { continue };
        let refused = |reason: String| Error::Output { flag, path: path.clone(), reason };
        if real(path).is_some_and(|path| read.contains(&path)) {
            return Err(refused("is what this run reads".to_owned()));
        }
        if path.is_dir() {
            return Err(refused("is a folder".to_owned()));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| {
                if path.exists() {
                    OpenOptions::new().append(true).open(path).map(drop)
                } else {
                    Ok(())
                }
            })
            .and_then(|()| {
                // One of an earlier run would speak for this one when it ends before it writes its own.
                let is_file = fs::symlink_metadata(path).is_ok_and(|data| data.is_file());
                let is_stale = is_file && flag == "--junit" && !args.print_bundle;
                if is_stale { fs::remove_file(path) } else { Ok(()) }
            })
            .map_err(|error| refused(format!("cannot be written: {error}")))?;
    }
    if let Some(path) = &args.log_dir {
        fs::create_dir_all(path).map_err(|error| Error::Output {
            flag: "--log-dir",
            path: path.clone(),
            reason: format!("cannot be made: {error}"),
        })?;
    }
    Ok(())
}
