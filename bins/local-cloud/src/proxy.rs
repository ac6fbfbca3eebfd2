//! The AWS endpoint: tells what a request is for, answers the few things that must be true, passes the rest on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::json;

use crate::autoscaling::AutoScaling;
use crate::control;
use crate::coverage::{self, Class};
use crate::ec2::answers::{Refusal, request_id};
use crate::ec2::{self, Ec2};
use crate::failure::{self, Dialect};
use crate::faults::Faults;
use crate::log;
use crate::model;
use crate::operation::{self, Form, Scope};
use crate::paging::Shelf;
use crate::passed::{self, Unanswered};
use crate::pretended;
use crate::requests;
use crate::requests::protocol::{Protocol, ServiceError};
use crate::requests::stale::Past;
use crate::secrets;
use crate::ssm::{self, Ssm};
use crate::upstream::{Lost, Upstream};

/// The largest request that is read into memory (EC2 and Systems Manager; both APIs' own limits are far below).
pub(crate) const LARGEST: usize = 4 * 1024 * 1024;

/// The largest object that is passed on. S3 takes 5 GiB at once (user guide, "Uploading objects"), which the emulator would
/// hold in this machine's memory.
const LARGEST_OBJECT: u64 = 1 << 30;

/// The largest request of the other services that is passed on unread; the largest that one of them takes is Lambda's
/// (developer guide, "Lambda quotas": 50 MB).
pub(crate) const LARGEST_PASSED: u64 = 64 << 20;

/// Moto's own API, by which anybody could empty the emulator; nothing of AWS is there.
const EMULATORS_OWN: &str = "moto-api";

/// What the endpoint needs.
#[derive(Clone)]
pub struct Proxy {
    /// Ordinary calls go here.
    pub upstream: Upstream,
    /// EC2, made true.
    pub ec2: Arc<Ec2>,
    /// Auto Scaling.
    pub autoscaling: Arc<AutoScaling>,
    /// Systems Manager.
    pub ssm: Ssm,
    /// Lists that somebody may come back for.
    pub shelf: Arc<Shelf>,
    /// What shall go wrong.
    pub faults: Faults,
    /// What reads may answer when they are stale.
    pub past: Arc<Past>,
}

/// The endpoint.
pub fn router(proxy: Proxy) -> Router {
    Router::new().fallback(answer).with_state(proxy)
}

async fn answer(State(proxy): State<Proxy>, request: Request) -> Response<Body> {
    if operation::decoded(request.uri().path()).trim_start_matches('/').starts_with(EMULATORS_OWN) {
        log::line(format_args!("refused: {}", request.uri().path()));
        let refusal = Refusal::client("AccessDenied", "the emulator's own API is closed");
        return Refusal { status: StatusCode::FORBIDDEN, ..refusal }.response();
    }
    let scope = {
        let text = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        operation::scope(text(header::AUTHORIZATION), request.uri().query())
    };
    if request.uri().path().starts_with(control::PREFIX) {
        // On loopback the control API stands before this; whoever comes here is a host.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let Some(scope) = scope else { return proxy.stream(None, request).await };
    if let Some(refusal) = requests::untimely(&scope, &request) {
        return refusal;
    }
    if proxy.faults.any_of_requests() {
        return requests::answer(&proxy, scope, request).await;
    }
    proxy.dispatch(scope, request).await
}

impl Proxy {
    /// Answers a request, or passes it on.
    pub(crate) async fn dispatch(&self, scope: Scope, request: Request) -> Response<Body> {
        let may_change_rights = scope.service == "iam";
        let response = self.route(scope, request).await;
        if may_change_rights {
            self.ec2.rights.forget();
        }
        response
    }

    async fn route(&self, scope: Scope, request: Request) -> Response<Body> {
        match scope.service.as_str() {
            "ec2" => self.ec2(scope, request).await,
            "autoscaling" => self.autoscaling(&scope, request).await,
            "ssm" => self.ssm(&scope, request).await,
            service if pretended::guards(service) || model::knows(service) => {
                self.guarded(&scope, request).await
            }
            service
                if pretended::refuses_path(
                    service,
                    request.method().as_str(),
                    request.uri().path(),
                ) =>
            {
                refuse(&format!("{service} {}", request.uri().path()), true)
            }
            _ => self.stream(Some(&scope), request).await,
        }
    }

    async fn ec2(&self, scope: Scope, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, LARGEST).await else {
            return Refusal::client("RequestTooLarge", "the request is too large").response();
        };
        let query = parts.uri.query().filter(|query| query.contains("Action="));
        let form = Form::parse(query.map_or(&body[..], str::as_bytes));
        if let Some(refusal) = self.denied(&scope, &parts, &form).await {
            return refusal;
        }
        let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
        let region = scope.region;
        self.ec2.serve(ec2::Request { region, form, method, uri, headers, body }).await
    }

    async fn autoscaling(&self, scope: &Scope, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, LARGEST).await else {
            return Refusal::client("RequestTooLarge", "the request is too large").response();
        };
        let query = parts.uri.query().filter(|query| query.contains("Action="));
        let form = Form::parse(query.map_or(&body[..], str::as_bytes));
        if let Some(refusal) = self.denied(scope, &parts, &form).await {
            return refusal;
        }
        match self.autoscaling.handle(&scope.region, &form).await {
            Some(response) => response,
            None => self.passed(scope, parts, body).await,
        }
    }

    async fn ssm(&self, scope: &Scope, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, LARGEST).await else {
            let message =
                json!({"__type": "ValidationException", "message": "the request is too large"});
            return json_reply(413, &message);
        };
        let target = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        if let Some(operation) = target.and_then(operation::from_target)
            && let Some(reply) = self.ssm.handle(operation, &parts.headers, &body).await
        {
            // What is refused before the emulator would keep it is no truer than what it keeps.
            let class =
                if ssm::PASSED.contains(&operation) { Class::Answered } else { Class::True };
            return coverage::mark(json_reply(reply.status, &reply.body), class);
        }
        self.passed(scope, parts, body).await
    }

    /// The answer to who may not read what it asks of a query-protocol service.
    async fn denied(&self, scope: &Scope, parts: &Parts, form: &Form) -> Option<Response<Body>> {
        let operation = form.get("Action")?;
        let error = self.ec2.rights.may_read(scope, operation, &parts.headers).await.err()?;
        log::line(format_args!("{operation}: {}: {}", error.code, error.message));
        let protocol = Protocol::of(&scope.service, &parts.headers, parts.uri.query());
        let response = protocol.refuse(&error, &parts.headers, parts.uri.path());
        Some(coverage::mark(response, Class::True))
    }

    /// Passes a call on whose form is looked at.
    async fn passed(&self, scope: &Scope, parts: Parts, body: Bytes) -> Response<Body> {
        let response = match passed::answer(&self.upstream, &self.shelf, scope, &parts, body).await
        {
            Ok(response) => response,
            Err(Unanswered::Refused(response)) => *response,
            Err(Unanswered::Unreachable(error)) => unreachable(&parts.headers, &error),
        };
        coverage::mark(response, Class::Answered)
    }

    /// Passes a call on unless nothing would be true behind its answer.
    async fn guarded(&self, scope: &Scope, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let target = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        let Ok(body) = to_bytes(body, LARGEST).await else {
            return Refusal::client("RequestTooLarge", "the request is too large").response();
        };
        let form = Form::parse(parts.uri.query().map_or(&body[..], str::as_bytes));
        let operation = target
            .and_then(operation::from_target)
            .or_else(|| form.get("Action"))
            .unwrap_or_default();
        if pretended::refuses(&scope.service, operation) {
            return refuse(&format!("{} {operation}", scope.service), target.is_some());
        }
        let (rights, headers) = (&self.ec2.rights, &parts.headers);
        if scope.service == "secretsmanager"
            && let Some(error) =
                secrets::denied(rights, &self.upstream, scope, operation, headers, &body).await
        {
            log::line(format_args!("{operation}: {}: {}", error.code, error.message));
            let response = Protocol::Json.refuse(&error, headers, parts.uri.path());
            return coverage::mark(response, Class::True);
        }
        self.passed(scope, parts, body).await
    }

    async fn stream(&self, scope: Option<&Scope>, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let service = scope.map_or("unsigned", |scope| scope.service.as_str());
        let what = format!("{service} {} {}", parts.method, parts.uri.path());
        let limit = if service == "s3" { LARGEST_OBJECT } else { LARGEST_PASSED };
        let Ok(length) = body_length(&parts.headers) else {
            return too_large(service, &parts, limit);
        };
        if length.is_some_and(|length| length > limit) {
            return too_large(service, &parts, limit);
        }
        // One that says its length is not read further; of the others each piece is counted.
        let over = Arc::new(AtomicBool::new(false));
        let body = if length.is_some() { body } else { counted(body, limit, &over) };
        match self.upstream.stream(parts.method.clone(), &parts.uri, &parts.headers, body).await {
            Ok(response)
                if failure::is_page(
                    response.status(),
                    response.headers().get(header::CONTENT_TYPE),
                ) =>
            {
                let dialect = if parts.headers.contains_key("x-amz-target") {
                    Dialect::Json
                } else {
                    Dialect::Rest
                };
                let failure = passed::broken(&self.upstream, &what, dialect).await;
                coverage::mark(failure.response(dialect), Class::Answered)
            }
            Ok(response) => coverage::mark(response, Class::Answered),
            Err(_) if over.load(Ordering::SeqCst) => too_large(service, &parts, limit),
            Err(error) => unreachable(&parts.headers, &error),
        }
    }
}

/// The length that a request announces; an error when it is no number.
fn body_length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    length.to_str().ok().and_then(|text| text.parse().ok()).map(Some).ok_or(())
}

/// A body that ends with an error when it is longer than the limit, and says so.
fn counted(body: Body, limit: u64, over: &Arc<AtomicBool>) -> Body {
    let (over, mut seen) = (Arc::clone(over), 0_u64);
    Body::from_stream(body.into_data_stream().map(move |piece| {
        let piece = piece.map_err(std::io::Error::other)?;
        seen += piece.len() as u64;
        if seen > limit {
            over.store(true, Ordering::SeqCst);
            return Err(std::io::Error::other("longer than what is passed on"));
        }
        Ok(piece)
    }))
}

pub(crate) fn too_large(service: &str, parts: &Parts, limit: u64) -> Response<Body> {
    let protocol = Protocol::of(service, &parts.headers, parts.uri.query());
    let message = format!("the rehearsal cloud passes requests of {} MiB at most", limit >> 20);
    log::line(format_args!("refused: {service} {}: {message}", parts.uri.path()));
    let error = match protocol {
        Protocol::S3 => ServiceError::new(
            400,
            "EntityTooLarge",
            format!("Your proposed upload exceeds the maximum allowed size: {message}"),
        ),
        _ => ServiceError::new(413, "RequestEntityTooLargeException", message),
    };
    coverage::mark(protocol.refuse(&error, &parts.headers, parts.uri.path()), Class::Answered)
}

fn refuse(what: &str, json_protocol: bool) -> Response<Body> {
    log::line(format_args!("refused: {what}"));
    coverage::mark(pretended::refusal(what, json_protocol), Class::Refused)
}

fn json_reply(status: u16, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    if let Ok(id) = HeaderValue::from_str(&request_id()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// 503 in the protocol of the caller, which then repeats the call.
fn unreachable(headers: &HeaderMap, error: &Lost) -> Response<Body> {
    log::line(format_args!("the emulator does not answer: {error}"));
    let message = "the emulator behind the rehearsal cloud does not answer";
    if headers.contains_key("x-amz-target") {
        return json_reply(
            503,
            &json!({"__type": "ServiceUnavailableException", "message": message}),
        );
    }
    let refusal = Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "ServiceUnavailable",
        message: message.to_owned(),
    };
    refusal.response()
}
