//! Systems Manager: the five calls that this tool makes, and when one may be made again.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::primitives::{DateTime, DateTimeFormat};
use aws_sdk_ssm::types::{
    CloudWatchOutputConfig, CommandFilter, CommandFilterKey, CommandInvocation,
    CommandInvocationStatus, InstanceInformation, InstanceInformationStringFilter, PingStatus,
};
use deploy_aws::{Error, Pages};
use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep};

/// SendCommand and CancelCommand take at most 50 instance IDs.
pub(crate) const IDS_PER_CALL: usize = 50;
const DOCUMENT: &str = "AWS-RunShellScript";
const SEND_ATTEMPTS: u32 = 5;
/// Just after SendCommand an invocation may not exist yet; both answers become right within seconds.
pub(crate) const CONSISTENCY: Duration = Duration::from_secs(30);

/// How far back a command whose reply was lost is searched: far more than clocks differ and than a retry takes.
const SEARCHED: Duration = Duration::from_secs(24 * 3600);
/// Close to the deadline polls are half a second apart and not retried by the SDK.
const SILENCE: Duration = Duration::from_secs(2);

/// Why an instance that Systems Manager does not list cannot take a command.
pub(crate) const NOT_REGISTERED: &str = "not registered with Systems Manager";

/// The code for an ID that Systems Manager does not know, or whose instance does not run, among others or alone:
/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html>.
pub(crate) const UNKNOWN_ID: &str = "InvalidInstanceId";

/// What is asked of some hosts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) ids: &'a [String],
    pub(crate) script: &'a str,
    /// At most 100 characters and unique, so that a lost reply can be looked up.
    pub(crate) comment: &'a str,
    /// The agent kills the script after this; 5 to 172,800 s.
    pub(crate) execution: Duration,
    /// The command expires when it has not started after this; at least 30 s.
    pub(crate) delivery: Duration,
    /// The agents copy the output to this CloudWatch Logs group while the script runs.
    pub(crate) log_group: Option<&'a str>,
}

/// How an invocation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) id: String,
    /// AWS's status details without blanks, e.g. `InProgress`, `DeliveryTimedOut`.
    pub(crate) details: String,
    pub(crate) ended: bool,
    /// The first 2,500 characters of the output.
    pub(crate) output: String,
}

/// The calls.
#[derive(Debug, Clone)]
pub(crate) struct Ssm {
    client: Client,
    /// When AWS last answered.
    heard: Cell<Option<Instant>>,
}

impl Ssm {
    pub(crate) fn new(config: &deploy_aws::SdkConfig) -> Self {
        Self { client: Client::new(config), heard: Cell::default() }
    }

    /// Whether AWS has not answered for so long that it would not answer the next call either.
    pub(crate) fn is_silent(&self) -> bool {
        self.heard.get().is_none_or(|heard| heard.elapsed() > SILENCE)
    }

    fn hear(&self) {
        self.heard.set(Some(Instant::now()));
    }

    /// Why instances cannot take a command right now; nothing for those that can.
    pub(crate) async fn unreachable(
        &self,
        ids: &[String],
    ) -> Result<HashMap<String, String>, Error> {
        let mut reasons: HashMap<String, String> =
            ids.iter().map(|id| (id.clone(), NOT_REGISTERED.to_owned())).collect();
        let mut todo: Vec<&[String]> = ids.chunks(IDS_PER_CALL).collect();
        while let Some(some) = todo.pop() {
            match self.agents(some).await {
                Ok(agents) => {
                    for (id, away) in agents {
                        match away {
                            None => reasons.remove(&id),
                            Some(reason) => reasons.insert(id, reason),
                        };
                    }
                }
                // One unknown ID lets the question fail for all, and AWS does not always say which.
                Err(Error::Refused { code, .. }) if code == UNKNOWN_ID => {
                    let (one, other) = some.split_at(some.len() / 2);
                    todo.extend([one, other].into_iter().filter(|_| some.len() > 1));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(reasons)
    }

    /// Those that are registered, and why their agents cannot take a command.
    async fn agents(&self, ids: &[String]) -> Result<Vec<(String, Option<String>)>, Error> {
        let filter = InstanceInformationStringFilter::builder()
            .key("InstanceIds")
            .set_values(Some(ids.to_vec()))
            .build()
            .expect("key and values are set");
        let operation = "ssm:DescribeInstanceInformation";
        let (mut agents, mut next, mut pages) = (Vec::new(), None, Pages::of(operation));
        loop {
            let answer = self
                .client
                .describe_instance_information()
                .filters(filter.clone())
                .max_results(50)
                .set_next_token(next)
                .send()
                .await
                .map_err(|e| Error::from_sdk(operation, e))
                .inspect(|_| self.hear())?;
            let agent =
                |info: &InstanceInformation| Some((info.instance_id()?.to_owned(), away(info)));
            agents.extend(answer.instance_information_list().iter().filter_map(agent));
            next = pages.next(answer.next_token())?;
            if next.is_none() {
                return Ok(agents);
            }
        }
    }

    /// Sends a command once and returns its ID. When a reply is lost, the command is looked up by its comment before it
    /// is sent again.
    pub(crate) async fn send(&self, order: &Order<'_>) -> Result<String, Error> {
        let mut attempt = 1;
        loop {
            let error = match self.send_once(order).await {
                Ok(id) => return Ok(id),
                Err(error) => error,
            };
            let Error::Unavailable { .. } = error else { return Err(error) };
            if attempt == SEND_ATTEMPTS {
                return Err(error);
            }
            let jitter = f64::from(rand::random::<u8>()) / 255.0;
            sleep(Duration::from_secs_f64(
                0.4 * f64::from(1_u32 << (attempt - 1)) * (0.5 + jitter),
            ))
            .await;
            // A throttled request did nothing; after anything else it may have arrived.
            if !is_throttled(&error)
                && let Some(id) = self.find(order.comment).await?.pop()
            {
                return Ok(id);
            }
            attempt += 1;
        }
    }

    async fn send_once(&self, order: &Order<'_>) -> Result<String, Error> {
        let seconds = |time: Duration| time.as_secs().to_string();
        let output = order.log_group.map(|group| {
            CloudWatchOutputConfig::builder()
                .cloud_watch_log_group_name(group)
                .cloud_watch_output_enabled(true)
                .build()
        });
        let answer = self
            .client
            .send_command()
            .set_cloud_watch_output_config(output)
            .document_name(DOCUMENT)
            .set_instance_ids(Some(order.ids.to_vec()))
            .parameters("commands", vec![order.script.to_owned()])
            .parameters("executionTimeout", vec![seconds(order.execution)])
            .timeout_seconds(i32::try_from(order.delivery.as_secs()).unwrap_or(i32::MAX))
            .max_concurrency("100%")
            // All hosts of a command begin at once, so that it has nobody to spare; our waves do that.
            .max_errors("100%")
            .comment(order.comment)
            .customize()
            // The SDK's own retries would send it twice.
            .config_override(once())
            .send()
            .await
            .map_err(|e| Error::from_sdk("ssm:SendCommand", e))
            .inspect(|_| self.hear())?;
        let id = answer.command().and_then(|command| command.command_id());
        id.map(str::to_owned).ok_or_else(|| Error::Unavailable {
            operation: "ssm:SendCommand",
            code: None,
            message: "the answer holds no command ID".to_owned(),
        })
    }

    /// The IDs of all commands that carry this comment, the oldest last. Every page is read: filters come after pages, so
    /// that the first ones may be empty.
    pub(crate) async fn find(&self, comment: &str) -> Result<Vec<String>, Error> {
        let filter = |key, value: &str| {
            let filter = CommandFilter::builder().key(key).value(value).build();
            filter.expect("key and value are set")
        };
        let since = DateTime::from(SystemTime::now() - SEARCHED);
        let since = since.fmt(DateTimeFormat::DateTime).expect("the present has a date");
        let operation = "ssm:ListCommands";
        let (mut found, mut next, mut pages) = (Vec::new(), None, Pages::of(operation));
        loop {
            let answer = self
                .client
                .list_commands()
                .filters(filter(CommandFilterKey::DocumentName, DOCUMENT))
                .filters(filter(CommandFilterKey::InvokedAfter, &since))
                .max_results(50)
                .set_next_token(next)
                .send()
                .await
                .map_err(|e| Error::from_sdk(operation, e))
                .inspect(|_| self.hear())?;
            let ours = answer.commands().iter().filter(|one| one.comment() == Some(comment));
            found.extend(ours.filter_map(|one| one.command_id()).map(str::to_owned));
            next = pages.next(answer.next_token())?;
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// How every invocation of a command stands; hosts that are not listed yet are missing. `patiently`: with the SDK's
    /// own retries, which take seconds.
    pub(crate) async fn invocations(
        &self,
        command: &str,
        patiently: bool,
    ) -> Result<Vec<Invocation>, Error> {
        let operation = "ssm:ListCommandInvocations";
        let (mut found, mut next, mut pages) = (Vec::new(), None, Pages::of(operation));
        loop {
            let call = self
                .client
                .list_command_invocations()
                .command_id(command)
                .details(true)
                .max_results(50)
                .set_next_token(next)
                .customize();
            let call = if patiently { call } else { call.config_override(once()) };
            let answer = call.send().await.map_err(|e| Error::from_sdk(operation, e));
            // Who says that it is busy is there.
            if answer.as_ref().err().is_none_or(|error| error.code().is_some()) {
                self.hear();
            }
            let answer = answer?;
            found.extend(answer.command_invocations().iter().filter_map(invocation));
            next = pages.next(answer.next_token())?;
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// The first 24,000 characters of stdout and 8,000 of stderr of an invocation that has ended.
    pub(crate) async fn output(&self, command: &str, id: &str) -> Result<(String, String), Error> {
        let start = Instant::now();
        loop {
            let answer = self
                .client
                .get_command_invocation()
                .command_id(command)
                .instance_id(id)
                .send()
                .await
                .map_err(|e| Error::from_sdk("ssm:GetCommandInvocation", e))
                .inspect(|_| self.hear());
            match answer {
                Ok(answer) => {
                    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                    return Ok((
                        text(answer.standard_output_content()),
                        text(answer.standard_error_content()),
                    ));
                }
                Err(error)
                    if error.code() == Some("InvocationDoesNotExist")
                        && start.elapsed() < CONSISTENCY =>
                {
                    sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the agents to kill a command.
    pub(crate) async fn cancel(&self, command: &str, ids: &[String]) -> Result<(), Error> {
        self.client
            .cancel_command()
            .command_id(command)
            .set_instance_ids(Some(ids.to_vec()))
            .send()
            .await
            .map_err(|e| Error::from_sdk("ssm:CancelCommand", e))
            .inspect(|_| self.hear())?;
        Ok(())
    }
}

/// What AWS says of an agent that is not online.
fn away(info: &InstanceInformation) -> Option<String> {
    let status = info.ping_status().map_or("unknown", PingStatus::as_str);
    let heard = info.last_ping_date_time().map(|at| DateTime::from_secs(at.secs()));
    let heard = heard.and_then(|at| at.fmt(DateTimeFormat::DateTime).ok());
    let heard = heard.map(|at| format!(", last heard of at {at}")).unwrap_or_default();
    (info.ping_status() != Some(&PingStatus::Online))
        .then(|| format!("agent status {status}{heard}"))
}

fn once() -> aws_sdk_ssm::config::Builder {
    aws_sdk_ssm::config::Config::builder().retry_config(RetryConfig::disabled())
}

fn is_throttled(error: &Error) -> bool {
    error.code().is_some_and(|code| code.contains("Throttl") || code == "TooManyRequestsException")
}

fn invocation(answer: &CommandInvocation) -> Option<Invocation> {
    let status = answer.status()?;
    let ended = !matches!(
        status,
        CommandInvocationStatus::Pending
            | CommandInvocationStatus::InProgress
            | CommandInvocationStatus::Delayed
            | CommandInvocationStatus::Cancelling
    );
    let details = answer.status_details().filter(|text| !text.is_empty());
    let plugin = answer.command_plugins().first();
    Some(Invocation {
        id: answer.instance_id()?.to_owned(),
        details: details.unwrap_or(status.as_str()).replace(' ', ""),
        ended,
        output: plugin.and_then(|plugin| plugin.output()).unwrap_or_default().to_owned(),
    })
}
