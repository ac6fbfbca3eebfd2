//! What kind of Terraform document a text is, and its output `inventory`.
//!
//! Only the few members that tell the kinds apart, the outputs that are asked for and what [`crate::resources`] keeps of
//! instances are read: everything else, which can be large and can hold secrets, is skipped. Shapes: <https://developer.hashicorp.com/terraform/internals/json-format>
//! and `internal/states/statefile/version4.go` of Terraform.

use crate::number;
use crate::resources::{Resource, ShownModule, StateResources};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The output that this tool reads.
pub(crate) const OUTPUT: &str = "inventory";

/// Why a document gives no inventory.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it means")]
pub enum Fault {
    #[error("is empty")]
    Empty,
    #[error("is an HTML page, not JSON")]
    Html,
    #[error("is compressed with {0}, not JSON")]
    Compressed(&'static str),
    #[error(
        "is not JSON from its start: the JSON begins in line {line}, other text stands before it"
    )]
    Before { line: usize },
    #[error("holds several JSON documents: the second begins at byte {offset}")]
    Several { offset: usize },
    #[error("is not JSON to its end: other text follows it at byte {offset}")]
    After { offset: usize },
    #[error("is Terraform's log for programs, one JSON document a line")]
    Log,
    #[error(
        "is the outputs file of CDKTF: bare values below the stacks {stacks}, without their sensitivity"
    )]
    Cdktf { stacks: String },
    #[error(
        "is Terraform configuration in JSON, as CDKTF synthesizes it: what should be, not what is"
    )]
    Configuration,
    #[error("has outputs alone, and nothing to guess hosts from")]
    NothingToGuess,
    #[error("is UTF-16 text, not UTF-8")]
    Utf16,
    #[error("is not JSON{}", .noise.map(|noise| format!(": it starts with `{noise}`")).unwrap_or_default())]
    Text { noise: Option<&'static str> },
    #[error("is cut off: the JSON ends at byte {offset} before it is complete")]
    Truncated { offset: usize },
    #[error("is not JSON at byte {offset} (line {line}, column {column})")]
    Json { offset: usize, line: usize, column: usize, source: serde_json::Error },
    #[error("is JSON but no object, so neither outputs nor a state")]
    NotObject,
    #[error("is a plan: it says what would be, not what is")]
    Plan,
    #[error("is a state encrypted by OpenTofu")]
    Encrypted,
    #[error("is Terraform's pointer to a `{backend}` backend, not a state")]
    BackendPointer { backend: String },
    #[error("is a state of format {version}, which only old versions of Terraform read")]
    OldState { version: u64 },
    #[error("is a state of format {version}; this tool knows format 4")]
    NewerState { version: u64 },
    #[error("has format_version {version}; this tool knows major version 1")]
    ShowVersion { version: String },
    #[error("holds no outputs at all")]
    NoOutputs,
    #[error("has no output `inventory`{}", .names.as_ref().map(|names| format!(", only {names}")).unwrap_or_default())]
    NoInventory { names: Option<String> },
    #[error("marks the output `{name}` as sensitive")]
    Sensitive { name: String },
    #[error("is nested too deep at byte {offset}: this tool follows 127 levels")]
    TooDeep { offset: usize },
    #[error("holds a number at byte {offset} that no program here reads: it is beyond 1.8e308")]
    TooLarge { offset: usize },
    #[error("is the bare value of one output, without its name and sensitivity")]
    BareValue,
    #[error("is an Ansible inventory already")]
    Inventory,
    #[error("is no document of Terraform: its members are {keys}")]
    Unknown { keys: String },
}

impl Fault {
    /// What to do next.
    pub fn hint(&self) -> String {
        let text = match self {
            Self::Empty | Self::Truncated { .. } => {
                "write it again: `terraform output -json > outputs.json`; a pipe that broke leaves such a file"
            }
            Self::Html => {
                "what was downloaded is an error or login page: check the address and the credentials"
            }
            Self::Compressed(_) => "decompress it first, e.g. `gunzip -c FILE | tf-to-inventory -`",
            Self::Before { .. } | Self::After { .. } => {
                "give Terraform's stdout alone: `terraform output -json > outputs.json`, without `2>&1`"
            }
            Self::Several { .. } => {
                "give one document a file; several sources are merged: `tf-to-inventory dev.json prod.json`"
            }
            Self::Log => {
                "`terraform apply -json` writes no outputs for programs: give the file that `terraform output -json` wrote"
            }
            Self::Cdktf { .. } | Self::Configuration => {
                "give the stack's outputs or state as Terraform prints it: `terraform -chdir=cdktf.out/stacks/STACK output -json`, or `show -json`"
            }
            Self::NothingToGuess => {
                "give the state with `--guess`: `terraform show -json`, or `terraform state pull`"
            }
            Self::Utf16 => {
                "write it as UTF-8; in PowerShell `terraform output -json | Out-File -Encoding utf8`"
            }
            Self::Text { noise: Some("[command]" | "::") } => {
                "setup-terraform's wrapper adds lines to stdout: set `terraform_wrapper: false`"
            }
            Self::Text { noise: Some(_) } => {
                "Terraform's words for people are in the file: write it again, with stdout alone"
            }
            Self::Text { .. } | Self::Json { .. } | Self::NotObject | Self::Unknown { .. } => {
                "give the file that `terraform output -json` wrote"
            }
            Self::Plan => "apply it first, then give `terraform output -json`",
            Self::Encrypted => "let OpenTofu decrypt it: `tofu output -json`",
            Self::BackendPointer { .. } => {
                "`.terraform/terraform.tfstate` holds no resources: give `terraform output -json`, or `terraform state pull`"
            }
            Self::OldState { .. } => {
                "`terraform state pull` of Terraform 0.12 or newer prints it in format 4; nothing is changed by that"
            }
            Self::ShowVersion { version } if version.starts_with("0.") => {
                "an old Terraform wrote it, without the marks of what is sensitive in resources: give `terraform output -json` or `terraform state pull` instead"
            }
            Self::NewerState { .. } | Self::ShowVersion { .. } => {
                "give `terraform output -json`, or use a newer version of this tool"
            }
            Self::NoOutputs => {
                "was the environment applied? `terraform apply`, then `terraform output -json`; without an output `inventory`, `terraform show -json`"
            }
            Self::NoInventory { .. } => {
                "outputs alone name no hosts: give the state (`terraform show -json`, `terraform state pull`), whose EC2 instances are looked at, or add the output `inventory` of docs/contracts/inventory-output.schema.json and apply"
            }
            Self::Sensitive { name } => {
                let guess = match name.as_str() {
                    OUTPUT => "; from a state, `--guess` makes an inventory without it",
                    _ => "",
                };
                return format!(
                    "an inventory holds no secrets: pass ARNs instead, and remove `sensitive = true` from the output; or allow this one: `--include-sensitive {name}`{guess}"
                );
            }
            Self::TooDeep { .. } => {
                "no document of Terraform is: give what `terraform output -json` wrote"
            }
            Self::TooLarge { .. } => "make it a string in the output, and apply",
            Self::BareValue => "give `terraform output -json` without the name of an output",
            Self::Inventory => "use it as it is: `--inventory FILE`",
        };
        text.to_owned()
    }
}

/// Which outputs are read besides [`OUTPUT`].
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Their names.
    pub outputs: Vec<String>,
    /// Names of outputs that are read although they are marked as sensitive.
    pub sensitive: Vec<String>,
    /// Whether hosts are guessed from resources although there may be an output [`OUTPUT`], which is not looked at then.
    pub guess: bool,
}

impl Wanted {
    fn wants(&self, name: &str) -> bool {
        (name == OUTPUT && !self.guess) || self.outputs.iter().any(|wanted| wanted == name)
    }
}

/// What was found in a document.
#[derive(Debug)]
pub struct Document {
    /// The value of the output `inventory`, or why there is none.
    pub inventory: Result<Value, Fault>,
    /// From a state, what may be guessed from.
    pub resources: Option<Vec<Resource>>,
    /// The wanted outputs.
    pub outputs: BTreeMap<String, Value>,
    /// Values of outputs that were read although they are marked as sensitive.
    pub secrets: Vec<Value>,
}

/// Reads a document of any kind that Terraform writes.
///
/// # Errors
/// [`Fault`] names the kind of document that it is instead, or says that a wanted output is sensitive.
pub fn read(bytes: &[u8], wanted: &Wanted) -> Result<Document, Fault> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Fault::Utf16);
    }
    // `terraform plan -out` writes a zip archive.
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(Fault::Plan);
    }
    if let Some((_, how)) = COMPRESSED.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Err(Fault::Compressed(how));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Some(first) = bytes.iter().position(|byte| !byte.is_ascii_whitespace()) else {
        return Err(Fault::Empty);
    };
    match bytes[first] {
        b'<' => return Err(Fault::Html),
        b'{' => {}
        _ => return Err(not_an_object(bytes, first)),
    }
    let found = parse(bytes, wanted).map_err(|error| json_fault(bytes, error))?;
    let mut document = choose(found, wanted)?;
    let mut values = document.inventory.iter().chain(document.outputs.values());
    if values.any(number::is_rounded)
        && let Ok(again) = parse(&number::marked(bytes), wanted)
    {
        let exact = choose(again, wanted)?;
        document = Document { resources: document.resources, ..exact };
    }
    Ok(document)
}

/// How files begin that are compressed.
const COMPRESSED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
];

fn parse(bytes: &[u8], wanted: &Wanted) -> Result<Member, serde_json::Error> {
    let parse = |resources| {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let document = Seed { path: &[], wanted, resources }.deserialize(&mut reader)?;
        reader.end().map(|()| document)
    };
    // What stands where a state has its resources may be anything in another document, so it is skipped then.
    parse(true).or_else(|_| parse(false))
}

/// The value of the output `inventory` in a document of any kind that Terraform writes.
///
/// # Errors
/// [`Fault`] names the kind of document that it is instead.
pub fn inventory_value(bytes: &[u8]) -> Result<Value, Fault> {
    read(bytes, &Wanted::default())?.inventory
}

/// What Terraform and its wrappers write before a document. Nothing else of a text is repeated: `terraform output -raw`
/// may have written a password.
const NOISE: [&str; 8] = [
    "[command]",
    "::",
    "Acquiring state lock",
    "Releasing state lock",
    "Initializing",
    "Warning:",
    "Error:",
    "\u{2577}",
];

fn not_an_object(bytes: &[u8], first: usize) -> Fault {
    if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        return Fault::NotObject;
    }
    let text = &bytes[first..];
    let noise = NOISE.into_iter().find(|noise| text.starts_with(noise.as_bytes()));
    match json_below(bytes).filter(|_| noise.is_none()) {
        Some(line) => Fault::Before { line },
        None => Fault::Text { noise },
    }
}

/// The line, from 1, in which an object begins below other text.
fn json_below(bytes: &[u8]) -> Option<usize> {
    // A long text may have many such lines; one that has the document has it soon.
    const TRIED: usize = 8;
    let mut at = 0;
    let starts =
        bytes.split_inclusive(|byte| *byte == b'\n').enumerate().filter_map(|(line, text)| {
            let start = at;
            at += text.len();
            text.trim_ascii_start().starts_with(b"{").then_some((line + 1, start))
        });
    let mut tried = starts.take(TRIED);
    tried.find(|(_, start)| first_document(&bytes[*start..]).is_some()).map(|(line, _)| line)
}

/// Where the first JSON document of a text ends.
fn first_document(bytes: &[u8]) -> Option<usize> {
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    documents.next()?.ok()?;
    Some(documents.byte_offset())
}

/// What stands behind a complete document.
fn beyond(bytes: &[u8]) -> Option<Fault> {
    let end = first_document(bytes)?;
    let offset = end + bytes[end..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    if is_log(&bytes[..end]) {
        return Some(Fault::Log);
    }
    let is_document =
        matches!(bytes[offset], b'{' | b'[') && first_document(&bytes[offset..]).is_some();
    Some(if is_document { Fault::Several { offset } } else { Fault::After { offset } })
}

/// Whether a document is a line of what `terraform apply -json` writes
/// (<https://developer.hashicorp.com/terraform/internals/machine-readable-ui>).
fn is_log(document: &[u8]) -> bool {
    let members = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(document);
    members.is_ok_and(|members| LOG.iter().all(|name| members.contains_key(*name)))
}

/// Members of every line of Terraform's log for programs.
const LOG: [&str; 2] = ["@level", "@message"];

fn json_fault(bytes: &[u8], error: serde_json::Error) -> Fault {
    if error.is_eof() {
        return Fault::Truncated { offset: bytes.len() };
    }
    if let Some(fault) = beyond(bytes) {
        return fault;
    }
    let (line, column) = (error.line(), error.column());
    let line_start: usize = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let offset = line_start + column.saturating_sub(1);
    // serde_json's own bounds; it names these errors by their words alone.
    if error.to_string().starts_with("number out of range") {
        return Fault::TooLarge { offset };
    }
    if error.to_string().starts_with("recursion limit exceeded") {
        return Fault::TooDeep { offset };
    }
    Fault::Json { offset, line, column, source: error }
}

fn choose(mut document: Member, wanted: &Wanted) -> Result<Document, Fault> {
    let resources = std::mem::take(&mut document.resources);
    if document.keys.is_empty() {
        return from_outputs(None, None, wanted);
    }
    if document.children.iter().all(|(_, member)| member.is_output()) {
        return from_outputs(Some(document), None, wanted);
    }
    let (version, has) = (document.number("version"), |key| document.child(key).is_some());
    if let Some(Value::String(format)) =
        document.child("format_version").map(|member| &member.scalar)
    {
        if has("planned_values") || has("resource_changes") {
            return Err(Fault::Plan);
        }
        if format.split('.').next() != Some("1") {
            return Err(Fault::ShowVersion { version: format.chars().take(20).collect() });
        }
        // Before the first apply there are no values at all.
        let Some(mut values) = document.into_child("values") else {
            return from_outputs(None, None, wanted);
        };
        let resources = std::mem::take(&mut values.resources);
        return from_outputs(values.into_child("outputs"), Some(resources), wanted);
    }
    if has("encrypted_data") && (has("encryption_version") || has("meta")) {
        return Err(Fault::Encrypted);
    }
    if let (Some(_), Some(backend)) = (version, document.child("backend")) {
        let name = backend.child("type").and_then(|kind| kind.scalar.as_str()).unwrap_or("remote");
        return Err(Fault::BackendPointer { backend: name.chars().take(40).collect() });
    }
    match version {
        Some(version) if has("lineage") || has("serial") || has("terraform_version") => {
            match version {
                4 => from_outputs(document.into_child("outputs"), Some(resources), wanted),
                0..4 => Err(Fault::OldState { version }),
                _ => Err(Fault::NewerState { version }),
            }
        }
        Some(_) if has("hosts") && has("project") => Err(Fault::BareValue),
        _ if has("all") => Err(Fault::Inventory),
        _ if LOG.iter().all(|name| has(name)) => Err(Fault::Log),
        _ if has("terraform") && (has("provider") || has("resource") || has("output")) => {
            Err(Fault::Configuration)
        }
        _ if document.children.iter().all(|(_, member)| member.is_stack()) => {
            Err(Fault::Cdktf { stacks: list(&document.keys) })
        }
        _ => Err(Fault::Unknown { keys: list(&document.keys) }),
    }
}

fn from_outputs(
    outputs: Option<Member>,
    resources: Option<Vec<Resource>>,
    wanted: &Wanted,
) -> Result<Document, Fault> {
    let outputs = outputs.unwrap_or_default();
    let names = (!outputs.keys.is_empty()).then(|| list(&outputs.keys));
    let missing = match names {
        // Nobody asks why there is no output when hosts are to be guessed.
        _ if wanted.guess => Fault::NothingToGuess,
        None => Fault::NoOutputs,
        Some(_) => Fault::NoInventory { names },
    };
    let mut found = Document {
        inventory: Err(missing),
        resources,
        outputs: BTreeMap::new(),
        secrets: Vec::new(),
    };
    for (name, output) in outputs.children.into_iter().filter(|(name, _)| wanted.wants(name)) {
        let value = output.value.unwrap_or(Value::Null);
        if output.sensitive {
            if !wanted.sensitive.contains(&name) {
                return Err(Fault::Sensitive { name });
            }
            found.secrets.push(value.clone());
        }
        if name == OUTPUT && !wanted.guess {
            found.inventory = Ok(value);
        } else {
            found.outputs.insert(name, value);
        }
    }
    Ok(found)
}

/// Names from the document, few of them and short.
fn list(keys: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = keys
        .iter()
        .take(SHOWN)
        .map(|key| format!("`{}`", key.chars().take(40).collect::<String>()))
        .collect();
    if keys.len() > SHOWN {
        names.push(format!("{} more", keys.len() - SHOWN));
    }
    names.join(", ")
}

/// What is kept of one member of the document.
#[derive(Debug, Default)]
struct Member {
    /// Its value when that is no object and no list.
    scalar: Value,
    /// The names of its members.
    keys: Vec<String>,
    /// The members that were looked into.
    children: Vec<(String, Member)>,
    sensitive: bool,
    /// The value of the output, kept for [`OUTPUT`] and wanted ones.
    value: Option<Value>,
    /// Instances among its resources.
    resources: Vec<Resource>,
}

impl Member {
    fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|(key, _)| key == name).map(|(_, member)| member)
    }

    fn into_child(self, name: &str) -> Option<Self> {
        self.children.into_iter().find(|(key, _)| key == name).map(|(_, member)| member)
    }

    /// As the outputs file of CDKTF has each of them.
    fn is_stack(&self) -> bool {
        !self.keys.is_empty() && !self.keys.iter().any(|key| key == "value")
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.child(name)?.scalar.as_u64()
    }

    /// As `terraform output -json` writes each of them.
    fn is_output(&self) -> bool {
        let has = |name: &str| self.keys.iter().any(|key| key == name);
        has("sensitive") && has("value")
    }
}

/// Reads one member at a path from the document's root.
struct Seed<'a> {
    path: &'a [&'a str],
    wanted: &'a Wanted,
    /// Whether resources are looked at.
    resources: bool,
}

impl Seed<'_> {
    /// Whether the member `key` of this one is looked into.
    fn enters(&self, key: &str) -> bool {
        match self.path {
            [] => true,
            ["outputs"] | ["values", "outputs"] => self.wanted.wants(key),
            ["values"] => key == "outputs",
            ["backend"] => key == "type",
            _ => false,
        }
    }

    fn keeps_value(&self) -> bool {
        matches!(self.path, [name] | ["outputs", name] | ["values", "outputs", name] if self.wanted.wants(name))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Member;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member, A::Error> {
        let mut member = Member::default();
        while let Some(key) = map.next_key::<String>()? {
            if self.enters(&key) && member.keys.contains(&key) {
                return Err(A::Error::custom(format_args!("`{key}` appears twice")));
            }
            if self.resources && self.path.is_empty() && key == "resources" {
                let StateResources(found) = map.next_value()?;
                member.resources.extend(found);
                member.children.push((key.clone(), Member::default()));
            } else if self.resources && self.path == ["values"] && key == "root_module" {
                let module: ShownModule = map.next_value()?;
                member.resources.extend(module.into_resources());
            } else if self.enters(&key) {
                let mut path = self.path.to_vec();
                path.push(&key);
                let seed = Seed { path: &path, wanted: self.wanted, resources: self.resources };
                let child = map.next_value_seed(seed)?;
                member.children.push((key.clone(), child));
            } else if key == "value" && self.keeps_value() {
                member.value = Some(map.next_value()?);
            } else if key == "sensitive" {
                // Anything but `false` is taken for sensitive.
                member.sensitive |= map.next_value::<Value>()? != Value::Bool(false);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            member.keys.push(key);
        }
        Ok(member)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::default())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Member, E> {
        Ok(Member { scalar: value.into(), ..Member::default() })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Member, E> {
        Ok(Member { scalar: value.into(), ..Member::default() })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Member, E> {
        Ok(Member { scalar: value.into(), ..Member::default() })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Member, E> {
        Ok(Member { scalar: value.into(), ..Member::default() })
    }

    fn visit_str<E>(self, value: &str) -> Result<Member, E> {
        Ok(Member { scalar: value.into(), ..Member::default() })
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::default())
    }
}

#[cfg(test)]
mod tests {
    use super::inventory_value;

    fn refused(text: &str, expected: &str) {
        let fault = inventory_value(text.as_bytes()).unwrap_err();
        assert_eq!(fault.to_string(), expected, "{text}");
        assert!(!fault.hint().is_empty());
    }

    fn accepted(text: &str) {
        assert_eq!(
            inventory_value(text.as_bytes()).unwrap(),
            serde_json::json!({"version": 1}),
            "{text}"
        );
    }

    #[test]
    fn every_kind_that_holds_the_output_is_read() {
        let output =
            r#""inventory": {"sensitive": false, "type": "dynamic", "value": {"version": 1}}"#;
        accepted(&format!("{{{output}}}"));
        accepted(&format!(
            "\u{feff}\n {{{output}, \"version\": {{\"sensitive\": true, \"type\": 1, \"value\": 4}}}}"
        ));
        accepted(&format!(
            r#"{{"format_version": "1.0", "terraform_version": "1.11.4", "values": {{"outputs": {{{output}}},
                "root_module": {{"resources": [{{"values": {{"a": [1, 2.5, -3, null]}}}}]}}}}}}"#
        ));
        accepted(
            r#"{"version": 4, "terraform_version": "1.11.4", "serial": 3, "lineage": "x", "resources": [],
                "outputs": {"inventory": {"value": {"version": 1}, "type": "dynamic"}}}"#,
        );
    }

    #[test]
    fn every_other_kind_is_called_by_its_name() {
        refused("", "is empty");
        refused("\u{feff} \n", "is empty");
        refused("<!DOCTYPE html><html>", "is an HTML page, not JSON");
        refused(
            "[command]/usr/bin/terraform output\n{}",
            "is not JSON: it starts with `[command]`",
        );
        refused(
            "Acquiring state lock. This may take a few moments...\n{}",
            "is not JSON: it starts with `Acquiring state lock`",
        );
        refused("s3cr3t", "is not JSON");
        refused("[1, 2]", "is JSON but no object, so neither outputs nor a state");
        refused(
            r#"{"inventory": {"sens"#,
            "is cut off: the JSON ends at byte 20 before it is complete",
        );
        refused("{\n \"a\" 1}", "is not JSON at byte 7 (line 2, column 6)");
        refused("{} {}", "holds several JSON documents: the second begins at byte 3");
        refused("{\"a\": 1}\nReleasing", "is not JSON to its end: other text follows it at byte 9");
        refused(
            "2026-12-01 INFO reading\n{not this}\n{\"a\": 1}\n",
            "is not JSON from its start: the JSON begins in line 3, other text stands before it",
        );
        let log = r#"{"@level": "info", "@message": "Terraform 1.11.4", "type": "version"}"#;
        refused(log, "is Terraform's log for programs, one JSON document a line");
        refused(
            &format!("{log}\n{log}\n"),
            "is Terraform's log for programs, one JSON document a line",
        );
        refused(
            r#"{"dev": {"inventory": {"version": 1}, "ip": "x"}, "prod": {"ip": "y"}}"#,
            "is the outputs file of CDKTF: bare values below the stacks `dev`, `prod`, without their sensitivity",
        );
        refused(
            r#"{"//": {"metadata": {}}, "terraform": {"backend": {}}, "provider": {"aws": []}, "output": {}}"#,
            "is Terraform configuration in JSON, as CDKTF synthesizes it: what should be, not what is",
        );
        refused("{}", "holds no outputs at all");
        refused(
            r#"{"vpc": {"sensitive": false, "type": "string", "value": "x"}}"#,
            "has no output `inventory`, only `vpc`",
        );
        refused(r#"{"format_version": "1.0"}"#, "holds no outputs at all");
        refused(
            r#"{"format_version": "2.0", "values": {}}"#,
            "has format_version 2.0; this tool knows major version 1",
        );
        refused(
            r#"{"format_version": "1.2", "planned_values": {}}"#,
            "is a plan: it says what would be, not what is",
        );
        refused(
            r#"{"encrypted_data": "x", "encryption_version": "v0", "meta": {}}"#,
            "is a state encrypted by OpenTofu",
        );
        refused(
            r#"{"version": 3, "serial": 1, "backend": {"type": "s3", "config": {}}}"#,
            "is Terraform's pointer to a `s3` backend, not a state",
        );
        refused(
            r#"{"version": 3, "serial": 1, "modules": []}"#,
            "is a state of format 3, which only old versions of Terraform read",
        );
        refused(
            r#"{"version": 5, "lineage": "x"}"#,
            "is a state of format 5; this tool knows format 4",
        );
        refused(r#"{"version": 4, "lineage": "x", "outputs": {}}"#, "holds no outputs at all");
        refused(
            r#"{"version": 1, "project": "p", "hosts": {}}"#,
            "is the bare value of one output, without its name and sensitivity",
        );
        refused(r#"{"all": {}}"#, "is an Ansible inventory already");
        refused(r#"{"a": 1, "b": 2}"#, "is no document of Terraform: its members are `a`, `b`");
        for (bytes, how) in [(&b"\x1f\x8b\x08"[..], "gzip"), (b"BZh9", "bzip2")] {
            let fault = inventory_value(bytes).unwrap_err();
            assert_eq!(fault.to_string(), format!("is compressed with {how}, not JSON"));
        }
        assert_eq!(
            inventory_value(b"\xff\xfe{\0}\0").unwrap_err().to_string(),
            "is UTF-16 text, not UTF-8"
        );
    }

    #[test]
    fn nesting_is_bounded_where_it_is_followed() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let output = |value: &str, other: &str| {
            format!(
                r#"{{"inventory": {{"sensitive": false, "type": "x", "value": {value}}}, "x": {{"sensitive": true, "type": "x", "value": {other}}}}}"#
            )
        };
        let fault = inventory_value(output(&deep(200), "1").as_bytes()).unwrap_err();
        assert!(fault.to_string().starts_with("is nested too deep at byte 1"), "{fault}");
        // What is skipped is not followed, however deep it is.
        assert!(inventory_value(output("1", &deep(100_000)).as_bytes()).is_ok());
    }

    #[test]
    fn a_number_beyond_a_double_is_named() {
        let text = r#"{"inventory": {"sensitive": false, "type": "x", "value": {"n": 1e999}}}"#;
        let fault = inventory_value(text.as_bytes()).unwrap_err().to_string();
        assert!(fault.starts_with("holds a number at byte 6"), "{fault}");
        assert!(fault.ends_with("it is beyond 1.8e308"), "{fault}");
    }

    #[test]
    fn outputs_may_be_called_like_members_of_a_state() {
        for name in ["resources", "values", "version", "format_version", "outputs", "root_module"] {
            let output = r#"{"sensitive": false, "type": "x", "value": [{"a": 1}]}"#;
            let text = format!(r#"{{"{name}": {output}, "inventory": {output}}}"#);
            assert!(inventory_value(text.as_bytes()).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_sensitive_output_is_never_read() {
        refused(
            r#"{"inventory": {"sensitive": true, "type": "string", "value": "canary"}}"#,
            "marks the output `inventory` as sensitive",
        );
        refused(
            r#"{"version": 4, "serial": 1, "outputs": {"inventory": {"value": "canary", "sensitive": true}}}"#,
            "marks the output `inventory` as sensitive",
        );
    }
}
