//! Systems Manager, true: commands run on the hosts, by an agent that comes late and may drop.
//!
//! Run Command with `AWS-RunShellScript` is implemented here; Parameter Store and documents are passed on to the
//! emulator, which keeps them truly; everything else is refused by name.
//!
//! | file | holds |
//! |---|---|
//! | [`status`], [`command`], [`agents`], [`book`] | the state machine; pure, the time comes as an argument |
//! | [`output`] | what is kept of a long output |
//! | [`send`], [`list`], [`instances`], [`paging`] | requests to the state machine, its answers to replies |
//! | [`document`] | what a document makes of its parameters; pure |
//! | [`parameters`] | what Parameter Store does not take, before the emulator keeps it; pure |
//! | [`rights`] | what IAM's policies allow a caller and an agent |
//! | [`fate`] | faults of agents |
//! | [`services`] | what it asks of the emulator: documents |
//! | [`wire`] | the agent's side |

mod agents;
mod book;
mod command;
mod document;
mod fate;
mod instances;
mod list;
mod output;
mod paging;
mod parameters;
mod refusal;
mod rights;
mod send;
mod services;
mod status;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use self::book::Book;
use self::command::Presence;
use self::fate::Fates;
use self::refusal::Refusal;
use self::rights::may;
use crate::ec2::Ec2;
use crate::faults::Faults;
use crate::hosts::{HostState, Hosts};
use crate::rights::Caller;

/// What passes on to the emulator: records that are kept there as on AWS and make nothing happen on a host.
pub const PASSED: [&str; 22] = [
    "PutParameter",
    "GetParameter",
    "GetParameters",
    "GetParametersByPath",
    "GetParameterHistory",
    "DeleteParameter",
    "DeleteParameters",
    "DescribeParameters",
    "LabelParameterVersion",
    "UnlabelParameterVersion",
    "AddTagsToResource",
    "RemoveTagsFromResource",
    "ListTagsForResource",
    "CreateDocument",
    "DescribeDocument",
    "GetDocument",
    "ListDocuments",
    "UpdateDocument",
    "UpdateDocumentDefaultVersion",
    "DeleteDocument",
    "DescribeDocumentPermission",
    "ModifyDocumentPermission",
];

/// How long things take; see [`crate::timing::Timing`].
#[derive(Debug, Clone, Copy)]
struct Timing {
    registration: Duration,
    poll: Duration,
    lost: Duration,
    visible: Duration,
}

impl From<&crate::timing::Timing> for Timing {
    fn from(timing: &crate::timing::Timing) -> Self {
        Self {
            registration: timing.agent_registration,
            poll: timing.agent_poll,
            lost: timing.agent_lost,
            visible: timing.invocation_visible,
        }
    }
}

/// An answer of the API.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// AWS JSON 1.1.
    pub body: Value,
}

/// Systems Manager; clones share it.
#[derive(Debug, Clone)]
pub struct Ssm {
    hosts: Hosts,
    /// What shall go wrong.
    pub faults: Faults,
    region: String,
    fates: Fates,
    /// Where the rest of the account is; none in tests without it.
    ec2: Option<Arc<Ec2>>,
    book: Arc<Mutex<Book>>,
    /// Counts changes that an agent or a reader may wait for.
    changes: Arc<watch::Sender<u64>>,
    timing: Timing,
}

impl Ssm {
    /// Systems Manager for the hosts of EC2, without any agent yet, before the same emulator.
    pub fn new(ec2: &Arc<Ec2>) -> Self {
        Self {
            faults: ec2.faults.clone(),
            region: ec2.settings.region.clone(),
            ec2: Some(Arc::clone(ec2)),
            ..Self::timed(ec2.hosts.clone(), Timing::from(&ec2.settings.timing))
        }
    }

    fn timed(hosts: Hosts, timing: Timing) -> Self {
        let book = Arc::new(Mutex::new(Book::new(timing.lost, timing.visible)));
        Self {
            hosts,
            faults: Faults::default(),
            region: crate::DEFAULT_REGION.to_owned(),
            fates: Fates::default(),
            ec2: None,
            book,
            changes: Arc::new(watch::Sender::new(0)),
            timing,
        }
    }

    /// Answers a call with these headers; `None` for what the emulator keeps truly.
    pub async fn handle(&self, operation: &str, headers: &HeaderMap, body: &[u8]) -> Option<Reply> {
        let outcome = match self.answer(operation, headers, body).await {
            Ok(None) => return None,
            Ok(Some(body)) => Ok(body),
            Err(refusal) => Err(refusal),
        };
        Some(outcome.map_or_else(
            |refusal| {
                crate::log::line(format_args!(
                    "{operation}: {}: {}",
                    refusal.code, refusal.message
                ));
                refusal.reply()
            },
            |body| Reply { status: 200, body },
        ))
    }

    async fn answer(
        &self,
        operation: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Value>, Refusal> {
        let caller = self.caller(headers).await;
        if operation != "SendCommand" {
            self.check_rights(&caller, operation, body)?;
        }
        let answer = match operation {
            "SendCommand" => self.send_command(read(body)?, &caller).await?,
            "CancelCommand" => self.cancel_command(&read(body)?)?,
            "ListCommands" => self.list_commands(&read(body)?)?,
            "ListCommandInvocations" => self.list_command_invocations(&read(body)?)?,
            "GetCommandInvocation" => self.get_command_invocation(&read(body)?)?,
            "DescribeInstanceInformation" => self.describe_instance_information(read(body)?)?,
            passed if PASSED.contains(&passed) => {
                let request = read(body)?;
                parameters::check(operation, &request)?;
                if operation == "PutParameter" {
                    self.check_type(&request).await?;
                }
                return Ok(None);
            }
            other => return Err(Refusal::not_implemented(format!("the operation `{other}`"))),
        };
        Ok(Some(answer))
    }

    /// Whether the caller may use an operation, on the parameters that it names.
    fn check_rights(&self, caller: &Caller, operation: &str, body: &[u8]) -> Result<(), Refusal> {
        let action = format!("ssm:{operation}");
        let nothing = |_: &str| None;
        let request: Value = read(body)?;
        let mut names: Vec<&str> =
            request["Names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        names.extend([&request["Name"], &request["Path"]].into_iter().filter_map(Value::as_str));
        if names.is_empty() || !operation.contains("Parameter") {
            return may(caller, &action, "*", &nothing);
        }
        let place = format!("arn:aws:ssm:{}:{}:parameter", self.region, caller.account());
        names.iter().try_for_each(|name| {
            let name = name.trim_start_matches('/');
            // A version or label is no part of the resource.
            let name = name.split(':').next().unwrap_or(name);
            may(caller, &action, &format!("{place}/{name}"), &nothing)
        })
    }

    /// `PingStatus` of an instance's agent; `None` when it never registered.
    pub fn ping_status(&self, id: &str) -> Option<&'static str> {
        self.read_book(|book, now| {
            let (_, agent) = book.agents().find(|(known, _)| *known == id)?;
            Some(book.ping_status(agent, now))
        })
    }

    /// The agents' side, for the names of the services; needs `ConnectInfo<SocketAddr>`.
    pub fn agent_router(&self) -> Router {
        wire::router(self.clone())
    }

    /// Looks at the book as it is now.
    fn read_book<T>(&self, look: impl FnOnce(&mut Book, Timestamp) -> T) -> T {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        book.advance(now, |id| self.presence(id));
        look(&mut book, now)
    }

    /// Changes the book, and tells those who wait.
    fn change_book<T>(&self, change: impl FnOnce(&mut Book, Timestamp) -> T) -> T {
        let result = self.read_book(change);
        self.tell();
        result
    }

    /// Wakes those who wait for a change.
    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A terminated instance is deregistered; one that is stopped has no agent that could be heard of.
    fn presence(&self, id: &str) -> Presence {
        match self.hosts.by_instance(id).map(|host| host.state) {
            None | Some(HostState::ShuttingDown | HostState::Terminated) => Presence::Gone,
            Some(HostState::Stopped | HostState::Stopping) => Presence::Silent,
            Some(HostState::Pending | HostState::Running) => Presence::There,
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // Some clients send no body at all where no parameter is set.
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new("SerializationException", error.to_string()))
}

/// A time as AWS JSON writes it.
fn epoch(time: Timestamp) -> Value {
    let milliseconds = time.as_millisecond();
    // Exact: milliseconds since 1970 need 41 bits.
    Value::from(milliseconds as f64 / 1000.0)
}
