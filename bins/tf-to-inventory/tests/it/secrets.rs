//! Nothing that is secret leaves: every input with a canary where secrets stand, every output, log, report and error.

use crate::{fixture, tool};
use serde_json::{Value, json};
use std::fs;

const CANARY: &str = "canary-5f1e";

fn load(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

fn resource() -> Value {
    let step = |value: &str| json!({"type": "get_attr", "value": value});
    json!({"mode": "managed", "type": "aws_instance", "name": "node", "instances": [{
        "attributes": {"id": "i-0123456789abcdef0", "instance_state": "running", "private_ip": "10.0.0.1", "public_ip": CANARY,
            "user_data": CANARY, "user_data_base64": CANARY, "password_data": CANARY, "get_password_data": CANARY,
            "tags": {"Name": "node", "Role": CANARY, "Environment": CANARY}, "tags_all": {"Role": CANARY, "Environment": CANARY}},
        "sensitive_attributes": [[step("public_ip")],
            [step("tags"), {"type": "index", "value": {"value": "Role", "type": "string"}}],
            [step("tags"), step("Role")], [step("tags"), step("Environment")], [step("tags_all")]],
        "private": CANARY}]})
}

/// Documents that hold secrets; good ones and all kinds of bad ones.
fn documents() -> Vec<(&'static str, String)> {
    let secret = json!({"sensitive": true, "type": "string", "value": CANARY});
    let mut outputs = load("outputs.json");
    outputs["token"] = secret.clone();
    outputs["unread"] = json!({"sensitive": false, "type": "string", "value": CANARY});
    let state = json!({"version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "l",
        "outputs": {"token": secret}, "resources": [resource()]});
    let mut of_contract = state.clone();
    of_contract["outputs"]["inventory"] =
        json!({"value": outputs["inventory"]["value"], "type": "dynamic"});
    let mut show = load("show.json");
    let shown = &mut show["values"]["root_module"]["resources"][0];
    shown["values"]["password"] = json!(CANARY);
    let mut sensitive = outputs.clone();
    sensitive["inventory"]["sensitive"] = json!(true);
    sensitive["inventory"]["value"]["vars"]["x"] = json!(CANARY);
    let mut twice = state.clone();
    twice["resources"] = json!([resource(), resource()]);
    let mut newer = state.clone();
    newer["version"] = json!(5);
    let whole = state.to_string();
    let cut = whole[..whole.rfind(CANARY).unwrap() + CANARY.len()].to_owned();
    vec![
        ("outputs", outputs.to_string()),
        ("state", whole.clone()),
        ("state with the output", of_contract.to_string()),
        ("show", show.to_string()),
        ("sensitive inventory", sensitive.to_string()),
        ("two hosts of one name", twice.to_string()),
        ("newer", newer.to_string()),
        ("cut off", cut),
        ("broken", whole.replacen("\"private\":", "\"private\" ", 1)),
        ("raw output", CANARY.to_owned()),
        ("one output", format!("\"{CANARY}\"")),
        ("one map", json!({"password": CANARY, "user": CANARY}).to_string()),
        ("plan", json!({"format_version": "1.2", "planned_values": {"outputs": {"token": CANARY}}}).to_string()),
        ("encrypted", json!({"encrypted_data": CANARY, "encryption_version": "v0", "meta": {"key_provider.pbkdf2.a": CANARY}}).to_string()),
        ("pointer", json!({"version": 3, "backend": {"type": "s3", "config": {"secret_key": CANARY}}}).to_string()),
    ]
}

#[test]
fn no_canary_leaves_by_any_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (report, written) = (path("report.json"), path("inventory"));
    let ways: [&[&str]; 10] = [
        &[],
        &["--list"],
        &["--host", "node"],
        &["--output-format", "yaml"],
        &["--explain"],
        &["--explain", "--format", "json"],
        &["--format", "json", "--verbose"],
        &["--group-by", "role,environment,region"],
        &["--output", &written],
        &["--check", "--output", &written],
    ];
    let (mut good, mut bad) = (0, 0);
    for (kind, document) in documents() {
        for way in ways {
            // The old file holds what a careless predecessor wrote.
            fs::write(&written, json!({"all": {"hosts": {"node": {"x": CANARY}}}}).to_string())
                .unwrap();
            let _ = fs::remove_file(&report);
            let outcome = tool()
                .args(["-", "--report", &report])
                .args(way)
                .actions()
                .stdin(document.clone())
                .run();
            if outcome.code == 0 {
                good += 1
            } else {
                bad += 1
            }
            let mut texts = vec![
                outcome.stdout,
                outcome.stderr,
                outcome.summary,
                fs::read_to_string(&report).unwrap(),
            ];
            texts.extend(outcome.outputs.into_values());
            if way == ["--output", written.as_str()] && outcome.code == 0 {
                texts.push(fs::read_to_string(&written).unwrap());
            }
            for text in texts {
                assert!(!text.contains(CANARY), "{kind} {way:?}: {text}");
            }
        }
    }
    assert!(good >= 35 && bad >= 80, "{good} good, {bad} bad");
}

/// With permission the canary comes out, but only after the runner was told to hide it, and never in report or explanation.
#[test]
fn a_sensitive_inventory_comes_out_by_name_only() {
    let mut document = load("outputs.json");
    document["inventory"]["sensitive"] = json!(true);
    document["inventory"]["value"]["vars"]["x"] = json!(CANARY);
    let run = |args: &[&str]| {
        tool()
            .args(["-", "--include-sensitive", "inventory"])
            .args(args)
            .actions()
            .stdin(document.to_string())
            .run()
    };
    let outcome = run(&[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains(CANARY));
    let masks = outcome.stderr.lines().take_while(|line| line.starts_with("::add-mask::"));
    assert!(masks.into_iter().any(|line| line.ends_with(CANARY)), "{}", outcome.stderr);
    for args in [&["--explain"][..], &["--format", "json"]] {
        let outcome = run(args);
        assert!(!outcome.stdout.contains(CANARY) && !outcome.summary.contains(CANARY), "{args:?}");
    }
}
