//! What hosts write to CloudWatch Logs while they run, read as it comes: one call for all hosts of a command.

use deploy_aws::{Client, Error, SdkConfig, Service};
use serde_json::json;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

const LOGS: Service = Service { name: "logs", id: "CloudWatch Logs", version: "2014-03-28" };
const OPERATION: &str = "logs:FilterLogEvents";
const TARGET: &str = "Logs_20140328.FilterLogEvents";
/// A page may be empty although more follow.
const PAGES: usize = 10;

/// The streams of one run's commands.
#[derive(Debug)]
pub(crate) struct Live {
    client: Client,
    group: String,
    /// By command: the time of the newest event in milliseconds, and the IDs of those of the last seconds.
    seen: RefCell<HashMap<String, (i64, HashSet<String>)>>,
}

impl Live {
    pub(crate) fn new(config: &SdkConfig, group: &str) -> Self {
        let client = Client::new(config.clone());
        Self { client, group: group.to_owned(), seen: RefCell::default() }
    }

    /// The newest line of every host of a command that has a new one, by instance ID.
    pub(crate) async fn news(&self, command: &str) -> Result<HashMap<String, String>, Error> {
        let (newest, known) = self.seen.borrow().get(command).cloned().unwrap_or_default();
        let (mut latest, mut ids) = (newest, known.clone());
        let mut lines = HashMap::new();
        let mut token = None;
        for _ in 0..PAGES {
            let mut request = json!({
                "logGroupName": self.group,
                "logStreamNamePrefix": format!("{command}/"),
                // Events of one second arrive in any order, and late ones after newer ones of other hosts.
                "startTime": (newest - 5_000).max(0),
            });
            if let Some(token) = token {
                request["nextToken"] = token;
            }
            let answer = match self.client.json(LOGS, OPERATION, TARGET, &request).await {
                // The first agent that has something to write makes the group.
                Err(error) if error.code() == Some("ResourceNotFoundException") => break,
                answer => answer?,
            };
            for event in answer["events"].as_array().into_iter().flatten() {
                let text = |name: &str| event[name].as_str().unwrap_or_default();
                if !ids.insert(text("eventId").to_owned()) {
                    continue;
                }
                latest = latest.max(event["timestamp"].as_i64().unwrap_or(0));
                if let Some(id) = instance(text("logStreamName"), command)
                    && let Some(line) = text("message").lines().last()
                {
                    lines.insert(id.to_owned(), line.to_owned());
                }
            }
            token = answer.get("nextToken").filter(|token| !token.is_null()).cloned();
            if token.is_none() {
                break;
            }
        }
        self.seen.borrow_mut().insert(command.to_owned(), (latest, ids));
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
}
