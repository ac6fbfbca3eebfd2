//! UDP and TCP under SIP: one flow per peer, all of them read into one queue of events.
//!
//! A UDP flow is a connected socket. So the kernel reports ICMP errors, and what comes from another address than the
//! one that was asked is not seen, exactly as behind the NAT that most phones sit behind.

use crate::message::{Framer, MAX_MESSAGE_BYTES, Message};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A message of ours is small; a peer that does not take it for this long has stopped reading.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// More unread events than this mean a flood; reading waits until they are handled.
const QUEUE: usize = 64;

/// How SIP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams; requests are sent again until they are answered.
    Udp,
    /// A stream.
    Tcp,
}

impl Transport {
    /// The word in a URI's `transport` parameter.
    pub fn param(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// The word in a `Via` header, and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// Something that happened on a flow.
#[derive(Debug)]
pub enum Event {
    /// A message came.
    Message {
        /// Whom it came from.
        from: SocketAddr,
        /// The message.
        message: Box<Message>,
    },
    /// Bytes came that are no message.
    Malformed {
        /// Whom they came from.
        from: SocketAddr,
        /// What is wrong with them.
        why: &'static str,
    },
    /// The flow is broken, or for UDP: the peer's host says that nobody listens.
    Broken {
        /// The flow's peer.
        peer: SocketAddr,
        /// What the operating system said; `None` when the peer closed the connection.
        error: Option<io::Error>,
    },
}

/// All flows of one user agent. Dropping it closes them.
#[derive(Debug)]
pub struct Flows {
    transport: Transport,
    flows: HashMap<SocketAddr, Flow>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    readers: JoinSet<()>,
}

#[derive(Debug)]
struct Flow {
    local: SocketAddr,
    writer: Writer,
}

#[derive(Debug)]
enum Writer {
    Udp(Arc<UdpSocket>),
    Tcp(OwnedWriteHalf),
}

impl Flows {
    /// No flow yet.
    pub fn new(transport: Transport) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        Self { transport, flows: HashMap::new(), sender, events, readers: JoinSet::new() }
    }

    /// How these flows travel.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Opens the flow to `peer` unless it is open, and says which local address it has.
    ///
    /// # Errors
    /// What the operating system said.
    pub async fn open(&mut self, peer: SocketAddr) -> io::Result<SocketAddr> {
        if let Some(flow) = self.flows.get(&peer) {
            return Ok(flow.local);
        }
        let (sender, local);
        let writer = match self.transport {
            Transport::Udp => {
                let socket = Arc::new(connected(peer).await?);
                (sender, local) = (self.sender.clone(), socket.local_addr()?);
                self.readers.spawn(read_datagrams(Arc::clone(&socket), peer, sender));
                Writer::Udp(socket)
            }
            Transport::Tcp => {
                let stream = TcpStream::connect(peer).await?;
                stream.set_nodelay(true)?;
                (sender, local) = (self.sender.clone(), stream.local_addr()?);
                let (reader, writer) = stream.into_split();
                self.readers.spawn(read_stream(reader, peer, sender));
                Writer::Tcp(writer)
            }
        };
        self.flows.insert(peer, Flow { local, writer });
        Ok(local)
    }

    /// The local address of the flow to `peer`, if it is open.
    pub fn local(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.flows.get(&peer).map(|flow| flow.local)
    }

    /// Sends bytes to `peer`, over a flow that is open.
    ///
    /// # Errors
    /// What the operating system said; for UDP also an ICMP error about an earlier datagram.
    pub async fn send(&mut self, peer: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let flow = self.flows.get_mut(&peer).ok_or(io::ErrorKind::NotConnected)?;
        match &mut flow.writer {
            Writer::Udp(socket) => socket.send(bytes).await.map(drop),
            Writer::Tcp(writer) => timeout(WRITE_TIMEOUT, writer.write_all(bytes))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Forgets the flow to `peer`; the next [`Flows::open`] makes a new one.
    pub fn close(&mut self, peer: SocketAddr) {
        self.flows.remove(&peer);
    }

    /// The next event of any flow. May be dropped without losing one.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // `self.sender` keeps the queue open for as long as `self` lives.
            None => std::future::pending().await,
        }
    }
}

/// A UDP socket on a free port of the address from which this machine reaches `peer`.
async fn connected(peer: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(unspecified(peer)).await?;
    socket.connect(peer).await?;
    Ok(socket)
}

/// A UDP socket for RTP on an even port (RFC 3550 §11) of `ip`, not connected: where audio comes from is to be seen.
///
/// # Errors
/// What the operating system said.
pub async fn rtp_socket(ip: IpAddr) -> io::Result<UdpSocket> {
    // Free ports are even or odd at random; twenty tries all but never fail.
    for _ in 0..20 {
        let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).await?;
        if socket.local_addr()?.port() % 2 == 0 {
            return Ok(socket);
        }
    }
    UdpSocket::bind(SocketAddr::new(ip, 0)).await
}

fn unspecified(peer: SocketAddr) -> SocketAddr {
    let ip = match peer {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

async fn read_datagrams(socket: Arc<UdpSocket>, peer: SocketAddr, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES + 1];
    loop {
        let event = match socket.recv(&mut buffer).await {
            // Keep-alives are empty lines, RFC 5626 §3.5.1.
            Ok(length) if buffer[..length].iter().all(u8::is_ascii_whitespace) => continue,
            Ok(length) => match Message::parse(&buffer[..length]) {
                Ok(message) => Event::Message { from: peer, message: Box::new(message) },
                Err(error) => Event::Malformed { from: peer, why: error.0 },
            },
            Err(error) => Event::Broken { peer, error: Some(error) },
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

async fn read_stream(mut stream: OwnedReadHalf, peer: SocketAddr, events: mpsc::Sender<Event>) {
    let (mut framer, mut buffer) = (Framer::default(), vec![0; 16 * 1024]);
    loop {
        let last = loop {
            match framer.take() {
                Ok(Some(message)) => {
                    if events
                        .send(Event::Message { from: peer, message: Box::new(message) })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error.0),
            }
        };
        if let Some(why) = last {
            // Where the next message begins is unknown: the stream ends here, and the receiver is told both.
            let _ = events.send(Event::Malformed { from: peer, why }).await;
            let _ = events.send(Event::Broken { peer, error: None }).await;
            return;
        }
        let error = match stream.read(&mut buffer).await {
            Ok(0) => None,
            Ok(length) => {
                framer.push(&buffer[..length]);
                continue;
            }
            Err(error) => Some(error),
        };
        let _ = events.send(Event::Broken { peer, error }).await;
        return;
    }
}
