//! The emulator for ordinary calls: moto, in a virtual environment of its own under the cache folder.

use std::path::{Path, PathBuf};

use deploy_cli::Progress;

use crate::error::Error;
use crate::place::make_folder;
use crate::process::{self, last_lines};

/// The version that everything here was tried with.
pub const MOTO_VERSION: &str = "5.2.5";

/// The environment's interpreter; makes the environment when it is missing.
pub async fn ensure(folder: &Path, progress: &Progress) -> Result<PathBuf, Error> {
    let python = folder.join("bin/python");
    if folder.join("complete").exists() {
        return Ok(python);
    }
    progress.step(&format!("installing moto {MOTO_VERSION} into {}", folder.display()));
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(|source| Error::File {
            doing: "remove the unfinished",
            path: folder.to_owned(),
            source,
        })?;
    }
    make_folder(folder)?;
    let target = folder.to_string_lossy();
    process::run("python3", ["-m", "venv", &target], None).await?;
    let package = format!("moto[server]=={MOTO_VERSION}");
    let pip = python.to_string_lossy().into_owned();
    let output =
        process::capture(&pip, ["-m", "pip", "install", "--quiet", package.as_str()], None).await?;
    if !output.status.success() {
        let output = last_lines(&output.stderr, 3);
        return Err(Error::Program { program: format!("pip install {package}"), output });
    }
    let marker = folder.join("complete");
    std::fs::write(&marker, MOTO_VERSION).map_err(|source| Error::File {
        doing: "write",
        path: marker,
        source,
    })?;
    Ok(python)
}
