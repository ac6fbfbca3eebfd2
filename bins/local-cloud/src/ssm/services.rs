//! What Systems Manager asks of the emulator behind it.

use axum::http::StatusCode;
use serde_json::json;

use super::Ssm;
use super::document::Document;
use super::refusal::Refusal;

impl Ssm {
    /// A document of the account, in JSON whatever it was written in.
    pub(super) async fn account_document(
        &self,
        name: &str,
        version: &str,
    ) -> Result<Document, Refusal> {
        let missing = || {
            Refusal::new("InvalidDocument", format!("Document with name {name} does not exist."))
        };
        let Some(upstream) = self.ec2.as_ref().map(|ec2| &ec2.upstream) else {
            return Err(missing());
        };
        let mut request = json!({"Name": name, "DocumentFormat": "JSON"});
        if version != "$DEFAULT" {
            request["DocumentVersion"] = version.into();
        }
        let target = "AmazonSSM.GetDocument";
        let (status, answer) =
            upstream.ask_json("ssm", &self.region, target, &request).await.map_err(|error| {
                Refusal { status: 500, ..Refusal::new("InternalServerError", error.to_string()) }
            })?;
        let text = |name: &str| answer[name].as_str().unwrap_or_default();
        if status != StatusCode::OK {
            // The emulator says the same of a document and of a version that it does not have.
            let any = json!({"Name": name});
            let known = upstream.ask_json("ssm", &self.region, target, &any).await;
            return Err(match known {
                Ok((StatusCode::OK, _)) => Refusal::new(
                    "InvalidDocumentVersion",
                    format!("Document {name} has no version {version}"),
                ),
                _ => missing(),
            });
        }
        Document::read(name, text("DocumentType"), text("Content"))
    }
}
