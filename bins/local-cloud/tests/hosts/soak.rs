//! Random lives of hosts: whatever is asked of them in whatever order, the API, the engine and the machine agree in the
//! end, and nothing stays behind. `scripts/bench/local-cloud-soak` makes it long; `LOCAL_CLOUD_SOAK` is the number of
//! sequences, `LOCAL_CLOUD_SEED` makes the same ones again, `LOCAL_CLOUD_SOAK_MINUTES` ends sooner.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::cloud::{Cloud, variable};
use crate::traces;

/// Sequences of the short form.
const SHORT: usize = 30;
/// Hosts that live at the same time.
const LANES: u64 = 3;
/// Open files that a daemon may have more than before: connections that are still kept.
const FILES: usize = 40;

/// What happens to a host in a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Stop,
    Start,
    Reboot,
    Terminate,
    PowerOff,
    RebootInside,
    /// A command by Systems Manager, whose end nobody waits for.
    Command,
    /// A fault that takes hold of a host that runs.
    Fault(&'static str),
    /// A fault of the next boot, and that boot.
    BootFault(&'static str),
}

const ACTS: [Act; 18] = [
    Act::Stop,
    Act::Stop,
    Act::Start,
    Act::Start,
    Act::Reboot,
    Act::Reboot,
    Act::Terminate,
    Act::PowerOff,
    Act::RebootInside,
    Act::Command,
    Act::Command,
    Act::Fault("network-lost"),
    Act::Fault("packet-loss"),
    Act::Fault("agent-slow"),
    Act::Fault("agent-drop"),
    Act::BootFault("kernel-panic"),
    Act::BootFault("host-reboot"),
    Act::BootFault("never-boots"),
];

/// Faults that a host is born with.
const BIRTH_FAULTS: [&str; 12] = [
    "never-boots",
    "kernel-panic",
    "host-reboot",
    "disk-full",
    "clock-skew",
    "cloud-init-hang",
    "cloud-init-error",
    "cloud-init-degraded",
    "cloud-init-disabled",
    "no-cloud-init",
    "agent-never",
    "agent-late",
];

/// A host with one of these changes by itself, at a moment that nobody knows: what is done inside it may or may not
/// come to its end.
const UNSTEADY: [&str; 2] = ["kernel-panic", "host-reboot"];

pub(crate) fn scenarios(cloud: &Cloud) {
    let (total, seed) =
        (number("LOCAL_CLOUD_SOAK").unwrap_or(SHORT as u64), number("LOCAL_CLOUD_SEED"));
    // The same lives each time, unless others are asked for: a test is no lottery.
    let seed = seed.unwrap_or(1);
    println!("           soak: {total} sequences, LOCAL_CLOUD_SEED={seed}");
    let (files_before, disks_before) = (open_files(cloud), forgotten_disks());
    let begun = Instant::now();
    let born = Mutex::default();
    let minutes = number("LOCAL_CLOUD_SOAK_MINUTES");
    let end = minutes.map(|minutes| begun + Duration::from_secs(60 * minutes));
    let left = Left { sequences: AtomicU64::new(total), end };
    cloud.check("random lives end as they must", || {
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES)
                .map(|lane| {
                    let (left, born) = (&left, &born);
                    scope.spawn(move || live(cloud, lane, seed, left, born))
                })
                .collect();
            // All lanes end before a failure is told.
            let ended: Vec<_> = lanes.into_iter().map(|lane| lane.join()).collect();
            assert!(
                ended.iter().all(Result::is_ok),
                "LOCAL_CLOUD_SEED={seed} makes these lives again"
            );
        });
    });
    cloud.check("nothing of the ended hosts is left while the cloud still runs", || {
        let born = born.into_inner().unwrap_or_else(PoisonError::into_inner);
        cloud.until("no container of them is left", || {
            cloud.containers().iter().all(|id| !born.contains(id))
        });
        let routes = traces::output("ip", &["route"]);
        let bridges = cloud.bridges();
        let leads = routes.lines().filter(|route| {
            route.starts_with("198.51.100.") && bridges.iter().any(|bridge| route.contains(bridge))
        });
        let others = cloud.containers().len();
        assert!(leads.clone().count() <= others, "{:?}", leads.collect::<Vec<_>>());
        assert_eq!(cloud.control_groups(), Vec::<String>::new());
        let files = open_files(cloud);
        assert!(files <= files_before + FILES, "{files} open files, {files_before} before");
        cloud.until("no loop device of them is left", || {
            forgotten_disks() <= disks_before
        });
        assert_eq!(zombies(cloud), Vec::<String>::new(), "children that nobody waited for");
        let (lived, hosts) = (total - left.sequences.into_inner(), born.len());
        println!(
            "           soak: {lived} sequences of {hosts} hosts in {} s; local-cloud has {files} open files and {} MiB",
            begun.elapsed().as_secs(),
            memory(cloud) >> 10
        );
    });
}

/// The sequences that are still to be lived, and when there is no more time for them.
struct Left {
    sequences: AtomicU64,
    end: Option<Instant>,
}

impl Left {
    /// Whether there is another one.
    fn take(&self) -> bool {
        if self.end.is_some_and(|end| Instant::now() > end) {
            return false;
        }
        let one_less = |left: u64| left.checked_sub(1);
        let taken = self.sequences.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        if let Ok(left) = taken
            && left.is_multiple_of(100)
        {
            println!("           soak: {left} sequences left");
        }
        taken.is_ok()
    }
}

/// One lane: a host after the other, until all sequences were made.
fn live(cloud: &Cloud, lane: u64, seed: u64, left: &Left, all: &Mutex<Vec<String>>) {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_add(lane));
    let mut host: Option<Life> = None;
    let mut born = 0;
    while left.take() {
        let mut life = host.take().unwrap_or_else(|| {
            born += 1;
            let life = Life::begin(cloud, &format!("soak-{lane}-{born}"), &mut rng);
            all.lock().unwrap_or_else(PoisonError::into_inner).push(life.id.clone());
            life
        });
        let acts: Vec<Act> =
            (0..rng.random_range(1..=3)).filter_map(|_| ACTS.choose(&mut rng).copied()).collect();
        for act in &acts {
            life.act(*act);
        }
        life.settle();
        if life.expected != "terminated" {
            host = Some(life);
        }
    }
    if let Some(mut life) = host {
        life.act(Act::Terminate);
        life.settle();
    }
}

/// A host and what must have become of it.
struct Life<'a> {
    cloud: &'a Cloud,
    name: String,
    id: String,
    expected: &'static str,
    unsteady: bool,
    born_with: Option<&'static str>,
    history: Vec<Act>,
}

impl<'a> Life<'a> {
    fn begin(cloud: &'a Cloud, name: &str, rng: &mut StdRng) -> Self {
        let born_with = if rng.random_bool(0.5) { BIRTH_FAULTS.choose(rng).copied() } else { None };
        if let Some(kind) = born_with {
            cloud.fault(&["add", kind, "--host", name, "--for", "10s"]);
        }
        let id = cloud.launch(name, "bookworm", "", &[]);
        cloud.note();
        let unsteady = born_with.is_some_and(|kind| UNSTEADY.contains(&kind));
        let (name, history) = (name.to_owned(), Vec::new());
        Self { cloud, name, id, expected: "running", unsteady, born_with, history }
    }

    /// Does it, and follows what the answer promises.
    fn act(&mut self, act: Act) {
        // Until EC2 has seen that a host turned itself off, a start of it is one of a running instance: nothing.
        if matches!((self.history.last(), act), (Some(Act::PowerOff), Act::Start)) {
            self.settle();
        }
        self.history.push(act);
        let ask = |verb: &str| {
            let asked = self.cloud.aws(&["ec2", verb, "--instance-ids", &self.id]);
            // What cannot be asked in the state of the moment is refused with this, and with nothing else.
            let refused = asked.as_ref().is_err_and(|error| {
                ["IncorrectInstanceState", "UnsupportedOperation"].contains(&error.code.as_str())
            });
            assert!(asked.is_ok() || refused, "{self}: {verb}: {asked:?}");
            asked.is_ok()
        };
        match act {
            Act::Stop if ask("stop-instances") => self.expect("stopped"),
            Act::Start if ask("start-instances") => self.expect("running"),
            Act::Terminate if ask("terminate-instances") => self.expect("terminated"),
            Act::Reboot => drop(ask("reboot-instances")),
            // From inside only once it is up: a command in the middle of a change ends with it.
            Act::PowerOff if self.inside("systemctl poweroff") => self.expect("stopped"),
            Act::RebootInside => drop(self.inside("systemctl reboot")),
            Act::Command => self.command(),
            Act::Fault(kind) => drop(self.fault(kind, &["--for", "2s"])),
            Act::BootFault(kind) => {
                self.fault(kind, &["--count", "1", "--for", "20s"]);
                ask("reboot-instances");
                self.unsteady |= UNSTEADY.contains(&kind);
            }
            _ => {}
        }
    }

    fn expect(&mut self, state: &'static str) {
        if self.expected != "terminated" {
            self.expected = state;
        }
    }

    fn fault(&self, kind: &str, more: &[&str]) -> String {
        self.cloud.fault(&[&["add", kind, "--host", &self.name], more].concat())
    }

    /// Sends a command; refused only where no agent is there to take it.
    fn command(&self) {
        let args = [
            "ssm",
            "send-command",
            "--document-name",
            "AWS-RunShellScript",
            "--instance-ids",
            &self.id,
            "--timeout-seconds",
            "30",
            "--parameters",
            "commands=sleep 1",
        ];
        let sent = self.cloud.aws(&args);
        let refused = sent.as_ref().is_err_and(|error| error.code == "InvalidInstanceId");
        assert!(sent.is_ok() || refused, "{self}: send-command: {sent:?}");
    }

    fn inside(&self, command: &str) -> bool {
        if self.unsteady || self.expected != "running" {
            return false;
        }
        self.settle();
        // With a cloud-init that hangs it is starting for ever, and can be turned off all the same.
        let up = "timeout 15 systemctl is-system-running --wait >/dev/null; \
                  systemctl is-system-running | grep -qE 'running|degraded|starting' && \
                  systemctl is-active --quiet basic.target";
        self.cloud.exec(&self.name, &format!("{up} && {command}")).code == 0
    }

    /// Waits until the API says what must be, and looks whether the engine agrees.
    fn settle(&self) {
        let what = format!("{self} is {}", self.expected);
        self.cloud.until(&what, || self.state() == self.expected && self.engine_agrees());
    }

    /// What EC2 says, with what became of the host when it says nothing.
    fn state(&self) -> String {
        match self.cloud.aws(&["ec2", "describe-instances", "--instance-ids", &self.id]) {
            Ok(answer) => {
                let state = answer.pointer("/Reservations/0/Instances/0/State/Name");
                state.and_then(Value::as_str).unwrap_or_default().to_owned()
            }
            Err(error) => {
                let events = self.cloud.local(&["events"]).stdout;
                let own: Vec<&str> =
                    events.lines().filter(|line| line.contains(&self.id)).collect();
                panic!(
                    "{self}, engine agrees: {}: {error:?}\n{}",
                    self.engine_agrees(),
                    own.join("\n")
                )
            }
        }
    }

    fn panicked(&self) -> bool {
        self.cloud.local(&["logs", &self.id]).stdout.contains("Kernel panic - not syncing")
    }

    fn engine_agrees(&self) -> bool {
        let container = format!("{}-{}", self.cloud.project, self.id);
        let seen = Command::new("docker")
            .args(["container", "inspect", "--format", "{{.State.Running}}", &container])
            .output()
            .expect("docker runs");
        let seen = String::from_utf8_lossy(&seen.stdout).trim().to_owned();
        match self.expected {
            // A panicked machine runs, as EC2 sees it.
            "running" => seen == "true" || (seen == "false" && self.unsteady && self.panicked()),
            "stopped" => seen == "false",
            _ => seen.is_empty(),
        }
    }
}

impl std::fmt::Display for Life<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let born = self.born_with.unwrap_or("no fault");
        write!(f, "{} ({}), born with {born}, after {:?}", self.name, self.id, self.history)
    }
}

fn open_files(cloud: &Cloud) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", cloud.daemon())).map_or(0, Iterator::count)
}

/// Resident memory of the daemon in KiB.
fn memory(cloud: &Cloud) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cloud.daemon()));
    let status = status.expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Children of the daemon that ended and that it did not wait for.
fn zombies(cloud: &Cloud) -> Vec<String> {
    let parent = cloud.daemon().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc can be read").flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let is_one = |stat: &String| {
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = rest.split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(&parent)
    };
    stats.filter(is_one).collect()
}

/// How many loop devices of disks that are full belong to no running host, of whatever project: their backing files
/// all have one name.
fn forgotten_disks() -> usize {
    let devices = std::fs::read_dir("/sys/block").expect("/sys can be read").flatten();
    let file = |device: std::fs::DirEntry| {
        std::fs::read_to_string(device.path().join("loop/backing_file")).ok()
    };
    let used = devices.filter_map(file).filter(|file| file.contains("/.rehearsal-disk.ext4"));
    let used = used.count();
    let running = traces::output("docker", &["ps", "-q"]);
    let holders = running.lines().filter(|id| {
        let found = Command::new("docker")
            .args(["container", "inspect", "--format", "{{json .HostConfig.Devices}}", id])
            .output()
            .expect("docker runs");
        String::from_utf8_lossy(&found.stdout).contains("/dev/loop-control")
    });
    used.saturating_sub(holders.count())
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?.to_string_lossy().into_owned();
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
