//! One error for every AWS call, sorted by what a person can do about it.

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use deploy_cli::{Exit, Failure};

/// Why an AWS call did not give an answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No region in flags, inventory, environment or profile.
    #[error("no AWS region is set")]
    NoRegion,
    /// AWS refused because of who asks: credentials missing, expired, or not allowed.
    #[error("{operation} was denied: {message}{}", in_brackets(code.as_deref()))]
    Denied {
        /// The API operation, e.g. `ssm:SendCommand`.
        operation: &'static str,
        /// AWS's error code, absent when no credentials were found at all.
        code: Option<String>,
        /// AWS's own words.
        message: String,
    },
    /// AWS refused what was asked.
    #[error("{operation} was refused: {message}{}", in_brackets(Some(code)))]
    Refused {
        /// The API operation.
        operation: &'static str,
        /// AWS's error code, e.g. `InvalidInstanceID.NotFound`.
        code: String,
        /// AWS's own words.
        message: String,
    },
    /// Network trouble, throttling or 5xx after the last retry.
    #[error("{operation} got no answer: {message}{}", in_brackets(code.as_deref()))]
    Unavailable {
        /// The API operation.
        operation: &'static str,
        /// AWS's error code, when there was an answer.
        code: Option<String>,
        /// What was seen.
        message: String,
    },
}

fn in_brackets(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}

/// Codes that mean "not you": <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html> and
/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html>.
const DENIED: [&str; 16] = [
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClient",
    "UnrecognizedClientException",
];

/// Codes that pass by themselves, after the SDK's own retries.
const BUSY: [&str; 10] = [
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "RequestLimitExceeded",
    "RequestThrottled",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "Unavailable",
];

impl Error {
    /// Sorts what the SDK returned from `operation`, named like an IAM action (`ec2:DescribeInstances`).
    pub fn from_sdk<E>(operation: &'static str, error: SdkError<E, Response>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let (code, message) = match &error {
            SdkError::ServiceError(service) => (
                service.err().code().map(str::to_owned),
                service.err().message().map(str::to_owned),
            ),
            _ => (None, None),
        };
        let message = message.unwrap_or_else(|| match status {
            // A proxy, a login page, or an endpoint that is something else.
            Some(status) if code.is_none() => {
                format!("HTTP status {status}, and no answer as AWS writes it")
            }
            _ => chain(&error),
        });
        Self::sort(operation, status, code, message)
    }

    fn sort(
        operation: &'static str,
        status: Option<u16>,
        code: Option<String>,
        message: String,
    ) -> Self {
        let named = |list: &[&str]| code.as_deref().is_some_and(|code| list.contains(&code));
        let (denied, busy) = (named(&DENIED), named(&BUSY));
        // No request was sent because no credentials were found: the SDK says so only in words.
        let no_credentials = status.is_none() && message.to_lowercase().contains("credential");
        match (code, status) {
            (code, _) if no_credentials => {
                Self::Denied { operation, code, message: "no AWS credentials were found".into() }
            }
            (code, _) if denied => Self::Denied { operation, code, message },
            (Some(code), Some(400..=499)) if !busy => Self::Refused { operation, code, message },
            (code, _) => Self::Unavailable { operation, code, message },
        }
    }

    /// AWS's error code, when AWS answered.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::NoRegion => None,
            Self::Denied { code, .. } | Self::Unavailable { code, .. } => code.as_deref(),
            Self::Refused { code, .. } => Some(code),
        }
    }
}

/// An error and its causes in one line. Each says only its own part, and what a cause repeats is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NoRegion | Self::Refused { .. } => Exit::Usage,
            Self::Denied { .. } => Exit::Denied,
            Self::Unavailable { .. } => Exit::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoRegion => Some("pass `--region` or set AWS_REGION".into()),
            Self::Denied { code: None, .. } => Some(
                "set AWS_PROFILE or the AWS_* variables, or assume the deployment role first; in a rehearsal, `eval \"$(local-cloud up)\"`"
                    .into(),
            ),
            Self::Denied { operation, code: Some(code), .. } => Some(if code.contains("Expired") {
                "the credentials are too old: get new ones and run the step again".into()
            } else {
                format!(
                    "the role that runs this needs `{operation}`; `aws sts get-caller-identity` says who you are"
                )
            }),
            Self::Refused { .. } => None,
            Self::Unavailable { code: None, .. } => Some(
                "check AWS_ENDPOINT_URL and the network; in a rehearsal, `local-cloud status`"
                    .into(),
            ),
            Self::Unavailable { code: Some(_), .. } => {
                Some("AWS is busy or broken right now: run the step again".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Option<u16>, code: Option<&str>, message: &str, expected: Exit) {
        let error =
            Error::sort("ssm:SendCommand", status, code.map(str::to_owned), message.to_owned());
        assert_eq!(error.exit(), expected, "{error}");
    }

    #[test]
    fn every_class_of_answer_has_its_exit_status() {
        check(Some(400), Some("AccessDeniedException"), "no", Exit::Denied);
        check(Some(403), Some("UnauthorizedOperation"), "no", Exit::Denied);
        check(Some(400), Some("ExpiredTokenException"), "old", Exit::Denied);
        check(None, None, "no providers in chain provided credentials", Exit::Denied);
        check(Some(400), Some("InvalidInstanceId"), "what?", Exit::Usage);
        check(Some(400), Some("ThrottlingException"), "slow", Exit::Unavailable);
        check(Some(503), Some("Whatever"), "down", Exit::Unavailable);
        check(None, None, "dispatch failure: connection refused", Exit::Unavailable);
    }
}
