//! What a healthy answer looks like. Pure.

use serde_json::Value;

/// What every answer is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectations {
    /// The status codes that are healthy.
    pub status: Vec<u16>,
    /// Values that the JSON body must have, by dotted key.
    pub json: Vec<(String, String)>,
    /// Texts that the body must contain.
    pub text: Vec<String>,
}

/// An answer, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The `Location` header of a redirect.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// The body was longer than what was read.
    pub cut: bool,
}

/// How an answer differs from a healthy one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another status code.
    #[error("status {got}, expected {expected}{}", said(body))]
    Status {
        /// The status code.
        got: u16,
        /// The healthy ones.
        expected: String,
        /// The beginning of the body.
        body: String,
    },
    /// A redirect that is not followed.
    #[error(
        "status {got} leads to `{location}`, expected {expected}; redirects are followed with `--follow` only"
    )]
    Redirect {
        /// The status code.
        got: u16,
        /// Where it leads.
        location: String,
        /// The healthy status codes.
        expected: String,
    },
    /// The body is no JSON although JSON is expected.
    #[error("the answer is no JSON: {reason}{}", said(body))]
    NoJson {
        /// What the parser says.
        reason: String,
        /// The beginning of the body.
        body: String,
    },
    /// A value is missing or another one.
    #[error("`{key}` is {got}, expected `{expected}`{}", said(body))]
    Json {
        /// The dotted key.
        key: String,
        /// The value, or that there is none.
        got: String,
        /// The healthy value.
        expected: String,
        /// The beginning of the body.
        body: String,
    },
    /// A text is missing.
    #[error("the answer does not contain `{expected}`{}", said(body))]
    Text {
        /// The text.
        expected: String,
        /// The beginning of the body.
        body: String,
    },
}

impl Expectations {
    /// Holds an answer against the expectations.
    ///
    /// # Errors
    /// The first [`Mismatch`]: status, then JSON values, then texts.
    pub fn hold(&self, response: &Response) -> Result<(), Mismatch> {
        let got = response.status;
        let body = excerpt(&response.body);
        if !self.status.contains(&got) {
            let expected = self.status.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ");
            return Err(match &response.location {
                Some(location) => Mismatch::Redirect { got, location: location.clone(), expected },
                None => Mismatch::Status { got, expected, body },
            });
        }
        if !self.json.is_empty() {
            let document: Value = serde_json::from_slice(&response.body).map_err(|error| {
                let reason = if response.cut {
                    "it is larger than 1 MiB".to_owned()
                } else {
                    error.to_string()
                };
                Mismatch::NoJson { reason, body: body.clone() }
            })?;
            for (key, expected) in &self.json {
                let found = find(&document, key);
                if !found.is_some_and(|value| is(value, expected)) {
                    let got =
                        found.map_or("missing".to_owned(), |value| format!("`{}`", plain(value)));
                    let (key, expected) = (key.clone(), expected.clone());
                    return Err(Mismatch::Json { key, got, expected, body });
                }
            }
        }
        let text = String::from_utf8_lossy(&response.body);
        match self.text.iter().find(|expected| !text.contains(expected.as_str())) {
            Some(expected) => Err(Mismatch::Text { expected: expected.clone(), body }),
            None => Ok(()),
        }
    }
}

/// The value at a dotted key; a part may also be an index into a list. A key with dots in it is found as a whole first.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let member = |name: &str| match value {
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    };
    if let Some(found) = member(key) {
        return Some(found);
    }
    key.match_indices('.').find_map(|(dot, _)| {
        let inner = match value {
            Value::Array(list) => list.get(key[..dot].parse::<usize>().ok()?)?,
            value => value.get(&key[..dot])?,
        };
        find(inner, &key[dot + 1..])
    })
}

/// Strings are compared as they are, anything else as JSON writes it.
fn is(value: &Value, expected: &str) -> bool {
    plain(value) == expected
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The beginning of a body, in one line: a health document says what is wrong.
fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * LONGEST)]);
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn said(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("; it said: {body}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(json: &[(&str, &str)], text: &[&str], status: u16, body: &str) -> Result<(), String> {
        let own = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
        let expectations = Expectations {
            status: vec![200, 204],
            json: json.iter().map(own).collect(),
            text: text.iter().map(|text| (*text).to_owned()).collect(),
        };
        let response = Response { status, location: None, body: body.into(), cut: false };
        expectations.hold(&response).map_err(|mismatch| mismatch.to_string())
    }

    #[test]
    fn a_healthy_answer_passes() {
        let body = r#"{"status":"ok","age":3,"services":[{"name":"asterisk","up":true}],"a.b":{"c.d":null}}"#;
        let json = [("status", "ok"), ("age", "3"), ("services.0.up", "true"), ("a.b.c.d", "null")];
        assert_eq!(held(&json, &["asterisk"], 200, body), Ok(()));
        assert_eq!(held(&[], &[], 204, ""), Ok(()));
    }

    #[test]
    fn the_first_difference_is_named_with_what_the_service_said() {
        let check = |json: &[(&str, &str)], status, body, expected: &str| {
            assert_eq!(held(json, &["up"], status, body).unwrap_err(), expected);
        };
        check(
            &[],
            503,
            "{\n \"asterisk\": \"down\"}",
            "status 503, expected 200 or 204; it said: { \"asterisk\": \"down\"}",
        );
        check(
            &[("a", "1")],
            200,
            "<html>",
            "the answer is no JSON: expected value at line 1 column 1; it said: <html>",
        );
        check(
            &[("a.b", "1")],
            200,
            r#"{"a":{"b":2}}"#,
            r#"`a.b` is `2`, expected `1`; it said: {"a":{"b":2}}"#,
        );
        check(
            &[("a.0", "1")],
            200,
            r#"{"a":[]}"#,
            r#"`a.0` is missing, expected `1`; it said: {"a":[]}"#,
        );
        check(&[], 200, "", "the answer does not contain `up`");
        check(
            &[],
            500,
            &"é".repeat(900),
            &format!("status 500, expected 200 or 204; it said: {}…", "é".repeat(300)),
        );
    }

    #[test]
    fn a_redirect_says_where_it_leads() {
        let expectations = Expectations { status: vec![200], json: Vec::new(), text: Vec::new() };
        let response = Response {
            status: 301,
            location: Some("https://x/".into()),
            body: Vec::new(),
            cut: false,
        };
        let mismatch = expectations.hold(&response).unwrap_err().to_string();
        assert!(
            mismatch.starts_with("status 301 leads to `https://x/`, expected 200"),
            "{mismatch}"
        );
    }
}
