//! EC2 instances among the resources of a state, for documents without the output `inventory`.
//!
//! Read while streaming: of every resource only the few attributes that say where and what an instance is, never
//! `user_data`, `password_data` or `private`, and nothing that the document marks as sensitive. Shapes: state format 4
//! (`internal/states/statefile/version4.go`) and `terraform show -json`
//! (<https://developer.hashicorp.com/terraform/internals/json-format#state-representation>).

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The resource type that becomes hosts.
const INSTANCE: &str = "aws_instance";
/// The resource type whose instance is named by an attribute of its own.
const SPOT_REQUEST: &str = "aws_spot_instance_request";
/// The resource type whose instances are known to EC2 alone.
const SCALING_GROUP: &str = "aws_autoscaling_group";

/// Resource types that somebody may expect to become hosts, and why they do not.
const OTHERS: [(&str, &str); 5] = [
    (
        "ansible_host",
        "a host of the provider ansible/ansible, which names no instance: hosts are guessed from `aws_instance`",
    ),
    (
        "ansible_group",
        "a group of the provider ansible/ansible: groups are guessed from tags, modules and resources",
    ),
    ("aws_spot_fleet_request", "its instances are known to EC2 alone"),
    ("aws_ec2_fleet", "its instances are known to EC2 alone"),
    ("aws_lightsail_instance", "no instance of EC2: Systems Manager does not reach it"),
];

fn other(kind: &str) -> Option<&'static str> {
    OTHERS.iter().find(|(other, _)| *other == kind).map(|(_, why)| *why)
}

fn is_of_interest(kind: &str) -> bool {
    matches!(kind, INSTANCE | SPOT_REQUEST | SCALING_GROUP) || other(kind).is_some()
}

/// A resource that is an instance, makes some, or could be taken for one, as the document shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// Its address, e.g. `module.sbc["a"].aws_instance.node[0]`.
    pub address: String,
    /// The names of the modules on the way to it, outermost first.
    pub modules: Vec<String>,
    /// The name of the resource block.
    pub name: String,
    /// It is an Auto Scaling group, of this name in AWS.
    pub scaling_group: Option<String>,
    /// It is a request for a spot instance, whose ID is that of the instance.
    pub spot: bool,
    /// It is of a type that is not read, for this reason.
    pub other: Option<&'static str>,
    /// A `data` source: somebody else's instance.
    pub data: bool,
    /// To be destroyed: a newer instance has taken its place.
    pub deposed: bool,
    /// To be replaced by the next apply.
    pub tainted: bool,
    /// The instance ID.
    pub id: Option<String>,
    /// The state at the last refresh, e.g. `running`.
    pub state: Option<String>,
    /// Availability zone.
    pub zone: Option<String>,
    /// Address inside the VPC.
    pub private_ip: Option<String>,
    /// Public address.
    pub public_ip: Option<String>,
    /// Tags, the provider's default ones included.
    pub tags: BTreeMap<String, String>,
}

/// Why a resource is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// A data source.
    Data,
    /// A deposed object.
    Deposed,
    /// It was never made.
    NoId,
    /// A spot request without an instance.
    NoSpot,
    /// A type that is not read.
    Other(&'static str),
    /// It did not run at the last refresh.
    NotRunning,
}

impl Skipped {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Deposed => "deposed",
            Self::NoId => "no-id",
            Self::NoSpot => "no-spot",
            Self::Other(_) => "type",
            Self::NotRunning => "stopped",
        }
    }

    /// For people.
    pub fn why(self) -> &'static str {
        match self {
            Self::Data => "a data source, not managed here",
            Self::Deposed => "deposed: a newer instance has taken its place",
            Self::NoId => "has no instance ID: its creation did not finish",
            Self::NoSpot => "a spot request that EC2 has given no instance",
            Self::Other(why) => why,
            Self::NotRunning => "was not running at the last refresh",
        }
    }
}

impl Resource {
    /// Why it is no host; `None` when it is one.
    pub fn skipped(&self) -> Option<Skipped> {
        if let Some(why) = self.other {
            return Some(Skipped::Other(why));
        }
        if self.data {
            return Some(Skipped::Data);
        }
        if self.deposed {
            return Some(Skipped::Deposed);
        }
        if self.id.as_deref().is_none_or(str::is_empty) {
            return Some(if self.spot { Skipped::NoSpot } else { Skipped::NoId });
        }
        let stopped = self.state.as_deref().is_some_and(|state| state != "running");
        stopped.then_some(Skipped::NotRunning)
    }
}

/// The member `resources` of a state of format 4.
#[derive(Debug, Default)]
pub(crate) struct StateResources(pub(crate) Vec<Resource>);

#[derive(Deserialize)]
struct StateBlock {
    module: Option<String>,
    #[serde(default)]
    mode: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    instances: Vec<StateInstance>,
}

#[derive(Deserialize)]
struct StateInstance {
    index_key: Option<Value>,
    status: Option<String>,
    deposed: Option<String>,
    #[serde(default)]
    attributes: Attributes,
    /// The form of Terraform 0.11 and before, which stays until the resource is refreshed.
    #[serde(default)]
    attributes_flat: Flat,
    /// Paths, each a list of steps `{"type", "value"}`.
    #[serde(default)]
    sensitive_attributes: Value,
}

impl<'de> Deserialize<'de> for StateResources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = StateResources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of resources")
            }

            fn visit_unit<E>(self) -> Result<StateResources, E> {
                Ok(StateResources::default())
            }

            // One block at a time, so that what is not kept is gone before the next one is read.
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StateResources, A::Error> {
                let mut found = Vec::new();
                while let Some(block) = seq.next_element::<StateBlock>()? {
                    if is_of_interest(&block.kind) {
                        found.extend(block.resources());
                    }
                }
                Ok(StateResources(found))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl StateBlock {
    fn resources(self) -> impl Iterator<Item = Resource> {
        let module = self.module.unwrap_or_default();
        let data = self.mode == "data";
        let block = [
            (!module.is_empty()).then_some(module.as_str()),
            data.then_some("data"),
            Some(self.kind.as_str()),
            Some(self.name.as_str()),
        ];
        let block = block.into_iter().flatten().collect::<Vec<_>>().join(".");
        let (modules, name, kind) = (module_names(&module), self.name.clone(), self.kind.clone());
        self.instances.into_iter().map(move |instance| {
            let index = instance.index_key.map(|key| format!("[{key}]")).unwrap_or_default();
            let base = Resource {
                address: format!("{block}{index}"),
                modules: modules.clone(),
                name: name.clone(),
                data,
                deposed: instance.deposed.is_some(),
                tainted: instance.status.as_deref() == Some("tainted"),
                ..Resource::default()
            };
            let mut attributes = match instance.attributes_flat {
                Flat(Some(flat)) => flat,
                Flat(None) => instance.attributes,
            };
            for path in instance.sensitive_attributes.as_array().into_iter().flatten() {
                let attribute = path[0]["value"].as_str().unwrap_or_default();
                attributes.forget(attribute, path.get(1).and_then(key_of_step));
            }
            attributes.into_resource(&kind, base)
        })
    }
}

/// The key that a step of a path into a map names. Terraform writes `{"type": "index", "value": {"value": "Name", "type":
/// "string"}}` (`marshalPaths` in its `internal/states/statefile/version4.go`); a step that names none stands for all of them.
fn key_of_step(step: &Value) -> Option<&str> {
    let key = &step["value"];
    key.as_str().or_else(|| key["value"].as_str())
}

/// The member `root_module` of `terraform show -json`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ShownModule {
    #[serde(default)]
    resources: Vec<ShownResource>,
    #[serde(default)]
    child_modules: Vec<ShownModule>,
}

#[derive(Debug, Deserialize)]
struct ShownResource {
    #[serde(default)]
    address: String,
    #[serde(default)]
    mode: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    tainted: bool,
    deposed_key: Option<String>,
    #[serde(default)]
    values: Attributes,
    /// The shape of `values` with `true` for what is sensitive.
    #[serde(default)]
    sensitive_values: Value,
}

impl ShownModule {
    pub(crate) fn into_resources(self) -> Vec<Resource> {
        let mut found: Vec<Resource> = self
            .resources
            .into_iter()
            .filter(|resource| is_of_interest(&resource.kind))
            .map(ShownResource::into_resource)
            .collect();
        found.extend(self.child_modules.into_iter().flat_map(Self::into_resources));
        found
    }
}

impl ShownResource {
    fn into_resource(self) -> Resource {
        let base = Resource {
            modules: module_names(&self.address),
            address: self.address,
            name: self.name,
            data: self.mode == "data",
            deposed: self.deposed_key.is_some(),
            tainted: self.tainted,
            ..Resource::default()
        };
        let mut attributes = self.values;
        for (name, mark) in self.sensitive_values.as_object().into_iter().flatten() {
            match mark {
                Value::Bool(true) => attributes.forget(name, None),
                Value::Object(keys) => {
                    keys.iter()
                        .filter(|(_, mark)| **mark == Value::Bool(true))
                        .for_each(|(key, _)| attributes.forget(name, Some(key)));
                }
                _ => {}
            }
        }
        attributes.into_resource(&self.kind, base)
    }
}

/// What is kept of a resource's attributes. Any type has to pass, since resources of all types are read with it.
#[derive(Debug, Default)]
struct Attributes {
    /// In the order of [`TEXTS`].
    texts: [Option<String>; TEXTS.len()],
    tags: BTreeMap<String, String>,
}

const TEXTS: [&str; 7] = [
    "id",
    "instance_state",
    "availability_zone",
    "private_ip",
    "public_ip",
    "name",
    "spot_instance_id",
];

/// Where the zone is among them.
const ZONE: usize = 2;

/// A text, texts by name, or what is of no interest where one of them is looked for.
enum Texts {
    One(String),
    Named(BTreeMap<String, String>),
    Other,
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts::One(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut named = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if let Texts::One(text) = value {
                        named.insert(name, text);
                    }
                }
                Ok(Texts::Named(named))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Texts::Other)
            }

            fn visit_unit<E>(self) -> Result<Texts, E> {
                Ok(Texts::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Texts, E> {
                Ok(Texts::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Texts, E> {
                Ok(Texts::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Texts, E> {
                Ok(Texts::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Texts, E> {
                Ok(Texts::Other)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl Attributes {
    /// Drops what the document marks as sensitive: an attribute, or one tag.
    fn forget(&mut self, attribute: &str, key: Option<&str>) {
        match (attribute, key) {
            ("tag", _) => self.tags.clear(),
            ("tags" | "tags_all", Some(key)) => {
                self.tags.remove(key);
            }
            ("tags" | "tags_all", None) => self.tags.clear(),
            (name, _) => {
                if let Some(at) = TEXTS.iter().position(|text| *text == name) {
                    self.texts[at] = None;
                }
            }
        }
    }

    fn into_resource(self, kind: &str, base: Resource) -> Resource {
        let texts = self.texts.map(|text| text.filter(|text| !text.is_empty()));
        let [id, state, zone, private_ip, public_ip, name, spot_id] = texts;
        let scaling_group = (kind == SCALING_GROUP).then(|| name.unwrap_or_default());
        let spot = kind == SPOT_REQUEST;
        let id = if spot { spot_id } else { id };
        let (other, tags) = (other(kind), self.tags);
        Resource {
            scaling_group,
            spot,
            other,
            id,
            state,
            zone,
            private_ip,
            public_ip,
            tags,
            ..base
        }
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Attributes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("attributes")
            }

            fn visit_unit<E>(self) -> Result<Attributes, E> {
                Ok(Attributes::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut found = Attributes::default();
                while let Some(key) = map.next_key::<Key>()? {
                    match key {
                        Key::Text(at) => {
                            if let Texts::One(text) = map.next_value()? {
                                found.texts[at] = Some(text);
                            }
                        }
                        Key::Tags => match map.next_value()? {
                            // `tags` and `tags_all` are mostly the same.
                            Texts::Named(tags) if found.tags.is_empty() => found.tags = tags,
                            Texts::Named(tags) => found.tags.extend(tags),
                            _ => {}
                        },
                        Key::TagBlocks => found.tags.extend(listed_tags(&map.next_value()?)),
                        Key::Zones => {
                            if let Some(zone) = map.next_value::<Value>()?[0].as_str() {
                                found.texts[ZONE] = Some(zone.to_owned());
                            }
                        }
                        Key::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// The attributes of Terraform 0.11: one level, all texts, `tags.Name` for a tag.
#[derive(Debug, Default)]
struct Flat(Option<Attributes>);

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Texts::Named(named) = Texts::deserialize(deserializer)? else { return Ok(Self(None)) };
        let mut found = Attributes::default();
        for (name, text) in named {
            if let Some(at) = TEXTS.iter().position(|known| *known == name) {
                found.texts[at] = Some(text);
            } else if let Some(tag) = name.strip_prefix("tags.").filter(|tag| *tag != "%") {
                found.tags.insert(tag.to_owned(), text);
            }
        }
        Ok(Self(Some(found)))
    }
}

/// Which attribute it is. An instance has some eighty, most of no interest here: their names are not copied.
enum Key {
    /// By its place in [`TEXTS`].
    Text(usize),
    Tags,
    TagBlocks,
    Zones,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an attribute")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(match (TEXTS.iter().position(|text| *text == name), name) {
                    (Some(at), _) => Key::Text(at),
                    (None, "tags" | "tags_all") => Key::Tags,
                    (None, "tag") => Key::TagBlocks,
                    (None, "availability_zones") => Key::Zones,
                    (None, _) => Key::Other,
                })
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// The blocks `tag` of a scaling group.
fn listed_tags(blocks: &Value) -> impl Iterator<Item = (String, String)> {
    blocks.as_array().into_iter().flatten().filter_map(|block| {
        Some((block["key"].as_str()?.to_owned(), block["value"].as_str()?.to_owned()))
    })
}

/// The names of the modules in an address: `module.a["x.y"].module.b[0].aws_instance.c` → `a`, `b`.
fn module_names(address: &str) -> Vec<String> {
    modules(address).map(|(name, _)| name.to_owned()).collect()
}

/// The modules in an address, each with its key as it is written: `module.a["x.y"].module.b[0].aws_instance.c` → `a` with
/// `"x.y"`, `b` with `0`.
pub(crate) fn modules(address: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = address;
    std::iter::from_fn(move || {
        let after = rest.strip_prefix("module.")?;
        let end = after.find(['.', '[']).unwrap_or(after.len());
        let (name, keyed) = after.split_at(end);
        rest = after_key(keyed);
        let key = keyed[..keyed.len() - rest.len()].strip_prefix('[');
        rest = rest.strip_prefix('.').unwrap_or(rest);
        Some((name, key.map(|key| key.strip_suffix(']').unwrap_or(key))))
    })
}

/// What follows a key such as `["a.b]"]` or `[0]`, if one stands here.
fn after_key(text: &str) -> &str {
    if let Some(quoted) = text.strip_prefix("[\"") {
        let mut escaped = false;
        for (at, c) in quoted.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return quoted[at + 1..].strip_prefix(']').unwrap_or(""),
                _ => {}
            }
        }
        return "";
    }
    match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, rest)) => rest,
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(resources: Value) -> Vec<Resource> {
        serde_json::from_value::<StateResources>(resources).unwrap().0
    }

    #[test]
    fn module_names_stand_before_keys_of_any_form() {
        let check = |address: &str, expected: &[&str]| {
            assert_eq!(module_names(address), expected, "{address}");
        };
        check("aws_instance.a", &[]);
        check("module.a", &["a"]);
        check("module.a.module.b[0].aws_instance.c[1]", &["a", "b"]);
        check(r#"module.a["x.y"].module.b["\"]."].aws_instance.c"#, &["a", "b"]);
        check(r#"module.a["x"#, &["a"]);
    }

    #[test]
    fn modules_have_their_keys() {
        let check = |address: &str, expected: &[(&str, Option<&str>)]| {
            assert_eq!(modules(address).collect::<Vec<_>>(), expected, "{address}");
        };
        check(
            r#"module.a["x.y"].module.b[0].module.c.aws_instance.d[1]"#,
            &[("a", Some(r#""x.y""#)), ("b", Some("0")), ("c", None)],
        );
        check("data.aws_instance.a", &[]);
    }

    #[test]
    fn every_instance_of_count_and_for_each_has_its_own_address() {
        let found = state(json!([
            {"mode": "managed", "type": "aws_vpc", "name": "v", "instances": [{"attributes": {"id": 7, "tags": [1]}}]},
            {"module": "module.sbc[\"a\"]", "mode": "managed", "type": "aws_instance", "name": "node", "instances": [
                {"index_key": 0, "attributes": {"id": "i-0"}},
                {"index_key": "blue", "status": "tainted", "attributes": {"id": "i-1"}},
                {"deposed": "00000001", "attributes": {"id": "i-2"}},
            ]},
            {"mode": "data", "type": "aws_instance", "name": "other", "instances": [{"attributes": {"id": "i-3"}}]},
        ]));
        let addresses: Vec<_> = found.iter().map(|resource| resource.address.as_str()).collect();
        assert_eq!(
            addresses,
            [
                r#"module.sbc["a"].aws_instance.node[0]"#,
                r#"module.sbc["a"].aws_instance.node["blue"]"#,
                r#"module.sbc["a"].aws_instance.node"#,
                "data.aws_instance.other",
            ]
        );
        let skipped: Vec<_> = found.iter().map(Resource::skipped).collect();
        assert_eq!(skipped, [None, None, Some(Skipped::Deposed), Some(Skipped::Data)]);
        assert!(found[1].tainted && !found[0].tainted);
        assert_eq!(found[0].modules, ["sbc"]);
    }

    #[test]
    fn what_is_marked_as_sensitive_is_forgotten() {
        let step = |kind: &str, value: &str| json!({"type": kind, "value": value});
        let found = state(
            json!([{"mode": "managed", "type": "aws_instance", "name": "a", "instances": [{
                "attributes": {"id": "i-0", "private_ip": "10.0.0.1", "public_ip": "198.51.100.1", "user_data": "canary",
                    "tags": {"Name": "a", "secret": "canary"}, "tags_all": {"Name": "a", "secret": "canary", "Env": "dev"}},
                "sensitive_attributes": [
                    [step("get_attr", "public_ip")],
                    [step("get_attr", "tags"), step("index", "secret")],
                    [step("get_attr", "tags_all"), step("index", "secret")],
                ],
                "private": "canary",
            }]}]),
        );
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");
        assert_eq!(
            (found[0].public_ip.as_deref(), found[0].private_ip.as_deref()),
            (None, Some("10.0.0.1"))
        );
        assert_eq!(found[0].tags.len(), 2);

        // As Terraform 1.11 writes the step into a map; a step that cannot be understood drops them all.
        let tagged = |step: Value| {
            let path = json!([{"type": "get_attr", "value": "tags"}, step]);
            let tags = json!({"Name": "a", "secret": "canary", "Env": "dev"});
            let found = state(
                json!([{"mode": "managed", "type": "aws_instance", "name": "a", "instances": [
                {"attributes": {"id": "i-0", "tags": tags, "tags_all": tags}, "sensitive_attributes": [path]}]}]),
            );
            assert!(!format!("{found:?}").contains("canary"), "{found:?}");
            found[0].tags.keys().cloned().collect::<Vec<_>>()
        };
        let key = json!({"value": "secret", "type": "string"});
        assert_eq!(tagged(json!({"type": "index", "value": key})), ["Env", "Name"]);
        assert_eq!(
            tagged(json!({"type": "index", "value": {"value": 1, "type": "number"}})),
            [""; 0]
        );

        let shown: ShownModule = serde_json::from_value(json!({"child_modules": [{"address": "module.m", "resources": [{
            "address": "module.m.aws_instance.a", "mode": "managed", "type": "aws_instance", "name": "a",
            "values": {"id": "i-0", "instance_state": "stopped", "tags": {"Name": "a", "secret": "canary"}, "tags_all": null},
            "sensitive_values": {"tags": {"secret": true}, "root_block_device": [{}]},
        }]}]}))
        .unwrap();
        let found = shown.into_resources();
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");
        assert_eq!(found[0].skipped(), Some(Skipped::NotRunning));
        assert_eq!(found[0].modules, ["m"]);
    }

    /// What `terraform state pull` of Terraform 1.11 makes of a state of Terraform 0.11.
    #[test]
    fn attributes_in_the_old_flat_form_are_read() {
        let found = state(
            json!([{"mode": "managed", "type": "aws_instance", "name": "web", "instances": [{
            "schema_version": 0, "sensitive_attributes": [],
            "attributes_flat": {"availability_zone": "us-east-1a", "id": "i-0123456789abcdef0", "private_ip": "10.0.0.1",
                "tags.%": "2", "tags.Name": "web", "tags.Role": "sip", "user_data": "canary"}}]}]),
        );
        assert_eq!(found[0].skipped(), None);
        assert_eq!(found[0].private_ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(found[0].zone.as_deref(), Some("us-east-1a"));
        let tags: Vec<_> = found[0].tags.iter().collect();
        assert_eq!(tags.len(), 2, "{tags:?}");
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");
    }

    #[test]
    fn a_spot_request_is_the_instance_that_it_was_given() {
        let found = state(json!([
            {"mode": "managed", "type": "aws_spot_instance_request", "name": "a", "instances": [
                {"attributes": {"id": "sir-1", "spot_instance_id": "i-0123456789abcdef0", "private_ip": "10.0.0.1"}},
                {"attributes": {"id": "sir-2", "spot_instance_id": ""}}]},
            {"mode": "managed", "type": "ansible_host", "name": "b", "instances": [{"attributes": {"id": "x"}}]},
        ]));
        assert_eq!(found[0].id.as_deref(), Some("i-0123456789abcdef0"));
        let skipped: Vec<_> =
            found.iter().map(|one| one.skipped().map_or("", Skipped::name)).collect();
        assert_eq!(skipped, ["", "no-spot", "type"]);
    }

    #[test]
    fn an_instance_without_an_id_is_no_host() {
        let found =
            state(json!([{"mode": "managed", "type": "aws_instance", "name": "a", "instances": [
                {"attributes": {"id": null}}, {"attributes": null}, {"attributes": {"id": ""}},
            ]}]));
        assert!(
            found.iter().all(|resource| resource.skipped() == Some(Skipped::NoId)),
            "{found:?}"
        );
        assert_eq!(found.len(), 3);
    }
}
