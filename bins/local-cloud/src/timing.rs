//! How long things take that take their time on AWS.
//!
//! A rehearsal is short by default: every state and every delay is there, only briefly. `up --timing aws` waits as long
//! as AWS does, for trials of patience: timeouts of Terraform, of waiters, of a pipeline. Single times can be set after
//! the name: `--timing short,status-checks=30s`.

use std::time::Duration;

/// Makes the struct, its two presets and the names that `--timing` takes from one table.
macro_rules! timing {
    ($($(#[$doc:meta])* $field:ident $name:literal: short $short:literal, aws $aws:literal;)*) => {
        /// All times, in milliseconds where the table is written. None of them adds to what a real boot or shutdown
        /// takes: a state lasts at least that long.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Timing {
            text: String,
            $($(#[$doc])* pub $field: Duration,)*
        }

        impl Timing {
            /// Names of the single times, for `--timing`.
            pub const NAMES: &[&str] = &[$($name),*];

            /// Every state is there, but briefly.
            pub fn short() -> Self {
                Self { text: "short".into(), $($field: Duration::from_millis($short),)* }
            }

            /// About as long as on AWS.
            pub fn aws() -> Self {
                Self { text: "aws".into(), $($field: Duration::from_millis($aws),)* }
            }

            fn set(&mut self, name: &str, value: Duration) -> bool {
                match name {
                    $($name => self.$field = value,)*
                    _ => return false,
                }
                true
            }
        }
    };
}

timing! {
    /// From launch or start until `running`; the boot goes on behind.
    pending "pending": short 1_000, aws 8_000;
    /// From `running` until both status checks can say `ok`; not before the host is up. (EC2 checks every minute and
    /// usually needs two to three.)
    status_checks "status-checks": short 1_500, aws 150_000;
    /// From `running` until checks say `impaired` of a host that never came up.
    impaired "impaired": short 60_000, aws 300_000;
    /// How long `stopping` lasts at least.
    stopping "stopping": short 1_000, aws 20_000;
    /// How long `shutting-down` lasts at least.
    shutting_down "shutting-down": short 1_000, aws 30_000;
    /// How long a host may take to shut down before it is cut off, stopped or terminated.
    shutdown_patience "shutdown-patience": short 20_000, aws 120_000;
    /// How long terminated instances and deleted NAT gateways are still listed. (EC2 user guide, "Terminate": "for a
    /// short while", VPC user guide: "approximately one hour".)
    listed "listed": short 60_000, aws 3_600_000;
    /// A NAT gateway's `pending`.
    nat_pending "nat-pending": short 1_000, aws 90_000;
    /// A NAT gateway's `deleting`.
    nat_deleting "nat-deleting": short 2_000, aws 45_000;
    /// From the start of the agent on a host until it is registered.
    agent_registration "agent-registration": short 500, aws 8_000;
    /// An agent that was not heard of for this long is `ConnectionLost`. Longer than `agent-poll`.
    agent_lost "agent-lost": short 15_000, aws 300_000;
    /// An agent's question for work is answered after this long at the latest; it then asks again.
    agent_poll "agent-poll": short 5_000, aws 20_000;
    /// A command's invocations can be read after this long, not before.
    invocation_visible "invocation-visible": short 200, aws 1_000;
    /// How long credentials of a role hold. (EC2: about six hours.)
    credential_lifetime "credential-lifetime": short 1_200_000, aws 21_600_000;
    /// New ones are handed out this long before the old ones expire. (EC2 user guide: at least five minutes.)
    credential_renewal "credential-renewal": short 900_000, aws 900_000;
    /// How often an Auto Scaling group looks at its instances.
    scaling_look "scaling-look": short 1_000, aws 15_000;
    /// How long a group waits after a launch that failed; after each further one twice as long, sixteenfold at most.
    scaling_retry "scaling-retry": short 5_000, aws 30_000;
    /// Grace periods, warm-ups and cooldowns of a group last so long at most, whatever is asked for.
    scaling_wait "scaling-wait": short 5_000, aws 86_400_000;
    /// An instance refresh that stands still for so long fails. (User guide, "How an instance refresh works": an hour.)
    refresh_patience "refresh-patience": short 120_000, aws 3_600_000;
}

impl Timing {
    /// The preset's name and what was set beside it, as `--timing` takes it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads `short` or `aws`, then `,NAME=DURATION` any number of times.
    ///
    /// # Errors
    /// A sentence for clap to print.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut timing = match parts.next().unwrap_or_default() {
            "short" => Self::short(),
            "aws" => Self::aws(),
            other => return Err(format!("`{other}` is neither `short` nor `aws`")),
        };
        for part in parts {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is no NAME=DURATION such as `listed=10s`"))?;
            let value =
                deploy_cli::parse_duration(value).map_err(|why| format!("`{name}`: {why}"))?;
            if value > Duration::from_secs(24 * 3600) {
                return Err(format!("`{name}`: a day at most"));
            }
            if !timing.set(name, value) {
                let known = Self::NAMES.join(", ");
                return Err(format!("no time is called `{name}`; there is {known}"));
            }
        }
        timing.check()?;
        timing.text = text.to_owned();
        Ok(timing)
    }

    fn check(&self) -> Result<(), String> {
        // STS gives credentials for 15 minutes at least (API reference, AssumeRole).
        if self.credential_lifetime < Duration::from_secs(900) {
            return Err("`credential-lifetime`: 15m at least, as AWS has it".into());
        }
        for (longer, of_longer, shorter, of_shorter) in [
            (
                "credential-lifetime",
                self.credential_lifetime,
                "credential-renewal",
                self.credential_renewal,
            ),
            ("agent-lost", self.agent_lost, "agent-poll", self.agent_poll),
        ] {
            if of_longer <= of_shorter {
                return Err(format!("`{longer}` has to be longer than `{shorter}`"));
            }
        }
        Ok(())
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::short()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_presets_hold_together() {
        for (name, timing) in [("short", Timing::short()), ("aws", Timing::aws())] {
            assert_eq!(Timing::parse(name), Ok(timing.clone()));
            assert_eq!(timing.text(), name);
            assert_eq!(timing.check(), Ok(()));
        }
    }

    #[test]
    fn single_times_can_be_set() {
        let timing = Timing::parse("short,listed=5s,pending=0s").expect("good");
        assert_eq!((timing.listed, timing.pending), (Duration::from_secs(5), Duration::ZERO));
        assert_eq!(timing.status_checks, Timing::short().status_checks);
        assert_eq!(Timing::parse(timing.text()).as_ref(), Ok(&timing));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let check = |text: &str, expected: &str| {
            let error = Timing::parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("slow", "`slow` is neither");
        check("", "`` is neither");
        check("short,listed", "`listed` is no NAME=DURATION");
        check("short,lasting=1s", "no time is called `lasting`; there is pending");
        check("aws,listed=soon", "`listed`: expected a duration");
        check("aws,listed=25h", "a day at most");
        check("short,credential-lifetime=1m", "15m at least");
        check("short,credential-renewal=30m", "longer than `credential-renewal`");
        check("short,agent-poll=1m", "`agent-lost` has to be longer");
    }
}
