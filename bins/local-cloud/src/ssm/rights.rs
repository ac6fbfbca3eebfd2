//! Who may do what: the caller of an operation, and the role of an agent's instance. The emulator keeps IAM's policies;
//! what they say is decided here.
//!
//! Credentials that the emulator never gave to anybody are the account's own, which may do everything. What cannot be
//! asked (another emulator may have no IAM) is allowed, and said in the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use url::form_urlencoded;

use super::Ssm;
use super::refusal::Refusal;
use crate::ec2::Ec2;
use crate::hosts::HostInfo;
use crate::log;
use crate::operation::Form;
use crate::policy::{Question, Verdict, decide};
use crate::upstream::AskError;
use crate::xml::Element;

/// What was read is believed for so long.
const FRESH: Duration = Duration::from_secs(5);
/// Signatures are valid for so long, to both sides (Signature Version 4).
const SKEW: Duration = Duration::from_secs(300);

type Policies = Arc<Vec<Value>>;
/// Kind and name of a principal.
type Principal = (&'static str, String);

/// Policies that were read lately, by kind and name.
#[derive(Debug, Default)]
pub(super) struct Rights(Mutex<BTreeMap<Principal, (Instant, Policies)>>);

/// Who calls, with the policies that bind it; `None` for who may do everything.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    arn: String,
    account: String,
    policies: Option<Policies>,
}

impl Caller {
    fn anyone() -> Self {
        Self { arn: String::new(), account: String::new(), policies: None }
    }

    /// The account's number.
    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// Whether it may do this to that.
    pub(super) fn may(
        &self,
        action: &str,
        resource: &str,
        context: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Refusal> {
        let Some(policies) = &self.policies else { return Ok(()) };
        let why = match decide(policies.iter(), &Question { action, resource, context }) {
            Verdict::Allowed => return Ok(()),
            Verdict::Denied => "with an explicit deny in an identity-based policy".to_owned(),
            Verdict::Silent => {
                format!("because no identity-based policy allows the {action} action")
            }
        };
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {resource} {why}",
            self.arn
        );
        Err(Refusal::new("AccessDeniedException", message))
    }
}

/// The value of a condition key that stands for a tag of a host.
pub(super) fn tag_of(host: Option<&HostInfo>, key: &str) -> Option<String> {
    let name = ["ssm:resourceTag/", "aws:ResourceTag/", "ec2:ResourceTag/"]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix))?;
    host?.tags.get(name).cloned()
}

impl Ssm {
    /// Who signed a request.
    pub(super) async fn caller(&self, headers: &HeaderMap) -> Caller {
        let Some(ec2) = &self.ec2 else { return Caller::anyone() };
        let Some(key) = access_key(headers) else { return Caller::anyone() };
        match self.identify(ec2, &key).await {
            Ok(caller) => caller,
            Err(error) => {
                log::line(format_args!("who calls is not known: {error}"));
                Caller::anyone()
            }
        }
    }

    async fn identify(&self, ec2: &Ec2, key: &str) -> Result<Caller, AskError> {
        let form = Form::new([("Action", "GetCallerIdentity"), ("Version", "2011-06-15")]);
        let root = ec2.upstream.ask_as("sts", &self.region, &form, key).await?;
        let read = |name| root.text_at(&["GetCallerIdentityResult", name]).unwrap_or_default();
        let (arn, account) = (read("Arn"), read("Account"));
        let policies = match principal(&arn) {
            None => None,
            Some((kind, name)) => Some(self.policies(ec2, kind, name).await?),
        };
        Ok(Caller { arn, account, policies })
    }

    /// Whether the role of an instance lets its agent do one of these.
    pub(super) async fn agent_may(
        &self,
        host: &HostInfo,
        headers: &HeaderMap,
        actions: &[&str],
    ) -> Result<(), Refusal> {
        let signed = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if access_key(headers).is_none() {
            return Err(Refusal::new("MissingAuthenticationToken", "the request is not signed"));
        }
        let date = signed("x-amz-date").unwrap_or_default();
        let parsed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC));
        let now = Timestamp::now();
        let fresh =
            parsed.is_ok_and(|time| now.duration_since(time.timestamp()).unsigned_abs() <= SKEW);
        if !fresh {
            let message = format!("Signature expired or not yet current: {date} at {now:.0}");
            return Err(Refusal::new("InvalidSignatureException", message));
        }
        let Some(ec2) = &self.ec2 else { return Ok(()) };
        match self.role_of(ec2, host).await {
            Ok(Some(caller)) => {
                let nothing = |_: &str| None;
                let mut outcome = Ok(());
                for action in actions {
                    outcome = caller.may(action, "*", &nothing);
                    if outcome.is_ok() {
                        break;
                    }
                }
                outcome
            }
            Ok(None) => {
                let message = "the instance has no instance profile with a role any more";
                Err(Refusal::new("UnrecognizedClientException", message))
            }
            Err(error) => {
                log::line(format_args!("{}: its role is not known: {error}", host.instance_id));
                Ok(())
            }
        }
    }

    async fn role_of(&self, ec2: &Ec2, host: &HostInfo) -> Result<Option<Caller>, AskError> {
        let profile = ec2.machine(&host.instance_id).and_then(|machine| machine.seen.profile_arn);
        let Some(profile) = profile else { return Ok(None) };
        let Some(role) = ec2.roles.of_profile(&profile).await? else { return Ok(None) };
        let arn = format!(
            "{}/{}",
            role.arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/"),
            host.instance_id
        );
        let account = role.arn.split(':').nth(4).unwrap_or_default().to_owned();
        let policies = Some(self.policies(ec2, "Role", &role.name).await?);
        Ok(Some(Caller { arn, account, policies }))
    }

    /// All policies of a user (with its groups) or a role.
    async fn policies(
        &self,
        ec2: &Ec2,
        kind: &'static str,
        name: &str,
    ) -> Result<Policies, AskError> {
        let known = |rights: &Rights| {
            let known = rights.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (read, policies) = known.get(&(kind, name.to_owned()))?;
            (read.elapsed() < FRESH).then(|| Arc::clone(policies))
        };
        if let Some(policies) = known(&self.rights) {
            return Ok(policies);
        }
        let mut policies = self.own_policies(ec2, kind, name).await?;
        if kind == "User" {
            let root = self.iam(ec2, "ListGroupsForUser", &[("UserName", name)]).await?;
            for group in root.items(&["ListGroupsForUserResult", "Groups"]) {
                let group = group.text_at(&["GroupName"]).unwrap_or_default();
                policies.extend(self.own_policies(ec2, "Group", &group).await?);
            }
        }
        let policies = Arc::new(policies);
        let mut known = self.rights.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (read, _)| read.elapsed() < FRESH);
        known.insert((kind, name.to_owned()), (Instant::now(), Arc::clone(&policies)));
        Ok(policies)
    }

    async fn own_policies(
        &self,
        ec2: &Ec2,
        kind: &str,
        name: &str,
    ) -> Result<Vec<Value>, AskError> {
        let field = format!("{kind}Name");
        let mut found = Vec::new();
        let list = format!("List{kind}Policies");
        let root = self.iam(ec2, &list, &[(&field, name)]).await?;
        for policy in root.items(&[&format!("{list}Result"), "PolicyNames"]) {
            let (get, policy) = (format!("Get{kind}Policy"), policy.text());
            let root = self.iam(ec2, &get, &[(&field, name), ("PolicyName", &policy)]).await?;
            found.extend(document(&root, &[&format!("{get}Result"), "PolicyDocument"]));
        }
        let list = format!("ListAttached{kind}Policies");
        let root = self.iam(ec2, &list, &[(&field, name)]).await?;
        for policy in root.items(&[&format!("{list}Result"), "AttachedPolicies"]) {
            let arn = policy.text_at(&["PolicyArn"]).unwrap_or_default();
            let root = self.iam(ec2, "GetPolicy", &[("PolicyArn", &arn)]).await?;
            let version = root.text_at(&["GetPolicyResult", "Policy", "DefaultVersionId"]);
            let version = version.unwrap_or_default();
            let fields = [("PolicyArn", arn.as_str()), ("VersionId", version.as_str())];
            let root = self.iam(ec2, "GetPolicyVersion", &fields).await?;
            found.extend(document(&root, &["GetPolicyVersionResult", "PolicyVersion", "Document"]));
        }
        Ok(found)
    }

    async fn iam(
        &self,
        ec2: &Ec2,
        action: &str,
        fields: &[(&str, &str)],
    ) -> Result<Element, AskError> {
        let mut form = Form::new([("Action", action), ("Version", "2010-05-08")]);
        for (name, value) in fields {
            form.push(*name, *value);
        }
        ec2.upstream.ask("iam", &self.region, &form).await
    }
}

/// A policy document as IAM writes it: JSON, percent-encoded.
fn document(root: &Element, path: &[&str]) -> Option<Value> {
    let text = root.text_at(path)?;
    serde_json::from_str(&text).ok().or_else(|| {
        let form = format!("d={}", text.replace('+', "%2B"));
        let (_, decoded) = form_urlencoded::parse(form.as_bytes()).next()?;
        serde_json::from_str(&decoded).ok()
    })
}

/// Whose policies bind an identity; `None` for the account itself, and for whom the emulator does not know.
fn principal(arn: &str) -> Option<(&'static str, &str)> {
    let (service, name) = (arn.split(':').nth(2)?, arn.splitn(6, ':').nth(5)?);
    let mut parts = name.split('/');
    match (service, parts.next()?) {
        ("sts", "assumed-role") => Some(("Role", parts.next()?)),
        ("iam", "user") => Some(("User", parts.next_back()?)),
        _ => None,
    }
}

fn access_key(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("authorization")?.to_str().ok()?;
    let credential = text.split_once("Credential=")?.1;
    credential.split('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_told_from_the_account_itself() {
        let check = |arn, expected| assert_eq!(principal(arn), expected, "{arn}");
        check("arn:aws:iam::1:root", None);
        check("arn:aws:sts::1:user/moto", None);
        check("arn:aws:iam::1:user/path/ann", Some(("User", "ann")));
        check("arn:aws:sts::1:assumed-role/deploy/run", Some(("Role", "deploy")));
        check("", None);
    }

    #[test]
    fn policies_are_read_as_json_and_percent_encoded() {
        let read = |text: &str| {
            let root = Element::node("R", vec![Element::leaf("D", text)]);
            document(&root, &["D"])
        };
        let expected = Some(serde_json::json!({"a": "b+c d"}));
        assert_eq!(read(r#"{"a": "b+c d"}"#), expected);
        assert_eq!(read("%7B%22a%22%3A%20%22b%2Bc%20d%22%7D"), expected);
        assert_eq!(read("nothing"), None);
    }
}
