//! The certificate authority that hosts trust, and the TLS server configuration of the AWS APIs on the hosts' side.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::Error;
use crate::place::{locked, make_folder};

/// The authority: its certificate for hosts to trust, its key to sign with.
#[derive(Debug)]
pub struct Authority {
    /// The certificate, PEM.
    pub certificate: String,
    key: KeyPair,
}

impl Authority {
    /// Reads the authority from its folder, or makes it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let (certificate_path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
        let stored = || {
            std::fs::read_to_string(&certificate_path)
                .and_then(|certificate| Ok((certificate, std::fs::read_to_string(&key_path)?)))
        };
        let mut found = stored();
        let mut _lock = None;
        if found.is_err() {
            make_folder(folder)?;
            // Whoever makes it at the same time has made it when this goes on.
            _lock = Some(locked(&folder.join("ca.lock"))?);
            found = stored();
        }
        if let Ok((certificate, key)) = found {
            let key = KeyPair::from_pem(&key).map_err(|error| {
                Error::setup("cannot read the certificate authority's key", error)
            })?;
            return Ok(Self { certificate, key });
        }
        let made = KeyPair::generate().and_then(|key| {
            let certificate = authority_params().self_signed(&key)?.pem();
            Ok(Self { certificate, key })
        });
        let authority =
            made.map_err(|error| Error::setup("cannot make the certificate authority", error))?;
        write_private(&key_path, &authority.key.serialize_pem())?;
        write_private(&certificate_path, &authority.certificate)?;
        Ok(authority)
    }

    /// A TLS server for the names that AWS APIs have in this region.
    pub fn acceptor(&self, region: &str) -> Result<TlsAcceptor, Error> {
        let failed =
            |error: rcgen::Error| Error::setup("cannot sign the endpoint's certificate", error);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names(region)).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, "rehearsal cloud endpoint");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer_params = authority_params();
        let issuer = Issuer::from_params(&issuer_params, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(|builder| {
                    builder
                        .with_no_client_auth()
                        .with_single_cert(vec![certificate.der().clone()], key)
                })
                .map_err(|error| Error::setup("cannot set up TLS for hosts", error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn names(region: &str) -> Vec<String> {
    vec![
        "*.amazonaws.com".into(),
        format!("*.{region}.amazonaws.com"),
        format!("*.s3.{region}.amazonaws.com"),
        "*.s3.amazonaws.com".into(),
    ]
}

/// Always the same, so that the stored certificate and a rebuilt issuer agree.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "rehearsal cloud authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let draft = path.with_extension("new");
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .and_then(|()| std::fs::rename(&draft, path))
        .map_err(|source| Error::File { doing: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_at_the_same_time_get_one_authority() {
        let folder = tempfile::tempdir().expect("folder");
        let made: Vec<String> = std::thread::scope(|scope| {
            let open = || Authority::open(folder.path()).expect("made").certificate;
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            makers.into_iter().map(|maker| maker.join().expect("no panic")).collect()
        });
        assert!(made.iter().all(|other| *other == made[0]), "{made:?}");
    }

    #[test]
    fn the_authority_is_made_once_and_signs_for_the_region() {
        let folder = tempfile::tempdir().expect("folder");
        let first = Authority::open(folder.path()).expect("made");
        let second = Authority::open(folder.path()).expect("read");
        assert_eq!(first.certificate, second.certificate);
        assert!(second.acceptor("us-east-1").is_ok());
    }
}
