//! From the text of an inventory file to hosts.

use crate::layout::Layout;
use crate::{Host, INSTANCE_ID, Inventory, PRIVATE_IP, PUBLIC_IP, REGION};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Why a text is not an inventory.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The file has no content.
    #[error("the inventory is empty")]
    Empty,
    /// It is not JSON.
    #[error("the inventory is not JSON (line {line}, column {column})")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the JSON reader says.
        source: serde_json::Error,
    },
    /// It is JSON, but not an inventory.
    #[error("not an inventory: {0}")]
    Shape(String),
}

struct Reader {
    order: Vec<String>,
    host_vars: BTreeMap<String, Map<String, Value>>,
    memberships: BTreeMap<String, BTreeSet<String>>,
    group_vars: BTreeMap<String, Map<String, Value>>,
    children: BTreeMap<String, BTreeSet<String>>,
    layout: Layout,
}

pub(crate) fn parse(text: &str) -> Result<Inventory, ParseError> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err(ParseError::Empty);
    }
    let value: Value = serde_json::from_str(text).map_err(|source| ParseError::Json {
        line: source.line(),
        column: source.column(),
        source,
    })?;
    let top = object(&value, "the top level")?;
    let all = top.get("all").ok_or_else(|| ParseError::Shape("it has no group `all`".into()))?;
    if let Some(other) = top.keys().find(|key| *key != "all") {
        return Err(ParseError::Shape(format!("unexpected `{other}` beside `all`")));
    }
    let mut reader = Reader {
        order: Vec::new(),
        host_vars: BTreeMap::new(),
        memberships: BTreeMap::new(),
        group_vars: BTreeMap::new(),
        children: BTreeMap::new(),
        layout: Layout::new(),
    };
    reader.group("all", all, &mut Vec::new())?;
    reader.finish()
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, ParseError> {
    value.as_object().ok_or_else(|| ParseError::Shape(format!("{what} is not an object")))
}

impl Reader {
    fn group(
        &mut self,
        name: &str,
        value: &Value,
        path: &mut Vec<String>,
    ) -> Result<(), ParseError> {
        if path.iter().any(|parent| parent == name) {
            return Err(ParseError::Shape(format!("group `{name}` contains itself")));
        }
        self.layout.group(path.last().map(String::as_str), name);
        path.push(name.to_owned());
        if !matches!(name, "all" | "ungrouped") {
            // A group without hosts and variables is one all the same: a pattern may name it.
            self.group_vars.entry(name.to_owned()).or_default();
        }
        if !value.is_null() {
            for (key, value) in object(value, &format!("group `{name}`"))? {
                match key.as_str() {
                    "hosts" => self.hosts(name, value, path)?,
                    "vars" => {
                        let vars = object(value, &format!("`vars` of group `{name}`"))?.clone();
                        self.group_vars.entry(name.to_owned()).or_default().extend(vars);
                    }
                    "children" => {
                        for (child, value) in
                            object(value, &format!("`children` of group `{name}`"))?
                        {
                            if name != "all" {
                                let known = self.children.entry(name.to_owned()).or_default();
                                known.insert(child.clone());
                            }
                            self.group(child, value, path)?;
                        }
                    }
                    other => {
                        return Err(ParseError::Shape(format!(
                            "unexpected `{other}` in group `{name}`"
                        )));
                    }
                }
            }
        }
        path.pop();
        Ok(())
    }

    fn hosts(&mut self, group: &str, value: &Value, path: &[String]) -> Result<(), ParseError> {
        if value.is_null() {
            return Ok(());
        }
        for (host, vars) in object(value, &format!("`hosts` of group `{group}`"))? {
            if !self.host_vars.contains_key(host) {
                self.order.push(host.clone());
            }
            let known = self.host_vars.entry(host.clone()).or_default();
            if !vars.is_null() {
                known.extend(object(vars, &format!("host `{host}`"))?.clone());
            }
            self.layout.host(group, host);
            self.memberships.entry(host.clone()).or_default().extend(path.iter().cloned());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Inventory, ParseError> {
        let all_vars = self.group_vars.remove("all").unwrap_or_default();
        let text = |vars: &Map<String, Value>, key: &str| {
            vars.get(key).and_then(Value::as_str).map(str::to_owned)
        };
        let hosts = self
            .order
            .iter()
            .map(|name| {
                let vars = self.host_vars.remove(name).unwrap_or_default();
                let groups = self.memberships.remove(name).unwrap_or_default();
                Host {
                    name: name.clone(),
                    instance_id: text(&vars, INSTANCE_ID),
                    region: text(&vars, "ansible_aws_ssm_region")
                        .or_else(|| text(&all_vars, REGION)),
                    private_ip: text(&vars, PRIVATE_IP),
                    public_ip: text(&vars, PUBLIC_IP),
                    groups: groups
                        .into_iter()
                        .filter(|group| group != "all" && group != "ungrouped")
                        .collect(),
                    vars,
                }
            })
            .collect();
        let inventory = Inventory::new(hosts, all_vars, self.group_vars);
        let mut inventory = inventory.with_children(self.children)?;
        inventory.layout = Some(self.layout.reconciled());
        Ok(inventory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{"all": {
        "hosts": {"b": {"instance_id": "i-2", "public_ip": null}, "a": {"instance_id": "i-1", "x": 1}},
        "vars": {"deploy_region": "us-east-1", "x": 0, "y": 0},
        "children": {"sip": {"hosts": {"b": {}}, "vars": {"y": 2}}, "core": {"children": {"db": {"hosts": {"a": null}}}}}}}"#;

    #[test]
    fn hosts_keep_the_files_order_and_know_their_groups() {
        let inventory = Inventory::parse(SAMPLE).unwrap();
        let seen: Vec<_> =
            inventory.hosts().iter().map(|h| (h.name.as_str(), h.groups.clone())).collect();
        assert_eq!(
            seen,
            [("b", vec!["sip".to_owned()]), ("a", vec!["core".to_owned(), "db".to_owned()])]
        );
        let b = &inventory.hosts()[0];
        assert_eq!((b.public_ip.as_deref(), b.region.as_deref()), (None, Some("us-east-1")));
        assert_eq!(inventory.variable(b, "y"), Some(&Value::from(2)));
        assert_eq!(inventory.variable(b, "x"), Some(&Value::from(0)));
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let inventory = Inventory::parse(SAMPLE).unwrap();
        assert_eq!(Inventory::parse(&inventory.to_value().to_string()).unwrap(), inventory);
    }

    #[test]
    fn groups_in_groups_may_be_told_in_two_places() {
        let text = r#"{"all": {"hosts": {"a": {}, "b": {}}, "children": {
            "sip": {"hosts": {"a": {}}, "vars": {"x": 1}}, "voip": {"hosts": {"b": {}}, "vars": {"x": 2, "y": 2}, "children": {"sip": {}}},
            "zone": {"hosts": {"a": {}}, "vars": {"y": 3, "ansible_group_priority": 0}}}}}"#;
        let inventory = Inventory::parse(text).unwrap();
        let a = &inventory.hosts()[0];
        assert_eq!(a.groups, ["sip", "voip", "zone"]);
        // The deeper group wins, then the priority.
        assert_eq!(inventory.variable(a, "x"), Some(&Value::from(1)));
        assert_eq!(inventory.variable(a, "y"), Some(&Value::from(2)));
        let names: Vec<&str> =
            inventory.members()["voip"].iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["b"], "what is in a child is not named again");
        assert_eq!(Inventory::parse(&inventory.to_value().to_string()).unwrap(), inventory);
    }

    #[test]
    fn what_is_no_inventory_is_refused_with_its_place() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Inventory::parse(text).unwrap_err().to_string(), expected)
        };
        check(" \n", "the inventory is empty");
        check("{\"all\": ", "the inventory is not JSON (line 1, column 8)");
        check("[]", "not an inventory: the top level is not an object");
        check("{}", "not an inventory: it has no group `all`");
        check(
            r#"{"all": {"hosts": ["a"]}}"#,
            "not an inventory: `hosts` of group `all` is not an object",
        );
        check(
            r#"{"all": {"children": {"a": {"children": {"a": {}}}}}}"#,
            "not an inventory: group `a` contains itself",
        );
        check(
            r#"{"all": {"children": {"a": {"children": {"b": {}}}, "b": {"children": {"a": {}}}}}}"#,
            "not an inventory: group `a` contains itself",
        );
    }
}
