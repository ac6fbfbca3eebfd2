//! The event log: what happened lately, kept in memory for `local-cloud events` and the page.

use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Events that are kept; the older ones stand in the daemon's log. At about 200 bytes each that is 1 MB.
const KEPT: usize = 5_000;

/// Longer texts are cut; they quote what a program said.
const LONGEST: usize = 2_000;

/// The event log of this process; there is one daemon in it, and one log.
pub static EVENTS: LazyLock<Events> = LazyLock::new(Events::default);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; they have no gaps.
    pub id: u64,
    /// When.
    pub time: Timestamp,
    /// Instance or command id of what it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What.
    pub text: String,
}

/// The latest events.
#[derive(Debug, Default)]
pub struct Events {
    ring: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
}

impl Events {
    /// Adds an event.
    pub fn add(&self, time: Timestamp, mut text: String) {
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
            text.push('…');
        }
        let id = {
            let mut ring = self.ring();
            let id = ring.back().map_or(1, |event| event.id + 1);
            if ring.len() == KEPT {
                ring.pop_front();
            }
            ring.push_back(Event { id, time, subject: subject(&text), text });
            id
        };
        self.newest.send_modify(|newest| *newest = id.max(*newest));
    }

    /// Those after a number and not before a time.
    pub fn after(&self, id: u64, since: Option<Timestamp>) -> Vec<Event> {
        let fits = |event: &&Event| event.id > id && since.is_none_or(|since| event.time >= since);
        self.ring().iter().filter(fits).cloned().collect()
    }

    /// Follows the number of the newest event.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first instance or command id of a text.
fn subject(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .find(|word| is_instance(word) || is_command(word))
        .map(str::to_owned)
}

/// `i-` and 8 or 17 hexadecimal digits.
pub(crate) fn is_instance(word: &str) -> bool {
    word.strip_prefix("i-").is_some_and(|rest| {
        matches!(rest.len(), 8 | 17) && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// A UUID, as Systems Manager numbers its commands.
fn is_command(word: &str) -> bool {
    word.len() == 36
        && word.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_subject() {
        let check = |text, expected: Option<&str>| {
            assert_eq!(subject(text).as_deref(), expected, "{text}");
        };
        check("i-0123456789abcdef0 is running", Some("i-0123456789abcdef0"));
        check("i-0123456789abcdef0: fault 1 strikes: latency", Some("i-0123456789abcdef0"));
        check(
            "command 6f1b3f0e-2b7d-4a55-9f3a-0123456789ab is Success",
            Some("6f1b3f0e-2b7d-4a55-9f3a-0123456789ab"),
        );
        check("refused: i-robot", None);
        check("", None);
    }

    #[test]
    fn the_oldest_events_go_first_and_numbers_go_on() {
        let events = Events::default();
        for number in 0..KEPT + 2 {
            events.add(Timestamp::UNIX_EPOCH, format!("{number}"));
        }
        let all = events.after(0, None);
        assert_eq!((all.len(), all[0].id), (KEPT, 3));
        let last = KEPT as u64 + 2;
        assert_eq!(*events.newest().borrow(), last);
        assert_eq!(events.after(last - 1, None).len(), 1);
        assert!(events.after(0, Some(Timestamp::now())).is_empty());
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let events = Events::default();
        events.add(Timestamp::UNIX_EPOCH, "ä".repeat(LONGEST));
        let text = &events.after(0, None)[0].text;
        assert!(text.len() < LONGEST + 4 && text.ends_with('…'));
    }
}
