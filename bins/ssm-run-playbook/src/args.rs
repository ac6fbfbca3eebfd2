//! The command line.

use crate::waves::{Amount, Batches};
use deploy_cli::CommonArgs;
use std::path::PathBuf;
use std::time::Duration;

const HOSTS_ASKED: &str =
    "`--print-bundle --format json` lists under `hosts` those that a play matches";
const NO_LOGIN: &str = "Ansible runs as root on the host itself, without a login; leave it out";
const BECOME: &str =
    "Ansible runs as root on the host itself; `become_user` in a play or task names another user";
const ONE_HOST: &str = "every host runs its own Ansible at once; `--batch` makes waves";
const VAULT: &str =
    "nobody is asked on the host; `--vault-password secretsmanager:NAME` or `ssm:/NAME` names it";
const LOCALLY: &str = "that needs no host: use `ansible-playbook` itself on this machine";

/// Flags of `ansible-playbook` that mean nothing here, with what to use instead.
pub const OF_ANSIBLE: [(&str, &str); 27] = [
    ("-f", ONE_HOST),
    ("--forks", ONE_HOST),
    ("-u", NO_LOGIN),
    ("--user", NO_LOGIN),
    ("-k", NO_LOGIN),
    ("--ask-pass", NO_LOGIN),
    ("--private-key", NO_LOGIN),
    ("--key-file", NO_LOGIN),
    ("-c", NO_LOGIN),
    ("--connection", NO_LOGIN),
    ("-b", BECOME),
    ("--become", BECOME),
    ("--become-user", BECOME),
    ("--become-method", BECOME),
    ("-K", BECOME),
    ("--ask-become-pass", BECOME),
    ("--list-hosts", HOSTS_ASKED),
    ("--list-tasks", LOCALLY),
    ("--list-tags", LOCALLY),
    ("--syntax-check", "`--print-bundle` checks all that a run checks before it sends anything"),
    (
        "--step",
        "nobody is asked on the host; `--start-at-task`, `--tags` and `--check` narrow a run",
    ),
    (
        "--verbose",
        "`--verbose` is this tool's own and counts once; Ansible's `-vv` is `--ansible-verbosity 2`",
    ),
    ("-J", VAULT),
    ("--ask-vault-pass", VAULT),
    ("--ask-vault-password", VAULT),
    ("--vault-password-file", VAULT),
    ("--vault-pass-file", VAULT),
];

/// Run an Ansible playbook on hosts through AWS Systems Manager and show its recap per host.
///
/// The playbook and what it needs travel to each host, Ansible runs there with a local connection, and a structured
/// recap comes back. No SSH, no bucket, no session.
#[derive(Debug, clap::Parser)]
#[command(name = "ssm-run-playbook", version, about)]
pub struct Args {
    /// The playbook: a path as typed, or a path below the Ansible folder or its `playbooks/`.
    #[arg(value_name = "PLAYBOOK")]
    pub playbook: PathBuf,

    /// Inventory written by `tf-to-inventory`.
    #[arg(long, short, value_name = "FILE")]
    pub inventory: PathBuf,

    /// Only the hosts that this Ansible pattern names, e.g. `sip:!sip-2`.
    #[arg(long, short, value_name = "PATTERN")]
    pub limit: Option<String>,

    /// The folder that travels: playbooks, roles, group_vars, ansible.cfg.
    #[arg(long, value_name = "DIR", default_value = "ansible")]
    pub ansible_dir: PathBuf,

    /// An extra variable `K=V`, a JSON object, or `@FILE` in YAML or JSON. Repeatable; never part of a command line. A
    /// value `secretsmanager:NAME-OR-ARN[#json-key]` or `ssm:/NAME` is resolved on the host.
    #[arg(long, short = 'e', value_name = "K=V|@FILE")]
    pub extra_vars: Vec<String>,

    /// Reference of the Ansible Vault password, `secretsmanager:NAME` or `ssm:/NAME`, resolved on the host.
    #[arg(long, value_name = "REF")]
    pub vault_password: Option<String>,

    /// Reference of the password of one vault ID. Repeatable.
    #[arg(long, value_name = "LABEL@REF")]
    pub vault_id: Vec<String>,

    /// Only tasks with one of these tags, comma-separated.
    #[arg(long, short, value_name = "TAGS")]
    pub tags: Vec<String>,

    /// No task with one of these tags, comma-separated.
    #[arg(long, value_name = "TAGS")]
    pub skip_tags: Vec<String>,

    /// Change nothing, predict what would change.
    #[arg(long, short = 'C')]
    pub check: bool,

    /// Show what changed in files; Ansible's log is printed.
    #[arg(long, short = 'D')]
    pub diff: bool,

    /// Start at the task with this name; what stands before it is left out.
    #[arg(long, value_name = "NAME")]
    pub start_at_task: Option<String>,

    /// Ansible's own `-v`, so many times; the log is printed.
    #[arg(long, value_name = "0-4", value_parser = clap::value_parser!(u8).range(0..=4), default_value_t = 0)]
    pub ansible_verbosity: u8,

    /// List what would travel, how large it is and why, and send nothing. No call to AWS.
    #[arg(long)]
    pub print_bundle: bool,

    /// Send the bundle through this S3 bucket, for as long as the run takes. Needed above 512 KiB.
    #[arg(long, value_name = "NAME")]
    pub bucket: Option<String>,

    /// Hosts in waves: numbers and percentages of the hosts that a play matches, e.g. `1,25%,100%`; the last repeats.
    #[arg(long, value_name = "SIZES")]
    pub batch: Option<Batches>,

    /// Leave the other hosts alone when more hosts of a batch than this are not good, e.g. `1` or `10%` [default: 0].
    /// Without `--batch` all hosts begin at once, and none is left to be spared.
    #[arg(long, value_name = "N|N%")]
    pub max_errors: Option<Amount>,

    /// Run this with `sh` on the runner between batches, with HOSTS_DONE and HOSTS_NEXT (comma-separated); a status
    /// other than 0 leaves the rest alone.
    #[arg(long, value_name = "CMD", requires = "batch")]
    pub between_batches: Option<String>,

    /// Give up after this long, e.g. `90s` or `30m`, counted for everything. Ansible then has up to 10 s to end
    /// its running task.
    #[arg(long, value_name = "DURATION", value_parser = deploy_cli::parse_duration, default_value = "30m")]
    pub timeout: Duration,

    /// How long to wait for another run on the same host to end; 0 refuses at once.
    #[arg(long, value_name = "DURATION", value_parser = deploy_cli::parse_duration, default_value = "20s")]
    pub lock_wait: Duration,

    /// Install python3 and ansible-core with apt on hosts that lack them.
    #[arg(long)]
    pub install_ansible: bool,

    /// Let `ansible.builtin.reboot` reboot the host, at most 3 times; the playbook then runs again from its start.
    #[arg(long)]
    pub allow_reboot: bool,

    /// Run what asks for the machine that runs Ansible (`delegate_to: localhost`, `local_action`, `connection: local`) on
    /// each host instead of refusing it, and list each such task with file and line.
    #[arg(long)]
    pub run_local_tasks_on_hosts: bool,

    /// Also write the hosts as JUnit XML to this file.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Follow hosts through this CloudWatch Logs group, which their role may write to: their tasks appear within 3 s.
    #[arg(long, value_name = "NAME")]
    pub log_group: Option<String>,

    /// Write Ansible's own log and the events of every host into this folder.
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,

    /// Where the tool keeps its files on a host.
    #[arg(long, value_name = "DIR", hide = true, default_value = "/var/lib/ssm-run-playbook")]
    pub host_folder: String,

    /// Flags every tool has.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl Args {
    /// The flags that leave out tasks.
    pub(crate) fn narrowed(&self) -> Option<String> {
        let mut flags = Vec::new();
        for (name, values) in [("--tags", &self.tags), ("--skip-tags", &self.skip_tags)] {
            if !values.is_empty() {
                flags.push(format!("`{name} {}`", values.join(",")));
            }
        }
        flags.extend(self.start_at_task.iter().map(|name| format!("`--start-at-task {name}`")));
        (!flags.is_empty()).then(|| flags.join(" "))
    }

    /// What is handed to `ansible-playbook` as it is: nothing secret, since it is visible in the host's process list.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        for (name, values) in [("--tags", &self.tags), ("--skip-tags", &self.skip_tags)] {
            if !values.is_empty() {
                flags.extend([name.to_owned(), values.join(",")]);
            }
        }
        flags.extend(self.check.then(|| "--check".to_owned()));
        flags.extend(self.diff.then(|| "--diff".to_owned()));
        if let Some(task) = &self.start_at_task {
            // One word, so that a task's name that begins with a dash is no flag.
            flags.push(format!("--start-at-task={task}"));
        }
        if self.ansible_verbosity > 0 {
            flags.push(format!("-{}", "v".repeat(self.ansible_verbosity.into())));
        }
        flags
    }
}
