//! Flags, files, exit statuses.

use crate::{fixture, tool};
use deploy_testkit::Outcome;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn outputs(change: impl FnOnce(&mut Value)) -> String {
    let mut document = read(&fixture("outputs.json"));
    change(&mut document["inventory"]["value"]);
    document.to_string()
}

/// Runs with `document` on stdin and an old output file; it must be as it was afterwards, with nothing beside it.
fn refused(document: &str, code: i32) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inventory.json");
    fs::write(&path, "old").unwrap();
    let outcome = tool().args(["-", "--output", path.to_str().unwrap()]).stdin(document).run();
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    assert_eq!(outcome.stderr.matches("error: ").count(), 1, "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("hint: ").count(), 1, "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    outcome
}

#[test]
fn the_file_is_private_complete_and_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/inventory.json");
    let run =
        || tool().args([&fixture("outputs.json"), Path::new("--output"), &path]).actions().run();
    let outcome = run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        (outcome.outputs["hosts"].as_str(), outcome.outputs["changed"].as_str()),
        ("3", "true")
    );
    assert!(outcome.summary.contains("sip-1"), "{}", outcome.summary);
    assert!(outcome.stderr.contains("`uc-engine` is written as `uc_engine`"), "{}", outcome.stderr);
    let first = fs::read(&path).unwrap();
    assert_eq!(run().outputs["changed"], "false");
    assert_eq!(fs::read(&path).unwrap(), first);
}

#[test]
fn sensitive_outputs_never_leave() {
    let source = fixture("outputs.json");
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    for args in [
        &["--list"][..],
        &["--host", "sip-1"],
        &["--output-format", "yaml"],
        &["--format", "json"],
        &["--verbose"],
    ] {
        let outcome =
            tool().args([&source, Path::new("--report"), &report]).args(args).actions().run();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let report = fs::read_to_string(&report).unwrap();
        for text in [outcome.stdout, outcome.stderr, outcome.summary, report] {
            assert!(!text.contains("canary"), "{args:?}: {text}");
        }
    }
    let mut document = read(&source);
    document["inventory"]["sensitive"] = json!(true);
    document["inventory"]["value"] = json!("canary");
    let outcome = refused(&document.to_string(), 2);
    assert!(!outcome.stderr.contains("canary"), "{}", outcome.stderr);
}

#[test]
fn states_and_show_documents_give_the_same_inventory() {
    let output = read(&fixture("outputs.json"))["inventory"].clone();
    let state = json!({"version": 4, "terraform_version": "1.11.4", "serial": 9, "lineage": "f00", "check_results": null,
        "outputs": {"inventory": {"value": output["value"], "type": "dynamic"}, "secret": {"value": "canary", "type": "string", "sensitive": true}},
        "resources": [{"mode": "managed", "type": "aws_instance", "name": "x", "instances": [{"attributes": {"user_data": "canary"}}]}]});
    let show = json!({"format_version": "1.0", "terraform_version": "1.11.4",
        "values": {"outputs": {"inventory": output}, "root_module": {"resources": []}}});
    let expected = tool().args([fixture("outputs.json")]).run().stdout;
    for document in [state, show] {
        let outcome = tool().args(["-"]).stdin(format!("\u{feff}{document}")).run();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
        assert_eq!(outcome.stdout, expected);
    }
}

#[test]
fn the_script_protocol_answers_quietly() {
    let run = |args: &[&str]| {
        let outcome =
            tool().env("TF_TO_INVENTORY_SOURCE", fixture("outputs.json")).args(args).run();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{args:?}");
        serde_json::from_str::<Value>(&outcome.stdout).unwrap()
    };
    assert_eq!(run(&["--list"])["_meta"]["hostvars"]["sip-2"], run(&["--host", "sip-2"]));
    assert_eq!(run(&["--host", "nobody"]), json!({}));
    let listed = run(&["--list"]);
    let in_json = tool()
        .env("TF_TO_INVENTORY_SOURCE", fixture("outputs.json"))
        .env("TF_TO_INVENTORY_FORMAT", "json")
        .args(["--list"])
        .run();
    assert_eq!(serde_json::from_str::<Value>(&in_json.stdout).unwrap(), listed);
}

#[test]
fn a_wrong_value_of_the_environment_is_told_from_a_typed_one() {
    let wrong = |args: &[&str]| {
        let outcome = tool().env("TF_TO_INVENTORY_ON_CONFLICT", "guess").args(args).run();
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        outcome.stderr.contains("TF_TO_INVENTORY_ON_CONFLICT in the environment")
    };
    assert!(wrong(&["-"]));
    assert!(!wrong(&["-", "--on-conflict", "guesses"]));
    assert!(!wrong(&["-", "--on-conflict=guesses"]));
}

#[test]
fn check_compares_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inventory.json");
    let check = |document: String| {
        tool().args(["-", "--check", "--output", path.to_str().unwrap()]).stdin(document).run()
    };
    let missing = check(outputs(|_| {}));
    assert_eq!(missing.code, 1);
    assert!(missing.stdout.contains("it does not exist"), "{}", missing.stdout);
    assert!(!path.exists());

    assert_eq!(tool().args([&fixture("outputs.json"), Path::new("--output"), &path]).run().code, 0);
    assert_eq!(check(outputs(|_| {})).code, 0);
    let changed = check(outputs(|value| {
        value["hosts"]["sip-3"] = value["hosts"]["sip-2"].take();
        value["hosts"].as_object_mut().unwrap().remove("sip-2");
        value["hosts"]["sip-1"]["instance_id"] = json!("i-0123456789abcdeff");
    }));
    assert_eq!(changed.code, 1);
    assert!(
        changed.stdout.contains("new: sip-3; gone: sip-2; changed: sip-1"),
        "{}",
        changed.stdout
    );
    let variable = check(outputs(|value| value["vars"]["release"] = json!("secret-2")));
    assert!(variable.stdout.contains("variables of all hosts: release"), "{}", variable.stdout);
    assert!(!variable.stdout.contains("secret-2"), "{}", variable.stdout);
    assert_eq!(tool().args(["-", "--check"]).run().code, 2, "--check needs --output");
}

#[test]
fn a_host_without_instance_id_is_named() {
    let outcome =
        refused(&outputs(|value| value["hosts"]["sip-2"]["instance_id"] = Value::Null), 2);
    insta::assert_snapshot!(outcome.stderr, @r"
    error: the output `inventory` in stdin cannot be used: host `sip-2` has no instance_id
    hint: docs/contracts/inventory-output.schema.json describes the output; change the root module and apply
    ");
    let document = outputs(|value| value["hosts"]["sip-2"]["instance_id"] = Value::Null);
    let allowed = tool().args(["-", "--allow-no-instance-id", "--list"]).stdin(document).run();
    let listed: Value = serde_json::from_str(&allowed.stdout).unwrap();
    let host = &listed["_meta"]["hostvars"]["sip-2"];
    assert_eq!(host["ansible_connection"], "amazon.aws.aws_ssm", "it must not fall back to SSH");
    assert_eq!((&host["ansible_host"], &host["instance_id"]), (&Value::Null, &Value::Null));
    let wrong = outputs(|value| value["hosts"]["sip-2"]["instance_id"] = json!("i-2"));
    let wrong = tool().args(["-", "--allow-no-instance-id"]).stdin(wrong).run();
    assert_eq!(wrong.code, 2, "{}", wrong.stdout);
}

#[test]
fn a_truncated_file_says_where_it_ends() {
    let whole = outputs(|_| {});
    let outcome = refused(&whole[..300], 2);
    insta::assert_snapshot!(outcome.stderr, @r"
    error: stdin is cut off: the JSON ends at byte 300 before it is complete
    hint: write it again: `terraform output -json > outputs.json`; a pipe that broke leaves such a file
    ");
}

#[test]
fn bad_documents_are_refused_and_nothing_is_lost() {
    for document in [
        "",
        "{}",
        "[]",
        "<html>",
        "null",
        "\u{1}",
        "{\"a\": 1}",
        r#"{"format_version": "1.0", "resource_changes": []}"#,
    ] {
        refused(document, 2);
    }
    refused(&outputs(|value| value["version"] = json!(2)), 2);
    refused(&outputs(|value| *value = Value::Null), 2);
    refused(&outputs(|value| value["vars"] = json!({"x": {"__ansible_unsafe": "y"}})), 2);
}

#[test]
fn every_prefix_of_a_document_is_refused() {
    let whole = outputs(|_| {});
    let start = Instant::now();
    // The whole parser on each of them, without a process each.
    for end in whole.char_indices().map(|(at, _)| at) {
        assert!(
            tf_to_inventory::document::inventory_value(&whole.as_bytes()[..end]).is_err(),
            "{end}"
        );
    }
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn no_hosts_is_an_answer_only_when_allowed() {
    let empty = outputs(|value| value["hosts"] = json!({}));
    refused(&empty, 3);
    let outcome = tool().args(["-", "--allow-empty"]).stdin(empty).run();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
}

#[test]
fn what_cannot_be_read_or_written_is_named() {
    let check = |args: &[&str], expected: &str| {
        let outcome = tool().args(args).run();
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    };
    let source = fixture("outputs.json");
    check(&["/nonexistent/outputs.json"], "error: cannot read `/nonexistent/outputs.json`");
    check(&["s3://bucket"], "error: `s3://bucket` names no object");
    check(&["https://example.org/x"], "is an address of the kind `https`, and only `s3` is read");
    check(&["-", "-"], "error: `-` is given twice");
    check(
        &[source.to_str().unwrap(), "--output", "/dev/null"],
        "error: cannot replace `/dev/null`",
    );
    check(&[source.to_str().unwrap(), "--output", "/dev/null/x"], "error: cannot");
    check(&[], "<SOURCE>");
    check(&["-", "--list", "--host", "x"], "cannot be used with");
}

#[test]
fn what_is_read_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = fs::read_to_string(fixture("outputs.json")).unwrap();
    fs::write(at("outputs.json"), &text).unwrap();
    fs::write(at("terraform.tfstate"), &text).unwrap();
    fs::hard_link(at("outputs.json"), at("hard")).unwrap();
    std::os::unix::fs::symlink("outputs.json", at("soft")).unwrap();
    fs::create_dir(at("sub")).unwrap();
    let refused = |source: &Path, args: &[(&str, &str)], expected: &str| {
        let mut all = vec![source.to_owned()];
        for (flag, name) in args {
            all.extend([flag.into(), at(name)]);
        }
        let outcome = tool().args(&all).run();
        assert_eq!(outcome.code, 2, "{all:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{all:?}: {}", outcome.stderr);
        for name in ["outputs.json", "terraform.tfstate"] {
            assert_eq!(fs::read_to_string(at(name)).unwrap(), text, "{all:?}");
        }
    };
    let file = at("outputs.json");
    for name in ["outputs.json", "sub/../outputs.json", "hard", "soft"] {
        refused(&file, &[("--output", name)], "would overwrite the source");
        refused(&file, &[("--report", name)], "would overwrite the source");
    }
    refused(folder.path(), &[("--output", "terraform.tfstate")], "would overwrite the source");
    refused(folder.path(), &[("--report", "terraform.tfstate")], "would overwrite the source");
    refused(&file, &[("--output", "new/x"), ("--report", "./new/x")], "are the same file");
    assert!(!at("new").exists());
}

#[test]
fn a_state_without_instances_has_no_hosts() {
    let state = |resources: Value, outputs: Value| {
        json!({"version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "x", "resources": resources, "outputs": outputs})
            .to_string()
    };
    let data = json!([{"mode": "data", "type": "aws_instance", "name": "a", "instances": [{"attributes": {"id": "i-0123456789abcdef0"}}]}]);
    let url = json!({"url": {"value": "x", "type": "string"}});
    let shown = json!({"format_version": "1.0", "values": {"root_module": {}}}).to_string();
    for document in
        [state(json!([]), json!({})), state(json!([]), url.clone()), state(data, url), shown]
    {
        let outcome = refused(&document, 3);
        insta::allow_duplicates! { insta::assert_snapshot!(outcome.stderr, @r"
        error: stdin has no output `inventory`, and no `aws_instance` that is a host
        hint: is it the state of the root module and workspace that has the hosts, and was it applied? `--explain --allow-empty` says what became of each instance; pass `--allow-empty` if no host is meant
        "); }
        let outcome = tool().args(["-", "--allow-empty"]).stdin(document).run();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    }
}

#[test]
fn groups_may_be_spelled_as_terraform_does() {
    let mut document = read(&fixture("outputs.json"));
    document["domain"] = json!({"sensitive": false, "type": "string", "value": "example.org"});
    let run = |args: &[&str]| tool().args(["-"]).args(args).stdin(document.to_string()).run();
    let check = |args: &[&str], code: i32, expected: &str| {
        let outcome = run(args);
        assert_eq!(outcome.code, code, "{args:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{args:?}: {}", outcome.stderr);
    };
    check(&["--var-from-output", "spi.domain"], 2, "no host is in `spi`; the groups are `");
    check(&["--require-group", "uc-engine"], 3, "`uc-engine` (did you mean `uc_engine`?)");
    check(&["--limit", "uc-engine"], 2, "did you mean `uc_engine`?");
    check(&["--require-group", ""], 2, "`--require-group` is empty");
    check(&["--limit", " "], 2, "`--limit` is empty");
    let outcome = run(&["--var-from-output", "uc-engine.domain"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(value["all"]["children"]["uc_engine"]["vars"]["domain"], "example.org");
    let explained: Value =
        serde_json::from_str(&run(&["--var-from-output", "uc-engine.domain", "--explain"]).stdout)
            .unwrap();
    assert_eq!(explained["renamed_groups"]["uc-engine"], "uc_engine");
    assert_eq!(explained["sources"][0]["name"], "stdin");
    assert_eq!(
        explained["instances"][1]["instance_id"],
        value["all"]["hosts"]["sip-1"]["instance_id"]
    );
}

#[test]
fn a_plan_file_is_called_a_plan() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tfplan");
    fs::write(&path, b"PK\x03\x04\x14\x00\xff\xfe").unwrap();
    let outcome = tool().args([&path]).run();
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("is a plan"), "{}", outcome.stderr);
}
