//! Which operations are made true, which are only answered, and which are refused: the list that people read.
//!
//! The table in `docs/rehearsal-coverage.md` is this one; a test compares them. That it is the truth is compared with every
//! answer's own mark ([`HEADER`]), which is set where the answer is made and knows nothing of this list: for all
//! operations that the sources name in `tests/it`, and for all calls of the tests with real hosts.

use axum::http::{HeaderValue, Response, StatusCode};

use crate::{autoscaling, ec2, ssm};

/// Header of an answer that says what it is worth: the name of its [`Class`].
pub const HEADER: &str = "x-local-cloud";

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// What it says is so: a host, its network, its agent stand behind it.
    True,
    /// The emulator's own, stored and shown again.
    Answered,
    /// `NotImplemented`, since nothing true would stand behind it.
    Refused,
}

impl Class {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::Answered => "answered",
            Self::Refused => "refused",
        }
    }
}

/// An operation that is made true.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// Its name in the API.
    pub name: &'static str,
    /// What of it is refused or differs; empty when nothing is.
    pub note: &'static str,
}

/// A service of which something is made true or refused. All others are answered.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Signing name.
    pub name: &'static str,
    /// As people call it.
    pub title: &'static str,
    /// What is made true.
    pub made_true: &'static [Operation],
    /// What is answered; where it is empty, the rest.
    pub answered: &'static [&'static str],
    /// What is refused; where it is empty and `answered` is not, the rest. With `*` at the end, an entry is the beginning of names.
    pub refused: &'static [&'static str],
}

impl Service {
    /// The class of an operation. One that is made true may refuse some of its parameters all the same.
    pub fn class(&self, operation: &str) -> Class {
        if self.made_true.iter().any(|known| known.name == operation) {
            Class::True
        } else if self.refused.iter().any(|entry| fits(entry, operation)) {
            Class::Refused
        } else if self.answered.is_empty() || self.answered.contains(&operation) {
            Class::Answered
        } else {
            Class::Refused
        }
    }
}

/// Whether an operation is meant by an entry of a list.
fn fits(entry: &str, operation: &str) -> bool {
    match entry.strip_suffix('*') {
        Some(start) => operation.starts_with(start),
        None => operation == entry,
    }
}

const fn op(name: &'static str) -> Operation {
    Operation { name, note: "" }
}

const fn noted(name: &'static str, note: &'static str) -> Operation {
    Operation { name, note }
}

const EC2: &[Operation] = &[
    op("AssociateAddress"),
    op("AssociateIamInstanceProfile"),
    op("AssociateRouteTable"),
    op("AttachInternetGateway"),
    noted("AuthorizeSecurityGroupEgress", "IPv4"),
    noted("AuthorizeSecurityGroupIngress", "IPv4"),
    noted("CreateLaunchTemplateVersion", "with what its source version holds"),
    op("CreateNatGateway"),
    op("CreateNetworkAclEntry"),
    op("CreateRoute"),
    op("CreateTags"),
    op("CreateVpc"),
    noted("CreateVpcEndpoint", "interface endpoints with private DNS, gateway endpoints of S3"),
    op("DeleteNatGateway"),
    noted("DeleteNetworkAcl", "refused while it is a default one or in use"),
    op("DeleteNetworkAclEntry"),
    noted("DeleteNetworkInterface", "refused while it is in use"),
    op("DeleteRoute"),
    noted("DeleteRouteTable", "refused while it is a main one or in use"),
    noted("DeleteSecurityGroup", "refused while an interface or another group's rule uses it"),
    noted("DeleteSubnet", "refused while an interface is in it"),
    op("DeleteTags"),
    noted("DeleteVpc", "refused while anything but its defaults is in it"),
    op("DeleteVpcEndpoints"),
    op("DescribeImages"),
    op("DescribeInstanceStatus"),
    op("DescribeInstances"),
    op("DescribeLaunchTemplateVersions"),
    op("DescribeNatGateways"),
    noted("DetachInternetGateway", "refused while a public address leads into the VPC"),
    noted("DisassociateAddress", "refused for the address of a NAT gateway"),
    op("DisassociateIamInstanceProfile"),
    op("DisassociateRouteTable"),
    op("GetConsoleOutput"),
    op("ModifyInstanceAttribute"),
    op("ModifyInstanceMetadataOptions"),
    op("ModifyManagedPrefixList"),
    op("ModifyNetworkInterfaceAttribute"),
    noted("ModifySecurityGroupRules", "another group or prefix list is refused"),
    op("ModifyVpcEndpoint"),
    op("RebootInstances"),
    noted("ReleaseAddress", "refused while it is in use"),
    op("ReplaceIamInstanceProfileAssociation"),
    op("ReplaceNetworkAclAssociation"),
    op("ReplaceNetworkAclEntry"),
    op("ReplaceRoute"),
    op("ReplaceRouteTableAssociation"),
    op("RevokeSecurityGroupEgress"),
    op("RevokeSecurityGroupIngress"),
    noted("RunInstances", "one network interface, IPv4, no spot market, no hibernation"),
    op("StartInstances"),
    op("StopInstances"),
    op("TerminateInstances"),
];

const SSM: &[Operation] = &[
    op("CancelCommand"),
    op("DescribeInstanceInformation"),
    op("GetCommandInvocation"),
    op("ListCommandInvocations"),
    op("ListCommands"),
    noted("SendCommand", "`AWS-RunShellScript`, and of `AWS-RunRemoteScript` what is read from S3"),
];

const AUTOSCALING: &[Operation] = &[
    op("AttachInstances"),
    op("CancelInstanceRefresh"),
    noted(
        "CreateAutoScalingGroup",
        "from a launch template, on-demand; no load balancers, hooks, mixed instances, maintenance policies",
    ),
    op("CreateOrUpdateTags"),
    op("DeleteAutoScalingGroup"),
    op("DeleteTags"),
    op("DescribeAutoScalingGroups"),
    op("DescribeAutoScalingInstances"),
    op("DescribeInstanceRefreshes"),
    noted("DescribeLifecycleHooks", "there are none"),
    noted("DescribeLoadBalancerTargetGroups", "there are none"),
    noted("DescribeLoadBalancers", "there are none"),
    noted("DescribeNotificationConfigurations", "there are none"),
    noted("DescribePolicies", "there are none"),
    noted("DescribeScalingActivities", "no filters"),
    noted("DescribeScheduledActions", "there are none"),
    op("DescribeTags"),
    noted("DescribeTrafficSources", "there are none"),
    noted("DescribeWarmPool", "there is none"),
    op("DetachInstances"),
    op("EnterStandby"),
    op("ExitStandby"),
    op("ResumeProcesses"),
    op("SetDesiredCapacity"),
    op("SetInstanceHealth"),
    op("SetInstanceProtection"),
    noted("StartInstanceRefresh", "rolling; no checkpoints, roll-back, alarms, bake time"),
    op("SuspendProcesses"),
    op("TerminateInstanceInAutoScalingGroup"),
    op("UpdateAutoScalingGroup"),
];

/// Services of which something is made true.
pub const MADE_TRUE: &[Service] = &[
    Service {
        name: "ec2",
        title: "EC2",
        made_true: EC2,
        answered: &[],
        refused: &ec2::answers::REFUSED,
    },
    Service {
        name: "autoscaling",
        title: "Auto Scaling",
        made_true: AUTOSCALING,
        answered: &autoscaling::PASSED,
        refused: &[],
    },
    Service {
        name: "ssm",
        title: "Systems Manager",
        made_true: SSM,
        answered: &ssm::PASSED,
        refused: &[],
    },
];

/// Services that only pass, but for what is refused; the operation stands in the request's fields.
pub const ELSEWHERE: &[Service] = &[
    elsewhere("rds", "RDS", &["CreateDBInstance*", "CreateDBCluster*", "RestoreDB*"]),
    elsewhere("elasticloadbalancing", "Elastic Load Balancing", &["CreateLoadBalancer*"]),
    elsewhere(
        "elasticache",
        "ElastiCache",
        &["CreateCacheCluster*", "CreateReplicationGroup*", "CreateServerlessCache*"],
    ),
    elsewhere("ecs", "ECS", &["RunTask*", "StartTask*", "CreateService*"]),
    elsewhere(
        "cloudformation",
        "CloudFormation",
        &[
            "CreateChangeSet",
            "CreateStack*",
            "ExecuteChangeSet",
            "ExecuteStackRefactor",
            "ImportStacksToStackSet",
            "UpdateStack*",
        ],
    ),
];

/// Amazon MQ, whose operations are paths.
const MQ: Service = elsewhere("mq", "Amazon MQ", &["CreateBroker"]);

const fn elsewhere(
    name: &'static str,
    title: &'static str,
    refused: &'static [&'static str],
) -> Service {
    Service { name, title, made_true: &[], answered: &[], refused }
}

/// All services of which something is made true or refused.
pub fn services() -> impl Iterator<Item = &'static Service> {
    MADE_TRUE.iter().chain(ELSEWHERE).chain([&MQ])
}

/// Marks an answer unless it is marked already; 501 is always a refusal.
pub fn mark<B>(mut response: Response<B>, class: Class) -> Response<B> {
    let class =
        if response.status() == StatusCode::NOT_IMPLEMENTED { Class::Refused } else { class };
    response.headers_mut().entry(HEADER).or_insert(HeaderValue::from_static(class.name()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> &'static Service {
        services().find(|service| service.name == name).expect("a service")
    }

    #[test]
    fn an_operation_has_one_class() {
        let check = |name: &str, operation: &str, expected: Class| {
            assert_eq!(service(name).class(operation), expected, "{name} {operation}");
        };
        check("ec2", "RunInstances", Class::True);
        check("ec2", "DescribeVpcs", Class::Answered);
        check("ec2", "CreateVpcPeeringConnection", Class::Refused);
        check("ssm", "SendCommand", Class::True);
        check("ssm", "PutParameter", Class::Answered);
        check("ssm", "StartSession", Class::Refused);
        check("ec2", "CreateImageUsageReport", Class::Answered);
        check("rds", "CreateDBInstanceReadReplica", Class::Refused);
        check("rds", "DescribeDBInstances", Class::Answered);
        for service in services() {
            for operation in service.made_true {
                let twice = service.refused.iter().chain(service.answered);
                assert!(
                    twice.clone().all(|other| *other != operation.name),
                    "{} {} is in two lists",
                    service.name,
                    operation.name
                );
            }
        }
    }

    #[test]
    fn a_mark_stays() {
        let response = mark(mark(Response::new(()), Class::Answered), Class::True);
        assert_eq!(response.headers()[HEADER], "answered");
        let mut refusal = Response::new(());
        *refusal.status_mut() = StatusCode::NOT_IMPLEMENTED;
        assert_eq!(mark(refusal, Class::True).headers()[HEADER], "refused");
    }
}
