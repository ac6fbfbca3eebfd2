//! Eventual consistency on request: reads that answer as before a change.
//!
//! While a `stale-describe` fault is there, answers to reads are remembered, changes are noted with their time, and so
//! are the ids that a change made. For the fault's delay after a change, a read is then answered in one of two ways:
//! the same read asked before the change gets its answer of then; what was made by the change is not known, so that a
//! read naming it fails (EC2's `Invalid….NotFound`, Systems Manager's `InvocationDoesNotExist`) and lists do not show
//! it. S3 is left out: it is consistent, also on AWS.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::time::Instant;

use super::protocol::ServiceError;
use crate::xml::Element;

/// Answers remembered at most, and their size together.
const MOST_ANSWERS: usize = 400;
const MOST_BYTES: usize = 8 << 20;
/// Ids remembered at most.
const MOST_BORN: usize = 400;

/// Identifies a read: service, region, and everything that it asks for.
pub type Read = [u8; 32];

/// An answer as it was given.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// How a stale answer comes about.
#[derive(Debug, Clone)]
pub enum Stale {
    /// The answer from before the change.
    Replay(Remembered),
    /// What is asked for is not known yet.
    Unknown(ServiceError),
    /// An empty list of this name.
    Empty(&'static str),
    /// The present answer without these ids.
    Without(Vec<String>),
}

/// What has to be remembered.
#[derive(Debug, Default)]
pub struct Past(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    answers: VecDeque<(Read, Instant, Remembered)>,
    bytes: usize,
    /// Last change of a service in a region.
    changes: BTreeMap<String, Instant>,
    born: VecDeque<Born>,
}

#[derive(Debug)]
struct Born {
    place: String,
    id: String,
    at: Instant,
}

/// Whether an operation only reads.
pub fn is_read(service: &str, operation: &str) -> bool {
    const READS: [&str; 8] =
        ["Describe", "Get", "List", "Lookup", "Search", "BatchGet", "GET ", "HEAD "];
    // Not reads of anything that changes: who one is, a password to use once.
    const NOT: [&str; 4] =
        ["GetCallerIdentity", "GetSessionToken", "GetRandomPassword", "GetFederationToken"];
    !matches!(service, "s3" | "sts")
        && READS.iter().any(|start| operation.starts_with(start))
        && !NOT.contains(&operation)
}

/// Whether an operation changes something.
pub fn is_change(service: &str, operation: &str) -> bool {
    !matches!(service, "s3" | "sts") && !is_read(service, operation) && !operation.is_empty()
}

impl Past {
    /// How a read that is asked now would be answered if it were stale, and how long ago the change was that it does not know.
    pub fn look(
        &self,
        place: &str,
        operation: &str,
        read: &Read,
        request: &str,
    ) -> Option<(Duration, Stale)> {
        let inner = self.inner();
        let changed = *inner.changes.get(place)?;
        let age = changed.elapsed();
        if let Some((_, at, answer)) = inner.answers.iter().find(|(known, ..)| known == read)
            && *at < changed
        {
            return Some((age, Stale::Replay(answer.clone())));
        }
        let born: Vec<&Born> = inner.born.iter().filter(|born| born.place == place).collect();
        let names = |id: &str| ids(request).any(|word| word == id);
        if let Some(named) = born.iter().rev().find(|born| names(&born.id)) {
            let stale = unknown(place, operation, &named.id, request)?;
            return Some((named.at.elapsed(), stale));
        }
        // Who names what there was before, gets it.
        let explicit = |field: &str| {
            let name = field.split('=').next().unwrap_or_default();
            !name.starts_with("Filter.") && name.contains("Id")
        };
        if place.starts_with("ec2/") && !born.is_empty() && !request.split('&').any(explicit) {
            let newest = born.iter().map(|born| born.at.elapsed()).min()?;
            let ids = born.iter().map(|born| born.id.clone()).collect();
            return Some((newest, Stale::Without(ids)));
        }
        None
    }

    /// Remembers the answer to a read that was asked at this time.
    pub fn remember(&self, read: Read, asked: Instant, answer: Remembered) {
        let mut inner = self.inner();
        inner.bytes += answer.body.len();
        if let Some(at) = inner.answers.iter().position(|(known, ..)| *known == read)
            && let Some((_, _, old)) = inner.answers.remove(at)
        {
            inner.bytes -= old.body.len();
        }
        inner.answers.push_back((read, asked, answer));
        while inner.answers.len() > MOST_ANSWERS || inner.bytes > MOST_BYTES {
            let Some((_, _, old)) = inner.answers.pop_front() else { break };
            inner.bytes -= old.body.len();
        }
    }

    /// Notes a change that succeeded, with what it made.
    pub fn change(&self, place: &str, operation: &str, request: &str, answer: &str) {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.changes.insert(place.to_owned(), now);
        for id in made(operation, request, answer) {
            if inner.born.len() == MOST_BORN {
                inner.born.pop_front();
            }
            inner.born.push_back(Born { place: place.to_owned(), id, at: now });
        }
    }

    /// Forgets everything: there is no such fault any more.
    pub fn forget(&self) {
        *self.inner() = Inner::default();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which prefixes the ids have that an EC2 operation makes. A table, since answers also name what was there before.
fn prefixes(operation: &str) -> &'static [&'static str] {
    match operation {
        "RunInstances" => &["i", "eni", "vol"],
        "CreateVpc" => &["vpc"],
        "CreateSubnet" => &["subnet"],
        "CreateSecurityGroup" => &["sg"],
        "AuthorizeSecurityGroupIngress" | "AuthorizeSecurityGroupEgress" => &["sgr"],
        "AllocateAddress" => &["eipalloc"],
        "AssociateAddress" => &["eipassoc"],
        "CreateRouteTable" => &["rtb"],
        "AssociateRouteTable" => &["rtbassoc"],
        "CreateNatGateway" => &["nat"],
        "CreateInternetGateway" => &["igw"],
        "CreateVolume" => &["vol"],
        "CreateSnapshot" => &["snap"],
        "CreateNetworkInterface" => &["eni"],
        "CreateLaunchTemplate" => &["lt"],
        "CreateNetworkAcl" => &["acl"],
        "CreateVpcEndpoint" => &["vpce"],
        _ => &[],
    }
}

fn made(operation: &str, request: &str, answer: &str) -> Vec<String> {
    let mut made = Vec::new();
    let wanted = prefixes(operation);
    let command = operation == "SendCommand";
    if wanted.is_empty() && !command {
        return made;
    }
    for word in ids(answer) {
        let fits = match word.split_once('-') {
            Some((prefix, rest)) if !command => {
                wanted.contains(&prefix)
                    && rest.len() >= 8
                    && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
            }
            Some(_) => word.len() == 36,
            None => false,
        };
        if fits && !made.iter().any(|known| known == word) && !ids(request).any(|old| old == word) {
            made.push(word.to_owned());
        }
    }
    made
}

fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| word.contains('-'))
}

/// The answer to a read that names something which is not known yet; `None` where such a read does not fail.
fn unknown(place: &str, operation: &str, id: &str, request: &str) -> Option<Stale> {
    if place.starts_with("ssm/") {
        return Some(match operation {
            "ListCommands" => Stale::Empty("Commands"),
            "ListCommandInvocations" => Stale::Empty("CommandInvocations"),
            "GetCommandInvocation" => {
                Stale::Unknown(ServiceError::new(400, "InvocationDoesNotExist", ""))
            }
            _ => return None,
        });
    }
    if !place.starts_with("ec2/") {
        return None;
    }
    // A filter that fits nothing is no error.
    let filtered =
        request.split('&').any(|field| field.starts_with("Filter.") && field.ends_with(id));
    if filtered {
        return Some(Stale::Without(vec![id.to_owned()]));
    }
    let (code, message) = match id.split('-').next().unwrap_or_default() {
        "i" => ("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist")),
        "vpc" => ("InvalidVpcID.NotFound", format!("The vpc ID '{id}' does not exist")),
        "subnet" => ("InvalidSubnetID.NotFound", format!("The subnet ID '{id}' does not exist")),
        "sg" => ("InvalidGroup.NotFound", format!("The security group '{id}' does not exist")),
        "sgr" => (
            "InvalidSecurityGroupRuleId.NotFound",
            format!("The security group rule ID '{id}' does not exist"),
        ),
        "eipalloc" => {
            ("InvalidAllocationID.NotFound", format!("The allocation ID '{id}' does not exist"))
        }
        "rtb" => {
            ("InvalidRouteTableID.NotFound", format!("The routeTable ID '{id}' does not exist"))
        }
        "nat" => ("NatGatewayNotFound", format!("NatGateway {id} was not found")),
        "igw" => (
            "InvalidInternetGatewayID.NotFound",
            format!("The internetGateway ID '{id}' does not exist"),
        ),
        "vol" => ("InvalidVolume.NotFound", format!("The volume '{id}' does not exist.")),
        "snap" => ("InvalidSnapshot.NotFound", format!("The snapshot '{id}' does not exist.")),
        "eni" => (
            "InvalidNetworkInterfaceID.NotFound",
            format!("The networkInterface ID '{id}' does not exist"),
        ),
        "lt" => (
            "InvalidLaunchTemplateId.NotFound",
            format!("The specified launch template, with template ID {id}, does not exist."),
        ),
        "acl" => {
            ("InvalidNetworkAclID.NotFound", format!("The networkAcl ID '{id}' does not exist"))
        }
        "vpce" => {
            ("InvalidVpcEndpointId.NotFound", format!("The Vpc Endpoint Id '{id}' does not exist"))
        }
        _ => return Some(Stale::Without(vec![id.to_owned()])),
    };
    Some(Stale::Unknown(ServiceError::new(400, code, message)))
}

/// Takes the entries out of an EC2 answer that are about these ids, and reservations that are empty then.
pub fn without(root: &mut Element, ids: &[String]) {
    let gone = |item: &Element| {
        item.name == "item"
            && item
                .children
                .iter()
                .any(|leaf| leaf.children.is_empty() && ids.iter().any(|id| *id == leaf.text()))
    };
    let emptied = |item: &Element, before: bool| {
        before && item.child("instancesSet").is_some_and(|set| set.children.is_empty())
    };
    root.children.retain(|child| !gone(child));
    for child in &mut root.children {
        without(child, ids);
    }
    root.children.retain(|child| !emptied(child, child.name == "item"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "i-0123456789abcdef0";
    const COMMAND: &str = "6f1b3f0e-2b7d-4a55-9f3a-0123456789ab";

    fn answer(body: &str) -> Remembered {
        Remembered {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_owned()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_answered_as_before_the_change() {
        let (past, read) = (Past::default(), [1; 32]);
        let look = |past: &Past| past.look("ec2/r", "DescribeInstances", &read, "");
        assert!(look(&past).is_none());
        past.remember(read, Instant::now(), answer("before"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(look(&past).is_none(), "nothing has changed");
        past.change("ec2/r", "StopInstances", "", "");
        tokio::time::advance(Duration::from_secs(2)).await;
        let (age, stale) = look(&past).expect("stale");
        assert_eq!(age, Duration::from_secs(2));
        assert!(matches!(stale, Stale::Replay(answer) if answer.body == "before"));
        assert!(past.look("ec2/other", "DescribeInstances", &read, "").is_none());
        past.remember(read, Instant::now(), answer("after"));
        assert!(look(&past).is_none(), "the answer knows the change");
    }

    #[test]
    fn what_was_just_made_is_not_known() {
        let past = Past::default();
        let made = format!(
            "<instanceId>{INSTANCE}</instanceId><vpcId>vpc-0123456789abcdef0</vpcId><imageId>ami-0123456789abcdef0</imageId>"
        );
        past.change("ec2/r", "RunInstances", "ImageId=ami-0123456789abcdef0", &made);
        let look = |request: &str| {
            past.look("ec2/r", "DescribeInstances", &[2; 32], request).map(|(_, stale)| stale)
        };
        let named = look(&format!("InstanceId.1={INSTANCE}"));
        assert!(
            matches!(&named, Some(Stale::Unknown(error)) if error.code == "InvalidInstanceID.NotFound"),
            "{named:?}"
        );
        for request in ["", &format!("Filter.1.Value.1={INSTANCE}")] {
            let listed = look(request);
            assert!(
                matches!(&listed, Some(Stale::Without(ids)) if *ids == [INSTANCE]),
                "{listed:?}"
            );
        }
        assert!(look("InstanceId.1=i-00000000000000001").is_none(), "there before");
        past.change("ssm/r", "SendCommand", "{}", &format!(r#"{{"CommandId":"{COMMAND}"}}"#));
        let request = format!(r#"{{"CommandId":"{COMMAND}"}}"#);
        let ssm = |operation| past.look("ssm/r", operation, &[3; 32], &request).map(|(_, s)| s);
        let got = ssm("GetCommandInvocation");
        assert!(
            matches!(&got, Some(Stale::Unknown(error)) if error.code == "InvocationDoesNotExist"),
            "{got:?}"
        );
        assert!(matches!(ssm("ListCommandInvocations"), Some(Stale::Empty("CommandInvocations"))));
    }

    #[test]
    fn entries_of_unknown_things_are_left_out() {
        let item = |id: &str| format!("<item><instanceId>{id}</instanceId></item>");
        let reservation =
            |items: &str| format!("<item><instancesSet>{items}</instancesSet></item>");
        let text = format!(
            "<R><reservationSet>{}{}</reservationSet></R>",
            reservation(&item(INSTANCE)),
            reservation(&item("i-00000000000000001"))
        );
        let mut root = Element::parse(&text).expect("XML");
        without(&mut root, &[INSTANCE.to_owned()]);
        let left: Vec<_> = root.items(&["reservationSet"]).collect();
        assert_eq!(left.len(), 1);
        assert_eq!(
            left[0].text_at(&["instancesSet", "item", "instanceId"]).as_deref(),
            Some("i-00000000000000001")
        );
    }

    #[test]
    fn memory_is_bounded() {
        let past = Past::default();
        for number in 0..600_u32 {
            let mut read = [0; 32];
            read[..4].copy_from_slice(&number.to_be_bytes());
            past.remember(read, Instant::now(), answer(&"x".repeat(100_000)));
        }
        let inner = past.inner();
        assert!(inner.bytes <= MOST_BYTES && inner.answers.len() <= MOST_ANSWERS);
        let sum: usize = inner.answers.iter().map(|(_, _, answer)| answer.body.len()).sum();
        assert_eq!(inner.bytes, sum);
    }

    #[test]
    fn only_reads_can_be_stale() {
        for (service, operation, read) in [
            ("ec2", "DescribeInstances", true),
            ("iam", "GetRole", true),
            ("ec2", "RunInstances", false),
            ("s3", "GetObject", false),
            ("sts", "GetCallerIdentity", false),
            ("mq", "GET /v1/brokers", true),
        ] {
            assert_eq!(is_read(service, operation), read, "{service} {operation}");
        }
        assert!(is_change("ec2", "RunInstances") && !is_change("s3", "PutObject"));
    }
}
