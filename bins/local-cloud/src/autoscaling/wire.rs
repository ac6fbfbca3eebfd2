//! The query protocol of Auto Scaling: parameters, answers, errors. Pure.
//!
//! Shapes from botocore's model (`autoscaling/2011-01-01`), wording of errors from what users of AWS show.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::group::TemplateSpec;
use crate::ec2::answers::{Refusal, request_id};
use crate::ec2::client::CallError;
use crate::operation::Form;
use crate::xml::Element;

const NAMESPACE: &str = "http://autoscaling.amazonaws.com/doc/2011-01-01/";

/// An error that Auto Scaling answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn client(code: &str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: code.to_owned(), message: message.into() }
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::client("ValidationError", message)
    }

    pub(super) fn no_group(name: &str) -> Self {
        Self::validation(format!(
            "AutoScalingGroup name not found - AutoScalingGroup '{name}' not found"
        ))
    }

    pub(super) fn no_instance(id: &str) -> Self {
        Self::validation(format!(
            "Instance Id not found - No managed instance found for instance ID {id}"
        ))
    }

    pub(super) fn response(&self) -> Response<Body> {
        let kind = if self.status.is_server_error() { "Receiver" } else { "Sender" };
        let error = Element::node(
            "Error",
            vec![
                Element::leaf("Type", kind),
                Element::leaf("Code", &self.code),
                Element::leaf("Message", &self.message),
            ],
        );
        let root =
            Element::node("ErrorResponse", vec![error, Element::leaf("RequestId", &request_id())]);
        xml(self.status, &root.namespace(NAMESPACE))
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self { status: refusal.status, code: refusal.code.to_owned(), message: refusal.message }
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        let status = match error.code.as_str() {
            "InternalError" => StatusCode::INTERNAL_SERVER_ERROR,
            "NotImplemented" => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        };
        Self { status, code: error.code, message: error.message }
    }
}

fn xml(status: StatusCode, root: &Element) -> Response<Body> {
    let mut response = Response::new(Body::from(root.write()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}

/// The answer of an operation.
pub(super) fn answer(operation: &str, result: Option<Vec<Element>>) -> Response<Body> {
    let mut parts = Vec::new();
    if let Some(result) = result {
        parts.push(Element::node(&format!("{operation}Result"), result));
    }
    let metadata = vec![Element::leaf("RequestId", &request_id())];
    parts.push(Element::node("ResponseMetadata", metadata));
    let root = Element::node(&format!("{operation}Response"), parts).namespace(NAMESPACE);
    xml(StatusCode::OK, &root)
}

/// A list of structures.
pub(super) fn list(name: &str, items: impl IntoIterator<Item = Vec<Element>>) -> Element {
    Element::node(name, items.into_iter().map(|item| Element::node("member", item)).collect())
}

/// A launch template.
pub(super) fn template(spec: &TemplateSpec) -> Element {
    let parts = vec![
        Element::leaf("LaunchTemplateId", &spec.id),
        Element::leaf("LaunchTemplateName", &spec.name),
        Element::leaf("Version", &spec.version),
    ];
    Element::node("LaunchTemplate", parts)
}

/// The filters of a request: names and values.
pub(super) fn filters(params: Params<'_>) -> Vec<(&str, Vec<&str>)> {
    params
        .entries("Filters")
        .into_iter()
        .filter_map(|entry| {
            Some((params.get(&format!("{entry}Name"))?, params.list(&format!("{entry}Values"))))
        })
        .collect()
}

/// A list of texts.
pub(super) fn texts<'a>(name: &str, items: impl IntoIterator<Item = &'a str>) -> Element {
    Element::node(name, items.into_iter().map(|item| Element::leaf("member", item)).collect())
}

/// A time.
pub(super) fn time(name: &str, time: Timestamp) -> Element {
    Element::leaf(name, &format!("{time:.3}"))
}

/// The parameters of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Params<'a>(pub(super) &'a Form);

impl<'a> Params<'a> {
    /// A parameter; an empty one is none.
    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        self.0.get(name).filter(|value| !value.is_empty())
    }

    pub(super) fn required(self, name: &str) -> Result<&'a str, Fault> {
        self.get(name).ok_or_else(|| {
            let mut letters = name.chars();
            let first = letters.next().map(|c| c.to_ascii_lowercase()).unwrap_or_default();
            Fault::validation(format!(
                "1 validation error detected: Value null at '{first}{}' failed to satisfy constraint: \
                 Member must not be null",
                letters.as_str()
            ))
        })
    }

    pub(super) fn number(self, name: &str) -> Result<Option<u32>, Fault> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse::<u32>().ok().filter(|number| *number <= 1_000_000).map(Some).ok_or_else(|| {
            Fault::validation(format!(
                "1 validation error detected: Value '{text}' at '{name}' failed to satisfy constraint: \
                 Member must be a number that is not negative"
            ))
        })
    }

    pub(super) fn flag(self, name: &str) -> Result<Option<bool>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(Fault::client(
                "MalformedInput",
                format!("'{other}' at {name} is not a boolean"),
            )),
        }
    }

    pub(super) fn list(self, name: &str) -> Vec<&'a str> {
        self.0.list(&format!("{name}.member"))
    }

    /// The entries of a list of structures, each with the beginning of its fields' names.
    pub(super) fn entries(self, name: &str) -> Vec<String> {
        let start = format!("{name}.member.");
        let mut numbers: Vec<u32> = self
            .0
            .names()
            .filter_map(|field| field.strip_prefix(&start)?.split('.').next()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|number| format!("{start}{number}.")).collect()
    }
}

/// One page of a list and the token of the next one.
pub(super) fn page<T>(
    params: Params<'_>,
    items: Vec<T>,
    usual: u32,
    most: u32,
) -> Result<(Vec<T>, Option<Element>), Fault> {
    let size = params.number("MaxRecords")?.unwrap_or(usual);
    if size == 0 || size > most {
        return Err(Fault::validation(format!(
            "1 validation error detected: Value '{size}' at 'maxRecords' failed to satisfy constraint: \
             Member must have value between 1 and {most}"
        )));
    }
    let size = usize::try_from(size).unwrap_or(50);
    let start = match params.get("NextToken") {
        None => 0,
        Some(token) => URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|text| String::from_utf8(text).ok())
            .and_then(|text| text.strip_prefix("from ")?.parse::<usize>().ok())
            .ok_or_else(|| {
                Fault::client("InvalidNextToken", format!("The token '{token}' is invalid."))
            })?,
    };
    let more = items.len() > start.saturating_add(size);
    let token = more.then(|| {
        Element::leaf("NextToken", &URL_SAFE_NO_PAD.encode(format!("from {}", start + size)))
    });
    Ok((items.into_iter().skip(start).take(size).collect(), token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_the_protocol_writes_them() {
        let form = Form::parse(
            b"MinSize=1&MaxSize=x&Flag=true&Names.member.1=a&Names.member.2=b&Tags.member.10.Key=k&Tags.member.2.Key=j&Empty=",
        );
        let params = Params(&form);
        assert_eq!(params.number("MinSize"), Ok(Some(1)));
        assert_eq!(params.number("MaxSize").expect_err("no number").code, "ValidationError");
        assert_eq!(params.flag("Flag"), Ok(Some(true)));
        assert_eq!(params.list("Names"), ["a", "b"]);
        assert_eq!(params.entries("Tags"), ["Tags.member.2.", "Tags.member.10."]);
        let fault = params.required("Empty").expect_err("nothing");
        assert!(fault.message.contains("Value null at 'empty'"), "{}", fault.message);
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let mut token: Option<String> = None;
        let mut seen = Vec::new();
        loop {
            let mut form = Form::new([("MaxRecords", "2")]);
            if let Some(token) = &token {
                form.push("NextToken", token.clone());
            }
            let (items, next) = page(Params(&form), vec![1, 2, 3, 4], 50, 100).expect("a page");
            seen.extend(items);
            token = next.map(|next| next.text());
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, [1, 2, 3, 4]);
        let form = Form::new([("NextToken", "x")]);
        assert_eq!(
            page(Params(&form), vec![1], 50, 100).expect_err("bad").code,
            "InvalidNextToken"
        );
    }
}
