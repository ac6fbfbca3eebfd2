//! What EC2 says of a request's form before it does anything: missing, unknown, malformed. Pure.
//!
//! Codes and wording: "Error codes for the Amazon EC2 API" and "Common errors" (API reference).

use axum::http::StatusCode;

use super::answers::Refusal;
use crate::model::{self, Ec2Operation, Ec2Page};
use crate::operation::Form;

/// Parameters that hold ids: name, prefix, and EC2's code for a malformed one. The others' malformed ids are not
/// found, as on EC2.
const IDS: [(&str, &str, &str); 10] = [
    ("InstanceId", "i", "InvalidInstanceID.Malformed"),
    ("ImageId", "ami", "InvalidAMIID.Malformed"),
    ("GroupId", "sg", "InvalidGroupId.Malformed"),
    ("SecurityGroupId", "sg", "InvalidGroupId.Malformed"),
    ("VolumeId", "vol", "InvalidParameterValue"),
    ("SnapshotId", "snap", "InvalidSnapshotID.Malformed"),
    ("NetworkInterfaceId", "eni", "InvalidNetworkInterfaceId.Malformed"),
    ("RouteTableId", "rtb", "InvalidRouteTableId.Malformed"),
    ("NatGatewayId", "nat", "NatGatewayMalformed"),
    ("LaunchTemplateId", "lt", "InvalidLaunchTemplateId.Malformed"),
];

/// The operation that a form names.
pub fn operation(form: &Form) -> Result<(&str, &'static Ec2Operation), Refusal> {
    if form.names().filter(|name| *name == "Action").count() > 1 {
        let message = "The query string names more than one Action";
        return Err(Refusal::client("MalformedQueryString", message));
    }
    let name = form.get("Action").filter(|name| !name.is_empty()).ok_or_else(|| {
        Refusal::client("MissingAction", "The request must contain the parameter Action")
    })?;
    let operation = model::ec2(name).ok_or_else(|| {
        let message = format!("The action {} is not valid for this web service.", shown(name));
        Refusal::client("InvalidAction", message)
    })?;
    Ok((name, operation))
}

/// The rest of the form.
pub fn fields(operation: &Ec2Operation, form: &Form) -> Result<(), Refusal> {
    if let Some(name) = form.fields().find_map(|(name, value)| {
        [name, value].iter().any(|text| text.contains('\u{fffd}')).then_some(name)
    }) {
        let message = format!("The parameter {} holds an invalid character", shown(name));
        return Err(Refusal::client("InvalidCharacter", message));
    }
    for required in &operation.required {
        let there = |name: &str| {
            name.strip_prefix(required).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if !form.names().any(there) {
            let message = format!("The request must contain the parameter {required}");
            return Err(Refusal::client("MissingParameter", message));
        }
    }
    for (name, value) in form.fields() {
        let parameter = numberless(name);
        if let Some((_, prefix, code)) = IDS.iter().find(|(known, ..)| *known == parameter)
            && !is_id(prefix, value)
        {
            let message = format!("Invalid id: \"{}\" (expecting \"{prefix}-...\")", shown(value));
            return Err(Refusal::client(code, message));
        }
    }
    for (_, name, _) in form.filters() {
        let known =
            |known: &&str| *known == name || (known.starts_with("tag") && name.starts_with("tag:"));
        if !operation.filters.is_empty() && !operation.filters.iter().any(known) {
            let message = format!("The filter '{}' is invalid", shown(name));
            return Err(Refusal::client("InvalidParameterValue", message));
        }
    }
    dry_run(operation, form)
}

/// `DryRun=true` never does anything; what it would have said is an error, too.
fn dry_run(operation: &Ec2Operation, form: &Form) -> Result<(), Refusal> {
    let Some(value) = form.get("DryRun") else { return Ok(()) };
    if !operation.dry_run {
        let message = "The parameter DryRun is not recognized";
        return Err(Refusal::client("UnknownParameter", message));
    }
    match value.to_ascii_lowercase().as_str() {
        "false" => Ok(()),
        "true" => Err(Refusal {
            status: StatusCode::PRECONDITION_FAILED,
            code: "DryRunOperation",
            message: "Request would have succeeded, but DryRun flag is set.".into(),
        }),
        _ => {
            let message = format!(
                "Value ({}) for parameter dryRun is invalid. Must be true or false.",
                shown(value)
            );
            Err(Refusal::client("InvalidParameterValue", message))
        }
    }
}

/// The page size that a form asks for; `None` when it asks for no pages.
pub fn page_size(page: &Ec2Page, form: &Form) -> Result<Option<usize>, Refusal> {
    let Some(text) = form.get("MaxResults") else { return Ok(None) };
    let invalid = |why: &str| {
        let message =
            format!("Value ( {} ) for parameter maxResults is invalid. {why}", shown(text));
        Err(Refusal::client("InvalidParameterValue", message))
    };
    let Ok(size) = text.parse::<i64>() else { return invalid("Expecting a number.") };
    if size < i64::from(page.least) {
        return invalid(&format!("Expecting a value greater than {}.", page.least));
    }
    if let Some(ids) = page.not_with
        && form.names().any(|name| numberless(name) == ids)
    {
        // EC2 names the set by its first letter in lower case: `instancesSet`, `volumeSet`.
        let set = match ids {
            "InstanceId" => "instancesSet".to_owned(),
            _ => format!("{}Set", lower_first(ids.trim_end_matches("Id"))),
        };
        let message = format!("The parameter {set} cannot be used with the parameter maxResults");
        return Err(Refusal::client("InvalidParameterCombination", message));
    }
    // "If the value is larger than the maximum, only the maximum is returned" (DescribeVolumes, …); the others refuse.
    let most = i64::from(page.most);
    if size > most && page.most < 1000 {
        return invalid(&format!("Expecting a value less than {most}."));
    }
    Ok(usize::try_from(size.min(most)).ok())
}

/// `InstanceId.3` is an `InstanceId`; nested ones such as `NetworkInterface.1.SubnetId` are their own.
fn numberless(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((list, number)) if number.bytes().all(|b| b.is_ascii_digit()) => list,
        _ => name,
    }
}

fn is_id(prefix: &str, value: &str) -> bool {
    let rest = value.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    rest.is_some_and(|rest| {
        matches!(rest.len(), 8 | 17) && rest.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// A value that is well-formed for a parameter, for examples and tests.
pub fn example(parameter: &str) -> String {
    match IDS.iter().find(|(known, ..)| *known == parameter) {
        Some((_, prefix, _)) => format!("{prefix}-0123456789abcdef0"),
        None => "x".to_owned(),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + chars.as_str())
}

/// A caller's text in an answer: cut, so that an answer is never as large as its request.
fn shown(text: &str) -> String {
    const MOST: usize = 200;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(form: &str) -> String {
        let form = Form::parse(form.as_bytes());
        let checked = operation(&form).and_then(|(_, operation)| {
            fields(operation, &form)?;
            operation.page.map_or(Ok(None), |page| page_size(&page, &form))
        });
        checked.map_or_else(|refusal| refusal.code.to_owned(), |size| format!("{size:?}"))
    }

    #[test]
    fn a_bad_form_gets_ec2s_code() {
        let check = |form: &str, expected: &str| assert_eq!(code(form), expected, "{form}");
        check("", "MissingAction");
        check("Action=", "MissingAction");
        check("Version=2016-11-15", "MissingAction");
        check("Action=DescribeNothing", "InvalidAction");
        check("Action=DescribeVpcs&Action=DeleteVpc", "MalformedQueryString");
        check("Action=DeleteVpc", "MissingParameter");
        check("Action=TerminateInstances", "MissingParameter");
        check("Action=TerminateInstances&InstanceId.1=x", "InvalidInstanceID.Malformed");
        check("Action=TerminateInstances&InstanceId.1=i-0123456789abcdef0", "None");
        check("Action=DescribeVpcs&VpcId.1=%ff", "InvalidCharacter");
        check(
            "Action=DescribeSubnets&Filter.1.Name=vpcid&Filter.1.Value.1=v",
            "InvalidParameterValue",
        );
        check("Action=DescribeSubnets&Filter.1.Name=tag:a&Filter.1.Value.1=v", "None");
        check("Action=DescribeSubnets&Filter.1.Name=vpc-id&Filter.1.Value.1=v", "None");
    }

    #[test]
    fn a_dry_run_is_said_and_never_done() {
        let check = |form: &str, expected: &str| assert_eq!(code(form), expected, "{form}");
        check("Action=CreateVpc&DryRun=true", "DryRunOperation");
        check("Action=CreateVpc&DryRun=True", "DryRunOperation");
        check("Action=CreateVpc&DryRun=false", "None");
        check("Action=CreateVpc&DryRun=perhaps", "InvalidParameterValue");
        check("Action=DeleteVpc&DryRun=true", "MissingParameter");
        check("Action=DescribeHosts&DryRun=true", "UnknownParameter");
    }

    #[test]
    fn page_sizes_have_their_bounds() {
        let check = |form: &str, expected: &str| assert_eq!(code(form), expected, "{form}");
        check("Action=DescribeVolumes&MaxResults=4", "InvalidParameterValue");
        check("Action=DescribeVolumes&MaxResults=-1", "InvalidParameterValue");
        check("Action=DescribeVolumes&MaxResults=many", "InvalidParameterValue");
        check("Action=DescribeVolumes&MaxResults=5", "Some(5)");
        check("Action=DescribeVolumes&MaxResults=5000", "Some(1000)");
        check("Action=DescribeRouteTables&MaxResults=101", "InvalidParameterValue");
        check(
            "Action=DescribeInstances&MaxResults=5&InstanceId.1=i-0123456789abcdef0",
            "InvalidParameterCombination",
        );
    }

    #[test]
    fn a_value_in_an_answer_is_cut() {
        assert_eq!(shown(&"ä".repeat(500)).chars().count(), 201);
    }
}
