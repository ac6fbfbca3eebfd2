//! What Systems Manager keeps of an output: always the head, never the tail.
//!
//! Source: the agent's `iohandler.go`. It counts bytes; no character is cut in two here.

/// The first so much of an invocation's standard output.
pub(super) const STDOUT: usize = 24_000;
/// The first so much of its standard error.
pub(super) const STDERR: usize = 8_000;
/// What `ListCommandInvocations` shows of both.
const LISTED: usize = 2_500;

const CUT: &str = "--output truncated--";
const STDERR_TITLE: &str = "\n----------ERROR-------\n";
const LISTED_STDOUT_CUT: &str = "\n---Output truncated---";
const LISTED_STDERR_CUT: &str = "\n---Error truncated----";

/// A stream that may be longer than what was kept of it, with the marker where it is; at most `limit` long.
pub(super) fn kept(head: &str, whole: u64, limit: usize) -> String {
    let longer = usize::try_from(whole).map_or(true, |whole| whole > limit);
    if !longer && head.len() <= limit {
        return head.to_owned();
    }
    let head = &head[..head.floor_char_boundary(limit - CUT.len())];
    format!("{head}{CUT}")
}

/// Both streams in one, as a plugin's `Output` shows them.
pub(super) fn listed(stdout: &str, stderr: &str) -> String {
    let title = if stderr.is_empty() { "" } else { STDERR_TITLE };
    let room = LISTED - title.len();
    if stdout.len() + stderr.len() < room {
        return format!("{stdout}{title}{stderr}");
    }
    if stdout.len() < room / 2 {
        let stderr = head(stderr, room - LISTED_STDERR_CUT.len() - stdout.len());
        return format!("{stdout}{title}{stderr}{LISTED_STDERR_CUT}");
    }
    if stderr.len() < room / 2 {
        let stdout = head(stdout, room - LISTED_STDOUT_CUT.len() - stderr.len());
        return format!("{stdout}{LISTED_STDOUT_CUT}{title}{stderr}");
    }
    let half = (room - LISTED_STDOUT_CUT.len() - LISTED_STDERR_CUT.len()) / 2;
    let (stdout, stderr) = (head(stdout, half), head(stderr, half));
    format!("{stdout}{LISTED_STDOUT_CUT}{title}{stderr}{LISTED_STDERR_CUT}")
}

fn head(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_stream_keeps_its_head_and_says_so() {
        assert_eq!(kept("short", 5, STDOUT), "short");
        let exact = "x".repeat(STDOUT);
        assert_eq!(kept(&exact, STDOUT as u64, STDOUT), exact);
        let cut = kept(&exact, STDOUT as u64 + 1, STDOUT);
        assert_eq!(cut.len(), STDOUT);
        assert!(cut.ends_with("x--output truncated--"));
        let wide = "ä".repeat(STDERR);
        let cut = kept(&wide, wide.len() as u64, STDERR);
        assert!(cut.len() <= STDERR && cut.ends_with("ä--output truncated--"));
    }

    #[test]
    fn the_list_shows_both_streams_in_2500_characters() {
        let check = |stdout: usize, stderr: usize, length: usize, marks: &[&str]| {
            let text = listed(&"o".repeat(stdout), &"e".repeat(stderr));
            assert_eq!(text.len(), length, "{stdout}, {stderr}");
            let all = [LISTED_STDOUT_CUT, STDERR_TITLE, LISTED_STDERR_CUT];
            let found: Vec<_> = all.into_iter().filter(|mark| text.contains(mark)).collect();
            assert_eq!(found, marks, "{stdout}, {stderr}");
        };
        check(10, 0, 10, &[]);
        check(2_499, 0, 2_499, &[]);
        check(3_000, 0, 2_500, &[LISTED_STDOUT_CUT]);
        check(10, 10, 44, &[STDERR_TITLE]);
        check(3_000, 10, 2_500, &[LISTED_STDOUT_CUT, STDERR_TITLE]);
        check(10, 3_000, 2_500, &[STDERR_TITLE, LISTED_STDERR_CUT]);
        check(3_000, 3_000, 2_500, &[LISTED_STDOUT_CUT, STDERR_TITLE, LISTED_STDERR_CUT]);
    }
}
