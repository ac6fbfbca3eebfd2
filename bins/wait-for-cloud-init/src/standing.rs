//! How far a host came, in words: for the progress line, and for the finding of a host that was not judged in time.

use crate::cloud_init::{self, CloudInit};
use crate::host::{Agent, Checks, Console, HostWait, Instance};
use crate::quote;
use crate::verdict::{Finding, Stage, Verdict};
use jiff::Timestamp;

/// So many last lines of a console are quoted in a cause.
const QUOTED_LINES: usize = 3;
/// A line of a console is cut here in a cause; the report has more of it.
const QUOTED: usize = 120;
/// An agent registers as one of the last services of a boot; on AWS that takes most hosts less than this.
const YOUNG: std::time::Duration = std::time::Duration::from_secs(120);

impl HostWait {
    /// The deadline has passed. `failed` is the error of the last round of calls, if that one failed: then what was
    /// seen of the host is old, and the error comes first.
    pub fn expire(&mut self, now: Timestamp, failed: Option<&str>) {
        if self.finding.is_some() {
            return;
        }
        let (stage, cause, next) = self.standing(now);
        let verdict = match (stage, &self.agent) {
            (Stage::Agent, Agent::NeverSeen) if self.looked_for_agent => Verdict::NeverOnline,
            _ => Verdict::TimedOut,
        };
        let cause = match failed {
            Some(error) => format!("the last call failed: {error}; before that: {cause}"),
            None => cause,
        };
        self.finding = Some(Finding::new(verdict, stage, &cause, next));
    }

    /// The wait ends before the deadline.
    pub fn abandon(&mut self, now: Timestamp) {
        if self.finding.is_none() {
            let (stage, cause, _) = self.standing(now);
            self.finding = Some(Finding::new(Verdict::Pending, stage, &cause, "run this again"));
        }
    }

    /// How far it came, why no further, what to do.
    fn standing(&self, now: Timestamp) -> (Stage, String, &'static str) {
        let Some(instance) = &self.instance else {
            let cause = if self.ec2_answered {
                format!("EC2 has not shown `{}` yet", self.id)
            } else {
                format!("EC2 has not answered for `{}` yet", self.id)
            };
            return (Stage::Instance, cause, "run this again, or check the instance in EC2");
        };
        if instance.state != "running" {
            let cause = format!("EC2 says {}{}", instance.state, ago(instance.launched_at, now));
            return (Stage::Instance, cause, "look at the instance in EC2, or raise `--timeout`");
        }
        let launched = format!("launched{}", ago(instance.launched_at, now));
        match (&self.agent, self.cloud_init()) {
            (_, Some(CloudInit::Running { stage, errors })) => (
                Stage::CloudInit,
                self.still_running(stage.as_deref(), &errors, &launched),
                "raise `--timeout`, or read /var/log/cloud-init-output.log on the host",
            ),
            (_, Some(_)) => (
                Stage::Instance,
                format!("cloud-init finished, but EC2's status checks are not ok: {}", self.checks),
                "look at the instance's status checks, or pass `--status-checks skip`",
            ),
            (Agent::NeverSeen, None) if !self.looked_for_agent => (
                Stage::Agent,
                format!("Systems Manager has not answered about its agent yet, {launched}"),
                "run this again, or raise `--timeout`",
            ),
            (Agent::NeverSeen, None) => (
                Stage::Agent,
                self.never_registered(instance, &launched),
                if instance.profile.is_none() {
                    "give the instance a profile with AmazonSSMManagedInstanceCore"
                } else if age(instance.launched_at, now).is_some_and(|age| age < YOUNG) {
                    "most hosts take one to two minutes after launch: wait longer, raise `--timeout`"
                } else {
                    "check that its role has AmazonSSMManagedInstanceCore, that its subnet reaches Systems Manager, and its console"
                },
            ),
            (Agent::Lost { since }, None) => {
                let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
                let trouble =
                    self.trouble.as_deref().map(|words| format!("; {words}")).unwrap_or_default();
                let cause = format!(
                    "its agent was online and is silent{since}{trouble}{}{}",
                    self.bad_checks(),
                    self.console_words()
                );
                let next = "it may be rebooting or overloaded: look at its console";
                (Stage::Agent, cause, next)
            }
            (Agent::Online, None) => {
                let trouble = self.trouble.as_deref().unwrap_or("the probe has not come back");
                (Stage::CloudInit, format!("its agent is online; {trouble}"), "raise `--timeout`")
            }
        }
    }

    /// Whether cloud-init has begun a stage.
    fn has_begun(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| !cloud_init::timeline(reading).is_empty())
    }

    fn still_running(&self, stage: Option<&str>, errors: &[String], launched: &str) -> String {
        let stage = match (stage, self.has_begun()) {
            (Some(stage), _) => format!("is in {stage}"),
            (None, true) => "is between two stages".to_owned(),
            (None, false) => "has not begun".to_owned(),
        };
        let mut cause = format!("cloud-init {stage}, {launched}");
        if !errors.is_empty() {
            cause = format!("{cause}; errors so far: {}", errors.join("; "));
        }
        if let Some(trouble) = &self.trouble {
            cause = format!("{cause}; {trouble}{}", self.console_words());
        }
        cause
    }

    /// What can be seen of a host without an agent.
    fn never_registered(&self, instance: &Instance, launched: &str) -> String {
        let profile = match &instance.profile {
            Some(profile) => format!("its instance profile is {profile}"),
            None => "it has no instance profile".to_owned(),
        };
        let zone = instance.zone.as_deref().map(|zone| format!(" ({zone})")).unwrap_or_default();
        let subnet = match &instance.subnet {
            Some(subnet) => format!(", its subnet {subnet}{zone}"),
            None => String::new(),
        };
        format!(
            "its agent has never registered with Systems Manager, {launched}; {profile}{subnet}{}{}",
            self.bad_checks(),
            self.console_words()
        )
    }

    fn bad_checks(&self) -> String {
        match &self.checks {
            Checks::Waiting(words) => format!("; EC2's status checks: {words}"),
            Checks::Ok | Checks::Unknown => String::new(),
        }
    }

    fn console_words(&self) -> String {
        match &self.console {
            Console::Unread => String::new(),
            Console::Tail(lines) if lines.is_empty() => "; its console is empty".to_owned(),
            Console::Tail(lines) => {
                let last: Vec<String> = lines[lines.len().saturating_sub(QUOTED_LINES)..]
                    .iter()
                    .map(|line| quote::cut(line, QUOTED))
                    .collect();
                format!("; its console ends: {}", last.join(" | "))
            }
            Console::Unreadable(why) => format!("; its console was not read: {why}"),
        }
    }

    /// Whether its console may say what its agent does not.
    pub fn is_silent(&self) -> bool {
        self.is_running()
            && self.finding.is_none()
            && !self.is_settled()
            && self.agent != Agent::Online
    }

    /// A few words for the progress line.
    pub fn words(&self) -> String {
        if let Some(finding) = &self.finding {
            return format!("{}: {}", finding.verdict.name(), finding.cause);
        }
        let Some(instance) = &self.instance else {
            let words =
                if self.ec2_answered { "not known to EC2 yet" } else { "EC2 has not answered yet" };
            return words.to_owned();
        };
        if instance.state != "running" {
            return format!("instance {}", instance.state);
        }
        match (self.cloud_init(), &self.agent) {
            (Some(CloudInit::Running { stage, errors }), _) => {
                let errors = match errors.len() {
                    0 => String::new(),
                    1 => ", 1 error so far".to_owned(),
                    many => format!(", {many} errors so far"),
                };
                match (stage, self.has_begun()) {
                    (Some(stage), _) => format!("cloud-init in {stage}{errors}"),
                    (None, true) => format!("cloud-init between stages{errors}"),
                    (None, false) => "cloud-init has not begun".to_owned(),
                }
            }
            (Some(_), _) => "cloud-init finished, waiting for EC2's status checks".to_owned(),
            (None, Agent::NeverSeen) => "running, waiting for its agent".to_owned(),
            (None, Agent::Online) => "agent online, asking cloud-init".to_owned(),
            (None, Agent::Lost { .. }) => "agent lost, waiting for it".to_owned(),
        }
    }
}

fn age(then: Option<Timestamp>, now: Timestamp) -> Option<std::time::Duration> {
    std::time::Duration::try_from(now.duration_since(then?)).ok()
}

fn ago(then: Option<Timestamp>, now: Timestamp) -> String {
    age(then, now).map(|passed| format!(" {} ago", deploy_cli::human(passed))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::{now, reading, running};

    #[test]
    fn an_error_on_the_way_is_no_verdict() {
        let mut host = running();
        host.saw_reading(reading(Some("modules-final"), &["boom"], false));
        host.decide(true);
        assert_eq!(host.finding, None);
        host.expire(now(), None);
        let finding = host.finding.unwrap();
        assert_eq!(finding.verdict, Verdict::TimedOut);
        assert_eq!(
            finding.cause,
            "cloud-init is in modules-final, launched 1 min 35 s ago; errors so far: modules-final: boom"
        );
    }

    #[test]
    fn an_agent_that_never_came_is_told_from_one_that_went() {
        let mut host = running();
        host.saw_agent(Agent::NeverSeen, now());
        host.decide(true);
        assert_eq!(host.finding, None);
        let mut without_profile = host.clone();
        if let Some(instance) = &mut without_profile.instance {
            instance.profile = None;
        }
        without_profile.expire(now(), None);
        assert!(without_profile.finding.unwrap().cause.contains("it has no instance profile"));

        let mut went = host.clone();
        host.expire(now(), None);
        let finding = host.finding.unwrap();
        assert_eq!((finding.verdict, finding.stage), (Verdict::NeverOnline, Stage::Agent));
        assert_eq!(
            finding.cause,
            "its agent has never registered with Systems Manager, launched 1 min 35 s ago; its instance profile is sip, its subnet subnet-1 (us-east-1a)"
        );

        went.saw_agent(Agent::Online, now());
        went.saw_agent(Agent::NeverSeen, now());
        went.expire(now(), None);
        assert_eq!(went.finding.unwrap().verdict, Verdict::TimedOut);
    }

    #[test]
    fn a_young_host_is_waited_for_before_its_role_is_doubted() {
        let next = |after: i64| {
            let mut host = running();
            host.saw_agent(Agent::NeverSeen, now());
            let launched =
                host.instance.as_ref().and_then(|instance| instance.launched_at).unwrap();
            host.expire(launched + jiff::SignedDuration::from_secs(after), None);
            host.finding.unwrap().next
        };
        assert!(
            next(4).starts_with("most hosts take one to two minutes after launch"),
            "{}",
            next(4)
        );
        assert!(next(120).starts_with("check that its role"), "{}", next(120));
    }

    #[test]
    fn whoever_stops_the_wait_sees_how_far_it_came() {
        let mut host = HostWait::new("a", "i-0123456789abcdef0");
        host.abandon(now());
        let finding = host.finding.unwrap();
        assert_eq!(
            (finding.verdict, finding.cause.as_str()),
            (Verdict::Pending, "EC2 has not answered for `i-0123456789abcdef0` yet")
        );
    }

    #[test]
    fn a_silent_host_is_explained_from_outside() {
        let check = |console: Console, expected: &str| {
            let mut host = running();
            host.saw_agent(Agent::NeverSeen, now());
            host.checks = Checks::Waiting("instance impaired".into());
            host.console = console;
            assert!(host.is_silent());
            host.expire(now(), None);
            let cause = host.finding.unwrap().cause;
            assert!(cause.ends_with(expected), "{cause}");
        };
        check(Console::Unread, "(us-east-1a); EC2's status checks: instance impaired");
        check(Console::Tail(vec![]), "; its console is empty");
        let lines = ["a", "b", "c", "Kernel panic"].map(str::to_owned).to_vec();
        check(Console::Tail(lines), "; its console ends: b | c | Kernel panic");
        let why = "ec2:GetConsoleOutput is not allowed".to_owned();
        check(
            Console::Unreadable(why),
            "; its console was not read: ec2:GetConsoleOutput is not allowed",
        );
    }
}
