//! The operation of a request, also where it stands in method and path only, and its name in policies. Pure.

use axum::http::{HeaderMap, Method};

use crate::operation::{Form, from_target};

/// The operation; `METHOD /path` for services with paths whose operations are not known here.
pub fn operation(
    service: &str,
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> String {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    if let Some(operation) = target.and_then(from_target) {
        return operation.to_owned();
    }
    if service == "s3" {
        return s3(method, path, query.unwrap_or_default(), headers);
    }
    // Smithy RPC v2: /service/NAME/operation/OPERATION.
    if let Some((_, operation)) = path.rsplit_once("/operation/")
        && headers.contains_key("smithy-protocol")
    {
        return operation.to_owned();
    }
    let form = |text: &[u8]| Form::parse(text).get("Action").map(str::to_owned);
    query
        .filter(|query| query.contains("Action="))
        .and_then(|query| form(query.as_bytes()))
        .or_else(|| body.starts_with(b"Action=").then(|| form(body)).flatten())
        .or_else(|| is_form(headers).then(|| form(body)).flatten())
        .unwrap_or_else(|| format!("{method} {path}"))
}

/// Whether a request's body is a form.
pub fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"))
}

/// S3's operations (API reference, "Actions": each with its request syntax); addresses with the bucket in the path.
fn s3(method: &Method, path: &str, query: &str, headers: &HeaderMap) -> String {
    let has = |name: &str| {
        query.split('&').any(|field| field.split('=').next().is_some_and(|key| key == name))
    };
    let path = path.trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key);
    let verb = match *method {
        Method::PUT => "Put",
        Method::DELETE => "Delete",
        _ => "Get",
    };
    if path.is_empty() {
        return "ListBuckets".to_owned();
    }
    if key.is_empty() {
        const SETTINGS: [(&str, &str); 16] = [
            ("acl", "BucketAcl"),
            ("policy", "BucketPolicy"),
            ("policyStatus", "BucketPolicyStatus"),
            ("versioning", "BucketVersioning"),
            ("location", "BucketLocation"),
            ("tagging", "BucketTagging"),
            ("encryption", "BucketEncryption"),
            ("lifecycle", "BucketLifecycleConfiguration"),
            ("publicAccessBlock", "PublicAccessBlock"),
            ("ownershipControls", "BucketOwnershipControls"),
            ("object-lock", "ObjectLockConfiguration"),
            ("logging", "BucketLogging"),
            ("cors", "BucketCors"),
            ("website", "BucketWebsite"),
            ("notification", "BucketNotificationConfiguration"),
            ("replication", "BucketReplication"),
        ];
        if let Some((_, setting)) = SETTINGS.iter().find(|(name, _)| has(name)) {
            return format!("{verb}{setting}");
        }
        return match *method {
            Method::PUT => "CreateBucket",
            Method::HEAD => "HeadBucket",
            Method::DELETE => "DeleteBucket",
            Method::POST if has("delete") => "DeleteObjects",
            Method::GET if has("versions") => "ListObjectVersions",
            Method::GET if has("uploads") => "ListMultipartUploads",
            Method::GET if has("list-type") => "ListObjectsV2",
            Method::GET => "ListObjects",
            _ => "PostObject",
        }
        .to_owned();
    }
    for (name, setting) in [("tagging", "ObjectTagging"), ("acl", "ObjectAcl")] {
        if has(name) {
            return format!("{verb}{setting}");
        }
    }
    match *method {
        Method::POST if has("uploads") => "CreateMultipartUpload",
        Method::POST if has("uploadId") => "CompleteMultipartUpload",
        Method::PUT if has("uploadId") => "UploadPart",
        Method::DELETE if has("uploadId") => "AbortMultipartUpload",
        Method::GET if has("uploadId") => "ListParts",
        Method::PUT if headers.contains_key("x-amz-copy-source") => "CopyObject",
        Method::PUT => "PutObject",
        Method::HEAD => "HeadObject",
        Method::DELETE => "DeleteObject",
        Method::POST => "PostObject",
        _ => "GetObject",
    }
    .to_owned()
}

/// The name of the action in policies, with its prefix (Service Authorization Reference).
pub fn in_policies(service: &str, operation: &str) -> String {
    let prefix = match service {
        "monitoring" => "cloudwatch",
        other => other,
    };
    let action = match (service, operation) {
        ("s3", "ListObjects" | "ListObjectsV2" | "HeadBucket") => "ListBucket",
        ("s3", "HeadObject") => "GetObject",
        ("s3", "ListBuckets") => "ListAllMyBuckets",
        ("s3", "DeleteObjects") => "DeleteObject",
        (
            "s3",
            "CopyObject" | "UploadPart" | "CreateMultipartUpload" | "CompleteMultipartUpload",
        ) => "PutObject",
        _ => operation,
    };
    format!("{prefix}:{action}")
}

/// The signing name of a service that people call by another name.
pub fn signing_name(service: &str) -> &str {
    match service {
        "cloudwatch" => "monitoring",
        "elb" | "elbv2" => "elasticloadbalancing",
        "efs" => "elasticfilesystem",
        "stepfunctions" => "states",
        "asg" => "autoscaling",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_is_found_in_every_protocol() {
        let none = HeaderMap::new();
        let check = |service, method: Method, path, query, body: &str, expected| {
            let found = operation(service, &method, path, query, &none, body.as_bytes());
            assert_eq!(found, expected);
        };
        let (get, put, post) = (Method::GET, Method::PUT, Method::POST);
        check("iam", post.clone(), "/", None, "Action=CreateRole&RoleName=a", "CreateRole");
        check("sts", get.clone(), "/", Some("Action=GetCallerIdentity"), "", "GetCallerIdentity");
        check("mq", post.clone(), "/v1/brokers", None, "{}", "POST /v1/brokers");
        check("s3", get.clone(), "/", None, "", "ListBuckets");
        check("s3", get.clone(), "/b", Some("list-type=2&prefix=a"), "", "ListObjectsV2");
        check("s3", get.clone(), "/b/", Some("versioning"), "", "GetBucketVersioning");
        check("s3", put.clone(), "/b", None, "", "CreateBucket");
        check("s3", put.clone(), "/b/k/l", None, "", "PutObject");
        check("s3", put, "/b/k", Some("partNumber=1&uploadId=x"), "", "UploadPart");
        check("s3", get, "/b/k", None, "", "GetObject");
        check("s3", post, "/b", Some("delete"), "", "DeleteObjects");
        let target = HeaderMap::from_iter([(
            "x-amz-target".parse().expect("name"),
            "AmazonSSM.SendCommand".parse().expect("value"),
        )]);
        assert_eq!(operation("ssm", &Method::POST, "/", None, &target, b"{}"), "SendCommand");
    }

    #[test]
    fn policies_have_names_of_their_own() {
        assert_eq!(in_policies("s3", "ListObjectsV2"), "s3:ListBucket");
        assert_eq!(in_policies("monitoring", "PutMetricData"), "cloudwatch:PutMetricData");
        assert_eq!(in_policies("ssm", "SendCommand"), "ssm:SendCommand");
    }
}
