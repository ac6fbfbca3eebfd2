//! The outside: what EC2 and STS say, as this tool's own types, and the calls that delete.

use crate::resource::{Kind, Resource};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Tag};
use deploy_aws::{Error, SdkConfig};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The two tags that everything of one environment carries.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Value of the tag `project`.
    pub project: String,
    /// Value of the tag `environment`.
    pub environment: String,
}

impl Scope {
    fn pairs(&self) -> [(&'static str, &str); 2] {
        [("project", &self.project), ("environment", &self.environment)]
    }

    fn filters(&self) -> Vec<Filter> {
        self.pairs().map(|(key, value)| filter(&format!("tag:{key}"), value)).to_vec()
    }

    /// EC2's filters know wildcards and may be looser than thought: what comes back is compared again.
    fn holds(&self, tags: &BTreeMap<String, String>) -> bool {
        self.pairs().iter().all(|(key, value)| tags.get(*key).is_some_and(|found| found == value))
    }
}

/// EC2 in one region, seen through one scope.
#[derive(Debug, Clone)]
pub struct Ec2 {
    client: Client,
    scope: Scope,
}

/// IDs by EC2's name of their type.
pub type Tagged = BTreeMap<String, BTreeSet<String>>;

/// Lists everything of one type with both tags; pages of the largest size that EC2 allows.
macro_rules! list {
    ($self:ident, $operation:ident, $filters:ident, $page:literal, $name:literal, $convert:expr) => {{
        let items: Vec<_> = $self
            .client
            .$operation()
            .$filters(Some($self.scope.filters()))
            .max_results($page)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|error| Error::from_sdk($name, error))?;
        items.into_iter().filter_map($convert).collect()
    }};
}

impl Ec2 {
    /// A client with the given configuration.
    pub fn new(config: &SdkConfig, scope: Scope) -> Self {
        Self { client: Client::new(config), scope }
    }

    /// IDs of everything that carries both tags, by type. EC2 may still name what is already deleted.
    ///
    /// # Errors
    /// When EC2 does not answer, or not to the end.
    pub async fn tagged(&self) -> Result<Tagged, Error> {
        let mut found: Option<BTreeSet<(String, String)>> = None;
        for (key, value) in self.scope.pairs() {
            let tags: Vec<_> = self
                .client
                .describe_tags()
                .set_filters(Some(vec![filter("key", key), filter("value", value)]))
                .max_results(1000)
                .into_paginator()
                .items()
                .send()
                .try_collect()
                .await
                .map_err(|error| Error::from_sdk("ec2:DescribeTags", error))?;
            let carriers: BTreeSet<_> = tags
                .into_iter()
                .filter(|tag| tag.key() == Some(key) && tag.value() == Some(value))
                .filter_map(|tag| {
                    Some((tag.resource_type()?.as_str().to_owned(), tag.resource_id()?.to_owned()))
                })
                .collect();
            found = Some(match found {
                Some(before) => before.intersection(&carriers).cloned().collect(),
                None => carriers,
            });
        }
        let mut tagged = Tagged::new();
        for (type_name, id) in found.unwrap_or_default() {
            let type_name = Kind::of_id(&id).map_or(type_name, |kind| kind.name().to_owned());
            tagged.entry(type_name).or_default().insert(id);
        }
        Ok(tagged)
    }

    /// Everything of one type with both tags, as EC2 describes it now.
    ///
    /// # Errors
    /// When EC2 does not answer, or not to the end: half a list is none.
    pub async fn describe(&self, kind: Kind) -> Result<Vec<Resource>, Error> {
        let mut found = self.describe_tagged(kind).await?;
        found.retain(|resource| self.scope.holds(&resource.tags));
        for resource in &mut found {
            if resource.created_at.is_none() {
                resource.created_at =
                    resource.tags.get("created_at").and_then(|text| text.parse().ok());
            }
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    async fn describe_tagged(&self, kind: Kind) -> Result<Vec<Resource>, Error> {
        Ok(match kind {
            Kind::Instance => {
                let reservations: Vec<_> = self
                    .client
                    .describe_instances()
                    .set_filters(Some(self.scope.filters()))
                    .max_results(1000)
                    .into_paginator()
                    .items()
                    .send()
                    .try_collect()
                    .await
                    .map_err(|error| Error::from_sdk("ec2:DescribeInstances", error))?;
                let instances = reservations.iter().flat_map(|reservation| reservation.instances());
                instances.filter_map(instance).collect()
            }
            Kind::ElasticIp => self
                .client
                .describe_addresses()
                .set_filters(Some(self.scope.filters()))
                .send()
                .await
                .map_err(|error| Error::from_sdk("ec2:DescribeAddresses", error))?
                .addresses()
                .iter()
                .filter_map(|address| {
                    let holders = [address.instance_id(), address.network_interface_id()];
                    let mut found = resource(kind, address.allocation_id(), address.tags())?;
                    found.holders = some(holders);
                    Some(found)
                })
                .collect(),
            Kind::NetworkInterface => list!(
                self,
                describe_network_interfaces,
                set_filters,
                1000,
                "ec2:DescribeNetworkInterfaces",
                |interface| {
                    let mut found =
                        resource(kind, interface.network_interface_id(), interface.tag_set())?;
                    let attachment = interface.attachment();
                    found.holders = some([attachment.and_then(|attachment| {
                        attachment.instance_id().or(attachment.instance_owner_id())
                    })]);
                    let service = interface
                        .interface_type()
                        .map(|kind| kind.as_str())
                        .filter(|kind| *kind != "interface");
                    if let Some(service) = service {
                        found.standing = Some(format!("belongs to AWS ({service})"));
                    } else if interface.requester_managed() == Some(true) {
                        found.standing = Some("belongs to an AWS service".to_owned());
                    }
                    Some(found)
                }
            ),
            Kind::Volume => {
                list!(self, describe_volumes, set_filters, 1000, "ec2:DescribeVolumes", |volume| {
                    let mut found = resource(kind, volume.volume_id(), volume.tags())?;
                    found.holders = some(
                        volume.attachments().iter().map(|attachment| attachment.instance_id()),
                    );
                    found.created_at = volume.create_time().and_then(timestamp);
                    let state = volume.state().map(|state| state.as_str());
                    (found.going, found.gone) =
                        (state == Some("deleting"), state == Some("deleted"));
                    Some(found)
                })
            }
            Kind::Snapshot => {
                let snapshots: Vec<_> = self
                    .client
                    .describe_snapshots()
                    .owner_ids("self")
                    .set_filters(Some(self.scope.filters()))
                    .max_results(1000)
                    .into_paginator()
                    .items()
                    .send()
                    .try_collect()
                    .await
                    .map_err(|error| Error::from_sdk("ec2:DescribeSnapshots", error))?;
                snapshots
                    .iter()
                    .filter_map(|snapshot| {
                        let mut found = resource(kind, snapshot.snapshot_id(), snapshot.tags())?;
                        found.created_at = snapshot.start_time().and_then(timestamp);
                        Some(found)
                    })
                    .collect()
            }
            Kind::SecurityGroup => {
                list!(
                    self,
                    describe_security_groups,
                    set_filters,
                    1000,
                    "ec2:DescribeSecurityGroups",
                    |group| {
                        let mut found = resource(kind, group.group_id(), group.tags())?;
                        if group.group_name() == Some("default") {
                            found.standing =
                                Some("the default security group of its VPC".to_owned());
                        }
                        Some(found)
                    }
                )
            }
            Kind::SecurityGroupRule => list!(
                self,
                describe_security_group_rules,
                set_filters,
                1000,
                "ec2:DescribeSecurityGroupRules",
                |rule| resource(kind, rule.security_group_rule_id(), rule.tags())
            ),
            Kind::NatGateway => {
                list!(
                    self,
                    describe_nat_gateways,
                    set_filter,
                    1000,
                    "ec2:DescribeNatGateways",
                    |gateway| {
                        let mut found = resource(kind, gateway.nat_gateway_id(), gateway.tags())?;
                        found.created_at = gateway.create_time().and_then(timestamp);
                        let state = gateway.state().map(|state| state.as_str());
                        (found.going, found.gone) =
                            (state == Some("deleting"), state == Some("deleted"));
                        Some(found)
                    }
                )
            }
            Kind::Subnet => {
                list!(self, describe_subnets, set_filters, 1000, "ec2:DescribeSubnets", |subnet| {
                    let mut found = resource(kind, subnet.subnet_id(), subnet.tags())?;
                    if subnet.default_for_az() == Some(true) {
                        found.standing = Some("a default subnet".to_owned());
                    }
                    Some(found)
                })
            }
            // Not more than 100: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRouteTables.html
            Kind::RouteTable => list!(
                self,
                describe_route_tables,
                set_filters,
                100,
                "ec2:DescribeRouteTables",
                |table| {
                    let mut found = resource(kind, table.route_table_id(), table.tags())?;
                    if table
                        .associations()
                        .iter()
                        .any(|association| association.main() == Some(true))
                    {
                        found.standing = Some("the main route table of its VPC".to_owned());
                    }
                    Some(found)
                }
            ),
            Kind::NetworkAcl => list!(
                self,
                describe_network_acls,
                set_filters,
                1000,
                "ec2:DescribeNetworkAcls",
                |acl| {
                    let mut found = resource(kind, acl.network_acl_id(), acl.tags())?;
                    if acl.is_default() == Some(true) {
                        found.standing = Some("the default network ACL of its VPC".to_owned());
                    }
                    Some(found)
                }
            ),
            Kind::InternetGateway => list!(
                self,
                describe_internet_gateways,
                set_filters,
                1000,
                "ec2:DescribeInternetGateways",
                |gateway| resource(kind, gateway.internet_gateway_id(), gateway.tags())
            ),
            Kind::Vpc => list!(self, describe_vpcs, set_filters, 1000, "ec2:DescribeVpcs", |vpc| {
                let mut found = resource(kind, vpc.vpc_id(), vpc.tags())?;
                if vpc.is_default() == Some(true) {
                    found.standing = Some("the default VPC".to_owned());
                }
                Some(found)
            }),
            // Not more than 200: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeLaunchTemplates.html
            Kind::LaunchTemplate => list!(
                self,
                describe_launch_templates,
                set_filters,
                200,
                "ec2:DescribeLaunchTemplates",
                |template| {
                    let mut found = resource(kind, template.launch_template_id(), template.tags())?;
                    found.created_at = template.create_time().and_then(timestamp);
                    Some(found)
                }
            ),
        })
    }

    /// Asks EC2 to delete one resource. Types that [`Kind::is_deletable`] does not name are left alone.
    ///
    /// # Errors
    /// EC2's answer; "not found" counts as deleted.
    pub async fn delete(&self, kind: Kind, id: &str) -> Result<(), Error> {
        let client = &self.client;
        let answer = match kind {
            Kind::Instance => client
                .terminate_instances()
                .instance_ids(id)
                .send()
                .await
                .map(drop)
                .map_err(|error| Error::from_sdk("ec2:TerminateInstances", error)),
            Kind::ElasticIp => client
                .release_address()
                .allocation_id(id)
                .send()
                .await
                .map(drop)
                .map_err(|error| Error::from_sdk("ec2:ReleaseAddress", error)),
            Kind::NetworkInterface => client
                .delete_network_interface()
                .network_interface_id(id)
                .send()
                .await
                .map(drop)
                .map_err(|error| Error::from_sdk("ec2:DeleteNetworkInterface", error)),
            Kind::Volume => client
                .delete_volume()
                .volume_id(id)
                .send()
                .await
                .map(drop)
                .map_err(|error| Error::from_sdk("ec2:DeleteVolume", error)),
            Kind::Snapshot => client
                .delete_snapshot()
                .snapshot_id(id)
                .send()
                .await
                .map(drop)
                .map_err(|error| Error::from_sdk("ec2:DeleteSnapshot", error)),
            Kind::SecurityGroup => client
                .delete_security_group()
                .group_id(id)
                .send()
                .await
                .map(drop)
                .map_err(|error| Error::from_sdk("ec2:DeleteSecurityGroup", error)),
            _ => Ok(()),
        };
        match answer {
            Err(error) if error.code().is_some_and(|code| code.ends_with(".NotFound")) => Ok(()),
            answer => answer,
        }
    }

    /// Network interfaces that use a security group, with what they are attached to: what keeps the group alive.
    ///
    /// # Errors
    /// When EC2 does not answer.
    pub async fn users_of_group(&self, group: &str) -> Result<Vec<String>, Error> {
        let interfaces: Vec<_> = self
            .client
            .describe_network_interfaces()
            .filters(filter("group-id", group))
            .max_results(1000)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|error| Error::from_sdk("ec2:DescribeNetworkInterfaces", error))?;
        Ok(interfaces
            .iter()
            .filter_map(|interface| {
                let id = interface.network_interface_id()?;
                let owner = interface.attachment().and_then(|attachment| {
                    attachment.instance_id().or(attachment.instance_owner_id())
                });
                Some(owner.map_or_else(|| id.to_owned(), |owner| format!("{id} of {owner}")))
            })
            .collect())
    }
}

/// The account that the credentials belong to.
///
/// # Errors
/// When STS does not answer.
pub async fn account(config: &SdkConfig) -> Result<String, Error> {
    let identity = aws_sdk_sts::Client::new(config)
        .get_caller_identity()
        .send()
        .await
        .map_err(|error| Error::from_sdk("sts:GetCallerIdentity", error))?;
    Ok(identity.account().unwrap_or_default().to_owned())
}

fn instance(instance: &aws_sdk_ec2::types::Instance) -> Option<Resource> {
    let mut found = resource(Kind::Instance, instance.instance_id(), instance.tags())?;
    let disks =
        instance.block_device_mappings().iter().filter_map(|disk| disk.ebs()?.attach_time());
    let interfaces =
        instance.network_interfaces().iter().filter_map(|one| one.attachment()?.attach_time());
    // The launch time moves with every start; what was attached at the first start keeps its own.
    found.created_at = instance
        .launch_time()
        .into_iter()
        .chain(disks)
        .chain(interfaces)
        .filter_map(timestamp)
        .min();
    let state = instance.state().and_then(|state| state.name()).map(|name| name.as_str());
    (found.going, found.gone) = (state == Some("shutting-down"), state == Some("terminated"));
    Some(found)
}

fn resource(kind: Kind, id: Option<&str>, tags: &[Tag]) -> Option<Resource> {
    let mut found = Resource::new(kind, id?);
    found.tags = tags
        .iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect();
    Some(found)
}

fn some<'a>(ids: impl IntoIterator<Item = Option<&'a str>>) -> Vec<String> {
    ids.into_iter().flatten().filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

fn timestamp(time: &aws_sdk_ec2::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::from_second(time.secs()).ok()
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}
