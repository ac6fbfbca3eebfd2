//! Errors in the protocol of the caller, and what the emulator's own failures become.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::ec2::answers::request_id;
use crate::xml::Element;

/// How a service writes its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// EC2's own form of XML.
    Ec2,
    /// The other query services.
    Query,
    /// AWS JSON.
    Json,
    /// Paths and methods: XML as S3 writes it, and the code in a header as the others do.
    Rest,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub status: StatusCode,
    /// AWS's error code.
    pub code: String,
    /// Its message.
    pub message: String,
}

impl Failure {
    /// The caller's fault.
    pub fn client(code: &str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: code.to_owned(), message: message.into() }
    }

    /// What the emulator's failure means: it lacks something, or it broke. Its answer is a page for people, so its
    /// log is asked for the reason.
    pub fn of_the_emulator(what: &str, last_words: Option<&str>, dialect: Dialect) -> Self {
        let said = last_words.unwrap_or("its log says nothing");
        if said.starts_with("NotImplementedError") {
            let reason = said.trim_start_matches("NotImplementedError").trim_start_matches(": ");
            return Self {
                status: StatusCode::NOT_IMPLEMENTED,
                code: "NotImplemented".into(),
                message: format!(
                    "the emulator behind the rehearsal cloud lacks this: {what}{}{reason}",
                    if reason.is_empty() { "" } else { ": " }
                ),
            };
        }
        let code = match dialect {
            Dialect::Ec2 | Dialect::Rest => "InternalError",
            Dialect::Query => "InternalFailure",
            Dialect::Json => "InternalServerError",
        };
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: code.into(),
            message: format!("the emulator behind the rehearsal cloud failed: {what}: {said}"),
        }
    }

    /// The answer.
    pub fn response(&self, dialect: Dialect) -> Response<Body> {
        let code = Element::leaf("Code", &self.code);
        let message = Element::leaf("Message", &self.message);
        let id = request_id();
        let (kind, text) = match dialect {
            Dialect::Ec2 => {
                let errors =
                    Element::node("Errors", vec![Element::node("Error", vec![code, message])]);
                let root = Element::node("Response", vec![errors, Element::leaf("RequestID", &id)]);
                ("text/xml;charset=UTF-8", root.write())
            }
            Dialect::Query => {
                let side = if self.status.is_server_error() { "Receiver" } else { "Sender" };
                let error =
                    Element::node("Error", vec![Element::leaf("Type", side), code, message]);
                let root =
                    Element::node("ErrorResponse", vec![error, Element::leaf("RequestId", &id)]);
                ("text/xml", root.write())
            }
            Dialect::Json => {
                let body = json!({"__type": self.code, "message": self.message});
                ("application/x-amz-json-1.1", body.to_string())
            }
            Dialect::Rest => {
                let root =
                    Element::node("Error", vec![code, message, Element::leaf("RequestId", &id)]);
                ("application/xml", root.write())
            }
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        for (name, value) in [("x-amzn-requestid", &id), ("x-amzn-errortype", &self.code)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Whether an answer is a page that the emulator's web server made when the emulator failed.
pub fn is_page(status: StatusCode, kind: Option<&HeaderValue>) -> bool {
    status.is_server_error()
        && kind
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/html"))
}

/// The last exception that a log of Python tells of, e.g. `KeyError: 'x'`.
pub fn last_exception(log: &str) -> Option<&str> {
    log.lines().rev().map(str::trim_end).find(|line| {
        let name = line.split(':').next().unwrap_or_default();
        let last = name.rsplit('.').next().unwrap_or_default();
        let named = ["Error", "Exception", "StopIteration"].iter().any(|end| last.ends_with(end));
        named && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_exception_is_found_among_access_lines() {
        let log = "Traceback (most recent call last):\n  File \"x.py\", line 1, in y\n    z()\nKeyError: 'a'\n\
                   Traceback (most recent call last):\n  File \"x.py\", line 1, in y\n\
                   AttributeError: 'NoneType' object has no attribute 'state'\n\
                   127.0.0.1 - - [21/Nov/2026] \"POST / HTTP/1.1\" 500 -\n";
        assert_eq!(
            last_exception(log),
            Some("AttributeError: 'NoneType' object has no attribute 'state'")
        );
        assert_eq!(last_exception("moto.core.Error: x\n"), Some("moto.core.Error: x"));
        assert_eq!(last_exception("nothing: Error\n"), None);
    }

    #[test]
    fn what_the_emulator_lacks_is_not_its_failure() {
        let check = |words: Option<&str>, status: u16, part: &str| {
            let failure = Failure::of_the_emulator("ec2 DescribeX", words, Dialect::Ec2);
            assert_eq!(failure.status.as_u16(), status);
            assert!(failure.message.contains(part), "{}", failure.message);
        };
        check(
            Some("NotImplementedError: The filter 'x' is not there"),
            501,
            "ec2 DescribeX: The filter",
        );
        check(Some("NotImplementedError"), 501, "ec2 DescribeX");
        check(Some("KeyError: 'a'"), 500, "ec2 DescribeX: KeyError: 'a'");
        check(None, 500, "its log says nothing");
    }
}
