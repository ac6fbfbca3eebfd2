//! `DescribeInstanceStatus`: the checks follow the boot, and its filters hold for what is shown.

use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use jiff::Timestamp;

use super::answers::{Refusal, state_element};
use super::machine::Reachable;
use super::{Ec2, Request};
use crate::hosts::HostState;
use crate::xml::Element;

/// How the checks of an instance stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checks {
    /// Of the machine below and of its volumes: nothing fails there.
    system: &'static str,
    /// Of the host itself.
    instance: &'static str,
}

/// The checks of an instance that has been running for that long. EC2 looks at intervals, so they cannot say `ok` (nor
/// `impaired`) before the first of them has passed.
fn checks(state: HostState, reachable: Reachable, running: Duration, interval: Duration) -> Checks {
    if state != HostState::Running {
        return Checks { system: "not-applicable", instance: "not-applicable" };
    }
    if running < interval {
        return Checks { system: "initializing", instance: "initializing" };
    }
    let instance = match reachable {
        Reachable::Initializing => "initializing",
        Reachable::Ok => "ok",
        Reachable::Impaired => "impaired",
    };
    Checks { system: "ok", instance }
}

/// The status check's result that belongs to a status (API reference, `InstanceStatusDetails`).
fn detail(status: &str) -> Option<&'static str> {
    match status {
        "ok" => Some("passed"),
        "impaired" => Some("failed"),
        "initializing" => Some("initializing"),
        _ => None,
    }
}

fn summary(name: &str, status: &str, impaired_since: Option<Timestamp>) -> Element {
    let mut parts = vec![Element::leaf("status", status)];
    if let Some(result) = detail(status) {
        let mut item = vec![Element::leaf("name", "reachability"), Element::leaf("status", result)];
        if let Some(since) = impaired_since.filter(|_| status == "impaired") {
            item.push(Element::leaf("impairedSince", &format!("{since:.3}")));
        }
        parts.push(Element::node("details", vec![Element::node("item", item)]));
    }
    Element::node(name, parts)
}

/// One filter of the call and its values.
type Filter = (String, Vec<String>);

/// Whether an entry passes a filter (API reference, `DescribeInstanceStatus`).
fn passes(item: &Element, (name, values): &Filter) -> bool {
    let shown = match name.as_str() {
        "availability-zone" => item.text_at(&["availabilityZone"]),
        "instance-state-name" => item.text_at(&["instanceState", "name"]),
        "instance-state-code" => item.text_at(&["instanceState", "code"]),
        name => {
            let (check, part) = name.split_once('.').unwrap_or((name, ""));
            let member = match check {
                "instance-status" => "instanceStatus",
                "system-status" => "systemStatus",
                "attached-ebs-status" => "attachedEbsStatus",
                // Scheduled events and operators: there are none.
                _ => return false,
            };
            match part {
                "status" => item.text_at(&[member, "status"]),
                _ => item.text_at(&[member, "details", "item", "status"]),
            }
        }
    };
    shown.is_some_and(|shown| values.contains(&shown))
}

impl Ec2 {
    pub(super) async fn describe_status(
        &self,
        mut request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let all = request.form.get("IncludeAllInstances") == Some("true");
        let filters: Vec<Filter> = request
            .form
            .filters()
            .into_iter()
            .map(|(_, name, values)| {
                (name.to_owned(), values.into_iter().map(str::to_owned).collect())
            })
            .collect();
        // All are asked for: the emulator knows neither the states in between nor the checks.
        request.form.remove(|name| name.starts_with("Filter.") || name == "IncludeAllInstances");
        request.form.push("IncludeAllInstances", "true");
        let answer = self.pass_changed(request).await?;
        let Some(mut root) = answer.xml().filter(|_| answer.status.is_success()) else {
            return Ok(answer.into_response());
        };
        if let Some(set) = root.child_mut("instanceStatusSet") {
            set.children.retain_mut(|item| {
                let id = item.text_at(&["instanceId"]).unwrap_or_default();
                self.show_checks(&id, item);
                // Without IncludeAllInstances only running instances are shown (API reference).
                let state = item.text_at(&["instanceState", "name"]);
                (all || state.as_deref() == Some("running"))
                    && !self.vanished(&id)
                    && filters.iter().all(|filter| passes(item, filter))
            });
        }
        Ok(answer.with_body(root.write()))
    }

    fn show_checks(&self, id: &str, item: &mut Element) {
        let (Some(state), Some(machine)) = (self.state(id), self.machine(id)) else { return };
        let running = machine.running_since.map_or(Duration::ZERO, |since| since.elapsed());
        let Checks { system, instance } =
            checks(state, machine.reachable, running, self.settings.timing.status_checks);
        item.set(state_element("instanceState", state));
        item.set(summary("systemStatus", system, None));
        item.set(summary("instanceStatus", instance, machine.impaired_since));
        item.set(summary("attachedEbsStatus", system, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_follow_the_boot() {
        let interval = Duration::from_secs(2);
        let check = |state, reachable, running, system, instance| {
            let running = Duration::from_secs(running);
            let expected = Checks { system, instance };
            assert_eq!(checks(state, reachable, running, interval), expected);
        };
        use Reachable::{Impaired, Initializing, Ok};
        let (running, early) = (HostState::Running, "initializing");
        check(running, Initializing, 0, early, early);
        check(running, Ok, 1, early, early);
        check(running, Initializing, 3, "ok", early);
        check(running, Ok, 3, "ok", "ok");
        check(running, Impaired, 3, "ok", "impaired");
        check(HostState::Stopped, Ok, 3, "not-applicable", "not-applicable");
        check(HostState::Pending, Initializing, 0, "not-applicable", "not-applicable");
    }

    #[test]
    fn filters_hold_for_what_is_shown() {
        let mut item =
            Element::parse("<item><availabilityZone>us-east-1a</availabilityZone></item>")
                .expect("XML");
        item.set(state_element("instanceState", HostState::Running));
        item.set(summary("systemStatus", "ok", None));
        item.set(summary("instanceStatus", "impaired", Some(Timestamp::UNIX_EPOCH)));
        let check = |name: &str, value: &str, expected: bool| {
            assert_eq!(passes(&item, &(name.into(), vec![value.into()])), expected, "{name}");
        };
        check("instance-status.status", "impaired", true);
        check("instance-status.status", "ok", false);
        check("instance-status.reachability", "failed", true);
        check("system-status.reachability", "passed", true);
        check("instance-state-name", "running", true);
        check("instance-state-code", "80", false);
        check("availability-zone", "us-east-1b", false);
        check("event.code", "instance-stop", false);
        let since = ["instanceStatus", "details", "item", "impairedSince"];
        assert_eq!(item.text_at(&since).as_deref(), Some("1970-01-01T00:00:00.000Z"));
    }
}
