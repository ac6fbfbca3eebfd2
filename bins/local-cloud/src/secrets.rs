//! Secrets Manager: who may do what with a secret. The secrets are the emulator's.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::log;
use crate::operation::Scope;
use crate::requests::protocol::ServiceError;
use crate::rights::{Denial, Rights};
use crate::upstream::Upstream;

/// Why a caller may not do this to the secret that it names. Operations that name none are not judged.
///
/// Service authorization reference, "AWS Secrets Manager": the resource is the secret's ARN, which ends in a hyphen and
/// six characters that its name lacks; the conditions are its tags.
pub async fn denied(
    rights: &Rights,
    upstream: &Upstream,
    scope: &Scope,
    operation: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<ServiceError> {
    let request: Value = serde_json::from_slice(body).ok()?;
    let id = request["SecretId"].as_str()?;
    let caller = rights.caller(headers).await;
    if caller.is_unbound() {
        return None;
    }
    let target = "secretsmanager.DescribeSecret";
    let asked =
        upstream.ask_json(&scope.service, &scope.region, target, &json!({"SecretId": id})).await;
    let secret = match asked {
        Ok((status, secret)) if status.is_success() => secret,
        Ok(_) => Value::Null,
        Err(error) => {
            log::line(format_args!("whose secret {id} is cannot be asked: {error}"));
            Value::Null
        }
    };
    let unknown = || {
        if id.starts_with("arn:") {
            return id.to_owned();
        }
        format!("arn:aws:secretsmanager:{}:{}:secret:{id}", scope.region, caller.account())
    };
    let resource = secret["ARN"].as_str().map_or_else(unknown, str::to_owned);
    let tag = |key: &str| {
        let prefixes = ["secretsmanager:ResourceTag/", "aws:ResourceTag/"];
        let name = prefixes.iter().find_map(|prefix| key.strip_prefix(prefix))?;
        let tag = secret["Tags"].as_array()?.iter().find(|tag| tag["Key"] == name)?;
        tag["Value"].as_str().map(str::to_owned)
    };
    let Denial { who, why } =
        caller.may(&format!("secretsmanager:{operation}"), &resource, &tag).err()?;
    let message = format!("{who} on resource: {id} {why}");
    Some(ServiceError::new(400, "AccessDeniedException", message))
}
