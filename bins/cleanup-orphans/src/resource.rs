//! What a resource is to this tool: its type, who holds it, and whether it is an orphan. Pure: the clock is an argument.

use crate::state::Owned;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// A type of EC2 resource that this tool can describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An instance.
    Instance,
    /// An Elastic IP address.
    ElasticIp,
    /// A network interface.
    NetworkInterface,
    /// A volume.
    Volume,
    /// A snapshot of this account.
    Snapshot,
    /// A security group.
    SecurityGroup,
    /// A rule of a security group.
    SecurityGroupRule,
    /// A NAT gateway.
    NatGateway,
    /// A subnet.
    Subnet,
    /// A route table.
    RouteTable,
    /// A network ACL.
    NetworkAcl,
    /// An internet gateway.
    InternetGateway,
    /// A VPC.
    Vpc,
    /// A launch template.
    LaunchTemplate,
}

impl Kind {
    /// All of them. The deletable ones come first, in the order in which they are deleted: a resource comes after
    /// everything that can hold it.
    pub const ALL: [Self; 14] = [
        Self::Instance,
        Self::ElasticIp,
        Self::NetworkInterface,
        Self::Volume,
        Self::Snapshot,
        Self::SecurityGroup,
        Self::SecurityGroupRule,
        Self::NatGateway,
        Self::Subnet,
        Self::RouteTable,
        Self::NetworkAcl,
        Self::InternetGateway,
        Self::Vpc,
        Self::LaunchTemplate,
    ];

    /// EC2's name, as `DescribeTags` gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::ElasticIp => "elastic-ip",
            Self::NetworkInterface => "network-interface",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
            Self::SecurityGroup => "security-group",
            Self::SecurityGroupRule => "security-group-rule",
            Self::NatGateway => "natgateway",
            Self::Subnet => "subnet",
            Self::RouteTable => "route-table",
            Self::NetworkAcl => "network-acl",
            Self::InternetGateway => "internet-gateway",
            Self::Vpc => "vpc",
            Self::LaunchTemplate => "launch-template",
        }
    }

    /// EC2's names of all of them.
    pub fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|kind| kind.name()).collect()
    }

    /// The type of a resource by the beginning of its ID. IDs are surer than type names, of which EC2 has used several
    /// for one type. <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html>
    pub fn of_id(id: &str) -> Option<Self> {
        let (prefix, _) = id.split_once('-')?;
        Self::ALL.into_iter().find(|kind| kind.prefix() == prefix)
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Instance => "i",
            Self::ElasticIp => "eipalloc",
            Self::NetworkInterface => "eni",
            Self::Volume => "vol",
            Self::Snapshot => "snap",
            Self::SecurityGroup => "sg",
            Self::SecurityGroupRule => "sgr",
            Self::NatGateway => "nat",
            Self::Subnet => "subnet",
            Self::RouteTable => "rtb",
            Self::NetworkAcl => "acl",
            Self::InternetGateway => "igw",
            Self::Vpc => "vpc",
            Self::LaunchTemplate => "lt",
        }
    }

    /// Whether `--delete` deletes this type.
    pub fn is_deletable(self) -> bool {
        matches!(
            self,
            Self::Instance
                | Self::ElasticIp
                | Self::NetworkInterface
                | Self::Volume
                | Self::Snapshot
                | Self::SecurityGroup
        )
    }
}

/// A resource as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its type.
    pub kind: Kind,
    /// Its ID.
    pub id: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When it was made, where EC2 or the tag `created_at` says so.
    pub created_at: Option<Timestamp>,
    /// IDs of what it is attached to, runs on or belongs to.
    pub holders: Vec<String>,
    /// Why it is never touched: a default of the account, or run by an AWS service.
    pub standing: Option<String>,
    /// It is being deleted: no orphan any more, but it still holds what it holds.
    pub going: bool,
    /// It is terminated or deleted and only still listed.
    pub gone: bool,
}

impl Resource {
    /// A resource about which nothing else is known yet.
    pub fn new(kind: Kind, id: impl Into<String>) -> Self {
        let (id, tags, holders) = (id.into(), BTreeMap::new(), Vec::new());
        Self {
            kind,
            id,
            tags,
            created_at: None,
            holders,
            standing: None,
            going: false,
            gone: false,
        }
    }

    /// The tag `Name`.
    pub fn name(&self) -> Option<&str> {
        self.tags.get("Name").map(String::as_str)
    }
}

/// What a resource turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A state names it.
    Owned,
    /// It is there and must stay; why.
    Kept(String),
    /// Deleted, or on its way.
    Gone,
    /// Nobody owns it. The age is absent where nobody knows it.
    Orphan(Option<Duration>),
}

/// Decides about one resource.
pub fn judge(resource: &Resource, owned: &Owned, now: Timestamp, older_than: Duration) -> Standing {
    if owned.contains(&resource.id) {
        return Standing::Owned;
    }
    if resource.gone || resource.going {
        return Standing::Gone;
    }
    // Tags with this prefix are AWS's own: an Auto Scaling group, CloudFormation or AWS Backup looks after it.
    if let Some((key, value)) = resource.tags.iter().find(|(key, _)| key.starts_with("aws:")) {
        return Standing::Kept(format!("managed by AWS ({key} = {value})"));
    }
    if let Some(why) = &resource.standing {
        return Standing::Kept(why.clone());
    }
    if let Some(holder) = resource.holders.iter().find(|holder| owned.contains(holder)) {
        return Standing::Kept(format!("part of {holder}, which a state owns"));
    }
    let age = resource.created_at.map(|created| {
        // A clock that runs behind AWS's makes a new resource, not an old one.
        Duration::try_from(now.duration_since(created)).unwrap_or_default()
    });
    match age {
        Some(age) if age < older_than => {
            Standing::Kept(format!("younger than --older-than ({})", deploy_cli::human(age)))
        }
        age => Standing::Orphan(age),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn owned() -> Owned {
        let state = r#"{"version":4,"resources":[{"instances":[{"attributes":{"id":"i-0aaaaaaaaaaaaaaa1"}}]}]}"#;
        Owned::of_state(state).unwrap()
    }

    fn check(resource: &Resource, expected: &str) {
        let found = match judge(resource, &owned(), NOW, Duration::from_secs(7200)) {
            Standing::Owned => "owned".to_owned(),
            Standing::Gone => "gone".to_owned(),
            Standing::Kept(why) => why,
            Standing::Orphan(age) => format!("orphan {age:?}"),
        };
        assert_eq!(found, expected, "{resource:?}");
    }

    #[test]
    fn only_what_nobody_owns_and_is_old_enough_is_an_orphan() {
        let volume = || Resource::new(Kind::Volume, "vol-0bbbbbbbbbbbbbbb2");
        let ago = |seconds: i64| Some(Timestamp::from_second(-seconds).unwrap());
        check(&Resource::new(Kind::Instance, "i-0aaaaaaaaaaaaaaa1"), "owned");
        check(&volume(), "orphan None");
        check(&Resource { created_at: ago(7200), ..volume() }, "orphan Some(7200s)");
        check(
            &Resource { created_at: ago(60), ..volume() },
            "younger than --older-than (1 min 00 s)",
        );
        check(&Resource { created_at: ago(-60), ..volume() }, "younger than --older-than (0 ms)");
        check(&Resource { gone: true, ..volume() }, "gone");
        check(&Resource { going: true, ..volume() }, "gone");
        check(
            &Resource { holders: vec!["i-0aaaaaaaaaaaaaaa1".into()], ..volume() },
            "part of i-0aaaaaaaaaaaaaaa1, which a state owns",
        );
        check(&Resource { holders: vec!["i-0cccccccccccccccc".into()], ..volume() }, "orphan None");
        check(&Resource { standing: Some("a default".into()), ..volume() }, "a default");
        let tags = BTreeMap::from([("aws:autoscaling:groupName".to_owned(), "web".to_owned())]);
        check(&Resource { tags, ..volume() }, "managed by AWS (aws:autoscaling:groupName = web)");
    }

    #[test]
    fn every_type_is_known_by_its_ids() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_id(&format!("{}-0123456789abcdef0", kind.prefix())), Some(kind));
        }
        assert_eq!(Kind::of_id("vpce-0123456789abcdef0"), None);
        assert_eq!(Kind::of_id("i"), None);
    }

    #[test]
    fn deletable_types_come_first() {
        let first_kept = Kind::ALL.iter().position(|kind| !kind.is_deletable()).unwrap();
        assert!(Kind::ALL[first_kept..].iter().all(|kind| !kind.is_deletable()));
    }
}
