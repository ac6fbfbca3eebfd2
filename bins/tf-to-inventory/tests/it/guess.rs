//! States without the output `inventory`: hosts are guessed, and nothing is lost or let out.

use crate::{fixture, tool};
use serde_json::{Value, json};
use std::fs;

fn guessed(args: &[&str]) -> Value {
    let outcome = tool().args([fixture("state.json")]).args(args).run();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[test]
fn instances_of_modules_count_and_for_each_become_hosts() {
    let all = guessed(&[])["all"].take();
    let names: Vec<&String> = all["hosts"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["db-primary", "sbc-node-0", "sbc-node-1"]);
    assert_eq!(
        all["hosts"]["sbc-node-0"],
        json!({
            "ansible_aws_ssm_instance_id": "i-0123456789abcdef0", "ansible_aws_ssm_region": "us-east-1",
            "ansible_connection": "amazon.aws.aws_ssm", "ansible_host": "i-0123456789abcdef0",
            "instance_id": "i-0123456789abcdef0", "private_ip": "10.0.0.10", "public_ip": "198.51.100.10",
        })
    );
    assert_eq!(
        all["vars"],
        json!({"deploy_environment": "dev", "deploy_project": "phones", "deploy_region": "us-east-1"})
    );
}

#[test]
fn explain_names_every_instance() {
    let explained = guessed(&["--explain"]);
    assert_eq!(explained["sources"][0]["from"], "resources");
    let skipped: Vec<&str> = explained["instances"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["skipped"].as_str())
        .collect();
    assert_eq!(skipped, ["deposed", "stopped", "no-id", "data"]);
    assert_eq!(explained["renamed_groups"]["uc-engine"], "uc_engine");
    // The same with `--format json`: it is JSON already.
    assert_eq!(guessed(&["--explain", "--format", "json"]), explained);
    let notes: Vec<(&str, &str, &str)> = explained["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or("-");
            (text("address"), text("host"), text("note"))
        })
        .collect();
    assert_eq!(
        notes,
        [
            (r#"module.sbc["blue.1"].aws_instance.node[0]"#, "sbc-node-0", ""),
            (
                r#"module.sbc["blue.1"].aws_instance.node[1]"#,
                "sbc-node-1",
                "tainted: the next apply replaces it"
            ),
            (
                r#"module.sbc["blue.1"].aws_instance.node[1]"#,
                "-",
                "left out: deposed: a newer instance has taken its place"
            ),
            (
                r#"aws_instance.db["primary"]"#,
                "db-primary",
                "its name `db primary` is written as `db-primary`"
            ),
            (r#"aws_instance.db["spare"]"#, "-", "left out: was not running at the last refresh"),
            (
                r#"aws_instance.db["lost"]"#,
                "-",
                "left out: has no instance ID: its creation did not finish"
            ),
            ("data.aws_instance.bastion", "-", "left out: a data source, not managed here"),
        ]
    );
}

#[test]
fn no_secret_of_a_state_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    for args in [
        &["--list"][..],
        &["--host", "sbc-node-0"],
        &["--output-format", "yaml"],
        &["--explain"],
        &["--verbose"],
    ] {
        let outcome = tool()
            .args([fixture("state.json")])
            .args(["--report", report.to_str().unwrap()])
            .args(args)
            .actions()
            .run();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let report = fs::read_to_string(&report).unwrap();
        for text in [outcome.stdout, outcome.stderr, outcome.summary, report] {
            assert!(!text.contains("canary"), "{args:?}: {text}");
        }
    }
}

#[test]
fn two_instances_never_share_a_name() {
    let text = fs::read_to_string(fixture("state.json")).unwrap();
    let mut state: Value = serde_json::from_str(&text).unwrap();
    for instance in [0, 1] {
        state["resources"][1]["instances"][instance]["attributes"]["tags"] =
            json!({"Name": "edge"});
    }
    let outcome = tool().args(["-"]).stdin(state.to_string()).run();
    assert_eq!(outcome.code, 2);
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: stdin has no output `inventory`, and its EC2 instances make none: `module.sbc["blue.1"].aws_instance.node[0]` and `module.sbc["blue.1"].aws_instance.node[1]` would both be the host `edge`
    hint: give every instance a `Name` tag of its own, pass `--on-duplicate suffix`, or add the output `inventory`
    "#);
    let outcome = tool().args(["-", "--on-duplicate", "suffix"]).stdin(state.to_string()).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("edge-0") && outcome.stdout.contains("edge-1"));
}

#[test]
fn limit_and_require_group_hold_for_both_kinds_of_source() {
    let hosts = |args: &[&str]| -> Vec<String> {
        guessed(args)["all"]["hosts"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(hosts(&["--limit", "node:!sbc-node-1"]), ["sbc-node-0"]);
    assert_eq!(hosts(&["--require-group", "db", "--require-group", "sbc"]).len(), 3);
    let check = |source: &str, args: &[&str], code: i32, expected: &str| {
        let outcome = tool().args([fixture(source)]).args(args).run();
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    };
    check("state.json", &["--limit", "typo"], 2, "`typo` of the pattern `typo` matches no host");
    check("state.json", &["--limit", "all:!env_dev"], 3, "has no hosts that match `all:!env_dev`");
    check("outputs.json", &["--require-group", "sbc"], 3, "has no host in `sbc`");
    check(
        "outputs.json",
        &["--limit", "alone-1", "--require-group", "sip"],
        3,
        "has no host in `sip`",
    );
}

#[test]
fn explain_says_what_a_name_became() {
    let text = fs::read_to_string(fixture("state.json")).unwrap();
    let mut state: Value = serde_json::from_str(&text).unwrap();
    state["resources"][1]["instances"][0]["attributes"]["tags"] = json!({"Name": "SIP edge"});
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.tfstate");
    fs::write(&path, state.to_string()).unwrap();
    let outcome = tool().args([path.to_str().unwrap(), "--explain"]).run();
    let explained: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(explained["sources"][0]["name"], path.to_str().unwrap());
    let entry = &explained["instances"][0];
    assert_eq!(entry["note"], "its name `SIP edge` is written as `SIP-edge`");
    assert_eq!(entry["instance_id"], "i-0123456789abcdef0");
}
