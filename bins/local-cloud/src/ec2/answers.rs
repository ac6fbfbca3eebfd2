//! EC2's answers: errors in its shape, and moto's answers adjusted to what is true. Pure.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;

use super::reason::{Change, Reason};
use crate::failure::{Dialect, Failure};
use crate::hosts::HostState;
use crate::operation::Form;
use crate::xml::Element;

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// All states an instance can have.
const STATES: [HostState; 6] = [
    HostState::Pending,
    HostState::Running,
    HostState::ShuttingDown,
    HostState::Terminated,
    HostState::Stopping,
    HostState::Stopped,
];

/// An error that EC2 answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// EC2's error code.
    pub code: &'static str,
    /// Its message.
    pub message: String,
}

impl Refusal {
    /// The caller's fault.
    pub fn client(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: message.into() }
    }

    /// The cloud's fault.
    pub fn server(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code, message: message.into() }
    }

    /// What cannot be done truly. 501, since clients repeat other 5xx.
    pub fn not_implemented(what: &str) -> Self {
        Self {
            status: StatusCode::NOT_IMPLEMENTED,
            code: "NotImplemented",
            message: format!("the rehearsal cloud cannot do this truly, so it refuses: {what}"),
        }
    }

    /// What the emulator's failure means; `last_words` are its log's.
    pub fn of_the_emulator(last_words: Option<&str>) -> Self {
        let failure = Failure::of_the_emulator("EC2", last_words, Dialect::Ec2);
        let code = if failure.status == StatusCode::NOT_IMPLEMENTED {
            "NotImplemented"
        } else {
            "InternalError"
        };
        Self { status: failure.status, code, message: failure.message }
    }

    /// EC2's answer.
    pub fn response(&self) -> Response<Body> {
        let error = Element::node(
            "Error",
            vec![Element::leaf("Code", self.code), Element::leaf("Message", &self.message)],
        );
        let root = Element::node(
            "Response",
            vec![Element::node("Errors", vec![error]), Element::leaf("RequestID", &request_id())],
        );
        xml(self.status, &root)
    }
}

/// A new request id in AWS's shape.
pub fn request_id() -> String {
    let bytes: [u8; 16] = rand::random();
    let text = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

fn xml(status: StatusCode, root: &Element) -> Response<Body> {
    let mut response = Response::new(Body::from(root.write()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml;charset=UTF-8"));
    response
}

/// An answer that is made here, with a request id in front.
pub fn simple(name: &str, mut members: Vec<Element>) -> Response<Body> {
    members.insert(0, Element::leaf("requestId", &request_id()));
    xml(StatusCode::OK, &Element::node(name, members).namespace(NAMESPACE))
}

/// The answer of `GetConsoleOutput`.
pub fn console_output(instance_id: &str, timestamp: &str, output: &str) -> Response<Body> {
    let root = Element::node(
        "GetConsoleOutputResponse",
        vec![
            Element::leaf("requestId", &request_id()),
            Element::leaf("instanceId", instance_id),
            Element::leaf("timestamp", timestamp),
            Element::leaf("output", output),
        ],
    )
    .namespace(NAMESPACE);
    xml(StatusCode::OK, &root)
}

/// Takes the filters on the instance state out of a request and gives the states that the caller wants; `None`: any.
/// The emulator knows no state in between, so these filters hold for the adjusted answer.
pub fn take_state_filter(form: &mut Form) -> Option<Vec<HostState>> {
    let mut wanted: Option<Vec<HostState>> = None;
    let filters: Vec<(String, bool, Vec<String>)> = form
        .filters()
        .into_iter()
        .filter(|(_, name, _)| matches!(*name, "instance-state-name" | "instance-state-code"))
        .map(|(prefix, name, values)| {
            (prefix, name.ends_with("name"), values.into_iter().map(str::to_owned).collect())
        })
        .collect();
    for (prefix, by_name, values) in filters {
        let matches = |state: &HostState| {
            let own = if by_name { state.name().to_owned() } else { state.code().to_string() };
            values.contains(&own)
        };
        let before = wanted.unwrap_or_else(|| STATES.to_vec());
        wanted = Some(before.into_iter().filter(matches).collect());
        form.remove(|name| name.starts_with(&format!("{prefix}Value")));
        for (number, state) in STATES.iter().enumerate() {
            let value = if by_name { state.name().to_owned() } else { state.code().to_string() };
            form.push(format!("{prefix}Value.{}", number + 1), value);
        }
    }
    wanted
}

/// What is known about an instance that an answer shows.
#[derive(Debug, Clone)]
pub enum Truth {
    /// It is one of ours.
    Known {
        /// Its state.
        state: HostState,
        /// Why.
        reason: Option<Reason>,
        /// When it was last launched or started.
        launched: Timestamp,
    },
    /// It was terminated too long ago to be listed.
    Gone,
    /// Nothing: it lives in another region.
    Unknown,
}

/// Gives every instance of a `DescribeInstances` answer its true state, and drops those that are not wanted.
pub fn adjust_instances(
    root: &mut Element,
    wanted: Option<&[HostState]>,
    truth_of: impl Fn(&str) -> Truth,
) {
    let Some(reservations) = root.child_mut("reservationSet") else { return };
    for reservation in &mut reservations.children {
        let Some(instances) = reservation.child_mut("instancesSet") else { continue };
        instances.children.retain_mut(|instance| {
            let id = instance.text_at(&["instanceId"]).unwrap_or_default();
            match truth_of(&id) {
                Truth::Known { state, reason, launched } => {
                    show(instance, state, reason.as_ref(), launched);
                }
                Truth::Gone => return false,
                Truth::Unknown => {}
            }
            is_wanted(instance, wanted)
        });
    }
    reservations
        .children
        .retain(|reservation| reservation.items(&["instancesSet"]).next().is_some());
}

fn show(instance: &mut Element, state: HostState, reason: Option<&Reason>, launched: Timestamp) {
    instance.set(state_element("instanceState", state));
    instance.set(Element::leaf("launchTime", &format!("{launched:.3}")));
    instance.set(Element::leaf("reason", reason.map_or("", |reason| &reason.transition)));
    instance.children.retain(|child| child.name != "stateReason");
    let shown = match reason {
        Some(reason) => Some((reason.code, reason.message.as_str())),
        None if state == HostState::Pending => Some(("pending", "pending")),
        None => None,
    };
    if let Some((code, message)) = shown {
        let parts = vec![Element::leaf("code", code), Element::leaf("message", message)];
        instance.set(Element::node("stateReason", parts));
    }
}

/// Makes the answer of `RunInstances` what EC2 says at that moment: instances are pending, and have no public address yet.
pub fn adjust_launch(root: &mut Element) {
    let Some(instances) = root.child_mut("instancesSet") else { return };
    let public = ["ipAddress", "association"];
    for instance in &mut instances.children {
        let launched = instance.text_at(&["launchTime"]).and_then(|text| text.parse().ok());
        show(instance, HostState::Pending, None, launched.unwrap_or_else(Timestamp::now));
        instance.children.retain(|child| !public.contains(&child.name.as_str()));
        if instance.child("dnsName").is_some() {
            instance.set(Element::leaf("dnsName", ""));
        }
        if let Some(interfaces) = instance.child_mut("networkInterfaceSet") {
            for interface in &mut interfaces.children {
                interface.children.retain(|child| !public.contains(&child.name.as_str()));
            }
        }
    }
}

fn is_wanted(instance: &Element, wanted: Option<&[HostState]>) -> bool {
    let Some(wanted) = wanted else { return true };
    let name = instance.text_at(&["instanceState", "name"]).unwrap_or_default();
    wanted.iter().any(|state| state.name() == name)
}

/// The answer of a call that changes states: the state before and the one now.
pub fn state_changes(
    change: Change,
    instances: &[(String, HostState, HostState)],
) -> Response<Body> {
    let name = format!("{}Response", change.name());
    if change == Change::Reboot {
        return simple(&name, vec![Element::leaf("return", "true")]);
    }
    let items = instances
        .iter()
        .map(|(id, before, now)| {
            let parts = vec![
                Element::leaf("instanceId", id),
                state_element("currentState", *now),
                state_element("previousState", *before),
            ];
            Element::node("item", parts)
        })
        .collect();
    simple(&name, vec![Element::node("instancesSet", items)])
}

pub(super) fn state_element(name: &str, state: HostState) -> Element {
    Element::node(
        name,
        vec![Element::leaf("code", &state.code().to_string()), Element::leaf("name", state.name())],
    )
}

/// Operations that moto would answer although nothing behind the answer would be true. (The API reference names them.)
pub const REFUSED: [&str; 33] = [
    "AcceptTransitGatewayVpcAttachment",
    "AcceptVpcPeeringConnection",
    "AssignIpv6Addresses",
    "AssignPrivateIpAddresses",
    "AttachNetworkInterface",
    "AttachVpnGateway",
    "CopyImage",
    "CreateCarrierGateway",
    "CreateCustomerGateway",
    "CreateFleet",
    "CreateImage",
    "CreateTransitGateway",
    "CreateTransitGatewayPeeringAttachment",
    "CreateTransitGatewayRoute",
    "CreateTransitGatewayVpcAttachment",
    "CreateVpcPeeringConnection",
    "CreateVpnConnection",
    "CreateVpnGateway",
    "DeleteLaunchTemplateVersions",
    "DetachNetworkInterface",
    "ImportImage",
    "ImportSnapshot",
    "RegisterImage",
    "RequestSpotFleet",
    "RequestSpotInstances",
    "ResetInstanceAttribute",
    "RunScheduledInstances",
    "SendDiagnosticInterrupt",
    "StartNetworkInsightsAnalysis",
    "UnassignIpv6Addresses",
    "UnassignPrivateIpAddresses",
    "EnableSerialConsoleAccess",
    "CreateReplaceRootVolumeTask",
];

/// What of a request would be pretended: the operation, or a parameter of one that is else made true.
pub fn pretended(operation: &str, form: &Form) -> Option<String> {
    if REFUSED.contains(&operation) {
        return Some(operation.to_owned());
    }
    match operation {
        // Terraform's provider always says whether to hibernate; only `true` needs more than there is.
        "RunInstances" => form
            .names()
            .filter(|name| {
                *name != "HibernationOptions.Configured" || form.get(name) == Some("true")
            })
            .find_map(run_instances_parameter),
        _ => None,
    }
}

fn run_instances_parameter(name: &str) -> Option<String> {
    let beyond_first = name
        .strip_prefix("NetworkInterface.")
        .and_then(|rest| rest.split('.').next())
        .is_some_and(|number| number != "1");
    let refused = [
        "InstanceMarketOptions.",
        "InstanceRequirements.",
        "HibernationOptions.",
        "Ipv6Address",
        "SecondaryInterface",
    ];
    if beyond_first {
        Some("RunInstances with more than one network interface".to_owned())
    } else if refused.iter().any(|prefix| name.starts_with(prefix)) || name.contains(".Ipv6Address")
    {
        Some(format!("RunInstances with {name}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(states: &[(&str, &str)]) -> Element {
        let items: String = states
            .iter()
            .map(|(id, state)| {
                format!(
                    "<item><instancesSet><item><instanceId>{id}</instanceId><instanceState><code>16</code>\
                     <name>{state}</name></instanceState></item></instancesSet></item>"
                )
            })
            .collect();
        Element::parse(&format!("<R><reservationSet>{items}</reservationSet></R>")).expect("XML")
    }

    #[test]
    fn a_state_filter_holds_for_the_true_state() {
        let mut form = Form::parse(
            b"Filter.1.Name=tag:a&Filter.1.Value.1=b&Filter.2.Name=instance-state-name&Filter.2.Value.1=stopping",
        );
        let wanted = take_state_filter(&mut form).expect("a filter");
        assert_eq!(wanted, [HostState::Stopping]);
        assert_eq!(form.list("Filter.2.Value").len(), 6);
        assert_eq!(form.list("Filter.1.Value"), ["b"]);

        let mut root = described(&[("i-1", "stopped"), ("i-2", "running")]);
        adjust_instances(&mut root, Some(&wanted), |id| {
            if id != "i-1" {
                return Truth::Unknown;
            }
            Truth::Known {
                state: HostState::Stopping,
                reason: None,
                launched: Timestamp::UNIX_EPOCH,
            }
        });
        let left: Vec<_> = root.items(&["reservationSet"]).collect();
        assert_eq!(left.len(), 1);
        assert_eq!(
            left[0].text_at(&["instancesSet", "item", "instanceState", "code"]).as_deref(),
            Some("64")
        );
    }

    #[test]
    fn a_launch_is_answered_as_pending_and_without_public_address() {
        let mut root = Element::parse(
            "<R><instancesSet><item><instanceId>i-1</instanceId><ipAddress>198.51.100.7</ipAddress>\
             <dnsName>ec2-1</dnsName><instanceState><code>16</code><name>running</name></instanceState>\
             <stateReason><code/><message/></stateReason><networkInterfaceSet><item><association/>\
             <macAddress>02</macAddress></item></networkInterfaceSet></item></instancesSet></R>",
        )
        .expect("XML");
        adjust_launch(&mut root);
        let text = root.write();
        assert!(!text.contains("198.51") && !text.contains("association"), "{text}");
        let at = |path: &[&str]| root.items(&["instancesSet"]).next().and_then(|i| i.text_at(path));
        assert_eq!(at(&["instanceState", "name"]).as_deref(), Some("pending"));
        assert_eq!(at(&["stateReason", "code"]).as_deref(), Some("pending"));
        assert_eq!(at(&["networkInterfaceSet", "item", "macAddress"]).as_deref(), Some("02"));
    }

    #[test]
    fn a_stopped_instance_says_why_and_a_gone_one_says_nothing() {
        let mut root = described(&[("i-1", "running"), ("i-2", "terminated")]);
        adjust_instances(&mut root, None, |id| match id {
            "i-2" => Truth::Gone,
            _ => Truth::Known {
                state: HostState::Stopped,
                reason: Some(Reason::user(Timestamp::UNIX_EPOCH)),
                launched: Timestamp::UNIX_EPOCH,
            },
        });
        let left: Vec<_> = root.items(&["reservationSet"]).collect();
        assert_eq!(left.len(), 1);
        let at = |name: &[&str]| {
            let path: Vec<&str> = ["instancesSet", "item"].iter().chain(name).copied().collect();
            left[0].text_at(&path).unwrap_or_default()
        };
        assert_eq!(at(&["stateReason", "code"]), "Client.UserInitiatedShutdown");
        assert_eq!(at(&["reason"]), "User initiated (1970-01-01 00:00:00 GMT)");
        assert_eq!(at(&["launchTime"]), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_cannot_be_true_is_named() {
        let check = |operation, form: &[u8], expected: Option<&str>| {
            assert_eq!(pretended(operation, &Form::parse(form)).as_deref(), expected);
        };
        check("CreateVpcPeeringConnection", b"", Some("CreateVpcPeeringConnection"));
        check("ModifyInstanceAttribute", b"UserData.Value=eA", None);
        check("RunInstances", b"NetworkInterface.1.DeviceIndex=0", None);
        check(
            "RunInstances",
            b"NetworkInterface.2.DeviceIndex=1",
            Some("RunInstances with more than one network interface"),
        );
        check(
            "RunInstances",
            b"InstanceMarketOptions.MarketType=spot",
            Some("RunInstances with InstanceMarketOptions.MarketType"),
        );
        check("DescribeVpcs", b"", None);
    }

    #[test]
    fn a_refusal_has_the_shape_of_an_ec2_error() {
        let refusal = Refusal::client("InvalidAMIID.NotFound", "no <ami>");
        assert_eq!(refusal.response().status(), StatusCode::BAD_REQUEST);
        assert_eq!(request_id().len(), 36);
    }
}
