//! The real binary against a double of EC2 and Systems Manager.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests themselves"
)]

mod cloud;
mod command;
mod input;

use deploy_testkit::Tool;
use serde_json::{Value, json};
use std::path::PathBuf;

const BINARY: &str = env!("CARGO_BIN_EXE_wait-for-cloud-init");

fn id(number: usize) -> String {
    format!("i-{number:017x}")
}

/// An inventory of hosts `host-1` … with the IDs of [`id`].
fn inventory(hosts: usize) -> Value {
    let hosts: serde_json::Map<String, Value> =
        (1..=hosts).map(|n| (format!("host-{n}"), json!({"instance_id": id(n)}))).collect();
    json!({"all": {"hosts": hosts, "vars": {"deploy_region": "us-east-1", "deploy_project": "p", "deploy_environment": "dev"}}})
}

/// A call with this inventory in its home folder.
fn tool(inventory: &Value) -> Tool {
    let tool = Tool::new(BINARY);
    let path: PathBuf = tool.home().join("inventory.json");
    std::fs::write(&path, inventory.to_string()).unwrap();
    tool.args(["--inventory", "inventory.json"])
}

#[test]
fn the_readme_and_the_manual_say_what_help_says() {
    deploy_testkit::readme_shows_help(BINARY, concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    deploy_testkit::manual_can_be_read(BINARY);
}
