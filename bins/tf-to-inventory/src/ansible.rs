//! An inventory in the forms that Ansible reads: file (JSON, YAML) and script protocol. All three say the same.
//!
//! Protocol: <https://docs.ansible.com/ansible/latest/dev_guide/developing_inventory.html#inventory-scripts>.

use crate::contract::UNSAFE;
use crate::number;
use deploy_inventory::Inventory;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The inventory file as JSON.
pub fn json_file(inventory: &Inventory) -> String {
    pretty(inventory)
}

/// The inventory file as YAML.
pub fn yaml_file(inventory: &Inventory) -> String {
    let mut out = String::from("---\n");
    yaml_members(&mut out, &inventory.to_value(), 0);
    out
}

/// What `--list` answers. A host without a group stands in `ungrouped`: Ansible drops hosts that stand in no group.
pub fn script_list(inventory: &Inventory) -> String {
    #[derive(Serialize)]
    struct Group<'i> {
        hosts: Vec<&'i str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        vars: Option<&'i Map<String, Value>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        children: Vec<&'i str>,
    }
    #[derive(Serialize)]
    struct List<'i> {
        #[serde(rename = "_meta")]
        meta: Meta<'i>,
        all: All<'i>,
        #[serde(flatten)]
        groups: BTreeMap<&'i str, Group<'i>>,
    }
    #[derive(Serialize)]
    struct Meta<'i> {
        hostvars: BTreeMap<&'i str, &'i Map<String, Value>>,
    }
    #[derive(Serialize)]
    struct All<'i> {
        children: Vec<&'i str>,
        vars: &'i Map<String, Value>,
    }
    let mut groups = BTreeMap::new();
    for (name, hosts) in inventory.members() {
        let hosts = hosts.iter().map(|host| host.name.as_str()).collect();
        let vars = inventory.group_vars(name).filter(|vars| !vars.is_empty());
        groups.insert(name, Group { hosts, vars, children: inventory.children(name).collect() });
    }
    let alone = inventory.hosts().iter().filter(|host| host.groups.is_empty());
    let hosts = alone.map(|host| host.name.as_str()).collect();
    let all = ["ungrouped"].into_iter().chain(groups.keys().copied()).collect();
    groups.insert("ungrouped", Group { hosts, vars: None, children: Vec::new() });
    let hostvars = inventory.hosts().iter().map(|host| (host.name.as_str(), &host.vars)).collect();
    pretty(&List {
        meta: Meta { hostvars },
        all: All { children: all, vars: inventory.all_vars() },
        groups,
    })
}

/// What `--host` answers; `{}` for a host that is not in the inventory, as Ansible expects.
pub fn script_host(inventory: &Inventory, name: &str) -> String {
    let vars =
        inventory.hosts().iter().find(|host| host.name == name).map(|host| host.vars.clone());
    pretty(&Value::Object(vars.unwrap_or_default()))
}

fn pretty(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, number::Pretty::default());
    value.serialize(&mut writer).expect("JSON values have only string keys");
    let mut text = String::from_utf8(bytes).expect("JSON is UTF-8");
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
        Value::String(text) => match number::digits(text) {
            Some(digits) => yaml_number(digits),
            None => quoted(text),
        },
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
    use serde_json::json;

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
