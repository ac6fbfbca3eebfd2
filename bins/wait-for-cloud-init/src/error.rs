//! Why a wait ended before its hosts could be judged.

use deploy_cli::{Exit, Failure};
use std::path::PathBuf;

/// Why a wait ended before its hosts could be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The inventory, or `--limit`, cannot be used.
    #[error(transparent)]
    Inventory(#[from] deploy_cli::InventoryError),
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
            Self::Inventory(error) => error.exit(),
            Self::Aws(error) => error.exit(),
            Self::Hosts { .. } | Self::Unknown { .. } => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Inventory(error) => error.hint(),
            Self::Hosts { .. } => Some(
                "write it again: `terraform output -json > outputs.json`, then `tf-to-inventory`"
                    .into(),
            ),
            Self::Unknown { .. } => Some(
                "another account or region, or an inventory older than the last apply: \
                 `aws sts get-caller-identity`, then run `tf-to-inventory` again"
                    .into(),
            ),
            Self::Aws(error) => error.hint(),
        }
    }
}
