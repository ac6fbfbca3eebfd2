//! What a caller may do in Systems Manager, and what the role of an agent's instance lets the agent do.

use axum::http::HeaderMap;
use jiff::Timestamp;
use std::time::Duration;

use super::Ssm;
use super::refusal::Refusal;
use crate::ec2::Ec2;
use crate::hosts::HostInfo;
use crate::log;
use crate::rights::{Caller, Denial, access_key};
use crate::upstream::AskError;

/// Signatures are valid for so long, to both sides (Signature Version 4).
const SKEW: Duration = Duration::from_secs(300);

/// Whether a caller may do this to that.
pub(super) fn may(
    caller: &Caller,
    action: &str,
    resource: &str,
    context: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Refusal> {
    caller.may(action, resource, context).map_err(|Denial { who, why }| {
        Refusal::new("AccessDeniedException", format!("{who} on resource: {resource} {why}"))
    })
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
        match &self.ec2 {
            Some(ec2) => ec2.rights.caller(headers).await,
            None => Caller::anyone(),
        }
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
                    outcome = may(&caller, action, "*", &nothing);
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
        ec2.rights.of_role(&role, &host.instance_id).await.map(Some)
    }
}
