//! Images that hosts boot from: a Debian root file system, and a thin layer with the rehearsal's own files.
//!
//! Both are named by a hash of what they are made of, so a changed recipe, agent or package source makes a new one and
//! an unchanged one is found again. Package sources are this machine's own; nothing here names a mirror.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use deploy_cli::Context;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::docker::Docker;
use crate::error::Error;
use crate::place::{Place, make_folder};
use crate::process::{self, Identity, last_lines, run};

const BASE_RECIPE: &str = include_str!("../image/base.sh");
const LAYER_RECIPE: &str = include_str!("../image/layer.sh");
const AGENT: &str = include_str!("../agent/amazon-ssm-agent-stand-in.py");
const AGENT_UNIT: &str = include_str!("../agent/amazon-ssm-agent.service");

/// Packages come from here while a base image is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sources {
    /// Where debootstrap fetches from; `None`: its own default.
    mirror: Option<String>,
    /// `sources.list` of the hosts; empty: what debootstrap wrote.
    list: String,
    /// apt's `Acquire` settings.
    acquire: String,
}

/// The image that hosts of this suite boot from; builds what is missing.
pub async fn ensure(
    suite: &str,
    place: &Place,
    authority_pem: &str,
    ctx: &Context,
) -> Result<String, Error> {
    let sources = machine_sources(suite).await?;
    let base = name(suite, "base", &[BASE_RECIPE, &sources.list, &sources.acquire]);
    if !Docker::has_image(&base).await? {
        build_base(suite, &base, &sources, place, ctx).await?;
    }
    let image = name(suite, "host", &[&base, LAYER_RECIPE, AGENT, AGENT_UNIT, authority_pem]);
    if !Docker::has_image(&image).await? {
        ctx.progress().step("adding the agent stand-in and the rehearsal's certificate");
        build_layer(&base, &image, place, authority_pem).await?;
        remove_others(suite, &[&base, &image]).await?;
    }
    Ok(image)
}

/// Removes what earlier recipes left of this suite, a day after they were made: two versions of this program used side
/// by side must not take each other's images away. What a host still runs from stays: Docker refuses to remove that.
async fn remove_others(suite: &str, wanted: &[&str]) -> Result<(), Error> {
    const KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
    let repository = format!("local-cloud/{suite}");
    let format = "{{.Repository}}:{{.Tag}}";
    let names = run("docker", ["image", "ls", "--format", format, &repository], None).await?;
    for name in names.lines().filter(|name| !wanted.contains(name)) {
        let args = ["image", "inspect", "--format", "{{.Created}}", name];
        let created = process::capture("docker", args, None).await?.stdout;
        let created: Result<jiff::Timestamp, _> = created.trim().parse();
        if created.is_ok_and(|created| jiff::Timestamp::now().duration_since(created) > KEPT) {
            process::capture("docker", ["image", "rm", name], None).await?;
        }
    }
    Ok(())
}

const WORK_PREFIX: &str = "local-cloud-work-";

/// A folder to build in, named after this process so that [`sweep`] knows when nobody needs it any more.
fn work_folder(cache: &Path) -> Result<tempfile::TempDir, Error> {
    tempfile::Builder::new()
        .prefix(&format!("{WORK_PREFIX}{}-", std::process::id()))
        .tempdir_in(cache)
        .map_err(|error| Error::setup("cannot make a folder to build the image in", error))
}

/// Removes what builders left that could not clean up after themselves.
pub fn sweep(cache: &Path) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(cache) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(WORK_PREFIX)?.split('-').next()?.parse().ok());
        if let Some(pid) = owner
            && Identity::of(pid).is_none()
        {
            std::fs::remove_dir_all(entry.path()).map_err(|source| Error::File {
                doing: "remove",
                path: entry.path(),
                source,
            })?;
        }
    }
    Ok(())
}

fn name(suite: &str, kind: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    format!("local-cloud/{suite}:{kind}-{}", &hex::encode(hash.finalize())[..12])
}

async fn build_base(
    suite: &str,
    tag: &str,
    sources: &Sources,
    place: &Place,
    ctx: &Context,
) -> Result<(), Error> {
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|source| Error::File {
            doing: "write",
            path: path.to_owned(),
            source,
        })
    };
    make_folder(&place.cache)?;
    let work = work_folder(&place.cache)?;
    let (apt, root) = (work.path().join("apt"), work.path().join("root"));
    make_folder(&apt)?;
    make_folder(&root)?;
    write(&apt.join("sources.list"), &sources.list)?;
    write(&apt.join("acquire.conf"), &sources.acquire)?;
    if let Some(mirror) = &sources.mirror {
        write(&apt.join("mirror"), mirror)?;
    }
    let script = work.path().join("base.sh");
    write(&script, BASE_RECIPE)?;
    let log = place.cache.join("local-cloud-image.log");
    let log_file = std::fs::File::create(&log).map_err(|source| Error::File {
        doing: "write",
        path: log.clone(),
        source,
    })?;

    ctx.progress().step(&format!(
        "building the Debian {suite} image, once, about 3 minutes (log: {})",
        log.display()
    ));
    // A mount and process namespace of its own: whatever ends the script ends its children and mounts with it.
    let mut child = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "bash"])
        .arg(&script)
        .env("SUITE", suite)
        .env("ROOT", &root)
        .env("APT", &apt)
        .env("TAG", tag)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file.try_clone().map_err(|error| Error::setup("cannot log", error))?)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::setup("cannot start the image build", error))?;
    let begun = Instant::now();
    let said = follow(&mut child, log_file, begun, ctx);
    tokio::select! {
        outcome = said => outcome?,
        exit = ctx.stopped() => {
            if let Some(builder) = child.id().and_then(Identity::of) {
                builder.end(Duration::from_secs(5)).await;
            }
            return Err(Error::Stopped(exit));
        }
    }
    let status =
        child.wait().await.map_err(|error| Error::setup("cannot wait for the build", error))?;
    if !status.success() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        ctx.untrusted("end of the image build's log", &tail(&text, 25));
        let output = format!("{} (all of it: {})", last_lines(&text, 1), log.display());
        return Err(Error::Program { program: "image build".into(), output });
    }
    // Thousands of files: removed beside what follows; the runtime waits for it before the process ends.
    tokio::task::spawn_blocking(move || drop(work));
    ctx.progress().step(&format!("image built in {}", deploy_cli::human(begun.elapsed())));
    Ok(())
}

/// Shows the script's steps and writes everything else to the log, until it closes its stdout.
async fn follow(
    child: &mut tokio::process::Child,
    mut log: std::fs::File,
    begun: Instant,
    ctx: &Context,
) -> Result<(), Error> {
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    let mut lines = BufReader::new(stdout).lines();
    let mut beat = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => {
                    if let Some(step) = line.strip_prefix("step: ") {
                        ctx.progress().step(&format!("{step} ({} so far)", deploy_cli::human(begun.elapsed())));
                    }
                    std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes())
                        .map_err(|error| Error::setup("cannot write the image build's log", error))?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(Error::setup("cannot read what the image build says", error)),
            },
            _ = beat.tick() => ctx.progress().heartbeat(|| {
                format!("still building the image ({} so far)", deploy_cli::human(begun.elapsed()))
            }),
        }
    }
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

async fn build_layer(
    base: &str,
    tag: &str,
    place: &Place,
    authority_pem: &str,
) -> Result<(), Error> {
    let work = work_folder(&place.cache)?;
    let layer = work.path().join("layer");
    for (path, text, mode) in [
        ("usr/bin/amazon-ssm-agent-stand-in", AGENT, 0o755),
        ("etc/systemd/system/amazon-ssm-agent.service", AGENT_UNIT, 0o644),
        ("usr/local/share/ca-certificates/rehearsal-cloud.crt", authority_pem, 0o644),
        ("../run.sh", LAYER_RECIPE, 0o755),
    ] {
        let path = layer.join(path);
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)))
            .map_err(|source| Error::File { doing: "write", path: path.clone(), source })?;
    }
    let container = format!("local-cloud-layer-{}", std::process::id());
    // Labelled like everything of the project, so that `down` removes it when nobody else can any more.
    let project = place.state.file_name().unwrap_or_default().to_string_lossy();
    let label = Docker::new(&project).label();
    let layer_mount = format!("{}:/layer:ro", layer.display());
    let script_mount = format!("{}:/run-layer:ro", work.path().join("run.sh").display());
    let made = async {
        run(
            "docker",
            [
                "run",
                "--name",
                &container,
                "--label",
                &label,
                "--network",
                "none",
                "--volume",
                &layer_mount,
                "--volume",
                &script_mount,
                base,
                "/bin/sh",
                "/run-layer",
            ],
            None,
        )
        .await?;
        run("docker", ["commit", "--change", "CMD [\"/sbin/init\"]", &container, tag], None).await
    }
    .await;
    Docker::remove(&[container]).await?;
    made.map(drop)
}

/// This machine's Debian package sources, rewritten for the suite, and apt's way to reach them.
async fn machine_sources(suite: &str) -> Result<Sources, Error> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = field(&release, "VERSION_CODENAME");
    let acquire = run("apt-config", ["dump", "--format", "%F \"%v\";%n", "Acquire"], None).await?;
    let acquire = filter_acquire(&acquire);
    if field(&release, "ID") != "debian" {
        // Another distribution's archive cannot serve Debian: debootstrap's own default is used.
        return Ok(Sources { acquire, ..Sources::default() });
    }
    let format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)";
    let targets =
        run("apt-get", ["indextargets", "--format", format, "Created-By: Packages"], None).await?;
    Ok(Sources { acquire, ..rewrite(&targets, &codename, suite) })
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

/// Turns `URI|release|component` lines of a machine into sources of another suite.
fn rewrite(targets: &str, codename: &str, suite: &str) -> Sources {
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
        let line = format!("deb {uri} {suite}{suffix} {component}\n");
        if !sources.list.contains(&line) {
            sources.list.push_str(&line);
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_one_suite_become_those_of_another() {
        let targets = "http://mirror.test/debian/|trixie|main\n\
            http://mirror.test/debian/|trixie-updates|main\n\
            http://mirror.test/security/|trixie-security|main\n\
            http://mirror.test/debian/|trixie-backports|main\n\
            http://other.test/node/|nodistro|main\n";
        let sources = rewrite(targets, "trixie", "bookworm");
        assert_eq!(sources.mirror.as_deref(), Some("http://mirror.test/debian/"));
        assert_eq!(
            sources.list,
            "deb http://mirror.test/debian/ bookworm main\n\
             deb http://mirror.test/debian/ bookworm-updates main\n\
             deb http://mirror.test/security/ bookworm-security main\n"
        );
        assert_eq!(rewrite(targets, "", "bookworm"), Sources::default());
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

    #[test]
    fn a_changed_part_changes_the_name() {
        assert_ne!(name("bookworm", "host", &["a", "b"]), name("bookworm", "host", &["ab", ""]));
        assert!(name("bookworm", "host", &["a"]).starts_with("local-cloud/bookworm:host-"));
    }
}
