//! `SendCommand` and `CancelCommand`.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::command::{Bucket, Limit, Order, Recipient, Target};
use super::document::{self, Document, Source};
use super::list::command_json;
use super::refusal::Refusal;
use super::rights::{may, tag_of};
use super::status::End;
use super::{Ssm, book::Book};
use crate::ec2::answers::request_id;
use crate::hosts::HostState;
use crate::log;
use crate::rights::Caller;

/// `InstanceIds`, and the values of one target.
const MOST_IDS: usize = 50;
const MOST_TARGETS: usize = 5;
/// Characters of a target's key.
const LONGEST_KEY: usize = 163;
const LONGEST_COMMENT: usize = 100;
/// Seconds a command may wait for its agent (service model).
const DELIVERY: std::ops::RangeInclusive<u32> = 30..=2_592_000;
/// What the service assumes for it.
const DELIVERY_DEFAULT: u32 = 3_600;

#[derive(Debug, Clone, Deserialize)]
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
    #[serde(rename = "OutputS3BucketName")]
    output_s3_bucket_name: Option<String>,
    #[serde(rename = "OutputS3KeyPrefix")]
    output_s3_key_prefix: Option<String>,
    cloud_watch_output_config: Option<CloudWatch>,
    // What cannot be done truly yet.
    service_role_arn: Option<String>,
    notification_config: Option<Value>,
    alarm_configuration: Option<Value>,
    document_hash: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CloudWatch {
    cloud_watch_log_group_name: Option<String>,
    #[serde(default)]
    cloud_watch_output_enabled: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CancelCommand {
    command_id: Option<String>,
    #[serde(default)]
    instance_ids: Vec<String>,
}

impl Ssm {
    pub(super) async fn send_command(
        &self,
        request: SendCommand,
        caller: &Caller,
    ) -> Result<Value, Refusal> {
        let document = self.document(&request, caller).await?;
        let order = order(request, document.as_ref())?;
        // Without a document that runs here there are no steps; without steps for this system it does not fit.
        let fits = Document::fits_linux(&order.steps);
        let id = request_id();
        self.change_book(|book, now| {
            let mut recipients = if order.targets.is_empty() {
                self.by_id(book, &order.instance_ids)?
            } else {
                self.by_target(book, &order.targets)
            };
            for recipient in &mut recipients {
                match self.may_send(caller, &recipient.instance_id) {
                    Ok(()) => {}
                    // As on AWS: named instances are checked with the request, others when their turn comes.
                    Err(refusal) if order.targets.is_empty() => return Err(refusal),
                    Err(_) => recipient.refused = Some(End::AccessDenied),
                }
            }
            if !fits && order.targets.is_empty() {
                let message = format!(
                    "The document {} is not supported on the platform type Linux",
                    order.document
                );
                return Err(Refusal::new("UnsupportedPlatformType", message));
            }
            for recipient in recipients.iter_mut().filter(|_| !fits) {
                recipient.refused.get_or_insert(End::InvalidPlatform);
            }
            let command = book.send(id, order, recipients, now);
            for invocation in &command.invocations {
                log::line(format_args!(
                    "{}: command {} is sent",
                    invocation.instance_id, command.id
                ));
            }
            if command.invocations.is_empty() {
                log::line(format_args!("command {} is sent to nobody", command.id));
            }
            Ok(json!({"Command": command_json(command)}))
        })
    }

    fn may_send(&self, caller: &Caller, instance_id: &str) -> Result<(), Refusal> {
        let host = self.hosts.by_instance(instance_id);
        let (region, account) = (&self.region, caller.account());
        let resource = format!("arn:aws:ec2:{region}:{account}:instance/{instance_id}");
        may(caller, "ssm:SendCommand", &resource, &|key| tag_of(host.as_ref(), key))
    }

    /// The document that a command names; `None` for one that is known to be for other systems.
    async fn document(
        &self,
        request: &SendCommand,
        caller: &Caller,
    ) -> Result<Option<Document>, Refusal> {
        let name = required(request.document_name.as_deref(), "documentName")?;
        // An ARN names it as well: arn:aws:ssm:us-east-1::document/AWS-RunShellScript.
        let name = name.rsplit_once(":document/").map_or(name, |(_, name)| name);
        let version = request.document_version.as_deref().unwrap_or("$DEFAULT");
        let source = document::source(name)?;
        // Amazon's documents belong to no account.
        let owner = if source == Source::Account { caller.account() } else { "" };
        let resource = format!("arn:aws:ssm:{}:{owner}:document/{name}", self.region);
        may(caller, "ssm:SendCommand", &resource, &|_| None)?;
        match source {
            Source::Own | Source::ForWindows
                if !["$DEFAULT", "$LATEST", "1"].contains(&version) =>
            {
                let message = format!("{name} has no version {version}");
                Err(Refusal::new("InvalidDocumentVersion", message))
            }
            Source::Own => Ok(Some(Document::run_shell_script())),
            Source::ForWindows => Ok(None),
            Source::Account => self.account_document(name, version).await.map(Some),
        }
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
            .filter(|recipient| recipient.refused.is_some())
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
        // A stopped instance can be sent to; the command waits.
        let there = host.as_ref().is_some_and(|host| {
            !matches!(host.state, HostState::ShuttingDown | HostState::Terminated)
        });
        let managed = there && book.agent(id).is_some();
        Recipient {
            instance_id: id.to_owned(),
            name: host.and_then(|host| host.name).unwrap_or_default(),
            refused: (!managed).then_some(End::Undeliverable),
        }
    }
}

/// What is asked for, checked against the service's model and the document.
fn order(request: SendCommand, document: Option<&Document>) -> Result<Order, Refusal> {
    refuse_what_cannot_be(&request)?;
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
    let document_name = required(request.document_name.as_deref(), "documentName")?.to_owned();
    let parameters = request.parameters.unwrap_or_default();
    let steps = match document {
        Some(document) => document.steps(&parameters)?,
        None => Vec::new(),
    };
    let log_group =
        log_group(&request.cloud_watch_output_config.unwrap_or_default(), &document_name)?;
    Ok(Order {
        comment,
        log_group,
        document: document_name,
        document_version: request.document_version.unwrap_or_else(|| "$DEFAULT".to_owned()),
        parameters,
        steps,
        delivery_timeout,
        bucket: bucket(request.output_s3_bucket_name, request.output_s3_key_prefix)?,
        instance_ids,
        targets,
        max_concurrency: limit(request.max_concurrency.as_deref(), 50, 1, "maxConcurrency")?,
        max_errors: limit(request.max_errors.as_deref(), 0, 0, "maxErrors")?,
    })
}

/// `OutputS3BucketName` (3 to 63 characters) and `OutputS3KeyPrefix` (at most 500).
fn bucket(name: Option<String>, prefix: Option<String>) -> Result<Option<Bucket>, Refusal> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !(3..=63).contains(&name.len()) || !name.chars().all(allowed) {
        return Err(Refusal::new("InvalidOutputFolder", format!("{name} is no name of a bucket")));
    }
    let prefix = prefix.unwrap_or_default();
    if prefix.len() > 500 {
        let must = "Member must have length less than or equal to 500";
        return Err(Refusal::constraint(prefix, "outputS3KeyPrefix", must));
    }
    Ok(Some(Bucket { name, prefix }))
}

/// The group that is named, else one for the document.
fn log_group(config: &CloudWatch, document: &str) -> Result<Option<String>, Refusal> {
    if !config.cloud_watch_output_enabled {
        return Ok(None);
    }
    let named = config.cloud_watch_log_group_name.clone().filter(|name| !name.is_empty());
    let group = named.unwrap_or_else(|| format!("/aws/ssm/{}", document.replace(':', ".")));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./#".contains(c);
    if group.len() > 512 || !group.chars().all(allowed) {
        let must = r"Member must satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+";
        let at = "cloudWatchOutputConfig.cloudWatchLogGroupName";
        return Err(Refusal::constraint(group, at, must));
    }
    Ok(Some(group))
}

fn refuse_what_cannot_be(request: &SendCommand) -> Result<(), Refusal> {
    let text = |value: &Option<String>| value.as_ref().is_some_and(|text| !text.is_empty());
    let object = |value: &Option<Value>| {
        value.as_ref().is_some_and(|value| value.as_object().is_none_or(|map| !map.is_empty()))
    };
    let wanted = [
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

fn check_targets(targets: &[Target]) -> Result<(), Refusal> {
    if targets.len() > MOST_TARGETS {
        let must = "Member must have length less than or equal to 5";
        return Err(Refusal::constraint(format!("{} targets", targets.len()), "targets", must));
    }
    for target in targets {
        if target.key.chars().count() > LONGEST_KEY {
            let must = "Member must have length less than or equal to 163";
            return Err(Refusal::constraint(&target.key, "targets.member.key", must));
        }
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
        let request = serde_json::from_value(request).expect("a request");
        order(request, Some(&Document::run_shell_script()))
    }

    #[test]
    fn the_documented_defaults_hold() {
        let order = parse(|_| ()).expect("valid");
        assert_eq!(order.delivery_timeout, 3_600);
        assert_eq!(order.steps[0].timeout, "3600");
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
        check("InvalidOutputFolder", &set("OutputS3BucketName", "no/bucket".into()));
        let logs = json!({"CloudWatchOutputEnabled": true, "CloudWatchLogGroupName": "no:group"});
        check("ValidationException", &set("CloudWatchOutputConfig", logs));
        check("NotImplemented", &set("NotificationConfig", json!({"NotificationArn": "arn"})));
        let parameters = |parameters: Value| set("Parameters", parameters);
        check("InvalidParameters", &parameters(json!({})));
        check("InvalidParameters", &parameters(json!({"commands": []})));
        check("InvalidParameters", &parameters(json!({"commands": ["true"], "shell": ["bash"]})));
        check("SerializationException", &parameters(json!({"commands": "true"})));
    }

    #[test]
    fn output_goes_where_it_is_asked_for() {
        let order = parse(|request| {
            request["OutputS3BucketName"] = "bucket".into();
            request["OutputS3KeyPrefix"] = "a/b".into();
            request["CloudWatchOutputConfig"] = json!({"CloudWatchOutputEnabled": true});
        })
        .expect("valid");
        assert_eq!(order.bucket, Some(Bucket { name: "bucket".into(), prefix: "a/b".into() }));
        assert_eq!(order.log_group.as_deref(), Some("/aws/ssm/AWS-RunShellScript"));
        let order = parse(|request| {
            request["CloudWatchOutputConfig"] = json!({"CloudWatchLogGroupName": "mine"});
        });
        assert_eq!(order.expect("valid").log_group, None, "named, and not enabled");
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
