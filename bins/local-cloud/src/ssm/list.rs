//! `ListCommands`, `ListCommandInvocations` and `GetCommandInvocation`.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::command::{Command, Invocation};
use super::paging::{page, size};
use super::refusal::Refusal;
use super::send::{DOCUMENT, check_id, required};
use super::{Ssm, epoch, output};

/// The document's one step.
const PLUGIN: &str = "aws:runShellScript";

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
                wanted.command(command)
                    && wanted.status(command.status(), command.counts().completed, command)
                    && wanted.instance.is_none_or(|id| command.invocation(id).is_some())
            });
            let page = page(commands, |c| c.id.clone(), size, request.next_token.as_deref())?;
            let commands: Vec<Value> = page.items.into_iter().map(command_json).collect();
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
                .filter(|command| wanted.command(command) && book.is_visible(command, now))
                .flat_map(|command| command.invocations.iter().map(move |i| (command, i)))
                .filter(|(command, invocation)| {
                    let state = invocation.state;
                    let status = (state.status(), state.details());
                    wanted.instance.is_none_or(|id| invocation.instance_id == id)
                        && wanted.status(status, usize::from(state.ended()), command)
                });
            let name = |(command, invocation): &(&Command, &Invocation)| {
                format!("{} {}", command.id, invocation.instance_id)
            };
            let page = page(invocations, name, size, request.next_token.as_deref())?;
            let invocations: Vec<Value> = page
                .items
                .into_iter()
                .map(|(command, invocation)| invocation_json(command, invocation, request.details))
                .collect();
            Ok(with_next(json!({"CommandInvocations": invocations}), page.next))
        })
    }

    pub(super) fn get_command_invocation(&self, request: &Get) -> Result<Value, Refusal> {
        let command_id = required(request.command_id.as_deref(), "commandId")?;
        check_command_id(command_id)?;
        let instance_id = required(request.instance_id.as_deref(), "instanceId")?;
        check_id(instance_id, "instanceId")?;
        if request.plugin_name.as_deref().is_some_and(|name| name != PLUGIN) {
            let message = format!("{DOCUMENT} has one step, {PLUGIN}");
            return Err(Refusal::new("InvalidPluginName", message));
        }
        self.read_book(|book, now| {
            let found = book
                .command(command_id)
                .filter(|command| book.is_visible(command, now))
                .and_then(|command| Some((command, command.invocation(instance_id)?)));
            let Some((command, invocation)) = found else {
                let message = "The command ID and managed node ID don't match any invocations.";
                return Err(Refusal::new("InvocationDoesNotExist", message));
            };
            Ok(detailed_json(command, invocation))
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
        let time = |text: &str| {
            text.parse::<Timestamp>()
                .map(Some)
                .map_err(|_| Refusal::new("InvalidFilterKey", format!("`{text}` is not a time")))
        };
        for Filter { key, value } in &request.filters {
            match (key.as_str(), value.as_str()) {
                ("InvokedAfter", text) => wanted.after = time(text)?,
                ("InvokedBefore", text) => wanted.before = time(text)?,
                ("Status", text) => wanted.status = Some(text),
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
        self.command.is_none_or(|id| command.id == id)
            && self.document.is_none_or(|name| name == DOCUMENT)
            && self.after.is_none_or(|time| command.requested > time)
            && self.before.is_none_or(|time| command.requested < time)
    }

    fn status(&self, status: (&str, &str), completed: usize, command: &Command) -> bool {
        self.status.is_none_or(|wanted| wanted == status.0 || wanted == status.1)
            && self
                .executing
                .is_none_or(|executing| executing == (completed < command.invocations.len()))
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
        "DocumentName": DOCUMENT,
        "DocumentVersion": order.document_version,
        "Comment": order.comment,
        "ExpiresAfter": epoch(command.expires()),
        "Parameters": order.parameters,
        "InstanceIds": order.instance_ids,
        "Targets": order.targets,
        "RequestedDateTime": epoch(command.requested),
        "Status": status,
        "StatusDetails": details,
        "OutputS3BucketName": "",
        "OutputS3KeyPrefix": "",
        "MaxConcurrency": order.max_concurrency.to_string(),
        "MaxErrors": order.max_errors.to_string(),
        "TargetCount": counts.targets,
        "CompletedCount": counts.completed,
        "ErrorCount": counts.errors,
        "DeliveryTimedOutCount": counts.delivery_timed_out,
        "ServiceRole": "",
        "NotificationConfig": notification(),
        "CloudWatchOutputConfig": cloudwatch(),
        "TimeoutSeconds": order.delivery_timeout,
    })
}

fn invocation_json(command: &Command, invocation: &Invocation, details: bool) -> Value {
    let state = invocation.state;
    let plugins = if details { plugin_json(invocation).into_iter().collect() } else { Vec::new() };
    json!({
        "CommandId": command.id,
        "InstanceId": invocation.instance_id,
        "InstanceName": invocation.instance_name,
        "Comment": command.order.comment,
        "DocumentName": DOCUMENT,
        "DocumentVersion": command.order.document_version,
        "RequestedDateTime": epoch(command.requested),
        "Status": state.status(),
        "StatusDetails": state.details(),
        "StandardOutputUrl": "",
        "StandardErrorUrl": "",
        "CommandPlugins": plugins,
        "ServiceRole": "",
        "NotificationConfig": notification(),
        "CloudWatchOutputConfig": cloudwatch(),
    })
}

/// Nothing until the agent has said how it ended.
fn plugin_json(invocation: &Invocation) -> Option<Value> {
    let outcome = invocation.outcome.as_ref()?;
    Some(json!({
        "Name": PLUGIN,
        "Status": invocation.state.status(),
        "StatusDetails": invocation.state.details(),
        "ResponseCode": outcome.code,
        "ResponseStartDateTime": epoch(outcome.started),
        "ResponseFinishDateTime": epoch(outcome.finished),
        "Output": output::listed(&outcome.stdout, &outcome.stderr),
        "StandardOutputUrl": "",
        "StandardErrorUrl": "",
        "OutputS3BucketName": "",
        "OutputS3KeyPrefix": "",
    }))
}

fn detailed_json(command: &Command, invocation: &Invocation) -> Value {
    let state = invocation.state;
    let outcome = invocation.outcome.as_ref();
    let time = |time: Option<Timestamp>| time.map_or(String::new(), |time| format!("{time:.3}"));
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    json!({
        "CommandId": command.id,
        "InstanceId": invocation.instance_id,
        "Comment": command.order.comment,
        "DocumentName": DOCUMENT,
        "DocumentVersion": command.order.document_version,
        "PluginName": PLUGIN,
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
        "StandardOutputUrl": "",
        "StandardErrorContent": text(outcome.map(|outcome| &outcome.stderr)),
        "StandardErrorUrl": "",
        "CloudWatchOutputConfig": cloudwatch(),
    })
}

fn notification() -> Value {
    json!({"NotificationArn": "", "NotificationEvents": [], "NotificationType": ""})
}

fn cloudwatch() -> Value {
    json!({"CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": false})
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
