//! `ListCommands`, `ListCommandInvocations` and `GetCommandInvocation`.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::command::{Command, Invocation, Outcome};
use super::document::Step;
use super::paging::{page, size};
use super::refusal::Refusal;
use super::send::{check_id, required};
use super::status::{End, State};
use super::{Ssm, epoch, output};

const MOST_FILTERS: usize = 5;
/// What `Status` may be as a filter of `ListCommands` (service model, `CommandFilter$value`).
const COMMAND_STATUSES: [&str; 13] = [
    "Pending",
    "InProgress",
    "Success",
    "Cancelled",
    "Cancelling",
    "Failed",
    "TimedOut",
    "AccessDenied",
    "DeliveryTimedOut",
    "ExecutionTimedOut",
    "Incomplete",
    "NoInstancesInTag",
    "LimitExceeded",
];
/// And of `ListCommandInvocations`.
const INVOCATION_STATUSES: [&str; 14] = [
    "Pending",
    "InProgress",
    "Delayed",
    "Success",
    "Cancelled",
    "Cancelling",
    "Failed",
    "TimedOut",
    "DeliveryTimedOut",
    "ExecutionTimedOut",
    "Undeliverable",
    "InvalidPlatform",
    "Terminated",
    "AccessDenied",
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct List {
    command_id: Option<String>,
    instance_id: Option<String>,
    max_results: Option<u32>,
    next_token: Option<String>,
    #[serde(default)]
    filters: Vec<Filter>,
    #[serde(default)]
    details: bool,
}

/// This one spells its members in lower case.
#[derive(Debug, Deserialize)]
struct Filter {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Get {
    command_id: Option<String>,
    instance_id: Option<String>,
    plugin_name: Option<String>,
}

impl Ssm {
    pub(super) fn list_commands(&self, request: &List) -> Result<Value, Refusal> {
        let wanted = Wanted::new(request, true)?;
        let size = size(request.max_results, 1, 50)?;
        self.read_book(|book, _| {
            wanted.check_command(|id| book.command(id).is_some())?;
            let commands = book.commands().filter(|command| {
                wanted.command.is_none_or(|id| command.id == id)
                    && wanted.instance.is_none_or(|id| command.invocation(id).is_some())
            });
            let page = page(commands, |c| c.id.clone(), size, request.next_token.as_deref())?;
            // Filters come after pages, as on AWS: a page may be short, or empty, and have a token all the same.
            let commands: Vec<Value> = page
                .items
                .into_iter()
                .filter(|command| {
                    let running = command.counts().completed < command.invocations.len();
                    wanted.command(command)
                        && wanted.status(command.status())
                        && wanted.executing.is_none_or(|executing| executing == running)
                })
                .map(command_json)
                .collect();
            Ok(with_next(json!({"Commands": commands}), page.next))
        })
    }

    pub(super) fn list_command_invocations(&self, request: &List) -> Result<Value, Refusal> {
        let wanted = Wanted::new(request, false)?;
        let size = size(request.max_results, 1, 50)?;
        self.read_book(|book, now| {
            wanted.check_command(|id| book.command(id).is_some())?;
            let invocations = book
                .commands()
                .filter(|command| wanted.command.is_none_or(|id| command.id == id))
                .filter(|command| book.is_visible(command, now))
                .flat_map(|command| command.invocations.iter().map(move |i| (command, i)))
                .filter(|(_, i)| wanted.instance.is_none_or(|id| i.instance_id == id));
            let name = |(command, invocation): &(&Command, &Invocation)| {
                format!("{} {}", command.id, invocation.instance_id)
            };
            let page = page(invocations, name, size, request.next_token.as_deref())?;
            let invocations: Vec<Value> = page
                .items
                .into_iter()
                .filter(|(command, invocation)| {
                    let state = invocation.state;
                    wanted.command(command) && wanted.status((state.status(), state.details()))
                })
                .map(|(command, invocation)| {
                    self.invocation_json(command, invocation, request.details)
                })
                .collect();
            Ok(with_next(json!({"CommandInvocations": invocations}), page.next))
        })
    }

    pub(super) fn get_command_invocation(&self, request: &Get) -> Result<Value, Refusal> {
        let command_id = required(request.command_id.as_deref(), "commandId")?;
        check_command_id(command_id)?;
        let instance_id = required(request.instance_id.as_deref(), "instanceId")?;
        check_id(instance_id, "instanceId")?;
        self.read_book(|book, now| {
            let found = book
                .command(command_id)
                .filter(|command| book.is_visible(command, now))
                .and_then(|command| Some((command, command.invocation(instance_id)?)));
            let Some((command, invocation)) = found else {
                let message = "The command ID and managed node ID don't match any invocations.";
                return Err(Refusal::new("InvocationDoesNotExist", message));
            };
            let step = step(command, request.plugin_name.as_deref())?;
            Ok(self.detailed_json(command, invocation, step))
        })
    }
}

/// What a list is narrowed to.
struct Wanted<'a> {
    command: Option<&'a str>,
    instance: Option<&'a str>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    status: Option<&'a str>,
    executing: Option<bool>,
    document: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn new(request: &'a List, stages: bool) -> Result<Self, Refusal> {
        let mut wanted = Self {
            command: request.command_id.as_deref(),
            instance: request.instance_id.as_deref(),
            after: None,
            before: None,
            status: None,
            executing: None,
            document: None,
        };
        if let Some(id) = wanted.command {
            check_command_id(id)?;
        }
        if let Some(id) = wanted.instance {
            check_id(id, "instanceId")?;
        }
        if request.filters.len() > MOST_FILTERS {
            let must = "Member must have length less than or equal to 5";
            return Err(Refusal::constraint("filters", "filters", must));
        }
        let statuses = if stages { &COMMAND_STATUSES[..] } else { &INVOCATION_STATUSES[..] };
        let time = |text: &str| {
            text.parse::<Timestamp>()
                .map(Some)
                .map_err(|_| Refusal::new("InvalidFilterKey", format!("`{text}` is not a time")))
        };
        for Filter { key, value } in &request.filters {
            match (key.as_str(), value.as_str()) {
                ("InvokedAfter", text) => wanted.after = time(text)?,
                ("InvokedBefore", text) => wanted.before = time(text)?,
                ("Status", text) if statuses.contains(&text) => wanted.status = Some(text),
                ("ExecutionStage", "Executing") if stages => wanted.executing = Some(true),
                ("ExecutionStage", "Complete") if stages => wanted.executing = Some(false),
                ("DocumentName", text) => wanted.document = Some(text),
                (key, value) => {
                    let message = format!("The filter {key}={value} is not valid here");
                    return Err(Refusal::new("InvalidFilterKey", message));
                }
            }
        }
        Ok(wanted)
    }

    fn check_command(&self, known: impl Fn(&str) -> bool) -> Result<(), Refusal> {
        match self.command {
            Some(id) if !known(id) => {
                Err(Refusal::new("InvalidCommandId", format!("no command {id}")))
            }
            _ => Ok(()),
        }
    }

    fn command(&self, command: &Command) -> bool {
        self.document.is_none_or(|name| name == command.order.document)
            && self.after.is_none_or(|time| command.requested > time)
            && self.before.is_none_or(|time| command.requested < time)
    }

    fn status(&self, status: (&str, &str)) -> bool {
        // A filter calls by another name what an answer calls `RateExceeded`.
        let alias = |wanted| wanted == "LimitExceeded" && status.1 == "RateExceeded";
        self.status.is_none_or(|wanted| wanted == status.0 || wanted == status.1 || alias(wanted))
    }
}

fn check_command_id(id: &str) -> Result<(), Refusal> {
    if id.len() == 36 {
        return Ok(());
    }
    let must = "Member must have length equal to 36";
    Err(Refusal::constraint(id, "commandId", must))
}

fn with_next(mut body: Value, next: Option<String>) -> Value {
    // The service sends an empty token with the last page.
    body["NextToken"] = next.unwrap_or_default().into();
    body
}

pub(super) fn command_json(command: &Command) -> Value {
    let order = &command.order;
    let (status, details) = command.status();
    let counts = command.counts();
    json!({
        "CommandId": command.id,
        "DocumentName": command.order.document,
        "DocumentVersion": order.document_version,
        "Comment": order.comment,
        "ExpiresAfter": epoch(command.expires()),
        "Parameters": order.parameters,
        "InstanceIds": order.instance_ids,
        "Targets": order.targets,
        "RequestedDateTime": epoch(command.requested),
        "Status": status,
        "StatusDetails": details,
        "OutputS3BucketName": order.bucket.as_ref().map_or("", |bucket| &bucket.name),
        "OutputS3KeyPrefix": order.bucket.as_ref().map_or("", |bucket| &bucket.prefix),
        "MaxConcurrency": order.max_concurrency.to_string(),
        "MaxErrors": order.max_errors.to_string(),
        "TargetCount": counts.targets,
        "CompletedCount": counts.completed,
        "ErrorCount": counts.errors,
        "DeliveryTimedOutCount": counts.delivery_timed_out,
        "ServiceRole": "",
        "NotificationConfig": notification(),
        "CloudWatchOutputConfig": cloudwatch(command),
        "TimeoutSeconds": order.delivery_timeout,
    })
}

/// The step that a request means.
fn step<'a>(command: &'a Command, name: Option<&str>) -> Result<Option<&'a Step>, Refusal> {
    let steps = &command.order.steps;
    let invalid = |message: String| Err(Refusal::new("InvalidPluginName", message));
    match (name, steps.as_slice()) {
        (Some(name), _) => match steps.iter().find(|step| step.name == name) {
            Some(step) => Ok(Some(step)),
            None => invalid(format!("{} has no step {name}", command.order.document)),
        },
        (None, [_, _, ..]) => {
            invalid(format!("{} has several steps; name one", command.order.document))
        }
        (None, steps) => Ok(steps.first()),
    }
}

impl Ssm {
    fn invocation_json(&self, command: &Command, invocation: &Invocation, details: bool) -> Value {
        let state = invocation.state;
        let plugins: Vec<Value> = if details {
            invocation.outcomes.iter().map(|o| self.plugin_json(command, invocation, o)).collect()
        } else {
            Vec::new()
        };
        // Of one step the addresses stand here as well.
        let one = match command.order.steps.as_slice() {
            [one] => Some(one),
            _ => None,
        };
        let url =
            |stream| one.map_or_else(String::new, |s| self.url(command, invocation, s, stream));
        json!({
            "CommandId": command.id,
            "InstanceId": invocation.instance_id,
            "InstanceName": invocation.instance_name,
            "Comment": command.order.comment,
            "DocumentName": command.order.document,
            "DocumentVersion": command.order.document_version,
            "RequestedDateTime": epoch(command.requested),
            "Status": state.status(),
            "StatusDetails": state.details(),
            "StandardOutputUrl": url("stdout"),
            "StandardErrorUrl": url("stderr"),
            "CommandPlugins": plugins,
            "ServiceRole": "",
            "NotificationConfig": notification(),
            "CloudWatchOutputConfig": cloudwatch(command),
        })
    }

    fn plugin_json(&self, command: &Command, invocation: &Invocation, outcome: &Outcome) -> Value {
        let state = step_state(invocation, outcome);
        let step = command.order.steps.iter().find(|step| step.name == outcome.step);
        let url =
            |stream| step.map_or_else(String::new, |s| self.url(command, invocation, s, stream));
        let bucket = command.order.bucket.as_ref();
        let prefix = bucket.zip(step).map(|(bucket, step)| {
            let parts =
                [&bucket.prefix, &command.id, &invocation.instance_id, &folder(&step.action)];
            parts
                .map(|part| part.trim_matches('/'))
                .into_iter()
                .filter(|p| !p.is_empty())
                .collect::<Vec<_>>()
                .join("/")
        });
        json!({
            "Name": outcome.step,
            "Status": state.status(),
            "StatusDetails": state.details(),
            "ResponseCode": outcome.code,
            "ResponseStartDateTime": epoch(outcome.started),
            "ResponseFinishDateTime": epoch(outcome.finished),
            "Output": output::listed(&outcome.stdout, &outcome.stderr),
            "StandardOutputUrl": url("stdout"),
            "StandardErrorUrl": url("stderr"),
            "OutputS3Region": self.region,
            "OutputS3BucketName": bucket.map_or("", |bucket| &bucket.name),
            "OutputS3KeyPrefix": prefix.unwrap_or_default(),
        })
    }

    fn detailed_json(
        &self,
        command: &Command,
        invocation: &Invocation,
        step: Option<&Step>,
    ) -> Value {
        let name = step.map(|step| step.name.as_str()).unwrap_or_default();
        let outcome = invocation.outcomes.iter().find(|outcome| outcome.step == name);
        let later = !invocation.state.ended()
            && command
                .order
                .steps
                .iter()
                .skip(invocation.outcomes.len() + 1)
                .any(|s| s.name == name);
        let state = match outcome {
            Some(outcome) => step_state(invocation, outcome),
            None if later => State::Pending,
            None => invocation.state,
        };
        let time =
            |time: Option<Timestamp>| time.map_or(String::new(), |time| format!("{time:.3}"));
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let url =
            |stream| step.map_or_else(String::new, |s| self.url(command, invocation, s, stream));
        let mut body = json!({
            "CommandId": command.id,
            "InstanceId": invocation.instance_id,
            "Comment": command.order.comment,
            "DocumentName": command.order.document,
            "DocumentVersion": command.order.document_version,
            "ResponseCode": outcome.map_or(-1, |outcome| outcome.code),
            "ExecutionStartDateTime": time(outcome.map(|outcome| outcome.started)),
            "ExecutionElapsedTime": outcome.map_or(String::new(), |outcome| {
                let elapsed = outcome.finished.duration_since(outcome.started);
                elapsed_text(elapsed.unsigned_abs().as_millis())
            }),
            "ExecutionEndDateTime": time(outcome.map(|outcome| outcome.finished)),
            "Status": state.status(),
            "StatusDetails": state.details(),
            "StandardOutputContent": text(outcome.map(|outcome| &outcome.stdout)),
            "StandardOutputUrl": url("stdout"),
            "StandardErrorContent": text(outcome.map(|outcome| &outcome.stderr)),
            "StandardErrorUrl": url("stderr"),
            "CloudWatchOutputConfig": cloudwatch(command),
        });
        // A document for other systems has no step here, and an empty name is none.
        if !name.is_empty() {
            body["PluginName"] = name.into();
        }
        body
    }

    /// Where a step's output is in S3, whether it is there or not, as the service says it.
    fn url(&self, command: &Command, invocation: &Invocation, step: &Step, stream: &str) -> String {
        let Some(bucket) = &command.order.bucket else { return String::new() };
        let host = format!("https://s3.{}.amazonaws.com", self.region);
        let parts = [
            host.as_str(),
            &bucket.name,
            &bucket.prefix,
            &command.id,
            &invocation.instance_id,
            &folder(&step.action),
            &folder(&step.step),
            stream,
        ];
        let parts = parts.map(|part| part.trim_matches('/'));
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}

/// A step's own state, or that of the invocation where the service decided it.
fn step_state(invocation: &Invocation, outcome: &Outcome) -> State {
    match invocation.state {
        State::Ended(End::Cancelled) if outcome.end != End::Success => invocation.state,
        _ => State::Ended(outcome.end),
    }
}

/// Colons are left out of addresses.
fn folder(name: &str) -> String {
    name.replace(':', "")
}

fn notification() -> Value {
    json!({"NotificationArn": "", "NotificationEvents": [], "NotificationType": ""})
}

fn cloudwatch(command: &Command) -> Value {
    let group = &command.order.log_group;
    json!({
        "CloudWatchLogGroupName": group.as_deref().unwrap_or_default(),
        "CloudWatchOutputEnabled": group.is_some(),
    })
}

/// ISO 8601 as the service writes it: `PT0.271S`, `PT1H0.271S`.
fn elapsed_text(milliseconds: u128) -> String {
    let (minutes, milliseconds) = (milliseconds / 60_000, milliseconds % 60_000);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let part = |count: u128, unit: &str| match count {
        0 => String::new(),
        count => format!("{count}{unit}"),
    };
    let seconds = milliseconds as f64 / 1000.0;
    format!("PT{}{}{seconds}S", part(hours, "H"), part(minutes, "M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_is_written_as_the_service_does() {
        let check = |milliseconds, expected| assert_eq!(elapsed_text(milliseconds), expected);
        check(0, "PT0S");
        check(271, "PT0.271S");
        check(61_500, "PT1M1.5S");
        check(3_600_271, "PT1H0.271S");
    }
}
