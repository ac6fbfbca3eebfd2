//! Calls that fail again and again are said once, and then now and then with their number.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// At most one line for an error of the same kind within this time.
const EVERY: Duration = Duration::from_secs(30);

/// What was said about errors so far, by operation and code.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    said: HashMap<String, Said>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    /// How often the error came since.
    unsaid: u32,
}

impl Repeats {
    /// The warning for an error that came now; none when one of its kind was said a short time ago.
    pub(crate) fn words(&mut self, error: &deploy_aws::Error, now: Instant) -> Option<String> {
        let deploy_aws::Error::Unavailable { operation, code, .. } = error else {
            return Some(error.to_string());
        };
        let kind = format!("{operation} {}", code.as_deref().unwrap_or_default());
        let Some(said) = self.said.get_mut(&kind) else {
            self.said.insert(kind, Said { at: now, unsaid: 0 });
            return Some(format!("{error}; trying again"));
        };
        said.unsaid += 1;
        let passed = now.duration_since(said.at);
        if passed < EVERY {
            return None;
        }
        let (times, since) = (said.unsaid, deploy_cli::human(passed));
        *said = Said { at: now, unsaid: 0 };
        Some(format!("{error}; failed {times} more times in {since}, trying again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_once_and_then_now_and_then_with_its_number() {
        let error = |code: &str| deploy_aws::Error::Unavailable {
            operation: "ec2:DescribeInstances",
            code: Some(code.to_owned()),
            message: "busy".to_owned(),
        };
        let mut repeats = Repeats::default();
        let start = Instant::now();
        let mut said = Vec::new();
        for second in [0, 3, 6, 29, 30, 33] {
            said.extend(repeats.words(&error("Unavailable"), start + Duration::from_secs(second)));
        }
        assert_eq!(
            said,
            [
                "ec2:DescribeInstances got no answer: busy (Unavailable); trying again",
                "ec2:DescribeInstances got no answer: busy (Unavailable); failed 4 more times in 30.0 s, trying again",
            ]
        );
        assert!(repeats.words(&error("Throttling"), start).is_some(), "another kind");
    }
}
