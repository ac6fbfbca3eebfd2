//! The machine images that hosts can be launched from. Each stands for a Debian suite.
//!
//! Later work has its place here: more suites, and images of a person's own.

use serde_json::{Value, json};

/// One machine image.
#[derive(Debug, Clone, Copy)]
pub struct Ami {
    /// Its id.
    pub id: &'static str,
    /// Its name, after the pattern of Debian's official images (`debian-12-amd64-<date>-<build>`).
    pub name: &'static str,
    /// The suite that boots.
    pub suite: &'static str,
}

/// All of them. Debian publishes its images from account 136693071363 (wiki.debian.org/Cloud/AmazonEC2Image).
pub const CATALOGUE: [Ami; 1] =
    [Ami { id: "ami-0deb120000b00c0de", name: "debian-12-amd64-20260101-2345", suite: "bookworm" }];

/// The image of this id.
pub fn find(id: &str) -> Option<&'static Ami> {
    CATALOGUE.iter().find(|ami| ami.id == id)
}

/// The catalogue as moto reads it (`MOTO_AMIS_PATH`).
pub fn for_moto() -> Value {
    CATALOGUE
        .iter()
        .map(|ami| {
            json!({
                "ami_id": ami.id,
                "name": ami.name,
                "description": format!("Debian {} (rehearsal)", ami.suite),
                "owner_id": "136693071363",
                "image_location": format!("amazon/{}", ami.name),
                "image_type": "machine",
                "state": "available",
                "public": true,
                "architecture": "x86_64",
                "virtualization_type": "hvm",
                "hypervisor": "xen",
                "root_device_name": "/dev/xvda",
                "root_device_type": "ebs",
                "sriov": "simple",
                "creation_date": "2026-01-01T00:00:00.000Z",
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_length_that_ec2_gives_them() {
        for ami in CATALOGUE {
            let digits = ami.id.strip_prefix("ami-").expect("prefix");
            assert!(
                digits.len() == 17 && digits.bytes().all(|b| b.is_ascii_hexdigit()),
                "{digits}"
            );
            assert_eq!(find(ami.id).map(|found| found.name), Some(ami.name));
        }
        assert!(find("ami-unknown").is_none());
    }
}
