//! References to secrets: what they look like, and where they stand in extra vars. Their values are known to hosts only.

use crate::yaml;
use serde_saphyr::granit_parser::{Event, ScalarStyle};

const SECRETS: &str = "secretsmanager:";
const PARAMETERS: &str = "ssm:";

/// Whether a text means to be a reference; it may still be a bad one: `ssm:name` without `/` is no text by intention.
fn is_meant(text: &str) -> bool {
    let parameter = text.strip_prefix(PARAMETERS);
    text.starts_with(SECRETS)
        || is_misspelt(text)
        || parameter.is_some_and(|rest| !rest.starts_with(' '))
}

/// `secretmanager:`, `secrets-manager:` and the like.
fn is_misspelt(text: &str) -> bool {
    let Some((word, name)) = text.split_once(':') else { return false };
    let same = word.to_lowercase().replace(['s', '-', '_'], "") == "ecretmanager";
    same && !text.starts_with(SECRETS) && !name.starts_with(' ')
}

/// Checks `secretsmanager:NAME-OR-ARN[#json-key]` and `ssm:/NAME`. The reason does not repeat the text.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let plain = |name: &str, also: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    if let Some(rest) = text.strip_prefix(SECRETS) {
        // https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
        let (name, key) =
            rest.split_once('#').map_or((rest, None), |(name, key)| (name, Some(key)));
        return if !plain(name, "/_+=.@-:") {
            Err("`secretsmanager:` must be followed by a secret's name or ARN".to_owned())
        } else if key == Some("") {
            Err("`#` must be followed by a key of the secret's JSON".to_owned())
        } else {
            Ok(())
        };
    }
    // https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html; `:3` is a version.
    match text.strip_prefix(PARAMETERS) {
        Some(name) if name.starts_with('/') && plain(name, "/_.-:") => Ok(()),
        Some(_) => {
            Err("`ssm:` must be followed by a parameter's name that begins with `/`; what is meant as text \
                 goes into a variables file of the Ansible folder"
                .to_owned())
        }
        None if is_misspelt(text) => Err("it is spelled `secretsmanager:`".to_owned()),
        None => Err("not a reference to a secret".to_owned()),
    }
}

/// Puts a mark, in double quotes, in the place of every value that is a reference, and notes what it stands for. JSON is
/// YAML here. The error holds the reference and what is wrong with it.
pub(crate) fn mark(
    text: &str,
    found: &mut Vec<(String, String)>,
) -> Result<String, (String, String)> {
    if !text.contains(':') {
        return Ok(text.to_owned());
    }
    // Files were checked before; what else comes here was written by us.
    let Ok(events) = yaml::events(text) else { return Ok(text.to_owned()) };
    let mut out = String::new();
    let mut characters = text.chars();
    let mut at = 0;
    for (event, span) in &events {
        let Event::Scalar(value, style, ..) = event else { continue };
        if !is_meant(value) {
            continue;
        }
        check(value).map_err(|reason| (value.to_string(), reason))?;
        let (from, to) = (span.start.index(), span.end.index());
        out.extend(characters.by_ref().take(from - at));
        let written: String = characters.by_ref().take(to - from).collect();
        at = to;
        // A block scalar or one with escapes is more than its value in quotes.
        let bare = written.trim_end();
        let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        let plain = [value.to_string(), format!("'{value}'"), format!("\"{value}\"")];
        if block || !plain.iter().any(|text| text == bare) {
            let reason = "write a reference plainly on the line of its key".to_owned();
            return Err((value.to_string(), reason));
        }
        let mark = format!("ssm-run-playbook-reference-{}", found.len());
        out.push_str(&format!("\"{mark}\"{}", &written[bare.len()..]));
        found.push((mark, value.to_string()));
    }
    out.extend(characters);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_marked_wherever_they_are_values_and_nothing_else_is() {
        let check = |text: &str, expected: &str, references: &[&str]| {
            let mut found = Vec::new();
            let marked = mark(text, &mut found).unwrap();
            assert_eq!(marked.replace("ssm-run-playbook-reference-", "@"), expected);
            assert_eq!(found.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), references);
        };
        check(
            "ä: é\na: secretsmanager:db#password # why\nb: [ 'ssm:/x/y', {c: \"ssm:/z:3\"}]\n",
            "ä: é\na: \"@0\" # why\nb: [ \"@1\", {c: \"@2\"}]\n",
            &["secretsmanager:db#password", "ssm:/x/y", "ssm:/z:3"],
        );
        check(r#"{"a":"ssm:/x"}"#, r#"{"a":"@0"}"#, &["ssm:/x"]);
        check("- ssm:/x\n- ssm:/x", "- \"@0\"\n- \"@1\"", &["ssm:/x", "ssm:/x"]);
        for other in [
            "a: see ssm:/x\n",
            "# ssm:/x\na: 1\n",
            "a: 'ssm: x'\n",
            "a: 'xssm:/y'\n",
            "secretmanager: 1\n",
        ] {
            check(other, other, &[]);
        }
    }

    #[test]
    fn what_looks_like_a_reference_and_is_none_is_refused() {
        for (text, said) in [
            ("a: 'secretsmanager:'\n", "name or ARN"),
            ("a: secretsmanager:x y\n", "name or ARN"),
            ("a: secretsmanager:x#\n", "key of the secret"),
            ("a: ssm:/x{{ y }}\n", "begins with `/`"),
            ("a: ssm:x\n", "begins with `/`"),
            ("a: ['ssm:']\n", "begins with `/`"),
            ("a: |-\n  ssm:/x\n", "plainly"),
            ("a: secretmanager:db\n", "spelled `secretsmanager:`"),
            ("a: Secrets-Manager:db\n", "spelled `secretsmanager:`"),
        ] {
            let (_, reason) = mark(text, &mut Vec::new()).unwrap_err();
            assert!(reason.contains(said), "{text}: {reason}");
        }
        assert!(check("hunter2").is_err() && check("ssm:x").is_err() && check("ssm:/x").is_ok());
    }
}
