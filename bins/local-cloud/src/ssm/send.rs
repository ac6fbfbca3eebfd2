//! `SendCommand` and `CancelCommand`.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::command::{Limit, Order, Recipient, Target};
use super::list::command_json;
use super::refusal::Refusal;
use super::{Ssm, book::Book};
use crate::ec2::answers::request_id;
use crate::log;

/// The one document.
pub(super) const DOCUMENT: &str = "AWS-RunShellScript";
/// `InstanceIds`, and the values of one target.
const MOST_IDS: usize = 50;
const MOST_TARGETS: usize = 5;
const LONGEST_COMMENT: usize = 100;
/// Seconds a command may wait for its agent (service model).
const DELIVERY: std::ops::RangeInclusive<u32> = 30..=2_592_000;
/// What the service assumes for it.
const DELIVERY_DEFAULT: u32 = 3_600;
/// The document's default for `executionTimeout`, in seconds.
const EXECUTION_DEFAULT: u32 = 3_600;
/// The document's pattern for `executionTimeout` allows so many seconds.
const EXECUTION: std::ops::RangeInclusive<u32> = 1..=172_800;
/// The document's size together with its parameters' (`CreateDocument`: 64 KB).
const LARGEST: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SendCommand {
    document_name: Option<String>,
    document_version: Option<String>,
    instance_ids: Option<Vec<String>>,
    targets: Option<Vec<Target>>,
    parameters: Option<Map<String, Value>>,
    comment: Option<String>,
    timeout_seconds: Option<u32>,
    max_concurrency: Option<String>,
    max_errors: Option<String>,
    // What cannot be done truly yet.
    #[serde(rename = "OutputS3BucketName")]
    output_s3_bucket_name: Option<String>,
    #[serde(rename = "OutputS3KeyPrefix")]
    output_s3_key_prefix: Option<String>,
    cloud_watch_output_config: Option<Value>,
    service_role_arn: Option<String>,
    notification_config: Option<Value>,
    alarm_configuration: Option<Value>,
    document_hash: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CancelCommand {
    command_id: Option<String>,
    #[serde(default)]
    instance_ids: Vec<String>,
}

impl Ssm {
    pub(super) fn send_command(&self, request: SendCommand) -> Result<Value, Refusal> {
        let order = order(request)?;
        let id = request_id();
        let body = self.change_book(|book, now| {
            let recipients = if order.targets.is_empty() {
                self.by_id(book, &order.instance_ids)?
            } else {
                self.by_target(book, &order.targets)
            };
            let command = book.send(id, order, recipients, now);
            log::line(format_args!("command {} to {}", command.id, names(command)));
            Ok(json!({"Command": command_json(command)}))
        })?;
        Ok(body)
    }

    pub(super) fn cancel_command(&self, request: &CancelCommand) -> Result<Value, Refusal> {
        let id = required(request.command_id.as_deref(), "commandId")?;
        check_ids(&request.instance_ids, "instanceIds")?;
        self.change_book(|book, _| {
            let Some(command) = book.command(id) else {
                return Err(Refusal::new("InvalidCommandId", format!("no command {id}")));
            };
            let strangers: Vec<_> =
                request.instance_ids.iter().filter(|i| command.invocation(i).is_none()).collect();
            if !strangers.is_empty() {
                return Err(Refusal::new(
                    "InvalidInstanceId",
                    format!("not sent to {strangers:?}"),
                ));
            }
            log::line(format_args!("command {id} is to be cancelled"));
            book.cancel(id, &request.instance_ids);
            Ok(json!({}))
        })
    }

    /// The named instances; all have to be managed ones.
    fn by_id(&self, book: &Book, ids: &[String]) -> Result<Vec<Recipient>, Refusal> {
        let recipients: Vec<_> = ids.iter().map(|id| self.recipient(book, id)).collect();
        let strangers: Vec<&str> = recipients
            .iter()
            .filter(|recipient| !recipient.managed)
            .map(|recipient| recipient.instance_id.as_str())
            .collect();
        if strangers.is_empty() {
            return Ok(recipients);
        }
        // AWS names the ids of the request and the account; the cause is the same: not registered, or not running.
        let message =
            format!("Instances [[{}]] not in a valid state for account", strangers.join(", "));
        Err(Refusal::new("InvalidInstanceId", message))
    }

    /// Managed instances that have all the tags, and named ones whether they are managed or not.
    fn by_target(&self, book: &Book, targets: &[Target]) -> Vec<Recipient> {
        let named = targets.iter().find(|target| target.key == "InstanceIds");
        let candidates: Vec<String> = match named {
            Some(target) => target.values.clone(),
            None => book.agents().map(|(id, _)| id.to_owned()).collect(),
        };
        let mut seen = BTreeSet::new();
        candidates
            .iter()
            .filter(|id| seen.insert(id.as_str()))
            .filter(|id| targets.iter().all(|target| self.matches(id, target)))
            .map(|id| self.recipient(book, id))
            .collect()
    }

    fn matches(&self, id: &str, target: &Target) -> bool {
        if target.key == "InstanceIds" {
            return true;
        }
        let Some(host) = self.hosts.by_instance(id) else { return false };
        match target.key.strip_prefix("tag:") {
            Some(key) => host.tags.get(key).is_some_and(|value| target.values.contains(value)),
            None => target.values.iter().any(|key| host.tags.contains_key(key)),
        }
    }

    fn recipient(&self, book: &Book, id: &str) -> Recipient {
        let host = self.hosts.by_instance(id);
        Recipient {
            instance_id: id.to_owned(),
            name: host.and_then(|host| host.name).unwrap_or_default(),
            managed: book.agent(id).is_some(),
        }
    }
}

fn names(command: &super::command::Command) -> String {
    let ids: Vec<&str> = command.invocations.iter().map(|i| i.instance_id.as_str()).collect();
    if ids.is_empty() { "nobody".to_owned() } else { ids.join(", ") }
}

/// What is asked for, checked against the service's model and the document.
fn order(request: SendCommand) -> Result<Order, Refusal> {
    refuse_what_cannot_be(&request)?;
    check_document(request.document_name.as_deref(), request.document_version.as_deref())?;
    let comment = request.comment.unwrap_or_default();
    if comment.chars().count() > LONGEST_COMMENT {
        let must = "Member must have length less than or equal to 100";
        return Err(Refusal::constraint(comment, "comment", must));
    }
    let delivery_timeout = request.timeout_seconds.unwrap_or(DELIVERY_DEFAULT);
    if !DELIVERY.contains(&delivery_timeout) {
        let must = if delivery_timeout < *DELIVERY.start() {
            "Member must have value greater than or equal to 30"
        } else {
            "Member must have value less than or equal to 2592000"
        };
        return Err(Refusal::constraint(delivery_timeout, "timeoutSeconds", must));
    }
    let instance_ids = request.instance_ids.unwrap_or_default();
    check_ids(&instance_ids, "instanceIds")?;
    let targets = request.targets.unwrap_or_default();
    check_targets(&targets)?;
    if instance_ids.is_empty() == targets.is_empty() {
        let message = "Exactly one of InstanceIds and Targets has to be specified";
        return Err(Refusal::new("ValidationException", message));
    }
    let parameters = request.parameters.unwrap_or_default();
    let Document { commands, working_directory, execution_timeout } = document(&parameters)?;
    Ok(Order {
        comment,
        document_version: request.document_version.unwrap_or_else(|| "$DEFAULT".to_owned()),
        parameters,
        commands,
        working_directory,
        execution_timeout,
        delivery_timeout,
        instance_ids,
        targets,
        max_concurrency: limit(request.max_concurrency.as_deref(), 50, 1, "maxConcurrency")?,
        max_errors: limit(request.max_errors.as_deref(), 0, 0, "maxErrors")?,
    })
}

fn refuse_what_cannot_be(request: &SendCommand) -> Result<(), Refusal> {
    let text = |value: &Option<String>| value.as_ref().is_some_and(|text| !text.is_empty());
    let object = |value: &Option<Value>| {
        value.as_ref().is_some_and(|value| value.as_object().is_none_or(|map| !map.is_empty()))
    };
    let logs = request.cloud_watch_output_config.as_ref();
    let to_logs = logs.is_some_and(|config| config["CloudWatchOutputEnabled"] == Value::Bool(true));
    let wanted = [
        (text(&request.output_s3_bucket_name), "OutputS3BucketName"),
        (text(&request.output_s3_key_prefix), "OutputS3KeyPrefix"),
        (to_logs, "CloudWatchOutputConfig"),
        (text(&request.service_role_arn), "ServiceRoleArn"),
        (object(&request.notification_config), "NotificationConfig"),
        (object(&request.alarm_configuration), "AlarmConfiguration"),
        (text(&request.document_hash), "DocumentHash"),
    ];
    match wanted.into_iter().find(|(wanted, _)| *wanted) {
        Some((_, name)) => {
            Err(Refusal::not_implemented(format!("the parameter `{name}` of `SendCommand`")))
        }
        None => Ok(()),
    }
}

fn check_document(name: Option<&str>, version: Option<&str>) -> Result<(), Refusal> {
    let name = required(name, "documentName")?;
    // An ARN names it as well: arn:aws:ssm:us-east-1::document/AWS-RunShellScript.
    let name = name.rsplit_once(":document/").map_or(name, |(_, name)| name);
    if name != DOCUMENT {
        return Err(if name.starts_with("AWS") {
            Refusal::not_implemented(format!("the document `{name}`"))
        } else {
            Refusal::new("InvalidDocument", format!("Document with name {name} does not exist."))
        });
    }
    match version {
        None | Some("$DEFAULT" | "$LATEST" | "1") => Ok(()),
        Some(other) => Err(Refusal::new(
            "InvalidDocumentVersion",
            format!("{DOCUMENT} has no version {other}"),
        )),
    }
}

/// What the document makes of its parameters.
struct Document {
    commands: Vec<String>,
    working_directory: String,
    execution_timeout: u32,
}

fn document(parameters: &Map<String, Value>) -> Result<Document, Refusal> {
    let invalid = |message: String| Refusal::new("InvalidParameters", message);
    let mut commands = Vec::new();
    let mut working_directory = String::new();
    let mut execution_timeout = EXECUTION_DEFAULT;
    let mut size = 0;
    for (name, value) in parameters {
        let values: Vec<String> = Deserialize::deserialize(value).map_err(|_| {
            Refusal::new("SerializationException", format!("{name} is not a list of strings"))
        })?;
        size += name.len() + values.iter().map(String::len).sum::<usize>();
        let one = || match values.as_slice() {
            [one] => Ok(one),
            _ => Err(invalid(format!("Parameter \"{name}\" takes one value."))),
        };
        match name.as_str() {
            "commands" => commands = values,
            "workingDirectory" => one()?.clone_into(&mut working_directory),
            "executionTimeout" => {
                let text = one()?;
                execution_timeout = text
                    .parse()
                    .ok()
                    .filter(|seconds| EXECUTION.contains(seconds) && !text.starts_with(['0', '+']))
                    .ok_or_else(|| {
                        let pattern = "1 to 172800 seconds";
                        invalid(format!(
                            "Parameter \"{name}\" has invalid value: {text} ({pattern})"
                        ))
                    })?;
            }
            other => {
                let message = format!("Parameter \"{other}\" is not defined in the document.");
                return Err(invalid(message));
            }
        }
    }
    if commands.is_empty() {
        return Err(invalid("Parameter \"commands\" requires a value.".to_owned()));
    }
    if size > LARGEST {
        let message =
            format!("The size limit of a document is 64 KB; the parameters have {size} bytes.");
        return Err(Refusal::new("MaxDocumentSizeExceeded", message));
    }
    Ok(Document { commands, working_directory, execution_timeout })
}

fn check_targets(targets: &[Target]) -> Result<(), Refusal> {
    if targets.len() > MOST_TARGETS {
        let must = "Member must have length less than or equal to 5";
        return Err(Refusal::constraint(format!("{} targets", targets.len()), "targets", must));
    }
    for target in targets {
        if target.values.len() > MOST_IDS {
            let must = "Member must have length less than or equal to 50";
            return Err(Refusal::constraint(&target.key, "targets.member.values", must));
        }
        match target.key.as_str() {
            "InstanceIds" => check_ids(&target.values, "targets.member.values")?,
            "tag-key" => {}
            key if key.starts_with("tag:") && key.len() > "tag:".len() => {}
            key if key.starts_with("resource-groups:") => {
                return Err(Refusal::not_implemented(format!("the target `{key}`")));
            }
            key => {
                let message = format!("The target `{key}` is not known");
                return Err(Refusal::new("InvalidTarget", message));
            }
        }
    }
    Ok(())
}

/// Count, shape and uniqueness of instance ids.
pub(super) fn check_ids(ids: &[String], at: &str) -> Result<(), Refusal> {
    if ids.len() > MOST_IDS {
        let must = "Member must have length less than or equal to 50";
        return Err(Refusal::constraint(format!("{} ids", ids.len()), at, must));
    }
    let mut seen = BTreeSet::new();
    for id in ids {
        check_id(id, at)?;
        if !seen.insert(id) {
            return Err(Refusal::new("DuplicateInstanceId", format!("{id} is there twice")));
        }
    }
    Ok(())
}

pub(super) fn check_id(id: &str, at: &str) -> Result<(), Refusal> {
    let word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let fits = match (id.strip_prefix("i-"), id.strip_prefix("mi-")) {
        (Some(rest), _) => [8, 17].contains(&rest.len()) && word(rest),
        (None, Some(rest)) => rest.len() == 17 && word(rest),
        (None, None) => false,
    };
    if fits {
        return Ok(());
    }
    let must =
        r"Member must satisfy regular expression pattern: (^i-(\w{8}|\w{17})$)|(^mi-\w{17}$)";
    Err(Refusal::constraint(id, at, must))
}

pub(super) fn required<'a>(value: Option<&'a str>, at: &str) -> Result<&'a str, Refusal> {
    value.ok_or_else(|| Refusal::constraint("null", at, "Member must not be null"))
}

/// `MaxConcurrency` and `MaxErrors`: a count of at least `least`, or 1 % (0 % where `least` is 0) to 100 %.
fn limit(text: Option<&str>, default: usize, least: usize, at: &str) -> Result<Limit, Refusal> {
    let Some(text) = text else { return Ok(Limit::Count(default)) };
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = digits == "0" || !digits.starts_with('0');
        digits.parse::<usize>().ok().filter(|n| plain && canonical && *n >= least)
    };
    let limit = match text.strip_suffix('%') {
        Some(digits) => number(digits).filter(|n| *n <= 100).map(Limit::Percent),
        None => number(text).filter(|_| text.len() <= 7).map(Limit::Count),
    };
    limit.ok_or_else(|| {
        let must = "Member must satisfy regular expression pattern: a number or a percentage";
        Refusal::constraint(text, at, must)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "i-0123456789abcdef0";

    fn parse(change: impl FnOnce(&mut Value)) -> Result<Order, Refusal> {
        let mut request = json!({
            "DocumentName": "AWS-RunShellScript",
            "InstanceIds": [ID],
            "Parameters": {"commands": ["true"]},
        });
        change(&mut request);
        order(serde_json::from_value(request).expect("a request"))
    }

    #[test]
    fn the_documented_defaults_hold() {
        let order = parse(|_| ()).expect("valid");
        assert_eq!(order.delivery_timeout, 3_600);
        assert_eq!(order.execution_timeout, 3_600);
        assert_eq!(order.max_concurrency, Limit::Count(50));
        assert_eq!(order.max_errors, Limit::Count(0));
        assert_eq!(order.document_version, "$DEFAULT");
    }

    #[test]
    fn what_is_not_allowed_is_refused_with_awss_error() {
        let check = |code: &str, change: &dyn Fn(&mut Value)| {
            let refusal = parse(change).expect_err(code);
            assert_eq!(refusal.code, code, "{}", refusal.message);
        };
        let set = |key: &'static str, value: Value| {
            move |request: &mut Value| {
                request[key] = value.clone();
            }
        };
        check("ValidationException", &set("Comment", "x".repeat(101).into()));
        check("ValidationException", &set("TimeoutSeconds", 29.into()));
        check("ValidationException", &set("TimeoutSeconds", 2_592_001.into()));
        check("ValidationException", &set("InstanceIds", json!([])));
        check("ValidationException", &set("InstanceIds", json!(["i-1"])));
        check("ValidationException", &set("InstanceIds", json!(["mi-01234567"])));
        let many: Vec<_> = (0..51).map(|n| format!("i-{n:017}")).collect();
        check("ValidationException", &set("InstanceIds", json!(many)));
        check("DuplicateInstanceId", &set("InstanceIds", json!([ID, ID])));
        check("ValidationException", &set("Targets", json!([{"Key": "tag:a", "Values": ["b"]}])));
        check("ValidationException", &set("MaxConcurrency", "0".into()));
        check("ValidationException", &set("MaxConcurrency", "101%".into()));
        check("ValidationException", &set("MaxErrors", "+1".into()));
        check("ValidationException", &set("DocumentName", Value::Null));
        check("InvalidDocument", &set("DocumentName", "mine".into()));
        check("InvalidDocumentVersion", &set("DocumentVersion", "7".into()));
        check("NotImplemented", &set("DocumentName", "AWS-RunAnsiblePlaybook".into()));
        check("NotImplemented", &set("OutputS3BucketName", "bucket".into()));
        check(
            "NotImplemented",
            &set("CloudWatchOutputConfig", json!({"CloudWatchOutputEnabled": true})),
        );
        check("NotImplemented", &set("NotificationConfig", json!({"NotificationArn": "arn"})));
        let parameters = |parameters: Value| set("Parameters", parameters);
        check("InvalidParameters", &parameters(json!({})));
        check("InvalidParameters", &parameters(json!({"commands": []})));
        check("InvalidParameters", &parameters(json!({"commands": ["true"], "shell": ["bash"]})));
        for bad in ["0", "172801", "1h", "+5", ""] {
            let value = json!({"commands": ["true"], "executionTimeout": [bad]});
            check("InvalidParameters", &parameters(value));
        }
        check("SerializationException", &parameters(json!({"commands": "true"})));
    }

    #[test]
    fn sixty_four_kilobytes_are_the_limit_of_all_parameters_together() {
        let with = |bytes: usize| {
            parse(|request| request["Parameters"]["commands"][0] = "x".repeat(bytes).into())
        };
        let name = "commands".len();
        assert!(with(LARGEST - name).is_ok());
        let refusal = with(LARGEST - name + 1).expect_err("too large");
        assert_eq!(refusal.code, "MaxDocumentSizeExceeded");
        assert!(refusal.message.contains("65537"), "{}", refusal.message);
    }

    #[test]
    fn targets_have_their_own_limits() {
        let with = |targets: Value| {
            parse(|request| {
                request["InstanceIds"] = Value::Null;
                request["Targets"] = targets;
            })
            .map(|order| order.targets.len())
            .map_err(|refusal| refusal.code)
        };
        let target = json!({"Key": "tag:role", "Values": ["sip"]});
        assert_eq!(with(json!(vec![target.clone(); 5])), Ok(5));
        assert_eq!(with(json!(vec![target; 6])), Err("ValidationException"));
        let values = vec!["x"; 51];
        assert_eq!(with(json!([{"Key": "tag:a", "Values": values}])), Err("ValidationException"));
        assert_eq!(with(json!([{"Key": "role", "Values": ["x"]}])), Err("InvalidTarget"));
        let group = json!([{"Key": "resource-groups:Name", "Values": ["x"]}]);
        assert_eq!(with(group), Err("NotImplemented"));
    }
}
