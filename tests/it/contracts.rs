//! What one tool writes, the next one reads; both as `docs/contracts/` says.

use crate::{root, tool};
use deploy_testkit::Tool;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn read_json(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_valid(schema: &str, document: &Value) {
    let schema = read_json(&root().join("docs/contracts").join(schema));
    let validator = jsonschema::validator_for(&schema).expect("the schema itself is valid");
    let problems: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn outputs_become_an_inventory_and_a_report_that_notify_slack_reads() {
    let outputs = root().join("tests/fixtures/contracts/outputs.json");
    assert_valid("inventory-output.schema.json", &read_json(&outputs)["inventory"]["value"]);
    let folder = tempfile::tempdir().unwrap();
    let (inventory, report) =
        (folder.path().join("inventory.json"), folder.path().join("report.json"));
    let outcome = Tool::new(tool("tf-to-inventory"))
        .args([&outputs, Path::new("--output"), &inventory, Path::new("--report"), &report])
        .run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);

    let inventory =
        deploy_inventory::Inventory::parse(&fs::read_to_string(inventory).unwrap()).unwrap();
    let host = inventory.select(Some("sip")).unwrap()[0];
    assert_eq!(host.name, "dev-platform-1");
    assert_eq!(host.instance_id.as_deref(), Some("i-0123456789abcdef0"));
    assert_eq!(host.public_ip.as_deref(), Some("203.0.113.10"));
    assert_eq!(
        (inventory.project(), inventory.environment()),
        (Some("calldata-foundation"), Some("dev"))
    );

    assert_valid("report.schema.json", &read_json(&report));
    let outcome = Tool::new(tool("notify-slack"))
        .args(["--dry-run", "--report", report.to_str().unwrap()])
        .run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("1 host in 6 groups"), "{}", outcome.stdout);
}

#[test]
fn an_error_leaves_a_report_too() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let outcome = Tool::new(tool("tf-to-inventory"))
        .args([Path::new("/nonexistent.json"), Path::new("--report"), &report])
        .run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    let report = read_json(&report);
    assert_valid("report.schema.json", &report);
    assert_eq!(report["outcome"], "usage");
}

#[test]
fn a_report_that_cannot_be_written_takes_no_answer_away() {
    let outputs = root().join("tests/fixtures/contracts/outputs.json");
    let outcome = Tool::new(tool("tf-to-inventory"))
        .args([&outputs, Path::new("--report"), Path::new("/dev/null/report.json")])
        .run();
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(outcome.stderr.starts_with("error: cannot write the report `/dev/null/report.json`: "));
    assert!(outcome.stdout.contains("dev-platform-1"), "{}", outcome.stdout);
}
