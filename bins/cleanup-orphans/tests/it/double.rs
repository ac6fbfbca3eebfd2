//! A double of EC2 and STS that is strict where moto is not: it refuses to delete what is in use, answers in small
//! pages with empty ones between, and remembers every call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// The account that STS names.
pub(crate) const ACCOUNT: &str = "123456789012";

/// A resource in the double. `body` is the XML that its description holds besides ID and tags.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) body: String,
    /// IDs that must be gone before this can be deleted.
    pub(crate) blocked_by: Vec<String>,
}

/// What the double holds and was asked.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) things: BTreeMap<String, Thing>,
    pub(crate) calls: Vec<String>,
    /// Operations that answer with this HTTP status and code.
    pub(crate) broken: BTreeMap<&'static str, (u16, &'static str)>,
    /// How many looks a terminated instance stays in shutting-down.
    pub(crate) lingering: usize,
    /// Things per page; no pages when 0.
    pub(crate) page: usize,
    /// `DescribeTags` calls Elastic IPs `vpc-elastic-ip`, as moto does.
    pub(crate) odd_names: bool,
    /// After this operation was called, a tag of this thing is taken away.
    pub(crate) untag_after: Option<(&'static str, String)>,
}

/// Describe operations: EC2's name of the type, member of the answer, name of the ID, name of the tag list.
const DESCRIBE: [(&str, &str, &str, &str, &str); 14] = [
    ("DescribeInstances", "instance", "instancesSet", "instanceId", "tagSet"),
    ("DescribeAddresses", "elastic-ip", "addressesSet", "allocationId", "tagSet"),
    (
        "DescribeNetworkInterfaces",
        "network-interface",
        "networkInterfaceSet",
        "networkInterfaceId",
        "tagSet",
    ),
    ("DescribeVolumes", "volume", "volumeSet", "volumeId", "tagSet"),
    ("DescribeSnapshots", "snapshot", "snapshotSet", "snapshotId", "tagSet"),
    ("DescribeSecurityGroups", "security-group", "securityGroupInfo", "groupId", "tagSet"),
    (
        "DescribeSecurityGroupRules",
        "security-group-rule",
        "securityGroupRuleSet",
        "securityGroupRuleId",
        "tagSet",
    ),
    ("DescribeNatGateways", "natgateway", "natGatewaySet", "natGatewayId", "tagSet"),
    ("DescribeSubnets", "subnet", "subnetSet", "subnetId", "tagSet"),
    ("DescribeRouteTables", "route-table", "routeTableSet", "routeTableId", "tagSet"),
    ("DescribeNetworkAcls", "network-acl", "networkAclSet", "networkAclId", "tagSet"),
    (
        "DescribeInternetGateways",
        "internet-gateway",
        "internetGatewaySet",
        "internetGatewayId",
        "tagSet",
    ),
    ("DescribeVpcs", "vpc", "vpcSet", "vpcId", "tagSet"),
    ("DescribeLaunchTemplates", "launch-template", "launchTemplates", "launchTemplateId", "tagSet"),
];

const DELETE: [(&str, &str); 6] = [
    ("TerminateInstances", "InstanceId.1"),
    ("ReleaseAddress", "AllocationId"),
    ("DeleteNetworkInterface", "NetworkInterfaceId"),
    ("DeleteVolume", "VolumeId"),
    ("DeleteSnapshot", "SnapshotId"),
    ("DeleteSecurityGroup", "GroupId"),
];

/// A running double.
#[derive(Debug)]
pub(crate) struct Double {
    server: MockServer,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Double {
    pub(crate) async fn start(things: Vec<Thing>) -> Self {
        let things = things.into_iter().map(|thing| (thing.id.clone(), thing)).collect();
        let state = Arc::new(Mutex::new(State { things, ..State::default() }));
        let server = MockServer::start().await;
        Mock::given(wiremock::matchers::any())
            .respond_with(Answer(Arc::clone(&state)))
            .mount(&server)
            .await;
        Self { server, state }
    }

    pub(crate) fn uri(&self) -> String {
        self.server.uri()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Calls that change something, in their order.
    pub(crate) fn changes(&self) -> Vec<String> {
        let calls = self.calls();
        let reads =
            |call: &String| call.starts_with("Describe") || call.starts_with("GetCallerIdentity");
        calls.into_iter().filter(|call| !reads(call)).collect()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.state.lock().unwrap().things.keys().cloned().collect()
    }
}

struct Answer(Arc<Mutex<State>>);

impl Respond for Answer {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let form: BTreeMap<String, String> = url_form(&request.body);
        let action = form.get("Action").cloned().unwrap_or_default();
        let mut state = self.0.lock().unwrap();
        let deletes = DELETE.iter().find(|(name, _)| *name == action);
        let target = deletes.and_then(|(_, field)| form.get(*field)).cloned();
        state.calls.push(match &target {
            Some(id) => format!("{action} {id}"),
            None => action.clone(),
        });
        if let Some((status, code)) = state.broken.get(action.as_str()) {
            return error(*status, code, "told to fail");
        }
        if let Some((operation, id)) =
            state.untag_after.clone().filter(|(operation, _)| *operation == action)
        {
            let _ = operation;
            if let Some(thing) = state.things.get_mut(&id) {
                thing.tags.retain(|(key, _)| key != "environment");
            }
        }
        match (action.as_str(), target) {
            ("GetCallerIdentity", _) => xml(&format!(
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
                 <Arn>arn:aws:iam::{ACCOUNT}:user/x</Arn><UserId>x</UserId><Account>{ACCOUNT}</Account>\
                 </GetCallerIdentityResult></GetCallerIdentityResponse>"
            )),
            ("DescribeTags", _) => describe_tags(&state, &form),
            (_, Some(id)) => delete(&mut state, &action, &id),
            _ => match DESCRIBE.iter().find(|(name, ..)| *name == action) {
                Some(row) => describe(&mut state, row, &form),
                None => error(400, "InvalidAction", &action),
            },
        }
    }
}

fn describe_tags(state: &State, form: &BTreeMap<String, String>) -> ResponseTemplate {
    let filters = filters(form);
    let mut items = Vec::new();
    for thing in state.things.values() {
        for (key, value) in &thing.tags {
            let wanted = filters.iter().all(|(name, wanted)| match name.as_str() {
                "key" => wanted == key,
                "value" => wanted == value,
                _ => false,
            });
            if wanted {
                let odd = state.odd_names && thing.kind == "elastic-ip";
                let type_name = if odd { "vpc-elastic-ip" } else { thing.kind };
                items.push(format!(
                    "<item><resourceId>{}</resourceId><resourceType>{}</resourceType><key>{key}</key><value>{value}</value></item>",
                    thing.id, type_name
                ));
            }
        }
    }
    paged("DescribeTags", "tagSet", &items, state.page, form)
}

fn describe(
    state: &mut State,
    (action, kind, member, id_name, tags_name): &(&str, &str, &str, &str, &str),
    form: &BTreeMap<String, String>,
) -> ResponseTemplate {
    let filters = filters(form);
    let mut items = Vec::new();
    for thing in state.things.values().filter(|thing| thing.kind == *kind) {
        let wanted = filters.iter().all(|(name, value)| match name.strip_prefix("tag:") {
            Some(key) => thing.tags.iter().any(|tag| tag.0 == key && tag.1 == *value),
            None => thing.body.contains(value.as_str()),
        });
        if wanted {
            let tags: String = thing
                .tags
                .iter()
                .map(|(key, value)| format!("<item><key>{key}</key><value>{value}</value></item>"))
                .collect();
            let item = format!(
                "<item><{id_name}>{}</{id_name}><{tags_name}>{tags}</{tags_name}>{}</item>",
                thing.id, thing.body
            );
            items.push(if *kind == "instance" {
                format!("<item><instancesSet>{item}</instancesSet></item>")
            } else {
                item
            });
        }
    }
    let answer = paged(
        action,
        if *kind == "instance" { "reservationSet" } else { member },
        &items,
        state.page,
        form,
    );
    if *kind == "instance" {
        if state.lingering > 0 {
            state.lingering -= 1;
        } else {
            // The machine is gone, and what was attached to it is free.
            let ended: Vec<String> = state
                .things
                .values()
                .filter(|thing| thing.body.contains("shutting-down"))
                .map(|thing| thing.id.clone())
                .collect();
            for id in &ended {
                if let Some(thing) = state.things.get_mut(id) {
                    thing.body = thing.body.replace("shutting-down", "terminated");
                }
                for thing in state
                    .things
                    .values_mut()
                    .filter(|thing| thing.kind != "instance" && thing.body.contains(id))
                {
                    thing.body = String::new();
                }
            }
        }
    }
    answer
}

fn delete(state: &mut State, action: &str, id: &str) -> ResponseTemplate {
    let Some(thing) = state.things.get(id).cloned() else {
        return error(400, "InvalidID.NotFound", "no such thing");
    };
    if thing.blocked_by.iter().any(|blocker| state.things.contains_key(blocker)) {
        return error(400, "DependencyViolation", "it has a dependent object");
    }
    if thing.kind != "instance" && thing.body.contains("<instanceId>") {
        return error(400, "VolumeInUse", "it is attached");
    }
    if thing.kind == "instance" {
        if let Some(thing) = state.things.get_mut(id) {
            thing.body = thing.body.replace("running", "shutting-down");
        }
    } else {
        state.things.remove(id);
    }
    xml(&format!(
        "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId><return>true</return></{action}Response>"
    ))
}

/// Pages of `page` things, each followed by an empty page that still has a token.
fn paged(
    action: &str,
    member: &str,
    items: &[String],
    page: usize,
    form: &BTreeMap<String, String>,
) -> ResponseTemplate {
    let at: usize = form.get("NextToken").and_then(|token| token.parse().ok()).unwrap_or(0);
    let (content, token) = if page == 0 {
        (items.concat(), String::new())
    } else {
        let start = at / 2 * page;
        let shown = if at.is_multiple_of(2) {
            items.iter().skip(start).take(page).cloned().collect()
        } else {
            String::new()
        };
        let more =
            if at.is_multiple_of(2) { start < items.len() } else { start + page < items.len() };
        (shown, if more { format!("<nextToken>{}</nextToken>", at + 1) } else { String::new() })
    };
    xml(&format!(
        "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId><{member}>{content}</{member}>{token}</{action}Response>"
    ))
}

fn filters(form: &BTreeMap<String, String>) -> Vec<(String, String)> {
    (1..)
        .map_while(|n| {
            Some((
                form.get(&format!("Filter.{n}.Name"))?.clone(),
                form.get(&format!("Filter.{n}.Value.1"))?.clone(),
            ))
        })
        .collect()
}

fn xml(body: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body.to_owned(), "text/xml")
}

fn error(status: u16, code: &str, message: &str) -> ResponseTemplate {
    let body = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
    );
    ResponseTemplate::new(status).set_body_raw(body, "text/xml")
}

fn url_form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decoded(key), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).unwrap()
}
