//! What hosts write to CloudWatch Logs while they run, read as it comes: one call for all hosts of a command.

use deploy_aws::{Client, Error, Pages, SdkConfig, Service};
use serde_json::json;
use std::cell::RefCell;
use std::collections::HashMap;

const LOGS: Service = Service { name: "logs", id: "CloudWatch Logs", version: "2014-03-28" };
const OPERATION: &str = "logs:FilterLogEvents";
const TARGET: &str = "Logs_20140328.FilterLogEvents";
/// Events of one second arrive in any order, and late ones after newer ones of other hosts.
const LATE_MS: i64 = 5_000;

/// What is known of one command's events.
#[derive(Debug, Default)]
struct Seen {
    /// Time of the newest, in milliseconds since 1970.
    newest: i64,
    /// Times of those that the next answer may hold once more, by ID.
    recent: HashMap<String, i64>,
}

impl Seen {
    /// From when on to ask.
    fn start(&self) -> i64 {
        (self.newest - LATE_MS).max(0)
    }

    /// Takes note of an event; false when it was known.
    fn add(&mut self, id: &str, time: i64) -> bool {
        self.newest = self.newest.max(time);
        self.recent.insert(id.to_owned(), time).is_none()
    }

    /// Forgets what will not be asked for again.
    fn forget(&mut self) {
        let start = self.start();
        self.recent.retain(|_, time| *time >= start);
    }
}

/// The streams of one run's commands.
#[derive(Debug)]
pub(crate) struct Live {
    client: Client,
    group: String,
    /// By command.
    seen: RefCell<HashMap<String, Seen>>,
}

impl Live {
    pub(crate) fn new(config: &SdkConfig, group: &str) -> Self {
        let client = Client::new(config.clone());
        Self { client, group: group.to_owned(), seen: RefCell::default() }
    }

    /// The newest line of every host of a command that has a new one, by instance ID.
    pub(crate) async fn news(&self, command: &str) -> Result<HashMap<String, String>, Error> {
        let start = self.seen.borrow_mut().entry(command.to_owned()).or_default().start();
        let mut lines = HashMap::new();
        let mut token: Option<String> = None;
        let mut pages = Pages::of(OPERATION);
        loop {
            let mut request = json!({
                "logGroupName": self.group,
                "logStreamNamePrefix": format!("{command}/"),
                "startTime": start,
            });
            if let Some(token) = token {
                request["nextToken"] = token.into();
            }
            let answer = match self.client.json(LOGS, OPERATION, TARGET, &request).await {
                // The first agent that has something to write makes the group.
                Err(error) if error.code() == Some("ResourceNotFoundException") => break,
                answer => answer?,
            };
            let mut seen = self.seen.borrow_mut();
            let seen = seen.entry(command.to_owned()).or_default();
            for event in answer["events"].as_array().into_iter().flatten() {
                let text = |name: &str| event[name].as_str().unwrap_or_default();
                if !seen.add(text("eventId"), event["timestamp"].as_i64().unwrap_or(0)) {
                    continue;
                }
                if let Some(id) = instance(text("logStreamName"), command)
                    && let Some(line) = text("message").lines().last()
                {
                    lines.insert(id.to_owned(), line.to_owned());
                }
            }
            token = pages.next(answer["nextToken"].as_str())?;
            if token.is_none() {
                break;
            }
        }
        self.seen.borrow_mut().entry(command.to_owned()).or_default().forget();
        Ok(lines)
    }
}

/// The instance of `<command>/<instance>/<plugin>/stderr`:
/// <https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-rc-setting-up-cwlogs.html>.
fn instance<'a>(stream: &'a str, command: &str) -> Option<&'a str> {
    let rest = stream.strip_prefix(command)?.strip_prefix('/')?.strip_suffix("/stderr")?;
    rest.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stderr_of_the_own_command_is_followed() {
        let of = |stream| instance(stream, "c1");
        assert_eq!(of("c1/i-1/aws-runShellScript/stderr"), Some("i-1"));
        for other in ["c1/i-1/aws-runShellScript/stdout", "c2/i-1/aws-runShellScript/stderr", "c1"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn an_event_is_new_once_and_old_ones_are_forgotten() {
        let mut seen = Seen::default();
        assert!(seen.add("a", 1_000) && seen.add("b", 8_000) && !seen.add("b", 8_000));
        // One that comes late may still be asked for.
        assert!(seen.add("c", 4_000));
        seen.forget();
        assert_eq!((seen.start(), seen.recent.len()), (3_000, 2));
    }
}
