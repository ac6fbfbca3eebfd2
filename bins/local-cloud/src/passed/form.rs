//! Whether the form of a call is one that its service's model allows. Pure.

use serde_json::Value;

use crate::failure::Failure;
use crate::model::{Kind, Operation};
use crate::operation::Form;

/// The checks of a form beyond its operation.
pub(super) fn form_fields(operation: &Operation, form: &Form) -> Result<(), Failure> {
    let bad =
        |(name, value): (&str, &str)| [name, value].iter().any(|text| text.contains('\u{fffd}'));
    if form.fields().any(bad) {
        return Err(Failure::client("MalformedInput", "The request holds an invalid character"));
    }
    for required in &operation.members {
        let there = |name: &str| {
            name.strip_prefix(required.name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if !form.names().any(there) {
            let message = format!(
                "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be \
                 null",
                lower_first(required.name)
            );
            return Err(Failure::client("ValidationError", message));
        }
    }
    Ok(())
}

/// Reads a JSON request: an object whose members have the kinds that the model says.
pub(super) fn json(operation: &Operation, body: &[u8], service: &str) -> Result<Value, Failure> {
    let wrong = |why: &str| Failure::client("SerializationException", why);
    // Some clients send nothing where nothing is asked.
    let body = if body.is_empty() { b"{}" } else { body };
    let value: Value = serde_json::from_slice(body).map_err(|error| wrong(&error.to_string()))?;
    let Some(object) = value.as_object() else {
        return Err(wrong("Start of structure or map found where not expected."));
    };
    for member in &operation.members {
        let value = object.get(member.name).filter(|value| !value.is_null());
        match value {
            None if member.required => {
                let name = lower_first(member.name);
                let message = format!(
                    "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must \
                     not be null"
                );
                return Err(Failure::client(validation_code(service), message));
            }
            None => {}
            Some(value) if is_kind(member.kind, value) => {}
            Some(value) => {
                return Err(wrong(&format!(
                    "{} cannot be converted to {} at `{}`",
                    kind_of(value),
                    kind_name(member.kind),
                    member.name
                )));
            }
        }
    }
    Ok(value)
}

fn is_kind(kind: Kind, value: &Value) -> bool {
    match kind {
        Kind::Text => value.is_string(),
        Kind::Number => value.is_number(),
        Kind::Flag => value.is_boolean(),
        Kind::List => value.is_array(),
        Kind::Map => value.is_object(),
        Kind::Time => value.is_number() || value.is_string(),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "String",
        Kind::Number => "Number",
        Kind::Flag => "Boolean",
        Kind::List => "List",
        Kind::Map => "Structure",
        Kind::Time => "Timestamp",
    }
}

/// As AWS names what it found.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "STRING_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Array(_) => "START_ARRAY",
        Value::Object(_) => "START_OBJECT",
        Value::Null => "VALUE_NULL",
    }
}

/// The code for a value that a service's model does not allow.
pub(super) fn validation_code(service: &str) -> &'static str {
    match service {
        "logs" | "tagging" | "ecs" => "InvalidParameterException",
        _ => "ValidationException",
    }
}

pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + chars.as_str())
}

/// A caller's text in an answer: never as large as its request.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}
