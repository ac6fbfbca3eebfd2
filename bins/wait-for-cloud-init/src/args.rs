//! The command line.

use deploy_cli::{CommonArgs, parse_duration};
use std::path::PathBuf;
use std::time::Duration;

/// Wait until cloud-init has finished on every host of an inventory.
///
/// Per host: EC2 says running and its status checks are ok, the Systems Manager agent is online, cloud-init wrote its
/// result. Ends early when a host can never get there, and says for each host how far it came and why no further.
#[derive(Debug, clap::Parser)]
#[command(version, about)]
pub struct Args {
    /// Inventory written by `tf-to-inventory`.
    #[arg(long, value_name = "FILE")]
    pub inventory: PathBuf,

    /// Only these hosts, as Ansible's `--limit`.
    #[arg(long, value_name = "PATTERN")]
    pub limit: Option<String>,

    /// Give up after this long, e.g. `90s` or `10m`. Counted for all hosts and stages together.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = positive_duration, default_value = "10m")]
    pub timeout: Duration,

    /// What a host means on which cloud-init finished with warnings that it calls recoverable errors.
    #[arg(long, value_enum, default_value_t = Policy::Warn)]
    pub degraded: Policy,

    /// What a host means that is degraded by notices of deprecation and nothing else; by default as `--degraded`.
    #[arg(long, value_enum)]
    pub deprecated: Option<Policy>,

    /// What a host means on which cloud-init is switched off, so that its user data never ran.
    #[arg(long, value_enum, default_value_t = Policy::Fail)]
    pub disabled: Policy,

    /// What a host means that has no cloud-init.
    #[arg(long, value_enum, default_value_t = Policy::Fail)]
    pub absent: Policy,

    /// Whether EC2's status checks must be ok too. They take minutes on AWS; a host often works before.
    #[arg(long, value_enum, default_value_t = StatusChecks::Wait)]
    pub status_checks: StatusChecks,

    /// An instance that EC2 still does not know after this long, or at the deadline, is a mistake in the inventory.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse_duration, default_value = "10s")]
    pub unknown_grace: Duration,

    /// Once a host has failed, go on for the others this long, so that one run shows more than one fault.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = parse_duration, default_value = "30s")]
    pub linger: Duration,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What a state other than ready and failed counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// As good as ready.
    Accept,
    /// Ready, with a warning.
    Warn,
    /// Failed.
    Fail,
}

/// What `--status-checks` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StatusChecks {
    /// A host is ready only when they are ok.
    Wait,
    /// They are not looked at.
    Skip,
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("expected more than 0 s".to_owned()),
        duration => Ok(duration),
    }
}
