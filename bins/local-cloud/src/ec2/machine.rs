//! What is known about an instance beyond what other parts may see, and reading it from EC2's answers. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::reason::Reason;
use crate::xml::Element;

/// An instance as an EC2 answer shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Instance id.
    pub instance_id: String,
    /// The state's name.
    pub state: String,
    /// Machine image.
    pub image_id: String,
    /// Type, e.g. `t3.xlarge`.
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// VPC.
    pub vpc_id: String,
    /// Subnet.
    pub subnet_id: String,
    /// Address in the VPC.
    pub private_ip: Option<Ipv4Addr>,
    /// Public address now.
    pub public_ip: Option<Ipv4Addr>,
    /// Hardware address of the first interface.
    pub mac: String,
    /// Id of the first interface.
    pub interface_id: String,
    /// Account.
    pub owner_id: String,
    /// Reservation.
    pub reservation_id: String,
    /// Position in the launch.
    pub launch_index: String,
    /// ARN of the instance profile.
    pub profile_arn: Option<String>,
    /// Security groups, id → name.
    pub groups: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Whether tags are shown in the instance metadata.
    pub metadata_tags: bool,
    /// Whether instance metadata is read without a token, too.
    pub tokenless_metadata: bool,
    /// Whether instance metadata is turned off.
    pub no_metadata: bool,
    /// How many hops an answer of instance metadata may take.
    pub metadata_hops: u8,
    /// Number of network interfaces.
    pub interfaces: usize,
}

impl Seen {
    /// All instances of a `DescribeInstances` or `RunInstances` answer.
    pub fn all(root: &Element) -> Vec<Self> {
        if root.child("instancesSet").is_some() {
            return Self::of_reservation(root);
        }
        root.items(&["reservationSet"]).flat_map(Self::of_reservation).collect()
    }

    fn of_reservation(reservation: &Element) -> Vec<Self> {
        let owner_id = reservation.text_at(&["ownerId"]).unwrap_or_default();
        let reservation_id = reservation.text_at(&["reservationId"]).unwrap_or_default();
        reservation
            .items(&["instancesSet"])
            .map(|item| Self {
                owner_id: owner_id.clone(),
                reservation_id: reservation_id.clone(),
                ..Self::read(item)
            })
            .collect()
    }

    fn read(item: &Element) -> Self {
        let text = |path: &[&str]| item.text_at(path).unwrap_or_default();
        let interface = item.items(&["networkInterfaceSet"]).next();
        let of_interface =
            |name| interface.and_then(|i: &Element| i.text_at(&[name])).unwrap_or_default();
        let pairs = |path: &[&str], key: &str, value: &str| {
            item.items(path)
                .filter_map(|pair| {
                    Some((pair.text_at(&[key])?, pair.text_at(&[value]).unwrap_or_default()))
                })
                .collect()
        };
        Self {
            instance_id: text(&["instanceId"]),
            state: text(&["instanceState", "name"]),
            image_id: text(&["imageId"]),
            instance_type: text(&["instanceType"]),
            zone: text(&["placement", "availabilityZone"]),
            vpc_id: text(&["vpcId"]),
            subnet_id: text(&["subnetId"]),
            private_ip: text(&["privateIpAddress"]).parse().ok(),
            public_ip: text(&["ipAddress"]).parse().ok(),
            mac: of_interface("macAddress"),
            interface_id: of_interface("networkInterfaceId"),
            owner_id: String::new(),
            reservation_id: String::new(),
            launch_index: text(&["amiLaunchIndex"]),
            profile_arn: item.text_at(&["iamInstanceProfile", "arn"]),
            groups: pairs(&["groupSet"], "groupId", "groupName"),
            tags: pairs(&["tagSet"], "key", "value"),
            metadata_tags: text(&["metadataOptions", "instanceMetadataTags"]) == "enabled",
            tokenless_metadata: text(&["metadataOptions", "httpTokens"]) == "optional",
            no_metadata: text(&["metadataOptions", "httpEndpoint"]) == "disabled",
            metadata_hops: text(&["metadataOptions", "httpPutResponseHopLimit"])
                .parse()
                .unwrap_or(1),
            interfaces: item.items(&["networkInterfaceSet"]).count(),
        }
    }
}

/// Whether a host answers, as EC2's status checks say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reachable {
    /// Not yet.
    #[default]
    Initializing,
    /// Its service manager is up.
    Ok,
    /// It did not come up in time.
    Impaired,
}

/// An instance that has a container.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// As EC2 shows it.
    pub seen: Seen,
    /// Range of its VPC.
    pub vpc_cidr: String,
    /// Range of its subnet.
    pub subnet_cidr: String,
    /// User data, decoded.
    pub user_data: Option<Vec<u8>>,
    /// Whether it answers.
    pub reachable: Reachable,
    /// Counts boots, so that a watcher of an earlier boot says nothing about a later one.
    pub boots: u32,
    /// Whether `RebootInstances` is at work, so that its ending is not taken for a power-off.
    pub rebooting: bool,
    /// Whether its disk says that it never boots.
    pub never_boots: bool,
    /// Whether its kernel panicked: it runs, and nothing on it does.
    pub panicked: bool,
    /// The console of a terminated instance.
    pub last_console: Option<String>,
    /// Why it is in its state, where EC2 says so.
    pub reason: Option<Reason>,
    /// Since when it has been `running`; status checks count from there.
    pub running_since: Option<Instant>,
    /// Whether it was ever `running`.
    pub ran_before: bool,
    /// Since when its status check has failed.
    pub impaired_since: Option<Timestamp>,
    /// Whoever works on its container holds this meanwhile.
    pub work: Arc<tokio::sync::Mutex<()>>,
}

impl Machine {
    /// From here on nobody who watched the boot so far says anything about this machine.
    pub fn end_boot(&mut self) {
        self.reachable = Reachable::Initializing;
        self.impaired_since = None;
        self.boots += 1;
    }

    /// The host name that EC2 gives in this region.
    pub fn private_dns(&self, region: &str) -> String {
        let address = self.seen.private_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let domain = if region == "us-east-1" {
            "ec2.internal".to_owned()
        } else {
            format!("{region}.compute.internal")
        };
        format!("ip-{}.{domain}", address.replace('.', "-"))
    }

    /// The public name that EC2 gives in this region.
    pub fn public_dns(&self, region: &str) -> Option<String> {
        let address = self.seen.public_ip?.to_string().replace('.', "-");
        Some(if region == "us-east-1" {
            format!("ec2-{address}.compute-1.amazonaws.com")
        } else {
            format!("ec2-{address}.{region}.compute.amazonaws.com")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_read_from_both_answers() {
        let instance = "<instancesSet><item><instanceId>i-1</instanceId>\
            <instanceState><code>16</code><name>running</name></instanceState>\
            <privateIpAddress>10.20.1.10</privateIpAddress><ipAddress>198.51.100.7</ipAddress>\
            <iamInstanceProfile><arn>arn:aws:iam::1:instance-profile/p</arn></iamInstanceProfile>\
            <groupSet><item><groupId>sg-1</groupId><groupName>web</groupName></item></groupSet>\
            <networkInterfaceSet><item><macAddress>02:00:00:01:02:03</macAddress></item></networkInterfaceSet>\
            <tagSet><item><key>Name</key><value>dev-platform-1</value></item><item><key>empty</key><value/></item></tagSet>\
            </item></instancesSet>";
        let launched = format!("<R><ownerId>1</ownerId>{instance}</R>");
        let described = format!(
            "<R><reservationSet><item><ownerId>1</ownerId>{instance}</item></reservationSet></R>"
        );
        let first = Seen::all(&Element::parse(&launched).expect("XML"));
        let second = Seen::all(&Element::parse(&described).expect("XML"));
        assert_eq!(first, second);
        let seen = &first[0];
        assert_eq!(seen.instance_id, "i-1");
        assert_eq!(seen.owner_id, "1");
        assert_eq!(seen.public_ip, Some(Ipv4Addr::new(198, 51, 100, 7)));
        assert_eq!(seen.groups.get("sg-1").map(String::as_str), Some("web"));
        assert_eq!(seen.tags.get("empty").map(String::as_str), Some(""));
        assert_eq!((seen.mac.as_str(), seen.interfaces), ("02:00:00:01:02:03", 1));
    }
}
