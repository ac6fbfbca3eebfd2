//! The AWS SDK as this project uses it: where region, retries and timeouts are set, and what an error means for the
//! exit status. The endpoint is the SDK's own business (`AWS_ENDPOINT_URL`); nothing here knows where it points.

mod call;
mod error;
mod pages;
mod s3;

pub use aws_config::SdkConfig;
pub use call::{Client, Service};
pub use error::{Error, chain};
pub use pages::Pages;
pub use s3::Bucket;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use deploy_cli::Context;
use std::time::Duration;

/// One attempt may take this long; every call of this project answers in a few seconds or not at all.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// A TCP and TLS handshake that takes longer will not come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One call with its first attempt; standard mode waits up to 20 s between two.
const MAX_ATTEMPTS: u32 = 5;

/// Loads credentials, region and endpoint the way the AWS CLI does, with this project's retries and timeouts.
/// `--region` wins over `region` (usually the inventory's), which wins over the SDK's own chain.
///
/// # Errors
/// [`Error::NoRegion`] when nobody names a region.
pub async fn load(ctx: &Context, region: Option<&str>) -> Result<SdkConfig, Error> {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
        .timeout_config(timeouts);
    if let Some(region) = ctx.region().or(region) {
        loader = loader.region(aws_config::Region::new(region.to_owned()));
    }
    let config = loader.load().await;
    if config.region().is_none() { Err(Error::NoRegion) } else { Ok(config) }
}
