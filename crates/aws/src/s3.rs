//! Objects of one bucket.

use crate::Error;
use crate::call::{Client, Failed, Request, Service, encoded, signing};
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SignatureLocation, sign,
};
use aws_sigv4::sign::v4;
use std::cell::RefCell;
use std::time::{Duration, SystemTime};

pub(crate) const S3: Service = Service { name: "s3", id: "S3", version: "" };
/// Time for one attempt at sending an object.
const UPLOAD: Duration = Duration::from_secs(300);
/// Between two attempts at writing what another request writes at the same time.
const CONFLICT_PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(600), Duration::from_millis(1800)];

/// A bucket. One of another region is found there.
#[derive(Debug)]
pub struct Bucket {
    client: Client,
    name: String,
    region: RefCell<String>,
}

impl Bucket {
    /// A bucket by its name. Nothing is asked yet.
    pub fn new(client: Client, name: &str) -> Self {
        let region = RefCell::new(client.region());
        Self { client, name: name.to_owned(), region }
    }

    /// `s3:GetObject`.
    ///
    /// # Errors
    /// [`Error`], `NoSuchKey` and `NoSuchBucket` among its codes.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>, Error> {
        self.call("s3:GetObject", self.request("GET", key)).await
    }

    /// `s3:PutObject` unless an object has this key already; whether it was sent.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put_new(&self, key: &str, body: Vec<u8>) -> Result<bool, Error> {
        // <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>
        let headers = vec![("if-none-match", "*"), ("content-type", "application/gzip")];
        let attempt_timeout = Some(UPLOAD);
        let request = Request { headers, body, attempt_timeout, ..self.request("PUT", key) };
        let mut pauses = CONFLICT_PAUSES.into_iter();
        let mut answer = self.call("s3:PutObject", request.clone()).await;
        // Somebody else writes or deletes the object at this moment; S3 asks to send it again.
        while let Err(error) = &answer
            && error.code() == Some("ConditionalRequestConflict")
            && let Some(pause) = pauses.next()
        {
            tokio::time::sleep(pause).await;
            answer = self.call("s3:PutObject", request.clone()).await;
        }
        match answer {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("PreconditionFailed") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `s3:DeleteObject`. An object that is not there is no error.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.call("s3:DeleteObject", self.request("DELETE", key)).await.map(|_| ())
    }

    /// An address that lets anyone who has it read the object for some time. It names `AWS_ENDPOINT_URL_S3` when that is
    /// set and other than `AWS_ENDPOINT_URL`, and AWS's own name otherwise.
    ///
    /// # Errors
    /// [`Error::Denied`] without credentials.
    pub async fn presigned(&self, key: &str, expires: Duration) -> Result<String, Error> {
        let operation = "s3:GetObject";
        let identity =
            self.client.identity(operation).await.map_err(|error| error.sorted(operation))?;
        let region = self.region.borrow().clone();
        let endpoint = self.client.endpoint_for_others(S3, &region);
        let url = format!("{}{}", endpoint.trim_end_matches('/'), self.path(key));
        let mut settings = signing(S3);
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(expires);
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        let broken =
            |message: String| Error::Refused { operation, code: "Signature".into(), message };
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&region)
            .name(S3.name)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| broken(error.to_string()))?
            .into();
        let request = SignableRequest::new(
            "GET",
            url.as_str(),
            std::iter::empty(),
            SignableBody::UnsignedPayload,
        )
        .map_err(|error| broken(error.to_string()))?;
        let signed = sign(request, &parameters).map_err(|error| broken(error.to_string()))?;
        let (instructions, _) = signed.into_parts();
        let query: Vec<String> = instructions
            .params()
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name, false), encoded(value, false)))
            .collect();
        Ok(format!("{url}?{}", query.join("&")))
    }

    fn path(&self, key: &str) -> String {
        format!("/{}/{}", encoded(&self.name, false), encoded(key, true))
    }

    fn request(&self, method: &'static str, key: &str) -> Request {
        let path = self.path(key);
        Request { method, path, headers: Vec::new(), body: Vec::new(), attempt_timeout: None }
    }

    async fn call(&self, operation: &'static str, request: Request) -> Result<Vec<u8>, Error> {
        let send = |region| self.client.send(S3, operation, region, request.clone());
        let region = self.region.borrow().clone();
        let failed = match send(region.clone()).await {
            Err(Failed::Call(error)) => error,
            answer => return answer.map_err(|error| error.sorted(operation)),
        };
        let elsewhere = failed
            .as_service_error()
            .and_then(|refusal| refusal.region.clone())
            .filter(|other| *other != region);
        match elsewhere {
            Some(region) => {
                self.region.replace(region.clone());
                send(region).await.map_err(|error| error.sorted(operation))
            }
            None => Err(Error::from_sdk(operation, *failed)),
        }
    }
}
