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
    assert_eq!(names, ["db-primary", "sbc-blue.1-node-0", "sbc-blue.1-node-1"]);
    assert_eq!(
        all["hosts"]["sbc-blue.1-node-0"],
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
            (r#"module.sbc["blue.1"].aws_instance.node[0]"#, "sbc-blue.1-node-0", ""),
            (
                r#"module.sbc["blue.1"].aws_instance.node[1]"#,
                "sbc-blue.1-node-1",
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
        &["--host", "sbc-blue.1-node-0"],
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
    assert_eq!(hosts(&["--limit", "node:!sbc-blue.1-node-1"]), ["sbc-blue.1-node-0"]);
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

fn state(resources: Value) -> String {
    json!({"version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "l", "outputs": {}, "resources": resources})
        .to_string()
}

fn instance(number: usize, tags: Value) -> Value {
    json!({"attributes": {"id": format!("i-{number:017x}"), "instance_state": "running",
        "availability_zone": "us-east-1a", "private_ip": "10.0.0.1", "tags": tags, "tags_all": tags}})
}

fn block(module: Option<&str>, kind: &str, name: &str, instances: &[Value]) -> Value {
    json!({"module": module, "mode": "managed", "type": kind, "name": name, "instances": instances})
}

fn output(document: &str, args: &[&str]) -> Value {
    let outcome = tool().args(["-"]).args(args).stdin(document.to_owned()).run();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn names_in(inventory: &Value) -> Vec<&str> {
    inventory["all"]["hosts"].as_object().unwrap().keys().map(String::as_str).collect()
}

/// Terraform 1.11 writes the step into the tags as `{"value", "type"}`.
#[test]
fn one_sensitive_tag_leaves_the_others() {
    let mut web = instance(1, json!({"Name": "edge", "Role": "sip", "secret": "canary"}));
    web["sensitive_attributes"] = json!([[
        {"type": "get_attr", "value": "tags"},
        {"type": "index", "value": {"value": "secret", "type": "string"}}
    ]]);
    let document = state(json!([block(None, "aws_instance", "web", &[web])]));
    let inventory = output(&document, &[]);
    assert_eq!(names_in(&inventory), ["edge"]);
    assert!(inventory["all"]["children"]["sip"].is_object());
    assert!(!inventory.to_string().contains("canary"));
}

#[test]
fn a_group_called_like_a_host_keeps_its_hosts_under_another_name() {
    let document = state(json!([block(
        None,
        "aws_instance",
        "web",
        &[instance(1, json!({"Name": "sip"})), instance(2, json!({"Name": "b", "Role": "sip"}))]
    ),]));
    let children = output(&document, &[])["all"]["children"].take();
    assert_eq!(children["group_sip"]["hosts"], json!({"b": {}}));
    assert_eq!(children["web"]["hosts"], json!({"b": {}, "sip": {}}));
    assert_eq!(output(&document, &["--explain"])["renamed_groups"]["sip"], "group_sip");
    // Also like a host of another source.
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(
        path("a"),
        state(json!([block(None, "aws_instance", "web", &[instance(1, json!({"Name": "sip"}))])])),
    )
    .unwrap();
    fs::write(
        path("b"),
        state(json!([block(
            None,
            "aws_instance",
            "web",
            &[instance(2, json!({"Name": "b", "Role": "sip"}))]
        )])),
    )
    .unwrap();
    let outcome = tool().args([path("a"), path("b")]).run();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    let inventory: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(inventory["all"]["children"]["group_sip"]["hosts"], json!({"b": {}}));
}

#[test]
fn modules_with_keys_become_hosts_of_their_own() {
    let of = |tags: Value| {
        let module = |key: &str, number| {
            block(
                Some(&format!("module.host[{key}]")),
                "aws_instance",
                "this",
                &[instance(number, tags.clone())],
            )
        };
        state(json!([
            module("\"a\"", 1),
            module("\"b\"", 2),
            module("0", 3),
            module("\"é\"", 4),
            module("\"ü\"", 5)
        ]))
    };
    assert_eq!(
        names_in(&output(&of(json!({})), &[])),
        ["host-0-this", "host-a-this", "host-b-this", "host-u00e9-this", "host-u00fc-this"]
    );
    let named = of(json!({"Name": "sbc"}));
    assert_eq!(
        names_in(&output(&named, &["--on-duplicate", "suffix"])),
        [
            "sbc-host-0-this",
            "sbc-host-a-this",
            "sbc-host-b-this",
            "sbc-host-u00e9-this",
            "sbc-host-u00fc-this"
        ]
    );
    let outcome = tool().args(["-"]).stdin(named).run();
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("`--on-duplicate suffix`"), "{}", outcome.stderr);
}

#[test]
fn suffix_tells_hosts_of_several_sources_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (at, name) in ["dev", "prod"].iter().enumerate() {
        let tags = json!({"Name": "edge", "environment": name});
        let text = state(json!([block(None, "aws_instance", "edge", &[instance(at, tags)])]));
        fs::write(path(name), text).unwrap();
    }
    let run = |args: &[&str]| tool().args([path("dev"), path("prod")]).args(args).run();
    let refused = run(&[]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("hint: `--on-duplicate suffix`"), "{}", refused.stderr);
    let outcome = run(&["--on-duplicate", "suffix"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    let inventory: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(names_in(&inventory), ["edge-dev", "edge-prod"]);
    assert_eq!(inventory["all"]["hosts"]["edge-prod"]["instance_id"], "i-00000000000000001");

    // What `last` decided against is no host in what explains it.
    let explained = run(&["--on-conflict", "last", "--explain"]);
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    let explained: Value = serde_json::from_str(&explained.stdout).unwrap();
    let seen: Vec<(Option<&str>, Option<&str>)> = explained["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["host"].as_str(), entry["skipped"].as_str()))
        .collect();
    assert_eq!(seen, [(None, Some("conflict")), (Some("edge"), None)]);
    assert_eq!(explained["instances"][0]["groups"], json!([]));
}

#[test]
fn an_output_of_another_shape_does_not_make_a_state_unusable() {
    let mut document: Value = serde_json::from_str(&state(json!([block(
        None,
        "aws_instance",
        "web",
        &[instance(1, json!({}))]
    )])))
    .unwrap();
    document["outputs"] = json!({"inventory": {"value": "[web]\n10.0.0.1", "type": "string"}, "domain": {"value": "x", "type": "string"}});
    let refused = tool().args(["-"]).stdin(document.to_string()).run();
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("`--guess` makes the inventory"), "{}", refused.stderr);
    let inventory = output(&document.to_string(), &["--guess", "--var-from-output", "domain"]);
    assert_eq!(names_in(&inventory), ["web"]);
    assert_eq!(inventory["all"]["vars"]["domain"], "x");
    // A secret one is not looked at.
    document["outputs"]["inventory"]["sensitive"] = json!(true);
    assert_eq!(names_in(&output(&document.to_string(), &["--guess"])), ["web"]);
    // Outputs alone have nothing to guess from.
    let outputs =
        json!({"inventory": {"sensitive": false, "type": "string", "value": "x"}}).to_string();
    let refused = tool().args(["-"]).stdin(outputs.clone()).run();
    assert!(refused.stderr.contains("give the state with `--guess`"), "{}", refused.stderr);
    let refused = tool().args(["-", "--guess"]).stdin(outputs).run();
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("has outputs alone, and nothing to guess hosts from"),
        "{}",
        refused.stderr
    );
}

#[test]
fn every_resource_that_could_be_taken_for_a_host_is_explained() {
    let spot = |id: &str| {
        let mut spot = instance(7, json!({"Name": "cheap"}));
        spot["attributes"]["id"] = json!("sir-12345678");
        spot["attributes"]["spot_instance_id"] = json!(id);
        spot
    };
    let document = state(json!([
        block(None, "aws_spot_instance_request", "spot", &[spot("i-0123456789abcdef7"), spot("")]),
        block(
            None,
            "ansible_host",
            "h",
            &[json!({"attributes": {"id": "h", "name": "h", "groups": ["g"]}})]
        ),
        block(None, "ansible_group", "g", &[json!({"attributes": {"id": "g", "name": "g"}})]),
        block(None, "aws_ec2_fleet", "f", &[json!({"attributes": {"id": "fleet-1"}})]),
    ]));
    assert_eq!(names_in(&output(&document, &[])), ["cheap"]);
    let explained = output(&document, &["--explain"]);
    let seen: Vec<(&str, Option<&str>, Option<&str>)> = explained["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (entry["address"].as_str().unwrap(), entry["host"].as_str(), entry["skipped"].as_str())
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("aws_spot_instance_request.spot", Some("cheap"), None),
            ("aws_spot_instance_request.spot", None, Some("no-spot")),
            ("ansible_host.h", None, Some("type")),
            ("ansible_group.g", None, Some("type")),
            ("aws_ec2_fleet.f", None, Some("type")),
        ]
    );
}

#[test]
fn tags_count_in_any_case() {
    let tags = json!({"role": "sip", "PROJECT": "phones", "environment": "dev"});
    let document = state(json!([block(None, "aws_instance", "web", &[instance(1, tags)])]));
    let all = output(&document, &["--group-by", "role"])["all"].take();
    let groups: Vec<&String> = all["children"].as_object().unwrap().keys().collect();
    assert_eq!(groups, ["env_dev", "group_web", "role_sip", "sip"]);
    assert_eq!(all["vars"]["deploy_project"], "phones");
    assert_eq!(all["vars"]["deploy_environment"], "dev");
}

#[test]
fn an_error_is_a_line_and_its_hint_fits() {
    let equal: Vec<Value> =
        (0..5000).map(|number| instance(number, json!({"Name": "edge"}))).collect();
    let document = state(json!([block(None, "aws_instance", "edge", &equal)]));
    let outcome = tool().args(["-"]).stdin(document).run();
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.len() < 4000, "{} bytes", outcome.stderr.len());
    assert!(outcome.stderr.contains("; and 4991 more\n"), "{}", outcome.stderr);

    let mut other = instance(1, json!({}));
    other["attributes"]["id"] = json!("instance-1");
    let document = state(json!([block(None, "aws_instance", "web", &[other])]));
    let outcome = tool().args(["-"]).stdin(document).run();
    assert!(
        outcome.stderr.contains("has the ID `instance-1`, which EC2 does not give"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("`Name` tag"), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("hint: an ID looks like `i-0123456789abcdef0`"),
        "{}",
        outcome.stderr
    );

    // A state that Terraform has upgraded from format 3 has its attributes in the old form.
    let flat = json!({"attributes_flat": {"id": "i-0123456789abcdef0", "private_ip": "10.0.0.1", "tags.%": "1", "tags.Name": "old"}});
    let document = state(json!([block(None, "aws_instance", "web", &[flat])]));
    assert_eq!(names_in(&output(&document, &[])), ["old"]);
}
