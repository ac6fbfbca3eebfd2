//! Files that are written at the end.

use super::place;
use crate::drive::HostEnd;
use crate::error::Error;
use crate::recap::FailedTask;
use deploy_report::{Fault, Subject};
use std::path::Path;

/// Writes the hosts as JUnit XML.
pub(crate) fn write_junit(path: &Path, report: &deploy_report::Report) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, deploy_report::junit_with(report, fault)).map_err(failed)
}

/// The first failed task gives place, kind and message; the text has all of them.
fn fault(subject: &Subject) -> Option<Fault> {
    let failed: Vec<FailedTask> =
        serde_json::from_value(subject.data["failed_tasks"].clone()).unwrap_or_default();
    let first = failed.first()?;
    let texts: Vec<String> = failed
        .iter()
        .map(|task| {
            let module = task.module.as_deref().unwrap_or("-");
            format!("{}: {} ({module})\n{}", place(task), task.task, task.message)
        })
        .collect();
    let said = first.message.lines().next().unwrap_or_default();
    Some(Fault {
        file: first.file.clone(),
        line: first.line,
        kind: first.module.clone(),
        message: format!("{}: {said}", first.task),
        text: format!("{}\n\n{}", subject.detail, texts.join("\n\n")),
    })
}

/// Writes `<host>.log` and `<host>.events.jsonl` for every host that answered.
pub(crate) fn write_logs(folder: &Path, hosts: &[HostEnd]) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    for host in hosts {
        let name = file_name(&host.name);
        for (ending, text) in [("log", &host.log), ("events.jsonl", &host.events)] {
            let Some(text) = text else { continue };
            let path = folder.join(format!("{name}.{ending}"));
            std::fs::write(&path, text).map_err(failed(&path))?;
        }
    }
    Ok(())
}

/// A file name of its own for every host name: all but letters, digits and `._-` becomes `%` and hexadecimal digits.
fn file_name(host: &str) -> String {
    let mut name = String::new();
    for c in host.chars() {
        if c.is_alphanumeric() || "._-".contains(c) {
            name.push(c);
        } else {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            bytes.for_each(|byte| name.push_str(&format!("%{byte:02X}")));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn hosts_with_similar_names_have_files_of_their_own() {
        let names = ["sip-1", "a_b", "a/b", "a%2Fb", "é b"].map(file_name);
        assert_eq!(names, ["sip-1", "a_b", "a%2Fb", "a%252Fb", "é%20b"]);
    }
}
