//! Who may call: the key of this cloud's owner, keys that IAM handed out, temporary credentials of roles.
//!
//! The secrets are those of the emulator's answers to `CreateAccessKey` and `AssumeRole`; it keeps them, but checks none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A pair of access key and secret; the default is nobody's.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// The access key ID.
    pub id: String,
    /// The secret access key.
    pub secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessKey({})", self.id)
    }
}

impl AccessKey {
    /// A new one. Its id says that it is no key of AWS.
    pub fn random() -> Self {
        Self {
            id: format!("LOCALCLOUD{}", hex::encode_upper(rand::random::<[u8; 5]>())),
            secret: hex::encode(rand::random::<[u8; 32]>()),
        }
    }
}

/// What is known of an access key.
#[derive(Clone)]
pub struct Credential {
    /// Signs.
    pub secret: String,
    /// Goes with temporary credentials.
    pub token: Option<String>,
    /// Until when temporary credentials are good.
    pub until: Option<Timestamp>,
    /// Whether it may be used: IAM can make a key inactive.
    active: bool,
}

/// All credentials of a running cloud; clones share them.
#[derive(Clone, Default)]
pub struct Credentials(Arc<Mutex<BTreeMap<String, Credential>>>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// How long temporary credentials are remembered after their end, so that they are told as expired, not as unknown.
const REMEMBERED: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

impl Credentials {
    /// The owner's key lets in.
    pub fn of_owner(key: &AccessKey) -> Self {
        let credentials = Self::default();
        credentials.learn(&key.id, &key.secret, None);
        credentials
    }

    /// Somebody was given credentials; temporary ones have a token and an end.
    pub fn learn(&self, id: &str, secret: &str, temporary: Option<(&str, Timestamp)>) {
        let now = Timestamp::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, one| one.until.is_none_or(|until| now.duration_since(until) < REMEMBERED));
        let credential = Credential {
            secret: secret.to_owned(),
            token: temporary.map(|(token, _)| token.to_owned()),
            until: temporary.map(|(_, until)| until),
            active: true,
        };
        known.insert(id.to_owned(), credential);
    }

    /// IAM deleted a key.
    pub fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// IAM made a key active or inactive.
    pub fn activate(&self, id: &str, active: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credential) = known.get_mut(id) {
            credential.active = active;
        }
    }

    /// What is known of an access key that may be used.
    pub fn find(&self, id: &str) -> Option<Credential> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).filter(|credential| credential.active).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_say_what_they_are_and_are_not_shown() {
        let (one, two) = (AccessKey::random(), AccessKey::random());
        assert!(one.id.starts_with("LOCALCLOUD") && one.id.len() == 20, "{}", one.id);
        assert_ne!(one.id, two.id);
        assert_ne!(one.secret, two.secret);
        assert_eq!(format!("{one:?}"), format!("AccessKey({})", one.id));
    }

    #[test]
    fn a_key_counts_from_its_making_to_its_end() {
        let owner = AccessKey::random();
        let credentials = Credentials::of_owner(&owner);
        assert!(credentials.find(&owner.id).is_some_and(|known| known.secret == owner.secret));
        credentials.learn("k", "s", None);
        credentials.activate("k", false);
        assert!(credentials.find("k").is_none());
        credentials.activate("k", true);
        assert!(credentials.find("k").is_some());
        credentials.forget("k");
        assert!(credentials.find("k").is_none());
        let long_ago = Timestamp::now() - jiff::SignedDuration::from_hours(2);
        credentials.learn("old", "s", Some(("t", long_ago)));
        credentials.learn("new", "s", Some(("t", Timestamp::now())));
        assert!(credentials.find("old").is_none() && credentials.find("new").is_some());
    }
}
