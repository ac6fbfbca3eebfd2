//! What the Terraform states own. Fails closed: a state that cannot be understood could own anything.

use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Every ID that stands anywhere in a state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    ids: HashSet<String>,
}

/// Why a state says nothing about what it owns.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read.
    #[error("cannot read the state `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no state that this tool understands.
    #[error("`{}` is no usable state: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl Owned {
    /// Reads all states; one that cannot be used makes all of them useless.
    ///
    /// # Errors
    /// [`StateError`] for the first such file.
    pub fn of_files(paths: &[PathBuf]) -> Result<Self, StateError> {
        let mut all = Self::default();
        for path in paths {
            let text = std::fs::read_to_string(path)
                .map_err(|source| StateError::Read { path: path.clone(), source })?;
            let unusable = |why| StateError::Unusable { path: Path::to_owned(path), why };
            all.ids.extend(Self::of_state(&text).map_err(unusable)?.ids);
        }
        Ok(all)
    }

    /// Reads one state, as `terraform state pull` prints it.
    ///
    /// # Errors
    /// A phrase that says what is wrong with it.
    pub fn of_state(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it is empty; a state that exists holds at least its version".into());
        }
        let state: Value =
            serde_json::from_str(text).map_err(|error| format!("it is not JSON ({error})"))?;
        if state.get("encrypted_data").is_some() {
            return Err("it is encrypted; `tofu state pull` prints it in clear".into());
        }
        if state.get("format_version").is_some() {
            return Err(
                "it is the output of `terraform show -json`; use `terraform state pull`".into()
            );
        }
        match state.get("version") {
            Some(Value::Number(version)) if version.as_u64() == Some(4) => {}
            Some(version) => return Err(format!("its version is {version}, and only 4 is known")),
            None => return Err("it has no version".into()),
        }
        if !state.get("resources").is_some_and(Value::is_array) {
            return Err("it has no list of resources".into());
        }
        let mut owned = Self::default();
        owned.collect(&state);
        Ok(owned)
    }

    /// Whether a state names this ID.
    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.collect_text(text),
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.collect_text(key);
                    self.collect(value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// IDs also stand inside ARNs, policies and templates. Every `word-hex` in the text counts: an ID too many keeps a
    /// resource, one too few deletes it.
    fn collect_text(&mut self, text: &str) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        for token in text.split(|c| !is_part(c)).filter(|token| token.contains('-')) {
            self.ids.insert(token.to_owned());
            // `template-i-0abc…`: the ID may have words before it.
            for (at, _) in token.match_indices('-') {
                let start = token[..at].rfind('-').map_or(0, |dash| dash + 1);
                let hex = token[at + 1..].split('-').next().unwrap_or_default();
                if hex.len() >= 8 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    self.ids.insert(token[start..at + 1 + hex.len()].to_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_wherever_they_stand() {
        let state = r#"{"version":4,"outputs":{"a":{"value":"sg-0123456789abcdef0"}},"resources":[{"instances":[
            {"attributes":{"arn":"arn:aws:ec2:us-east-1:1:instance/i-0123456789abcdef1",
             "root_block_device":[{"volume_id":"vol-0123456789abcdef2"}],
             "policy":"{\"Resource\":\"arn:aws:ec2:*:1:subnet/subnet-0123456789abcdef3\"}",
             "eni-0123456789abcdef4":{}, "name":"old-tpl-eipalloc-0123456789abcdef5-x", "n":4}}]}]}"#;
        let owned = Owned::of_state(state).unwrap();
        for id in [
            "sg-0123456789abcdef0",
            "i-0123456789abcdef1",
            "vol-0123456789abcdef2",
            "subnet-0123456789abcdef3",
            "eni-0123456789abcdef4",
            "eipalloc-0123456789abcdef5",
        ] {
            assert!(owned.contains(id), "{id} in {owned:?}");
        }
        assert!(!owned.contains("i-0123456789abcdef9"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let check = |text: &str, expected: &str| {
            let why = Owned::of_state(text).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        };
        check("", "empty");
        check(" \n", "empty");
        check("{\"version\":4,", "not JSON");
        check("{}", "no version");
        check("[]", "no version");
        check(r#"{"version":3,"modules":[]}"#, "only 4 is known");
        check(r#"{"version":"4","resources":[]}"#, "only 4 is known");
        check(r#"{"version":4}"#, "no list of resources");
        check(r#"{"serial":1,"encrypted_data":"x","encryption_version":"v0"}"#, "encrypted");
        check(r#"{"format_version":"1.0","values":{}}"#, "show -json");
        assert_eq!(Owned::of_state(r#"{"version":4,"resources":[]}"#).unwrap().ids.len(), 0);
    }
}
