//! The three calls that this tool makes to AWS, signed and sent without a generated client: the EC2 client alone would make
//! the program ten times as large and its start, which Ansible waits for on every play, slower. Region, retries, timeouts
//! and credentials are those of [`deploy_aws::load`].

use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{
    HttpStatusCodeClassifier, TransientErrorClassifier,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use aws_types::service_config::ServiceConfigKey;
use deploy_aws::{Error, SdkConfig};
use std::fmt;
use std::time::SystemTime;

/// A service as its endpoint, its signature and the user's settings call it.
#[derive(Debug, Clone, Copy)]
struct Service {
    name: &'static str,
    id: &'static str,
    /// The version of the query API.
    version: &'static str,
}

const S3: Service = Service { name: "s3", id: "S3", version: "" };
const EC2: Service = Service { name: "ec2", id: "EC2", version: "2016-11-15" };
const AUTO_SCALING: Service =
    Service { name: "autoscaling", id: "Auto Scaling", version: "2011-01-01" };

/// Signs and sends.
#[derive(Debug)]
pub(crate) struct Client(SdkConfig);

impl Client {
    pub(crate) fn new(config: SdkConfig) -> Self {
        Self(config)
    }

    /// `s3:GetObject`. A bucket of another region is asked there.
    pub(crate) async fn object(&self, bucket: &str, key: &str) -> Result<Vec<u8>, Error> {
        let path = format!("/{}/{}", encoded(bucket, false), encoded(key, true));
        let get = |region| self.send(S3, "s3:GetObject", region, Request::Get(path.clone()));
        let failed = match get(self.region()).await {
            Err(Failed::Call(error)) => error,
            answer => return answer.map_err(|error| error.sorted("s3:GetObject")),
        };
        let elsewhere = failed
            .as_service_error()
            .and_then(|refusal| refusal.region.clone())
            .filter(|region| *region != self.region());
        match elsewhere {
            Some(region) => get(region).await.map_err(|error| error.sorted("s3:GetObject")),
            None => Err(Error::from_sdk("s3:GetObject", *failed)),
        }
    }

    /// `ec2:DescribeInstances`, one page.
    pub(crate) async fn describe_instances(
        &self,
        parameters: Vec<(String, String)>,
    ) -> Result<String, Error> {
        self.query(EC2, "ec2:DescribeInstances", "DescribeInstances", parameters).await
    }

    /// `autoscaling:DescribeAutoScalingGroups`, one page.
    pub(crate) async fn describe_auto_scaling_groups(
        &self,
        parameters: Vec<(String, String)>,
    ) -> Result<String, Error> {
        let operation = "autoscaling:DescribeAutoScalingGroups";
        self.query(AUTO_SCALING, operation, "DescribeAutoScalingGroups", parameters).await
    }

    async fn query(
        &self,
        service: Service,
        operation: &'static str,
        action: &str,
        parameters: Vec<(String, String)>,
    ) -> Result<String, Error> {
        let fixed = [("Action", action), ("Version", service.version)];
        let fixed = fixed.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let body: Vec<String> = fixed
            .chain(parameters)
            .map(|(key, value)| format!("{}={}", encoded(&key, false), encoded(&value, false)))
            .collect();
        let answer =
            self.send(service, operation, self.region(), Request::Post(body.join("&"))).await;
        let bytes = answer.map_err(|error| error.sorted(operation))?;
        String::from_utf8(bytes).map_err(|_| Error::Unavailable {
            operation,
            code: None,
            message: "the answer is not UTF-8".into(),
        })
    }

    fn region(&self) -> String {
        self.0.region().map(ToString::to_string).unwrap_or_default()
    }

    /// What the user set for the service or for all, else AWS's own.
    fn endpoint(&self, service: Service, region: &str) -> String {
        let key = ServiceConfigKey::builder()
            .service_id(service.id)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let own = key.ok().and_then(|key| self.0.service_config()?.load_config(key));
        own.or_else(|| self.0.endpoint_url().map(str::to_owned)).unwrap_or_else(|| {
            let fips = if self.0.use_fips() == Some(true) { "-fips" } else { "" };
            let end = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://{}{fips}.{region}.amazonaws.com{end}", service.name)
        })
    }

    async fn send(
        &self,
        service: Service,
        operation: &'static str,
        region: String,
        request: Request,
    ) -> Result<Vec<u8>, Failed> {
        let identity = self.identity(operation).await?;
        let mut builder = Operation::builder()
            .service_name(service.name)
            .operation_name(operation)
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint(service, &region))
            .no_auth()
            .interceptor(Signature { service, region, identity, body: request.body() });
        if let Some(client) = self.0.http_client() {
            builder = builder.http_client(client);
        }
        if let Some(retries) = self.0.retry_config() {
            builder = builder.standard_retry(retries);
        }
        if let Some(timeouts) = self.0.timeout_config() {
            builder = builder.timeout_config(timeouts.clone());
        }
        if let Some(sleep) = self.0.sleep_impl() {
            builder = builder.sleep_impl(sleep);
        }
        builder
            .retry_classifier(TransientErrorClassifier::<Refusal>::new())
            .retry_classifier(AwsErrorCodeClassifier::<Refusal>::default())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .serializer(|request: Request| request.http())
            .deserializer(answer)
            .build()
            .invoke(request)
            .await
            .map_err(|error| Failed::Call(Box::new(error)))
    }

    async fn identity(&self, operation: &'static str) -> Result<Identity, Failed> {
        use aws_credential_types::provider::ProvideCredentials as _;
        use aws_credential_types::provider::error::CredentialsError;
        let denied =
            |message: String| Failed::Credentials(Error::Denied { operation, code: None, message });
        let none = || denied("no AWS credentials were found".into());
        let provider = self.0.credentials_provider().ok_or_else(none)?;
        match provider.provide_credentials().await {
            Ok(credentials) => Ok(credentials.into()),
            Err(CredentialsError::CredentialsNotLoaded(_)) => Err(none()),
            Err(error) => Err(denied(deploy_aws::chain(&error))),
        }
    }
}

/// Why a call gave nothing.
enum Failed {
    Credentials(Error),
    Call(Box<SdkError<Refusal, HttpResponse>>),
}

impl Failed {
    fn sorted(self, operation: &'static str) -> Error {
        match self {
            Self::Credentials(error) => error,
            Self::Call(error) => Error::from_sdk(operation, *error),
        }
    }
}

#[derive(Debug)]
enum Request {
    /// An encoded path.
    Get(String),
    /// An encoded form.
    Post(String),
}

impl Request {
    fn body(&self) -> String {
        match self {
            Self::Get(_) => String::new(),
            Self::Post(form) => form.clone(),
        }
    }

    fn http(self) -> Result<HttpRequest, BoxError> {
        let mut request = HttpRequest::new(SdkBody::from(self.body()));
        match self {
            Self::Get(path) => request.set_uri(path)?,
            Self::Post(_) => {
                request.set_method("POST")?;
                request.set_uri("/")?;
                let form = "application/x-www-form-urlencoded; charset=utf-8";
                request.headers_mut().insert("content-type", form);
            }
        }
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert("user-agent", agent);
        Ok(request)
    }
}

fn answer(response: &HttpResponse) -> Result<Vec<u8>, OrchestratorError<Refusal>> {
    let body = response.body().bytes().unwrap_or_default();
    if response.status().is_success() {
        return Ok(body.to_vec());
    }
    let text = String::from_utf8_lossy(body);
    let header = |name| response.headers().get(name).map(str::to_owned);
    let mut meta = ErrorMetadata::builder();
    if let Some(code) = between(&text, "Code") {
        meta = meta.code(code);
    }
    let status = response.status().as_u16();
    let message = between(&text, "Message").unwrap_or_else(|| format!("status {status}"));
    Err(OrchestratorError::operation(Refusal {
        meta: meta.message(message).build(),
        region: header("x-amz-bucket-region").or_else(|| between(&text, "Region")),
    }))
}

/// What stands in the first element of this name. Errors of all three services are flat XML.
fn between(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = quick_xml::escape::unescape(inner).ok()?;
    (!plain.is_empty()).then(|| plain.into_owned())
}

/// AWS's refusal of a call.
#[derive(Debug)]
struct Refusal {
    meta: ErrorMetadata,
    /// Where the bucket is.
    region: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.meta.fmt(f)
    }
}

impl std::error::Error for Refusal {}

impl ProvideErrorMetadata for Refusal {
    fn meta(&self) -> &ErrorMetadata {
        &self.meta
    }
}

/// Signs each attempt anew, since the signature holds the time.
#[derive(Debug)]
struct Signature {
    service: Service,
    region: String,
    identity: Identity,
    body: String,
}

impl Intercept for Signature {
    fn name(&self) -> &'static str {
        "Signature"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut settings = SigningSettings::default();
        if self.service.name == S3.name {
            // <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let parameters = v4::SigningParams::builder()
            .identity(&self.identity)
            .region(&self.region)
            .name(self.service.name)
            .time(SystemTime::now())
            .settings(settings)
            .build()?
            .into();
        let request = context.request_mut();
        let body = SignableBody::Bytes(self.body.as_bytes());
        let signable =
            SignableRequest::new(request.method(), request.uri(), request.headers().iter(), body)?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        for (name, value) in instructions.headers() {
            request.headers_mut().insert(name.to_owned(), value.to_owned());
        }
        Ok(())
    }
}

/// Percent-encoding as signatures want it: everything but unreserved characters, and `/` in paths.
fn encoded(text: &str, path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into())
            }
            b'/' if path => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_as_signatures_want_them() {
        assert_eq!(encoded("env:/dev/a b+é.tfstate", true), "env%3A/dev/a%20b%2B%C3%A9.tfstate");
        assert_eq!(encoded("a/b=c&d", false), "a%2Fb%3Dc%26d");
    }

    #[test]
    fn errors_of_all_services_are_read() {
        let ec2 = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>a &lt;b&gt;</Message></Error></Errors></Response>";
        assert_eq!(between(ec2, "Code").as_deref(), Some("UnauthorizedOperation"));
        assert_eq!(between(ec2, "Message").as_deref(), Some("a <b>"));
        assert_eq!(between(ec2, "Region"), None);
        assert_eq!(between("<Code>", "Code"), None);
    }
}
