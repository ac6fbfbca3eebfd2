//! Hosts in waves: the next one begins when the one before has ended well enough and the command between agrees.

use super::{Drive, Ending};
use crate::error::Error;
use crate::recap::State;
use deploy_cli::{Exit, human};
use rustix::process::{Pid, Signal};
use std::process::Stdio;
use tokio::process::Command;

/// Why the rest of the hosts was left alone.
#[derive(Debug, Clone)]
pub(crate) struct Halt {
    /// `None`: as the hosts themselves say.
    pub(crate) exit: Option<Exit>,
    pub(crate) reason: String,
}

impl Drive<'_> {
    /// Runs all waves; false when the time is over and none of the open hosts has started.
    pub(super) async fn waves(&self) -> Result<bool, Error> {
        let ids: Vec<String> = self.plan.hosts.iter().map(|host| host.id.clone()).collect();
        let count = self.plan.waves.len();
        let mut done = 0;
        for (number, size) in self.plan.waves.iter().enumerate() {
            let wave = &ids[done..done + size];
            if number > 0 && self.left().is_zero() {
                let reason = format!("the time was over after {}", human(self.plan.timeout));
                self.halted.replace(Some(Halt { exit: Some(Exit::Timeout), reason }));
                return Ok(true);
            }
            if number > 0
                && let Some(halt) = self.between(&ids[..done], wave, number + 1).await?
            {
                self.halted.replace(Some(halt));
                return Ok(true);
            }
            if count > 1 {
                let names: Vec<&str> = wave.iter().map(|id| self.plan.name(id)).collect();
                let step = format!("batch {} of {count}: {}", number + 1, names.join(", "));
                self.ctx.progress().step(&step);
            }
            self.send_run(wave, false).await?;
            done += size;
            if !self.wait(done).await? {
                return Ok(false);
            }
            let bad = wave.iter().filter(|id| !self.ended_well(id)).count();
            let is_last = number + 1 == count;
            if !is_last && bad > self.plan.max_errors.map_or(0, |amount| amount.of(*size)) {
                let reason = format!("batch {} had {bad} of {size} hosts not good", number + 1);
                self.halted.replace(Some(Halt { exit: None, reason }));
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn ended_well(&self, id: &str) -> bool {
        let ends = self.ends.borrow();
        ends.get(id).is_some_and(|end| match &end.ending {
            Ending::Recap(recap) => recap.state == State::Done && recap.rc == Some(0),
            _ => false,
        })
    }

    /// Runs the command between two waves, with the names of the hosts in its environment.
    async fn between(
        &self,
        done: &[String],
        next: &[String],
        number: usize,
    ) -> Result<Option<Halt>, Error> {
        let Some(line) = &self.plan.between_batches else { return Ok(None) };
        let names =
            |ids: &[String]| ids.iter().map(|id| self.plan.name(id)).collect::<Vec<_>>().join(",");
        self.ctx.progress().step(&format!("before batch {number}: {line}"));
        let child = Command::new("sh")
            .args(["-c", line])
            .env("HOSTS_DONE", names(done))
            .env("HOSTS_NEXT", names(next))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Between { source })?;
        // Dropped with this future when the run ends in between.
        let mut group = Group::of(&child);
        let output = child.wait_with_output().await.map_err(|source| Error::Between { source })?;
        group.0 = None;
        // What it prints is for people; stdout is the report's.
        for text in [output.stdout, output.stderr] {
            let text = String::from_utf8_lossy(&text).into_owned();
            if !text.trim().is_empty() {
                self.ctx.untrusted(&format!("before batch {number}"), &text);
            }
        }
        if output.status.success() {
            return Ok(None);
        }
        let status = output.status;
        let status = status.code().map_or_else(|| status.to_string(), |code| code.to_string());
        let reason = format!("stopped before batch {number}: `{line}` ended with {status}");
        Ok(Some(Halt { exit: Some(Exit::Verdict), reason }))
    }
}

/// The process group of a command, which ends with it when it is dropped before the command has ended: what a shell
/// started does not end with the shell.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself in this moment.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}
