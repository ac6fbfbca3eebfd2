//! When a request is sent again over UDP (RFC 3261 §17.1). Pure.

use std::time::Duration;

/// The estimate of a round trip, RFC 3261 table 4.
pub const T1: Duration = Duration::from_millis(500);
/// The longest pause between two sendings of a request other than INVITE, and of a 2xx to INVITE.
const T2: Duration = Duration::from_secs(4);

/// The pauses before each further sending of a request.
#[derive(Debug, Clone)]
pub struct Resend {
    pause: Duration,
    invite: bool,
    provisional: bool,
}

impl Resend {
    /// For a request that was just sent for the first time.
    pub fn new(invite: bool) -> Self {
        Self { pause: T1, invite, provisional: false }
    }

    /// A provisional response came: an INVITE is not sent again, anything else every [`T2`].
    pub fn provisional(&mut self) {
        self.provisional = true;
        self.pause = T2;
    }

    /// The pause before the next sending; `None` when there is none. Timers A and E.
    pub fn pause(&mut self) -> Option<Duration> {
        if self.invite && self.provisional {
            return None;
        }
        let pause = self.pause;
        self.pause = if self.invite { pause * 2 } else { (pause * 2).min(T2) };
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(mut resend: Resend, count: usize) -> Vec<f64> {
        std::iter::from_fn(|| resend.pause()).take(count).map(|pause| pause.as_secs_f64()).collect()
    }

    #[test]
    fn an_invite_doubles_without_end_and_anything_else_up_to_t2() {
        assert_eq!(seconds(Resend::new(true), 6), [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(seconds(Resend::new(false), 6), [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]);
    }

    #[test]
    fn a_provisional_response_ends_or_slows_it() {
        let after = |invite| {
            let mut resend = Resend::new(invite);
            resend.pause();
            resend.provisional();
            seconds(resend, 2)
        };
        assert!(after(true).is_empty());
        assert_eq!(after(false), [4.0, 4.0]);
    }
}
