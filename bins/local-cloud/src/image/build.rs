//! Building: a suite's root file system from packages, and the layer with the rehearsal's own files.

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::suites::{Sources, Suite};
use super::{CLOCK_LABEL, CLOUD_INIT_LABEL, Listener, SYSTEMD_LABEL, Said};
use crate::docker::Docker;
use crate::error::Error;
use crate::place::make_folder;
use crate::process::{command, last_lines, run, run_all};

pub(super) const BASE_RECIPE: &str = include_str!("../../image/base.sh");
pub(super) const SOURCES_RECIPE: &str = include_str!("../../image/sources.sh");
const LAYER_RECIPE: &str = include_str!("../../image/layer.sh");
const BOOT: &str = include_str!("../../image/boot.sh");
const CLOUD_CONFIG: &str = include_str!("../../image/cloud.cfg");
const AGENT: &str = include_str!("../../agent/amazon-ssm-agent-stand-in.py");
const AGENT_UNIT: &str = include_str!("../../agent/amazon-ssm-agent.service");

/// What a host image says about being run; also undoes what a person's own image says.
const CHANGES: [&str; 3] = ["CMD [\"/usr/sbin/rehearsal-boot\"]", "USER root", "WORKDIR /"];

/// All that a layer is made of but the certificate.
pub(super) const LAYER_PARTS: [&str; 8] =
    [LAYER_RECIPE, BOOT, CLOUD_CONFIG, AGENT, AGENT_UNIT, CHANGES[0], CHANGES[1], CHANGES[2]];

/// How long a build may take: ten times what it takes on a slow line.
const LONGEST_BUILD: Duration = Duration::from_secs(45 * 60);

const WORK_PREFIX: &str = "local-cloud-work-";

/// A folder to build in, named after this process so that [`super::sweep`] knows when nobody needs it any more.
fn work_folder(cache: &Path) -> Result<tempfile::TempDir, Error> {
    tempfile::Builder::new()
        .prefix(&format!("{WORK_PREFIX}{}-", std::process::id()))
        .tempdir_in(cache)
        .map_err(|error| Error::setup("cannot make a folder to build the image in", error))
}

/// The process that works in a folder of this name.
pub(super) fn work_owner(name: &str) -> Option<u32> {
    name.strip_prefix(WORK_PREFIX)?.split('-').next()?.parse().ok()
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::File {
        doing: "write",
        path: path.to_owned(),
        source,
    })
}

/// Writes what the recipe needs of the package sources: as they are, and as they stay in the image.
fn lend(apt: &Path, sources: &Sources) -> Result<(), Error> {
    let kept = sources.kept();
    write(&apt.join("sources.sh"), SOURCES_RECIPE)?;
    write(&apt.join("preferences"), &sources.preferences)?;
    for (file, lent, kept) in [
        ("sources.list", &sources.list, &kept.list),
        ("acquire.conf", &sources.acquire, &kept.acquire),
    ] {
        write(&apt.join(file), lent)?;
        write(&apt.join(format!("{file}.kept")), kept)?;
    }
    Ok(())
}

/// Builds the root file system of a suite. Whoever stops waiting for it ends it.
pub(super) async fn base(
    suite: &Suite,
    tag: &str,
    sources: &Sources,
    cache: &Path,
    say: Listener<'_>,
) -> Result<(), Error> {
    let work = work_folder(cache)?;
    let (apt, root) = (work.path().join("apt"), work.path().join("root"));
    make_folder(&apt)?;
    make_folder(&root)?;
    lend(&apt, sources)?;
    if let Some(mirror) = &sources.mirror {
        write(&apt.join("mirror"), mirror)?;
    }
    let script = work.path().join("base.sh");
    write(&script, BASE_RECIPE)?;
    let log = cache.join(format!("local-cloud-image-{}.log", suite.name));
    // For its owner alone: programs that fetch packages say from where, perhaps with a password.
    let log_file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&log)
        .and_then(|file| {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            Ok(file)
        })
        .map_err(|source| Error::File { doing: "write", path: log.clone(), source })?;
    if *sources != sources.kept() {
        say(Said::Step(
            "passwords of package sources are used for the build and not copied into the image"
                .into(),
        ));
    }

    say(Said::Step(format!(
        "building the image of {}, once, 1 to 3 minutes (log: {})",
        suite.description(),
        log.display()
    )));
    // A mount and process namespace of its own: whatever ends the script ends its children and mounts with it.
    let mut child = command("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "bash"])
        .arg(&script)
        .env("SUITE", suite.release)
        .env("PACKAGES", suite.packages())
        .env("ROOT", &root)
        .env("APT", &apt)
        .env("TAG", tag)
        .stdout(Stdio::piped())
        .stderr(log_file.try_clone().map_err(|error| Error::setup("cannot log", error))?)
        .spawn()
        .map_err(|error| Error::setup("cannot start the image build", error))?;
    let begun = Instant::now();
    let built = tokio::time::timeout(LONGEST_BUILD, async {
        follow(&mut child, log_file, begun, say).await?;
        child.wait().await.map_err(|error| Error::setup("cannot wait for the build", error))
    });
    let Ok(status) = built.await else {
        let program = format!("image build of {}", suite.name);
        return Err(Error::TooLate { program, after: LONGEST_BUILD });
    };
    let status = status?;
    if !status.success() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        say(Said::Log(tail(&text, 25)));
        let output = format!("{} (all of it: {})", last_lines(&text, 1), log.display());
        let program = format!("image build of {}", suite.name);
        return Err(Error::Program { program, output });
    }
    // Perhaps thousands of files: removed beside what follows; the runtime waits for it before the process ends.
    tokio::task::spawn_blocking(move || drop(work));
    say(Said::Step(format!(
        "image of {} built in {}",
        suite.name,
        deploy_cli::human(begun.elapsed())
    )));
    Ok(())
}

/// Tells the script's steps and writes everything else to the log, until it closes its stdout.
async fn follow(
    child: &mut tokio::process::Child,
    mut log: std::fs::File,
    begun: Instant,
    say: Listener<'_>,
) -> Result<(), Error> {
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    let mut lines = BufReader::new(stdout).lines();
    let mut beat = tokio::time::interval(Duration::from_secs(5));
    let so_far = || deploy_cli::human(begun.elapsed());
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => {
                    if let Some(step) = line.strip_prefix("step: ") {
                        say(Said::Step(format!("{step} ({} so far)", so_far())));
                    }
                    std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes())
                        .map_err(|error| Error::setup("cannot write the image build's log", error))?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(Error::setup("cannot read what the image build says", error)),
            },
            _ = beat.tick() => say(Said::Beat(format!("still building the image ({} so far)", so_far()))),
        }
    }
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// What an image turned out to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Version of systemd.
    pub systemd: Option<String>,
    /// Version of cloud-init.
    pub cloud_init: Option<String>,
    /// How its clock can be made wrong.
    pub clock: Option<String>,
}

impl Facts {
    /// Reads the lines `fact: NAME VALUE` of the layer's script.
    fn read(said: &str) -> Self {
        let find = |name: &str| {
            said.lines()
                .find_map(|line| line.strip_prefix("fact: ")?.strip_prefix(name))
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        Self { systemd: find("systemd "), cloud_init: find("cloud-init "), clock: find("clock ") }
    }
}

/// The layer that makes a host image out of a base image.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    pub base: &'a str,
    pub tag: &'a str,
    pub authority_pem: &'a str,
    /// Label of the container that it is made in.
    pub label: String,
}

impl Layer<'_> {
    pub(super) async fn build(&self, cache: &Path) -> Result<Facts, Error> {
        let work = work_folder(cache)?;
        let layer = work.path().join("layer");
        for (path, text, mode) in [
            ("usr/bin/amazon-ssm-agent-stand-in", AGENT, 0o755),
            ("usr/sbin/rehearsal-boot", BOOT, 0o755),
            ("etc/systemd/system/amazon-ssm-agent.service", AGENT_UNIT, 0o644),
            ("usr/local/share/ca-certificates/rehearsal-cloud.crt", self.authority_pem, 0o644),
            ("etc/cloud/cloud.cfg.d/90-rehearsal.cfg", CLOUD_CONFIG, 0o644),
            ("../run.sh", LAYER_RECIPE, 0o755),
        ] {
            let path = layer.join(path);
            if let Some(parent) = path.parent() {
                make_folder(parent)?;
            }
            write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .map_err(|source| Error::File { doing: "write", path: path.clone(), source })?;
        }
        let suffix = work.path().file_name().unwrap_or_default().to_string_lossy();
        let container = format!("local-cloud-layer-{}", suffix.trim_start_matches(WORK_PREFIX));
        let layer_mount = format!("{}:/layer:ro", layer.display());
        let script_mount = format!("{}:/run-layer:ro", work.path().join("run.sh").display());
        let made = async {
            let said = run(
                "docker",
                [
                    "run",
                    "--name",
                    &container,
                    "--label",
                    &self.label,
                    "--network",
                    "none",
                    "--user",
                    "0",
                    "--volume",
                    &layer_mount,
                    "--volume",
                    &script_mount,
                    // None, also where a person's own image has one; committed like this.
                    "--entrypoint",
                    "",
                    self.base,
                    "/bin/sh",
                    "/run-layer",
                ],
                None,
            )
            .await?;
            let facts = Facts::read(&said);
            run_all("docker", &self.commit(&container, &facts), None).await?;
            Ok(facts)
        }
        .await;
        Docker::remove(&[container]).await?;
        made
    }

    fn commit(&self, container: &str, facts: &Facts) -> Vec<String> {
        let mut args = vec!["commit".to_owned()];
        args.extend(
            CHANGES.iter().flat_map(|change| ["--change".to_owned(), (*change).to_owned()]),
        );
        for (label, value) in [
            (CLOUD_INIT_LABEL, facts.cloud_init.as_deref().unwrap_or("none")),
            (SYSTEMD_LABEL, facts.systemd.as_deref().unwrap_or("none")),
            (CLOCK_LABEL, facts.clock.as_deref().unwrap_or("none")),
        ] {
            args.extend(["--change".to_owned(), format!("LABEL {label}={value}")]);
        }
        args.extend([container.to_owned(), self.tag.to_owned()]);
        args
    }
}

/// The same image without the package cloud-init.
pub(super) async fn without_cloud_init(host: &str, tag: &str, label: String) -> Result<(), Error> {
    let container = format!("local-cloud-layer-{}", hex::encode(rand::random::<[u8; 6]>()));
    // Another distribution's package stays, without
    // its program.
    let script = "if command -v dpkg >/dev/null && dpkg -s cloud-init >/dev/null 2>&1; then \
        DEBIAN_FRONTEND=noninteractive dpkg --purge --force-depends cloud-init; \
        else rm -f /usr/bin/cloud-init*; fi; ! command -v cloud-init";
    let made = async {
        let args = ["run", "--name", &container, "--label", &label, "--network", "none"];
        let args = args.into_iter().chain(["--entrypoint", "", host, "/bin/sh", "-c", script]);
        run_all("docker", &args.collect::<Vec<_>>(), None).await?;
        let change = format!("LABEL {CLOUD_INIT_LABEL}=none");
        let mut args = vec!["commit", "--change", &change];
        args.extend(CHANGES.iter().flat_map(|change| ["--change", change]));
        args.extend([container.as_str(), tag]);
        run_all("docker", &args, None).await.map(drop)
    }
    .await;
    Docker::remove(&[container]).await?;
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_what_the_script_says() {
        let said =
            "Updating certificates\nfact: systemd 252\nfact: cloud-init 22.4.2\nfact: clock \n";
        assert_eq!(
            Facts::read(said),
            Facts { systemd: Some("252".into()), cloud_init: Some("22.4.2".into()), clock: None }
        );
    }

    /// The files below a folder that hold this word.
    fn holding(folder: &Path, word: &str) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                found.extend(holding(&path, word));
            } else if std::fs::read_to_string(&path).is_ok_and(|text| text.contains(word)) {
                found.push(path);
            }
        }
        found.sort();
        found
    }

    #[tokio::test]
    async fn passwords_of_package_sources_are_lent_and_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let [etc, root, apt] = ["etc", "root", "apt"].map(|name| folder.path().join(name));
        for path in [
            etc.join("apt/auth.conf.d"),
            etc.join("apt/keyrings"),
            root.join("etc/apt/apt.conf.d"),
            root.join("etc/apt/preferences.d"),
            root.join("etc/apt/auth.conf.d"),
            root.join("etc/apt/keyrings"),
            root.join("var/log"),
            apt.clone(),
        ] {
            make_folder(&path).expect("a folder");
        }
        let login = "machine mirror.test login me password s3cret\n";
        write(&etc.join("apt/auth.conf"), login).expect("written");
        write(&etc.join("apt/auth.conf.d/mirror.conf"), login).expect("written");
        write(&etc.join("apt/keyrings/mirror.asc"), "a key").expect("written");
        write(&root.join("var/log/bootstrap.log"), "from https://me:s3cret@mirror.test")
            .expect("written");
        let sources = Sources {
            mirror: None,
            list: "deb https://me:s3cret@mirror.test/debian/ bookworm main\n".into(),
            preferences: String::new(),
            acquire: "Acquire::http::Proxy \"http://me:s3cret@proxy.test/\";\n".into(),
        };
        lend(&apt, &sources).expect("written");
        let script = |steps: &str| {
            format!(
                "set -euo pipefail; ROOT={} APT={} ETC={}; . \"$APT/sources.sh\"; {steps}",
                root.display(),
                apt.display(),
                etc.display()
            )
        };
        run("bash", ["-c", &script("lend_sources")], None).await.expect("lent");
        assert_eq!(holding(&root, "s3cret").len(), 5, "{:?}", holding(&root, "s3cret"));
        run("bash", ["-c", &script("take_back_passwords")], None).await.expect("taken back");
        assert_eq!(holding(&root, "s3cret"), Vec::<std::path::PathBuf>::new());
        let list = std::fs::read_to_string(root.join("etc/apt/sources.list")).expect("a list");
        assert_eq!(list, "deb https://mirror.test/debian/ bookworm main\n");
        assert_eq!(holding(&root, "a key").len(), 1, "what is no password stays");
    }

    #[test]
    fn a_work_folder_names_its_owner() {
        assert_eq!(work_owner("local-cloud-work-17-abc"), Some(17));
        assert_eq!(work_owner("local-cloud-ca"), None);
    }
}
