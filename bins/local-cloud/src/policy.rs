//! IAM policies: whether they allow an action. Pure.
//!
//! After IAM's user guide, "Policy evaluation logic" and "IAM JSON policy elements reference", for identity-based
//! policies. Condition operators that are not known here never allow and always deny, so that nothing is allowed by
//! mistake.

use serde_json::{Map, Value};

/// What a set of policies says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A statement allows it and none denies it.
    Allowed,
    /// A statement denies it.
    Denied,
    /// No statement speaks of it, which denies it too.
    Silent,
}

/// What is asked of policies.
pub struct Question<'a> {
    /// Such as `ssm:SendCommand`.
    pub action: &'a str,
    /// ARN of what it is done to; `*` where the action knows no resource.
    pub resource: &'a str,
    /// The value of a condition key, where the request has one.
    pub context: &'a dyn Fn(&str) -> Option<String>,
}

/// What policies say together.
pub fn decide<'a>(
    policies: impl IntoIterator<Item = &'a Value>,
    question: &Question<'_>,
) -> Verdict {
    let mut verdict = Verdict::Silent;
    for statement in policies.into_iter().flat_map(|policy| list(&policy["Statement"])) {
        let deny = statement["Effect"] == "Deny";
        if !(names(statement, "Action", "NotAction", &question.action.to_ascii_lowercase(), true)
            && names(statement, "Resource", "NotResource", question.resource, false)
            && holds(&statement["Condition"], question, deny))
        {
            continue;
        }
        if deny {
            return Verdict::Denied;
        }
        if statement["Effect"] == "Allow" {
            verdict = Verdict::Allowed;
        }
    }
    verdict
}

/// One value stands for a list of one.
fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
}

fn names(statement: &Value, name: &str, not_name: &str, text: &str, any_case: bool) -> bool {
    let listed = |values: &Value| {
        list(values).iter().filter_map(Value::as_str).any(|pattern| {
            if any_case {
                matches(&pattern.to_ascii_lowercase(), text)
            } else {
                matches(pattern, text)
            }
        })
    };
    match (statement.get(name), statement.get(not_name)) {
        (Some(values), _) => listed(values),
        (None, Some(values)) => !listed(values),
        (None, None) => false,
    }
}

/// `*` is any text, `?` any character.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            back = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = back {
            back = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

fn holds(condition: &Value, question: &Question<'_>, otherwise: bool) -> bool {
    let empty = Map::new();
    condition.as_object().unwrap_or(&empty).iter().all(|(operator, keys)| {
        keys.as_object().unwrap_or(&empty).iter().all(|(key, values)| {
            let values: Vec<String> = list(values)
                .iter()
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                .collect();
            test(operator, (question.context)(key), &values).unwrap_or(otherwise)
        })
    })
}

/// `None` for an operator that is not known here.
fn test(operator: &str, found: Option<String>, values: &[String]) -> Option<bool> {
    if operator == "Null" {
        let wanted_absent = values.first().is_some_and(|value| value == "true");
        return Some(found.is_none() == wanted_absent);
    }
    let (operator, if_exists) = match operator.strip_suffix("IfExists") {
        Some(operator) => (operator, true),
        None => (operator, false),
    };
    let (operator, negated) = match operator {
        "StringNotEquals" => ("StringEquals", true),
        "StringNotLike" => ("StringLike", true),
        "StringNotEqualsIgnoreCase" => ("StringEqualsIgnoreCase", true),
        "ArnNotLike" | "ArnNotEquals" => ("StringLike", true),
        "ArnLike" | "ArnEquals" => ("StringLike", false),
        other => (other, false),
    };
    let one: fn(&str, &str) -> bool = match operator {
        "StringEquals" => |value, found| value == found,
        "StringEqualsIgnoreCase" | "Bool" => str::eq_ignore_ascii_case,
        "StringLike" => matches,
        _ => return None,
    };
    Some(match found {
        Some(found) => values.iter().any(|value| one(value, &found)) != negated,
        // A key that the request does not have matches what is negated, and what asks only if it exists.
        None => negated || if_exists,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INSTANCE: &str = "arn:aws:ec2:us-east-1:123456789012:instance/i-1";

    fn ask(statements: Value, action: &str, resource: &str) -> Verdict {
        let policy = json!({"Version": "2012-10-17", "Statement": statements});
        let context = |key: &str| (key == "ssm:resourceTag/role").then(|| "sip".to_owned());
        decide([&policy], &Question { action, resource, context: &context })
    }

    #[test]
    fn what_is_not_allowed_is_denied_and_a_denial_wins() {
        let allow = json!({"Effect": "Allow", "Action": "ssm:Send*", "Resource": "*"});
        let deny = json!({"Effect": "Deny", "Action": ["ssm:SendCommand"], "Resource": INSTANCE});
        assert_eq!(ask(json!([]), "ssm:SendCommand", INSTANCE), Verdict::Silent);
        assert_eq!(ask(allow.clone(), "ssm:SENDCOMMAND", INSTANCE), Verdict::Allowed);
        assert_eq!(ask(allow.clone(), "ssm:GetCommandInvocation", INSTANCE), Verdict::Silent);
        assert_eq!(ask(json!([deny, allow]), "ssm:SendCommand", INSTANCE), Verdict::Denied);
        assert_eq!(ask(json!([deny, allow]), "ssm:SendCommand", "arn:other"), Verdict::Allowed);
    }

    #[test]
    fn resources_and_exceptions_narrow_a_statement() {
        let only =
            json!({"Effect": "Allow", "Action": "*", "Resource": ["arn:aws:ec2:*:*:instance/*"]});
        assert_eq!(ask(only.clone(), "ssm:SendCommand", INSTANCE), Verdict::Allowed);
        assert_eq!(ask(only, "ssm:SendCommand", "arn:aws:s3:::x"), Verdict::Silent);
        let but = json!({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"});
        assert_eq!(ask(but.clone(), "ssm:SendCommand", INSTANCE), Verdict::Allowed);
        assert_eq!(ask(but, "iam:PassRole", INSTANCE), Verdict::Silent);
        let but = json!({"Effect": "Allow", "Action": "ssm:*", "NotResource": "*/i-1"});
        assert_eq!(ask(but, "ssm:SendCommand", INSTANCE), Verdict::Silent);
    }

    #[test]
    fn conditions_are_looked_at() {
        let with = |effect: &str, condition: Value| {
            let allow = json!({"Effect": "Allow", "Action": "ssm:*", "Resource": "*"});
            let statement = json!({"Effect": effect, "Action": "ssm:*", "Resource": "*", "Condition": condition});
            let statements =
                if effect == "Deny" { json!([allow, statement]) } else { json!([statement]) };
            ask(statements, "ssm:SendCommand", INSTANCE)
        };
        let tag = "ssm:resourceTag/role";
        assert_eq!(with("Allow", json!({"StringEquals": {tag: ["web", "sip"]}})), Verdict::Allowed);
        assert_eq!(with("Allow", json!({"StringEquals": {tag: "web"}})), Verdict::Silent);
        assert_eq!(with("Allow", json!({"StringLike": {tag: "s?*"}})), Verdict::Allowed);
        assert_eq!(with("Allow", json!({"StringNotEquals": {"aws:other": "x"}})), Verdict::Allowed);
        assert_eq!(with("Allow", json!({"StringEquals": {"aws:other": "x"}})), Verdict::Silent);
        assert_eq!(
            with("Allow", json!({"StringEqualsIfExists": {"aws:other": "x"}})),
            Verdict::Allowed
        );
        assert_eq!(with("Allow", json!({"Null": {"aws:other": "true"}})), Verdict::Allowed);
        assert_eq!(
            with("Allow", json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})),
            Verdict::Silent
        );
        assert_eq!(
            with("Deny", json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})),
            Verdict::Denied
        );
        assert_eq!(
            with("Deny", json!({"Bool": {"aws:SecureTransport": "false"}})),
            Verdict::Allowed
        );
    }

    #[test]
    fn patterns_match_as_a_whole() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
