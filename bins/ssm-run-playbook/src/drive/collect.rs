//! Brings events and logs home where somebody will want to read them.

use super::{Drive, End, Ending, HostEnd, Kind, SIDE_DELIVERY, SIDE_EXECUTION};
use crate::error::Error;
use crate::recap::{self, Missing, Recap};
use crate::script;
use futures_util::stream::{self, StreamExt as _};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// So many hosts are read at a time: enough that 200 take about a second, few enough for Systems Manager's rate.
const AT_ONCE: usize = 8;

/// A recap without what it promises is no result; its figures are still the last that is known.
fn incomplete(host: &mut HostEnd, why: &str) {
    if let Ending::Recap(recap) = &host.ending {
        host.figures = recap.stats.or(recap.so_far);
    }
    host.ending = Ending::NoResult(format!("{why}, although a recap came back"));
}

enum Fetch {
    Aws(Error),
    Missing(Missing),
}

impl Drive<'_> {
    /// Fetches events and logs where somebody will want to read them.
    pub(super) async fn collect(&self) -> Result<Vec<HostEnd>, Error> {
        let mut hosts =
            self.settle(|_| Ending::NoResult("no answer".to_owned()), "its batch was not reached");
        self.bring_home(&mut hosts).await?;
        Ok(hosts)
    }

    /// Adds events and logs of those that answered.
    pub(super) async fn bring_home(&self, hosts: &mut [HostEnd]) -> Result<(), Error> {
        let wanted: Vec<(usize, End, Recap)> = hosts
            .iter()
            .enumerate()
            .filter_map(|(index, host)| {
                let Ending::Recap(recap) = &host.ending else { return None };
                let plain = recap.stats.is_some_and(|stats| stats.changed == 0) && !recap.custom;
                // Whether tags left anything but the gathering of facts is seen from what ran.
                let wanted = self.plan.wants_log || self.plan.narrowed.is_some();
                if plain && recap.rc == Some(0) && !wanted {
                    return None;
                }
                let end = self.ends.borrow().get(&self.plan.hosts[index].id).cloned()?;
                Some((index, end, Recap::clone(recap)))
            })
            .collect();
        let fetching = stream::iter(wanted).map(async |(index, end, recap)| {
            (index, self.fetch(&self.plan.hosts[index].id, &end, &recap).await)
        });
        let mut fetched = std::pin::pin!(fetching.buffer_unordered(AT_ONCE));
        // One by one: what is here stays when the time for the others is over.
        while let Some((index, fetched)) = fetched.next().await {
            let host = &mut hosts[index];
            match fetched {
                Ok((events, log)) => {
                    host.results = events.as_deref().map(recap::results).unwrap_or_default();
                    (host.events, host.log) = (events, log);
                }
                Err(Fetch::Aws(Error::Aws(error @ deploy_aws::Error::Unavailable { .. }))) => {
                    incomplete(host, &format!("what it did cannot be read: {error}"));
                }
                Err(Fetch::Aws(error)) => return Err(error),
                Err(Fetch::Missing(missing)) => incomplete(host, &missing.to_string()),
            }
        }
        Ok(())
    }

    async fn fetch(
        &self,
        id: &str,
        end: &End,
        recap: &Recap,
    ) -> Result<(Option<String>, Option<String>), Fetch> {
        let wanted = [
            ("events", &recap.events),
            ("log", if self.plan.wants_log { &recap.log } else { &None }),
        ];
        // What polling saw of a short answer is all of it.
        let known = wanted.iter().all(|(name, expected)| {
            expected
                .as_ref()
                .is_none_or(|(length, _)| recap::inline(&end.head, name).len() == *length)
        });
        let stdout = if known {
            end.head.clone()
        } else {
            self.ssm.output(&end.command, id).await.map_err(|e| Fetch::Aws(e.into()))?.0
        };
        let events = match &recap.events {
            Some(expected) => Some(self.whole(id, &stdout, "events", expected).await?),
            None => None,
        };
        let log = match &recap.log {
            Some(expected) if self.plan.wants_log => {
                Some(self.whole(id, &stdout, "log", expected).await?)
            }
            _ => None,
        };
        Ok((events, log))
    }

    /// What did not fit into the answer is read in slices.
    async fn whole(
        &self,
        id: &str,
        stdout: &str,
        name: &'static str,
        expected: &(usize, String),
    ) -> Result<String, Fetch> {
        let mut packed = recap::inline(stdout, name).to_owned();
        while packed.len() < expected.0 {
            let script = script::slice(&self.plan.host_folder, &self.plan.run, name, packed.len());
            let slice = self.ask(id, &format!("{name} from {}", packed.len()), &script).await;
            let slice = slice.map_err(Fetch::Aws)?;
            if slice.trim().is_empty() {
                break;
            }
            packed.push_str(slice.trim());
        }
        recap::unpack(&packed, expected, name).map_err(Fetch::Missing)
    }

    /// Runs a small script on one host and returns what it printed.
    async fn ask(&self, id: &str, what: &str, script: &str) -> Result<String, Error> {
        let ids = [id.to_owned()];
        let order_limits = (SIDE_EXECUTION, SIDE_DELIVERY);
        let command = self.send(&ids, Kind::Progress, what, script, order_limits).await?;
        let start = Instant::now();
        loop {
            sleep(Duration::from_millis(250)).await;
            let invocations = self.ssm.invocations(&command, !self.hurries()).await?;
            if invocations.iter().any(|invocation| invocation.ended) {
                self.calls.borrow_mut().retain(|call| call.command != command);
                return Ok(self.ssm.output(&command, id).await?.0);
            }
            if start.elapsed() > SIDE_EXECUTION + SIDE_DELIVERY {
                return Ok(String::new());
            }
        }
    }
}
