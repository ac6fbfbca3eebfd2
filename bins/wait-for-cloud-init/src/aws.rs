//! The calls to EC2 and Systems Manager, in batches as large as the services take.

use crate::host::{Agent, Checks, Instance};
use crate::quote;
use aws_sdk_ec2::types::{Filter, InstanceStatus, SummaryStatus};
use aws_sdk_ssm::types::{CommandInvocation, InstanceInformationStringFilter, PingStatus};
use deploy_aws::{Error, Pages, SdkConfig};
use jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// DescribeInstanceStatus takes 100 explicit IDs, a filter of DescribeInstances 200 values.
const EC2_IDS: usize = 100;
/// A page of DescribeInstanceInformation; SendCommand and CancelCommand take as many IDs.
pub(crate) const SSM_IDS: usize = 50;
/// The agent has to fetch the probe within this time; 30 s is the least that Systems Manager takes.
const DELIVERY: Duration = Duration::from_secs(30);

/// So many last lines of a console are kept.
const CONSOLE_LINES: usize = 12;

/// How a probe stands on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) id: String,
    pub(crate) state: InvocationState,
    pub(crate) output: String,
}

/// What the status of an invocation means here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InvocationState {
    Waiting,
    Ended,
    /// It never arrived, or its host went away.
    Lost(String),
    /// It arrived and failed.
    Failed(String),
}

/// Clients, and how many calls were made.
#[derive(Debug)]
pub(crate) struct Aws {
    ec2: aws_sdk_ec2::Client,
    ssm: aws_sdk_ssm::Client,
    calls: std::cell::Cell<u32>,
}

impl Aws {
    pub(crate) fn new(config: &SdkConfig) -> Self {
        Self {
            ec2: aws_sdk_ec2::Client::new(config),
            ssm: aws_sdk_ssm::Client::new(config),
            calls: std::cell::Cell::new(0),
        }
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls.get()
    }

    fn count(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    /// The instances that EC2 knows. A filter, because an ID that EC2 does not know would fail the call for all.
    pub(crate) async fn instances(
        &self,
        ids: &[String],
    ) -> Result<HashMap<String, Instance>, Error> {
        let mut found = HashMap::new();
        for some in ids.chunks(EC2_IDS) {
            let filter =
                Filter::builder().name("instance-id").set_values(Some(some.to_vec())).build();
            let mut next = None;
            let mut pages = Pages::of("ec2:DescribeInstances");
            loop {
                self.count();
                let request =
                    self.ec2.describe_instances().filters(filter.clone()).set_next_token(next);
                let answer = request
                    .send()
                    .await
                    .map_err(|e| Error::from_sdk("ec2:DescribeInstances", e))?;
                for instance in
                    answer.reservations().iter().flat_map(|reservation| reservation.instances())
                {
                    if let Some(id) = instance.instance_id() {
                        found.insert(id.to_owned(), facts(instance));
                    }
                }
                next = pages.next(answer.next_token())?;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// State and status checks. Instances that EC2 does not know right now are left out.
    pub(crate) async fn statuses(
        &self,
        ids: &[String],
    ) -> Result<HashMap<String, (String, Checks)>, Error> {
        let mut found = HashMap::new();
        for some in ids.chunks(EC2_IDS) {
            let operation = "ec2:DescribeInstanceStatus";
            let (mut next, mut pages) = (None, Pages::of(operation));
            loop {
                self.count();
                let request = self.ec2.describe_instance_status().include_all_instances(true);
                let request = request.set_instance_ids(Some(some.to_vec())).set_next_token(next);
                let answer = request.send().await.map_err(|e| Error::from_sdk(operation, e));
                let answer = match answer {
                    // EC2 is eventually consistent: asked again in the next round.
                    Err(error) if error.code() == Some("InvalidInstanceID.NotFound") => break,
                    answer => answer?,
                };
                for status in answer.instance_statuses() {
                    let state = status
                        .instance_state()
                        .and_then(|state| state.name())
                        .map(|name| name.as_str());
                    if let (Some(id), Some(state)) = (status.instance_id(), state) {
                        found.insert(id.to_owned(), (state.to_owned(), checks(status)));
                    }
                }
                next = pages.next(answer.next_token())?;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// The last lines of an instance's console. Only instances on Nitro have the newest at once; the others what EC2
    /// kept of the last boot or shutdown.
    pub(crate) async fn console(&self, id: &str) -> Result<Vec<String>, Error> {
        let ask = |latest: bool| {
            self.count();
            self.ec2.get_console_output().instance_id(id).set_latest(latest.then_some(true)).send()
        };
        let named = |error| Error::from_sdk("ec2:GetConsoleOutput", error);
        let answer = match ask(true).await.map_err(named) {
            Err(Error::Refused { .. }) => ask(false).await.map_err(named)?,
            answer => answer?,
        };
        let bytes = answer
            .output()
            .and_then(|text| aws_smithy_types::base64::decode(text).ok())
            .unwrap_or_default();
        Ok(quote::last_lines(&String::from_utf8_lossy(&bytes), CONSOLE_LINES))
    }

    /// The agents that Systems Manager knows.
    pub(crate) async fn agents(&self, ids: &[String]) -> Result<HashMap<String, Agent>, Error> {
        let mut found = HashMap::new();
        for some in ids.chunks(SSM_IDS) {
            match self.some_agents(some, &mut found).await {
                // One ID that Systems Manager refuses must not hide the others.
                Err(error) if error.code() == Some("InvalidInstanceId") => {
                    for id in some {
                        match self.some_agents(std::slice::from_ref(id), &mut found).await {
                            Err(error) if error.code() == Some("InvalidInstanceId") => {}
                            answer => answer?,
                        }
                    }
                }
                answer => answer?,
            }
        }
        Ok(found)
    }

    async fn some_agents(
        &self,
        ids: &[String],
        found: &mut HashMap<String, Agent>,
    ) -> Result<(), Error> {
        let filter = InstanceInformationStringFilter::builder()
            .key("InstanceIds")
            .set_values(Some(ids.to_vec()))
            .build()
            .expect("key and values are set");
        let mut next = None;
        let mut pages = Pages::of("ssm:DescribeInstanceInformation");
        loop {
            self.count();
            let request = self
                .ssm
                .describe_instance_information()
                .filters(filter.clone())
                .set_next_token(next);
            let answer = request.max_results(50).send().await;
            let answer =
                answer.map_err(|e| Error::from_sdk("ssm:DescribeInstanceInformation", e))?;
            for info in answer.instance_information_list() {
                let Some(id) = info.instance_id() else { continue };
                let agent = match info.ping_status() {
                    Some(PingStatus::Online) => Agent::Online,
                    _ => Agent::Lost { since: info.last_ping_date_time().and_then(timestamp) },
                };
                found.insert(id.to_owned(), agent);
            }
            next = pages.next(answer.next_token())?;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Sends a probe and returns its command ID. `Ok(None)` when Systems Manager does not take one of the IDs now.
    pub(crate) async fn send(
        &self,
        ids: &[String],
        script: &str,
        execution: Duration,
    ) -> Result<Option<String>, Error> {
        self.count();
        let answer = self
            .ssm
            .send_command()
            .document_name("AWS-RunShellScript")
            .comment("wait-for-cloud-init: read-only probe")
            .set_instance_ids(Some(ids.to_vec()))
            .parameters("commands", vec![script.to_owned()])
            .parameters("executionTimeout", vec![execution.as_secs().to_string()])
            .timeout_seconds(i32::try_from(DELIVERY.as_secs()).unwrap_or(i32::MAX))
            .max_concurrency("100%")
            .max_errors("100%")
            .send()
            .await;
        match answer.map_err(|e| Error::from_sdk("ssm:SendCommand", e)) {
            Ok(answer) => {
                Ok(answer.command().and_then(|command| command.command_id()).map(str::to_owned))
            }
            Err(error) if error.code() == Some("InvalidInstanceId") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How a probe stands on each of its hosts; empty while Systems Manager does not know the command yet.
    pub(crate) async fn invocations(&self, command: &str) -> Result<Vec<Invocation>, Error> {
        let mut found = Vec::new();
        let mut next = None;
        let mut pages = Pages::of("ssm:ListCommandInvocations");
        loop {
            self.count();
            let request = self.ssm.list_command_invocations().command_id(command).details(true);
            let answer = request.max_results(50).set_next_token(next).send().await;
            let answer = match answer.map_err(|e| Error::from_sdk("ssm:ListCommandInvocations", e))
            {
                Err(error) if error.code() == Some("InvalidCommandId") => return Ok(found),
                answer => answer?,
            };
            found.extend(answer.command_invocations().iter().filter_map(invocation));
            next = pages.next(answer.next_token())?;
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// The first 24,000 characters of one host's output, for one that the list cut at 2,500.
    pub(crate) async fn whole_output(&self, command: &str, id: &str) -> Result<String, Error> {
        self.count();
        let request = self.ssm.get_command_invocation().command_id(command).instance_id(id);
        let answer =
            request.send().await.map_err(|e| Error::from_sdk("ssm:GetCommandInvocation", e))?;
        Ok(answer.standard_output_content().unwrap_or_default().to_owned())
    }

    /// Asks the hosts to stop the probe.
    pub(crate) async fn cancel(&self, command: &str) -> Result<(), Error> {
        self.count();
        let answer = self.ssm.cancel_command().command_id(command).send().await;
        answer.map(drop).map_err(|e| Error::from_sdk("ssm:CancelCommand", e))
    }
}

fn facts(instance: &aws_sdk_ec2::types::Instance) -> Instance {
    let state =
        instance.state().and_then(|state| state.name()).map_or("unknown", |name| name.as_str());
    let message = instance.state_reason().and_then(|reason| reason.message());
    let reason = message.or(instance.state_transition_reason()).filter(|reason| !reason.is_empty());
    Instance {
        state: state.to_owned(),
        reason: reason.map(str::to_owned),
        launched_at: instance.launch_time().and_then(timestamp),
        profile: instance
            .iam_instance_profile()
            .and_then(|profile| profile.arn())
            .map(|arn| arn.rsplit('/').next().unwrap_or(arn).to_owned()),
        subnet: instance.subnet_id().map(str::to_owned),
        zone: instance
            .placement()
            .and_then(|placement| placement.availability_zone())
            .map(str::to_owned),
    }
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceStatusSummary.html>.
fn checks(status: &InstanceStatus) -> Checks {
    let summary = |name: &str, found: Option<&SummaryStatus>| {
        let found = found.map_or("unknown", SummaryStatus::as_str);
        (!matches!(found, "ok" | "not-applicable")).then(|| format!("{name} {found}"))
    };
    let mut waiting: Vec<String> = [
        summary("instance", status.instance_status().and_then(|summary| summary.status())),
        summary("system", status.system_status().and_then(|summary| summary.status())),
    ]
    .into_iter()
    .flatten()
    .collect();
    // Left out by EC2 for instances without volumes, and by regions that do not have the check.
    let volumes = status
        .attached_ebs_status()
        .and_then(|summary| summary.status())
        .map(|status| status.as_str());
    waiting.extend(
        volumes
            .filter(|found| !matches!(*found, "ok" | "not-applicable"))
            .map(|found| format!("volumes {found}")),
    );
    if waiting.is_empty() { Checks::Ok } else { Checks::Waiting(waiting.join(", ")) }
}

/// Status details as in <https://docs.aws.amazon.com/systems-manager/latest/userguide/monitor-commands.html>.
fn invocation(invocation: &CommandInvocation) -> Option<Invocation> {
    let status = invocation.status().map_or("", |status| status.as_str());
    let details = invocation
        .status_details()
        .filter(|text| !text.is_empty())
        .unwrap_or(status)
        .replace(' ', "");
    let plugin = invocation.command_plugins().first();
    let output = plugin.and_then(|plugin| plugin.output()).unwrap_or_default().to_owned();
    let state = match details.as_str() {
        "Success" => InvocationState::Ended,
        "Pending" | "InProgress" | "Delayed" | "Cancelling" | "" => InvocationState::Waiting,
        "DeliveryTimedOut" | "Undeliverable" | "Terminated" | "Canceled" | "Cancelled"
        | "ExecutionTimedOut" | "TimedOut" => InvocationState::Lost(details),
        _ => {
            let code = plugin
                .map(|plugin| format!(", exit status {}", plugin.response_code()))
                .unwrap_or_default();
            InvocationState::Failed(format!("{details}{code}"))
        }
    };
    Some(Invocation { id: invocation.instance_id()?.to_owned(), state, output })
}

fn timestamp(time: &aws_sdk_ssm::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::from_second(time.secs()).ok()
}
