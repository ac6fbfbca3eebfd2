//! Why a run of this tool ended otherwise than planned.

use crate::document::Fault;
use deploy_cli::{Exit, Failure};
use std::io;
use std::path::PathBuf;

/// Why there is no inventory. The file that `--output` names is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source cannot be read.
    #[error("cannot read {name}")]
    Read {
        /// The source, for people.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The source is a folder or an address, which this version does not read.
    #[error("{name} is {what}, which this version does not read")]
    Source {
        /// The source, for people.
        name: String,
        /// What it is.
        what: &'static str,
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
    #[error("the output `inventory` in {name} cannot be used: {}", problems.join("; "))]
    Contract {
        /// The source, for people.
        name: String,
        /// Everything that is wrong.
        problems: Vec<String>,
    },
    /// The EC2 instances of a state make no inventory.
    #[error("{name} has no output `inventory`, and its EC2 instances make none: {}", problems.join("; "))]
    Guess {
        /// The source, for people.
        name: String,
        /// Everything that is wrong.
        problems: Vec<String>,
    },
    /// `--limit` is malformed or names nothing.
    #[error("bad `--limit`")]
    Limit(#[source] deploy_inventory::PatternError),
    /// There is no host.
    #[error("{name} has no hosts{}", limit.as_ref().map(|limit| format!(" that match `{limit}`")).unwrap_or_default())]
    NoHosts {
        /// The source, for people.
        name: String,
        /// The pattern.
        limit: Option<String>,
    },
    /// Groups of `--require-group` without a host.
    #[error("{name} has no host in {}", groups.join(", "))]
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
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NoHosts { .. } | Self::EmptyGroups { .. } => Exit::Empty,
            _ => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Document { fault, .. } => Some(fault.hint()),
            Self::Source { .. } => Some("write the outputs first: `terraform output -json > outputs.json`".into()),
            Self::Contract { .. } => {
                Some("docs/contracts/inventory-output.schema.json describes the output; change the root module and apply".into())
            }
            Self::Guess { .. } => Some(
                "give every instance a `Name` tag of its own, pass `--on-duplicate suffix`, or add the output `inventory`".into(),
            ),
            Self::EmptyGroups { .. } => Some("`--explain` says what became of each instance".into()),
            Self::NoHosts { .. } => Some("pass `--allow-empty` if that is meant".into()),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("`terraform output -json > outputs.json` writes it".into())
            }
            Self::Read { .. } | Self::Output { .. } | Self::Limit(_) => None,
        }
    }
}
