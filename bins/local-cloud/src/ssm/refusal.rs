//! Errors in the shape of AWS JSON 1.1.

use serde_json::json;

use super::Reply;

/// An error that Systems Manager answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into() }
    }

    /// What cannot be done truly. 501, since clients repeat other 5xx.
    pub(super) fn not_implemented(what: impl std::fmt::Display) -> Self {
        Self {
            status: 501,
            code: "NotImplemented",
            message: format!("the rehearsal cloud cannot do this truly, so it refuses: {what}"),
        }
    }

    /// A value that the service's model does not allow, in AWS's wording.
    pub(super) fn constraint(value: impl std::fmt::Display, at: &str, must: &str) -> Self {
        let message = format!(
            "1 validation error detected: Value '{value}' at '{at}' failed to satisfy constraint: {must}"
        );
        Self::new("ValidationException", message)
    }

    pub(super) fn reply(&self) -> Reply {
        // The model spells the member `Message`; the errors that every service shares spell it `message`.
        let member = match self.code {
            "ValidationException" | "SerializationException" => "message",
            _ => "Message",
        };
        Reply { status: self.status, body: json!({"__type": self.code, member: self.message}) }
    }
}
