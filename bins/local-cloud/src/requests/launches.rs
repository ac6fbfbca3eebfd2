//! Faults of launches: by the tags of the host that would come of one, and of those that Auto Scaling makes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::protocol::{Protocol, ServiceError};
use super::{ACCOUNT, action, errors, refused};
use crate::faults::{Call, Faults, Kind};
use crate::hosts::{HostInfo, HostState, Hosts};
use crate::operation::Form;

/// The fault that strikes a call which Auto Scaling makes of EC2. Its connection and its credentials are AWS's own, so
/// those never fail.
pub async fn strike_scaling(
    faults: &Faults,
    hosts: &Hosts,
    operation: &str,
    form: &Form,
) -> Option<ServiceError> {
    let named = form.names().filter(|name| name.starts_with("InstanceId."));
    let known = named.filter_map(|name| hosts.by_instance(form.get(name)?));
    let hosts: Vec<HostInfo> = known.chain(host_to_be(operation, form)).collect();
    let call = Call { service: "ec2", operation, hosts: &hosts };
    if let Some(strike) = faults.strike_call(Kind::Latency, &call) {
        tokio::time::sleep(strike.delay).await;
    }
    let action = action::in_policies("ec2", operation);
    if faults.strike_action(&call, &action).is_some() {
        // The service-linked role (user guide, "Service-linked roles").
        let caller =
            format!("arn:aws:sts::{ACCOUNT}:assumed-role/AWSServiceRoleForAutoScaling/AutoScaling");
        let who = errors::Denied { caller: &caller, action: &action, resource: "*" };
        return Some(errors::denied("ec2", Protocol::Ec2, who));
    }
    refused(faults, &call, Protocol::Ec2, || form.clone())
}

/// The host that a launch would make, by its tags: it has no id yet.
pub(super) fn host_to_be(operation: &str, form: &Form) -> Option<HostInfo> {
    if operation != "RunInstances" {
        return None;
    }
    let mut tags = BTreeMap::new();
    for name in form.names() {
        let Some(specification) = name.strip_suffix(".ResourceType") else { continue };
        if form.get(name) != Some("instance") {
            continue;
        }
        let of_this = |name: &&str| name.starts_with(&format!("{specification}.Tag."));
        for key in form.names().filter(of_this).filter_map(|name| name.strip_suffix(".Key")) {
            let text = |field: &str| form.get(&format!("{key}.{field}")).unwrap_or_default();
            tags.insert(text("Key").to_owned(), text("Value").to_owned());
        }
    }
    Some(HostInfo {
        instance_id: String::new(),
        name: tags.get("Name").cloned(),
        private_ip: Ipv4Addr::UNSPECIFIED,
        state: HostState::Pending,
        tags,
        launched: jiff::Timestamp::now(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Spec;

    fn launch(name: &str) -> Form {
        Form::new([
            ("InstanceType", "t3.nano"),
            ("TagSpecification.1.ResourceType", "volume"),
            ("TagSpecification.1.Tag.1.Key", "Name"),
            ("TagSpecification.1.Tag.1.Value", "disk"),
            ("TagSpecification.2.ResourceType", "instance"),
            ("TagSpecification.2.Tag.1.Key", "Name"),
            ("TagSpecification.2.Tag.1.Value", name),
            ("TagSpecification.2.Tag.2.Key", "role"),
            ("TagSpecification.2.Tag.2.Value", "sip"),
        ])
    }

    #[test]
    fn a_launch_has_the_tags_of_its_host() {
        let host = host_to_be("RunInstances", &launch("web")).expect("a launch");
        assert_eq!(host.name.as_deref(), Some("web"));
        assert_eq!(host.tags.get("role").map(String::as_str), Some("sip"));
        assert_eq!(host_to_be("TerminateInstances", &launch("web")), None);
    }

    #[tokio::test]
    async fn faults_of_ec2_strike_what_auto_scaling_asks() {
        let hosts = Hosts::default();
        let check = async |spec: Spec, operation: &str, name: &str, expected: Option<&str>| {
            let faults = Faults::default();
            faults.add(spec.clone()).expect("good");
            let error = strike_scaling(&faults, &hosts, operation, &launch(name)).await;
            assert_eq!(error.map(|e| e.code).as_deref(), expected, "{spec:?} {operation} {name}");
        };
        let of = Spec::of;
        let here = |kind| Spec { host: Some("web".into()), ..of(kind) };
        const RUN: &str = "RunInstances";
        check(of(Kind::NoCapacity), RUN, "web", Some("InsufficientInstanceCapacity")).await;
        check(of(Kind::NoCapacity), "TerminateInstances", "web", None).await;
        check(here(Kind::NoCapacity), RUN, "web", Some("InsufficientInstanceCapacity")).await;
        check(here(Kind::NoCapacity), RUN, "db", None).await;
        check(of(Kind::Throttle), RUN, "web", Some("RequestLimitExceeded")).await;
        check(of(Kind::ServerError), "TerminateInstances", "web", Some("InternalError")).await;
        let ssm = Spec { service: Some("ssm".into()), ..of(Kind::Throttle) };
        check(ssm, RUN, "web", None).await;
        check(of(Kind::AccessDenied), RUN, "web", Some("UnauthorizedOperation")).await;
        check(of(Kind::ExpiredCredentials), RUN, "web", None).await;
    }
}
