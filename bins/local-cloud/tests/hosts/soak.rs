//! Random lives of hosts: whatever is asked of them in whatever order, the API, the engine and the machine agree in the
//! end, and nothing stays behind. `scripts/bench/local-cloud-soak` makes it long; `LOCAL_CLOUD_SOAK` is the number of
//! sequences, `LOCAL_CLOUD_SEED` makes the same ones again.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

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
    Fault(&'static str),
}

const ACTS: [Act; 13] = [
    Act::Stop,
    Act::Stop,
    Act::Start,
    Act::Start,
    Act::Reboot,
    Act::Reboot,
    Act::Terminate,
    Act::PowerOff,
    Act::RebootInside,
    Act::Fault("network-lost"),
    Act::Fault("packet-loss"),
    Act::Fault("agent-slow"),
    Act::Fault("agent-drop"),
];

/// Faults that a host is born with.
const BIRTH_FAULTS: [&str; 6] = [
    "never-boots",
    "cloud-init-hang",
    "cloud-init-error",
    "cloud-init-disabled",
    "agent-never",
    "agent-late",
];

pub(crate) fn scenarios(cloud: &Cloud) {
    let (total, seed) =
        (number("LOCAL_CLOUD_SOAK").unwrap_or(SHORT as u64), number("LOCAL_CLOUD_SEED"));
    // The same lives each time, unless others are asked for: a test is no lottery.
    let seed = seed.unwrap_or(1);
    println!("           soak: {total} sequences, LOCAL_CLOUD_SEED={seed}");
    let files_before = open_files(cloud);
    let born = Mutex::default();
    let left = AtomicUsize::new(usize::try_from(total).expect("a number of sequences"));
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
    });
}

/// One lane: a host after the other, until all sequences were made.
fn live(cloud: &Cloud, lane: u64, seed: u64, left: &AtomicUsize, all: &Mutex<Vec<String>>) {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_add(lane));
    let mut host: Option<Life> = None;
    let mut born = 0;
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        .is_ok()
    {
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
    history: Vec<Act>,
}

impl<'a> Life<'a> {
    fn begin(cloud: &'a Cloud, name: &str, rng: &mut StdRng) -> Self {
        if rng.random_bool(0.25) {
            let kind = BIRTH_FAULTS.choose(rng).expect("not empty");
            cloud.fault(&["add", kind, "--host", name, "--for", "10s"]);
        }
        let id = cloud.launch(name, "bookworm", "", &[]);
        cloud.note();
        Self { cloud, name: name.to_owned(), id, expected: "running", history: Vec::new() }
    }

    /// Does it, and follows what the answer promises.
    fn act(&mut self, act: Act) {
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
            Act::Fault(kind) => {
                let percent: &[&str] =
                    if kind == "packet-loss" { &["--percent", "30"] } else { &[] };
                let args = ["add", kind, "--host", &self.name, "--for", "2s"];
                let args: Vec<&str> = args.iter().chain(percent).copied().collect();
                self.cloud.fault(&args);
            }
            _ => {}
        }
    }

    fn expect(&mut self, state: &'static str) {
        if self.expected != "terminated" {
            self.expected = state;
        }
    }

    fn inside(&mut self, command: &str) -> bool {
        self.settle();
        let up = "systemctl is-system-running --wait | grep -qE 'running|degraded'";
        self.expected == "running"
            && self.cloud.exec(&self.name, &format!("{up} && {command}")).code == 0
    }

    /// Waits until the API says what must be, and looks whether the engine agrees.
    fn settle(&self) {
        let what = format!("{self} is {}", self.expected);
        self.cloud
            .until(&what, || self.cloud.state(&self.id) == self.expected && self.engine_agrees());
    }

    fn engine_agrees(&self) -> bool {
        let container = format!("{}-{}", self.cloud.project, self.id);
        let seen = Command::new("docker")
            .args(["container", "inspect", "--format", "{{.State.Running}}", &container])
            .output()
            .expect("docker runs");
        let seen = String::from_utf8_lossy(&seen.stdout).trim().to_owned();
        match self.expected {
            "running" => seen == "true",
            "stopped" => seen == "false",
            _ => seen.is_empty(),
        }
    }
}

impl std::fmt::Display for Life<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}) after {:?}", self.name, self.id, self.history)
    }
}

fn open_files(cloud: &Cloud) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", cloud.daemon())).map_or(0, Iterator::count)
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?.to_string_lossy().into_owned();
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
