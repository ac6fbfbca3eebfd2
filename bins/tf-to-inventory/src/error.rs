//! Why a run of this tool ended otherwise than planned.

use crate::document::Fault;
use crate::guess::Problem;
use crate::scaling;
use deploy_cli::{Exit, Failure};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;

/// Why there is no inventory. The file that `--output` names is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source is none, or a flag contradicts another.
    #[error("{0}")]
    Usage(String),
    /// The source cannot be read.
    #[error("cannot read {name}")]
    Read {
        /// The source, for people.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The object in S3 cannot be had.
    #[error("cannot read {name}")]
    Object {
        /// The source, for people.
        name: String,
        /// Why.
        source: deploy_aws::Error,
    },
    /// Terraform does not say what the state of a folder is.
    #[error("cannot read the state of the folder `{}`: {why}", folder.display())]
    Terraform {
        /// The folder.
        folder: PathBuf,
        /// Why.
        why: String,
    },
    /// The source is no document with an inventory.
    #[error("{name} {fault}")]
    Document {
        /// The source, for people.
        name: String,
        /// What it is instead.
        fault: Fault,
    },
    /// The output `inventory` breaks its contract.
    #[error("the output `inventory` in {name} cannot be used: {}", few(problems))]
    Contract {
        /// The source, for people.
        name: String,
        /// Everything that is wrong.
        problems: Vec<String>,
        /// Whether the source has resources to guess from.
        guessable: bool,
        /// Whether it has not even a version, as an output that is not meant for this tool.
        foreign: bool,
    },
    /// The EC2 instances of a state make no inventory.
    #[error("{name} {}its EC2 instances make none: {}", if *declared { "is to be guessed, and " } else { "has no output `inventory`, and " }, few(problems))]
    Guess {
        /// The source, for people.
        name: String,
        /// Everything that is wrong.
        problems: Vec<Problem>,
        /// Whether `--guess` asks for it.
        declared: bool,
    },
    /// An output of `--var-from-output` cannot be a variable.
    #[error("`--var-from-output`: {}", few(problems))]
    Variables {
        /// Everything that is wrong.
        problems: Vec<String>,
    },
    /// The hosts of scaling groups are not known.
    #[error("cannot look up the scaling groups in {name}: {}", scaling_fault(fault))]
    Scaling {
        /// The source, for people.
        name: String,
        /// Why.
        fault: scaling::Fault,
    },
    /// Sources contradict each other.
    #[error("the inventory would be ambiguous: {}", few(problems))]
    Conflict {
        /// Everything that is wrong.
        problems: Vec<String>,
        /// Whether names of it are guessed.
        guessed: bool,
    },
    /// `--limit` is malformed or names nothing.
    #[error("bad `--limit`")]
    Limit {
        /// Why.
        source: deploy_inventory::PatternError,
        /// The group that is called so in Terraform.
        meant: Option<String>,
    },
    /// A group of `--var-from-output` without a host.
    #[error("`--var-from-output`: no host is in {}; {groups}", listed(missing))]
    VariableGroups {
        /// The groups without a host, quoted.
        missing: Vec<String>,
        /// What groups there are.
        groups: String,
    },
    /// A folder has no such workspace.
    #[error("the folder `{}` has no workspace `{workspace}`, {}", folder.display(), if known.is_empty() { "and no state at all".to_owned() } else { format!("only {}", listed(known)) })]
    Workspace {
        /// The folder.
        folder: PathBuf,
        /// The workspace.
        workspace: String,
        /// Those that there are, quoted.
        known: Vec<String>,
    },
    /// Nobody is who asks AWS, because the profile that was named does not exist.
    #[error("cannot read {name}: AWS_PROFILE names the profile `{profile}`, which does not exist")]
    Profile {
        /// The source, for people.
        name: String,
        /// The profile.
        profile: String,
        /// What could not be done.
        source: deploy_aws::Error,
    },
    /// There is no host.
    #[error("{name} has no hosts{}", limit.as_ref().map(|limit| format!(" that match `{limit}`")).unwrap_or_default())]
    NoHosts {
        /// The source, for people.
        name: String,
        /// The pattern.
        limit: Option<String>,
    },
    /// There is no output `inventory`, and no instance to guess from.
    #[error("{name} has no output `inventory`, and no `aws_instance` that is a host")]
    NoInstances {
        /// The source, for people.
        name: String,
    },
    /// Groups of `--require-group` without a host.
    #[error("{name} has no host in {}", listed(groups))]
    EmptyGroups {
        /// The source, for people.
        name: String,
        /// The groups, quoted.
        groups: Vec<String>,
    },
    /// The output cannot be written, or read for `--check`.
    #[error("cannot {verb} `{}`", path.display())]
    Output {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SIGINT or SIGTERM came first.
    #[error("stopped before the inventory was complete")]
    Stopped(Exit),
}

/// What is wrong, few of it and short: an error is a line, also when 5,000 instances have one name.
fn few(problems: &[impl Display]) -> String {
    const SHOWN: usize = 8;
    const LENGTH: usize = 400;
    let shown = problems.iter().take(SHOWN).map(|problem| {
        let text = problem.to_string();
        match text.char_indices().nth(LENGTH) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    });
    let mut lines: Vec<String> = shown.collect();
    if problems.len() > SHOWN {
        lines.push(format!("and {} more", problems.len() - SHOWN));
    }
    lines.join("; ")
}

/// Names that are quoted already, few of them.
pub(crate) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn scaling_fault(fault: &scaling::Fault) -> String {
    match fault {
        scaling::Fault::Aws(error) => error.to_string(),
        scaling::Fault::Answer { operation, why } => {
            format!("the answer to {operation} is not as documented: {why}")
        }
        scaling::Fault::Missing(groups) => format!("AWS has no {}", listed(groups)),
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NoHosts { .. } | Self::NoInstances { .. } | Self::EmptyGroups { .. } => {
                Exit::Empty
            }
            Self::Object { source, .. } | Self::Profile { source, .. } => source.exit(),
            Self::Scaling { fault: scaling::Fault::Aws(error), .. } => error.exit(),
            Self::Scaling { fault: scaling::Fault::Answer { .. }, .. } => Exit::Unavailable,
            Self::Stopped(exit) => *exit,
            _ => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Usage(_) => "see `--help`",
            Self::Document { fault, .. } => return Some(fault.hint()),
            Self::Object { source, .. } => return Some(object_hint(source)),
            Self::Terraform { .. } => {
                "run `terraform init` and `terraform apply` there, or give the file that `terraform show -json` writes"
            }
            Self::Contract { guessable: true, .. } => {
                "is the output not meant for this tool? `--guess` makes the inventory from the EC2 instances; else docs/contracts/inventory-output.schema.json describes the output: change the root module and apply"
            }
            Self::Contract { foreign: true, .. } => {
                "is the output not meant for this tool? give the state with `--guess`, whose EC2 instances are looked at; else docs/contracts/inventory-output.schema.json describes the output: change the root module and apply"
            }
            Self::Contract { .. } => {
                "docs/contracts/inventory-output.schema.json describes the output; change the root module and apply"
            }
            Self::Guess { problems, .. } => {
                let hints: BTreeSet<&str> = problems.iter().map(Problem::hint).collect();
                return Some(hints.into_iter().collect::<Vec<_>>().join("; "));
            }
            Self::Variables { .. } => "`terraform output` lists what there is",
            Self::Scaling { fault, .. } => return Some(scaling_hint(fault)),
            Self::Conflict { guessed: true, .. } => {
                "`--on-duplicate suffix` tells guessed hosts of one name apart; or let the sources agree, give fewer of them, or decide with `--on-conflict first` or `last`"
            }
            Self::Conflict { .. } => {
                "let the sources agree, give fewer of them, or decide with `--on-conflict first` or `last`"
            }
            Self::EmptyGroups { .. } => {
                "`--explain` without `--require-group` says what became of each instance"
            }
            Self::NoHosts { limit: Some(_), .. } => {
                "`--explain` lists hosts and groups; pass `--allow-empty` if no host is meant"
            }
            Self::NoInstances { .. } => {
                "is it the state of the root module and workspace that has the hosts, and was it applied? `--explain --allow-empty` says what became of each instance; pass `--allow-empty` if no host is meant"
            }
            Self::NoHosts { .. } => {
                "`--explain --allow-empty` says what became of each instance; pass `--allow-empty` if no host is meant"
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "`terraform output -json > outputs.json` writes it; without an output `inventory`, `terraform show -json`"
            }
            Self::Limit { meant: Some(meant), .. } => {
                return Some(format!("did you mean `{meant}`? `--explain` lists hosts and groups"));
            }
            Self::Limit { .. } | Self::VariableGroups { .. } => {
                "`--explain` lists hosts and groups"
            }
            Self::Workspace { .. } => {
                "`--workspace` takes one that is there; `terraform workspace list` shows them"
            }
            Self::Profile { .. } => {
                "`aws configure list-profiles` lists those in ~/.aws/config and ~/.aws/credentials; or unset AWS_PROFILE"
            }
            Self::Read { .. } | Self::Output { .. } | Self::Stopped(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// S3 answers 403 for a key that does not exist when the caller may not list the bucket.
fn object_hint(error: &deploy_aws::Error) -> String {
    match error {
        deploy_aws::Error::Denied { code: Some(code), .. } if code == "AccessDenied" => {
            "the role needs `s3:GetObject` on the state, and `kms:Decrypt` if it is encrypted with a key of yours; a state that does not exist looks the same without `s3:ListBucket`: check key and `--workspace`".into()
        }
        deploy_aws::Error::Refused { code, .. } if code == "NoSuchKey" => {
            "was it applied? check the key and `--workspace`: a workspace's state lies below `env:/NAME/`".into()
        }
        other => other.hint().unwrap_or_else(|| "check bucket, key and region".into()),
    }
}

fn scaling_hint(fault: &scaling::Fault) -> String {
    let skip = "without AWS, `--scaling-groups skip` leaves them out";
    match fault {
        scaling::Fault::Aws(error) => match error.hint() {
            Some(hint) => format!("{hint}; {skip}"),
            None => skip.to_owned(),
        },
        scaling::Fault::Answer { .. } => "check AWS_ENDPOINT_URL".to_owned(),
        scaling::Fault::Missing(_) => {
            format!("check region and account, and apply again if they were deleted; {skip}")
        }
    }
}
