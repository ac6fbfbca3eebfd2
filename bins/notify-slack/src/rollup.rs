//! What happened: the reports of the steps and the results of the jobs, rolled up into one outcome. Reads files, knows
//! nothing of Slack.

use crate::Error;
use deploy_report::{Report, SubjectOutcome};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a deployment ended; the later in this list, the more it weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nothing ran.
    Nothing,
    /// Everything that ran succeeded.
    Success,
    /// Somebody stopped it.
    Stopped,
    /// It ran out of time.
    TimedOut,
    /// It failed.
    Failed,
}

impl Outcome {
    /// The words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing deployed",
            Self::Success => "deployed",
            Self::Stopped => "deployment stopped",
            Self::TimedOut => "deployment timed out",
            Self::Failed => "deployment failed",
        }
    }

    /// A sign that goes with the words.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Nothing => "➖",
            Self::Success => "✅",
            Self::Stopped => "🛑",
            Self::TimedOut => "⏱️",
            Self::Failed => "❌",
        }
    }

    /// From the outcome of a report, see `docs/exit-codes.md`. A name that is not known is no success.
    fn of_report(name: &str) -> Self {
        match name {
            "success" => Self::Success,
            "timeout" => Self::TimedOut,
            "interrupted" | "terminated" => Self::Stopped,
            _ => Self::Failed,
        }
    }
}

/// One step of the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The report file's name without its ending.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// One line for people.
    pub title: String,
    /// How long it took.
    pub elapsed: Option<Duration>,
    /// What failed in it, one line each.
    pub failures: Vec<String>,
    /// Why the file is no report, when it is none.
    pub unreadable: Option<String>,
}

/// A job of the workflow that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name in the workflow.
    pub name: String,
    /// GitHub's word for how it ended.
    pub result: String,
}

/// Everything that is known about a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The project, as the first report names it.
    pub project: Option<String>,
    /// The environment, as the first report names it.
    pub environment: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Its steps in the order in which they started.
    pub steps: Vec<Step>,
    /// Jobs that failed or were cancelled.
    pub jobs: Vec<Job>,
    /// From the start of the first step to the end of the last.
    pub elapsed: Option<Duration>,
}

/// Reads reports (files and folders of them) and job results, and rolls them up.
///
/// A file that is no report becomes a failed step instead of an error: the step was killed while it wrote, and that is
/// what people must hear about.
///
/// # Errors
/// When a path does not exist or cannot be read, or `needs` is no `toJSON(needs)`.
pub fn read(paths: &[PathBuf], needs: Option<&str>) -> Result<Deployment, Error> {
    let mut read: Vec<(Step, Option<Report>)> = Vec::new();
    for file in files(paths)? {
        let text = std::fs::read(&file.path)
            .map_err(|source| Error::Read { path: file.path.clone(), source })?;
        let step = step(&file.path, &text);
        // A folder of reports also holds this tool's own, from an earlier run on it.
        let own = step.1.as_ref().is_some_and(|report| report.tool == env!("CARGO_PKG_NAME"));
        if !(own && file.in_folder) {
            read.push(step);
        }
    }
    // Steps without a report have no start; they end up last, where the eye looks for what broke.
    read.sort_by_key(|(_, report)| {
        (report.is_none(), report.as_ref().map(|report| report.started_at))
    });
    let jobs = needs.map(parse_needs).transpose()?.unwrap_or_default();
    let reports = || read.iter().filter_map(|(_, report)| report.as_ref());
    let first = reports().map(|report| report.started_at).min();
    let last = reports().map(|report| report.ended_at).max();
    Ok(Deployment {
        project: reports().find_map(|report| report.project.clone()),
        environment: reports().find_map(|report| report.environment.clone()),
        outcome: roll_up(read.iter().map(|(step, _)| step.outcome), &jobs),
        elapsed: first
            .zip(last)
            .and_then(|(first, last)| Duration::try_from(last.duration_since(first)).ok()),
        jobs: jobs
            .into_iter()
            .filter(|(_, result)| !matches!(result.as_str(), "success" | "skipped"))
            .map(|(name, result)| Job { name, result })
            .collect(),
        steps: read.into_iter().map(|(step, _)| step).collect(),
    })
}

/// Failed > timed out > stopped > success. A failed job says nothing new when a report tells how it failed.
fn roll_up(steps: impl Iterator<Item = Outcome>, jobs: &BTreeMap<String, String>) -> Outcome {
    let reported = steps.max().unwrap_or(Outcome::Nothing);
    let explained = reported > Outcome::Success;
    let job = jobs
        .values()
        .map(|result| match result.as_str() {
            "success" => Outcome::Success,
            "skipped" => Outcome::Nothing,
            "cancelled" => Outcome::Stopped,
            _ if explained => Outcome::Nothing,
            _ => Outcome::Failed,
        })
        .max();
    job.unwrap_or(Outcome::Nothing).max(reported)
}

struct File {
    path: PathBuf,
    in_folder: bool,
}

fn files(paths: &[PathBuf]) -> Result<Vec<File>, Error> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |source| Error::Read { path: path.clone(), source };
        if !std::fs::metadata(path).map_err(failed)?.is_dir() {
            files.push(File { path: path.clone(), in_folder: false });
            continue;
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                found.push(path);
            }
        }
        found.sort();
        files.extend(found.into_iter().map(|path| File { path, in_folder: true }));
    }
    Ok(files)
}

fn step(path: &Path, text: &[u8]) -> (Step, Option<Report>) {
    let name = path
        .file_stem()
        .map_or_else(|| "step".to_owned(), |stem| stem.to_string_lossy().into_owned());
    match parse(text) {
        Ok(report) => {
            let failures = report
                .subjects
                .iter()
                .filter(|subject| subject.outcome == SubjectOutcome::Failed)
                .map(|subject| format!("{} {}: {}", subject.kind, subject.name, subject.detail))
                .collect();
            let step = Step {
                name,
                outcome: Outcome::of_report(&report.outcome),
                title: report.title.clone(),
                elapsed: Some(Duration::from_millis(report.elapsed_ms)),
                failures,
                unreadable: None,
            };
            (step, Some(report))
        }
        Err(why) => {
            let title = "left no readable report".to_owned();
            let (failures, unreadable) = (Vec::new(), Some(why));
            (
                Step { name, outcome: Outcome::Failed, title, elapsed: None, failures, unreadable },
                None,
            )
        }
    }
}

fn parse(text: &[u8]) -> Result<Report, String> {
    if text.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let report: Report = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match (report.schema.as_str(), report.version) {
        (deploy_report::SCHEMA, deploy_report::VERSION) => Ok(report),
        (deploy_report::SCHEMA, version) => {
            Err(format!("version {version} of the report is not known"))
        }
        _ => Err("it is another kind of document".to_owned()),
    }
}

fn parse_needs(text: &str) -> Result<BTreeMap<String, String>, Error> {
    #[derive(Deserialize)]
    struct Need {
        result: String,
    }
    let needs: BTreeMap<String, Need> = serde_json::from_str(text).map_err(Error::Needs)?;
    Ok(needs.into_iter().map(|(name, need)| (name, need.result)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(results: &[&str]) -> BTreeMap<String, String> {
        results
            .iter()
            .enumerate()
            .map(|(n, result)| (format!("job-{n}"), (*result).to_owned()))
            .collect()
    }

    #[test]
    fn every_combination_of_four_jobs_rolls_up_to_its_worst() {
        const RESULTS: [(&str, Outcome); 4] = [
            ("success", Outcome::Success),
            ("failure", Outcome::Failed),
            ("cancelled", Outcome::Stopped),
            ("skipped", Outcome::Nothing),
        ];
        for n in 0..256_usize {
            let picked = [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6].map(|index| RESULTS[index]);
            let worst = picked.iter().map(|(_, outcome)| *outcome).max().unwrap();
            let results = picked.map(|(result, _)| result);
            assert_eq!(roll_up(std::iter::empty(), &jobs(&results)), worst, "{results:?}");
        }
    }

    #[test]
    fn a_report_explains_how_a_job_failed() {
        let check = |steps: &[Outcome], results: &[&str], expected| {
            assert_eq!(
                roll_up(steps.iter().copied(), &jobs(results)),
                expected,
                "{steps:?} {results:?}"
            );
        };
        check(&[Outcome::Success, Outcome::TimedOut], &["success", "failure"], Outcome::TimedOut);
        check(&[Outcome::Success], &["success", "failure"], Outcome::Failed);
        check(&[Outcome::Success], &["cancelled"], Outcome::Stopped);
        check(&[Outcome::Failed, Outcome::Stopped], &[], Outcome::Failed);
        check(&[], &[], Outcome::Nothing);
    }

    #[test]
    fn what_is_no_report_is_said_not_swallowed() {
        let check = |text: &str, expected: &str| {
            let why = parse(text.as_bytes()).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        check("", "empty");
        check("{\"schema\":", "EOF");
        check("{}", "missing field");
    }
}
