//! Why a run ended before any host could be judged.

use deploy_cli::{Exit, Failure, Place, human};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Something in the Ansible folder that cannot work, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, as a person finds it.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// What is wrong and what to do instead.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

fn listed(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n  {finding}")).collect()
}

/// Why a run ended before any host could be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder that was named cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The inventory, or `--limit`, cannot be used.
    #[error(transparent)]
    Inventory(#[from] deploy_cli::InventoryError),
    /// Hosts that cannot be addressed, all of them.
    #[error("hosts of `{}` cannot be addressed: {}", path.display(), hosts.join("; "))]
    Addresses {
        /// The inventory.
        path: PathBuf,
        /// Each with what is wrong.
        hosts: Vec<String>,
    },
    /// One run talks to one region.
    #[error("the selected hosts are in more than one region: {}", regions.join("; "))]
    Regions {
        /// Each with its hosts.
        regions: Vec<String>,
    },
    /// A file or folder to write that cannot be, found before anything is sent.
    #[error("`{flag} {}` {reason}", path.display())]
    Output {
        /// Which flag.
        flag: &'static str,
        /// What it names.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// `--environment` chooses variables, and the inventory's hosts are of another one.
    #[error("the inventory is of `{inventory}`, and `--environment` says `{flag}`")]
    Environment {
        /// The inventory's own.
        inventory: String,
        /// The flag's.
        flag: String,
    },
    /// There is no Ansible folder.
    #[error("there is no Ansible folder `{}`", path.display())]
    NoAnsibleDir {
        /// The folder.
        path: PathBuf,
    },
    /// The playbook is not there, or is a folder.
    #[error("{} `{}`", if *is_folder { "a playbook is a file, not the folder" } else { "there is no playbook" }, path.display())]
    NoPlaybook {
        /// The playbook as it was typed.
        path: PathBuf,
        /// Whether a folder has this name.
        is_folder: bool,
        /// The Ansible folder.
        folder: PathBuf,
        /// Playbooks that are there, the one that may have been meant in front.
        known: Vec<String>,
    },
    /// The playbook would not travel.
    #[error("the playbook `{}` is outside of `{}`", path.display(), folder.display())]
    Outside {
        /// The playbook.
        path: PathBuf,
        /// The Ansible folder.
        folder: PathBuf,
    },
    /// A file is not YAML, or a playbook is not a list of plays.
    #[error("{file}:{line}:{column}: {message}")]
    Syntax {
        /// The file, as a person finds it.
        file: String,
        /// Line, counted from 1.
        line: u32,
        /// Column, counted from 1.
        column: u32,
        /// What is wrong.
        message: String,
        /// The line itself.
        source_line: String,
    },
    /// What cannot work, all at once.
    #[error("{what}: {} place{}{}", findings.len(), if findings.len() == 1 { "" } else { "s" }, listed(findings))]
    Findings {
        /// What they are.
        what: &'static str,
        /// Each with its place.
        findings: Vec<Finding>,
    },
    /// No play would run on any selected host.
    #[error("no play of `{playbook}` matches any of {hosts} selected hosts{}", listed(plays))]
    NoPlay {
        /// The playbook.
        playbook: String,
        /// How many hosts are selected.
        hosts: usize,
        /// The plays and their `hosts`.
        plays: Vec<Finding>,
    },
    /// An extra variable cannot be used.
    #[error("bad `--extra-vars {argument}`: {reason}")]
    ExtraVars {
        /// The argument, without a value.
        argument: String,
        /// Why.
        reason: String,
    },
    /// A vault password that is no reference.
    #[error("bad `{flag}`: {reason}")]
    VaultPassword {
        /// Which flag.
        flag: &'static str,
        /// Why, without the value.
        reason: String,
    },
    /// A symbolic link that would point nowhere on the host.
    #[error("the symbolic link `{}` points to `{}`, outside of the Ansible folder", link.display(), target.display())]
    Link {
        /// The link.
        link: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// A file name that is not UTF-8, or not a file.
    #[error("`{}` cannot travel: {reason}", path.display())]
    Item {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Too much for a way without a bucket.
    #[error("the bundle takes {bytes} bytes compressed; at most {limit} can be sent this way")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
        /// The largest files.
        largest: String,
    },
    /// Extra vars that do not fit into a command.
    #[error("the extra vars take {bytes} bytes encoded; at most {limit} can be sent")]
    RequestTooLarge {
        /// Their size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A time that the agent would silently replace by one hour.
    #[error("`--timeout` must be between 1 s and {limit} s")]
    TimeoutRange {
        /// The largest.
        limit: u64,
    },
    /// Hosts that Systems Manager cannot reach.
    #[error("Systems Manager cannot reach {}", hosts.join("; "))]
    Offline {
        /// Each with its reason.
        hosts: Vec<String>,
        /// The pattern of the other hosts.
        others: String,
    },
    /// The command between two batches cannot be started.
    #[error("cannot start the command of `--between-batches`")]
    Between {
        /// Why.
        source: io::Error,
    },
    /// What installs and what changes nothing, together.
    #[error("`--install-ansible` changes hosts, and `--check` promises that nothing is changed")]
    CheckInstalls,
    /// Not even AWS's settings were found in time, e.g. because the instance metadata does not answer.
    #[error("the time was over after {} before region and credentials were found", human(*timeout))]
    Late {
        /// `--timeout`.
        timeout: Duration,
    },
    /// AWS gave no usable answer.
    #[error(transparent)]
    Aws(#[from] deploy_aws::Error),
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Inventory(error) => error.exit(),
            Self::Offline { .. } => Exit::Unavailable,
            Self::NoPlay { .. } => Exit::Empty,
            Self::Late { .. } => Exit::Timeout,
            Self::Aws(error) => error.exit(),
            _ => Exit::Usage,
        }
    }

    fn places(&self) -> Vec<Place> {
        let place = |finding: &Finding| {
            let Finding { file, line, message } = finding.clone();
            Place { file, line, message }
        };
        match self {
            Self::Syntax { file, line, message, .. } => {
                vec![Place { file: file.clone(), line: *line, message: message.clone() }]
            }
            Self::Findings { findings, .. } | Self::NoPlay { plays: findings, .. } => {
                findings.iter().map(place).collect()
            }
            _ => Vec::new(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Inventory(error) => error.hint(),
            Self::Addresses { .. } => Some(
                "apply the environment, write the inventory again, or leave these hosts out with `--limit`"
                    .to_owned(),
            ),
            Self::Regions { .. } => Some("choose one region's hosts with `--limit`".to_owned()),
            Self::NoAnsibleDir { .. } => {
                Some("run it at the top of the repository, or pass `--ansible-dir`".to_owned())
            }
            Self::NoPlaybook { folder, known, .. } => {
                let folder = folder.display();
                let known = match known.as_slice() {
                    [] => String::new(),
                    known => format!("; there is `{}`", known.join("`, `")),
                };
                Some(format!("looked for it as typed, in `{folder}` and in its `playbooks/`{known}"))
            }
            Self::VaultPassword { .. } => Some(
                "give a reference, which is resolved on the host: `secretsmanager:NAME` or `ssm:/NAME`"
                    .to_owned(),
            ),
            Self::Outside { .. } => {
                Some("only the Ansible folder travels; pass `--ansible-dir`".to_owned())
            }
            Self::Syntax { source_line, column, .. } if !source_line.trim().is_empty() => {
                let blank = usize::try_from(*column).unwrap_or(1).saturating_sub(1);
                Some(format!("nothing was sent\n  {source_line}\n  {:blank$}^", ""))
            }
            Self::Findings { .. } | Self::Output { .. } => Some("nothing was sent".to_owned()),
            Self::CheckInstalls => Some(
                "nothing was sent; leave `--install-ansible` out: a host without Ansible is then named, and a run without \
                 `--check` installs it"
                    .to_owned(),
            ),
            Self::Environment { .. } => Some(
                "nothing was sent: one environment's variables would configure the hosts of another"
                    .to_owned(),
            ),
            Self::NoPlay { .. } => Some(
                "nothing was sent; is `--limit` right, and does the inventory have these groups?".to_owned(),
            ),
            Self::TooLarge { largest, .. } => Some(format!(
                "`--bucket` sends up to 64 MiB through S3; the largest files: {largest}"
            )),
            Self::RequestTooLarge { .. } => {
                Some("put large data into a file of the Ansible folder".to_owned())
            }
            Self::Offline { others, .. } => Some(format!(
                "nothing was sent. Is the instance running, and does its role allow AmazonSSMManagedInstanceCore? \
                 `wait-for-cloud-init` waits for the agent. Was it replaced? Write the inventory again with \
                 `tf-to-inventory`. The other hosts are the pattern '{others}'"
            )),
            Self::Aws(error) => error.hint(),
            _ => None,
        }
    }
}
