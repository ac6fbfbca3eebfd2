//! What a rehearsal cloud leaves on a machine, looked for by the project's name so that others may run beside it.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use local_cloud::docker::PROJECT_LABEL;
use local_cloud::firewall;

/// What has names that do not tell the project: noted while the cloud runs, looked for when it is gone.
#[derive(Debug, Default, Clone)]
pub(crate) struct Made {
    bridges: BTreeSet<String>,
    containers: BTreeSet<String>,
    /// Files that stand for disks of a limited size, by device and inode.
    disks: BTreeSet<String>,
}

/// The device and the inode of the file behind a loop device, after its name.
const LOOP_COLUMNS: &str = "NAME,BACK-MAJ:MIN,BACK-INO";

impl Made {
    /// Notes what there is now.
    pub(crate) fn look(&mut self, project: &str) {
        let filter = format!("label={PROJECT_LABEL}={project}");
        let ids = output("docker", &["ps", "-aq", "--no-trunc", "--filter", &filter]);
        self.containers.extend(ids.lines().map(str::to_owned));
        self.disks.extend(ids.lines().filter_map(disk_of));
        let option = "{{index .Options \"com.docker.network.bridge.name\"}}";
        for network in output("docker", &["network", "ls", "-q", "--filter", &filter]).lines() {
            let name = Command::new("docker")
                .args(["network", "inspect", "--format", option, network])
                .output()
                .expect("docker runs");
            // One that has gone since has nothing to note.
            let name = String::from_utf8_lossy(&name.stdout).trim().to_owned();
            if !name.is_empty() {
                self.bridges.insert(name);
            }
        }
    }
}

impl Made {
    /// The disks of a limited size.
    pub(crate) fn disks(&self) -> usize {
        self.disks.len()
    }

    /// The names of the bridges.
    pub(crate) fn bridges(&self) -> Vec<String> {
        self.bridges.iter().cloned().collect()
    }

    /// The control groups that are still there of containers that are not.
    pub(crate) fn control_groups(&self) -> Vec<String> {
        let there = output("docker", &["ps", "-aq", "--no-trunc"]);
        let gone = self.containers.iter().filter(|id| !there.contains(id.as_str()));
        let found = gone.flat_map(|container| control_groups(container));
        found.map(|path| format!("control group {}", path.display())).collect()
    }
}

/// The file that `image/boot.sh` makes a disk of, where a container has one. One that has gone since has nothing to note.
fn disk_of(container: &str) -> Option<String> {
    let place = Command::new("docker")
        .args(["inspect", "--format", "{{.GraphDriver.Data.MergedDir}}", container])
        .output()
        .expect("docker runs");
    let place = PathBuf::from(String::from_utf8_lossy(&place.stdout).trim());
    let file = place.join(".rehearsal-disk.ext4").metadata().ok()?;
    // As glibc's `major` and `minor` take a device number apart.
    let device = file.dev();
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
    Some(format!("{major}:{minor} {}", file.ino()))
}

/// Containers, networks, bridges, addresses, routes, packet rules, processes, mounts, loop devices, control groups and
/// state of a project. Empty when it is gone.
pub(crate) fn traces(project: &str, state: &Path, made: &Made) -> Vec<String> {
    let mut found = Vec::new();
    let filter = format!("label={PROJECT_LABEL}={project}");
    for (what, args) in [("container", &["ps", "-aq"][..]), ("network", &["network", "ls", "-q"])] {
        let args: Vec<&str> = args.iter().copied().chain(["--filter", &filter]).collect();
        found.extend(output("docker", &args).lines().map(|id| format!("{what} {id}")));
    }
    let table = firewall::table(project);
    let tables = output("nft", &["list", "tables"]);
    found.extend(tables.lines().filter(|line| line.contains(&table)).map(str::to_owned));
    for (what, args) in [("address", &["-o", "address"][..]), ("route", &["route"])] {
        let all = output("ip", args);
        let of_ours = |line: &&str| {
            line.split(|c: char| c.is_whitespace() || c == '@')
                .any(|word| made.bridges.contains(word))
        };
        found.extend(all.lines().filter(of_ours).map(|line| format!("{what} {line}")));
    }
    found.extend(
        processes(project).into_iter().map(|(pid, command)| format!("process {pid} {command}")),
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc can be read");
    let ours = |line: &&str| {
        line.contains(&format!("/{project}/")) || made.containers.iter().any(|id| line.contains(id))
    };
    found.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
    let loops = output("losetup", &["--list", "--noheadings", "--output", LOOP_COLUMNS]);
    let of_ours = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let disk = words.next().zip(words.next());
        disk.is_some_and(|(device, inode)| made.disks.contains(&format!("{device} {inode}")))
    };
    found.extend(loops.lines().filter(of_ours).map(|line| format!("loop device {line}")));
    found.extend(made.control_groups());
    if state.exists() {
        found.push(format!("state {}", state.display()));
    }
    found
}

/// The daemon of a project and all that it started, by their command lines. Those of tests are none of them.
pub(crate) fn processes(project: &str) -> Vec<(u32, String)> {
    let (flag, folder) = (format!("--project={project}"), format!("local-cloud/{project}/"));
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").expect("/proc can be read").flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bytes = std::fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned();
            let ours = command.split(' ').any(|word| word == flag) || command.contains(&folder);
            (pid != own && ours).then_some((pid, command))
        })
        .collect()
}

/// Where an engine keeps the control groups of a container, in every hierarchy.
fn control_groups(container: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut look = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = look.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().contains(container) {
                found.push(path);
            } else if depth < 2 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                look.push((path, depth + 1));
            }
        }
    }
    found
}

/// What a program says that has to succeed.
pub(crate) fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} {args:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
