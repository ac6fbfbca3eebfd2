//! The control API on the endpoint, below [`PREFIX`]: what runs, faults, events, and a page that shows them.
//!
//! | path | does |
//! |---|---|
//! | `GET status` | hosts and faults, as [`Status`] |
//! | `GET faults`, `POST faults`, `DELETE faults` | lists them; adds one ([`Spec`] as JSON); removes all |
//! | `DELETE faults/ID` | removes one |
//! | `GET events` | [`Event`]s as lines of JSON; `after=ID`, `since=TIME` (RFC 3339), `follow=true` |
//! | `GET` (nothing more) | the page; the only thing that needs no token, as it shows nothing by itself |

mod access;
mod status;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::access::Token;
use self::access::{
    Turned, check_endpoint, check_names, check_place, check_token, is_name_of_aws,
    is_name_of_metadata,
};
pub use self::status::{HostStatus, Status};
use crate::ec2::Ec2;
use crate::events::{EVENTS, Event};
use crate::faults::{Faults, Mistake, Spec};
use crate::hosts::HostState;
use crate::ssm::Ssm;
use crate::vitals::Vitals;
use crate::web;

/// Where all of it is; no path of AWS starts like this.
pub const PREFIX: &str = "/_local-cloud";

/// The largest request; a fault has a few hundred bytes.
const LARGEST: usize = 64 * 1024;

/// What the control API is about.
#[derive(Debug, Clone)]
pub struct Control {
    /// Loopback port of the endpoint.
    pub port: u16,
    /// The secret.
    pub token: Token,
    /// The hosts.
    pub ec2: Arc<Ec2>,
    /// Their agents.
    pub ssm: Ssm,
    /// What shall go wrong.
    pub faults: Faults,
    /// How the hosts fare.
    pub vitals: Vitals,
}

/// An error of this API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// The field of the request that is wrong, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// A fault was added.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Added {
    /// Its number.
    pub id: u64,
    /// What its scope names and no host has now. One that is launched later may have it; or it is mistyped.
    #[serde(default)]
    pub nobody: Vec<String>,
}

/// How many were removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Removed {
    /// The number.
    pub removed: usize,
}

/// The control API; for the listener on loopback only, never for hosts.
pub fn router(control: Control) -> Router {
    let at = |path: &str| format!("{PREFIX}{path}");
    let guarded = Router::new()
        .route(&at("/status"), get(show_status))
        .route(&at("/faults"), get(list_faults).post(add_fault).delete(clear_faults))
        .route(&at("/faults/{id}"), delete(remove_fault))
        .route(&at("/events"), get(events))
        .route(&at("/{*rest}"), axum::routing::any(nothing_here))
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(control.clone(), need_token));
    guarded
        .route(&at("/"), get(web::page))
        .route(PREFIX, get(|| async { Redirect::permanent(&format!("{PREFIX}/")) }))
        .layer(from_fn_with_state(control.clone(), need_place))
        .with_state(control)
}

/// The AWS endpoint as it listens on loopback: closed to pages of other sites that a browser on this machine shows, and to
/// names of other sites that lead here.
pub fn only_from_here(api: Router, port: u16) -> Router {
    api.layer(axum::middleware::from_fn(move |request: Request, next: Next| async move {
        match check_endpoint(request.headers(), port) {
            Ok(()) => next.run(request).await,
            Err(turned) => turned.response(),
        }
    }))
}

/// The AWS APIs as hosts call them: at AWS's names, and not from a page of another site.
pub fn only_as_aws(api: Router) -> Router {
    only_at(api, "https://", is_name_of_aws)
}

/// Instance metadata: at its address and its names, and not from a page of another site.
pub fn only_as_metadata(metadata: Router) -> Router {
    only_at(metadata, "http://", is_name_of_metadata)
}

fn only_at(router: Router, scheme: &'static str, own: fn(&str) -> bool) -> Router {
    router.layer(axum::middleware::from_fn(move |request: Request, next: Next| async move {
        match check_names(request.headers(), scheme, &own) {
            Ok(()) => next.run(request).await,
            Err(turned) => turned.response(),
        }
    }))
}

async fn need_place(State(control): State<Control>, request: Request, next: Next) -> Response {
    match check_place(request.headers(), control.port) {
        Ok(()) => {
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }
        Err(turned) => turned.response(),
    }
}

async fn need_token(State(control): State<Control>, request: Request, next: Next) -> Response {
    match check_token(request.headers(), &control.token) {
        Ok(()) => next.run(request).await,
        Err(turned) => turned.response(),
    }
}

impl Turned {
    fn response(self) -> Response {
        let (status, message) = match self {
            Self::Host => {
                (StatusCode::FORBIDDEN, "the Host header names something else than this endpoint")
            }
            Self::Origin => {
                (StatusCode::FORBIDDEN, "the request comes from a page of another site")
            }
            Self::Token => (
                StatusCode::UNAUTHORIZED,
                "the token is missing or wrong: `Authorization: Bearer <token of state.json>`",
            ),
        };
        problem(status, None, message)
    }
}

fn problem(status: StatusCode, field: Option<&str>, message: impl Into<String>) -> Response {
    let body = Problem { field: field.map(str::to_owned), message: message.into() };
    (status, Json(body)).into_response()
}

async fn nothing_here(request: Request) -> Response {
    let path = request.uri().path();
    problem(StatusCode::NOT_FOUND, None, format!("`{path}` is not of the control API"))
}

async fn not_allowed(request: Request) -> Response {
    let message = format!("{} is not allowed here", request.method());
    problem(StatusCode::METHOD_NOT_ALLOWED, None, message)
}

async fn show_status(State(control): State<Control>) -> Json<Status> {
    Json(control.status().await)
}

async fn list_faults(State(control): State<Control>) -> Response {
    Json(control.faults.list()).into_response()
}

async fn add_fault(State(control): State<Control>, request: Request) -> Response {
    let Ok(body) = to_bytes(request.into_body(), LARGEST).await else {
        let message = format!("a fault has at most {LARGEST} bytes");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, None, message);
    };
    let added = Spec::from_json(&body).and_then(|spec| {
        let mut hosts = control.ec2.hosts.all();
        hosts.retain(|host| host.state != HostState::Terminated);
        let (one, other) = (
            hosts.iter().any(|host| spec.takes_host(host)),
            hosts.iter().any(|host| spec.takes_end(host)),
        );
        let missing =
            [(one, &spec.host), (other, &spec.to)].into_iter().filter(|(there, _)| !there);
        let nobody = missing.filter_map(|(_, wanted)| wanted.clone()).collect();
        Ok(Added { id: control.faults.add(spec)?, nobody })
    });
    match added {
        Ok(added) => (StatusCode::CREATED, Json(added)).into_response(),
        Err(Mistake { field, message }) => problem(StatusCode::BAD_REQUEST, Some(&field), message),
    }
}

async fn remove_fault(State(control): State<Control>, Path(id): Path<String>) -> Response {
    match id.parse() {
        Ok(id) if control.faults.remove(id) => Json(Removed { removed: 1 }).into_response(),
        Ok(_) => problem(StatusCode::NOT_FOUND, Some("id"), format!("there is no fault {id}")),
        Err(_) => {
            let message = format!("`{id}` is no number of a fault");
            problem(StatusCode::BAD_REQUEST, Some("id"), message)
        }
    }
}

async fn clear_faults(State(control): State<Control>) -> Json<Removed> {
    Json(Removed { removed: control.faults.clear() })
}

/// Which events.
#[derive(Debug, Deserialize)]
struct Which {
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    follow: Option<String>,
}

async fn events(Query(which): Query<Which>) -> Response {
    let wrong = |field, message: &str| problem(StatusCode::BAD_REQUEST, Some(field), message);
    let after: u64 = match which.after.as_deref().unwrap_or("0").parse() {
        Ok(after) => after,
        Err(_) => return wrong("after", "must be the number of an event"),
    };
    let since = match which.since.as_deref().map(str::parse).transpose() {
        Ok(since) => since,
        Err(_) => return wrong("since", "must be a time such as 2026-01-31T12:00:00Z"),
    };
    let follow = match which.follow.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return wrong("follow", "must be true or false"),
    };
    let body = if follow {
        let state = (after, since, EVENTS.newest());
        Body::from_stream(futures_util::stream::unfold(
            state,
            |(mut after, since, mut newest)| async move {
                loop {
                    newest.mark_unchanged();
                    let new = EVENTS.after(after, since);
                    if let Some(last) = new.last() {
                        after = last.id;
                        return Some((Ok::<_, Infallible>(lines(&new)), (after, since, newest)));
                    }
                    newest.changed().await.ok()?;
                }
            },
        ))
    } else {
        Body::from(lines(&EVENTS.after(after, since)))
    };
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn lines(events: &[Event]) -> Bytes {
    let mut text = String::new();
    for event in events {
        // An event has only string keys, so it always becomes JSON.
        if let Ok(line) = serde_json::to_string(event) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text.into()
}
