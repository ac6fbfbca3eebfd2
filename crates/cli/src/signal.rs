//! The first SIGINT, SIGTERM or SIGHUP as a future; a later one ends the process at once, as the shell expects.

use crate::Exit;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

/// One Ctrl-C may come twice: from the terminal to the whole process group, and passed on by a script. Signals this close
/// to the first one are the same wish.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Resolves for every caller once the first signal has come.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    seen: watch::Receiver<Option<Exit>>,
    // Keeps the channel open when there is no runtime to listen in (unit tests without tokio).
    _sender: Arc<watch::Sender<Option<Exit>>>,
}

impl Stop {
    /// Starts to listen when called inside a tokio runtime.
    pub(crate) fn listen() -> Self {
        let (sender, seen) = watch::channel(None);
        let sender = Arc::new(sender);
        if tokio::runtime::Handle::try_current().is_ok()
            && let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        {
            let sender = Arc::clone(&sender);
            // What `nohup` started goes on without its terminal.
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let hangup = (!ignores_hangup(&status)).then(|| signal(SignalKind::hangup()).ok());
            let mut hangup = hangup.flatten();
            tokio::spawn(async move {
                let mut first: Option<Instant> = None;
                loop {
                    let exit = tokio::select! {
                        _ = interrupt.recv() => Exit::Interrupted,
                        _ = terminate.recv() => Exit::Terminated,
                        () = hung_up(hangup.as_mut()) => Exit::Terminated,
                    };
                    match first {
                        None => {
                            first = Some(Instant::now());
                            sender.send_replace(Some(exit));
                        }
                        Some(first) if first.elapsed() > SAME_WISH => later_signal(exit),
                        Some(_) => {}
                    }
                }
            });
        }
        Self { seen, _sender: sender }
    }

    pub(crate) async fn stopped(&self) -> Exit {
        let mut seen = self.seen.clone();
        loop {
            if let Some(exit) = *seen.borrow_and_update() {
                return exit;
            }
            if seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Whether SIGHUP is ignored, from the mask of signal numbers in `/proc/self/status` (proc_pid_status(5)).
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

async fn hung_up(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

#[expect(clippy::exit, reason = "a later signal means now, whatever is still being cleaned up")]
fn later_signal(exit: Exit) -> ! {
    std::process::exit(i32::from(exit.code()))
}

#[cfg(test)]
mod tests {
    use super::ignores_hangup;

    #[test]
    fn what_nohup_started_is_known() {
        let status = |mask: &str| format!("SigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")) && !ignores_hangup(""));
    }
}
