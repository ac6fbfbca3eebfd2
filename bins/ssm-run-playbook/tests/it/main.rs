//! The real binary against a double of Systems Manager that really runs what it is sent, so that a whole playbook run
//! is proven: bundle, supervisor, Ansible, callback, recap, report.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like a test")]

mod bad_input;
mod batches;
mod bucket;
mod bundle;
mod double;
mod events;
mod host;
mod inner;
mod reboots;
mod runs;
mod secrets;
mod stops;

use deploy_testkit::{Outcome, Tool};
use double::Double;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const FIRST: &str = "i-0000000000000000a";
const SECOND: &str = "i-0000000000000000b";

/// A repository with an Ansible folder and an inventory of two hosts.
struct Repository(TempDir);

impl Repository {
    /// `tasks` are the demo role's.
    fn new(tasks: &str) -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        repository.write(
            "ansible/playbooks/site.yml",
            "- name: Demo\n  hosts: sip\n  gather_facts: false\n  roles: [demo]\n",
        );
        repository.write("ansible/roles/demo/tasks/main.yml", tasks);
        repository.write("ansible/inventories/dev/group_vars/all.yml", "greeting: hello\n");
        repository.write("ansible/ansible.cfg", "[defaults]\nroles_path = roles\n");
        repository.inventory(&[("sip-1", Some(FIRST)), ("sip-2", Some(SECOND))]);
        repository
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn inventory(&self, hosts: &[(&str, Option<&str>)]) {
        let vars: serde_json::Map<String, Value> = hosts
            .iter()
            .enumerate()
            .map(|(n, (name, id))| {
                let mut vars = json!({"ansible_connection": "amazon.aws.aws_ssm",
                    "private_ip": format!("10.20.1.{n}")});
                if let Some(id) = id {
                    vars["instance_id"] = json!(id);
                }
                ((*name).to_owned(), vars)
            })
            .collect();
        let members: serde_json::Map<String, Value> =
            hosts.iter().map(|(name, _)| ((*name).to_owned(), json!({}))).collect();
        let all = json!({"all": {"hosts": vars, "children": {"sip": {"hosts": members}},
            "vars": {"deploy_project": "demo", "deploy_environment": "dev", "deploy_region": "us-east-1"}}});
        self.write("inventory.json", all.to_string());
    }

    /// The tool on host `sip-1` unless `args` say otherwise.
    fn tool(&self, double: &Double, args: &[&str]) -> Tool {
        let tool = Tool::new(env!("CARGO_BIN_EXE_ssm-run-playbook"))
            .aws(&double.url())
            .cwd(self.path())
            .args(["--inventory", "inventory.json", "--host-folder", &double.host_folder()])
            .args(["--report", "report.json", "playbooks/site.yml"])
            .args(args);
        if args.contains(&"--limit") { tool } else { tool.args(["--limit", "sip-1"]) }
    }

    fn report(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path().join("report.json")).unwrap()).unwrap()
    }
}

/// Every file below a folder.
fn everything_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// No file below these folders holds this text.
#[track_caller]
fn nowhere_below(folders: &[&Path], text: &str) {
    for path in folders.iter().copied().flat_map(everything_below) {
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!found, "`{text}` is in {}", path.display());
    }
}

#[track_caller]
fn ended(outcome: &Outcome, code: i32, said: &[&str]) {
    let text = format!("{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.code, code, "{text}");
    for words in said {
        assert!(text.contains(words), "`{words}` is missing in:\n{text}");
    }
}

#[test]
fn it_documents_itself() {
    let program = env!("CARGO_BIN_EXE_ssm-run-playbook");
    deploy_testkit::manual_can_be_read(program);
    deploy_testkit::readme_shows_help(program, concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
