//! One host on its way to ready. Pure: what was seen goes in, a finding comes out; no clock, no network.

use crate::cloud_init::{self, CloudInit};
use crate::probe::Reading;
use jiff::Timestamp;

/// So many probes may fail on a host in a row before it counts as failed.
const PROBES: u32 = 3;
/// An answer usually takes two seconds: delivery, two starts of Python, and the way back.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// Where a host is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// EC2 starts and checks it.
    Instance,
    /// Its Systems Manager agent has to come online.
    Agent,
    /// cloud-init works.
    CloudInit,
}

/// What became of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// cloud-init finished without a complaint.
    Ready,
    /// It finished, and recovered from errors.
    Degraded,
    /// It finished with errors, or died.
    Failed,
    /// It is switched off.
    Disabled,
    /// It is not installed.
    Absent,
    /// The instance was stopped.
    Stopped,
    /// The instance is gone.
    Terminated,
    /// The deadline passed and the agent had not come online.
    NeverOnline,
    /// The deadline passed in another stage.
    TimedOut,
    /// The wait ended before this host was judged.
    Pending,
}

impl Verdict {
    /// The word in reports and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Absent => "absent",
            Self::Stopped => "stopped",
            Self::Terminated => "terminated",
            Self::NeverOnline => "never-online",
            Self::TimedOut => "timed-out",
            Self::Pending => "pending",
        }
    }
}

/// A verdict, where it was reached, why, and what to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// The stage that it was reached in.
    pub stage: Stage,
    /// Why, in the words of the host or of AWS.
    pub cause: String,
    /// What to do next; empty when there is nothing to do.
    pub next: String,
}

/// What EC2 says about an instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Instance {
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping`, `stopped`.
    pub state: String,
    /// Why it is in that state, when EC2 says so.
    pub reason: Option<String>,
    /// When it was launched.
    pub launched_at: Option<Timestamp>,
    /// Its instance profile; without one the agent has no credentials of its own.
    pub profile: Option<String>,
    /// Its subnet.
    pub subnet: Option<String>,
}

/// EC2's status checks of a running instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Checks {
    /// Not seen yet.
    #[default]
    Unknown,
    /// `ok` or not applicable, all of them.
    Ok,
    /// Anything else, in words.
    Waiting(String),
}

/// The Systems Manager agent.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Agent {
    /// Systems Manager has never heard of it.
    #[default]
    NeverSeen,
    /// It takes commands.
    Online,
    /// It was there, and is not now.
    Lost {
        /// Its last sign of life.
        since: Option<Timestamp>,
    },
}

/// One host on its way.
#[derive(Debug, Clone)]
pub struct HostWait {
    /// Its name in the inventory.
    pub name: String,
    /// Its instance ID.
    pub id: String,
    /// What EC2 says; `None` while EC2 does not know it.
    pub instance: Option<Instance>,
    /// The status checks.
    pub checks: Checks,
    /// The agent.
    pub agent: Agent,
    /// When the agent was first seen online.
    pub online_at: Option<Timestamp>,
    /// The host's last answer.
    pub reading: Option<Reading>,
    /// Set once, never changed.
    pub finding: Option<Finding>,
    /// How long after the start of the wait it was judged.
    pub decided_after: Option<std::time::Duration>,
    failed_probes: u32,
    lost_probes: u32,
    trouble: Option<String>,
}

impl HostWait {
    /// A host of which nothing is known yet.
    pub fn new(name: &str, id: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: id.to_owned(),
            instance: None,
            checks: Checks::Unknown,
            agent: Agent::NeverSeen,
            online_at: None,
            reading: None,
            finding: None,
            decided_after: None,
            failed_probes: 0,
            lost_probes: 0,
            trouble: None,
        }
    }

    /// Whether EC2 says that it runs.
    pub fn is_running(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.state == "running")
    }

    /// What Systems Manager says about the agent.
    pub fn saw_agent(&mut self, agent: Agent, now: Timestamp) {
        // A list that is eventually consistent may leave out what it had before.
        if agent == Agent::NeverSeen && self.online_at.is_some() {
            self.agent = Agent::Lost { since: None };
            return;
        }
        if agent == Agent::Online {
            self.online_at.get_or_insert(now);
        }
        self.agent = agent;
    }

    /// The host answered.
    pub fn saw_reading(&mut self, reading: Reading) {
        (self.failed_probes, self.lost_probes) = (0, 0);
        self.trouble = None;
        self.reading = Some(reading);
    }

    /// The question was lost, by a reboot or a dropped agent: it is asked again.
    pub fn lost_probe(&mut self, words: &str) {
        self.lost_probes += 1;
        self.trouble = Some(format!("the last probe was lost: {words}"));
        self.agent = Agent::Lost { since: None };
    }

    /// The host could not answer the question.
    pub fn failed_probe(&mut self, words: &str) {
        self.failed_probes += 1;
        self.trouble = Some(words.to_owned());
    }

    /// How long its answer may take beyond the window that it waits for cloud-init. A reboot swallows a probe, and a
    /// host that is busy is slow: more each time that a probe was lost.
    pub fn patience(&self) -> std::time::Duration {
        PATIENCE * (1 + self.lost_probes.min(3))
    }

    /// Whether its last answer settles cloud-init's part, so that it need not be asked again.
    pub fn is_settled(&self) -> bool {
        !matches!(self.cloud_init(), None | Some(CloudInit::Running { .. }))
    }

    fn cloud_init(&self) -> Option<CloudInit> {
        self.reading.as_ref().map(cloud_init::assess)
    }

    /// Judges it if what was seen allows it.
    pub fn decide(&mut self, checks_count: bool) {
        if self.finding.is_none() {
            self.finding = self.ended().or_else(|| self.finished(checks_count));
        }
    }

    /// States that lead nowhere any more.
    fn ended(&self) -> Option<Finding> {
        let instance = self.instance.as_ref()?;
        let verdict = match instance.state.as_str() {
            "terminated" | "shutting-down" => Verdict::Terminated,
            "stopped" | "stopping" => Verdict::Stopped,
            _ => return None,
        };
        let reason =
            instance.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let next = match verdict {
            Verdict::Stopped => "start the instance and run this again",
            _ => "apply again: Terraform makes a new instance",
        };
        let cause = format!("EC2 says {}{reason}", instance.state);
        Some(Finding { verdict, stage: Stage::Instance, cause, next: next.to_owned() })
    }

    fn finished(&self, checks_count: bool) -> Option<Finding> {
        let finding = |verdict, cause: String, next: &str| {
            Some(Finding { verdict, stage: Stage::CloudInit, cause, next: next.to_owned() })
        };
        match self.cloud_init() {
            Some(CloudInit::Failed(errors)) => finding(
                Verdict::Failed,
                errors.join("; "),
                "read /var/log/cloud-init-output.log on the host",
            ),
            Some(CloudInit::Disabled(by)) => finding(
                Verdict::Disabled,
                format!("cloud-init is off: {by}"),
                "its user data never ran; see the image",
            ),
            Some(CloudInit::Absent) => finding(
                Verdict::Absent,
                "there is no cloud-init on this host".into(),
                "its user data never ran; see the image",
            ),
            Some(_) if checks_count && self.checks != Checks::Ok => None,
            Some(CloudInit::Degraded(warnings)) => finding(
                Verdict::Degraded,
                warnings.join("; "),
                "read /var/log/cloud-init.log on the host",
            ),
            Some(CloudInit::Done) => finding(Verdict::Ready, self.praise(), ""),
            Some(CloudInit::Running { .. }) | None if self.failed_probes >= PROBES => {
                let words = self.trouble.as_deref().unwrap_or("no answer");
                finding(
                    Verdict::Failed,
                    format!(
                        "the host could not say how cloud-init stands, {PROBES} times: {words}"
                    ),
                    "try `cloud-init status --long` on the host",
                )
            }
            Some(CloudInit::Running { .. }) | None => None,
        }
    }

    /// `cloud-init 22.4.2 finished 34.5 s after launch`.
    fn praise(&self) -> String {
        let Some(reading) = &self.reading else { return String::new() };
        let version = reading.version.split_whitespace().last().unwrap_or_default();
        let finished = cloud_init::timeline(reading)
            .iter()
            .filter_map(|stage| stage.finished)
            .fold(0.0, f64::max);
        let launched = self.instance.as_ref().and_then(|instance| instance.launched_at);
        let after = launched
            .map(|at| finished - at.as_duration().as_secs_f64())
            .filter(|after| *after > 0.0);
        match after {
            // After a reboot the files are of this boot, not of the launch.
            Some(after) if after < 3600.0 => {
                format!("cloud-init {version} finished {after:.0} s after launch")
            }
            _ => format!("cloud-init {version} finished"),
        }
    }

    /// The deadline has passed.
    pub fn expire(&mut self, now: Timestamp) {
        let (stage, cause, next) = self.standing(now);
        let verdict = match (stage, &self.agent) {
            (Stage::Agent, Agent::NeverSeen) => Verdict::NeverOnline,
            _ => Verdict::TimedOut,
        };
        self.finding.get_or_insert(Finding { verdict, stage, cause, next: next.to_owned() });
    }

    /// The wait ends before the deadline.
    pub fn abandon(&mut self, now: Timestamp) {
        let (stage, cause, _) = self.standing(now);
        let next = "run this again".to_owned();
        self.finding.get_or_insert(Finding { verdict: Verdict::Pending, stage, cause, next });
    }

    /// How far it came, why no further, what to do.
    fn standing(&self, now: Timestamp) -> (Stage, String, &'static str) {
        let Some(instance) = &self.instance else {
            return (
                Stage::Instance,
                "EC2 has not shown it yet".into(),
                "run this again, or check the instance in EC2",
            );
        };
        if instance.state != "running" {
            let cause = format!("EC2 says {}{}", instance.state, ago(instance.launched_at, now));
            return (Stage::Instance, cause, "look at the instance in EC2, or raise `--timeout`");
        }
        let running = format!("launched{}", ago(instance.launched_at, now));
        match (&self.agent, self.cloud_init()) {
            (_, Some(CloudInit::Done | CloudInit::Degraded(_))) => {
                let checks = match &self.checks {
                    Checks::Waiting(words) => words.clone(),
                    Checks::Ok | Checks::Unknown => "not seen".to_owned(),
                };
                let cause =
                    format!("cloud-init finished, but EC2's status checks are not ok: {checks}");
                (
                    Stage::Instance,
                    cause,
                    "look at the instance's status checks, or pass `--status-checks skip`",
                )
            }
            (_, Some(CloudInit::Running { stage, errors })) => {
                let stage = stage.map_or_else(
                    || "has not begun a stage".to_owned(),
                    |stage| format!("is in {stage}"),
                );
                let mut cause = format!("cloud-init {stage}, {running}");
                if !errors.is_empty() {
                    cause = format!("{cause}; errors so far: {}", errors.join("; "));
                }
                if let Some(trouble) = &self.trouble {
                    cause = format!("{cause}; {trouble}");
                }
                (
                    Stage::CloudInit,
                    cause,
                    "raise `--timeout`, or read /var/log/cloud-init-output.log on the host",
                )
            }
            (Agent::NeverSeen, _) => {
                let profile = match &instance.profile {
                    Some(profile) => format!("its instance profile is {profile}"),
                    None => "it has no instance profile".to_owned(),
                };
                let subnet = instance
                    .subnet
                    .as_deref()
                    .map(|subnet| format!(", its subnet {subnet}"))
                    .unwrap_or_default();
                let cause = format!(
                    "its agent has never registered with Systems Manager, {running}; {profile}{subnet}"
                );
                let next = if instance.profile.is_some() {
                    "check that the role has AmazonSSMManagedInstanceCore, that the subnet reaches Systems Manager, and the console output"
                } else {
                    "give the instance a profile with AmazonSSMManagedInstanceCore"
                };
                (Stage::Agent, cause, next)
            }
            (Agent::Lost { since }, _) => {
                let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
                let trouble =
                    self.trouble.as_deref().map(|words| format!("; {words}")).unwrap_or_default();
                let cause = format!("its agent was online and is silent{since}{trouble}");
                (
                    Stage::Agent,
                    cause,
                    "the host may be rebooting or overloaded: look at its console output",
                )
            }
            (Agent::Online, _) => {
                let trouble = self.trouble.as_deref().unwrap_or("the probe has not come back");
                (Stage::CloudInit, format!("its agent is online; {trouble}"), "raise `--timeout`")
            }
        }
    }

    /// A few words for the progress line.
    pub fn words(&self) -> String {
        if let Some(finding) = &self.finding {
            return format!("{}: {}", finding.verdict.name(), finding.cause);
        }
        let Some(instance) = &self.instance else { return "not known to EC2 yet".to_owned() };
        if instance.state != "running" {
            return format!("instance {}", instance.state);
        }
        match (self.cloud_init(), &self.agent) {
            (Some(CloudInit::Running { stage: Some(stage), .. }), _) => {
                format!("cloud-init in {stage}")
            }
            (Some(CloudInit::Running { stage: None, .. }), _) => {
                "cloud-init between stages".to_owned()
            }
            (Some(_), _) => "cloud-init finished, waiting for EC2's status checks".to_owned(),
            (None, Agent::NeverSeen) => "running, waiting for its agent".to_owned(),
            (None, Agent::Online) => "agent online, asking cloud-init".to_owned(),
            (None, Agent::Lost { .. }) => "agent lost, waiting for it".to_owned(),
        }
    }
}

fn ago(then: Option<Timestamp>, now: Timestamp) -> String {
    let passed = then.and_then(|then| std::time::Duration::try_from(now.duration_since(then)).ok());
    passed.map(|passed| format!(" {} ago", deploy_cli::human(passed))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn running() -> HostWait {
        let mut host = HostWait::new("sip-1", "i-0123456789abcdef0");
        host.instance = Some(Instance {
            state: "running".into(),
            launched_at: Some(Timestamp::UNIX_EPOCH),
            profile: Some("sip".into()),
            subnet: Some("subnet-1".into()),
            ..Instance::default()
        });
        host.checks = Checks::Ok;
        host
    }

    fn now() -> Timestamp {
        Timestamp::from_second(95).unwrap()
    }

    fn reading(stage: Option<&str>, errors: &[&str], done: bool) -> Reading {
        Reading {
            binary: "/usr/bin/cloud-init".into(),
            version: "/usr/bin/cloud-init 22.4.2".into(),
            status: Some(
                json!({"v1": {"stage": stage, "modules-final": {"start": 20.0, "finished": 34.0, "errors": errors}}}),
            ),
            result: done.then(|| json!({"v1": {"errors": errors}})),
            ..Reading::default()
        }
    }

    fn verdict(host: &mut HostWait) -> Option<(Verdict, Stage, String)> {
        host.decide(true);
        host.finding.clone().map(|finding| (finding.verdict, finding.stage, finding.cause))
    }

    #[test]
    fn ready_needs_a_result_and_good_checks() {
        let mut host = running();
        host.checks = Checks::Waiting("system initializing".into());
        host.saw_agent(Agent::Online, now());
        host.saw_reading(reading(Some("modules-final"), &[], false));
        assert_eq!(verdict(&mut host), None);
        host.saw_reading(reading(None, &[], true));
        assert_eq!(verdict(&mut host), None, "the checks still run");
        assert!(host.is_settled());
        host.checks = Checks::Ok;
        let cause = "cloud-init 22.4.2 finished 34 s after launch".to_owned();
        assert_eq!(verdict(&mut host), Some((Verdict::Ready, Stage::CloudInit, cause)));
    }

    #[test]
    fn a_failure_needs_no_checks() {
        let mut host = running();
        host.checks = Checks::Unknown;
        host.saw_reading(reading(None, &["boom"], true));
        assert_eq!(
            verdict(&mut host),
            Some((Verdict::Failed, Stage::CloudInit, "modules-final: boom".into()))
        );
    }

    #[test]
    fn an_error_on_the_way_is_no_verdict() {
        let mut host = running();
        host.saw_reading(reading(Some("modules-final"), &["boom"], false));
        assert_eq!(verdict(&mut host), None);
        host.expire(now());
        let finding = host.finding.unwrap();
        assert_eq!(finding.verdict, Verdict::TimedOut);
        assert_eq!(
            finding.cause,
            "cloud-init is in modules-final, launched 1 min 35 s ago; errors so far: modules-final: boom"
        );
    }

    #[test]
    fn impossible_states_end_at_once_with_their_reason() {
        let check = |state: &str, expected: Verdict| {
            let mut host = running();
            host.instance = Some(Instance {
                state: state.into(),
                reason: Some("Client.UserInitiatedShutdown: User initiated shutdown".into()),
                ..Instance::default()
            });
            let cause =
                format!("EC2 says {state}: Client.UserInitiatedShutdown: User initiated shutdown");
            assert_eq!(verdict(&mut host), Some((expected, Stage::Instance, cause)));
        };
        check("terminated", Verdict::Terminated);
        check("shutting-down", Verdict::Terminated);
        check("stopping", Verdict::Stopped);
        check("stopped", Verdict::Stopped);
        let mut pending = running();
        pending.instance = Some(Instance { state: "pending".into(), ..Instance::default() });
        assert_eq!(verdict(&mut pending), None);
    }

    #[test]
    fn an_agent_that_never_came_is_told_from_one_that_went() {
        let mut host = running();
        assert_eq!(verdict(&mut host), None);
        let mut without_profile = host.clone();
        if let Some(instance) = &mut without_profile.instance {
            instance.profile = None;
        }
        without_profile.expire(now());
        assert!(without_profile.finding.unwrap().cause.contains("it has no instance profile"));

        let mut went = host.clone();
        host.expire(now());
        let finding = host.finding.unwrap();
        assert_eq!((finding.verdict, finding.stage), (Verdict::NeverOnline, Stage::Agent));
        assert_eq!(
            finding.cause,
            "its agent has never registered with Systems Manager, launched 1 min 35 s ago; its instance profile is sip, its subnet subnet-1"
        );

        went.saw_agent(Agent::Online, now());
        went.saw_agent(Agent::NeverSeen, now());
        went.expire(now());
        assert_eq!(went.finding.unwrap().verdict, Verdict::TimedOut);
    }

    #[test]
    fn a_lost_probe_is_no_failure_and_three_failing_ones_are() {
        let mut host = running();
        for _ in 0..10 {
            host.saw_agent(Agent::Online, now());
            host.lost_probe("DeliveryTimedOut");
            assert_eq!(verdict(&mut host), None);
        }
        assert_eq!(host.patience(), 4 * PATIENCE);
        host.failed_probe("exit status 127");
        host.failed_probe("exit status 127");
        assert_eq!(verdict(&mut host), None);
        host.failed_probe("exit status 127");
        assert_eq!(verdict(&mut host).unwrap().0, Verdict::Failed);
    }

    #[test]
    fn a_verdict_stands() {
        let mut host = running();
        host.saw_reading(reading(None, &[], true));
        assert_eq!(verdict(&mut host).unwrap().0, Verdict::Ready);
        host.expire(now());
        host.abandon(now());
        assert_eq!(host.finding.unwrap().verdict, Verdict::Ready);
    }

    #[test]
    fn whoever_stops_the_wait_sees_how_far_it_came() {
        let mut host = HostWait::new("a", "i-0123456789abcdef0");
        host.abandon(now());
        let finding = host.finding.unwrap();
        assert_eq!(
            (finding.verdict, finding.cause.as_str()),
            (Verdict::Pending, "EC2 has not shown it yet")
        );
    }
}
