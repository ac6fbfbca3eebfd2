//! How hosts fare, read from outside: cloud-init's own files, and the counters of their control groups. Reading files of
//! `/proc` and `/sys` costs next to nothing, so a status of many hosts takes no time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde_json::Value;

use crate::process::capture;

/// What is read of a file of a host at most.
const LARGEST: u64 = 64 * 1024;

/// Use of processors is measured over at least this time.
const SPAN: Duration = Duration::from_secs(1);

/// How a host fares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vital {
    /// What `cloud-init status` would say.
    pub cloud_init: Option<String>,
    /// Use of processors lately; 100 is one of them.
    pub cpu_percent: Option<f64>,
    /// Memory of its processes, in bytes; pages that could go at any time are left out, as `docker stats` does.
    pub memory_bytes: Option<u64>,
}

/// Looks at hosts, and remembers what the next look needs. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Vitals(Arc<Mutex<BTreeMap<String, Known>>>);

#[derive(Debug, Clone)]
struct Known {
    /// The container's own id, which stands in the path of its control groups.
    id: String,
    pid: u32,
    last: Option<(Instant, u64)>,
    cpu_percent: Option<f64>,
}

impl Vitals {
    /// How these containers fare; those that do not run are left out.
    pub async fn look(&self, containers: Vec<String>) -> BTreeMap<String, Vital> {
        self.known().retain(|name, known| containers.contains(name) && known.runs());
        let new: Vec<String> = {
            let known = self.known();
            containers.iter().filter(|name| !known.contains_key(*name)).cloned().collect()
        };
        if !new.is_empty() {
            let found = find(&new).await;
            self.known().extend(found);
        }
        let all = Arc::clone(&self.0);
        // Files of a host may take their time, whatever the host has made of them.
        let looked = tokio::task::spawn_blocking(move || {
            let hosts: Vec<(String, Known)> = {
                let known = all.lock().unwrap_or_else(PoisonError::into_inner);
                known.iter().map(|(name, known)| (name.clone(), known.clone())).collect()
            };
            let looked: Vec<_> =
                hosts.into_iter().map(|(name, mut known)| (name, known.look(), known)).collect();
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            looked
                .into_iter()
                .map(|(name, vital, known)| {
                    all.insert(name.clone(), known);
                    (name, vital)
                })
                .collect()
        });
        looked.await.unwrap_or_default()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Id and process of containers that run.
async fn find(names: &[String]) -> BTreeMap<String, Known> {
    let format = "{{.Name}} {{.Id}} {{.State.Pid}}";
    let args = ["container", "inspect", "--format", format]
        .into_iter()
        .chain(names.iter().map(String::as_str));
    // It says what it knows also when one of them is gone by now.
    let Ok(output) = capture("docker", args, None).await else { return BTreeMap::new() };
    output
        .stdout
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, id, pid) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
            let known = Known { id: id.to_owned(), pid, last: None, cpu_percent: None };
            (pid != 0).then(|| (name.trim_start_matches('/').to_owned(), known))
        })
        .collect()
}

impl Known {
    /// Whether the process is still this container's.
    fn runs(&self) -> bool {
        groups(self.pid).is_some_and(|text| text.contains(&self.id))
    }

    fn look(&mut self) -> Vital {
        let groups = groups(self.pid).unwrap_or_default();
        let now = Instant::now();
        let used = cpu_nanoseconds(&groups, &self.id);
        match (self.last, used) {
            (Some((at, before)), Some(used)) if now.duration_since(at) >= SPAN => {
                let nanoseconds = now.duration_since(at).as_nanos() as f64;
                self.cpu_percent = Some(used.saturating_sub(before) as f64 / nanoseconds * 100.0);
                self.last = Some((now, used));
            }
            (None, Some(used)) => self.last = Some((now, used)),
            _ => {}
        }
        Vital {
            cloud_init: Root::open(self.pid).map(|root| cloud_init(&root)),
            cpu_percent: self.cpu_percent,
            memory_bytes: memory_bytes(&groups, &self.id),
        }
    }
}

fn groups(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}

/// The folder of a container's group of a controller, whichever of the two hierarchies the machine has (`cgroups(7)`:
/// lines `number:controllers:path`; version 2 has no controllers there).
fn folder(groups: &str, controller: &str, id: &str) -> Option<PathBuf> {
    let mut unified = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        // Its service manager may sit in a group below; the container's own is the one with its id.
        let Some(at) = path.find(id) else { continue };
        let end = path[at..].find('/').map_or(path.len(), |length| at + length);
        let path = path[..end].trim_start_matches('/');
        if controllers.split(',').any(|name| name == controller) {
            return Some(Path::new("/sys/fs/cgroup").join(controller).join(path));
        }
        if controllers.is_empty() {
            unified = Some(Path::new("/sys/fs/cgroup").join(path));
        }
    }
    unified
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The value of a line `name value`.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn cpu_nanoseconds(groups: &str, id: &str) -> Option<u64> {
    let folder = folder(groups, "cpuacct", id)?;
    number(&folder.join("cpuacct.usage"))
        .or_else(|| field(&folder.join("cpu.stat"), "usage_usec ").map(|used| used * 1000))
}

fn memory_bytes(groups: &str, id: &str) -> Option<u64> {
    let folder = folder(groups, "memory", id)?;
    let stat = folder.join("memory.stat");
    if let Some(used) = number(&folder.join("memory.usage_in_bytes")) {
        return Some(used.saturating_sub(field(&stat, "total_inactive_file ").unwrap_or(0)));
    }
    let used = number(&folder.join("memory.current"))?;
    Some(used.saturating_sub(field(&stat, "inactive_file ").unwrap_or(0)))
}

/// The root folder of a process. Nothing in it leads out of it: what lies there is the host's, and a link of the host
/// must not name a file of this machine.
struct Root(std::os::fd::OwnedFd);

impl Root {
    fn open(pid: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok().map(Self)
    }

    fn file(&self, path: &str, flags: OFlags) -> Option<File> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve).ok().map(File::from)
    }

    fn has(&self, path: &str) -> bool {
        self.file(path, OFlags::PATH).is_some()
    }

    fn json(&self, path: &str) -> Option<Value> {
        // A pipe in the file's place must not make us wait.
        let file = self.file(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn cloud_init(root: &Root) -> String {
    let status = root.json("run/cloud-init/status.json");
    let said = match (status, root.json("run/cloud-init/result.json")) {
        (Some(status), result) => said(&status["v1"], result.as_ref().map(|result| &result["v1"])),
        (None, _) if root.has("run/cloud-init/disabled") => "disabled",
        (None, _) if root.has("etc/cloud/cloud-init.disabled") => "disabled",
        (None, _) if root.has("usr/bin/cloud-init") => "not started",
        (None, _) => "none",
    };
    said.to_owned()
}

/// The status in cloud-init's files (its documentation, "Reported status": errors of any stage count, and since version
/// 23.4 recoverable ones degrade).
fn said(status: &Value, result: Option<&Value>) -> &'static str {
    let stages = || status.as_object().into_iter().flat_map(|stages| stages.values()).chain(result);
    let any = |value: &Value| match value {
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => false,
    };
    if stages().any(|stage| any(&stage["errors"])) {
        "error"
    } else if result.is_none() || !status["stage"].is_null() {
        "running"
    } else if stages().any(|stage| any(&stage["recoverable_errors"])) {
        "degraded done"
    } else {
        "done"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "789f60dfd974";

    #[test]
    fn the_group_is_found_in_both_hierarchies() {
        let first = format!(
            "4:memory:/docker/{ID}/init.scope\n2:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}"
        );
        let check = |groups: &str, controller, expected: Option<&str>| {
            assert_eq!(folder(groups, controller, ID).as_deref(), expected.map(Path::new));
        };
        check(&first, "memory", Some("/sys/fs/cgroup/memory/docker/789f60dfd974"));
        check(&first, "cpuacct", Some("/sys/fs/cgroup/cpuacct/docker/789f60dfd974"));
        let second = format!("0::/system.slice/docker-{ID}.scope/init.scope");
        let scope = "/sys/fs/cgroup/system.slice/docker-789f60dfd974.scope";
        check(&second, "memory", Some(scope));
        check(&second, "cpuacct", Some(scope));
        check("0::/user.slice", "memory", None);
    }

    #[test]
    fn cloud_init_says_how_it_fares() {
        let check = |status: Value, result: Option<Value>, expected| {
            assert_eq!(said(&status, result.as_ref()), expected);
        };
        let done = json!({"errors": [], "datasource": "DataSourceEc2"});
        check(json!({"stage": "init-local"}), None, "running");
        check(json!({"stage": "modules-final"}), Some(done.clone()), "running");
        check(json!({"stage": null, "init": {"errors": []}}), Some(done.clone()), "done");
        check(json!({"stage": null, "init": {"errors": ["x"]}}), Some(done), "error");
        check(json!({"stage": "modules-config", "init": {"errors": ["x"]}}), None, "error");
        let recoverable = json!({"errors": [], "recoverable_errors": {"WARNING": ["x"]}});
        check(json!({"stage": null}), Some(recoverable), "degraded done");
    }

    #[test]
    fn a_link_of_a_host_leads_nowhere_outside() {
        use std::os::unix::fs::symlink;
        let outside = tempfile::tempdir().expect("folder");
        std::fs::write(outside.path().join("secret.json"), "{}").expect("file");
        let inside = tempfile::tempdir().expect("folder");
        std::fs::write(inside.path().join("own.json"), "{}").expect("file");
        symlink(outside.path().join("secret.json"), inside.path().join("link.json")).expect("link");
        symlink("/own.json", inside.path().join("good.json")).expect("link");
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = Root(rustix::fs::open(inside.path(), flags, Mode::empty()).expect("open"));
        assert_eq!(root.json("own.json"), Some(json!({})));
        assert_eq!(root.json("good.json"), Some(json!({})), "its root is the host's");
        assert_eq!(root.json("link.json"), None);
        assert_eq!(root.json("../own.json"), Some(json!({})), "there is nothing above the root");
        assert_eq!(root.json("."), None);
    }
}
