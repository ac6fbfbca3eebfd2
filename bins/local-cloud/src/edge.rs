//! What hosts reach at the edge of their VPC: instance metadata, and the AWS APIs with TLS. Nobody else is answered.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::{listener, log};

/// Whether an address is that of a living host of a VPC.
pub type IsGuest = dyn Fn(IpAddr, &str) -> bool + Send + Sync;

/// The services at the edge; one set for all VPCs, since the caller's address says which host asks.
#[derive(Clone)]
pub struct Edge {
    /// Instance metadata.
    pub metadata: Router,
    /// The AWS APIs, and the agent's own paths.
    pub api: Router,
    /// TLS in front of them.
    pub tls: TlsAcceptor,
    /// How many hops instance metadata may go to a caller; `None` is as many as it takes.
    pub hops: Arc<dyn Fn(IpAddr) -> Option<u32> + Send + Sync>,
    /// Whether a caller is a living host of this VPC.
    pub guest: Arc<IsGuest>,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Edge")
    }
}

/// What a port of the edge serves.
#[derive(Debug, Clone, Copy)]
enum Port {
    Metadata,
    Tls,
}

impl Edge {
    /// Serves instance metadata to hosts of a VPC until it is aborted. What it sends goes as many hops as the asking
    /// instance allows (`HttpPutResponseHopLimit`): with one, a container on the host gets no answer, as on AWS.
    pub fn serve_metadata(&self, listener: TcpListener, vpc: &str) -> AbortHandle {
        self.serve(listener, vpc, Port::Metadata)
    }

    /// Serves the AWS APIs with TLS to hosts of a VPC until it is aborted.
    pub fn serve_tls(&self, listener: TcpListener, vpc: &str) -> AbortHandle {
        self.serve(listener, vpc, Port::Tls)
    }

    fn serve(&self, listener: TcpListener, vpc: &str, port: Port) -> AbortHandle {
        let (edge, vpc) = (self.clone(), vpc.to_owned());
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    // The packet rules let nobody else come here. Where those fail, this holds.
                    Ok((stream, caller)) if !(*edge.guest)(caller.ip(), &vpc) => {
                        log::line(format_args!(
                            "refused: {caller} is no host of {vpc} ({port:?} at its edge)"
                        ));
                        drop(stream);
                    }
                    Ok((stream, host)) => {
                        tokio::spawn(edge.clone().connection(stream, host, port));
                    }
                    Err(error) => {
                        // Out of descriptors: the ones in use have to end first.
                        log::line(format_args!("cannot accept a host's connection: {error}"));
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    }
                }
            }
        })
        .abort_handle()
    }

    async fn connection(self, stream: TcpStream, host: SocketAddr, port: Port) {
        // Who calls is known by its address.
        let caller = Extension(ConnectInfo(host));
        let ended = match port {
            Port::Metadata => {
                // A connection that has just ended takes no option, and needs none.
                if let Some(limit) = (*self.hops)(host.ip()) {
                    let _ = stream.set_ttl(limit);
                }
                listener::connection(stream, self.metadata.layer(caller), host.ip()).await
            }
            Port::Tls => match self.tls.accept(stream).await {
                Ok(stream) => listener::connection(stream, self.api.layer(caller), host.ip()).await,
                Err(error) => {
                    return log::line(format_args!("a host's TLS handshake failed: {error}"));
                }
            },
        };
        if let Err(error) = ended {
            log::line(format_args!("a host's connection ended: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What an edge answers at its metadata port and whether it speaks TLS, to callers that are guests or not.
    async fn answers(guest: bool) -> (String, bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = crate::tls::Authority::open(folder.path()).expect("an authority");
        let service = || Router::new().fallback(|| async { "for hosts" });
        let edge = Edge {
            metadata: service(),
            api: service(),
            tls: authority.acceptor("us-east-1").expect("TLS"),
            hops: Arc::new(|_| None),
            guest: Arc::new(move |caller, vpc| guest && caller.is_loopback() && vpc == "vpc-1"),
        };
        let bind = || async { TcpListener::bind("127.0.0.1:0").await.expect("a port") };
        let (metadata, tls) = (bind().await, bind().await);
        let at = |listener: &TcpListener| listener.local_addr().expect("an address");
        let (metadata_at, tls_at) = (at(&metadata), at(&tls));
        edge.serve_metadata(metadata, "vpc-1");
        edge.serve_tls(tls, "vpc-1");
        let mut stream = TcpStream::connect(metadata_at).await.expect("it listens");
        // It may hang up before it has read this.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        let mut stream = TcpStream::connect(tls_at).await.expect("it listens");
        let _ = stream.write_all(b"no handshake at all, which TLS answers by an alert").await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        (text, !bytes.is_empty())
    }

    #[tokio::test]
    async fn only_hosts_are_answered_at_the_edge() {
        let (text, tls) = answers(true).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("for hosts") && tls, "{text}");
        assert_eq!(answers(false).await, (String::new(), false));
    }
}
