//! The command line.

use crate::resource::Kind;
use deploy_cli::CommonArgs;
use std::path::PathBuf;
use std::time::Duration;

/// List, then on request delete, the EC2 resources of an environment that no Terraform state owns.
///
/// Looks only at resources that carry the tags project and environment with exactly the given values. Without
/// `--delete` it changes nothing.
#[derive(Debug, clap::Parser)]
#[command(version, about)]
pub struct Args {
    /// State as `terraform state pull` writes it; all states that may own resources of this environment.
    #[arg(long = "state", value_name = "FILE", required = true, num_args = 1..)]
    pub states: Vec<PathBuf>,

    /// Leave alone what is younger, e.g. because an apply is still running.
    #[arg(long, value_name = "DURATION", value_parser = deploy_cli::parse_duration, default_value = "2h")]
    pub older_than: Duration,

    /// Look only at these types, by EC2's names; all by default.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(Kind::names()))]
    pub types: Vec<String>,

    /// Exit with status 1 when orphans are found.
    #[arg(long)]
    pub check: bool,

    /// Delete the orphans that are listed as deletable.
    #[arg(long, requires = "max", requires = "account_id")]
    pub delete: bool,

    /// Delete nothing at all when more than this many would be deleted.
    #[arg(long, value_name = "N")]
    pub max: Option<usize>,

    /// The AWS account that this is about; it must be the account of the credentials.
    #[arg(long, value_name = "ID", value_parser = account_id)]
    pub account_id: Option<String>,

    /// With `--delete`, give up waiting for AWS after this long.
    #[arg(long, value_name = "DURATION", value_parser = deploy_cli::parse_duration, default_value = "10m")]
    pub timeout: Duration,

    /// With `--delete`, look this often whether something is gone.
    #[arg(long, value_name = "DURATION", value_parser = deploy_cli::parse_duration, default_value = "5s")]
    pub poll_interval: Duration,

    /// Flags every tool has. `--project` and `--environment` are mandatory here.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn account_id(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("an AWS account ID has 12 digits".to_owned())
    }
}
