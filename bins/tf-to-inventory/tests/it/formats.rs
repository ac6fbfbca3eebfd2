//! Every kind of document that people give, and what the program says to it.

use crate::{fixture, tool};
use serde_json::{Value, json};
use std::fs;

fn load(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

fn names(document: impl Into<Vec<u8>>, args: &[&str]) -> Vec<String> {
    let outcome = tool().args(["-"]).args(args).stdin(document).run();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{args:?}");
    let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
    value["all"]["hosts"].as_object().unwrap().keys().cloned().collect()
}

fn refused(document: impl Into<Vec<u8>>, code: i32, error: &str, hint: &str) {
    let outcome = tool().args(["-"]).stdin(document).run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (code, ""), "{}", outcome.stderr);
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "one line of error, one of hint: {}", outcome.stderr);
    assert!(lines[0].starts_with("error: ") && lines[0].contains(error), "{}", lines[0]);
    assert!(lines[1].starts_with("hint: ") && lines[1].contains(hint), "{}", lines[1]);
}

fn state(resources: Value) -> String {
    json!({"version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "l", "outputs": {}, "resources": resources}).to_string()
}

fn instance(key: Value, number: usize) -> Value {
    json!({"index_key": key, "attributes": {"id": format!("i-{number:017x}"), "instance_state": "running",
        "availability_zone": "us-east-1a", "private_ip": format!("10.0.0.{number}")}})
}

#[test]
fn a_state_and_what_show_makes_of_it_give_the_same_bytes() {
    let of = |name: &str| tool().args([fixture(name)]).run().stdout;
    assert_eq!(of("state.json"), of("show.json"));
    assert!(!of("state.json").is_empty());
}

/// The anchor's case: ten counted instances became one host elsewhere.
#[test]
fn ten_counted_instances_are_ten_hosts() {
    let instances: Vec<Value> = (0..10).map(|n| instance(json!(n), n)).collect();
    let block =
        json!([{"mode": "managed", "type": "aws_instance", "name": "sbc", "instances": instances}]);
    let hosts = names(state(block.clone()), &["--require-group", "sbc"]);
    assert_eq!(hosts.len(), 10);
    assert_eq!(hosts[..2], ["sbc-0", "sbc-1"]);
    // Modules in modules, for_each keys with dots, quotes and brackets.
    let mut deep = block;
    deep[0]["module"] = json!(r#"module.site["a.b"].module.edge[0]"#);
    deep[0]["instances"] = json!([instance(json!("x\"]["), 1), instance(json!("y/z"), 2)]);
    assert_eq!(
        names(state(deep), &["--limit", "site:&edge"]),
        ["site-a.b-edge-0-sbc-x", "site-a.b-edge-0-sbc-y-z"]
    );
}

#[test]
fn a_byte_order_mark_and_blanks_around_are_no_fault() {
    let text = fs::read_to_string(fixture("outputs.json")).unwrap();
    assert_eq!(names(format!("\u{feff}\r\n {text} \n"), &[]).len(), 3);
    refused(
        text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
        2,
        "is not JSON",
        "terraform output -json",
    );
    let marked: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    refused(marked, 2, "is UTF-16 text", "Out-File -Encoding utf8");
}

#[test]
fn what_is_no_state_is_called_by_its_name() {
    let plan = json!({"format_version": "1.2", "planned_values": {}, "resource_changes": [], "prior_state": {}});
    refused(plan.to_string(), 2, "is a plan", "apply it first");
    let encrypted = json!({"serial": 1, "lineage": "l", "meta": {}, "encrypted_data": "AAAA", "encryption_version": "v0"});
    refused(encrypted.to_string(), 2, "encrypted by OpenTofu", "tofu output -json");
    let pointer = json!({"version": 3, "serial": 1, "lineage": "l", "backend": {"type": "s3", "config": {}, "hash": 1}, "modules": []});
    refused(pointer.to_string(), 2, "pointer to a `s3` backend", "terraform state pull");
    refused(
        json!({"version": 3, "serial": 1, "modules": []}).to_string(),
        2,
        "is a state of format 3",
        "`terraform state pull` of Terraform 0.12 or newer prints it in format 4",
    );
    refused(
        json!({"version": 5, "serial": 1, "lineage": "l"}).to_string(),
        2,
        "format 5",
        "newer version of this tool",
    );
    refused(r#"{"format_version": "2.0"}"#, 2, "format_version 2.0", "newer version of this tool");
    for version in ["0.1", "0.2"] {
        let old = json!({"format_version": version, "values": {}}).to_string();
        refused(old, 2, &format!("format_version {version}"), "an old Terraform wrote it");
    }
    refused(b"\x1f\x8b\x08\x00canary".to_vec(), 2, "is compressed with gzip", "gunzip -c");
    let outputs = fs::read_to_string(fixture("outputs.json")).unwrap();
    refused(
        format!("{outputs}{outputs}"),
        2,
        &format!("holds several JSON documents: the second begins at byte {}", outputs.len()),
        "several sources are merged",
    );
    let log = r#"{"@level":"info","@message":"Terraform 1.11.4","type":"version"}"#;
    refused(
        format!("{log}\n{log}\n"),
        2,
        "is Terraform's log for programs",
        "terraform output -json",
    );
    refused(
        format!("2026-12-01T02:00:00Z INFO reading\nnext\n{outputs}"),
        2,
        "the JSON begins in line 3, other text stands before it",
        "without `2>&1`",
    );
    refused(format!("{outputs}Releasing state lock"), 2, "other text follows it at byte", "stdout");
    refused(
        r#"{"dev": {"inventory_1A2B": {"version": 1}, "password": "canary"}}"#,
        2,
        "is the outputs file of CDKTF: bare values below the stacks `dev`",
        "cdktf.out/stacks/STACK",
    );
    refused(
        "<!DOCTYPE html><html><title>Sign in</title></html>",
        2,
        "is an HTML page",
        "check the address",
    );
    refused(
        "Acquiring state lock. This may take a few moments...\n{}",
        2,
        "starts with `Acquiring state lock`",
        "stdout alone",
    );
    refused(
        "[command]/usr/bin/terraform output -json\n{}",
        2,
        "starts with `[command]`",
        "terraform_wrapper: false",
    );
    refused("::debug::terraform exited\n{}", 2, "starts with `::`", "terraform_wrapper: false");
    refused("", 2, "is empty", "write it again");
    refused(r#"{"format_version": "1.0"}"#, 2, "holds no outputs at all", "terraform show -json");
    refused(
        r#"{"a": {"sensitive": false, "type": "string", "value": "x"}}"#,
        2,
        "no output `inventory`, only `a`",
        "terraform show -json",
    );
    refused(
        json!({"all": {"hosts": {}}}).to_string(),
        2,
        "is an Ansible inventory already",
        "--inventory FILE",
    );
    let value = load("outputs.json")["inventory"]["value"].clone();
    refused(value.to_string(), 2, "bare value of one output", "without the name of an output");
}

#[test]
fn a_file_that_is_cut_off_says_where() {
    for name in ["outputs.json", "state.json", "show.json", "nested.json"] {
        let whole = fs::read(fixture(name)).unwrap();
        for part in [3, 2] {
            let cut = whole.len() / part;
            refused(
                &whole[..cut],
                2,
                &format!("is cut off: the JSON ends at byte {cut}"),
                "write it again",
            );
        }
    }
}

#[test]
fn a_state_without_a_host_says_why_each_is_none() {
    let gone = json!([
        {"mode": "data", "type": "aws_instance", "name": "theirs", "instances": [instance(Value::Null, 1)]},
        {"mode": "managed", "type": "aws_instance", "name": "lost", "instances": [{"attributes": {"id": null}}]},
    ]);
    refused(
        state(gone.clone()),
        3,
        "stdin has no output `inventory`, and no `aws_instance` that is a host",
        "`--explain --allow-empty` says what became of each",
    );
    let outcome = tool().args(["-", "--explain", "--allow-empty"]).stdin(state(gone)).run();
    let explained: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let reasons: Vec<&str> = explained["instances"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["skipped"].as_str())
        .collect();
    assert_eq!(reasons, ["data", "no-id"]);
}

/// A launch by an Auto Scaling group is in no state; without AWS the group is told, not lost.
#[test]
fn scaling_groups_of_a_state_are_never_lost_silently() {
    let group = json!({"mode": "managed", "type": "aws_autoscaling_group", "name": "web", "instances": [{
        "attributes": {"id": "dev-web", "name": "dev-web", "availability_zones": ["us-east-1a"],
            "tag": [{"key": "Role", "value": "web-tier", "propagate_at_launch": true}]}}]});
    let one = json!({"mode": "managed", "type": "aws_instance", "name": "db", "instances": [instance(Value::Null, 1)]});
    let document = state(json!([group, one]));
    let outcome =
        tool().args(["-", "--explain", "--scaling-groups", "skip"]).stdin(document.clone()).run();
    let explained: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(explained["instances"][1]["address"], "dev-web");
    assert_eq!(explained["instances"][1]["skipped"], "scaling-group");
    let unreachable = tool().aws("http://127.0.0.1:9").args(["-"]).stdin(document).run();
    assert_eq!(unreachable.code, 6, "{}", unreachable.stderr);
    assert!(
        unreachable.stderr.contains("`--scaling-groups skip` leaves them out"),
        "{}",
        unreachable.stderr
    );
}

#[test]
fn one_host_is_answered_as_in_the_list() {
    for name in ["outputs.json", "state.json", "show.json", "nested.json"] {
        let list: Value =
            serde_json::from_str(&tool().args([fixture(name)]).args(["--list"]).run().stdout)
                .unwrap();
        for (host, vars) in list["_meta"]["hostvars"].as_object().unwrap() {
            let one = tool().args([fixture(name)]).args(["--host", host]).run();
            assert_eq!((one.code, one.stderr.as_str()), (0, ""));
            assert_eq!(&serde_json::from_str::<Value>(&one.stdout).unwrap(), vars, "{host}");
        }
        let nobody = tool().args([fixture(name)]).args(["--host", "nobody"]).run();
        assert_eq!((nobody.code, nobody.stdout.as_str(), nobody.stderr.as_str()), (0, "{}\n", ""));
    }
}

/// A resource of any type and shape stands beside the instances.
#[test]
fn other_resources_do_not_disturb() {
    let odd = json!([
        {"mode": "managed", "type": "x", "name": "a", "each": "list", "instances": [
            {"attributes_flat": {"id": "1"}, "schema_version": 0}, {"attributes": {"id": 7, "tags": "no map", "name": ["x"], "tag": 3, "availability_zones": {}}}]},
        {"mode": "managed", "type": "aws_instance", "name": "b", "provider": "p", "instances": [instance(Value::Null, 1)], "future": {"x": [1]}},
    ]);
    assert_eq!(names(state(odd), &[]), ["b"]);
}
