//! What one run asks of one host, and the extra variables in it.

use crate::bundle::{Item, Items};
use crate::error::Error;
use crate::reference;
use crate::syntax;
use deploy_inventory::{Host, Inventory};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

const INTERPRETER: &str = "ansible_python_interpreter";

/// Read by `run.py` on the host. Holds the extra vars, therefore never printed.
#[derive(Serialize)]
pub(crate) struct Request<'a> {
    pub(crate) run: &'a str,
    /// Every host of one command by its instance ID: all of them get the same script and find themselves here.
    pub(crate) hosts: BTreeMap<&'a str, Target<'a>>,
    pub(crate) bundle: String,
    pub(crate) lock_wait_s: u64,
    pub(crate) timeout_s: u64,
    pub(crate) inventory: &'a str,
    pub(crate) playbook: &'a str,
    pub(crate) flags: &'a [String],
    /// With marks where values belong.
    pub(crate) extra_vars: &'a [String],
    pub(crate) references: &'a [(String, String)],
    /// Vault IDs and the references of their passwords.
    pub(crate) vault_passwords: &'a [(String, String)],
    /// Whether the playbook may reboot the host.
    pub(crate) allow_reboot: bool,
    /// Whether the script installs Ansible where it is missing; nothing for `run.py`.
    #[serde(skip)]
    pub(crate) install_ansible: bool,
    /// Whether the host says on stderr what it is doing.
    pub(crate) live: bool,
}

/// One host of a command.
#[derive(Clone, Serialize)]
pub(crate) struct Target<'a> {
    pub(crate) name: &'a str,
    /// Whether somebody chose its Python interpreter.
    pub(crate) has_interpreter: bool,
}

/// What `--extra-vars` gave.
#[derive(Debug, Default)]
pub(crate) struct ExtraVars {
    /// The text of a file each, in their order (later ones win, as with Ansible).
    pub(crate) texts: Vec<String>,
    /// Marks in the texts, and the references that they stand for.
    pub(crate) references: Vec<(String, String)>,
}

/// Turns every `--extra-vars` into the text of a file, with marks in the place of references to secrets.
pub(crate) fn extra_vars(arguments: &[String]) -> Result<ExtraVars, Error> {
    let mut found = ExtraVars::default();
    for argument in arguments {
        let text = one_extra_var(argument)?;
        // What is encrypted as a whole is YAML only on the host.
        let text = if text.starts_with("$ANSIBLE_VAULT") {
            text
        } else {
            reference::mark(&text, &mut found.references)
                .map_err(|(shown, reason)| Error::ExtraVars { argument: shown, reason })?
        };
        found.texts.push(text);
    }
    Ok(found)
}

/// Reads `--vault-password REF` and `--vault-id LABEL@REF`.
pub(crate) fn vault_passwords(
    password: Option<&str>,
    ids: &[String],
) -> Result<Vec<(String, String)>, Error> {
    let unlabelled = password.map(|text| ("--vault-password", "default", text));
    let labelled = ids.iter().map(|id| {
        let (label, text) = id.split_once('@').unwrap_or(("", id));
        ("--vault-id", label, text)
    });
    let mut found = Vec::new();
    for (flag, label, text) in unlabelled.into_iter().chain(labelled) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if label.is_empty() || !label.chars().all(plain) {
            return Err(Error::VaultPassword { flag, reason: "expected `LABEL@REF`".to_owned() });
        }
        // The text is not shown: somebody may have given the password itself.
        reference::check(text).map_err(|reason| Error::VaultPassword { flag, reason })?;
        found.push((label.to_owned(), text.to_owned()));
    }
    Ok(found)
}

fn one_extra_var(argument: &str) -> Result<String, Error> {
    let bad = |shown: &str, reason: &str| Error::ExtraVars {
        argument: shown.to_owned(),
        reason: reason.to_owned(),
    };
    if let Some(path) = argument.strip_prefix('@') {
        let path = Path::new(path);
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        if !text.starts_with("$ANSIBLE_VAULT") {
            syntax::check_text(&text, path.to_owned())?;
        }
        return Ok(text);
    }
    if argument.trim_start().starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(argument)
            .map_err(|_| bad("{…}", "not a JSON object; for YAML use `@FILE`"))?;
        return Ok(value.to_string());
    }
    let starts_one = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
    };
    if argument.split_whitespace().skip(1).any(starts_one) {
        let reason = "several `K=V` in one; give each its own `-e`, or a JSON object where a value holds ` K=`";
        return Err(bad("…", reason));
    }
    let Some((name, value)) = argument.split_once('=') else {
        return Err(bad("…", "expected `K=V`, a JSON object or `@FILE`"));
    };
    let valid = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if valid {
        Ok(json!({ name: value }).to_string())
    } else {
        Err(bad(&format!("{name}=…"), "a variable's name holds letters, digits and underscores"))
    }
}

/// Whether somebody chose the Python interpreter of this host, in the inventory or in a vars file that travels.
pub(crate) fn has_interpreter(inventory: &Inventory, host: &Host, items: &Items) -> bool {
    let in_files = || {
        items.iter().any(|(name, item)| {
            let vars = name.split('/').any(|part| matches!(part, "group_vars" | "host_vars"));
            matches!(item, Item::File { content, .. } if vars
                && String::from_utf8_lossy(content.bytes()).contains(INTERPRETER))
        })
    };
    inventory.variable(host, INTERPRETER).is_some() || in_files()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_vars_keep_every_character_and_their_errors_hide_the_value() {
        let check = |argument: &str, expected: Result<&str, &str>| match (
            one_extra_var(argument),
            expected,
        ) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected),
            (Err(error), Err(expected)) => {
                let text = error.to_string();
                assert!(text.contains(expected) && !text.contains("hunter2"), "{text}");
            }
            (got, _) => panic!("{argument}: {got:?}"),
        };
        check("a=b:c;d&(e)|'f'=g", Ok(r#"{"a":"b:c;d&(e)|'f'=g"}"#));
        check("a=1 b=hunter2", Err("several `K=V`"));
        check("a=1 2 (b == 3)", Ok(r#"{"a":"1 2 (b == 3)"}"#));
        check("a=", Ok(r#"{"a":""}"#));
        check(r#"{"a": {"b": [1]}}"#, Ok(r#"{"a":{"b":[1]}}"#));
        check("{hunter2", Err("not a JSON object"));
        check("hunter2", Err("expected `K=V`"));
        check("bad-name=hunter2", Err("bad-name=…"));
        check("@/nowhere/at/all", Err("cannot read"));
    }
}
