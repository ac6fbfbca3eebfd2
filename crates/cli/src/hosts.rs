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
    /// `--limit` is given and empty, as by a variable that is not set: nobody means all hosts by that.
    #[error("`--limit` is empty")]
    EmptyLimit,
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
/// [`InventoryError::EmptyLimit`], [`InventoryError::Limit`] and [`InventoryError::NoHosts`].
pub fn require_hosts<'a>(
    inventory: &'a Inventory,
    pattern: Option<&str>,
    path: &Path,
) -> Result<Vec<&'a Host>, InventoryError> {
    if pattern.is_some_and(|pattern| pattern.trim().is_empty()) {
        return Err(InventoryError::EmptyLimit);
    }
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
            Self::Read { .. } | Self::Parse { .. } | Self::Limit(_) | Self::EmptyLimit => {
                Exit::Usage
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("`tf-to-inventory outputs.json --output inventory.json` writes it".into())
            }
            Self::Parse { path, source: ParseError::Json { .. } } if is_yaml(path) => Some(
                "the JSON form is needed: `tf-to-inventory outputs.json --output-format json --output inventory.json`"
                    .into(),
            ),
            Self::Parse { .. } => Some(
                "write it again: `terraform output -json > outputs.json`, then `tf-to-inventory`"
                    .into(),
            ),
            Self::EmptyLimit => Some("name hosts or groups, or leave `--limit` out for all hosts".into()),
            Self::Limit(PatternError::NoMatch { .. }) => Some(
                "the names are the groups and hosts in the inventory: \
                 `ansible-inventory -i inventory.json --graph` lists them"
                    .into(),
            ),
            Self::NoHosts { pattern, .. } if pattern == "all" => {
                Some("the inventory has no hosts: has Terraform made any?".into())
            }
            Self::NoHosts { .. } => {
                Some("its parts are known, but together they leave no host: check `!` and `&`".into())
            }
            Self::Read { .. } | Self::Limit(_) => None,
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(pattern: Option<&str>) -> Result<usize, InventoryError> {
        let text = r#"{"all": {"hosts": {"a": {}, "b": {}}}}"#;
        let inventory = Inventory::parse(text).unwrap();
        require_hosts(&inventory, pattern, Path::new("i.json")).map(|hosts| hosts.len())
    }

    #[test]
    fn an_empty_limit_does_not_mean_all_hosts() {
        assert_eq!(hosts(None).unwrap(), 2);
        assert_eq!(hosts(Some("all")).unwrap(), 2);
        for pattern in ["", " "] {
            let error = hosts(Some(pattern)).unwrap_err();
            assert!(matches!(error, InventoryError::EmptyLimit), "{error}");
            assert_eq!(error.exit(), Exit::Usage);
        }
    }

    #[test]
    fn what_to_do_about_a_pattern_without_hosts_is_said() {
        let hint = |pattern| hosts(Some(pattern)).unwrap_err().hint().unwrap();
        assert!(hint("nope").contains("--graph"), "{}", hint("nope"));
        assert!(hint("all:!a:!b").contains("check `!` and `&`"), "{}", hint("all:!a:!b"));
    }

    #[test]
    fn yaml_is_told_how_it_becomes_json() {
        let hint = |path: &str| {
            let source = Inventory::parse("all:\n  hosts: {}\n").unwrap_err();
            InventoryError::Parse { path: path.into(), source }.hint().unwrap()
        };
        assert!(
            hint("inventory.yml").contains("--output-format json"),
            "{}",
            hint("inventory.yml")
        );
        assert!(hint("inventory.json").starts_with("write it again"), "{}", hint("inventory.json"));
    }
}
