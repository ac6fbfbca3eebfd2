//! An inventory in the forms that Ansible reads: file (JSON, YAML) and script protocol. All three say the same.
//!
//! Protocol: <https://docs.ansible.com/ansible/latest/dev_guide/developing_inventory.html#inventory-scripts>.

use crate::contract::UNSAFE;
use deploy_inventory::{Host, Inventory};
use serde_json::{Map, Value, json};

/// The inventory file as JSON.
pub fn json_file(inventory: &Inventory) -> String {
    pretty(&inventory.to_value())
}

/// The inventory file as YAML.
pub fn yaml_file(inventory: &Inventory) -> String {
    let mut out = String::from("---\n");
    yaml_members(&mut out, &inventory.to_value(), 0);
    out
}

/// What `--list` answers. A host without a group stands in `ungrouped`: Ansible drops hosts that stand in no group.
pub fn script_list(inventory: &Inventory) -> String {
    let hostvars: Map<String, Value> = inventory
        .hosts()
        .iter()
        .map(|host| (host.name.clone(), Value::Object(host.vars.clone())))
        .collect();
    let names =
        |hosts: &[&Host]| -> Vec<Value> { hosts.iter().map(|host| json!(host.name)).collect() };
    let mut children = vec!["ungrouped"];
    children.extend(inventory.groups());
    let mut list = Map::new();
    list.insert("_meta".to_owned(), json!({ "hostvars": hostvars }));
    list.insert("all".to_owned(), json!({ "children": children, "vars": inventory.all_vars() }));
    for (group, hosts) in inventory.members() {
        let mut value = Map::from_iter([("hosts".to_owned(), names(&hosts).into())]);
        if let Some(vars) = inventory.group_vars(group).filter(|vars| !vars.is_empty()) {
            value.insert("vars".to_owned(), Value::Object(vars.clone()));
        }
        let children: Vec<&str> = inventory.children(group).collect();
        if !children.is_empty() {
            value.insert("children".to_owned(), json!(children));
        }
        list.insert(group.to_owned(), Value::Object(value));
    }
    let alone: Vec<&Host> =
        inventory.hosts().iter().filter(|host| host.groups.is_empty()).collect();
    list.insert("ungrouped".to_owned(), json!({ "hosts": names(&alone) }));
    pretty(&Value::Object(list))
}

/// What `--host` answers; `{}` for a host that is not in the inventory, as Ansible expects.
pub fn script_host(inventory: &Inventory, name: &str) -> String {
    let vars =
        inventory.hosts().iter().find(|host| host.name == name).map(|host| host.vars.clone());
    pretty(&Value::Object(vars.unwrap_or_default()))
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("JSON values have only string keys");
    text.push('\n');
    text
}

/// Block layout with JSON's scalars, which YAML 1.1 (what PyYAML reads) takes for the same values.
fn yaml_members(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                out.push_str(&format!("{indent}{}:", quoted(key)));
                yaml_value(out, value, depth);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&format!("{indent}-"));
                yaml_value(out, item, depth);
            }
        }
        _ => {}
    }
}

fn yaml_value(out: &mut String, value: &Value, depth: usize) {
    let scalar = match value {
        Value::Object(members) => match members.get(UNSAFE) {
            Some(Value::String(text)) => format!("!unsafe {}", quoted(text)),
            _ if members.is_empty() => "{}".to_owned(),
            _ => {
                out.push('\n');
                return yaml_members(out, value, depth + 1);
            }
        },
        Value::Array(items) if items.is_empty() => "[]".to_owned(),
        Value::Array(_) => {
            out.push('\n');
            return yaml_members(out, value, depth + 1);
        }
        Value::String(text) => quoted(text),
        Value::Number(number) => yaml_number(&number.to_string()),
        other => other.to_string(),
    };
    out.push_str(&format!(" {scalar}\n"));
}

/// YAML 1.1 takes `1e16` for a string: a float has a point, and its exponent a sign.
fn yaml_number(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return text.to_owned() };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['+', '-']) { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// A JSON string in which everything is escaped that PyYAML refuses or takes for the end of a line.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_holds_what_json_holds() {
        let value = json!({"a": {"b": [], "c": {}, "d": [1, "x: #", [2.5, null, 1e16, 1.5e-7]]}, "e\u{85}": {UNSAFE: "{{ x }}"}, "yes": "no"});
        let mut out = String::new();
        yaml_members(&mut out, &value, 0);
        insta::assert_snapshot!(out, @r#"
        "a":
          "b": []
          "c": {}
          "d":
            - 1
            - "x: #"
            -
              - 2.5
              - null
              - 1.0e+16
              - 1.5e-7
        "e\u0085": !unsafe "{{ x }}"
        "yes": "no"
        "#);
    }
}
