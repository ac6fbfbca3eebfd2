//! Which error each service answers for the same trouble. Pure.
//!
//! Sources: botocore's `_retry.json` (the codes that clients repeat a call for), exceptions in botocore's service
//! models, the lists of common errors in the API references, EC2's list of error codes, S3's list of error codes.

use super::protocol::{Protocol, ServiceError};

/// Too many requests.
pub fn throttled(service: &str, protocol: Protocol) -> ServiceError {
    let (status, code, message) = match (service, protocol) {
        ("ec2", _) => (503, "RequestLimitExceeded", "Request limit exceeded."),
        (_, Protocol::S3) => (503, "SlowDown", "Please reduce your request rate."),
        ("dynamodb", _) => (
            400,
            "ProvisionedThroughputExceededException",
            "The level of configured provisioned throughput for the table was exceeded. Consider increasing your \
             provisioning level with the UpdateTable API.",
        ),
        ("kinesis", _) => (400, "ProvisionedThroughputExceededException", "Rate exceeded"),
        // As botocore's retry table names it; the model's own error has the same code.
        ("sqs", _) => (403, "RequestThrottled", "Rate exceeded"),
        ("sns", _) => (429, "Throttled", "Rate exceeded"),
        ("eks" | "elasticfilesystem", _) => (429, "ThrottlingException", "Rate exceeded"),
        (_, Protocol::Json) => (400, "ThrottlingException", "Rate exceeded"),
        (_, Protocol::RestJson) => (429, "TooManyRequestsException", "Rate exceeded"),
        (_, _) => (400, "Throttling", "Rate exceeded"),
    };
    ServiceError::new(status, code, message)
}

/// The service's own trouble, with status 500 or 503.
pub fn broken(service: &str, protocol: Protocol, status: u16) -> ServiceError {
    const ON_OUR_SIDE: &str = "An error occurred on the server side.";
    let (code, message) = match (service, protocol, status) {
        ("ec2", _, 503) => {
            ("Unavailable", "The server is overloaded and can't handle the request.")
        }
        ("ec2", ..) => ("InternalError", "An internal error has occurred"),
        (_, Protocol::S3, 503) => ("ServiceUnavailable", "Service is unable to handle request."),
        (_, Protocol::S3, _) => {
            ("InternalError", "We encountered an internal error. Please try again.")
        }
        ("ssm" | "dynamodb" | "elasticfilesystem", _, 500) => ("InternalServerError", ON_OUR_SIDE),
        ("secretsmanager", _, 500) => ("InternalServiceError", ON_OUR_SIDE),
        ("kms", _, 500) => ("KMSInternalException", ON_OUR_SIDE),
        ("lambda", _, 500) => ("ServiceException", ON_OUR_SIDE),
        ("eks", _, 500) => ("ServerException", ON_OUR_SIDE),
        ("mq", _, 500) => ("InternalServerErrorException", ON_OUR_SIDE),
        ("iam", _, 500) => {
            ("ServiceFailure", "The request processing has failed because of an unknown error.")
        }
        (_, Protocol::Json | Protocol::RestJson, 503) => (
            "ServiceUnavailableException",
            "The request has failed due to a temporary failure of the server.",
        ),
        (_, _, 503) => (
            "ServiceUnavailable",
            "The request has failed due to a temporary failure of the server.",
        ),
        _ => (
            "InternalFailure",
            "The request processing has failed because of an unknown error, exception or failure.",
        ),
    };
    ServiceError::new(status, code, message)
}

/// Credentials whose time is over.
pub fn expired(service: &str, protocol: Protocol) -> ServiceError {
    const EXPIRED: &str = "The security token included in the request is expired";
    match (service, protocol) {
        ("ec2", _) => ServiceError::new(400, "RequestExpired", "Request has expired."),
        (_, Protocol::S3) => {
            ServiceError::new(400, "ExpiredToken", "The provided token has expired.")
        }
        (_, Protocol::Json) => ServiceError::new(400, "ExpiredTokenException", EXPIRED),
        (_, Protocol::RestJson) => ServiceError::new(403, "ExpiredTokenException", EXPIRED),
        (_, _) => ServiceError::new(403, "ExpiredToken", EXPIRED),
    }
}

/// Who is not allowed what.
#[derive(Debug, Clone, Copy)]
pub struct Denied<'a> {
    /// ARN of the caller.
    pub caller: &'a str,
    /// The action as policies name it, `service:Action`.
    pub action: &'a str,
    /// ARN of what it is about.
    pub resource: &'a str,
}

/// An action that no policy allows.
pub fn denied(service: &str, protocol: Protocol, denied: Denied<'_>) -> ServiceError {
    let Denied { caller, action, resource } = denied;
    let why = format!(
        "User: {caller} is not authorized to perform: {action} on resource: {resource} because no identity-based \
         policy allows the {action} action"
    );
    match (service, protocol) {
        ("ec2", _) => ServiceError::new(
            403,
            "UnauthorizedOperation",
            format!("You are not authorized to perform this operation. {why}"),
        ),
        (_, Protocol::Json) => ServiceError::new(400, "AccessDeniedException", why),
        (_, Protocol::RestJson) => ServiceError::new(403, "AccessDeniedException", why),
        (_, _) => ServiceError::new(403, "AccessDenied", why),
    }
}

/// No instance of this type can be had. `code` is one of the kind's; numbers and names are the request's.
pub fn no_capacity(code: &str, instance_type: &str, zone: Option<&str>) -> ServiceError {
    match code {
        "InstanceLimitExceeded" => ServiceError::new(
            400,
            code,
            "You have requested more instances than your current instance limit allows for the specified instance \
             type. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        ),
        "VcpuLimitExceeded" => ServiceError::new(
            400,
            code,
            "You have requested more vCPU capacity than your current vCPU limit allows for the instance bucket that \
             the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to \
             request an adjustment to this limit.",
        ),
        _ => {
            let place = match zone {
                Some(zone) => format!(
                    "We currently do not have sufficient {instance_type} capacity in the Availability Zone you \
                     requested ({zone})."
                ),
                None => format!("We currently do not have sufficient {instance_type} capacity."),
            };
            let message = format!(
                "{place} Our system will be working on provisioning additional capacity. You can currently get \
                 {instance_type} capacity by not specifying an Availability Zone in your request or choosing another."
            );
            ServiceError::new(500, code, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_its_own_codes() {
        use Protocol::{Ec2, Json, Query, RestJson, RestXml, S3};
        let check = |service, protocol, expected: [&str; 5]| {
            let who = Denied { caller: "arn", action: "a:B", resource: "*" };
            let found = [
                throttled(service, protocol),
                broken(service, protocol, 500),
                broken(service, protocol, 503),
                expired(service, protocol),
                denied(service, protocol, who),
            ]
            .map(|error| format!("{} {}", error.status, error.code));
            assert_eq!(found, expected, "{service}");
        };
        check(
            "ec2",
            Ec2,
            [
                "503 RequestLimitExceeded",
                "500 InternalError",
                "503 Unavailable",
                "400 RequestExpired",
                "403 UnauthorizedOperation",
            ],
        );
        check(
            "ssm",
            Json,
            [
                "400 ThrottlingException",
                "500 InternalServerError",
                "503 ServiceUnavailableException",
                "400 ExpiredTokenException",
                "400 AccessDeniedException",
            ],
        );
        check(
            "s3",
            S3,
            [
                "503 SlowDown",
                "500 InternalError",
                "503 ServiceUnavailable",
                "400 ExpiredToken",
                "403 AccessDenied",
            ],
        );
        check(
            "autoscaling",
            Query,
            [
                "400 Throttling",
                "500 InternalFailure",
                "503 ServiceUnavailable",
                "403 ExpiredToken",
                "403 AccessDenied",
            ],
        );
        check(
            "lambda",
            RestJson,
            [
                "429 TooManyRequestsException",
                "500 ServiceException",
                "503 ServiceUnavailableException",
                "403 ExpiredTokenException",
                "403 AccessDeniedException",
            ],
        );
        check(
            "route53",
            RestXml,
            [
                "400 Throttling",
                "500 InternalFailure",
                "503 ServiceUnavailable",
                "403 ExpiredToken",
                "403 AccessDenied",
            ],
        );
    }
}
