//! One host on its way to ready. Pure: what was seen goes in, a finding comes out; no clock, no network.

use crate::cloud_init::{self, CloudInit};
use crate::probe::Reading;
use crate::verdict::{Finding, Stage, Verdict};
use jiff::Timestamp;

/// So many probes may fail on a host in a row before it counts as failed.
const PROBES: u32 = 3;
/// With less room on `/` nothing can be installed or even noted: the disk counts as full.
const LEAST_ROOM_KIB: u64 = 1024;
const FREE_SPACE: &str = "free some space on the host (`du -xh / | sort -h | tail` shows who has it), or give it a larger disk";
/// An answer usually takes two seconds: delivery, two starts of Python, and the way back.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

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
    /// Its availability zone.
    pub zone: Option<String>,
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

impl std::fmt::Display for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not seen",
            Self::Ok => "ok",
            Self::Waiting(words) => words,
        })
    }
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

/// The end of an instance's console, looked at when its agent stays away: the only words of a host without an agent.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Console {
    /// Not looked at.
    #[default]
    Unread,
    /// Its last lines; none when the console is empty.
    Tail(Vec<String>),
    /// Why it could not be read.
    Unreadable(String),
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
    /// Whether EC2 has answered a question for it at all.
    pub ec2_answered: bool,
    /// The status checks.
    pub checks: Checks,
    /// The agent.
    pub agent: Agent,
    /// When the agent was first seen online.
    pub online_at: Option<Timestamp>,
    /// When it began to run, if this wait saw it begin.
    pub began_running_at: Option<Timestamp>,
    /// When its agent came online, if this wait saw it come.
    pub came_online_at: Option<Timestamp>,
    /// The end of its console.
    pub console: Console,
    /// The host's last answer.
    pub reading: Option<Reading>,
    /// Set once, never changed.
    pub finding: Option<Finding>,
    /// How long after the start of the wait it was judged.
    pub decided_after: Option<std::time::Duration>,
    pub(crate) looked_for_agent: bool,
    failed_probes: u32,
    lost_probes: u32,
    pub(crate) trouble: Option<String>,
}

impl HostWait {
    /// A host of which nothing is known yet.
    pub fn new(name: &str, id: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: id.to_owned(),
            instance: None,
            ec2_answered: false,
            checks: Checks::Unknown,
            agent: Agent::NeverSeen,
            online_at: None,
            began_running_at: None,
            came_online_at: None,
            console: Console::Unread,
            reading: None,
            finding: None,
            decided_after: None,
            looked_for_agent: false,
            failed_probes: 0,
            lost_probes: 0,
            trouble: None,
        }
    }

    /// Whether EC2 says that it runs.
    pub fn is_running(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.state == "running")
    }

    /// What EC2 says about the instance.
    pub fn saw_instance(&mut self, instance: Instance, now: Timestamp) {
        if self.instance.is_some() && !self.is_running() && instance.state == "running" {
            self.began_running_at = Some(now);
        }
        self.instance = Some(instance);
    }

    /// What Systems Manager says about the agent.
    pub fn saw_agent(&mut self, agent: Agent, now: Timestamp) {
        let first_look = !std::mem::replace(&mut self.looked_for_agent, true);
        // A list that is eventually consistent may leave out what it had before.
        if agent == Agent::NeverSeen && self.online_at.is_some() {
            self.agent = Agent::Lost { since: None };
            return;
        }
        if agent == Agent::Online && self.online_at.is_none() {
            self.online_at = Some(now);
            self.came_online_at = (!first_look).then_some(now);
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

    pub(crate) fn cloud_init(&self) -> Option<CloudInit> {
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
        let (verdict, next) = match instance.state.as_str() {
            "terminated" | "shutting-down" => {
                (Verdict::Terminated, "apply again: Terraform makes a new instance")
            }
            "stopped" | "stopping" => (Verdict::Stopped, "start the instance and run this again"),
            _ => return None,
        };
        let reason =
            instance.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let cause = format!("EC2 says {}{reason}", instance.state);
        Some(Finding::new(verdict, Stage::Instance, &cause, next))
    }

    fn finished(&self, checks_count: bool) -> Option<Finding> {
        let finding =
            |verdict, cause: &str, next| Finding::new(verdict, Stage::CloudInit, cause, next);
        let found = match self.cloud_init() {
            Some(CloudInit::Failed(errors)) => finding(
                Verdict::Failed,
                &errors.join("; "),
                "read /var/log/cloud-init-output.log on the host",
            ),
            Some(CloudInit::Disabled(by)) => finding(
                Verdict::Disabled,
                &format!("cloud-init is off: {by}"),
                "its user data never ran; see the image",
            ),
            Some(CloudInit::Absent) => finding(
                Verdict::Absent,
                "there is no cloud-init on this host",
                "its user data never ran; see the image",
            ),
            Some(CloudInit::Running { .. }) | None if self.failed_probes >= PROBES => {
                let words = self.trouble.as_deref().unwrap_or("no answer");
                if words.to_lowercase().contains("no space left on device") {
                    let cause = format!("the disk of the host is full: {words}");
                    return Some(finding(Verdict::Failed, &cause, FREE_SPACE));
                }
                let cause = format!(
                    "the host could not say how cloud-init stands, {PROBES} times: {words}"
                );
                finding(Verdict::Failed, &cause, "try `cloud-init status --long` on the host")
            }
            Some(CloudInit::Running { .. }) | None => return None,
            Some(_) if checks_count && self.checks != Checks::Ok => return None,
            Some(_) if self.room_kib().is_some_and(|room| room < LEAST_ROOM_KIB) => {
                let room = self.room_kib().unwrap_or_default();
                let cause = format!(
                    "cloud-init finished, but the disk of the host is full: {room} KiB are free on `/`"
                );
                finding(Verdict::Failed, &cause, FREE_SPACE)
            }
            Some(CloudInit::Degraded { recovered, only_deprecated }) => Finding {
                only_deprecated,
                ..finding(
                    Verdict::Degraded,
                    &recovered.join("; "),
                    "read /var/log/cloud-init.log on the host",
                )
            },
            Some(CloudInit::Done) => finding(Verdict::Ready, &self.praise(), ""),
        };
        Some(found)
    }

    fn room_kib(&self) -> Option<u64> {
        self.reading.as_ref().and_then(|reading| reading.room_kib)
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
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use jiff::SignedDuration;
    use serde_json::json;

    const LAUNCH: Timestamp = Timestamp::constant(1_700_000_000, 0);

    /// A host that runs, of which nothing else is known.
    pub(crate) fn running() -> HostWait {
        let mut host = HostWait::new("sip-1", "i-0123456789abcdef0");
        host.instance = Some(Instance {
            state: "running".into(),
            launched_at: Some(LAUNCH),
            profile: Some("sip".into()),
            subnet: Some("subnet-1".into()),
            zone: Some("us-east-1a".into()),
            ..Instance::default()
        });
        host.checks = Checks::Ok;
        host
    }

    pub(crate) fn now() -> Timestamp {
        at(95)
    }

    /// Seconds after the launch.
    pub(crate) fn at(second: i64) -> Timestamp {
        LAUNCH + SignedDuration::from_secs(second)
    }

    pub(crate) fn reading(stage: Option<&str>, errors: &[&str], done: bool) -> Reading {
        Reading {
            binary: "/usr/bin/cloud-init".into(),
            version: "/usr/bin/cloud-init 22.4.2".into(),
            booted_at: Some(1_700_000_000.0),
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
    fn a_full_disk_is_named_whether_the_host_can_answer_or_not() {
        let mut mute = running();
        for _ in 0..PROBES {
            mute.failed_probe("mkdir: cannot create directory: No space left on device");
        }
        let mut answers = running();
        let result = json!({"v1": {"datasource": "DataSourceEc2", "errors": []}});
        let full = Reading { room_kib: Some(12), result: Some(result), ..Reading::default() };
        let ample = Reading { room_kib: Some(LEAST_ROOM_KIB), ..full.clone() };
        answers.saw_reading(full);
        for host in [&mut mute, &mut answers] {
            host.decide(false);
            let finding = host.finding.clone().unwrap();
            assert_eq!(finding.verdict, Verdict::Failed);
            assert!(finding.cause.contains("the disk of the host is full"), "{}", finding.cause);
            assert!(finding.next.contains("larger disk"), "{}", finding.next);
        }
        let mut well = running();
        well.saw_reading(ample);
        well.decide(false);
        assert_eq!(well.finding.unwrap().verdict, Verdict::Ready);
    }

    #[test]
    fn a_verdict_stands() {
        let mut host = running();
        host.saw_reading(reading(None, &[], true));
        assert_eq!(verdict(&mut host).unwrap().0, Verdict::Ready);
        host.expire(now(), None);
        host.abandon(now());
        assert_eq!(host.finding.unwrap().verdict, Verdict::Ready);
    }
}
