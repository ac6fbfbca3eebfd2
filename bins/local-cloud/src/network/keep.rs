//! Keeps the packet rules as they were written, whoever changes them.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Notify;

use super::{Made, Networks};
use crate::error::Error;
use crate::{firewall, guard, log, process};

/// How often the rules are looked at where nothing tells of a change, as of routing rules.
const LOOK: Duration = Duration::from_secs(10);
/// How long to wait before asking again for what has failed.
const PAUSE: Duration = Duration::from_millis(500);

impl Networks {
    /// Restores what somebody else removes or changes, as soon as the kernel tells of it. Without end.
    pub async fn keep(&self) {
        let changed = Notify::new();
        tokio::join!(listen(&changed), async {
            loop {
                // Whatever comes first: a change of any packet rule of this machine, or the next look.
                let _ = tokio::time::timeout(LOOK, changed.notified()).await;
                if let Err(error) = self.restore().await {
                    log::line(format_args!("the packet rules cannot be kept: {error}"));
                    tokio::time::sleep(PAUSE).await;
                    changed.notify_one();
                }
            }
        });
    }

    /// Writes the rules again where they are not as they were written.
    async fn restore(&self) -> Result<(), Error> {
        let mut made = self.made.lock().await;
        if made.networks.is_empty() {
            return Ok(());
        }
        let Made { networks, written, guard, .. } = &mut *made;
        for network in networks.values() {
            guard::close_routes(&network.gateway.bridge).await?;
        }
        let now = firewall::as_they_are(&self.project).await?;
        if now.is_some() && now == *written && guard::lives(guard) {
            return Ok(());
        }
        log::line("somebody else changed the packet rules of this cloud; they are written again");
        self.write_firewall(&mut made).await
    }
}

/// Tells of every change of packet rules on this machine, for as long as it is waited for.
async fn listen(changed: &Notify) {
    loop {
        let monitor = process::command("nft")
            .arg("monitor")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let lines = match monitor {
            Ok(mut monitor) => {
                // What happened while nobody listened.
                changed.notify_one();
                let lines = monitor.stdout.take().map(|pipe| BufReader::new(pipe).lines());
                lines.map(|lines| (monitor, lines))
            }
            Err(error) => {
                log::line(format_args!("cannot listen for changes of packet rules: {error}"));
                None
            }
        };
        if let Some((_monitor, mut lines)) = lines {
            while let Ok(Some(_)) = lines.next_line().await {
                changed.notify_one();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
