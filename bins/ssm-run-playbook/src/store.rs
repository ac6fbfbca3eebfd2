//! The way of a large bundle: an object in a bucket for as long as the run takes.

use deploy_aws::{Bucket, Client, Error, SdkConfig};
use deploy_cli::Context;
use std::cell::Cell;
use std::time::Duration;
use tokio::time::timeout;

/// Keys begin with this, so that a policy and a lifecycle rule can name them.
const PREFIX: &str = "ssm-run-playbook/";
/// Within the seconds that a cancelled job has.
const REMOVE: Duration = Duration::from_secs(3);
/// Time for the download, after the time that a host may take to begin.
const DOWNLOAD: Duration = Duration::from_secs(300);

/// One bundle in one bucket.
#[derive(Debug)]
pub(crate) struct Store {
    bucket: Bucket,
    name: String,
    key: String,
    /// This run put the object there.
    is_ours: Cell<bool>,
}

/// The key of a bundle.
pub(crate) fn key(sha256: &str) -> String {
    format!("{PREFIX}{sha256}.tar.gz")
}

impl Store {
    pub(crate) fn new(config: &SdkConfig, bucket: &str, sha256: &str) -> Self {
        Self {
            bucket: Bucket::new(Client::new(config.clone()), bucket),
            name: bucket.to_owned(),
            key: key(sha256),
            is_ours: Cell::new(false),
        }
    }

    /// Puts the bundle there if it is not, and gives an address to read it that is good for hosts which begin within
    /// `delivery`.
    pub(crate) async fn offer(&self, bytes: &[u8], delivery: Duration) -> Result<String, Error> {
        if !self.is_ours.get() {
            let put = self.bucket.put_new(&self.key, bytes.to_vec()).await;
            // What was sent without an answer may be there all the same, and goes in the end.
            self.is_ours
                .set(!matches!(put, Ok(false) | Err(Error::Denied { .. } | Error::Refused { .. })));
            put?;
        }
        self.bucket.presigned(&self.key, delivery + DOWNLOAD).await
    }

    /// Takes the object away if this run put it there.
    pub(crate) async fn remove(&self, ctx: &Context) {
        if !self.is_ours.take() {
            return;
        }
        let gone = timeout(REMOVE, self.bucket.delete(&self.key)).await;
        let reason = match gone {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        ctx.progress().warn(&format!("s3://{}/{} stays: {reason}; delete it", self.name, self.key));
    }
}
