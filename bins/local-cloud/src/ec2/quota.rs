//! How many virtual processors may run at once: the account's quota, which here keeps one call from taking the machine.
//!
//! As EC2 has it ("Amazon EC2 instance type quotas"): the quota counts vCPUs of instances that run, and a launch gets as
//! many instances as fit, at least its minimum, or none and `VcpuLimitExceeded`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Ec2;
use super::answers::Refusal;
use crate::hosts::HostState;
use crate::operation::Form;

/// What a request that names no type gets.
const USUAL_TYPE: &str = "m1.small";
/// Memory that a host needs until it does something of its own, and the vCPUs of the small types that people rehearse with.
const MIB_OF_A_HOST: u64 = 256;
/// See [`MIB_OF_A_HOST`].
const VCPUS_OF_A_HOST: u64 = 2;

/// The quota and what it counts by.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u32,
    /// vCPUs by instance type, as the emulator says.
    types: Mutex<BTreeMap<String, u32>>,
    /// One launch or start at a time: of two that look at once, both would fit.
    turn: tokio::sync::Mutex<()>,
}

/// The quota that suits a machine, by the text of `/proc/meminfo`.
pub fn fitting(meminfo: &str) -> u32 {
    let kib = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok()
    });
    let vcpus = kib.unwrap_or_default() / 1024 / MIB_OF_A_HOST * VCPUS_OF_A_HOST;
    u32::try_from(vcpus.clamp(16, 512)).unwrap_or(16)
}

/// How many instances of so many vCPUs are launched beside those that run; `None`: not even the least.
fn fit(limit: u32, running: u32, each: u32, least: u32, most: u32) -> Option<u32> {
    let room = limit.saturating_sub(running) / each.max(1);
    (room >= least).then(|| room.min(most))
}

impl Quota {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, types: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Held from the look at what runs until the new ones are counted.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn exceeded(&self) -> Refusal {
        let message = format!(
            "You have requested more vCPU capacity than your current vCPU limit of {} allows for the instance bucket \
             that the specified instance type belongs to. Please visit \
             http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit. (In the rehearsal: \
             `local-cloud up --max-vcpus`.)",
            self.limit
        );
        Refusal::client("VcpuLimitExceeded", message)
    }
}

impl Ec2 {
    /// Cuts a launch to what the quota leaves.
    ///
    /// # Errors
    /// When that is less than `least`.
    pub(super) async fn cut_to_quota(&self, form: &mut Form, least: u32) -> Result<(), Refusal> {
        let kind = form.get("InstanceType").unwrap_or(USUAL_TYPE).to_owned();
        let most = form.get("MaxCount").and_then(|text| text.parse().ok()).unwrap_or(1);
        let each = self.vcpus(&kind).await?;
        let running = self.running_vcpus(&[]).await?;
        let count = fit(self.quota.limit, running, each, least, most)
            .ok_or_else(|| self.quota.exceeded())?;
        if count < most {
            for name in ["MinCount", "MaxCount"] {
                form.remove(|other| other == name);
                form.push(name, count.to_string());
            }
        }
        Ok(())
    }

    /// Refuses to start these instances where not all of them fit.
    pub(super) async fn start_within_quota(&self, ids: &[&str]) -> Result<(), Refusal> {
        let running = self.running_vcpus(ids).await?;
        if running > self.quota.limit { Err(self.quota.exceeded()) } else { Ok(()) }
    }

    /// The vCPUs of what runs, and of these as well.
    async fn running_vcpus(&self, and: &[&str]) -> Result<u32, Refusal> {
        let mut types: BTreeMap<String, u32> = BTreeMap::new();
        for (id, machine) in &*self.machines() {
            let counts = matches!(self.state(id), Some(HostState::Pending | HostState::Running));
            if counts || and.contains(&id.as_str()) {
                *types.entry(machine.seen.instance_type.clone()).or_default() += 1;
            }
        }
        let mut sum: u32 = 0;
        for (kind, count) in types {
            sum = sum.saturating_add(self.vcpus(&kind).await?.saturating_mul(count));
        }
        Ok(sum)
    }

    async fn vcpus(&self, kind: &str) -> Result<u32, Refusal> {
        let types = || self.quota.types.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = types().get(kind) {
            return Ok(*known);
        }
        let form = Form::new([
            ("Action", "DescribeInstanceTypes"),
            ("Version", "2016-11-15"),
            ("InstanceType.1", kind),
        ]);
        // A type that there is not is refused by the emulator, in EC2's words, when the launch comes there.
        let vcpus = match self.upstream.ask("ec2", &self.settings.region, &form).await {
            Ok(root) => root
                .text_at(&["instanceTypeSet", "item", "vCpuInfo", "defaultVCpus"])
                .and_then(|text| text.parse().ok()),
            Err(crate::upstream::AskError::Refused { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(vcpus) = vcpus else { return Ok(1) };
        types().insert(kind.to_owned(), vcpus);
        Ok(vcpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_gets_what_fits_or_nothing() {
        assert_eq!(fit(192, 0, 2, 500, 500), None);
        assert_eq!(fit(192, 0, 2, 1, 500), Some(96));
        assert_eq!(fit(16, 12, 2, 2, 2), Some(2));
        assert_eq!(fit(16, 13, 2, 2, 2), None);
        assert_eq!(fit(16, 20, 2, 1, 1), None);
    }

    #[test]
    fn the_quota_follows_the_memory() {
        assert_eq!(fitting("MemTotal:       25165824 kB\nMemFree: 1 kB\n"), 192);
        assert_eq!(fitting("MemTotal: 1048576 kB\n"), 16);
        assert_eq!(fitting(""), 16);
    }
}
