//! The machine images that hosts can be launched from: one for each suite, and a person's own.

use serde_json::{Value, json};

use super::answers::Refusal;
use crate::image::Bootable;
use crate::image::own::Own;
use crate::image::suites::SUITES;

/// Debian publishes its images from this account (wiki.debian.org/Cloud/AmazonEC2Image).
const DEBIAN: &str = "136693071363";
/// The account of everything in the rehearsal cloud, moto's default; `self` in `describe-images`.
const SELF: &str = "123456789012";

/// One machine image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ami {
    /// Its id.
    pub id: String,
    /// Its name; Debian's pattern `debian-12-amd64-<date>-<build>` for what Debian publishes.
    pub name: String,
    /// One sentence about it.
    pub description: String,
    /// The account that it belongs to.
    pub owner: &'static str,
    /// When it was made.
    pub created: String,
    /// What boots.
    pub what: Bootable,
}

/// All of them, those of suites first.
pub fn catalogue(own: Vec<Own>) -> Vec<Ami> {
    let suites = SUITES.iter().map(|suite| Ami {
        id: suite.ami.to_owned(),
        name: suite.ami_name.to_owned(),
        description: format!("{} (rehearsal)", suite.description()),
        owner: if suite.cloud_init_of.is_none() { DEBIAN } else { SELF },
        created: "2026-01-01T00:00:00.000Z".to_owned(),
        what: Bootable::Suite(suite),
    });
    let own = own.into_iter().map(|own| Ami {
        id: own.id.clone(),
        name: own.name.clone(),
        description: "added by `local-cloud image add`".to_owned(),
        owner: SELF,
        created: format!("{:.3}", own.added),
        what: Bootable::Own(own),
    });
    suites.chain(own).collect()
}

/// The image of this id.
pub fn find(catalogue: Vec<Ami>, id: &str) -> Result<Ami, Refusal> {
    catalogue.into_iter().find(|ami| ami.id == id).ok_or_else(|| {
        let message = format!("The image id '[{id}]' does not exist");
        Refusal::client("InvalidAMIID.NotFound", message)
    })
}

/// Where the root volume is, as Debian's images have it.
pub const ROOT_DEVICE: &str = "/dev/xvda";

/// The catalogue as moto reads it (`MOTO_AMIS_PATH`).
pub fn for_moto(catalogue: &[Ami]) -> Value {
    catalogue
        .iter()
        .map(|ami| {
            json!({
                "ami_id": ami.id,
                "name": ami.name,
                "description": ami.description,
                "owner_id": ami.owner,
                "image_location": format!("{}/{}", ami.owner, ami.name),
                "image_type": "machine",
                "state": "available",
                "public": ami.owner == DEBIAN,
                "architecture": "x86_64",
                "virtualization_type": "hvm",
                "hypervisor": "xen",
                "root_device_name": ROOT_DEVICE,
                "root_device_type": "ebs",
                "sriov": "simple",
                "creation_date": ami.created,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own {
            id: "ami-0123456789abcdef0".into(),
            name: "mine".into(),
            source: "local-cloud/ami-0123456789abcdef0:source".into(),
            added: jiff::Timestamp::UNIX_EPOCH,
            cloud_init: None,
        }
    }

    #[test]
    fn ids_have_the_length_that_ec2_gives_them() {
        let all = catalogue(vec![own()]);
        assert_eq!(all.len(), 5);
        for ami in &all {
            let digits = ami.id.strip_prefix("ami-").expect("prefix");
            assert!(
                digits.len() == 17 && digits.bytes().all(|b| b.is_ascii_hexdigit()),
                "{digits}"
            );
            assert_eq!(find(all.clone(), &ami.id).expect("there").name, ami.name);
        }
    }

    #[test]
    fn debians_pattern_finds_what_debian_publishes_and_nothing_else() {
        let all = catalogue(vec![own()]);
        for (pattern, suite) in [("11", "bullseye"), ("12", "bookworm"), ("13", "trixie")] {
            let prefix = format!("debian-{pattern}-amd64-");
            let found: Vec<_> = all.iter().filter(|ami| ami.name.starts_with(&prefix)).collect();
            assert_eq!(found.len(), 1, "{prefix}");
            assert_eq!((found[0].what.name(), found[0].owner), (suite, DEBIAN));
        }
    }

    #[test]
    fn an_unknown_image_is_refused_in_ec2s_words() {
        let refusal = find(catalogue(Vec::new()), "ami-12345678").expect_err("unknown");
        assert_eq!(refusal.code, "InvalidAMIID.NotFound");
        assert_eq!(refusal.message, "The image id '[ami-12345678]' does not exist");
    }
}
