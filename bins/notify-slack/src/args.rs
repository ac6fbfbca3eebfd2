//! The command line. Secrets are no flags: the token and the webhook come from the environment only.

use crate::rollup::Outcome;
use deploy_cli::{CommonArgs, Format};
use std::path::PathBuf;
use std::time::Duration;

/// Tell people in Slack how a deployment ended.
///
/// Reads the reports of the steps, rolls them up and posts one message: with a bot token from NOTIFY_SLACK_TOKEN to
/// `--channel`, or through the incoming webhook in NOTIFY_SLACK_WEBHOOK. Without either it prints what it would send.
#[derive(Debug, clap::Parser)]
#[command(version, about)]
pub struct Args {
    /// Report of a step, or a folder of reports; may be given several times.
    #[arg(long = "report", value_name = "FILE", num_args = 1..)]
    pub reports: Vec<PathBuf>,

    /// Results of the jobs as GitHub's `toJSON(needs)`; tells about jobs that ended before they wrote a report.
    #[arg(long, value_name = "JSON")]
    pub needs: Option<String>,

    /// The outcome to announce; `auto` rolls up the reports and jobs.
    #[arg(long, value_enum, default_value_t)]
    pub status: Status,

    /// Channel ID (or name) for the bot token, e.g. `C0123456789`.
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,

    /// Update this message, by the `ts` that an earlier run put out, instead of posting a new one.
    #[arg(long, value_name = "TS")]
    pub ts: Option<String>,

    /// Print the exact payload and send nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// What a message that could not be delivered means.
    #[arg(long, value_enum, default_value_t)]
    pub on_error: OnError,

    /// Give up after this long, retries included; at most 20 s.
    #[arg(long, value_name = "DURATION", value_parser = timeout, default_value = "20s")]
    pub timeout: Duration,

    /// Base of Slack's Web API, e.g. `https://slack-gov.com/api`.
    #[arg(long, value_name = "URL", default_value = "https://slack.com/api")]
    pub api_url: String,

    /// Also write this tool's own report to this file.
    #[arg(long, value_name = "FILE", help_heading = "Common options")]
    pub write_report: Option<PathBuf>,

    /// What to print on stdout: text for people, or the report as one JSON document.
    #[arg(long, value_enum, default_value_t, help_heading = "Common options")]
    pub format: Format,

    /// No progress on stderr; errors and warnings remain.
    #[arg(long, short, conflicts_with = "verbose", help_heading = "Common options")]
    pub quiet: bool,

    /// More detail on stderr.
    #[arg(long, short, help_heading = "Common options")]
    pub verbose: bool,

    /// Project named in the message; by default from the reports.
    #[arg(long, value_name = "NAME", help_heading = "Common options")]
    pub project: Option<String>,

    /// Environment named in the message; by default from the reports.
    #[arg(long, value_name = "NAME", help_heading = "Common options")]
    pub environment: Option<String>,
}

/// What `--status` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Status {
    /// Roll up the reports and jobs.
    #[default]
    Auto,
    /// The deployment succeeded.
    Success,
    /// It failed.
    #[value(alias = "failure")]
    Failed,
    /// It ran out of time.
    TimedOut,
    /// Somebody stopped it.
    #[value(alias = "cancelled")]
    Stopped,
}

/// What `--on-error` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// Warn, put the undelivered text into the step summary and exit with 0: a chat that is down breaks no deployment.
    #[default]
    Warn,
    /// Exit with the status of the error.
    Fail,
}

impl Args {
    /// The common flags. Not flattened, because `--report` of this tool is what it reads.
    pub fn common(&self) -> CommonArgs {
        CommonArgs {
            format: self.format,
            report: self.write_report.clone(),
            quiet: self.quiet,
            verbose: self.verbose,
            region: None,
            project: filled(self.project.as_deref()).map(str::to_owned),
            environment: filled(self.environment.as_deref()).map(str::to_owned),
        }
    }

    pub(crate) fn announced(&self) -> Option<Outcome> {
        match self.status {
            Status::Auto => None,
            Status::Success => Some(Outcome::Success),
            Status::Failed => Some(Outcome::Failed),
            Status::TimedOut => Some(Outcome::TimedOut),
            Status::Stopped => Some(Outcome::Stopped),
        }
    }
}

/// A workflow passes unset variables as empty strings; they mean the same as nothing.
pub(crate) fn filled(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = deploy_cli::parse_duration(text)?;
    // A job that was cancelled has little time left, and a deployment must not wait for a chat.
    if timeout.is_zero() || timeout > Duration::from_secs(20) {
        return Err("expected more than 0 s and at most 20 s".to_owned());
    }
    Ok(timeout)
}
