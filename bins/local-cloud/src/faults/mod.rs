//! Faults on request: which there are, whom they strike, how often. Deterministic: the same seed and the same order of
//! questions give the same strikes.
//!
//! Who makes something go wrong asks here whether it shall: [`Faults::strike`] for what happens now and then (a boot, a
//! registration), [`Faults::strike_call`] for requests, [`Faults::holds`] for conditions that last. Who keeps a
//! lasting condition true follows [`Faults::changed`].

pub mod kind;
pub mod spec;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::kind::{Area, KINDS, Kind, Parameter, When};
pub use self::spec::{Mistake, Spec};
use crate::hosts::HostInfo;
use crate::log;

/// Faults that are over stay listed, so that one can see how often they struck; this many.
const KEPT: usize = 50;

/// At most this many faults at once.
const MOST: usize = 200;

/// All faults; clones share them.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    book: Mutex<Book>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Book {
    seed: u64,
    last_id: u64,
    faults: BTreeMap<u64, Fault>,
}

#[derive(Debug)]
struct Fault {
    spec: Spec,
    seed: u64,
    added: jiff::Timestamp,
    until: Option<Instant>,
    dice: Dice,
    matched: u64,
    struck: u64,
}

/// A call that a request fault may strike.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Signing name of its service.
    pub service: &'a str,
    /// Its operation; `METHOD /path` where the protocol names none.
    pub operation: &'a str,
    /// The hosts that it names or would launch (without an id yet), and the one it comes from.
    pub hosts: &'a [HostInfo],
}

/// A fault strikes, with its parameters; those that the kind does not have are zero or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// The fault.
    pub id: u64,
    /// How long.
    pub delay: Duration,
    /// How much of a hundred.
    pub percent: u8,
    /// How many seconds, perhaps negative.
    pub seconds: i64,
    /// Which code.
    pub code: String,
}

/// How a fault stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It strikes.
    Active,
    /// It struck as often as it should.
    Spent,
    /// Its time is over.
    Expired,
}

/// A fault as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Its number.
    pub id: u64,
    /// How it stands.
    pub standing: Standing,
    /// What was asked for.
    pub spec: Spec,
    /// Start of its random numbers; with `seed` in the specification it strikes the same way again.
    pub seed: u64,
    /// When it was added.
    pub added: jiff::Timestamp,
    /// How often something was in its scope.
    pub matched: u64,
    /// How often it struck.
    pub struck: u64,
    /// How long it stays, when a time was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self::seeded(0)
    }
}

impl Faults {
    /// No faults yet; those without a seed of their own take theirs from this one and their number.
    pub fn seeded(seed: u64) -> Self {
        let book = Mutex::new(Book { seed, last_id: 0, faults: BTreeMap::new() });
        Self(Arc::new(Inner { book, changes: watch::Sender::new(0) }))
    }

    /// Adds a fault and gives its number.
    ///
    /// # Errors
    /// A mistake in the specification.
    pub fn add(&self, spec: Spec) -> Result<u64, Mistake> {
        let spec = spec.checked()?;
        let until = spec.lasting.map(|time| Instant::now() + time);
        let id = {
            let mut book = self.book();
            if book.faults.values().filter(|fault| fault.standing() == Standing::Active).count()
                >= MOST
            {
                let message = format!("there are {MOST} faults already; remove some");
                return Err(Mistake { field: "kind".into(), message });
            }
            book.last_id += 1;
            let id = book.last_id;
            let seed = spec.seed.unwrap_or_else(|| Dice(book.seed ^ id).next());
            let fault = Fault {
                seed,
                added: jiff::Timestamp::now(),
                until,
                dice: Dice(seed),
                matched: 0,
                struck: 0,
                spec: spec.clone(),
            };
            book.faults.insert(id, fault);
            book.forget_old();
            id
        };
        log::line(format_args!("fault {id} added: {}", describe(&spec)));
        self.tell();
        if let (Some(until), Ok(runtime)) = (until, tokio::runtime::Handle::try_current()) {
            let faults = self.clone();
            runtime.spawn(async move {
                tokio::time::sleep_until(until).await;
                let there = faults.book().faults.contains_key(&id);
                if there {
                    log::line(format_args!("fault {id} is over: its time has passed"));
                    faults.tell();
                }
            });
        }
        Ok(id)
    }

    /// Removes a fault; `false` when there is none of this number.
    pub fn remove(&self, id: u64) -> bool {
        let there = self.book().faults.remove(&id).is_some();
        if there {
            log::line(format_args!("fault {id} removed"));
            self.tell();
        }
        there
    }

    /// Removes all faults and gives how many there were.
    pub fn clear(&self) -> usize {
        let count = std::mem::take(&mut self.book().faults).len();
        if count > 0 {
            log::line(format_args!("all {count} faults removed"));
            self.tell();
        }
        count
    }

    /// All faults, also those that are over.
    pub fn list(&self) -> Vec<Listed> {
        let now = Instant::now();
        let book = self.book();
        let listed = |(id, fault): (&u64, &Fault)| Listed {
            id: *id,
            standing: fault.standing(),
            spec: fault.spec.clone(),
            seed: fault.seed,
            added: fault.added,
            matched: fault.matched,
            struck: fault.struck,
            seconds_left: fault.until.map(|until| until.duration_since(now).as_secs()),
        };
        book.faults.iter().map(listed).collect()
    }

    /// Whether something of this kind shall happen to a host now: draws once, and counts. Not for requests.
    pub fn strike(&self, kind: Kind, host: Option<&HostInfo>) -> Option<Strike> {
        let in_scope = |_, fault: &Fault| match host {
            Some(host) => fault.spec.takes_host(host),
            None => fault.spec.host.is_none(),
        };
        let subject = host.map_or_else(String::new, |host| format!("{}: ", host.instance_id));
        self.draw(kind, in_scope, &subject, "")
    }

    /// Whether a request fault shall strike a call now: draws once, and counts.
    pub fn strike_call(&self, kind: Kind, call: &Call<'_>) -> Option<Strike> {
        self.strike_call_if(kind, call, |_| true)
    }

    /// [`Self::strike_call`], which neither draws nor counts unless `fits` holds for what would strike.
    pub fn strike_call_if(
        &self,
        kind: Kind,
        call: &Call<'_>,
        mut fits: impl FnMut(&Strike) -> bool,
    ) -> Option<Strike> {
        let in_scope = |id, fault: &Fault| fault.takes(call) && fits(&fault.as_strike(id));
        self.draw(kind, in_scope, &subject(call), &place(call))
    }

    /// Whether `access-denied` shall strike a call now, whose action has another name in policies than in the API.
    pub fn strike_action(&self, call: &Call<'_>, in_policies: &str) -> Option<Strike> {
        let action = in_policies.split_once(':').map_or(in_policies, |(_, action)| action);
        let other = Call { operation: action, ..*call };
        let in_scope = |_, fault: &Fault| fault.takes(call) || fault.takes(&other);
        self.draw(Kind::AccessDenied, in_scope, &subject(call), &place(call))
    }

    /// Whether a condition of this kind lasts for a host now. Neither draws nor counts strikes: with a probability, a
    /// host is chosen or not by the seed and its instance id, and stays so.
    pub fn holds(&self, kind: Kind, host: Option<&HostInfo>) -> Option<Strike> {
        let mut book = self.book();
        let found = book.faults.iter_mut().find(|(_, fault)| {
            fault.spec.kind == kind
                && fault.standing() == Standing::Active
                && fault.spec.to.is_none()
                && match host {
                    Some(host) => fault.spec.takes_host(host) && fault.chooses(&[host]),
                    None => fault.spec.host.is_none(),
                }
        });
        found.map(|(id, fault)| fault.as_strike(*id))
    }

    /// [`Self::holds`] for what one host sends to another; only faults that name the other end.
    pub fn holds_between(&self, kind: Kind, from: &HostInfo, to: &HostInfo) -> Option<Strike> {
        let book = self.book();
        let mut of_kind = book
            .faults
            .iter()
            .filter(|(_, fault)| fault.spec.kind == kind && fault.standing() == Standing::Active);
        let found = of_kind.find(|(_, fault)| {
            fault.spec.takes_host(from) && fault.spec.takes_end(to) && fault.chooses(&[from, to])
        });
        found.map(|(id, fault)| fault.as_strike(*id))
    }

    /// Counts changes: faults added, removed, over.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether any fault of a kind is active; cheap, to leave the rest of the work.
    pub fn any(&self, kind: Kind) -> bool {
        self.book()
            .faults
            .values()
            .any(|fault| fault.spec.kind == kind && fault.standing() == Standing::Active)
    }

    /// Whether any request fault is active.
    pub fn any_of_requests(&self) -> bool {
        self.book().faults.values().any(|fault| {
            fault.spec.kind.area() == Area::Request && fault.standing() == Standing::Active
        })
    }

    fn draw(
        &self,
        kind: Kind,
        mut in_scope: impl FnMut(u64, &Fault) -> bool,
        subject: &str,
        at: &str,
    ) -> Option<Strike> {
        let (strike, spent) = {
            let mut book = self.book();
            book.faults.iter_mut().find_map(|(id, fault)| {
                let strikes = fault.spec.kind == kind
                    && fault.standing() == Standing::Active
                    && in_scope(*id, fault)
                    && fault.draw();
                strikes.then(|| (fault.as_strike(*id), fault.standing() == Standing::Spent))
            })?
        };
        log::line(format_args!("{subject}fault {} strikes: {}{at}", strike.id, kind.name()));
        if spent {
            log::line(format_args!("fault {} is over: it struck as often as asked", strike.id));
            self.tell();
        }
        Some(strike)
    }

    fn tell(&self) {
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn forget_old(&mut self) {
        let over: Vec<u64> = self
            .faults
            .iter()
            .filter(|(_, fault)| fault.standing() != Standing::Active)
            .map(|(id, _)| *id)
            .collect();
        for id in over.iter().rev().skip(KEPT) {
            self.faults.remove(id);
        }
    }
}

fn subject(call: &Call<'_>) -> String {
    match call.hosts {
        [host] if !host.instance_id.is_empty() => format!("{}: ", host.instance_id),
        _ => String::new(),
    }
}

fn place(call: &Call<'_>) -> String {
    format!(" at {} {}", call.service, call.operation)
}

impl Fault {
    fn takes(&self, call: &Call<'_>) -> bool {
        let hosts = || call.hosts.iter().any(|host| self.spec.takes_host(host));
        self.spec.takes_call(call.service, call.operation) && (self.spec.host.is_none() || hosts())
    }

    fn standing(&self) -> Standing {
        if self.spec.count.is_some_and(|count| self.struck >= count) {
            Standing::Spent
        } else if self.until.is_some_and(|until| Instant::now() >= until) {
            Standing::Expired
        } else {
            Standing::Active
        }
    }

    /// A match: counted, and drawn for.
    fn draw(&mut self) -> bool {
        if self.standing() != Standing::Active {
            return false;
        }
        self.matched += 1;
        // The dice roll for every match that counts, so that what was left out before changes nothing after.
        let strikes =
            self.matched > self.spec.after && self.dice.fraction() < self.spec.probability;
        if strikes {
            self.struck += 1;
        }
        strikes
    }

    fn chooses(&self, hosts: &[&HostInfo]) -> bool {
        let of_hosts = hosts
            .iter()
            .flat_map(|host| host.instance_id.bytes())
            .fold(self.seed, |state, byte| Dice(state ^ u64::from(byte)).next());
        Dice(of_hosts).fraction() < self.spec.probability
    }

    fn as_strike(&self, id: u64) -> Strike {
        let mut strike =
            Strike { id, delay: Duration::ZERO, percent: 0, seconds: 0, code: String::new() };
        for parameter in self.spec.kind.parameters() {
            match *parameter {
                Parameter::Delay(default) => {
                    strike.delay = self.spec.delay.unwrap_or(Duration::from_millis(default));
                }
                Parameter::Percent(default) => {
                    strike.percent = self.spec.percent.unwrap_or(default);
                }
                Parameter::Seconds(default) => {
                    strike.seconds = self.spec.seconds.unwrap_or(default);
                }
                Parameter::Code(allowed) => {
                    let default = allowed.first().copied().unwrap_or_default();
                    strike.code = self.spec.code.clone().unwrap_or_else(|| default.to_owned());
                }
            }
        }
        strike
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014): written out here, so that a
/// seed means the same in every later version.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn fraction(&mut self) -> f64 {
        // Exact: 53 bits.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A duration as a short text that [`deploy_cli::parse_duration`] reads back.
pub fn text(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.subsec_millis());
    match (seconds, milliseconds) {
        (seconds, 0) if seconds > 0 && seconds.is_multiple_of(3600) => {
            format!("{}h", seconds / 3600)
        }
        (seconds, 0) if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        (0, milliseconds) => format!("{milliseconds}ms"),
        (seconds, milliseconds) => format!("{seconds}s {milliseconds}ms"),
    }
}

/// A fault in one line, as one would ask for it.
pub fn describe(spec: &Spec) -> String {
    let mut words = vec![spec.kind.name().to_owned()];
    words.extend(scope(spec));
    words.join(" ")
}

/// Scope, measure and parameters of a fault as flags of the command line.
pub fn scope(spec: &Spec) -> Vec<String> {
    let mut words = Vec::new();
    let mut flag = |name: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("--{name} {value}")));
    };
    flag("service", spec.service.clone());
    flag("operation", spec.operation.clone());
    flag("host", spec.host.clone());
    flag("to", spec.to.clone());
    flag("probability", (spec.probability < 1.0).then(|| spec.probability.to_string()));
    flag("count", spec.count.map(|count| count.to_string()));
    flag("after", (spec.after > 0).then(|| spec.after.to_string()));
    flag("for", spec.lasting.map(text));
    flag("delay", spec.delay.map(text));
    flag("percent", spec.percent.map(|percent| percent.to_string()));
    flag("seconds", spec.seconds.map(|seconds| seconds.to_string()));
    flag("code", spec.code.clone());
    words
}

#[cfg(test)]
mod tests;
