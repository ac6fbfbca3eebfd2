//! Faults of requests: what goes wrong between a caller and a service, in the words of that service.
//!
//! Order, as on AWS: the connection, the signature, the permission, the rate, the service. Every service has them, also
//! those that the emulator answers alone.

pub mod action;
pub mod errors;
pub mod launches;
pub mod protocol;
pub mod skew;
pub mod stale;

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use self::protocol::{Protocol, ServiceError};
use self::stale::{Read, Remembered, Stale};
use crate::events::is_instance;
use crate::faults::{Call, Faults, Kind};
use crate::hosts::HostInfo;
use crate::listener::{Caller, HangUp};
use crate::log;
use crate::operation::{Form, Scope};
use crate::proxy::{LARGEST, Proxy};
use crate::xml::Element;

/// The account of everything; moto's (`moto.core.DEFAULT_ACCOUNT_ID`).
const ACCOUNT: &str = "123456789012";

/// A request with its body, as far as it is read before it is passed on.
struct Held {
    parts: Parts,
    /// The whole body; `None` when it is too large, or nothing but data.
    bytes: Option<Bytes>,
    /// What is left of it, when it was not read.
    body: Body,
}

/// Refuses a request whose signature is of another time.
pub fn untimely(scope: &Scope, request: &Request) -> Option<Response<Body>> {
    let (headers, query) = (request.headers(), request.uri().query());
    let protocol = Protocol::of(&scope.service, headers, query);
    let error = skew::check(protocol, headers, query, jiff::Timestamp::now())?;
    log::line(format_args!("refused: {} in {}: {}", error.code, scope.service, error.message));
    Some(protocol.refuse(&error, headers, request.uri().path()))
}

/// Answers a request while there are request faults.
pub async fn answer(proxy: &Proxy, scope: Scope, request: Request) -> Response<Body> {
    let held = hold(&scope.service, request).await;
    let (headers, uri) = (&held.parts.headers, &held.parts.uri);
    let protocol = Protocol::of(&scope.service, headers, uri.query());
    let body = held.bytes.clone().unwrap_or_default();
    let operation = action::operation(
        &scope.service,
        &held.parts.method,
        uri.path(),
        uri.query(),
        headers,
        &body,
    );
    let text = String::from_utf8_lossy(&body).into_owned();
    let caller = held.parts.extensions.get::<Caller>().copied();
    let mut hosts = hosts(proxy, caller, &[uri.query().unwrap_or_default(), &text]);
    if scope.service == "ec2" {
        hosts.extend(launches::host_to_be(&operation, &Form::parse(&body)));
    }
    let call = Call { service: &scope.service, operation: &operation, hosts: &hosts };
    let faults = &proxy.faults;
    let refuse = |error: &ServiceError| protocol.refuse(error, headers, uri.path());

    if let Some(strike) = faults.strike_call(Kind::Latency, &call) {
        tokio::time::sleep(strike.delay).await;
    }
    let dropped = faults.strike_call(Kind::DropConnection, &call);
    if dropped.as_ref().is_some_and(|strike| strike.code == "before") {
        return hang_up();
    }
    if faults.strike_call(Kind::ExpiredCredentials, &call).is_some() {
        return refuse(&errors::expired(&scope.service, protocol));
    }
    let in_policies = action::in_policies(&scope.service, &operation);
    if faults.strike_action(&call, &in_policies).is_some() {
        let caller = proxy.upstream.identity(headers).await;
        let resource = resource(&scope, &hosts);
        let who = errors::Denied { caller: &caller, action: &in_policies, resource: &resource };
        return refuse(&errors::denied(&scope.service, protocol, who));
    }
    if let Some(error) = refused(faults, &call, protocol, || Form::parse(&body)) {
        return refuse(&error);
    }
    let lost = faults.strike_call(Kind::LostReply, &call).is_some();
    let response = if faults.any(Kind::StaleDescribe) {
        consistent_later(proxy, scope, held, protocol, &operation, &text, &hosts).await
    } else {
        proxy.past.forget();
        proxy.dispatch(scope, held.into_request()).await
    };
    if lost {
        // The service has done its work, also where its answer is a stream.
        drop(whole(response).await);
        return hang_up();
    }
    match dropped {
        Some(_) => cut(response).await,
        None => response,
    }
}

/// What a service may refuse by itself: the rate, its own trouble, the capacity.
fn refused(
    faults: &Faults,
    call: &Call<'_>,
    protocol: Protocol,
    form: impl FnOnce() -> Form,
) -> Option<ServiceError> {
    if faults.strike_call(Kind::Throttle, call).is_some() {
        return Some(errors::throttled(call.service, protocol));
    }
    if let Some(strike) = faults.strike_call(Kind::ServerError, call) {
        return Some(errors::broken(call.service, protocol, strike.code.parse().unwrap_or(500)));
    }
    if call.service != "ec2" || !matches!(call.operation, "RunInstances" | "StartInstances") {
        return None;
    }
    let strike = faults.strike_call(Kind::NoCapacity, call)?;
    let form = form();
    let kind = form.get("InstanceType").unwrap_or("m1.small");
    Some(errors::no_capacity(&strike.code, kind, form.get("Placement.AvailabilityZone")))
}

/// Answers a request; reads perhaps as before a change.
async fn consistent_later(
    proxy: &Proxy,
    scope: Scope,
    held: Held,
    protocol: Protocol,
    operation: &str,
    text: &str,
    hosts: &[HostInfo],
) -> Response<Body> {
    let place = format!("{}/{}", scope.service, scope.region);
    let query = held.parts.uri.query().unwrap_or_default();
    let asked = if query.contains("Action=") { query.to_owned() } else { text.to_owned() };
    if stale::is_change(&scope.service, operation) {
        let response = proxy.dispatch(scope, held.into_request()).await;
        if !response.status().is_success() {
            return response;
        }
        let (response, answer) = whole(response).await;
        if let Some(answer) = answer {
            let answer = String::from_utf8_lossy(&answer.body);
            proxy.past.change(&place, operation, &asked, &answer);
        }
        return response;
    }
    if !stale::is_read(&scope.service, operation) || held.bytes.is_none() {
        return proxy.dispatch(scope, held.into_request()).await;
    }
    let read = identify(&place, operation, &held, &asked);
    let headers = held.parts.headers.clone();
    let path = held.parts.uri.path().to_owned();
    let call = Call { service: &scope.service, operation, hosts };
    let mut found = None;
    let struck = proxy.faults.strike_call_if(Kind::StaleDescribe, &call, |strike| {
        found = proxy
            .past
            .look(&place, operation, &read, &asked)
            .filter(|(age, _)| *age < strike.delay)
            .map(|(_, stale)| stale);
        found.is_some()
    });
    match found.filter(|_| struck.is_some()) {
        None => {
            let begun = Instant::now();
            let (response, answer) = whole(proxy.dispatch(scope, held.into_request()).await).await;
            if let Some(answer) = answer {
                proxy.past.remember(read, begun, answer);
            }
            response
        }
        Some(Stale::Replay(answer)) => answer.response(),
        Some(Stale::Unknown(error)) => protocol.refuse(&error, &headers, &path),
        Some(Stale::Empty(list)) => {
            let mut response = Response::new(Body::from(format!("{{\"{list}\":[]}}")));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/x-amz-json-1.1"),
            );
            response
        }
        Some(Stale::Without(ids)) => {
            let (response, answer) = whole(proxy.dispatch(scope, held.into_request()).await).await;
            let root = answer
                .as_ref()
                .and_then(|answer| Element::parse(std::str::from_utf8(&answer.body).ok()?).ok());
            match (root, answer) {
                (Some(mut root), Some(answer)) => {
                    stale::without(&mut root, &ids);
                    Remembered { body: root.write().into(), ..answer }.response()
                }
                _ => response,
            }
        }
    }
}

impl Held {
    fn into_request(self) -> Request {
        let body = match self.bytes {
            Some(bytes) => Body::from(bytes),
            None => self.body,
        };
        Request::from_parts(self.parts, body)
    }
}

/// Reads the body where something of it has to be known: not of S3, whose bodies are data.
async fn hold(service: &str, request: Request) -> Held {
    let (parts, body) = request.into_parts();
    let length = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let small = match length {
        Some(length) => length <= LARGEST,
        None => !parts.headers.contains_key(header::TRANSFER_ENCODING),
    };
    if service == "s3" || !small {
        return Held { parts, bytes: None, body };
    }
    // A body that breaks off is one that its sender gave up.
    let bytes = to_bytes(body, LARGEST).await.unwrap_or_default();
    Held { parts, bytes: Some(bytes), body: Body::empty() }
}

/// The hosts that a request names, and the one that it comes from.
fn hosts(proxy: &Proxy, caller: Option<Caller>, texts: &[&str]) -> Vec<HostInfo> {
    let hosts = &proxy.ec2.hosts;
    let mut found: Vec<HostInfo> =
        caller.and_then(|Caller(ip)| hosts.by_address(ip)).into_iter().collect();
    for text in texts {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        for id in words.filter(|word| is_instance(word)) {
            if !found.iter().any(|host| host.instance_id == id) {
                found.extend(hosts.by_instance(id));
            }
        }
    }
    found
}

/// What an action is about, as far as it is known: the one host, else everything of the service.
fn resource(scope: &Scope, hosts: &[HostInfo]) -> String {
    let Scope { service, region } = scope;
    match (service.as_str(), hosts) {
        ("ec2" | "ssm", [host]) => {
            let id = if host.instance_id.is_empty() { "*" } else { &host.instance_id };
            format!("arn:aws:ec2:{region}:{ACCOUNT}:instance/{id}")
        }
        ("s3", _) => "arn:aws:s3:::*".to_owned(),
        ("iam", _) => format!("arn:aws:iam::{ACCOUNT}:*"),
        _ => format!("arn:aws:{service}:{region}:{ACCOUNT}:*"),
    }
}

fn identify(place: &str, operation: &str, held: &Held, asked: &str) -> Read {
    let mut digest = Sha256::new();
    for part in [place, operation, held.parts.method.as_str(), held.parts.uri.path(), asked] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    digest.finalize().into()
}

fn hang_up() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.extensions_mut().insert(HangUp);
    response
}

/// Half of an answer, then nothing more.
async fn cut(response: Response<Body>) -> Response<Body> {
    let (response, answer) = whole(response).await;
    let Some(answer) = answer.filter(|answer| answer.body.len() > 1) else { return hang_up() };
    let half = answer.body.slice(..answer.body.len() / 2);
    let mut parts = response.into_parts().0;
    // The whole length is announced, so that the caller sees that something is missing.
    parts.headers.insert(header::CONTENT_LENGTH, answer.body.len().into());
    let end = stream::once(async {
        // The first half has to be on its way; what is written together with an error is not sent.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("a fault closes the connection"))
    });
    Response::from_parts(parts, Body::from_stream(stream::iter([Ok(half)]).chain(Box::pin(end))))
}

/// An answer in memory, to be given and to be remembered; one that is too large or breaks off is only given.
async fn whole(response: Response<Body>) -> (Response<Body>, Option<Remembered>) {
    let (parts, body) = response.into_parts();
    let mut stream = body.into_data_stream();
    let mut held = Vec::new();
    let last = loop {
        match stream.next().await {
            None => {
                let body = Bytes::from(held);
                let (status, headers) = (parts.status, parts.headers.clone());
                let answer = Remembered { status, headers, body: body.clone() };
                return (Response::from_parts(parts, Body::from(body)), Some(answer));
            }
            Some(Ok(piece)) => held.extend_from_slice(&piece),
            Some(error) => break Some(error),
        }
        if held.len() > LARGEST {
            break None;
        }
    };
    let rest = stream::iter([Ok(Bytes::from(held))]).chain(stream::iter(last)).chain(stream);
    (Response::from_parts(parts, Body::from_stream(rest)), None)
}

impl Remembered {
    fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
    }
}
