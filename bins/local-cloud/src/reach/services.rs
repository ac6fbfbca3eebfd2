//! The addresses that AWS's own APIs have for hosts: outside every VPC, so that groups and routes hold for them as on AWS.
//!
//! One address per service, so that the way to one service can be open while the way to another is not. From the range
//! that RFC 2544 keeps for measurements: no host on the internet has one of them, and they never leave this machine.

use std::net::Ipv4Addr;

/// The range of all of them.
pub const RANGE: &str = "198.18.0.0/24";

/// The services that a host finds at their usual names `<service>.<region>.amazonaws.com`. A name of one bucket cannot be
/// listed in `/etc/hosts`, hence `s3` with path-style addresses only.
pub const SERVICES: [&str; 10] = [
    "sts",
    "ssm",
    "ssmmessages",
    "ec2messages",
    "ec2",
    "secretsmanager",
    "s3",
    "logs",
    "monitoring",
    "kms",
];

/// Where `sts.amazonaws.com` is, which no VPC endpoint stands for.
const GLOBAL_STS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 254);

/// The address of a service, if hosts can reach it at all.
pub fn address(service: &str) -> Option<Ipv4Addr> {
    let position = SERVICES.iter().position(|name| *name == service)?;
    u8::try_from(position + 10).ok().map(|last| Ipv4Addr::new(198, 18, 0, last))
}

/// Names and addresses for a host's `/etc/hosts`.
pub fn names(region: &str) -> Vec<(String, Ipv4Addr)> {
    let regional = SERVICES.iter().filter_map(|service| {
        Some((format!("{service}.{region}.amazonaws.com"), address(service)?))
    });
    // In us-east-1 S3 has this name besides, which version 1 of the AWS CLI and older SDKs use there.
    let global_s3 = address("s3").filter(|_| region == "us-east-1");
    let global = [("sts.amazonaws.com", Some(GLOBAL_STS)), ("s3.amazonaws.com", global_s3)];
    let global = global.into_iter().filter_map(|(name, address)| Some((name.to_owned(), address?)));
    regional.chain(global).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_an_address_of_its_own_in_the_range() {
        let names = names("eu-west-1");
        assert_eq!(names.len(), SERVICES.len() + 1);
        let mut addresses: Vec<Ipv4Addr> = names.iter().map(|(_, address)| *address).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), names.len());
        assert!(addresses.iter().all(|address| address.octets()[..3] == [198, 18, 0]));
        assert_eq!(address("rds"), None);
    }

    #[test]
    fn s3_has_its_older_name_where_it_stands_for_the_region() {
        let of = |region: &str| {
            let found = names(region).into_iter().find(|(name, _)| name == "s3.amazonaws.com");
            found.map(|(_, address)| address)
        };
        assert_eq!(of("us-east-1"), address("s3"));
        assert_eq!(of("eu-west-1"), None);
    }
}
