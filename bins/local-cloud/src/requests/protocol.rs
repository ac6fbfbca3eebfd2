//! The protocols of AWS APIs, as far as an error has to be written in them. Pure.
//!
//! Which one a service speaks: `metadata.protocol` of botocore's service models. Shapes of errors: the error parsers in
//! botocore's `parsers.py`, and answers of AWS.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::ec2::answers::request_id;
use crate::xml::Element;

/// How requests and answers of a service look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// EC2's own query protocol.
    Ec2,
    /// Forms and XML: IAM, STS, Auto Scaling, load balancers, …
    Query,
    /// `X-Amz-Target` and JSON: Systems Manager, Secrets Manager, …
    Json,
    /// Paths and JSON: Lambda, MQ, EKS, …
    RestJson,
    /// Paths and XML: Route 53, CloudFront.
    RestXml,
    /// S3, which has errors of its own shape.
    S3,
    /// Smithy RPC v2 with CBOR: newer clients of CloudWatch.
    Cbor,
}

/// An error that a service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// HTTP status.
    pub status: u16,
    /// The code that clients sort by.
    pub code: String,
    /// The message.
    pub message: String,
    /// Further fields, in protocols that have room for them.
    pub more: Vec<(&'static str, String)>,
}

impl ServiceError {
    /// An error without further fields.
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), more: Vec::new() }
    }
}

impl Protocol {
    /// What a request to this service speaks.
    pub fn of(service: &str, headers: &HeaderMap, query: Option<&str>) -> Self {
        let is = |name, value: &str| {
            headers.get(name).is_some_and(|given: &HeaderValue| {
                given.as_bytes().to_ascii_lowercase().starts_with(value.as_bytes())
            })
        };
        if is("smithy-protocol", "rpc-v2-cbor") {
            return Self::Cbor;
        }
        match service {
            "ec2" => return Self::Ec2,
            "s3" | "s3express" => return Self::S3,
            "route53" | "cloudfront" => return Self::RestXml,
            _ => {}
        }
        if headers.contains_key("x-amz-target") {
            return Self::Json;
        }
        let form = is("content-type", "application/x-www-form-urlencoded");
        if form || query.is_some_and(|query| query.contains("Action=")) {
            return Self::Query;
        }
        Self::RestJson
    }

    /// An error in this protocol; `headers` and `path` are the request's.
    pub fn refuse(self, error: &ServiceError, headers: &HeaderMap, path: &str) -> Response<Body> {
        let id = request_id();
        let (kind, body): (&str, Vec<u8>) = match self {
            Self::Ec2 => {
                let node = Element::node("Error", error_fields(error));
                let root = Element::node(
                    "Response",
                    vec![Element::node("Errors", vec![node]), Element::leaf("RequestID", &id)],
                );
                ("text/xml;charset=UTF-8", root.write().into())
            }
            Self::Query | Self::RestXml => {
                let side = if error.status < 500 { "Sender" } else { "Receiver" };
                let mut fields = vec![Element::leaf("Type", side)];
                fields.extend(error_fields(error));
                let root = Element::node(
                    "ErrorResponse",
                    vec![Element::node("Error", fields), Element::leaf("RequestId", &id)],
                );
                ("text/xml", root.write().into())
            }
            Self::S3 => {
                let mut fields = error_fields(error);
                fields.push(Element::leaf("Resource", path));
                fields.push(Element::leaf("RequestId", &id));
                ("application/xml", Element::node("Error", fields).write().into())
            }
            Self::Json => {
                let version = headers
                    .get(header::CONTENT_TYPE)
                    .filter(|given| given.as_bytes().starts_with(b"application/x-amz-json-1.0"));
                let kind = match version {
                    Some(_) => "application/x-amz-json-1.0",
                    None => "application/x-amz-json-1.1",
                };
                let body = json!({"__type": error.code, "message": error.message});
                (kind, body.to_string().into())
            }
            Self::RestJson => {
                ("application/json", json!({"message": error.message}).to_string().into())
            }
            Self::Cbor => ("application/cbor", cbor(error)),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        };
        set("content-type", kind);
        set(if self == Self::S3 { "x-amz-request-id" } else { "x-amzn-requestid" }, &id);
        match self {
            Self::RestJson => set("x-amzn-errortype", &error.code),
            Self::Cbor => set("smithy-protocol", "rpc-v2-cbor"),
            _ => {}
        }
        response
    }
}

fn error_fields(error: &ServiceError) -> Vec<Element> {
    let mut fields =
        vec![Element::leaf("Code", &error.code), Element::leaf("Message", &error.message)];
    fields.extend(error.more.iter().map(|(name, value)| Element::leaf(name, value)));
    fields
}

/// `{"__type": code, "message": message}` (RFC 8949: a map of two pairs of texts).
fn cbor(error: &ServiceError) -> Vec<u8> {
    let mut bytes = vec![0xA2];
    for text in ["__type", &error.code, "message", &error.message] {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        bytes.push(0x79);
        bytes.extend(length.to_be_bytes());
        bytes.extend(&text.as_bytes()[..usize::from(length)]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().expect("name"), v.parse().expect("value"))).collect()
    }

    #[test]
    fn the_protocol_is_told_from_service_and_headers() {
        let form = headers(&[("content-type", "application/x-www-form-urlencoded; charset=utf-8")]);
        let target = headers(&[("x-amz-target", "AmazonSSM.SendCommand")]);
        let check = |service, headers: &HeaderMap, query, expected| {
            assert_eq!(Protocol::of(service, headers, query), expected, "{service}");
        };
        check("ec2", &form, None, Protocol::Ec2);
        check("iam", &form, None, Protocol::Query);
        check("sts", &HeaderMap::new(), Some("Action=GetCallerIdentity"), Protocol::Query);
        check("ssm", &target, None, Protocol::Json);
        check("s3", &HeaderMap::new(), None, Protocol::S3);
        check("route53", &HeaderMap::new(), None, Protocol::RestXml);
        check("mq", &HeaderMap::new(), None, Protocol::RestJson);
        check("monitoring", &headers(&[("smithy-protocol", "rpc-v2-cbor")]), None, Protocol::Cbor);
    }

    #[test]
    fn cbor_is_a_map_of_texts() {
        let bytes = cbor(&ServiceError::new(400, "Ab", "c"));
        let expected =
            [&b"\xA2\x79\0\x06__type\x79\0\x02Ab\x79\0\x07message\x79\0\x01c"[..]].concat();
        assert_eq!(bytes, expected);
    }
}
