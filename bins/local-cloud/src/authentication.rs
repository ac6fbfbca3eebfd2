//! Lets only those in who know a secret: every request to an AWS API must be signed with credentials of this cloud.
//!
//! A layer before the endpoint, on loopback and towards hosts. It also listens when the emulator hands out credentials,
//! since it must know them later. A request without signature is refused, also where AWS takes some
//! (`AssumeRoleWithWebIdentity`, public buckets): who asks could not be told from anybody else on this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use axum::middleware::{Next, from_fn};
use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper::body::Body as _;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::control;
use crate::coverage::{Class, mark};
use crate::credentials::Credentials;
use crate::log;
use crate::operation::Form;
use crate::proxy::{LARGEST, LARGEST_PASSED, too_large};
use crate::requests::errors::expired;
use crate::requests::protocol::{Protocol, ServiceError};
use crate::signature::{self, Signed, Unsigned, same};
use crate::xml::Element;

/// Services whose callers' rights are told from the `Authorization` header; presigned addresses are not taken there.
const JUDGED: [&str; 5] = ["ec2", "autoscaling", "ssm", "secretsmanager", "iam"];

/// The APIs behind signatures.
pub fn signed_only(api: Router, credentials: Credentials) -> Router {
    let credentials = Arc::new(credentials);
    api.layer(from_fn(move |request: Request, next: Next| {
        let credentials = Arc::clone(&credentials);
        async move { answer(&credentials, request, next).await }
    }))
}

async fn answer(credentials: &Credentials, request: Request, next: Next) -> Response<Body> {
    // Nothing of AWS: the agent's own paths, which know their caller by its address, and the control API's refusal.
    if request.uri().path().starts_with(control::PREFIX) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let query = parts.uri.query();
    let signed = match signature::read(&parts.headers, query) {
        Ok(signed) => signed,
        Err(why) => {
            let service = crate::operation::scope(
                parts.headers.get("authorization").and_then(|value| value.to_str().ok()),
                query,
            );
            let service = service.map_or_else(|| guess(&parts.headers), |scope| scope.service);
            let protocol = Protocol::of(&service, &parts.headers, query);
            return refuse(protocol, &unsigned(protocol, &why), &parts.headers, parts.uri.path());
        }
    };
    let protocol = Protocol::of(&signed.service, &parts.headers, query);
    let turn_away =
        |error: &ServiceError| refuse(protocol, error, &parts.headers, parts.uri.path());
    let known = credentials
        .find(&signed.access_key)
        .filter(|known| same_token(known.token.as_deref(), signed.token.as_deref()));
    let Some(known) = known else { return turn_away(&unknown(protocol)) };
    if signed.presigned && JUDGED.contains(&signed.service.as_str()) {
        let what = "presigned addresses of this service are not taken by the rehearsal cloud";
        return turn_away(&malformed(protocol, what));
    }
    let other = Arc::default();
    let (digest, body) = match digest_of(&signed, &parts.headers, body, &other).await {
        Ok(read) => read,
        Err(limit) => return too_large(&signed.service, &parts, limit),
    };
    let whole = signature::Request {
        method: &parts.method,
        path: parts.uri.path(),
        query,
        headers: &parts.headers,
    };
    if !signed.is_by(&known.secret, whole, &digest.signed) {
        return turn_away(&wrong(protocol));
    }
    if let Digests { actual: Some(actual), signed } = &digest
        && actual != signed
    {
        return turn_away(&other_body(protocol));
    }
    if known.until.is_some_and(|until| until <= Timestamp::now()) {
        return turn_away(&expired(&signed.service, protocol));
    }
    let handed_out = match (&body, signed.service.as_str()) {
        (Held::Whole(bytes), "iam" | "sts") => Some(Form::parse(
            query.filter(|q| q.contains("Action=")).map_or(&bytes[..], str::as_bytes),
        )),
        _ => None,
    };
    let (headers, path) = (parts.headers.clone(), parts.uri.path().to_owned());
    let response = next.run(Request::from_parts(parts, body.into_body())).await;
    if other.load(Ordering::SeqCst) {
        return refuse(protocol, &other_body(protocol), &headers, &path);
    }
    match handed_out {
        Some(form) => listen(credentials, &form, response).await,
        None => response,
    }
}

/// The token of temporary credentials must be theirs; others have none.
fn same_token(known: Option<&str>, given: Option<&str>) -> bool {
    match (known, given) {
        (None, None) => true,
        (Some(known), Some(given)) => same(known.as_bytes(), given.as_bytes()),
        _ => false,
    }
}

/// A body after it was looked at.
enum Held {
    Whole(Bytes),
    /// S3's, which may be large. Its end comes only when it is what was signed.
    Stream(Body),
}

impl Held {
    fn into_body(self) -> Body {
        match self {
            Self::Whole(bytes) => Body::from(bytes),
            Self::Stream(body) => body,
        }
    }
}

struct Digests {
    /// As it goes into the signature.
    signed: String,
    /// Of the body that came, where it is known by now and another was stated.
    actual: Option<String>,
}

/// The digest of a body; an error is the limit that it goes beyond. `other` becomes true when a stream was not what was
/// signed.
async fn digest_of(
    signed: &Signed,
    headers: &HeaderMap,
    body: Body,
    other: &Arc<AtomicBool>,
) -> Result<(Digests, Held), u64> {
    let stated = signed.stated_digest(headers);
    if signed.service == "s3" {
        // S3's callers always state it (S3 API reference, "Authorization Header").
        let stated = stated.unwrap_or_default();
        if body.is_end_stream() {
            let actual = is_digest(&stated).then(|| hex::encode(Sha256::digest(b"")));
            return Ok((Digests { signed: stated, actual }, Held::Stream(body)));
        }
        let body = match is_digest(&stated) {
            true => ending_as_signed(body, stated.clone(), Arc::clone(other)),
            false => body,
        };
        return Ok((Digests { signed: stated, actual: None }, Held::Stream(body)));
    }
    let limit = match signed.service.as_str() {
        "ec2" | "autoscaling" | "ssm" => LARGEST as u64,
        _ => LARGEST_PASSED,
    };
    let length = headers.get("content-length").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(limit);
    }
    let bytes =
        to_bytes(body, usize::try_from(limit).unwrap_or(usize::MAX)).await.map_err(|_| limit)?;
    let actual = hex::encode(Sha256::digest(&bytes));
    let digests = match stated.filter(|stated| is_digest(stated)) {
        Some(stated) => Digests { signed: stated, actual: Some(actual) },
        None => Digests { signed: actual, actual: None },
    };
    Ok((digests, Held::Whole(bytes)))
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The body, whose last piece is held back until all of it is what was signed: otherwise it breaks off, and whoever reads
/// it keeps nothing.
fn ending_as_signed(body: Body, digest: String, other: Arc<AtomicBool>) -> Body {
    let digest = (digest, other);
    let state = (body.into_data_stream(), Sha256::new(), None::<Bytes>, false, digest);
    Body::from_stream(futures_util::stream::unfold(
        state,
        |(mut pieces, mut hash, mut held, ended, digest)| async move {
            if ended {
                return None;
            }
            loop {
                match pieces.next().await {
                    Some(Ok(piece)) => {
                        hash.update(&piece);
                        if let Some(before) = held.replace(piece) {
                            return Some((Ok(before), (pieces, hash, held, false, digest)));
                        }
                    }
                    Some(Err(error)) => {
                        let error = std::io::Error::other(error);
                        return Some((Err(error), (pieces, hash, None, true, digest)));
                    }
                    None => {
                        let actual = hex::encode(hash.clone().finalize());
                        if actual != digest.0 {
                            digest.1.store(true, Ordering::SeqCst);
                            let error = std::io::Error::other("the body is not the signed one");
                            return Some((Err(error), (pieces, hash, None, true, digest)));
                        }
                        let last = held.take()?;
                        return Some((Ok(last), (pieces, hash, None, true, digest)));
                    }
                }
            }
        },
    ))
}

/// Remembers credentials that an answer hands out, and what IAM does to keys.
async fn listen(
    credentials: &Credentials,
    form: &Form,
    response: Response<Body>,
) -> Response<Body> {
    let operation = form.get("Action").unwrap_or_default();
    let temporary = matches!(operation, "AssumeRole");
    let of_keys = matches!(operation, "CreateAccessKey" | "DeleteAccessKey" | "UpdateAccessKey");
    if !(temporary || of_keys) || !response.status().is_success() {
        return response;
    }
    let key = form.get("AccessKeyId").unwrap_or_default();
    match operation {
        "DeleteAccessKey" => credentials.forget(key),
        "UpdateAccessKey" => credentials.activate(key, form.get("Status") == Some("Active")),
        _ => {}
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, LARGEST).await else {
        let message = "an answer with credentials broke off";
        let error = ServiceError::new(500, "InternalFailure", message);
        return Protocol::Query.refuse(&error, &parts.headers, "/");
    };
    let root = Element::parse(&String::from_utf8_lossy(&body)).ok();
    let result = format!("{operation}Result");
    let made = root.as_ref().and_then(|root| {
        root.at(&[result.as_str(), if temporary { "Credentials" } else { "AccessKey" }])
    });
    let text = |name: &str| made.and_then(|made| made.text_at(&[name]));
    if let (Some(id), Some(secret)) = (text("AccessKeyId"), text("SecretAccessKey")) {
        match (text("SessionToken"), text("Expiration")) {
            (Some(token), Some(until)) if temporary => match until.parse() {
                Ok(until) => credentials.learn(&id, &secret, Some((&token, until))),
                Err(error) => log::line(format_args!("{operation}: Expiration: {error}")),
            },
            _ if temporary => log::line(format_args!("{operation}: no token in the answer")),
            _ => credentials.learn(&id, &secret, None),
        }
    }
    Response::from_parts(parts, Body::from(body))
}

fn refuse(
    protocol: Protocol,
    error: &ServiceError,
    headers: &HeaderMap,
    path: &str,
) -> Response<Body> {
    log::line(format_args!("refused: {}: {}", error.code, error.message));
    mark(protocol.refuse(error, headers, path), Class::True)
}

/// The service of a request without a credential scope, as far as its errors need it.
fn guess(headers: &HeaderMap) -> String {
    let form = headers
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    if form || headers.contains_key("x-amz-target") { String::new() } else { "s3".to_owned() }
}

// The codes: "Common Errors" of the API references, EC2's and S3's lists of error codes.

fn unsigned(protocol: Protocol, why: &Unsigned) -> ServiceError {
    match why {
        Unsigned::Malformed(what) => malformed(protocol, &format!("missing or wrong: {what}")),
        Unsigned::Unknown => {
            malformed(protocol, "only Signature Version 4 (AWS4-HMAC-SHA256) is taken")
        }
        Unsigned::Missing => match protocol {
            Protocol::S3 => ServiceError::new(403, "AccessDenied", "Access Denied"),
            Protocol::Json | Protocol::Cbor => ServiceError::new(
                400,
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            ),
            Protocol::RestJson => ServiceError::new(
                403,
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            ),
            _ => ServiceError::new(
                403,
                "MissingAuthenticationToken",
                "Request is missing Authentication Token",
            ),
        },
    }
}

fn malformed(protocol: Protocol, what: &str) -> ServiceError {
    match protocol {
        Protocol::S3 => ServiceError::new(400, "AuthorizationHeaderMalformed", what),
        Protocol::Json | Protocol::RestJson | Protocol::Cbor => {
            ServiceError::new(400, "IncompleteSignatureException", what)
        }
        _ => ServiceError::new(400, "IncompleteSignature", what),
    }
}

fn unknown(protocol: Protocol) -> ServiceError {
    const INVALID: &str = "The security token included in the request is invalid.";
    match protocol {
        Protocol::Ec2 => not_validated(),
        Protocol::S3 => ServiceError::new(
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        Protocol::Json | Protocol::Cbor => {
            ServiceError::new(400, "UnrecognizedClientException", INVALID)
        }
        Protocol::RestJson => ServiceError::new(403, "UnrecognizedClientException", INVALID),
        Protocol::Query | Protocol::RestXml => {
            ServiceError::new(403, "InvalidClientTokenId", INVALID)
        }
    }
}

fn wrong(protocol: Protocol) -> ServiceError {
    const WRONG: &str = "The request signature we calculated does not match the signature you provided. Check your AWS \
                         Secret Access Key and signing method. Consult the service documentation for details.";
    match protocol {
        Protocol::Ec2 => not_validated(),
        Protocol::Json | Protocol::Cbor => {
            ServiceError::new(400, "InvalidSignatureException", WRONG)
        }
        Protocol::RestJson => ServiceError::new(403, "InvalidSignatureException", WRONG),
        _ => ServiceError::new(403, "SignatureDoesNotMatch", WRONG),
    }
}

fn not_validated() -> ServiceError {
    let message = "AWS was not able to validate the provided access credentials";
    ServiceError::new(401, "AuthFailure", message)
}

fn other_body(protocol: Protocol) -> ServiceError {
    match protocol {
        Protocol::S3 => ServiceError::new(
            400,
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
        other => wrong(other),
    }
}
