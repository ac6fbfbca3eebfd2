//! Documents: what a command's parameters make of its steps. Pure.
//!
//! After the user guide's pages "Data elements and parameters" and "Command document plugin reference", and the agent's
//! `runpluginutil.go` for preconditions and control flow. What is not done truly is refused by name.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// The document whose content this cloud has itself; it says what Amazon's says.
pub(super) const RUN_SHELL_SCRIPT: &str = "AWS-RunShellScript";
const RUN_SHELL_SCRIPT_CONTENT: &str = include_str!("run_shell_script.json");
/// Amazon's documents for Windows alone: no host of this cloud fits them.
const FOR_WINDOWS: [&str; 8] = [
    "AWS-ConfigureCloudWatch",
    "AWS-ConfigureWindowsUpdate",
    "AWS-FindWindowsUpdates",
    "AWS-InstallApplication",
    "AWS-InstallMissingWindowsUpdates",
    "AWS-InstallPowerShellModule",
    "AWS-InstallSpecificWindowsUpdates",
    "AWS-ListWindowsInventory",
];
/// The agent's default for a step's `timeoutSeconds`.
const EXECUTION_DEFAULT: &str = "3600";
/// The one plugin.
const SHELL: &str = "aws:runShellScript";
/// The document's size together with its parameters' (`CreateDocument`: 64 KB).
const LARGEST: usize = 64 * 1024;

/// A step, ready for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    /// What `PluginName` is in requests, and `Name` in answers.
    pub(super) name: String,
    pub(super) action: String,
    /// The folder of its output in a bucket, below the plugin's.
    pub(super) step: String,
    pub(super) commands: Vec<String>,
    pub(super) working_directory: String,
    /// Seconds as they came: what an agent makes of them is the agent's affair.
    pub(super) timeout: String,
    pub(super) on_failure: String,
    pub(super) on_success: String,
    #[serde(rename = "finally")]
    pub(super) last_word: bool,
    /// Why it does not run on this platform.
    pub(super) skip: Option<String>,
}

impl Step {
    /// Seconds that the agent gives it.
    pub(super) fn seconds(&self) -> i64 {
        self.timeout.parse().ok().filter(|seconds| (5..=172_800).contains(seconds)).unwrap_or(3_600)
    }
}

/// A document as it was found.
#[derive(Debug, Clone)]
pub(super) struct Document {
    name: String,
    content: Value,
}

/// Where the content of a document comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Here.
    Own,
    /// It is known to exist and to be for Windows.
    ForWindows,
    /// The account's own: in the emulator.
    Account,
}

/// Where a document is.
///
/// # Errors
/// `NotImplemented` for Amazon's other documents.
pub(super) fn source(name: &str) -> Result<Source, Refusal> {
    match name {
        RUN_SHELL_SCRIPT => Ok(Source::Own),
        name if FOR_WINDOWS.contains(&name) => Ok(Source::ForWindows),
        name if name.starts_with("AWS-") || name.starts_with("Amazon") => {
            Err(Refusal::not_implemented(format!("the document `{name}`")))
        }
        _ => Ok(Source::Account),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    #[serde(rename = "type", default)]
    kind: String,
    default: Option<Value>,
    #[serde(default)]
    allowed_values: Vec<Value>,
    allowed_pattern: Option<String>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    min_chars: Option<usize>,
    max_chars: Option<usize>,
}

/// A step as a document has it.
struct Raw<'a> {
    name: String,
    step: String,
    action: &'a str,
    inputs: &'a Value,
    precondition: &'a Value,
}

impl Document {
    /// `AWS-RunShellScript`.
    pub(super) fn run_shell_script() -> Self {
        let content = serde_json::from_str(RUN_SHELL_SCRIPT_CONTENT).unwrap_or_default();
        Self { name: RUN_SHELL_SCRIPT.to_owned(), content }
    }

    /// A document of the account.
    ///
    /// # Errors
    /// `InvalidDocument` when it is no command document, `NotImplemented` for schema versions not known here.
    pub(super) fn read(name: &str, kind: &str, content: &str) -> Result<Self, Refusal> {
        if kind != "Command" {
            let message =
                format!("Document {name} of type {kind} is not supported for Run Command");
            return Err(Refusal::new("InvalidDocument", message));
        }
        let content: Value = serde_json::from_str(content).map_err(|error| {
            Refusal::new("InvalidDocument", format!("Document {name} is no JSON: {error}"))
        })?;
        match content["schemaVersion"].as_str() {
            Some("1.2" | "2.0" | "2.2") => Ok(Self { name: name.to_owned(), content }),
            other => Err(Refusal::not_implemented(format!(
                "schema version {} of the document `{name}`",
                other.unwrap_or("(none)")
            ))),
        }
    }

    /// Its steps with these parameters put in.
    ///
    /// # Errors
    /// `InvalidParameters`, `MaxDocumentSizeExceeded`, and `NotImplemented` for what a step must not have here.
    pub(super) fn steps(&self, given: &Map<String, Value>) -> Result<Vec<Step>, Refusal> {
        let values = self.values(given)?;
        let raw = self.raw()?;
        raw.iter().map(|step| self.step(step, &values)).collect()
    }

    /// Whether any step can run on Linux; the service computes `PlatformTypes` alike.
    pub(super) fn fits_linux(steps: &[Step]) -> bool {
        steps.iter().any(|step| step.skip.is_none())
    }

    /// The parameters' values: those given, checked, and defaults.
    fn values(&self, given: &Map<String, Value>) -> Result<BTreeMap<String, Value>, Refusal> {
        let definitions: BTreeMap<String, Definition> =
            match self.content.get("parameters").filter(|parameters| !parameters.is_null()) {
                None => BTreeMap::new(),
                Some(parameters) => Deserialize::deserialize(parameters).map_err(|error| {
                    Refusal::new("InvalidDocument", format!("{}: parameters: {error}", self.name))
                })?,
            };
        let mut size = 0;
        for (name, value) in given {
            let texts = texts(name, value)?;
            size += name.len() + texts.iter().map(String::len).sum::<usize>();
            if !definitions.contains_key(name) {
                let message = format!("Parameter \"{name}\" is not defined in the document.");
                return Err(Refusal::new("InvalidParameters", message));
            }
        }
        if self.name != RUN_SHELL_SCRIPT {
            size += self.content.to_string().len();
        }
        if size > LARGEST {
            let message = format!(
                "The size limit of a document is 64 KB; document and parameters have {size} bytes."
            );
            return Err(Refusal::new("MaxDocumentSizeExceeded", message));
        }
        let mut values = BTreeMap::new();
        for (name, definition) in definitions {
            let value = match given.get(&name) {
                Some(value) => definition.check(&name, texts(&name, value)?)?,
                None => definition.default.ok_or_else(|| {
                    Refusal::new(
                        "InvalidParameters",
                        format!("Parameter \"{name}\" requires a value."),
                    )
                })?,
            };
            values.insert(name, value);
        }
        Ok(values)
    }

    fn raw(&self) -> Result<Vec<Raw<'_>>, Refusal> {
        const NOTHING: &Value = &Value::Null;
        let invalid = || Refusal::new("InvalidDocument", format!("{}: it has no steps", self.name));
        if self.content["schemaVersion"] == "1.2" {
            let config = self.content["runtimeConfig"].as_object().ok_or_else(invalid)?;
            return config
                .iter()
                .map(|(plugin, config)| {
                    let properties = &config["properties"];
                    let one = match properties.as_array().map(Vec::as_slice) {
                        Some([one]) => one,
                        Some(_) => {
                            let what = format!("several properties of {plugin} in one document");
                            return Err(Refusal::not_implemented(what));
                        }
                        None => properties,
                    };
                    let id = one["id"].as_str().unwrap_or_default().replace(':', "");
                    let (inputs, precondition) = (one, NOTHING);
                    Ok(Raw { name: plugin.clone(), step: id, action: plugin, inputs, precondition })
                })
                .collect();
        }
        let steps = self.content["mainSteps"].as_array().filter(|steps| !steps.is_empty());
        let steps = steps.ok_or_else(invalid)?;
        steps
            .iter()
            .map(|step| {
                known(
                    step,
                    &["action", "name", "inputs", "precondition", "description"],
                    "a step",
                )?;
                let name = step["name"].as_str().ok_or_else(invalid)?.to_owned();
                let action = step["action"].as_str().ok_or_else(invalid)?;
                let precondition = step.get("precondition").unwrap_or(NOTHING);
                Ok(Raw { step: name.clone(), name, action, inputs: &step["inputs"], precondition })
            })
            .collect()
    }

    fn step(&self, raw: &Raw<'_>, values: &BTreeMap<String, Value>) -> Result<Step, Refusal> {
        let skip = unmet(raw.precondition, &raw.name, values)?;
        if raw.action != SHELL && skip.is_none() {
            return Err(Refusal::not_implemented(format!(
                "the plugin `{}` of step `{}` in the document `{}`",
                raw.action, raw.name, self.name
            )));
        }
        let mut step = Step {
            name: raw.name.clone(),
            action: raw.action.to_owned(),
            step: raw.step.clone(),
            commands: Vec::new(),
            working_directory: String::new(),
            timeout: EXECUTION_DEFAULT.to_owned(),
            on_failure: String::new(),
            on_success: String::new(),
            last_word: false,
            skip,
        };
        if step.skip.is_some() {
            return Ok(step);
        }
        let allowed = [
            "id",
            "runCommand",
            "workingDirectory",
            "timeoutSeconds",
            "onFailure",
            "onSuccess",
            "finallyStep",
        ];
        known(raw.inputs, &allowed, &format!("{SHELL} in the document `{}`", self.name))?;
        let filled = |name: &str| raw.inputs.get(name).map(|value| fill(value, values));
        step.commands = match filled("runCommand") {
            Some(Value::Array(lines)) => lines.iter().flat_map(lines_of).collect(),
            Some(Value::String(line)) => vec![line],
            _ => {
                let message = format!("{}: step {} has no runCommand", self.name, raw.name);
                return Err(Refusal::new("InvalidDocument", message));
            }
        };
        let text = |name: &str| filled(name).as_ref().map(plain).unwrap_or_default();
        step.working_directory = text("workingDirectory");
        if let Some(timeout) = filled("timeoutSeconds") {
            step.timeout = plain(&timeout);
        }
        step.last_word = text("finallyStep") == "true";
        for (name, value, allowed) in [
            ("onFailure", &mut step.on_failure, &["exit", "successAndExit"][..]),
            ("onSuccess", &mut step.on_success, &["exit"][..]),
        ] {
            *value = text(name);
            if !value.is_empty() && !allowed.contains(&value.as_str()) {
                return Err(Refusal::not_implemented(format!("`{name}: {value}` of a step")));
            }
        }
        Ok(step)
    }
}

impl Definition {
    fn check(&self, name: &str, texts: Vec<String>) -> Result<Value, Refusal> {
        let invalid = |message: String| Err(Refusal::new("InvalidParameters", message));
        let list = self.kind == "StringList" || self.kind == "MapList";
        if !list && texts.len() != 1 {
            return invalid(format!("Parameter \"{name}\" takes one value."));
        }
        if list {
            if texts.is_empty() || self.min_items.is_some_and(|least| texts.len() < least) {
                return invalid(format!("Parameter \"{name}\" requires a value."));
            }
            if self.max_items.is_some_and(|most| texts.len() > most) {
                return invalid(format!("Parameter \"{name}\" has too many values."));
            }
        }
        let pattern = match &self.allowed_pattern {
            None => None,
            Some(pattern) => Some((
                pattern,
                Regex::new(&format!("^(?:{pattern})$")).map_err(|_| {
                    Refusal::not_implemented(format!(
                        "the pattern `{pattern}` of parameter `{name}`"
                    ))
                })?,
            )),
        };
        for text in &texts {
            let length = text.chars().count();
            if self.min_chars.is_some_and(|least| length < least)
                || self.max_chars.is_some_and(|most| length > most)
            {
                return invalid(format!("Parameter \"{name}\" has a value of invalid length."));
            }
            if !self.allowed_values.is_empty()
                && !self.allowed_values.iter().any(|allowed| plain(allowed) == *text)
            {
                return invalid(format!(
                    "Parameter \"{name}\" has value \"{text}\" not in {}.",
                    Value::from(self.allowed_values.clone())
                ));
            }
            if let Some((pattern, regex)) = &pattern
                && !regex.is_match(text)
            {
                return invalid(format!(
                    "Parameter \"{name}\" has value \"{text}\" not matching {pattern}."
                ));
            }
            let fits = match self.kind.as_str() {
                "Integer" => text.parse::<i64>().is_ok(),
                "Boolean" => text == "true" || text == "false",
                "StringMap" | "MapList" => serde_json::from_str::<Map<String, Value>>(text).is_ok(),
                _ => true,
            };
            if !fits {
                return invalid(format!(
                    "Parameter \"{name}\" has a value that is no {}.",
                    self.kind
                ));
            }
        }
        Ok(if list { texts.into() } else { texts.into_iter().next().unwrap_or_default().into() })
    }
}

fn texts(name: &str, value: &Value) -> Result<Vec<String>, Refusal> {
    Deserialize::deserialize(value).map_err(|_| {
        Refusal::new("SerializationException", format!("{name} is not a list of strings"))
    })
}

/// Refuses what is there and not done here.
fn known(object: &Value, allowed: &[&str], of: &str) -> Result<(), Refusal> {
    let keys = object.as_object().into_iter().flat_map(Map::keys);
    match keys.into_iter().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(Refusal::not_implemented(format!("`{key}` of {of}"))),
        None => Ok(()),
    }
}

/// Why a step's precondition keeps it from running on Linux.
fn unmet(
    precondition: &Value,
    step: &str,
    values: &BTreeMap<String, Value>,
) -> Result<Option<String>, Refusal> {
    let Some(conditions) = precondition.as_object() else { return Ok(None) };
    for (operator, arguments) in conditions {
        let arguments: Vec<&str> =
            arguments.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let (&[first, second], "StringEquals") = (arguments.as_slice(), operator.as_str()) else {
            let what = format!("the precondition `{operator}` of step `{step}`");
            return Err(Refusal::not_implemented(what));
        };
        let value = |text: &str| match text {
            "platformType" => "Linux".to_owned(),
            text => plain(&fill(&text.into(), values)),
        };
        let (left, right) = (value(first), value(second));
        let same = if first == "platformType" || second == "platformType" {
            left.eq_ignore_ascii_case(&right)
        } else {
            left == right
        };
        if !same {
            return Ok(Some(format!(
                "Step execution skipped due to unsatisfied preconditions: '\"StringEquals\": [{first}, {second}]'. Step name: {step}"
            )));
        }
    }
    Ok(None)
}

/// Puts values in for `{{ name }}`. A text that is nothing else becomes the value itself, as it is.
fn fill(value: &Value, values: &BTreeMap<String, Value>) -> Value {
    match value {
        Value::String(text) => fill_text(text, values),
        Value::Array(items) => items.iter().map(|item| fill(item, values)).collect(),
        Value::Object(map) => Value::Object(
            map.iter().map(|(key, value)| (key.clone(), fill(value, values))).collect(),
        ),
        other => other.clone(),
    }
}

fn fill_text(text: &str, values: &BTreeMap<String, Value>) -> Value {
    if let Some(name) = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"))
        && let Some(value) = values.get(name.trim())
    {
        return value.clone();
    }
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    // One pass, so that what a value says is never looked at again.
    while let Some(start) = rest.find("{{") {
        let inside = &rest[start + 2..];
        let found =
            inside.find("}}").and_then(|end| Some((end, values.get(inside[..end].trim())?)));
        match found {
            Some((end, value)) => {
                out.push_str(&rest[..start]);
                out.push_str(&plain(value));
                rest = &inside[end + 2..];
            }
            None => {
                out.push_str(&rest[..start + 2]);
                rest = inside;
            }
        }
    }
    out.push_str(rest);
    out.into()
}

/// A value within a text: strings as they are, everything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// An element of `runCommand` that is a parameter of type `StringList` stands for all its lines.
fn lines_of(value: &Value) -> Vec<String> {
    match value {
        Value::Array(lines) => lines.iter().map(plain).collect(),
        other => vec![plain(other)],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    fn document(content: &Value) -> Document {
        Document::read("mine", "Command", &content.to_string()).expect("a document")
    }

    fn code(outcome: Result<Vec<Step>, Refusal>) -> &'static str {
        outcome.expect_err("refused").code
    }

    #[test]
    fn the_built_in_document_takes_what_amazons_takes() {
        let document = Document::run_shell_script();
        let steps = |value: Value| document.steps(&map(value));
        let step = steps(json!({"commands": ["echo {{ not }}", "true"]})).expect("valid").remove(0);
        assert_eq!(step.name, "aws:runShellScript");
        assert_eq!(step.step, "0.awsrunShellScript");
        assert_eq!(step.commands, ["echo {{ not }}", "true"]);
        assert_eq!((step.timeout.as_str(), step.working_directory.as_str()), ("3600", ""));
        assert_eq!(code(steps(json!({}))), "InvalidParameters");
        assert_eq!(code(steps(json!({"commands": []}))), "InvalidParameters");
        assert_eq!(code(steps(json!({"commands": ["a"], "shell": ["b"]}))), "InvalidParameters");
        assert_eq!(code(steps(json!({"commands": "a"}))), "SerializationException");
        for bad in ["0", "172801", "1h", "+5", "", "0x10"] {
            let parameters = json!({"commands": ["true"], "executionTimeout": [bad]});
            assert_eq!(code(steps(parameters)), "InvalidParameters", "{bad}");
        }
        for good in ["1", "4", "172800", "99999"] {
            let parameters = json!({"commands": ["true"], "executionTimeout": [good]});
            assert_eq!(steps(parameters).map(|steps| steps[0].timeout.clone()), Ok(good.into()));
        }
        let long = "x".repeat(4_097);
        let parameters = json!({"commands": ["true"], "workingDirectory": [long]});
        assert_eq!(code(steps(parameters)), "InvalidParameters");
    }

    #[test]
    fn sixty_four_kilobytes_are_the_limit_of_all_parameters_together() {
        let with = |bytes: usize| {
            let parameters = map(json!({"commands": ["x".repeat(bytes)]}));
            Document::run_shell_script().steps(&parameters)
        };
        let name = "commands".len();
        assert!(with(LARGEST - name).is_ok());
        let refusal = with(LARGEST - name + 1).expect_err("too large");
        assert_eq!(refusal.code, "MaxDocumentSizeExceeded");
        assert!(refusal.message.contains("65537"), "{}", refusal.message);
    }

    #[test]
    fn parameters_are_put_in_once_and_by_type() {
        let document = document(&json!({
            "schemaVersion": "2.2",
            "parameters": {
                "lines": {"type": "StringList"},
                "word": {"type": "String", "default": "one", "allowedValues": ["one", "{{ lines }}"]},
                "count": {"type": "Integer", "default": 3},
            },
            "mainSteps": [
                {"action": "aws:runShellScript", "name": "first",
                 "inputs": {"runCommand": ["echo {{word}} {{ count }} {{ none }}", "{{ lines }}"],
                            "timeoutSeconds": "{{ count }}"}},
                {"action": "aws:runShellScript", "name": "second", "inputs": {"runCommand": "{{ lines }}"}},
            ],
        }));
        let steps = document.steps(&map(json!({"lines": ["a", "b"]}))).expect("valid");
        assert_eq!(steps[0].commands, ["echo one 3 {{ none }}", "a", "b"]);
        assert_eq!(steps[0].timeout, "3");
        assert_eq!((steps[1].name.as_str(), steps[1].step.as_str()), ("second", "second"));
        assert_eq!(steps[1].commands, ["a", "b"]);
        let parameters = map(json!({"lines": ["a"], "word": ["{{ lines }}"]}));
        let steps = document.steps(&parameters).expect("valid");
        assert_eq!(steps[0].commands[0], "echo {{ lines }} 3 {{ none }}", "not looked at again");
        let bad = map(json!({"lines": ["a"], "word": ["two"]}));
        assert_eq!(code(document.steps(&bad)), "InvalidParameters");
        let bad = map(json!({"lines": ["a"], "count": ["many"]}));
        assert_eq!(code(document.steps(&bad)), "InvalidParameters");
    }

    #[test]
    fn a_step_for_another_platform_is_skipped() {
        let steps = |platform: &str| {
            let content = json!({
                "schemaVersion": "2.2",
                "mainSteps": [
                    {"action": "aws:runPowerShellScript", "name": "win",
                     "precondition": {"StringEquals": ["platformType", "Windows"]},
                     "inputs": {"runCommand": ["dir"]}},
                    {"action": "aws:runShellScript", "name": "unix",
                     "precondition": {"StringEquals": [platform, "platformType"]},
                     "inputs": {"runCommand": ["ls"]}},
                ],
            });
            document(&content).steps(&Map::new()).expect("valid")
        };
        let both = steps("Linux");
        assert!(both[0].skip.as_deref().is_some_and(|why| why.contains("unsatisfied")));
        assert_eq!(both[1].skip, None);
        assert!(Document::fits_linux(&both));
        assert!(!Document::fits_linux(&steps("Windows")));
    }

    #[test]
    fn what_is_not_done_truly_is_refused_by_name() {
        let refused = |step: Value, name: &str| {
            let content = json!({"schemaVersion": "2.2", "mainSteps": [step]});
            let refusal = document(&content).steps(&Map::new()).expect_err(name);
            assert_eq!(refusal.code, "NotImplemented");
            assert!(refusal.message.contains(name), "{}", refusal.message);
        };
        let shell = |key: &str, value: Value| {
            let mut step =
                json!({"action": SHELL, "name": "a", "inputs": {"runCommand": ["true"]}});
            step[key] = value;
            step
        };
        refused(
            json!({"action": "aws:downloadContent", "name": "a", "inputs": {}}),
            "aws:downloadContent",
        );
        refused(shell("isEnd", true.into()), "isEnd");
        refused(shell("inputs", json!({"runCommand": ["a"], "user": "x"})), "user");
        refused(shell("inputs", json!({"runCommand": ["a"], "onFailure": "abort"})), "abort");
        refused(shell("precondition", json!({"NumberEquals": ["a", "b"]})), "NumberEquals");
        let automation = Document::read("mine", "Automation", "{}").expect_err("no command");
        assert_eq!(automation.code, "InvalidDocument");
        let old =
            Document::read("mine", "Command", r#"{"schemaVersion": "0.3"}"#).expect_err("old");
        assert_eq!(old.code, "NotImplemented");
        assert_eq!(source("AWS-RunAnsiblePlaybook").map_err(|r| r.code), Err("NotImplemented"));
        assert_eq!(source("AWS-FindWindowsUpdates"), Ok(Source::ForWindows));
        assert_eq!(source("mine"), Ok(Source::Account));
    }
}
