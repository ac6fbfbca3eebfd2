//! Who may do what: callers by their access keys, roles by their names. The emulator keeps IAM's policies; what they say
//! is decided here, for Systems Manager, for secrets, and for what EC2 and Auto Scaling are asked without being changed.
//!
//! The key that `up` made, which the emulator does not know, is the account's own and may do everything. What cannot be
//! asked (another emulator may have no IAM) is allowed, and said in the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::Value;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::ec2::roles::Role;
use crate::log;
use crate::operation::{Form, Scope};
use crate::policy::{Question, Verdict, decide};
use crate::requests::protocol::ServiceError;
use crate::upstream::{AskError, Upstream};
use crate::xml::Element;

/// What was read is believed for so long.
const FRESH: Duration = Duration::from_secs(5);

type Policies = Arc<Vec<Value>>;
/// Kind and name of a principal.
type Principal = (&'static str, String);
/// ARN and account of a caller.
type Identity = (String, String);

/// What was read lately of identities and policies.
#[derive(Debug)]
pub struct Rights {
    upstream: Upstream,
    region: String,
    /// By access key.
    identities: Mutex<BTreeMap<String, (Instant, Identity)>>,
    policies: Mutex<BTreeMap<Principal, (Instant, Policies)>>,
}

/// Who calls, with the policies that bind it.
#[derive(Debug, Clone)]
pub struct Caller {
    arn: String,
    account: String,
    /// `None` for who may do everything.
    policies: Option<Policies>,
}

impl Caller {
    /// Who may do everything.
    pub fn anyone() -> Self {
        Self { arn: String::new(), account: String::new(), policies: None }
    }

    /// Whether it may do everything.
    pub fn is_unbound(&self) -> bool {
        self.policies.is_none()
    }

    /// The account's number.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Whether it may do this to that.
    ///
    /// # Errors
    /// The end of AWS's message, from `User:` on, without the resource: how that is named differs by service.
    pub fn may(
        &self,
        action: &str,
        resource: &str,
        context: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Denial> {
        let Some(policies) = &self.policies else { return Ok(()) };
        let why = match decide(policies.iter(), &Question { action, resource, context }) {
            Verdict::Allowed => return Ok(()),
            Verdict::Denied => "with an explicit deny in an identity-based policy".to_owned(),
            Verdict::Silent => {
                format!("because no identity-based policy allows the {action} action")
            }
        };
        Err(Denial {
            who: format!("User: {} is not authorized to perform: {action}", self.arn),
            why,
        })
    }
}

/// What is not allowed, in AWS's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// `User: … is not authorized to perform: …`.
    pub who: String,
    /// `because …` or `with …`.
    pub why: String,
}

impl Rights {
    /// Nothing read yet.
    pub fn new(upstream: Upstream, region: &str) -> Self {
        Self {
            upstream,
            region: region.to_owned(),
            identities: Mutex::default(),
            policies: Mutex::default(),
        }
    }

    /// Policies may have changed.
    pub fn forget(&self) {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Who signed a request.
    pub async fn caller(&self, headers: &HeaderMap) -> Caller {
        let Some(key) = access_key(headers) else { return Caller::anyone() };
        let (arn, account) = self.identity(&key).await;
        let policies = match principal(&arn) {
            None => None,
            Some((kind, name)) => match self.of_principal(kind, name).await {
                Ok(policies) => Some(policies),
                Err(error) => {
                    log::line(format_args!("what {arn} may do is not known: {error}"));
                    None
                }
            },
        };
        Caller { arn, account, policies }
    }

    /// Whether a caller may read what it asks of a service whose reads know no resource; changes are not judged.
    ///
    /// # Errors
    /// The service's own error. EC2: API reference, "Error codes", `UnauthorizedOperation`; Auto Scaling: "Common errors",
    /// `AccessDenied`.
    pub async fn may_read(
        &self,
        scope: &Scope,
        operation: &str,
        headers: &HeaderMap,
    ) -> Result<(), ServiceError> {
        if !(operation.starts_with("Describe") || operation.starts_with("Get")) {
            return Ok(());
        }
        let context = |key: &str| {
            matches!(key, "aws:RequestedRegion" | "ec2:Region").then(|| scope.region.clone())
        };
        let action = format!("{}:{operation}", scope.service);
        let caller = self.caller(headers).await;
        caller.may(&action, "*", &context).map_err(|Denial { who, why }| match &*scope.service {
            "ec2" => ServiceError::new(
                403,
                "UnauthorizedOperation",
                format!("You are not authorized to perform this operation. {who} {why}"),
            ),
            _ => ServiceError::new(403, "AccessDenied", format!("{who} {why}")),
        })
    }

    /// Whose access key it is; nobody's when the emulator does not say.
    async fn identity(&self, key: &str) -> Identity {
        let known = {
            let known = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(key).filter(|(read, _)| read.elapsed() < FRESH).map(|(_, who)| who.clone())
        };
        if let Some(identity) = known {
            return identity;
        }
        let form = Form::new([("Action", "GetCallerIdentity"), ("Version", "2011-06-15")]);
        let identity = match self.upstream.ask_as("sts", &self.region, &form, key).await {
            Ok(root) => {
                let read =
                    |name| root.text_at(&["GetCallerIdentityResult", name]).unwrap_or_default();
                (read("Arn"), read("Account"))
            }
            Err(error) => {
                log::line(format_args!("who calls is not known: {error}"));
                Identity::default()
            }
        };
        let mut known = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (read, _)| read.elapsed() < FRESH);
        known.insert(key.to_owned(), (Instant::now(), identity.clone()));
        identity
    }

    /// A role as somebody who assumed it under this session name.
    ///
    /// # Errors
    /// When the emulator does not say what its policies are.
    pub async fn of_role(&self, role: &Role, session: &str) -> Result<Caller, AskError> {
        let arn = role.arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/");
        let account = role.arn.split(':').nth(4).unwrap_or_default().to_owned();
        let policies = Some(self.of_principal("Role", &role.name).await?);
        Ok(Caller { arn: format!("{arn}/{session}"), account, policies })
    }

    /// All policies of a user (with its groups) or a role.
    async fn of_principal(&self, kind: &'static str, name: &str) -> Result<Policies, AskError> {
        let known = |rights: &Self| {
            let known = rights.policies.lock().unwrap_or_else(PoisonError::into_inner);
            let (read, policies) = known.get(&(kind, name.to_owned()))?;
            (read.elapsed() < FRESH).then(|| Arc::clone(policies))
        };
        if let Some(policies) = known(self) {
            return Ok(policies);
        }
        let mut policies = self.own_policies(kind, name).await?;
        if kind == "User" {
            let root = self.iam("ListGroupsForUser", &[("UserName", name)]).await?;
            for group in root.items(&["ListGroupsForUserResult", "Groups"]) {
                let group = group.text_at(&["GroupName"]).unwrap_or_default();
                policies.extend(self.own_policies("Group", &group).await?);
            }
        }
        let policies = Arc::new(policies);
        let mut known = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (read, _)| read.elapsed() < FRESH);
        known.insert((kind, name.to_owned()), (Instant::now(), Arc::clone(&policies)));
        Ok(policies)
    }

    async fn own_policies(&self, kind: &str, name: &str) -> Result<Vec<Value>, AskError> {
        let field = format!("{kind}Name");
        let mut found = Vec::new();
        let list = format!("List{kind}Policies");
        let root = self.iam(&list, &[(&field, name)]).await?;
        for policy in root.items(&[&format!("{list}Result"), "PolicyNames"]) {
            let (get, policy) = (format!("Get{kind}Policy"), policy.text());
            let root = self.iam(&get, &[(&field, name), ("PolicyName", &policy)]).await?;
            found.extend(document(&root, &[&format!("{get}Result"), "PolicyDocument"]));
        }
        let list = format!("ListAttached{kind}Policies");
        let root = self.iam(&list, &[(&field, name)]).await?;
        for policy in root.items(&[&format!("{list}Result"), "AttachedPolicies"]) {
            let arn = policy.text_at(&["PolicyArn"]).unwrap_or_default();
            let root = self.iam("GetPolicy", &[("PolicyArn", &arn)]).await?;
            let version = root.text_at(&["GetPolicyResult", "Policy", "DefaultVersionId"]);
            let version = version.unwrap_or_default();
            let fields = [("PolicyArn", arn.as_str()), ("VersionId", version.as_str())];
            let root = self.iam("GetPolicyVersion", &fields).await?;
            found.extend(document(&root, &["GetPolicyVersionResult", "PolicyVersion", "Document"]));
        }
        Ok(found)
    }

    async fn iam(&self, action: &str, fields: &[(&str, &str)]) -> Result<Element, AskError> {
        let mut form = Form::new([("Action", action), ("Version", "2010-05-08")]);
        for (name, value) in fields {
            form.push(*name, *value);
        }
        self.upstream.ask("iam", &self.region, &form).await
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

/// Who signed a request with SigV4.
pub fn access_key(headers: &HeaderMap) -> Option<String> {
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
