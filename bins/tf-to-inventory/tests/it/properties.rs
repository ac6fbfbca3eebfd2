//! What holds for every inventory, whatever the input.

use deploy_inventory::Inventory;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use tf_to_inventory::ansible::{json_file, script_host, script_list};
use tf_to_inventory::contract::convert;
use tf_to_inventory::guess::{OnDuplicate, Options, guess};
use tf_to_inventory::merge::{OnConflict, Part, merge};
use tf_to_inventory::resources::Resource;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("{{ lookup('pipe', 'id') }}")),
        Just(json!("{% raw %}")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-z_]{1,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn contract() -> impl Strategy<Value = Value> {
    let groups = || vec("[a-zA-Z0-9 ._-]{1,8}", 0..4);
    let vars = || btree_map("[a-z][a-z_]{2,8}", value(), 0..4);
    let hosts = btree_map("[a-z][a-z0-9.-]{0,6}[a-z0-9]", (groups(), vars()), 0..6);
    let tree = btree_map("[a-f]", vec("[a-f]", 0..3), 0..4);
    (hosts, vars(), btree_map("[a-zA-Z0-9 ._-]{1,8}", vars(), 0..3), tree).prop_map(|(hosts, vars, group_vars, tree)| {
        let hosts: Map<String, Value> = hosts
            .into_iter()
            .enumerate()
            .map(|(number, (name, (groups, vars)))| {
                let id = format!("i-{number:017x}");
                (name, json!({"instance_id": id, "private_ip": "10.0.0.1", "groups": groups, "vars": vars}))
            })
            .collect();
        json!({"version": 1, "project": "p", "environment": "e", "region": "r", "hosts": hosts, "vars": vars,
            "group_vars": group_vars, "group_children": tree})
    })
}

fn resources() -> impl Strategy<Value = Vec<Resource>> {
    let text = || prop_oneof!["\\PC{0,10}", "[a-z-]{1,8}"];
    let tags = btree_map(
        prop_oneof![Just("Name"), Just("Role"), Just("Environment"), Just("AnsibleGroups")],
        text(),
        0..4,
    );
    let one = (text(), vec(text(), 0..3), tags, any::<[bool; 3]>());
    vec(one, 0..8).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(number, (name, modules, tags, [data, deposed, tainted]))| Resource {
                address: format!("aws_instance.{name}[{number}]"),
                modules,
                name,
                data,
                deposed,
                tainted,
                id: Some(format!("i-{number:017x}")),
                zone: Some("us-east-1a".into()),
                tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                ..Resource::default()
            })
            .collect()
    })
}

/// What Ansible must be able to rely on.
fn holds(inventory: &Inventory) {
    let groups: BTreeSet<&str> = inventory.groups().into_iter().collect();
    for group in &groups {
        assert!(group.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{group}");
        assert!(!group.starts_with(|c: char| c.is_ascii_digit()), "{group}");
        assert!(!matches!(*group, "all" | "ungrouped"), "{group}");
    }
    let names: Vec<&str> = inventory.hosts().iter().map(|host| host.name.as_str()).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    assert!(names.iter().all(|name| !groups.contains(name)), "{names:?} {groups:?}");

    let text = json_file(inventory);
    assert_eq!(&text, &json_file(inventory), "the same bytes each time");
    let again = Inventory::parse(&text).unwrap();
    assert_eq!(json_file(&again), text, "what is written reads back");

    let list: Value = serde_json::from_str(&script_list(inventory)).unwrap();
    let hostvars = list["_meta"]["hostvars"].as_object().unwrap();
    let members: BTreeSet<&str> = list
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "_meta")
        .flat_map(|(_, group)| group["hosts"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    for host in inventory.hosts() {
        assert!(members.contains(host.name.as_str()), "{} would be dropped", host.name);
        let one: Value = serde_json::from_str(&script_host(inventory, &host.name)).unwrap();
        assert_eq!(hostvars[&host.name], one);
        assert_eq!(one["ansible_host"].as_str(), host.instance_id.as_deref());
    }
    assert_unsafe(&list, false);
}

/// Whatever Ansible would evaluate is marked.
fn assert_unsafe(value: &Value, marked: bool) {
    match value {
        Value::String(text) => {
            let template = ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark));
            assert!(marked || !template, "{text}");
        }
        Value::Array(items) => items.iter().for_each(|item| assert_unsafe(item, false)),
        Value::Object(members) => {
            let marked = members.len() == 1 && members.contains_key("__ansible_unsafe");
            members.values().for_each(|value| assert_unsafe(value, marked));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_contract_gives_a_sound_inventory_or_problems(value in contract()) {
        match convert(&value, false) {
            Ok(converted) => {
                prop_assert_eq!(converted.inventory.hosts().len(), value["hosts"].as_object().unwrap().len());
                holds(&converted.inventory);
            }
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }

    #[test]
    fn every_guess_keeps_each_instance_or_says_why(resources in resources(), suffix in any::<bool>()) {
        let on_duplicate = if suffix { OnDuplicate::Suffix } else { OnDuplicate::Error };
        let options = Options { on_duplicate, role_groups: true, ..Options::default() };
        match guess(&resources, options) {
            Ok(guess) => {
                let wanted = resources.iter().filter(|resource| resource.skipped().is_none()).count();
                prop_assert_eq!(guess.inventory.hosts().len(), wanted);
                prop_assert_eq!(guess.explained.len(), resources.len());
                holds(&guess.inventory);
            }
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }

    #[test]
    fn merging_loses_nothing(left in contract(), right in contract()) {
        let parts: Vec<Part> = [left, right]
            .iter()
            .filter_map(|value| Some(Part { name: "x".into(), inventory: convert(value, false).ok()?.inventory }))
            .collect();
        if let Ok(merged) = merge(parts.clone(), OnConflict::Error, &[]) {
            prop_assert!(merged.conflicts.is_empty());
            holds(&merged.inventory);
            for host in parts.iter().flat_map(|part| part.inventory.hosts()) {
                prop_assert!(merged.inventory.hosts().iter().any(|kept| kept.instance_id == host.instance_id));
            }
        }
    }
}
