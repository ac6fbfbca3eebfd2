//! The message: what is known about a deployment as Slack's Block Kit, within Slack's limits. Pure.
//!
//! Text from outside (titles, names of hosts) goes into `plain_text`, where Slack reads no markup, and is escaped as
//! well: a raw `<!channel>` would ping everybody.
//! Limits: <https://docs.slack.dev/reference/block-kit/blocks>; the sum over all blocks is not documented, and around
//! 11,000 characters have been refused.

use crate::rollup::{Deployment, Job, Outcome, Step};
use deploy_actions::text::is_hidden;
use serde_json::{Value, json};

/// Characters in a `header` block.
const HEADER: usize = 150;
/// Characters in the text of a `section` block.
const SECTION: usize = 3000;
/// Sections that this tool uses at most; with the rest this stays under 9,000 characters in all.
const SECTIONS: usize = 2;
/// Characters in one line, so that one verbose step leaves room for the others.
const LINE: usize = 400;
/// Characters in the fallback, which a notification shows one line of.
const FALLBACK: usize = 1000;
/// Failures shown per step; the others are counted.
const FAILURES: usize = 5;

/// Where the deployment ran, for the last line of the message.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Link to the workflow run.
    pub run_url: Option<String>,
    /// Who started it, on which branch, at which commit.
    pub words: Option<String>,
}

/// The payload for `chat.postMessage`, `chat.update` and incoming webhooks, without channel and `ts`.
pub fn payload(deployment: &Deployment, origin: &Origin) -> Value {
    let headline = headline(deployment);
    let lines = lines(deployment);
    let mut blocks = vec![json!({ "type": "header", "text": plain(&headline, HEADER) })];
    blocks.extend(pack(&lines).into_iter().map(|text| {
        json!({ "type": "section", "text": { "type": "plain_text", "text": text, "emoji": false } })
    }));
    let mut context = Vec::new();
    if let Some(url) = origin.run_url.as_deref().filter(|url| is_plain_url(url)) {
        context.push(json!({ "type": "mrkdwn", "text": format!("<{url}|Workflow run>") }));
    }
    if let Some(words) = &origin.words {
        context.push(plain(words, LINE));
    }
    if !context.is_empty() {
        blocks.push(json!({ "type": "context", "elements": context }));
    }
    // `text` is what notifications and screen readers show beside blocks; without it they show nothing.
    let fallback = lines
        .iter()
        .find(|line| line.outcome > Outcome::Success)
        .map_or_else(|| headline.clone(), |line| format!("{headline}: {}", line.text));
    json!({ "text": escaped(&fallback, FALLBACK), "blocks": blocks, "unfurl_links": false, "unfurl_media": false })
}

/// One line that says it all, e.g. `✅ calldata-foundation dev: deployed (4 min 05 s)`.
pub fn headline(deployment: &Deployment) -> String {
    let mut place = String::new();
    for word in [&deployment.project, &deployment.environment].into_iter().flatten() {
        place.push_str(word);
        place.push(' ');
    }
    let place = if place.is_empty() { "unknown environment" } else { place.trim_end() };
    let elapsed = deployment
        .elapsed
        .map(|elapsed| format!(" ({})", deploy_cli::human(elapsed)))
        .unwrap_or_default();
    format!("{} {place}: {}{elapsed}", deployment.outcome.sign(), deployment.outcome.words())
}

struct Line {
    outcome: Outcome,
    text: String,
}

fn lines(deployment: &Deployment) -> Vec<Line> {
    let mut lines: Vec<Line> = deployment.steps.iter().flat_map(step_lines).collect();
    lines.extend(deployment.jobs.iter().map(|Job { name, result }| {
        let outcome = if result == "cancelled" { Outcome::Stopped } else { Outcome::Failed };
        Line { outcome, text: format!("{} job {name}: {result}", outcome.sign()) }
    }));
    if lines.is_empty() {
        let text = "No step left a report.".to_owned();
        lines.push(Line { outcome: Outcome::Nothing, text });
    }
    lines
}

fn step_lines(step: &Step) -> Vec<Line> {
    let elapsed = step
        .elapsed
        .map(|elapsed| format!(" ({})", deploy_cli::human(elapsed)))
        .unwrap_or_default();
    let text = format!("{} {}: {}{elapsed}", step.outcome.sign(), step.name, step.title);
    let mut lines = vec![Line { outcome: step.outcome, text }];
    let detail =
        |text: String| Line { outcome: Outcome::Nothing, text: format!("     • {text}") };
    lines.extend(step.unreadable.iter().map(|why| detail(why.clone())));
    if step.outcome > Outcome::Success {
        lines.extend(step.failures.iter().take(FAILURES).cloned().map(detail));
        if step.failures.len() > FAILURES {
            lines.push(detail(format!("{} more failed", step.failures.len() - FAILURES)));
        }
    }
    lines
}

/// Lines into texts of sections; what does not fit is counted.
fn pack(lines: &[Line]) -> Vec<String> {
    // Room for the line that counts the rest.
    const REST: usize = 40;
    let mut sections = vec![String::new()];
    for (index, line) in lines.iter().enumerate() {
        let text = escaped(&line.text.replace('\n', " "), LINE);
        let full = |section: &str| length(section) + length(&text) + 1 + REST > SECTION;
        if sections.last().is_some_and(|last| full(last)) {
            if sections.len() == SECTIONS {
                if let Some(last) = sections.last_mut() {
                    last.push_str(&format!("\n… and {} more lines", lines.len() - index));
                }
                break;
            }
            sections.push(String::new());
        }
        if let Some(last) = sections.last_mut() {
            if !last.is_empty() {
                last.push('\n');
            }
            last.push_str(&text);
        }
    }
    sections
}

fn plain(text: &str, limit: usize) -> Value {
    json!({ "type": "plain_text", "text": escaped(text, limit), "emoji": false })
}

/// Slack's three escapes, what is hidden or turns the direction of text made visible, at most `limit` characters.
/// <https://docs.slack.dev/messaging/formatting-message-text#escaping>
fn escaped(text: &str, limit: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    let mut buffer = [0; 4];
    for c in text.chars() {
        let shown;
        let piece: &str = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '\t' | '\n' | '\r' => " ",
            c if is_hidden(c) => {
                shown = c.escape_unicode().to_string();
                &shown
            }
            c => c.encode_utf8(&mut buffer),
        };
        if used + length(piece) >= limit {
            out.push('…');
            break;
        }
        used += length(piece);
        out.push_str(piece);
    }
    out
}

/// As UTF-16 counts it, the larger of the two ways in which Slack might.
fn length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

fn is_plain_url(url: &str) -> bool {
    url.starts_with("https://")
        && url.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '|' | '&'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn deployment(steps: Vec<Step>) -> Deployment {
        let outcome = steps.iter().map(|step| step.outcome).max().unwrap_or(Outcome::Nothing);
        let (project, environment) =
            (Some("calldata-foundation".to_owned()), Some("dev".to_owned()));
        Deployment {
            project,
            environment,
            outcome,
            steps,
            jobs: Vec::new(),
            elapsed: Some(Duration::from_secs(245)),
        }
    }

    fn step(name: &str, outcome: Outcome, title: &str) -> Step {
        let (name, title) = (name.to_owned(), title.to_owned());
        let elapsed = Some(Duration::from_millis(1500));
        Step { name, outcome, title, elapsed, failures: Vec::new(), unreadable: None }
    }

    /// What Slack would refuse, as an error.
    fn check(payload: &Value) {
        let text = payload["text"].as_str().unwrap();
        assert!(!text.is_empty() && length(text) <= 4000);
        let blocks = payload["blocks"].as_array().unwrap();
        assert!(!blocks.is_empty() && blocks.len() <= 50);
        let mut sum = length(text);
        for block in blocks {
            let texts: Vec<&Value> = match block["type"].as_str().unwrap() {
                "header" | "section" => vec![&block["text"]],
                "context" => block["elements"].as_array().unwrap().iter().collect(),
                other => panic!("block {other}"),
            };
            for text in texts {
                let limit = if block["type"] == "header" { 150 } else { 3000 };
                let content = text["text"].as_str().unwrap();
                assert!(
                    !content.is_empty() && length(content) <= limit,
                    "{} of {limit}",
                    length(content)
                );
                sum += length(content);
                let raw = content.chars().any(|c| matches!(c, '<' | '>'));
                assert!(!raw || text["type"] == "mrkdwn", "{content}");
            }
        }
        assert!(sum < 9000, "{sum} characters in all");
    }

    #[test]
    fn a_message_says_where_how_and_how_long_for_each_step() {
        let steps = vec![
            step("plan", Outcome::Success, "3 to add"),
            step("wait", Outcome::Failed, "1 of 2 hosts failed"),
        ];
        let payload = payload(&deployment(steps), &Origin::default());
        check(&payload);
        assert_eq!(
            payload["blocks"][0]["text"]["text"],
            "❌ calldata-foundation dev: deployment failed (4 min 05 s)"
        );
        assert_eq!(
            payload["blocks"][1]["text"]["text"],
            "✅ plan: 3 to add (1.5 s)\n❌ wait: 1 of 2 hosts failed (1.5 s)"
        );
    }

    #[test]
    fn foreign_text_makes_no_mention_and_no_link() {
        let nasty = "<!channel> <@U1> & <https://x|y>\u{202e}\u{7}";
        let payload =
            payload(&deployment(vec![step(nasty, Outcome::Failed, nasty)]), &Origin::default());
        check(&payload);
        assert!(!payload.to_string().contains("<!channel>"));
        assert!(payload["text"].as_str().unwrap().contains("&lt;!channel&gt; &lt;@U1&gt; &amp; "));
    }

    #[test]
    fn any_text_stays_within_the_limits() {
        // A small generator of our own: the point is odd lengths and odd characters, not randomness.
        let mut seed = 1_u64;
        let mut next = move |below: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).unwrap() % below
        };
        const PIECES: [&str; 10] =
            ["<", ">", "&", "\n", "a", "😀", "<!here>", "\u{0}", "`*_~", "é"];
        for _ in 0..2000 {
            let mut text = |most: usize| {
                (0..next(most)).map(|_| PIECES[next(PIECES.len())]).collect::<String>()
            };
            let count = text(60).len() % 40;
            let steps: Vec<Step> = (0..count)
                .map(|_| {
                    let mut step = step(&text(50), Outcome::Failed, &text(900));
                    step.failures = (0..7).map(|_| text(200)).collect();
                    step
                })
                .collect();
            let mut deployment = deployment(steps);
            deployment.project = Some(text(300));
            let origin = Origin {
                run_url: Some("https://github.com/o/r/actions/runs/1".into()),
                words: Some(text(900) + "."),
            };
            check(&payload(&deployment, &origin));
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let steps = (0..100)
            .map(|n| step(&format!("step-{n}"), Outcome::Success, &"x".repeat(300)))
            .collect();
        let payload = payload(&deployment(steps), &Origin::default());
        check(&payload);
        assert!(
            payload["blocks"][2]["text"]["text"].as_str().unwrap().ends_with("more lines"),
            "{payload}"
        );
    }

    #[test]
    fn a_link_that_could_close_itself_is_left_out() {
        assert!(is_plain_url("https://github.com/o/r/actions/runs/1"));
        assert!(!is_plain_url("https://github.com/o|x>"));
        assert!(!is_plain_url("javascript:alert(1)"));
    }
}
