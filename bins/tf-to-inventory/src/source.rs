//! What a source is, told by its shape: `-`, `s3://BUCKET/KEY`, a folder, a file.

use std::path::{Path, PathBuf};

/// An object that holds a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The bucket's region, when the backend's settings name it.
    pub region: Option<String>,
}

/// Where a document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
    /// A folder that Terraform runs in.
    Folder(PathBuf),
    /// A state in S3.
    Object(Object),
}

impl Source {
    /// Tells the kind.
    ///
    /// # Errors
    /// A sentence, for an address that is none.
    pub(crate) fn of(text: &str, workspace: Option<&str>, prefix: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        if let Some(address) = text.strip_prefix("s3://") {
            let (bucket, key) = address.split_once('/').unwrap_or((address, ""));
            if bucket.is_empty() || key.is_empty() || key.ends_with('/') {
                return Err(format!("`{text}` names no object"));
            }
            let object = Object {
                bucket: bucket.to_owned(),
                key: workspace_key(key, workspace, prefix),
                region: None,
            };
            return Ok(Self::Object(object));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!(
                "`{text}` is an address of the kind `{scheme}`, and only `s3` is read"
            ));
        }
        let path = Path::new(text);
        Ok(if path.is_dir() { Self::Folder(path.to_owned()) } else { Self::File(path.to_owned()) })
    }
}

/// Where the S3 backend keeps a workspace's state (`internal/backend/remote-state/s3/backend_state.go` of Terraform).
pub(crate) fn workspace_key(key: &str, workspace: Option<&str>, prefix: &str) -> String {
    match workspace {
        None | Some("default") => key.to_owned(),
        Some(workspace) => format!("{prefix}/{workspace}/{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_by_their_shape() {
        let of = |text: &str| Source::of(text, None, "env:");
        assert_eq!(of("-"), Ok(Source::Stdin));
        assert_eq!(of("/"), Ok(Source::Folder("/".into())));
        assert_eq!(of("no/such.json"), Ok(Source::File("no/such.json".into())));
        assert_eq!(of("s3://b"), Err("`s3://b` names no object".to_owned()));
        assert_eq!(of("s3://b/folder/"), Err("`s3://b/folder/` names no object".to_owned()));
        assert!(of("https://example.org/state").unwrap_err().contains("the kind `https`"));
    }

    #[test]
    fn workspaces_have_keys_of_their_own() {
        let key = |workspace: Option<&str>, prefix: &str| match Source::of(
            "s3://b/k/t.tfstate",
            workspace,
            prefix,
        ) {
            Ok(Source::Object(object)) => object.key,
            other => panic!("{other:?}"),
        };
        assert_eq!(key(None, "env:"), "k/t.tfstate");
        assert_eq!(key(Some("default"), "env:"), "k/t.tfstate");
        assert_eq!(key(Some("dev"), "env:"), "env:/dev/k/t.tfstate");
        assert_eq!(key(Some("dev"), "work"), "work/dev/k/t.tfstate");
    }
}
