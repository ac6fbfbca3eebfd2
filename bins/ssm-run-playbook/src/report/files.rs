//! Files that are written at the end.

use crate::drive::HostEnd;
use crate::error::Error;
use std::path::Path;

/// Writes the hosts as JUnit XML.
pub(crate) fn write_junit(path: &Path, report: &deploy_report::Report) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, deploy_report::junit(report)).map_err(failed)
}

/// Writes `<host>.log` and `<host>.events.jsonl` for every host that answered.
pub(crate) fn write_logs(folder: &Path, hosts: &[HostEnd]) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    for host in hosts {
        let name: String = host
            .name
            .chars()
            .map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' })
            .collect();
        for (ending, text) in [("log", &host.log), ("events.jsonl", &host.events)] {
            let Some(text) = text else { continue };
            let path = folder.join(format!("{name}.{ending}"));
            std::fs::write(&path, text).map_err(failed(&path))?;
        }
    }
    Ok(())
}
