//! Whether the profile that `AWS_PROFILE` names exists. The SDK goes on to the next kind of credentials when it does not,
//! and says at the end only that there are none.

use crate::error::Error;
use deploy_actions::named_variable;
use std::path::PathBuf;

/// What is wrong in the end: a profile that is not there, when nobody is who asks; else the error as it is.
pub(crate) fn explain(
    name: &str,
    source: deploy_aws::Error,
    other: fn(String, deploy_aws::Error) -> Error,
) -> Error {
    let nobody = matches!(
        source,
        deploy_aws::Error::NoRegion | deploy_aws::Error::Denied { code: None, .. }
    );
    match missing().filter(|_| nobody) {
        Some(profile) => Error::Profile { name: name.to_owned(), profile, source },
        None => other(name.to_owned(), source),
    }
}

fn missing() -> Option<String> {
    let profile = named_variable("AWS_PROFILE")?;
    let file = |variable, name: &str| {
        let at_home = || named_variable("HOME").map(|home| format!("{home}/.aws/{name}"));
        named_variable(variable).or_else(at_home).map(PathBuf::from)
    };
    let files =
        [file("AWS_CONFIG_FILE", "config"), file("AWS_SHARED_CREDENTIALS_FILE", "credentials")];
    let texts = files.into_iter().flatten().filter_map(|path| std::fs::read_to_string(path).ok());
    let is_there = texts.into_iter().any(|text| defines(&text, &profile));
    (!is_there).then_some(profile)
}

/// A section `[profile NAME]`, or `[NAME]` as in the file of credentials.
fn defines(text: &str, profile: &str) -> bool {
    text.lines().any(|line| {
        let section = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next());
        let name = section.map(str::trim);
        let name = name.map(|name| name.strip_prefix("profile ").unwrap_or(name).trim());
        name.is_some_and(|name| name.trim_matches('"') == profile)
    })
}

#[cfg(test)]
mod tests {
    use super::defines;

    #[test]
    fn profiles_stand_in_sections() {
        let text = "[default]\nregion = x\n[ profile  dev ] # mine\n[\"ops\"]\n# [old]\n";
        for (profile, expected) in [("default", true), ("dev", true), ("ops", true), ("old", false)]
        {
            assert_eq!(defines(text, profile), expected, "{profile}");
        }
    }
}
