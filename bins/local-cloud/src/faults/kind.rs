//! The kinds of faults: their names, what each does, and which parameters and scopes it takes.

use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A request is refused for being one too many.
    Throttle,
    /// A request is answered with 500 or 503.
    ServerError,
    /// The connection of a request is closed.
    DropConnection,
    /// A request waits before it is worked on.
    Latency,
    /// A request's credentials count as expired.
    ExpiredCredentials,
    /// A request is not allowed.
    AccessDenied,
    /// Answers stay as they were before a change.
    StaleDescribe,
    /// No instance can be launched.
    NoCapacity,
    /// A request is worked on, its answer never comes.
    LostReply,
    /// A host runs and never boots.
    NeverBoots,
    /// A host's kernel panics.
    KernelPanic,
    /// A host's disk fills.
    DiskFull,
    /// cloud-init ends with an error.
    CloudInitError,
    /// cloud-init ends degraded.
    CloudInitDegraded,
    /// cloud-init never ends.
    CloudInitHang,
    /// cloud-init is disabled.
    CloudInitDisabled,
    /// The host has no cloud-init.
    NoCloudInit,
    /// A host's clock is wrong.
    ClockSkew,
    /// A host reboots.
    HostReboot,
    /// A host has no network.
    NetworkLost,
    /// A host loses some of its packets.
    PacketLoss,
    /// A host's agent never registers.
    AgentNever,
    /// A host's agent registers late.
    AgentLate,
    /// A host's agent is gone in the middle of a command.
    AgentDrop,
    /// A host's agent answers late.
    AgentSlow,
}

/// What a fault happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// A request to the endpoint: scoped by service, operation, and the hosts it names or comes from.
    Request,
    /// A host: scoped by host.
    Host,
}

/// What a kind strikes, and when it takes hold of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Requests.
    Request,
    /// Hosts that run.
    AtOnce,
    /// Hosts that are launched while it is there; it stays on their disk, or decides once about their agent.
    Launch,
    /// Hosts at each boot, their first or a later one.
    Boot,
    /// Hosts whose agent gets a command.
    Command,
    /// Hosts whose agent answers.
    Answer,
}

impl When {
    /// In a few words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Request => "requests, from the next one on",
            Self::AtOnce => "hosts, at once",
            Self::Launch => "hosts launched from now on",
            Self::Boot => "hosts, at every boot from the next one on",
            Self::Command => "hosts, at their agent's next command",
            Self::Answer => "hosts, at their agent's next answer",
        }
    }
}

/// A value that a fault takes besides its scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// `delay`, with its default in milliseconds.
    Delay(u64),
    /// `percent` (1 to 100), with its default.
    Percent(u8),
    /// `seconds`, which may be negative, with its default.
    Seconds(i64),
    /// `code`, one of these; the first is the default.
    Code(&'static [&'static str]),
}

impl Parameter {
    /// Its name on the command line and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Percent(_) => "percent",
            Self::Seconds(_) => "seconds",
            Self::Code(_) => "code",
        }
    }
}

/// All kinds, in the order in which they are listed.
pub const KINDS: [Kind; 25] = [
    Kind::Throttle,
    Kind::ServerError,
    Kind::DropConnection,
    Kind::LostReply,
    Kind::Latency,
    Kind::ExpiredCredentials,
    Kind::AccessDenied,
    Kind::StaleDescribe,
    Kind::NoCapacity,
    Kind::NeverBoots,
    Kind::KernelPanic,
    Kind::HostReboot,
    Kind::DiskFull,
    Kind::ClockSkew,
    Kind::CloudInitError,
    Kind::CloudInitDegraded,
    Kind::CloudInitHang,
    Kind::CloudInitDisabled,
    Kind::NoCloudInit,
    Kind::NetworkLost,
    Kind::PacketLoss,
    Kind::AgentNever,
    Kind::AgentLate,
    Kind::AgentDrop,
    Kind::AgentSlow,
];

/// One row of the table of kinds.
struct Row {
    name: &'static str,
    when: When,
    about: &'static str,
    parameters: &'static [Parameter],
}

const fn request(name: &'static str, about: &'static str, parameters: &'static [Parameter]) -> Row {
    Row { name, when: When::Request, about, parameters }
}

const fn happens(
    name: &'static str,
    when: When,
    about: &'static str,
    parameters: &'static [Parameter],
) -> Row {
    Row { name, when, about, parameters }
}

const fn lasts(name: &'static str, about: &'static str, parameters: &'static [Parameter]) -> Row {
    Row { name, when: When::AtOnce, about, parameters }
}

impl Kind {
    const fn row(self) -> Row {
        use Parameter::{Code, Delay, Percent, Seconds};
        use When::{Answer, Boot, Command, Launch};
        match self {
            Self::Throttle => request(
                "throttle",
                "refuses requests as too many, with the service's own code",
                &[],
            ),
            Self::ServerError => request(
                "server-error",
                "answers with an error of the service's side",
                &[Code(&["500", "503"])],
            ),
            Self::DropConnection => request(
                "drop-connection",
                "closes the connection: before the request is worked on, or half-way through the answer",
                &[Code(&["before", "midway"])],
            ),
            Self::LostReply => request(
                "lost-reply",
                "works on the request and closes the connection instead of answering",
                &[],
            ),
            Self::Latency => {
                request("latency", "lets requests wait before they are worked on", &[Delay(1_000)])
            }
            Self::ExpiredCredentials => {
                request("expired-credentials", "refuses the caller's credentials as expired", &[])
            }
            Self::AccessDenied => {
                request("access-denied", "refuses the action as not allowed by any policy", &[])
            }
            Self::StaleDescribe => request(
                "stale-describe",
                "reads answer as before a change, and do not know what is new, for DELAY",
                &[Delay(5_000)],
            ),
            Self::NoCapacity => request(
                "no-capacity",
                "launches fail for want of capacity",
                &[Code(&[
                    "InsufficientInstanceCapacity",
                    "InstanceLimitExceeded",
                    "VcpuLimitExceeded",
                ])],
            ),
            Self::NeverBoots => {
                happens("never-boots", Boot, "the host runs, but its system never comes up", &[])
            }
            Self::KernelPanic => happens(
                "kernel-panic",
                Boot,
                "the host's kernel panics DELAY after every boot; with --count 1 once",
                &[Delay(2_000)],
            ),
            Self::HostReboot => happens(
                "host-reboot",
                Boot,
                "the host reboots by itself DELAY after every boot; with --count 1 once",
                &[Delay(5_000)],
            ),
            Self::DiskFull => happens(
                "disk-full",
                Launch,
                "the host's disk is filled to PERCENT",
                &[Percent(100)],
            ),
            Self::ClockSkew => happens(
                "clock-skew",
                Launch,
                "the host's clock is SECONDS ahead (negative: behind)",
                &[Seconds(600)],
            ),
            Self::CloudInitError => {
                happens("cloud-init-error", Launch, "cloud-init ends with status `error`", &[])
            }
            Self::CloudInitDegraded => happens(
                "cloud-init-degraded",
                Launch,
                "cloud-init ends `degraded done`; before 25.1 it knows no such state, logs a warning and says `done`",
                &[],
            ),
            Self::CloudInitHang => happens("cloud-init-hang", Launch, "cloud-init never ends", &[]),
            Self::CloudInitDisabled => {
                happens("cloud-init-disabled", Launch, "cloud-init is disabled on the host", &[])
            }
            Self::NoCloudInit => {
                happens("no-cloud-init", Launch, "the host has no cloud-init", &[])
            }
            Self::NetworkLost => {
                lasts("network-lost", "nothing reaches the host, and it reaches nothing", &[])
            }
            Self::PacketLoss => {
                const ABOUT: &str = "PERCENT of the host's packets are lost; with --to only of those that it sends there";
                lasts("packet-loss", ABOUT, &[Percent(30)])
            }
            Self::AgentNever => {
                happens("agent-never", Launch, "the host's agent never registers", &[])
            }
            Self::AgentLate => happens(
                "agent-late",
                Launch,
                "the host's agent registers DELAY late",
                &[Delay(30_000)],
            ),
            Self::AgentDrop => happens(
                "agent-drop",
                Command,
                "the host's agent is cut off SECONDS into a command, for DELAY; what runs goes on, or dies with it",
                &[Delay(30_000), Seconds(2), Code(&["goes-on", "dies"])],
            ),
            Self::AgentSlow => happens(
                "agent-slow",
                Answer,
                "the host's agent answers DELAY late",
                &[Delay(5_000)],
            ),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// What it happens to.
    pub const fn area(self) -> Area {
        match self.when() {
            When::Request => Area::Request,
            _ => Area::Host,
        }
    }

    /// What it strikes, and when it takes hold.
    pub const fn when(self) -> When {
        self.row().when
    }

    /// What it does, in one line.
    pub const fn about(self) -> &'static str {
        self.row().about
    }

    /// The parameters it takes.
    pub const fn parameters(self) -> &'static [Parameter] {
        self.row().parameters
    }

    /// Whether it is a condition of a host that is there or not ([`super::Faults::holds`]). Such a fault has no count
    /// and no first matches to leave out; its probability chooses hosts.
    pub const fn lasts(self) -> bool {
        matches!(self.when(), When::AtOnce)
    }

    /// The kind of this name.
    pub fn find(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_and_has_one_name() {
        let names: std::collections::BTreeSet<_> = KINDS.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in KINDS {
            assert_eq!(Kind::find(kind.name()), Some(kind));
            let text = serde_json::to_string(&kind).expect("JSON");
            assert_eq!(text, format!("\"{}\"", kind.name()));
        }
        assert_eq!(Kind::find("throttled"), None);
    }
}
