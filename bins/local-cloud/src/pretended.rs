//! Operations of services other than EC2 that the emulator would answer although nothing behind the answer is true.
//!
//! They are refused by name; [`crate::coverage`] lists them. A managed service leaves that table when it is made true
//! with a real server.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::coverage::{Class, ELSEWHERE, Service};
use crate::ec2::answers::request_id;
use crate::xml::Element;

/// Whether operations of a service have to be looked at.
pub fn guards(service: &str) -> bool {
    service_of(service).is_some()
}

/// Whether an operation is refused.
pub fn refuses(service: &str, operation: &str) -> bool {
    service_of(service).is_some_and(|service| service.class(operation) == Class::Refused)
}

fn service_of(name: &str) -> Option<&'static Service> {
    ELSEWHERE.iter().find(|service| service.name == name)
}

/// Amazon MQ has paths instead of operations: `POST /v1/brokers` makes a broker.
pub fn refuses_path(service: &str, method: &str, path: &str) -> bool {
    service == "mq" && method == "POST" && path.trim_end_matches('/') == "/v1/brokers"
}

/// The refusal, in the protocol of the caller.
pub fn refusal(what: &str, json_protocol: bool) -> Response<Body> {
    let message = format!("the rehearsal cloud cannot do this truly, so it refuses: {what}");
    let (kind, text) = if json_protocol {
        let body = json!({"__type": "NotImplemented", "message": message});
        ("application/x-amz-json-1.1", body.to_string())
    } else {
        let error = Element::node(
            "Error",
            vec![
                Element::leaf("Type", "Sender"),
                Element::leaf("Code", "NotImplemented"),
                Element::leaf("Message", &message),
            ],
        );
        let root =
            Element::node("ErrorResponse", vec![error, Element::leaf("RequestId", &request_id())]);
        ("text/xml", root.write())
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Where the REST protocols look for the code.
    headers.insert("x-amzn-errortype", HeaderValue::from_static("NotImplemented"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_be_pretended_is_refused() {
        let check = |service, operation, expected| {
            assert_eq!(refuses(service, operation), expected, "{service} {operation}");
        };
        check("rds", "CreateDBInstance", true);
        check("rds", "CreateDBInstanceReadReplica", true);
        check("rds", "CreateDBSubnetGroup", false);
        check("secretsmanager", "CreateSecret", false);
        check("cloudformation", "CreateStackInstances", true);
        check("cloudformation", "DescribeStacks", false);
        check("cloudformation", "ValidateTemplate", false);
        assert!(guards("ecs") && !guards("s3"));
        assert!(refuses_path("mq", "POST", "/v1/brokers"));
        assert!(!refuses_path("mq", "GET", "/v1/brokers"));
        assert!(!refuses_path("s3", "POST", "/v1/brokers"));
    }
}
