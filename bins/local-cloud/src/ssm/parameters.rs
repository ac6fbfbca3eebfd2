//! What Parameter Store does not take, before the emulator keeps it.
//!
//! After the API reference of `PutParameter` and the user guide's pages "Requirements and constraints for parameter
//! names" and "Managing parameter tiers". What the emulator checks itself is left to it.

use regex::Regex;
use serde_json::{Value, json};

use super::Ssm;
use super::refusal::Refusal;

/// Bytes of a value of the standard and the advanced tier.
const STANDARD: usize = 4_096;
const ADVANCED: usize = 8_192;
/// Characters of a name, without the beginning of the ARN that counts as well.
const LONGEST_NAME: usize = 1_011;
const MOST_LEVELS: usize = 15;
/// `Names` of a request.
const MOST_NAMES: usize = 10;

/// Checks a request to Parameter Store as far as the emulator does not.
pub(super) fn check(operation: &str, request: &Value) -> Result<(), Refusal> {
    match operation {
        "PutParameter" => put(request),
        "GetParametersByPath" => path(request["Path"].as_str().unwrap_or_default()),
        "DeleteParameters" if request["Names"].as_array().is_some_and(|n| n.len() > MOST_NAMES) => {
            let must = "Member must have length less than or equal to 10";
            Err(Refusal::constraint(&request["Names"], "names", must))
        }
        _ => Ok(()),
    }
}

fn put(request: &Value) -> Result<(), Refusal> {
    let text = |key: &str| request[key].as_str().unwrap_or_default();
    name(text("Name"))?;
    let value = text("Value");
    let advanced = ["Advanced", "Intelligent-Tiering"].contains(&text("Tier"));
    if value.len() > ADVANCED {
        let message =
            "Advanced tier parameters support a maximum parameter value of 8192 characters.";
        return Err(Refusal::new("ValidationException", message));
    }
    if value.len() > STANDARD && !advanced {
        let message = "Standard tier parameters support a maximum parameter value of 4096 characters. To create a larger parameter value, upgrade the parameter to use the advanced-parameter tier. For more information, see https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html";
        return Err(Refusal::new("ValidationException", message));
    }
    let pattern = text("AllowedPattern");
    if !pattern.is_empty() {
        let regex = Regex::new(pattern).map_err(|_| {
            let message =
                format!("The request does not meet the regular expression requirement: {pattern}");
            Refusal::new("InvalidAllowedPatternException", message)
        })?;
        if !regex.is_match(value) {
            let message =
                format!("Parameter value, cannot be validated against allowedPattern: {pattern}");
            return Err(Refusal::new("ParameterPatternMismatchException", message));
        }
    }
    // What would have to happen later does not happen in the emulator.
    if !["", "[]", "[{}]"].contains(&text("Policies")) {
        return Err(Refusal::not_implemented("the parameter `Policies` of `PutParameter`"));
    }
    if text("DataType") == "aws:ec2:image" || text("DataType") == "aws:ssm:integration" {
        return Err(Refusal::not_implemented(format!(
            "the data type `{}` of `PutParameter`",
            text("DataType")
        )));
    }
    Ok(())
}

fn name(name: &str) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new("ValidationException", message));
    if name.chars().count() > LONGEST_NAME {
        return invalid("Parameter name must be at most 1011 characters long.");
    }
    if name.contains('/') && !name.starts_with('/') {
        return invalid("Parameter name must be a fully qualified name.");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    let empty_level = name.trim_start_matches('/').split('/').any(str::is_empty);
    if !name.chars().all(allowed) || empty_level || name.starts_with("//") {
        return invalid(
            "Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_",
        );
    }
    if name.trim_start_matches('/').split('/').count() > MOST_LEVELS {
        let message = "A parameter can have at most 15 levels, that is /Level-1/L2/L3/L4/L5/L6/L7/L8/L9/L10/L11/L12/L13/L14/parameter-name";
        return Err(Refusal::new("HierarchyLevelLimitExceededException", message));
    }
    Ok(())
}

fn path(path: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    if path.starts_with('/') && path.chars().all(allowed) {
        return Ok(());
    }
    let message = "The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash \"/\". It can't be prefixed with \"aws\" or \"ssm\" (case-insensitive) except for GET operations. It must use only letters, numbers, or the following symbols: . (period), - (hyphen), _ (underscore). Special characters are not allowed. All sub-paths, if specified, must use the forward slash symbol \"/\". Valid example: /get/parameters2-/by1./path0_.";
    Err(Refusal::new("ValidationException", message))
}

impl Ssm {
    /// "You can't change a parameter from a `String` type to a `SecureString` type" (API reference).
    pub(super) async fn check_type(&self, request: &Value) -> Result<(), Refusal> {
        let (Some(name), Some(kind)) = (request["Name"].as_str(), request["Type"].as_str()) else {
            return Ok(());
        };
        let Some(ec2) = self.ec2.as_ref().filter(|_| request["Overwrite"] == true) else {
            return Ok(());
        };
        let target = "AmazonSSM.GetParameter";
        let known =
            ec2.upstream.ask_json("ssm", &self.region, target, &json!({"Name": name})).await;
        // Whether it is there at all is the emulator's affair.
        let Ok((_, answer)) = known else { return Ok(()) };
        match answer["Parameter"]["Type"].as_str() {
            Some(present) if present != kind => Err(Refusal::new(
                "HierarchyTypeMismatchException",
                format!(
                    "The parameter {name} is of type {present}; a type cannot be changed to {kind}"
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(operation: &str, request: Value) -> Option<&'static str> {
        check(operation, &request).err().map(|refusal| refusal.code)
    }

    #[test]
    fn names_are_paths_of_plain_words() {
        let named = |name: &str| code("PutParameter", json!({"Name": name, "Value": "v"}));
        for good in ["plain", "/app/db/pass", "/a.b/c-d/e_f", &format!("{}/x", "/a".repeat(14))] {
            assert_eq!(named(good), None, "{good}");
        }
        for bad in ["a b", "a:b", "a,b", "x/y", "/a/", "/a//b", "//a", "", "ä", &"a".repeat(1_012)]
        {
            assert_eq!(named(bad), Some("ValidationException"), "{bad}");
        }
        assert_eq!(named(&"/a".repeat(16)), Some("HierarchyLevelLimitExceededException"));
    }

    #[test]
    fn values_fit_their_tier_and_their_pattern() {
        let put = |bytes: usize, tier: &str| {
            let request = json!({"Name": "a", "Value": "x".repeat(bytes), "Tier": tier});
            code("PutParameter", request)
        };
        assert_eq!(put(4_096, "Standard"), None);
        assert_eq!(put(4_097, "Standard"), Some("ValidationException"));
        assert_eq!(put(8_192, "Advanced"), None);
        assert_eq!(put(8_192, "Intelligent-Tiering"), None);
        assert_eq!(put(8_193, "Advanced"), Some("ValidationException"));
        let with = |key: &str, value: &str| {
            let mut request = json!({"Name": "a", "Value": "abc"});
            request[key] = value.into();
            code("PutParameter", request)
        };
        assert_eq!(with("AllowedPattern", "^[a-c]+$"), None);
        assert_eq!(with("AllowedPattern", r"^\d+$"), Some("ParameterPatternMismatchException"));
        assert_eq!(with("AllowedPattern", "("), Some("InvalidAllowedPatternException"));
        assert_eq!(with("Policies", "[{\"Type\": \"Expiration\"}]"), Some("NotImplemented"));
        assert_eq!(with("DataType", "aws:ec2:image"), Some("NotImplemented"));
    }

    #[test]
    fn a_path_is_absolute_and_ten_names_are_enough() {
        let by_path = |path: &str| code("GetParametersByPath", json!({"Path": path}));
        assert_eq!((by_path("/"), by_path("/a/b")), (None, None));
        assert_eq!(by_path("a"), Some("ValidationException"));
        let names: Vec<String> = (0..11).map(|n| format!("p{n}")).collect();
        assert_eq!(code("DeleteParameters", json!({"Names": names[..10]})), None);
        assert_eq!(code("DeleteParameters", json!({"Names": names})), Some("ValidationException"));
    }
}
