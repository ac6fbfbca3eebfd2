//! Text from hosts before it is shown: one line, cut, and without what looks like a secret. User data may fail with a
//! whole script in its error.

use regex::Regex;
use std::sync::LazyLock;

/// One message of a host is cut here.
const MESSAGE: usize = 300;

/// Colours, movements of the cursor and titles, as systemd and kernels write them to a console (ECMA-48).
static ESCAPES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
        .expect("the pattern is tested")
});

/// What stands before a secret, and the secret.
static SECRETS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
    let name = r"[\w-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)[\w-]*";
    let named = format!(
        r#"(?i)({name}["']?\s*[=:]\s*["']?|\s--?{name}\s+["']?|bearer\s+|authorization:\s*\w+\s+|\s(?:-u|--user)\s+[^\s:]+:)[^\s"',;)]+"#
    );
    [&named, r"(://)[^/\s@]*:[^/\s@]+@", r"()\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"]
        .map(|pattern| Regex::new(pattern).expect("the patterns are tested"))
});

/// A message of a host.
pub(crate) fn message(text: &str) -> String {
    let plain = ESCAPES.replace_all(text, "");
    let clean: String = plain.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let [named, in_url, access_key] = &*SECRETS;
    let text = named.replace_all(&clean, "${1}***");
    let text = in_url.replace_all(&text, "${1}***@");
    cut(access_key.replace_all(&text, "***").trim(), MESSAGE)
}

/// The last lines that are not empty, as messages.
pub(crate) fn last_lines(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().rev().map(message).filter(|line| !line.is_empty()).take(most).collect();
    lines.reverse();
    lines
}

/// At most so many characters.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    format!("{}…", text.chars().take(most).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        let check = |text: &str, expected: &str| assert_eq!(message(text), expected);
        check("DB_PASSWORD=hunter2; exit", "DB_PASSWORD=***; exit");
        check("{'api_key': 'abc', 'x': 1}", "{'api_key': '***', 'x': 1}");
        check("mysql --password s3cr3t -e x", "mysql --password *** -e x");
        check("curl -u admin:hunter2 https://a.b/", "curl -u admin:*** https://a.b/");
        check(
            "clone https://ann:pa:ss@git.example/x failed",
            "clone https://***@git.example/x failed",
        );
        check("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***");
        check("key AKIAIOSFODNN7EXAMPLE is old", "key *** is old");
        check(
            "Runparts: 1 failures in 2 attempted commands",
            "Runparts: 1 failures in 2 attempted commands",
        );
        check("curl -H 'X-Token: \x1b[1mabc\x1b[0m'", "curl -H 'X-Token: ***'");
        check("the auth-token expired\nlast line", "the auth-token expired last line");
    }

    #[test]
    fn what_a_console_says_to_a_terminal_is_not_shown() {
        let check = |text: &str, expected: &[&str]| assert_eq!(last_lines(text, 3), expected);
        check(
            "[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mcron\x1b[0m.\r\n",
            &["[  OK  ] Started cron."],
        );
        check("\x1b[2J\x1b[H\x1b(B\x1b]0;title\x07login:\x08 \x1bM\n\x1b[K\r\n", &["login:"]);
        check("a\n\nb\x1b[1A\nc\nd\x1b", &["b", "c", "d"]);
    }
}
