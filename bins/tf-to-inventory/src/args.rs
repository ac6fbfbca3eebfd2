//! The command line.

use crate::guess::OnDuplicate;
use crate::merge::{GroupBy, OnConflict};
use deploy_cli::CommonArgs;
use std::path::PathBuf;

/// Turn Terraform's outputs or state into an Ansible inventory.
///
/// Reads the output `inventory` from `terraform output -json`, `terraform show -json` or a state (version 4), told
/// apart by their shape. A state without that output is guessed from its EC2 instances. Without `--output` the inventory
/// goes to stdout.
#[derive(Debug, clap::Parser)]
#[command(version, about)]
pub struct Args {
    /// What to read: a file, `-` for stdin, a folder that Terraform runs in, or s3://BUCKET/KEY; several are merged.
    ///
    /// Also from TF_TO_INVENTORY_SOURCE, one a line, for use as an executable inventory.
    #[arg(value_name = "SOURCE", env = "TF_TO_INVENTORY_SOURCE", hide_env = true, required = true)]
    #[arg(value_delimiter = '\n')]
    pub sources: Vec<String>,

    /// Workspace of folders and of s3:// addresses; a folder's own selection without it.
    #[arg(long, value_name = "NAME")]
    pub workspace: Option<String>,

    /// What keys of workspaces in S3 start with, as in the backend's settings.
    #[arg(long, value_name = "PREFIX", default_value = "env:")]
    pub workspace_key_prefix: String,

    /// Program to ask about a folder whose backend is not read here; by default terraform, else tofu.
    #[arg(long, value_name = "PROGRAM")]
    pub terraform: Option<String>,

    /// What decides when two sources say different things.
    #[arg(long, value_enum, default_value_t)]
    pub on_conflict: OnConflict,

    /// Group hosts by this, too: env_NAME, region_NAME, role_NAME. May be given several times, or separated by commas.
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    pub group_by: Vec<GroupBy>,

    /// What to do with Auto Scaling groups: ask AWS which hosts they have now, or leave them out.
    #[arg(long, value_enum, default_value_t)]
    pub scaling_groups: ScalingGroups,

    /// Make this output a variable: of all hosts, or of a group with GROUP.NAME. May be given several times.
    #[arg(long, value_name = "[GROUP.]NAME", value_delimiter = ',')]
    pub var_from_output: Vec<String>,

    /// Read this output although it is marked as sensitive; in GitHub Actions its values are masked first.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub include_sensitive: Vec<String>,

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

    /// What to do with instances of guessed inventories that would have the same name, in one source or in several.
    #[arg(long, value_enum, default_value_t)]
    pub on_duplicate: OnDuplicate,

    /// Guess hosts from a state's EC2 instances although it has an output `inventory`, e.g. one of another shape.
    #[arg(long)]
    pub guess: bool,

    /// Print what became of each instance and why, as JSON, instead of the inventory.
    #[arg(long, conflicts_with_all = ["list", "host", "output", "check"])]
    pub explain: bool,

    /// Accept an inventory without hosts instead of exiting with 3.
    #[arg(long)]
    pub allow_empty: bool,

    /// Accept a host of the output without an instance ID: no tool that goes through Systems Manager reaches it.
    #[arg(long)]
    pub allow_no_instance_id: bool,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What `--scaling-groups` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ScalingGroups {
    /// Ask Auto Scaling and EC2.
    #[default]
    Resolve,
    /// Leave them out; the report says so.
    Skip,
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
