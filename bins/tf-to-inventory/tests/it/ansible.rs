//! `ansible-inventory` reads all three forms and sees the same in them.

use crate::{BINARY, fixture, tool};
use deploy_testkit::Tool;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// On PATH, or in the folder of Python tools that `scripts/test.sh` makes.
#[expect(clippy::disallowed_methods, reason = "a test looks for a program as a shell does")]
pub(crate) fn ansible_inventory() -> PathBuf {
    let venv = std::env::var_os("DEPLOY_VENV").map(|venv| Path::new(&venv).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(venv)
        .map(|folder| folder.join("ansible-inventory"))
        .find(|program| program.is_file())
        .expect("ansible-inventory is on PATH or in $DEPLOY_VENV/bin; scripts/test.sh installs it, or: pip install ansible-core")
}

/// What Ansible makes of an inventory, with the same answer for every run.
fn seen_by_ansible(inventory: &Path, source: Option<&Path>) -> Value {
    let mut ansible = Tool::new(ansible_inventory())
        .env("LC_ALL", "C.UTF-8")
        .env("ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED", "1")
        .args([Path::new("-i"), inventory, Path::new("--list")]);
    if let Some(source) = source {
        ansible = ansible.env("TF_TO_INVENTORY_SOURCE", source);
    }
    let outcome = ansible.run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "", "Ansible has nothing to complain about");
    let mut value: Value = serde_json::from_str(&outcome.stdout).unwrap();
    // Ansible does not promise an order of groups and hosts.
    for group in value.as_object_mut().unwrap().values_mut() {
        for list in group.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut) {
            list.sort_by_key(Value::to_string);
        }
    }
    value
}

fn written(folder: &Path, source: &str, format: &str) -> PathBuf {
    let path = folder.join(format!("{source}.{format}"));
    let outcome = tool()
        .args([&fixture(source), Path::new("--output"), &path])
        .args(["--output-format", format])
        .run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    path
}

#[test]
fn json_yaml_and_script_are_equal_to_ansible() {
    let folder = tempfile::tempdir().unwrap();
    let [json, guessed, shown, nested] = ["outputs.json", "state.json", "show.json", "nested.json"]
        .map(|source| {
            let json = seen_by_ansible(&written(folder.path(), source, "json"), None);
            let yaml = seen_by_ansible(&written(folder.path(), source, "yaml"), None);
            let script = seen_by_ansible(Path::new(BINARY), Some(&fixture(source)));
            assert_eq!(json, yaml);
            assert_eq!(json, script);
            json
        });
    assert_eq!(guessed, shown, "a state and what `show` makes of it");
    assert_eq!(nested["voip"], json!({"children": ["sbc"]}), "edge-2 is in sbc");
    assert_eq!(nested["site"]["children"], json!(["db", "voip"]));
    assert_eq!(nested["_meta"]["hostvars"]["edge-1"]["x"], 2, "the deeper group wins");
    assert_eq!(nested["_meta"]["hostvars"]["edge-1"]["sip_port"], 5060);
    assert_eq!(guessed["uc_engine"]["hosts"], json!(["sbc-blue.1-node-0"]));
    assert_eq!(
        guessed["env_dev"]["hosts"],
        json!(["db-primary", "sbc-blue.1-node-0", "sbc-blue.1-node-1"])
    );

    assert_eq!(json["sip"]["hosts"], json!(["sip-1", "sip-2"]));
    assert_eq!(json["uc_engine"]["hosts"], json!(["sip-1"]));
    assert_eq!(json["ungrouped"]["hosts"], json!(["alone-1"]));
    let host = &json["_meta"]["hostvars"]["sip-1"];
    assert_eq!(host["ansible_host"], "i-0123456789abcdef1");
    assert_eq!(host["sip_port"], 5060);
    assert_eq!(host["numbers"], json!([1, 2.5, 1e16, 1.5e-7, -3, 12_345_678_901_234_567_890_u64]));
    assert_eq!(host["odd"], "a: b # c \u{85} \u{2028} 'quoted' \"twice\" \\ \t é 🎺");
    // Another reader than Ansible sees the same hosts.
    let text = fs::read_to_string(folder.path().join("outputs.json.json")).unwrap();
    let names: Vec<String> = deploy_inventory::Inventory::parse(&text)
        .unwrap()
        .hosts()
        .iter()
        .map(|host| host.name.clone())
        .collect();
    assert_eq!(names, ["alone-1", "sip-1", "sip-2"]);
}

/// Two environments in one: each host keeps the variables of its own.
#[test]
fn merged_environments_mean_to_ansible_what_they_mean_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = |form: &str| folder.path().join(format!("both.{form}"));
    let sources = [fixture("nested.json"), fixture("outputs.json")];
    for form in ["json", "yaml"] {
        let outcome = tool()
            .args(&sources)
            .args(["--group-by", "region", "--output-format", form, "--output"])
            .args([path(form)])
            .run();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    }
    let json = seen_by_ansible(&path("json"), None);
    assert_eq!(json, seen_by_ansible(&path("yaml"), None));
    let text = fs::read_to_string(path("json")).unwrap();
    let inventory = deploy_inventory::Inventory::parse(&text).unwrap();
    for host in inventory.hosts() {
        for (name, seen) in json["_meta"]["hostvars"][&host.name].as_object().unwrap() {
            if name != "deploy_environment" && name != "domain" && name != "x" && name != "sip_port"
            {
                continue;
            }
            assert_eq!(inventory.variable(host, name), Some(seen), "{name} of {}", host.name);
        }
    }
    let hostvars = &json["_meta"]["hostvars"];
    assert_eq!(hostvars["edge-1"]["deploy_environment"], "prod");
    assert_eq!(hostvars["sip-1"]["deploy_environment"], "dev");
    assert_eq!(json["region_eu_west_1"]["hosts"], json!(["db-1", "edge-1", "edge-2"]));
}

/// `{{ 6 * 7 }}` in an output stays text when a task prints it.
#[test]
fn ansible_never_evaluates_text_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let program = ansible_inventory().with_file_name("ansible");
    let script = PathBuf::from(BINARY);
    for inventory in [
        written(folder.path(), "outputs.json", "json"),
        written(folder.path(), "outputs.json", "yaml"),
        script,
    ] {
        let outcome = Tool::new(&program)
            .env("LC_ALL", "C.UTF-8")
            .env("TF_TO_INVENTORY_SOURCE", fixture("outputs.json"))
            .args([Path::new("sip-1"), Path::new("-i"), &inventory])
            .args([
                "-e",
                "ansible_connection=local",
                "-m",
                "debug",
                "-a",
                "msg='{{ motd }}|{{ deep.text }}|{{ words[8] }}'",
            ])
            .run();
        assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
        let expected = r#""msg": "{{ 6 * 7 }}|{# hidden #}|{% raw %}""#;
        assert!(outcome.stdout.contains(expected), "{}: {}", inventory.display(), outcome.stdout);
    }
}

/// Terraform's numbers have 512 bits, Python's as many as they take.
#[test]
fn numbers_keep_their_digits_on_the_way_to_ansible() {
    let folder = tempfile::tempdir().unwrap();
    let huge = format!("1{}", "0".repeat(300));
    let third = format!("0.{}5", "3".repeat(153));
    let numbers = [
        "18446744073709551616",
        "123456789012345678901234567890",
        "-9223372036854775809",
        &huge,
        "0.1234567890123456789012345",
        &third,
        "2.50",
    ];
    let text = fs::read_to_string(fixture("outputs.json")).unwrap();
    let numbers = numbers.join(", ");
    let text = text.replacen("\"vars\": {", &format!("\"vars\": {{\"n\": [{numbers}], "), 1);
    assert!(text.contains(&huge), "the fixture has variables");
    let source = folder.path().join("outputs.json");
    fs::write(&source, &text).unwrap();
    for form in ["json", "yaml"] {
        let path = folder.path().join(form).with_extension(form);
        let outcome =
            tool().args([&source]).args(["--output-format", form, "--output"]).args([&path]).run();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let written = fs::read_to_string(&path).unwrap();
        let squeezed: String = written.split_whitespace().collect::<Vec<_>>().join(" ");
        for number in numbers.split(", ") {
            assert!(squeezed.contains(&format!(" {number}")), "{number} in {form}");
        }
        let again = tool().args([&source]).args(["--output-format", form, "--check", "--output"]);
        assert_eq!(again.args([&path]).run().code, 0, "the same bytes in another process");
        let seen = seen_as_text(&path, None);
        assert!(seen.contains(&huge), "{form}: {seen}");
        assert!(seen.contains("123456789012345678901234567890"), "{form}: {seen}");
    }
    let seen = seen_as_text(Path::new(BINARY), Some(&source));
    assert!(seen.contains("-9223372036854775809") && seen.contains(&huge), "{seen}");
    // What changed is told by its name, not by how many digits a reader keeps.
    let path = folder.path().join("json.json");
    fs::write(&source, text.replacen("2.50", "2.51", 1)).unwrap();
    let outcome = tool().args([&source]).args(["--check", "--output"]).args([&path]).run();
    assert_eq!(outcome.code, 1);
    assert!(
        !outcome.stderr.contains("sip-2") && !outcome.stdout.contains("sip-2, "),
        "{}",
        outcome.stdout
    );
}

fn seen_as_text(inventory: &Path, source: Option<&Path>) -> String {
    let ansible = Tool::new(ansible_inventory())
        .env("LC_ALL", "C.UTF-8")
        .env("ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED", "1")
        .args([Path::new("-i"), inventory, Path::new("--list")]);
    let ansible = source
        .into_iter()
        .fold(ansible, |ansible, source| ansible.env("TF_TO_INVENTORY_SOURCE", source));
    let outcome = ansible.run();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    outcome.stdout
}

/// `_meta` is where a script's answer has the variables of hosts, `all` and `ungrouped` are Ansible's own.
#[test]
fn groups_called_like_ansibles_own_keep_their_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(fixture("state.json")).unwrap();
    let mut state: Value = serde_json::from_str(&text).unwrap();
    let tags = json!({"Name": "edge", "AnsibleGroups": "_meta,all,ungrouped,sip"});
    state["resources"][1]["instances"][0]["attributes"]["tags"] = tags;
    let source = folder.path().join("state.json");
    fs::write(&source, state.to_string()).unwrap();
    let seen = seen_by_ansible(Path::new(BINARY), Some(&source));
    for group in ["group__meta", "group_all", "group_ungrouped", "sip"] {
        assert_eq!(seen[group]["hosts"], json!(["edge"]), "{group}");
    }
    assert_eq!(seen["_meta"]["hostvars"]["edge"]["private_ip"], "10.0.0.10");

    let text = fs::read_to_string(fixture("outputs.json")).unwrap();
    let mut outputs: Value = serde_json::from_str(&text).unwrap();
    outputs["inventory"]["value"]["group_vars"]["_meta"] = json!({"x": 1});
    let outcome = tool().args(["-", "--list"]).stdin(outputs.to_string()).run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""));
    let expected = "the group `_meta` is Ansible's own: its script protocol keeps the variables of hosts there";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}
