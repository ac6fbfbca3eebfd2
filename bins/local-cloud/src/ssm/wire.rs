//! The agents' side: an agent registers, asks for work again and again, and says how it ended. Served with TLS at the
//! services' own names, so that what keeps a host from AWS's APIs keeps its agent from them.
//!
//! | request | answer |
//! |---|---|
//! | `POST /rehearsal/agent/register` [`Registration`] | who the agent is, by its address; 202 `{"wait": seconds}`: not yet |
//! | `POST /rehearsal/agent/poll` `{"held": [command ids]}` | `{"start": […], "stop": [command ids]}`, when there is something to do or after some seconds |
//! | `POST /rehearsal/agent/result` [`Finished`] | 204 |
//!
//! A reply may get lost: what an agent does not say that it holds is offered again, and an agent refuses to start
//! what it holds. 409 means: register (first, or again after this side was restarted); 404: not known, forget it.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::agents::Registration;
use super::command::{Bucket, Command, Outcome};
use super::document::Step;
use super::fate::Arrival;
use super::status::End;
use super::{Ssm, output};
use crate::hosts::HostInfo;
use crate::log;

/// Both heads of some steps with every byte escaped as JSON does at worst, and then some.
const LARGEST: usize = 8 * 1024 * 1024;

#[derive(Debug, Deserialize)]
struct Poll {
    held: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Job {
    command_id: String,
    steps: Vec<Step>,
    s3: Option<Bucket>,
    logs: Option<String>,
}

#[derive(Debug, Serialize)]
struct Work {
    start: Vec<Job>,
    stop: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Status {
    Success,
    Failed,
    TimedOut,
    Cancelled,
}

#[derive(Debug, Deserialize)]
struct Finished {
    command_id: String,
    /// Whether nothing more comes.
    #[serde(rename = "final")]
    last: bool,
    /// The steps that ended, in order; none when the command never came to the agent.
    steps: Vec<FinishedStep>,
}

#[derive(Debug, Deserialize)]
struct FinishedStep {
    name: String,
    status: Status,
    code: i32,
    /// The head of the stream, and how many bytes the whole had.
    stdout: String,
    stdout_bytes: u64,
    stderr: String,
    stderr_bytes: u64,
    /// Milliseconds since 1970.
    started: i64,
    finished: i64,
}

pub(super) fn router(ssm: Ssm) -> Router {
    Router::new()
        .route("/rehearsal/agent/register", post(register))
        .route("/rehearsal/agent/poll", post(poll))
        .route("/rehearsal/agent/result", post(result))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(ssm)
}

/// Why a request was not answered.
type Problem = (StatusCode, String);

/// What a role needs for its agent to register.
const REGISTERS: [&str; 1] = ["ssm:UpdateInstanceInformation"];
/// One of these for its agent to get commands: today's channel, or the older one.
const TALKS: [&str; 2] = ["ssmmessages:OpenControlChannel", "ec2messages:GetMessages"];

/// Whoever calls is the host of that address, if its role may do one of these and nothing has cut it off.
async fn caller(
    ssm: &Ssm,
    address: SocketAddr,
    headers: &HeaderMap,
    actions: &[&str],
) -> Result<HostInfo, Problem> {
    let host = ssm.hosts.by_address(address.ip()).ok_or_else(|| {
        (StatusCode::FORBIDDEN, format!("no host has the address {}", address.ip()))
    })?;
    connected(ssm, &host.instance_id)?;
    let allowed = ssm.agent_may(&host, headers, actions).await;
    let why = allowed.map_err(|refusal| format!("{}: {}", refusal.code, refusal.message)).err();
    ssm.note_refusal(&host.instance_id, why.clone());
    if let Some(why) = why {
        return Err((StatusCode::FORBIDDEN, why));
    }
    Ok(host)
}

fn connected(ssm: &Ssm, id: &str) -> Result<(), Problem> {
    if ssm.is_cut(id) {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "the connection is cut".to_owned()));
    }
    Ok(())
}

async fn register(
    State(ssm): State<Ssm>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(about): Json<Registration>,
) -> Result<Response, Problem> {
    let host = caller(&ssm, address, &headers, &REGISTERS).await?;
    let id = host.instance_id.clone();
    if ssm.read_book(|book, _| book.agent(&id).is_none()) {
        match ssm.arrival(&host) {
            Arrival::Now => {}
            Arrival::Wait(wait) => {
                let body = Json(json!({"wait": wait.as_secs_f64()}));
                return Ok((StatusCode::ACCEPTED, body).into_response());
            }
            Arrival::Never => {
                let why = "this agent never registers".to_owned();
                return Err((StatusCode::SERVICE_UNAVAILABLE, why));
            }
        }
    }
    log::line(format_args!("{id}: its agent registers"));
    ssm.change_book(|book, now| book.register(&id, about, now));
    Ok(Json(json!({"instance_id": id})).into_response())
}

async fn poll(
    State(ssm): State<Ssm>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(poll): Json<Poll>,
) -> Result<Response, Problem> {
    let host = caller(&ssm, address, &headers, &TALKS).await?;
    let id = host.instance_id.clone();
    let register = || (StatusCode::CONFLICT, "register first".to_owned());
    let deadline = Instant::now() + ssm.timing.poll;
    let mut changes = ssm.changes.subscribe();
    if !ssm.read_book(|book, now| book.ping(&id, now)) {
        return Err(register());
    }
    ssm.see_running(&host, &poll.held);
    loop {
        connected(&ssm, &id)?;
        let work = ssm.read_book(|book, now| {
            let work = book.work(&id, &poll.held, now)?;
            let start: Vec<Job> = work.start.into_iter().map(Job::of).collect();
            let stop = work.stop.into_iter().map(str::to_owned).collect();
            Some(Work { start, stop })
        });
        let Some(mut work) = work else { return Err(register()) };
        let mut until = deadline;
        work.start.retain(|job| match ssm.held_back(&host, &job.command_id) {
            Some(later) => {
                until = until.min(later);
                false
            }
            None => true,
        });
        if !work.start.is_empty() || !work.stop.is_empty() || Instant::now() >= deadline {
            return Ok(Json(work).into_response());
        }
        // The sender lives as long as `ssm`, so a failure can only be the time; then one looks again.
        let _ = timeout_at(until, changes.changed()).await;
    }
}

async fn result(
    State(ssm): State<Ssm>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(finished): Json<Finished>,
) -> Result<Response, Problem> {
    let host = caller(&ssm, address, &headers, &TALKS).await?;
    let id = host.instance_id.clone();
    let command = finished.command_id.clone();
    let (end, outcomes) = finished.read()?;
    let known = ssm.read_book(|book, now| {
        book.ping(&id, now);
        book.command(&command).is_some_and(|command| command.invocation(&id).is_some())
    });
    if !known {
        return Err((StatusCode::NOT_FOUND, "no such command was sent here".to_owned()));
    }
    let late = ssm.word_late(&host);
    let count = async move || {
        let news = ssm.change_book(|book, now| book.finish(&id, &command, end, outcomes, now));
        if let (Some(news), Some(end)) = (news, end) {
            let late = if news { "" } else { ", too late" };
            log::line(format_args!("{id}: command {command}: {end:?}{late}"));
        }
    };
    match late {
        Some(late) => {
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                count().await;
            });
        }
        None => count().await,
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl Job {
    fn of(command: &Command) -> Self {
        Self {
            command_id: command.id.clone(),
            steps: command.order.steps.clone(),
            s3: command.order.bucket.clone(),
            logs: command.order.log_group.clone(),
        }
    }
}

impl Finished {
    /// How all of it ended, when it did, and its steps.
    fn read(self) -> Result<(Option<End>, Vec<Outcome>), Problem> {
        let outcomes: Vec<Outcome> =
            self.steps.into_iter().map(FinishedStep::read).collect::<Result<_, _>>()?;
        // The agent's order: failed before timed out before cancelled before success.
        let worst = [End::Failed, End::ExecutionTimedOut, End::Cancelled, End::Success]
            .into_iter()
            .find(|end| outcomes.iter().any(|outcome| outcome.end == *end))
            .unwrap_or(End::Cancelled);
        Ok((self.last.then_some(worst), outcomes))
    }
}

impl FinishedStep {
    fn read(self) -> Result<Outcome, Problem> {
        let time = |milliseconds| {
            Timestamp::from_millisecond(milliseconds)
                .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
        };
        Ok(Outcome {
            step: self.name,
            end: match self.status {
                Status::Success => End::Success,
                Status::Failed => End::Failed,
                Status::TimedOut => End::ExecutionTimedOut,
                Status::Cancelled => End::Cancelled,
            },
            code: self.code,
            stdout: output::kept(&self.stdout, self.stdout_bytes, output::STDOUT),
            stderr: output::kept(&self.stderr, self.stderr_bytes, output::STDERR),
            started: time(self.started)?,
            finished: time(self.finished)?,
        })
    }
}
