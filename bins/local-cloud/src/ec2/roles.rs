//! Credentials of instance roles, as instance metadata hands them out.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::credentials::Credentials;
use crate::operation::Form;
use crate::timing::Timing;
use crate::upstream::{AskError, Upstream};

/// The credentials of all roles in use.
#[derive(Debug)]
pub struct Roles {
    upstream: Upstream,
    region: String,
    lifetime: SignedDuration,
    renewed_before: SignedDuration,
    /// By instance and role.
    known: Mutex<BTreeMap<(String, String), (Timestamp, Value)>>,
    /// Where those that were handed out are let in.
    told: OnceLock<Credentials>,
}

/// A role that an instance profile holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Id of the profile.
    pub profile_id: String,
}

impl Roles {
    /// No credentials yet.
    pub fn new(upstream: Upstream, region: &str, timing: &Timing) -> Self {
        // A day at most, so both fit.
        let signed = |time| SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        Self {
            upstream,
            region: region.to_owned(),
            lifetime: signed(timing.credential_lifetime),
            renewed_before: signed(timing.credential_renewal),
            known: Mutex::default(),
            told: OnceLock::new(),
        }
    }

    /// From now on credentials that are handed out are known there.
    pub fn tell(&self, credentials: Credentials) {
        // Told once, at the daemon's start.
        let _ = self.told.set(credentials);
    }

    /// The role of an instance profile, if it has one.
    pub async fn of_profile(&self, profile_arn: &str) -> Result<Option<Role>, AskError> {
        let name = profile_arn.rsplit('/').next().unwrap_or_default();
        let form = Form::new([
            ("Action", "GetInstanceProfile"),
            ("Version", "2010-05-08"),
            ("InstanceProfileName", name),
        ]);
        let root = self.upstream.ask("iam", &self.region, &form).await?;
        let profile = root.at(&["GetInstanceProfileResult", "InstanceProfile"]);
        Ok(profile.and_then(|profile| {
            let role = profile.items(&["Roles"]).next()?;
            Some(Role {
                name: role.text_at(&["RoleName"])?,
                arn: role.text_at(&["Arn"])?,
                profile_id: profile.text_at(&["InstanceProfileId"]).unwrap_or_default(),
            })
        }))
    }

    /// The credentials document of a role on an instance.
    pub async fn credentials(&self, instance_id: &str, role: &Role) -> Result<Value, AskError> {
        let key = (instance_id.to_owned(), role.arn.clone());
        let now = Timestamp::now();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((expiration, document)) = known
            && expiration.duration_since(now) > self.renewed_before
        {
            return Ok(document);
        }
        let form = Form::new([
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", &role.arn),
            ("RoleSessionName", instance_id),
            ("DurationSeconds", &self.lifetime.as_secs().to_string()),
        ]);
        let root = self.upstream.ask("sts", &self.region, &form).await?;
        let read = |name| {
            root.text_at(&["AssumeRoleResult", "Credentials", name]).ok_or_else(|| {
                AskError::Unreadable { operation: "AssumeRole".into(), why: format!("no {name}") }
            })
        };
        let expiration = now + self.lifetime;
        let (id, secret) = (read("AccessKeyId")?, read("SecretAccessKey")?);
        let token = read("SessionToken")?;
        if let Some(told) = self.told.get() {
            told.learn(&id, &secret, Some((&token, expiration)));
        }
        let document = json!({
            "Code": "Success",
            "LastUpdated": format!("{now:.0}"),
            "Type": "AWS-HMAC",
            "AccessKeyId": id,
            "SecretAccessKey": secret,
            "Token": token,
            "Expiration": format!("{expiration:.0}"),
        });
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, (expiration, document.clone()));
        Ok(document)
    }
}
