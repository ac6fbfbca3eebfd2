//! Where the state of a folder that Terraform runs in lies.
//!
//! A local state and one in S3 are read as they are. Every other backend, and settings of the S3 backend that change who
//! asks or what is asked (a role, a profile, an endpoint, a key of the customer's own), are Terraform's business: it is
//! asked then (`state pull`, which needs no provider).

use crate::source::{Object, workspace_key};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

/// Where a state is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file.
    File(PathBuf),
    /// In S3.
    Object(Object),
    /// Nowhere: the states are in the folder, and this workspace is not among them. Terraform would make it if asked.
    NoWorkspace {
        /// The workspace.
        workspace: String,
        /// Those that there are, quoted.
        known: Vec<String>,
    },
    /// Where Terraform knows.
    Ask {
        /// Why it must be asked.
        why: String,
    },
}

/// Settings of the S3 backend that change neither who asks nor for what
/// (<https://developer.hashicorp.com/terraform/language/backend/s3>).
const PLAIN: [&str; 9] = [
    "bucket",
    "key",
    "region",
    "workspace_key_prefix",
    "acl",
    "encrypt",
    "kms_key_id",
    "use_lockfile",
    "max_retries",
];
/// Beginnings of names of more such settings.
const PLAIN_PREFIXES: [&str; 4] = ["dynamodb_table", "skip_", "use_path_style", "force_path_style"];

/// Looks into the folder; `data` is `TF_DATA_DIR`, `workspace` the one that was asked for.
///
/// # Errors
/// When a file that is there cannot be read.
pub(crate) fn place(
    folder: &Path,
    data: Option<&str>,
    workspace: Option<&str>,
) -> io::Result<Place> {
    let data = folder.join(data.unwrap_or(".terraform"));
    let chosen = match workspace {
        Some(workspace) => Some(workspace.to_owned()),
        None => read(&data.join("environment"))?.map(|text| text.trim().to_owned()),
    };
    let workspace = chosen.as_deref().filter(|name| !name.is_empty() && *name != "default");
    let pointer = read(&data.join("terraform.tfstate"))?;
    let Some(pointer) = pointer else {
        return local(folder, &Value::Null, workspace);
    };
    let Ok(pointer) = serde_json::from_str::<Value>(&pointer) else {
        return Ok(Place::Ask { why: "its backend's settings are no JSON".to_owned() });
    };
    let (backend, config) = (&pointer["backend"]["type"], &pointer["backend"]["config"]);
    Ok(match backend.as_str() {
        None | Some("local") => local(folder, config, workspace)?,
        Some("s3") => in_s3(config, workspace),
        Some(other) => Place::Ask { why: format!("its backend is `{other}`") },
    })
}

fn local(folder: &Path, config: &Value, workspace: Option<&str>) -> io::Result<Place> {
    let setting = |name: &str, default| config[name].as_str().unwrap_or(default).to_owned();
    let default = folder.join(setting("path", "terraform.tfstate"));
    let folders = folder.join(setting("workspace_dir", "terraform.tfstate.d"));
    let path = match workspace {
        None => default.clone(),
        Some(workspace) => folders.join(workspace).join("terraform.tfstate"),
    };
    if path.is_file() {
        return Ok(Place::File(path));
    }
    match workspace {
        Some(workspace) if !folders.join(workspace).is_dir() => {
            let mut known = workspaces(&folders)?;
            known.extend(default.is_file().then(|| "default".to_owned()));
            known.sort();
            let known = known.iter().map(|name| format!("`{name}`")).collect();
            Ok(Place::NoWorkspace { workspace: workspace.to_owned(), known })
        }
        _ => Ok(Place::Ask { why: format!("it has no `{}`", path.display()) }),
    }
}

/// The workspaces that the local backend keeps, each in a folder of its own.
fn workspaces(folders: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folders) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn in_s3(config: &Value, workspace: Option<&str>) -> Place {
    let is_set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => members.values().any(|value| !value.is_null()),
        _ => true,
    };
    let is_plain = |name: &str| {
        PLAIN.contains(&name) || PLAIN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let settings = config.as_object().into_iter().flatten();
    let special =
        settings.filter(|(name, value)| !is_plain(name) && is_set(value)).map(|(name, _)| name);
    if let Some(name) = special.into_iter().next() {
        return Place::Ask { why: format!("its S3 backend sets `{name}`") };
    }
    let setting = |name: &str| config[name].as_str().map(str::to_owned);
    let (Some(bucket), Some(key)) = (setting("bucket"), setting("key")) else {
        return Place::Ask { why: "its S3 backend names no bucket and key".to_owned() };
    };
    let prefix = setting("workspace_key_prefix").unwrap_or_else(|| "env:".to_owned());
    let key = workspace_key(&key, workspace, &prefix);
    Place::Object(Object { bucket, key, region: setting("region") })
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn folder(backend: &Value) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".terraform")).unwrap();
        let pointer = json!({"version": 3, "terraform_version": "1.11.4", "backend": backend});
        fs::write(folder.path().join(".terraform/terraform.tfstate"), pointer.to_string()).unwrap();
        folder
    }

    fn s3(config: Value) -> Place {
        let folder = folder(&json!({"type": "s3", "config": config}));
        place(folder.path(), None, Some("dev")).unwrap()
    }

    #[test]
    fn a_state_in_s3_is_read_where_the_backend_has_it() {
        let object = |key: &str| {
            let region = Some("eu-west-1".to_owned());
            Place::Object(Object { bucket: "b".into(), key: key.into(), region })
        };
        let mut config = json!({"bucket": "b", "key": "k", "region": "eu-west-1", "role_arn": null, "encrypt": true,
            "use_lockfile": true, "skip_s3_checksum": true, "endpoints": {"s3": null}, "allowed_account_ids": []});
        assert_eq!(s3(config.clone()), object("env:/dev/k"));
        config["workspace_key_prefix"] = json!("w");
        assert_eq!(s3(config.clone()), object("w/dev/k"));
        config["profile"] = json!("other");
        assert_eq!(s3(config), Place::Ask { why: "its S3 backend sets `profile`".into() });
    }

    #[test]
    fn a_local_state_is_read_as_it_is() {
        let folder = folder(
            &json!({"type": "local", "config": {"path": "here.tfstate", "workspace_dir": null}}),
        );
        let at = |path: &str| folder.path().join(path);
        assert!(matches!(place(folder.path(), None, None).unwrap(), Place::Ask { .. }));
        fs::write(at("here.tfstate"), "{}").unwrap();
        assert_eq!(place(folder.path(), None, None).unwrap(), Place::File(at("here.tfstate")));
        // The workspace that `terraform workspace select` left.
        fs::write(at(".terraform/environment"), "blue").unwrap();
        fs::create_dir_all(at("terraform.tfstate.d/blue")).unwrap();
        let blue = at("terraform.tfstate.d/blue/terraform.tfstate");
        fs::write(&blue, "{}").unwrap();
        assert_eq!(place(folder.path(), None, None).unwrap(), Place::File(blue));
        assert_eq!(
            place(folder.path(), None, Some("default")).unwrap(),
            Place::File(at("here.tfstate"))
        );
    }

    #[test]
    fn other_backends_are_terraforms_business() {
        let folder = folder(&json!({"type": "gcs", "config": {}}));
        assert_eq!(
            place(folder.path(), None, None).unwrap(),
            Place::Ask { why: "its backend is `gcs`".into() }
        );
    }
}
