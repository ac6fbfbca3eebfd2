//! Why a wait ended before its hosts could be judged.

use deploy_cli::{Exit, Failure};
use std::path::PathBuf;

/// Why a wait ended before its hosts could be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The inventory cannot be read.
    #[error("cannot read the inventory `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The inventory is none.
    #[error("`{}` cannot be used", path.display())]
    Inventory {
        /// The file.
        path: PathBuf,
        /// Why.
        source: deploy_inventory::ParseError,
    },
    /// `--limit` is malformed or names nothing.
    #[error("bad `--limit`")]
    Limit(#[from] deploy_inventory::PatternError),
    /// No host is left.
    #[error("no host in `{}` matches `{pattern}`", path.display())]
    NoHosts {
        /// The file.
        path: PathBuf,
        /// The pattern, or `all`.
        pattern: String,
    },
    /// Hosts that cannot be waited for, all of them.
    #[error("the inventory `{}` cannot be waited for: {}", path.display(), problems.join("; "))]
    Hosts {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong.
        problems: Vec<String>,
    },
    /// EC2 does not know an instance.
    #[error("EC2 in {region} does not know {}", instances.join(", "))]
    Unknown {
        /// The region that was asked.
        region: String,
        /// Instance IDs with their hosts.
        instances: Vec<String>,
    },
    /// AWS refused, or gave no answer.
    #[error(transparent)]
    Aws(#[from] deploy_aws::Error),
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NoHosts { .. } => Exit::Empty,
            Self::Aws(error) => error.exit(),
            Self::Read { .. }
            | Self::Inventory { .. }
            | Self::Limit(_)
            | Self::Hosts { .. }
            | Self::Unknown { .. } => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("`tf-to-inventory outputs.json --output inventory.json` writes it".into())
            }
            Self::Inventory { .. } | Self::Hosts { .. } => Some(
                "write it again: `terraform output -json > outputs.json`, then `tf-to-inventory`"
                    .into(),
            ),
            Self::Unknown { .. } => Some(
                "another account or region, or an inventory older than the last apply: \
                 `aws sts get-caller-identity`, then run `tf-to-inventory` again"
                    .into(),
            ),
            Self::Aws(error) => error.hint(),
            Self::Read { .. } | Self::Limit(_) | Self::NoHosts { .. } => None,
        }
    }
}
