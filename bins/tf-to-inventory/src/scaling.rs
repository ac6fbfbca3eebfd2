//! Auto Scaling groups → the hosts that are in them now: in service, healthy, running. [`resolve`] asks, page by page; the
//! rest is pure.
//!
//! Shapes: <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeAutoScalingGroups.html> and
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html>.

use crate::aws;
use crate::contract::{ScalingGroup, host_vars, is_instance_id};
use crate::xml::Element;
use deploy_aws::{Client, Error as AwsError, Pages};
use deploy_inventory::Host;
use std::collections::{BTreeMap, BTreeSet};

/// Groups named in one call (<https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeAutoScalingGroups.html>).
const NAMES_A_CALL: usize = 50;
/// Values of one filter (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Filter.html>).
const IDS_A_CALL: usize = 200;

/// Why the groups have no hosts.
#[derive(Debug)]
pub enum Fault {
    /// A call failed.
    Aws(AwsError),
    /// An answer that says something else than documented.
    Answer {
        /// The API operation.
        operation: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Groups that do not exist, each with its key in the output.
    Missing(Vec<String>),
}

/// An instance of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The instance ID.
    pub id: String,
    /// `InService`, `Pending`, `Terminating:Wait`, `Standby`, …
    pub lifecycle: String,
    /// `Healthy` or `Unhealthy`.
    pub health: String,
}

/// What EC2 says about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    state: String,
    private_ip: Option<String>,
    public_ip: Option<String>,
}

/// What became of a member.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// `GROUP/INSTANCE`.
    pub address: String,
    /// The host, or why there is none.
    pub host: Result<Host, String>,
}

/// Looks the hosts of all groups up.
///
/// # Errors
/// [`Fault`]; no group is left out.
pub(crate) async fn resolve(
    groups: &[ScalingGroup],
    region: &str,
    client: &Client,
) -> Result<Vec<Resolved>, Fault> {
    let names: BTreeSet<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let mut members = BTreeMap::new();
    for chunk in names.chunks(NAMES_A_CALL) {
        let mut token = None;
        let mut pages = Pages::of("autoscaling:DescribeAutoScalingGroups");
        loop {
            let mut parameters = listed("AutoScalingGroupNames.member", chunk);
            parameters.push(("MaxRecords".into(), "100".into()));
            parameters.extend(token.map(|token| ("NextToken".to_owned(), token)));
            let text =
                aws::describe_auto_scaling_groups(client, parameters).await.map_err(Fault::Aws)?;
            let next = groups_page(&text, &mut members)?;
            token = pages.next(next.as_deref()).map_err(Fault::Aws)?;
            if token.is_none() {
                break;
            }
        }
    }
    let missing: Vec<String> = groups
        .iter()
        .filter(|group| !members.contains_key(&group.name))
        .map(|group| format!("`{}` (`{}`)", group.name, group.key))
        .collect();
    if !missing.is_empty() {
        return Err(Fault::Missing(missing));
    }
    let ids: BTreeSet<&str> = members
        .values()
        .flatten()
        .filter(|member| refused(member).is_none())
        .map(|member| member.id.as_str())
        .collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let mut instances = BTreeMap::new();
    for chunk in ids.chunks(IDS_A_CALL) {
        let mut token = None;
        let mut pages = Pages::of("ec2:DescribeInstances");
        loop {
            let mut parameters = listed("Filter.1.Value", chunk);
            parameters.push(("Filter.1.Name".into(), "instance-id".into()));
            parameters.push(("MaxResults".into(), "1000".into()));
            parameters.extend(token.map(|token| ("NextToken".to_owned(), token)));
            let text = aws::describe_instances(client, parameters).await.map_err(Fault::Aws)?;
            let next = instances_page(&text, &mut instances)?;
            token = pages.next(next.as_deref()).map_err(Fault::Aws)?;
            if token.is_none() {
                break;
            }
        }
    }
    Ok(groups
        .iter()
        .flat_map(|group| hosts(group, region, &members[&group.name], &instances))
        .collect())
}

fn listed(name: &str, values: &[&str]) -> Vec<(String, String)> {
    let numbered = values.iter().enumerate();
    numbered.map(|(at, value)| (format!("{name}.{}", at + 1), (*value).to_owned())).collect()
}

/// Adds one page of `DescribeAutoScalingGroups`; returns the token of the next one.
///
/// # Errors
/// [`Fault::Answer`] when it says something else.
pub fn groups_page(
    text: &str,
    found: &mut BTreeMap<String, Vec<Member>>,
) -> Result<Option<String>, Fault> {
    let broken = |why: &str| Fault::Answer {
        operation: "autoscaling:DescribeAutoScalingGroups",
        why: why.to_owned(),
    };
    let root = Element::parse(text).map_err(|why| broken(&why))?;
    let result = root
        .child("DescribeAutoScalingGroupsResult")
        .ok_or_else(|| broken("it has no DescribeAutoScalingGroupsResult"))?;
    for group in result.items("AutoScalingGroups", "member") {
        let name =
            group.text("AutoScalingGroupName").ok_or_else(|| broken("a group has no name"))?;
        let members = found.entry(name.to_owned()).or_default();
        for instance in group.items("Instances", "member") {
            let text = |name: &str| instance.text(name).unwrap_or_default().to_owned();
            let member = Member {
                id: text("InstanceId"),
                lifecycle: text("LifecycleState"),
                health: text("HealthStatus"),
            };
            if !is_instance_id(&member.id) {
                return Err(broken("a member has no instance ID"));
            }
            members.push(member);
        }
    }
    Ok(result.text("NextToken").map(str::to_owned))
}

/// Adds one page of `DescribeInstances`; returns the token of the next one.
///
/// # Errors
/// [`Fault::Answer`] when it says something else.
pub fn instances_page(
    text: &str,
    found: &mut BTreeMap<String, Instance>,
) -> Result<Option<String>, Fault> {
    let broken =
        |why: &str| Fault::Answer { operation: "ec2:DescribeInstances", why: why.to_owned() };
    let root = Element::parse(text).map_err(|why| broken(&why))?;
    if root.child("reservationSet").is_none() {
        return Err(broken("it has no reservationSet"));
    }
    for reservation in root.items("reservationSet", "item") {
        for instance in reservation.items("instancesSet", "item") {
            let id = instance.text("instanceId").ok_or_else(|| broken("an instance has no ID"))?;
            let state = instance.child("instanceState").and_then(|state| state.text("name"));
            let text = |name: &str| instance.text(name).map(str::to_owned);
            found.insert(
                id.to_owned(),
                Instance {
                    state: state.unwrap_or_default().to_owned(),
                    private_ip: text("privateIpAddress"),
                    public_ip: text("ipAddress"),
                },
            );
        }
    }
    Ok(root.text("nextToken").map(str::to_owned))
}

/// Why a member is no host, by what its group says.
fn refused(member: &Member) -> Option<String> {
    if member.lifecycle != "InService" {
        return Some(format!("not in service: {}", member.lifecycle));
    }
    (member.health != "Healthy").then(|| format!("not healthy: {}", member.health))
}

fn hosts(
    group: &ScalingGroup,
    region: &str,
    members: &[Member],
    instances: &BTreeMap<String, Instance>,
) -> Vec<Resolved> {
    let mut members: Vec<&Member> = members.iter().collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let resolved = |member: &Member| Resolved {
        address: format!("{}/{}", group.name, member.id),
        host: host(group, region, member, instances.get(&member.id)),
    };
    members.into_iter().map(resolved).collect()
}

fn host(
    group: &ScalingGroup,
    region: &str,
    member: &Member,
    instance: Option<&Instance>,
) -> Result<Host, String> {
    if let Some(why) = refused(member) {
        return Err(why);
    }
    let Instance { state, private_ip, public_ip } =
        instance.ok_or("EC2 does not know it (any more)")?;
    if state != "running" {
        return Err(format!("not running: {state}"));
    }
    if private_ip.is_none() {
        return Err("has no private address".to_owned());
    }
    let id = Some(member.id.as_str());
    let mut vars = group.vars.clone();
    vars.extend(host_vars(id, Some(region), private_ip.as_deref(), public_ip.as_deref()));
    vars.sort_keys();
    Ok(Host {
        name: format!("{}-{}", group.key, member.id),
        instance_id: Some(member.id.clone()),
        region: Some(region.to_owned()),
        private_ip: private_ip.clone(),
        public_ip: public_ip.clone(),
        groups: group.groups.clone(),
        vars,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Map;

    const GROUPS: &str = r#"<DescribeAutoScalingGroupsResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/">
        <DescribeAutoScalingGroupsResult><AutoScalingGroups><member><AutoScalingGroupName>a&amp;b</AutoScalingGroupName><Instances>
        <member><InstanceId>i-0123456789abcdef1</InstanceId><LifecycleState>InService</LifecycleState><HealthStatus>Healthy</HealthStatus></member>
        <member><InstanceId>i-0123456789abcdef0</InstanceId><LifecycleState>Terminating:Wait</LifecycleState><HealthStatus>Healthy</HealthStatus></member>
        <member><InstanceId>i-0123456789abcdef2</InstanceId><LifecycleState>InService</LifecycleState><HealthStatus>Unhealthy</HealthStatus></member>
        </Instances></member></AutoScalingGroups><NextToken>more</NextToken></DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>"#;
    const INSTANCES: &str = "<DescribeInstancesResponse><reservationSet><item><instancesSet><item>
        <instanceId>i-0123456789abcdef1</instanceId><privateIpAddress>10.0.0.5</privateIpAddress><ipAddress/>
        <instanceState><code>16</code><name>running</name></instanceState></item></instancesSet></item></reservationSet></DescribeInstancesResponse>";

    #[test]
    fn only_what_is_in_service_healthy_and_running_becomes_a_host() {
        let (mut members, mut instances) = (BTreeMap::new(), BTreeMap::new());
        assert_eq!(groups_page(GROUPS, &mut members).unwrap().as_deref(), Some("more"));
        assert_eq!(instances_page(INSTANCES, &mut instances).unwrap(), None);
        let group = ScalingGroup {
            key: "web".into(),
            name: "a&b".into(),
            region: None,
            groups: vec!["web".into()],
            vars: Map::new(),
        };
        let found = hosts(&group, "us-east-1", &members["a&b"], &instances);
        let seen: Vec<_> = found
            .iter()
            .map(|found| found.host.as_ref().map(|host| host.name.as_str()).map_err(String::as_str))
            .collect();
        assert_eq!(
            seen,
            [
                Err("not in service: Terminating:Wait"),
                Ok("web-i-0123456789abcdef1"),
                Err("not healthy: Unhealthy"),
            ]
        );
        assert_eq!(found[1].host.as_ref().unwrap().public_ip, None);
        assert_eq!(found[1].address, "a&b/i-0123456789abcdef1");
        instances.clear();
        assert!(hosts(&group, "us-east-1", &members["a&b"], &instances)[1].host.is_err());
    }

    #[test]
    fn answers_that_say_something_else_are_no_empty_groups() {
        let mut found = BTreeMap::new();
        assert!(groups_page("<html></html>", &mut found).is_err());
        assert!(groups_page("", &mut found).is_err());
        assert!(instances_page("<a><b></a>", &mut BTreeMap::new()).is_err());
        assert!(instances_page("{}", &mut BTreeMap::new()).is_err());
    }
}
