//! The command line.

use crate::guess::OnDuplicate;
use deploy_cli::CommonArgs;
use std::path::PathBuf;

/// Turn Terraform's outputs into an Ansible inventory.
///
/// Reads the output `inventory` from `terraform output -json`, `terraform show -json` or a state file (version 4), told
/// apart by their shape. A state without that output is guessed from its EC2 instances. Needs neither Terraform nor a
/// network. Without `--output` the inventory goes to stdout.
#[derive(Debug, clap::Parser)]
#[command(version, about)]
pub struct Args {
    /// File to read, `-` for stdin. Also from TF_TO_INVENTORY_SOURCE, for use as an executable inventory.
    #[arg(value_name = "FILE", env = "TF_TO_INVENTORY_SOURCE", hide_env = true)]
    pub source: String,

    /// Write the inventory to this file, whole or not at all, readable by its owner only.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// How the inventory is written. Ansible reads JSON several times faster than YAML.
    #[arg(long, value_enum, default_value_t)]
    pub output_format: OutputFormat,

    /// Write nothing; say whether the file that `--output` names is up to date, and exit with 1 when it is not.
    #[arg(long, requires = "output")]
    pub check: bool,

    /// Answer Ansible's inventory script protocol: all groups and hosts.
    #[arg(long, conflicts_with_all = ["host", "output", "check"])]
    pub list: bool,

    /// Answer Ansible's inventory script protocol: the variables of one host, `{}` for an unknown one.
    #[arg(long, value_name = "HOST", conflicts_with_all = ["output", "check"])]
    pub host: Option<String>,

    /// Only the hosts that this Ansible pattern names, e.g. `sip:!sip-2`.
    #[arg(long, value_name = "PATTERN")]
    pub limit: Option<String>,

    /// Exit with 3 unless this group has a host. May be given several times.
    #[arg(long = "require-group", value_name = "GROUP")]
    pub require_groups: Vec<String>,

    /// What to do with instances of a guessed inventory that would have the same name.
    #[arg(long, value_enum, default_value_t)]
    pub on_duplicate: OnDuplicate,

    /// Print as JSON what became of each instance and why, instead of the inventory.
    #[arg(long, conflicts_with_all = ["list", "host", "output", "check"])]
    pub explain: bool,

    /// Accept an inventory without hosts instead of exiting with 3.
    #[arg(long)]
    pub allow_empty: bool,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What `--output-format` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// Ansible's inventory file as JSON.
    #[default]
    Json,
    /// The same as YAML.
    Yaml,
}
