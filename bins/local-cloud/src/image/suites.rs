//! The suites that hosts can boot, and where their packages come from: this machine's own sources, rewritten.

use crate::error::Error;
use crate::process::run;

/// A Debian release as hosts boot it, perhaps with a cloud-init that is not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suite {
    /// What people call it, and the repository of its images.
    pub name: &'static str,
    /// Debian's name of the release.
    pub release: &'static str,
    /// The release whose cloud-init goes in, if another; nothing else of it does.
    pub cloud_init_of: Option<&'static str>,
    /// Id of its machine image.
    pub ami: &'static str,
    /// Name of its machine image: Debian's pattern `debian-<version>-amd64-<date>-<build>` for what Debian publishes.
    pub ami_name: &'static str,
}

/// All of them, oldest cloud-init first. sid's own systemd needs cgroup v2, so the newest cloud-init runs on trixie.
pub const SUITES: [Suite; 4] = [
    Suite {
        name: "bullseye",
        release: "bullseye",
        cloud_init_of: None,
        ami: "ami-0deb110000b00c0de",
        ami_name: "debian-11-amd64-20260101-2345",
    },
    Suite {
        name: "bookworm",
        release: "bookworm",
        cloud_init_of: None,
        ami: "ami-0deb120000b00c0de",
        ami_name: "debian-12-amd64-20260101-2345",
    },
    Suite {
        name: "trixie",
        release: "trixie",
        cloud_init_of: None,
        ami: "ami-0deb130000b00c0de",
        ami_name: "debian-13-amd64-20260101-2345",
    },
    Suite {
        name: "trixie-sid",
        release: "trixie",
        cloud_init_of: Some("sid"),
        ami: "ami-0deb130051db00c0d",
        ami_name: "rehearsal-debian-13-cloud-init-sid-amd64-20260101-2345",
    },
];

/// The suite whose image is built where none is asked for.
pub const USUAL: Suite = SUITES[1];

impl Suite {
    /// The suite of this name.
    pub fn of(name: &str) -> Option<&'static Self> {
        SUITES.iter().find(|suite| suite.name == name)
    }

    /// The packages that its recipe installs beside the common ones.
    pub(super) fn packages(&self) -> String {
        match self.cloud_init_of {
            Some(other) => format!("cloud-init/{other}"),
            None => "cloud-init".to_owned(),
        }
    }

    /// For people: `Debian trixie, cloud-init of sid`.
    pub fn description(&self) -> String {
        match self.cloud_init_of {
            Some(other) => format!("Debian {}, cloud-init of {other}", self.release),
            None => format!("Debian {}", self.release),
        }
    }
}

/// Packages come from here while a base image is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// Where debootstrap fetches from; `None`: its own default.
    pub mirror: Option<String>,
    /// `sources.list` of the hosts; empty: what debootstrap wrote.
    pub list: String,
    /// apt's preferences of the hosts; mostly empty.
    pub preferences: String,
    /// apt's `Acquire` settings.
    pub acquire: String,
}

/// This machine's Debian package sources, as lines `URI|release|component`, and apt's way to reach them.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    codename: String,
    targets: String,
    acquire: String,
}

impl Machine {
    /// Asks apt.
    pub(super) async fn look() -> Result<Self, Error> {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let acquire =
            run("apt-config", ["dump", "--format", "%F \"%v\";%n", "Acquire"], None).await?;
        let acquire = filter_acquire(&acquire);
        if field(&release, "ID") != "debian" {
            // Another distribution's archive cannot serve Debian: debootstrap's own default is used.
            return Ok(Self { codename: String::new(), targets: String::new(), acquire });
        }
        let format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)";
        let args = ["indextargets", "--format", format, "Created-By: Packages"];
        let targets = run("apt-get", args, None).await?;
        Ok(Self { codename: field(&release, "VERSION_CODENAME"), targets, acquire })
    }

    /// The sources that hosts of a suite get.
    pub(super) fn sources(&self, suite: &Suite) -> Sources {
        let mut sources = rewrite(&self.targets, &self.codename, suite.release);
        sources.acquire.clone_from(&self.acquire);
        if let (Some(other), Some(mirror)) = (suite.cloud_init_of, &sources.mirror) {
            sources.list.push_str(&format!("deb {mirror} {other} main\n"));
            sources.preferences = format!("Package: *\nPin: release n={other}\nPin-Priority: 50\n");
        }
        sources
    }
}

impl Sources {
    /// What of them stays in an image, which every host can read: no password of this machine.
    pub(super) fn kept(&self) -> Self {
        Self {
            mirror: self.mirror.as_deref().map(without_passwords),
            list: without_passwords(&self.list),
            preferences: self.preferences.clone(),
            acquire: without_passwords(&self.acquire),
        }
    }

    /// Whether an image of the suite can be built from them.
    ///
    /// # Errors
    /// The suite takes a package of another one, and this machine's apt names no mirror of Debian to take it from.
    pub(super) fn complete(&self, suite: &Suite) -> Result<(), Error> {
        match suite.cloud_init_of.filter(|_| self.mirror.is_none()) {
            None => Ok(()),
            Some(other) => Err(Error::setup(
                "cannot build the image",
                format!(
                    "{other}'s cloud-init is wanted on {}, and this machine's apt names no mirror of Debian; \
                     choose another suite",
                    suite.release
                ),
            )),
        }
    }
}

/// A text with URLs less the user and password that any of them names.
pub(super) fn without_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let ends = |c: char| c == '/' || c == '"' || c.is_whitespace();
        let (authority, tail) = after.split_at(after.find(ends).unwrap_or(after.len()));
        clean.push_str(authority.rsplit_once('@').map_or(authority, |(_, host)| host));
        rest = tail;
    }
    clean + rest
}

fn field(os_release: &str, name: &str) -> String {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.trim_matches('"').to_owned())
        .unwrap_or_default()
}

/// Keeps the settings about how to fetch; drops those that name suites, indexes or programs of this machine.
fn filter_acquire(dump: &str) -> String {
    let dropped = [
        "Acquire::IndexTargets",
        "Acquire::Changelogs",
        "Acquire::CompressionTypes",
        "Acquire::cdrom",
    ];
    dump.lines()
        .filter(|line| line.starts_with("Acquire::"))
        .filter(|line| !dropped.iter().any(|prefix| line.starts_with(prefix)))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Turns `URI|release|component` lines of a machine into sources of another release.
fn rewrite(targets: &str, codename: &str, wanted: &str) -> Sources {
    let mut sources = Sources::default();
    for target in targets.lines() {
        let mut fields = target.split('|');
        let (Some(uri), Some(release), Some(component)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Some(suffix) = release.strip_prefix(codename).filter(|_| !codename.is_empty()) else {
            continue;
        };
        if !(suffix.is_empty() || suffix.starts_with('-')) || suffix == "-backports" {
            continue;
        }
        if suffix.is_empty() && component == "main" && sources.mirror.is_none() {
            sources.mirror = Some(uri.to_owned());
        }
        // The component for firmware is as old as bookworm.
        if wanted == "bullseye" && component == "non-free-firmware" {
            continue;
        }
        let line = format!("deb {uri} {wanted}{suffix} {component}\n");
        if !sources.list.contains(&line) {
            sources.list.push_str(&line);
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "http://mirror.test/debian/|trixie|main\n\
        http://mirror.test/debian/|trixie|non-free-firmware\n\
        http://mirror.test/debian/|trixie-updates|main\n\
        http://mirror.test/security/|trixie-security|main\n\
        http://mirror.test/debian/|trixie-backports|main\n\
        http://other.test/node/|nodistro|main\n";

    #[test]
    fn sources_of_one_release_become_those_of_another() {
        let sources = rewrite(TARGETS, "trixie", "bookworm");
        assert_eq!(sources.mirror.as_deref(), Some("http://mirror.test/debian/"));
        assert_eq!(
            sources.list,
            "deb http://mirror.test/debian/ bookworm main\n\
             deb http://mirror.test/debian/ bookworm non-free-firmware\n\
             deb http://mirror.test/debian/ bookworm-updates main\n\
             deb http://mirror.test/security/ bookworm-security main\n"
        );
        assert!(!rewrite(TARGETS, "trixie", "bullseye").list.contains("non-free-firmware"));
        assert_eq!(rewrite(TARGETS, "", "bookworm"), Sources::default());
    }

    #[test]
    fn only_cloud_init_comes_from_sid() {
        let machine =
            Machine { codename: "trixie".into(), targets: TARGETS.into(), acquire: String::new() };
        let suite = Suite::of("trixie-sid").expect("a suite");
        let sources = machine.sources(suite);
        assert!(sources.complete(suite).is_ok());
        assert!(sources.list.ends_with("deb http://mirror.test/debian/ sid main\n"));
        assert!(sources.preferences.contains("n=sid\nPin-Priority: 50"));
        assert_eq!(suite.packages(), "cloud-init/sid");
        let plain = machine.sources(Suite::of("trixie").expect("a suite"));
        assert!(!plain.list.contains("sid") && plain.preferences.is_empty());
        // Another distribution: debootstrap has a default of its own, a second suite has none.
        let foreign =
            Machine { codename: String::new(), targets: String::new(), acquire: String::new() };
        let trixie = Suite::of("trixie").expect("a suite");
        assert!(foreign.sources(trixie).complete(trixie).is_ok());
        let error = foreign.sources(suite).complete(suite).expect_err("no mirror").to_string();
        assert!(error.contains("names no mirror of Debian"), "{error}");
    }

    #[test]
    fn what_stays_in_an_image_has_no_password() {
        let sources = Sources {
            mirror: Some("https://me:s3cret@mirror.test/debian/".into()),
            list: "deb https://me:s3cret@mirror.test/debian/ bookworm main\n\
                   deb http://plain.test/a@b/ bookworm main\n"
                .into(),
            preferences: "Package: *\n".into(),
            acquire: "Acquire::http::Proxy \"http://me:s3c@ret@proxy.test:3128/\";\n\
                      Acquire::https::Proxy \"http://token@proxy.test\";\n"
                .into(),
        };
        let kept = Sources {
            mirror: Some("https://mirror.test/debian/".into()),
            list: "deb https://mirror.test/debian/ bookworm main\n\
                   deb http://plain.test/a@b/ bookworm main\n"
                .into(),
            preferences: "Package: *\n".into(),
            acquire: "Acquire::http::Proxy \"http://proxy.test:3128/\";\n\
                      Acquire::https::Proxy \"http://proxy.test\";\n"
                .into(),
        };
        assert_eq!(sources.kept(), kept);
        assert_eq!(kept.kept(), kept);
    }

    #[test]
    fn only_settings_about_fetching_are_taken_over() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://proxy.test/\";\n\
            Acquire::IndexTargets::deb::Packages::MetaKey \"x\";\nAcquire::Languages:: \"none\";\n";
        assert_eq!(
            filter_acquire(dump),
            "Acquire::http::Proxy \"http://proxy.test/\";\nAcquire::Languages:: \"none\";\n"
        );
    }
}
