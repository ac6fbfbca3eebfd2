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
    Limit {
        /// Why.
        source: PatternError,
        /// What there is, for people.
        known: String,
    },
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
        /// What there is, for people.
        known: String,
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
    let known = || {
        let hosts: Vec<&str> = inventory.hosts().iter().map(|host| host.name.as_str()).collect();
        format!(
            "the inventory has the groups {} and the hosts {}",
            listed(&inventory.groups()),
            listed(&hosts)
        )
    };
    let hosts = inventory.select(pattern).map_err(|source| {
        let close = match &source {
            PatternError::NoMatch { part, .. } => {
                let hosts = inventory.hosts().iter().map(|host| host.name.as_str());
                closest(part, hosts.chain(inventory.groups()))
            }
            PatternError::Regex { .. } | PatternError::Subscript { .. } => None,
        };
        let meant = close.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
        InventoryError::Limit { source, known: format!("{meant}{}", known()) }
    })?;
    if hosts.is_empty() {
        let pattern = pattern.unwrap_or("all").to_owned();
        return Err(InventoryError::NoHosts { path: path.to_owned(), pattern, known: known() });
    }
    Ok(hosts)
}

/// The name that somebody who typed `typed` may have meant, by the measure that clap takes for flags.
pub fn closest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.into_iter().map(|name| (strsim::jaro(typed, name), name));
    let best = near.filter(|(nearness, _)| *nearness > 0.7).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, name)| name)
}

/// Some names for people.
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    if names.is_empty() {
        return "(none)".to_owned();
    }
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl Failure for InventoryError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoHosts { .. } => Exit::Empty,
            Self::Read { .. } | Self::Parse { .. } | Self::Limit { .. } | Self::EmptyLimit => {
                Exit::Usage
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("`tf-to-inventory outputs.json --output inventory.json` writes it".into())
            }
            Self::Parse { path, source } if is_of_ansible(path, source) => Some(format!(
                "the JSON form is needed: `tf-to-inventory outputs.json --output-format json --output inventory.json`, or \
                 `ansible-inventory -i {} --list --yaml | python3 -c \
                 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)' > inventory.json`",
                path.display()
            )),
            Self::Parse { .. } => Some(
                "write it again: `terraform output -json > outputs.json`, then `tf-to-inventory`"
                    .into(),
            ),
            Self::EmptyLimit => {
                Some("name hosts or groups, or leave `--limit` out for all hosts".into())
            }
            Self::Limit { source: PatternError::Regex { .. }, .. } => None,
            Self::Limit { known, .. } => Some(known.clone()),
            Self::NoHosts { pattern, .. } if pattern == "all" => {
                Some("the inventory has no hosts: has Terraform made any?".into())
            }
            Self::NoHosts { known, .. } => Some(known.clone()),
            Self::Read { .. } => None,
        }
    }
}

/// Whether this looks like an inventory in another of Ansible's forms: INI, YAML, or what `ansible-inventory --list` prints.
fn is_of_ansible(path: &Path, error: &ParseError) -> bool {
    let yaml = ["yml", "yaml"].iter().any(|end| path.extension().is_some_and(|is| is == *end));
    match error {
        // Neither `[group]` nor `name:` begins like JSON.
        ParseError::Json { column, source, .. } => yaml || (*column <= 2 && !source.is_eof()),
        ParseError::Shape(_) => {
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"_meta\""))
        }
        ParseError::Empty => false,
    }
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
        let known = "the inventory has the groups `sip` and the hosts `a`, `b`, `c`, `d`, `e`, `f`, `g`, `h` and 1 more";
        for (pattern, code, expected) in [
            ("sipp", 2, format!("did you mean `sip`? {known}")),
            ("nope", 2, known.to_owned()),
            ("zz*", 3, known.to_owned()),
            ("all:!all", 3, known.to_owned()),
        ] {
            let names: Vec<String> = ('a'..='i').map(|name| format!("\"{name}\": {{}}")).collect();
            let text = format!(
                r#"{{"all": {{"hosts": {{{}}}, "children": {{"sip": {{"hosts": {{"a": {{}}}}}}}}}}}}"#,
                names.join(", ")
            );
            let inventory = Inventory::parse(&text).unwrap();
            let error = require_hosts(&inventory, Some(pattern), Path::new("i.json")).unwrap_err();
            assert_eq!((error.exit().code(), error.hint()), (code, Some(expected)), "{pattern}");
        }
    }

    #[test]
    fn a_number_behind_a_name_chooses_among_its_hosts() {
        let text = r#"{"all": {"hosts": {"web1": {}, "web2": {}, "db": {}},
            "children": {"web": {"hosts": {"web1": {}, "web2": {}}}}}}"#;
        let inventory = Inventory::parse(text).unwrap();
        let found = |pattern: &str| {
            let hosts = require_hosts(&inventory, Some(pattern), Path::new("i.json"));
            hosts.map(|hosts| hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>())
        };
        assert_eq!(found("web[1]").unwrap(), ["web2"]);
        assert_eq!(found("all:!web[-1]").unwrap(), ["web1", "db"]);
        let error = found("web[2]").unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(why, "`web[2]` is not there: 2 hosts match before the bracket, counted from 0");
        assert!(error.hint().unwrap().starts_with("the inventory has the groups `web`"));
        assert_eq!(found("web[2:]").unwrap_err().exit(), Exit::Empty);
        // Digits in brackets at the end are a number to Ansible, never a choice of letters.
        let error = found("web[12]").unwrap_err();
        assert!(matches!(error, InventoryError::Limit { .. }), "{error}");
        assert_eq!(found("web[12]*").unwrap(), ["web1", "web2"]);
    }

    #[test]
    fn other_forms_of_inventories_are_told_how_they_become_json() {
        let check = |text: &str, expected: &str| {
            let source = Inventory::parse(text).unwrap_err();
            let hint = InventoryError::Parse { path: "hosts".into(), source }.hint().unwrap();
            assert!(hint.starts_with(expected), "{text}: {hint}");
        };
        check("all:\n  hosts: {}\n", "the JSON form is needed: ");
        check("# Ours\n[sip]\na x=1\n", "the JSON form is needed: ");
        check("[sip]\na\n", "the JSON form is needed: ");
        check("{\"all\": {\"hosts\"", "write it again");
        check("{", "write it again");
        check("{\"all\": {}, \"x\": 1}", "write it again");
    }
}
