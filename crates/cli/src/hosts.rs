//! From a file and an Ansible pattern to the hosts of a run: what `--inventory` and `--limit` mean in every tool.

use crate::{Exit, Failure};
use deploy_inventory::{Host, Inventory, ParseError, PatternError};
use std::io;
use std::path::{Path, PathBuf};

/// Why a run has no hosts.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The file cannot be read.
    #[error("cannot read the inventory `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no inventory.
    #[error("`{}` is not an inventory", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ParseError,
    },
    /// `--limit` is malformed or names nothing.
    #[error("bad `--limit`")]
    Limit(#[source] PatternError),
    /// No host is left.
    #[error("no host in `{}` matches `{pattern}`", path.display())]
    NoHosts {
        /// The file.
        path: PathBuf,
        /// The pattern, or `all`.
        pattern: String,
    },
}

/// Reads an inventory file; gives it with its text as it stands, for handing it on unchanged.
///
/// # Errors
/// [`InventoryError::Read`] and [`InventoryError::Parse`], with the path.
pub fn load_inventory(path: &Path) -> Result<(Inventory, String), InventoryError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| InventoryError::Read { path: path.to_owned(), source })?;
    let inventory = Inventory::parse(&text)
        .map_err(|source| InventoryError::Parse { path: path.to_owned(), source })?;
    Ok((inventory, text))
}

/// The hosts that a pattern names, in the file's order and at least one; `path` names the file in the error.
///
/// # Errors
/// [`InventoryError::Limit`] and [`InventoryError::NoHosts`].
pub fn require_hosts<'a>(
    inventory: &'a Inventory,
    pattern: Option<&str>,
    path: &Path,
) -> Result<Vec<&'a Host>, InventoryError> {
    let hosts = inventory.select(pattern).map_err(InventoryError::Limit)?;
    if hosts.is_empty() {
        let pattern = pattern.unwrap_or("all").to_owned();
        return Err(InventoryError::NoHosts { path: path.to_owned(), pattern });
    }
    Ok(hosts)
}

impl Failure for InventoryError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoHosts { .. } => Exit::Empty,
            Self::Read { .. } | Self::Parse { .. } | Self::Limit(_) => Exit::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("`tf-to-inventory outputs.json --output inventory.json` writes it".into())
            }
            Self::Parse { .. } => Some(
                "write it again: `terraform output -json > outputs.json`, then `tf-to-inventory`"
                    .into(),
            ),
            Self::Read { .. } | Self::Limit(_) | Self::NoHosts { .. } => None,
        }
    }
}
