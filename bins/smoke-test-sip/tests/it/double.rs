//! A double of a SIP service, on real sockets: registrar and echo in one, with faults on request. It reads SIP by plain
//! string search and computes digests by the RFC's formula, so that it shares no code with the tool.

use md5::Md5;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the double does other than a healthy service.
#[derive(Clone)]
pub(crate) struct Behaviour {
    /// Takes requests and never answers.
    pub(crate) silent: bool,
    /// Loses the first datagram.
    pub(crate) drop_first: bool,
    /// The account's password.
    pub(crate) password: &'static str,
    /// The challenges that a request without credentials gets.
    pub(crate) challenges: Vec<&'static str>,
    /// Calls the first authenticated request's nonce stale.
    pub(crate) stale_once: bool,
    /// The final answer to an authenticated INVITE.
    pub(crate) invite_status: u16,
    /// Answers INVITE with 180 only, until it is cancelled.
    pub(crate) rings: bool,
    /// Sends each 2xx to INVITE twice.
    pub(crate) repeats_ok: bool,
    /// What it asks inside the call as soon as audio comes, e.g. `BYE`.
    pub(crate) asks: Option<&'static str>,
    /// Names this address as its own in the answer to INVITE.
    pub(crate) contact: Option<SocketAddr>,
    /// Goes on listing a binding that was taken back.
    pub(crate) keeps_binding: bool,
    /// What it sends back for audio.
    pub(crate) audio: Audio,
    /// Answers to the first OPTIONS, before the healthy one.
    pub(crate) first_options: Vec<u16>,
    /// Bytes to answer everything with.
    pub(crate) garbage: Option<&'static [u8]>,
}

/// What the double sends back for audio.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Audio {
    Echo,
    Nothing,
    Silence,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            silent: false,
            drop_first: false,
            password: "open sesame",
            challenges: vec!["algorithm=MD5, qop=\"auth\""],
            stale_once: false,
            invite_status: 200,
            rings: false,
            repeats_ok: false,
            asks: None,
            contact: None,
            keeps_binding: false,
            audio: Audio::Echo,
            first_options: Vec::new(),
            garbage: None,
        }
    }
}

/// A running double. Its threads end with the test process.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Double {
    pub(crate) fn udp(behaviour: Behaviour) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (service, log) = Service::new(behaviour, address, "UDP");
        thread::spawn(move || {
            let mut buffer = [0; 65_536];
            let mut dropped = !service.lock().unwrap().behaviour.drop_first;
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if !std::mem::replace(&mut dropped, true) {
                    continue;
                }
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let back = socket.try_clone().unwrap();
                let send = Arc::new(move |bytes: &[u8]| drop(back.send_to(bytes, from)));
                Service::handle(&service, &text, send);
            }
        });
        Self { address, log }
    }

    pub(crate) fn tcp(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (service, log) = Service::new(behaviour, address, "TCP");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let service = Arc::clone(&service);
                thread::spawn(move || serve_stream(&service, stream));
            }
        });
        Self { address, log }
    }

    /// The requests that came, as `METHOD` with `+auth` when they carried credentials; retransmissions included.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let name = |text: &String| {
            let method = text.split(' ').next().unwrap();
            let auth = if field(text, "Authorization").is_some() { "+auth" } else { "" };
            format!("{method}{auth}")
        };
        log.iter().map(name).collect()
    }

    /// The requests as they came.
    pub(crate) fn raw(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn serve_stream(service: &Arc<Mutex<Service>>, mut stream: TcpStream) {
    let (mut buffer, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut part) {
        buffer.extend_from_slice(&part[..length]);
        while let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
            let body: usize = field(&text, "Content-Length").unwrap().parse().unwrap();
            if buffer.len() < head + 4 + body {
                break;
            }
            let whole: Vec<u8> = buffer.drain(..head + 4 + body).collect();
            let back = Mutex::new(stream.try_clone().unwrap());
            // In two pieces, so that the tool has to put a message together.
            let send = Arc::new(move |bytes: &[u8]| {
                let mut back = back.lock().unwrap();
                let _ = back.write_all(&bytes[..bytes.len() / 2]).and_then(|()| back.flush());
                let _ = back.write_all(&bytes[bytes.len() / 2..]);
            });
            Service::handle(service, &String::from_utf8_lossy(&whole), send);
        }
    }
}

type Send = Arc<dyn Fn(&[u8]) + std::marker::Send + Sync>;

struct Service {
    behaviour: Behaviour,
    address: SocketAddr,
    transport: &'static str,
    log: Arc<Mutex<Vec<String>>>,
    contacts: Vec<String>,
    seen: HashSet<String>,
    ringing: Option<String>,
    nonces: u32,
}

impl Service {
    fn new(
        behaviour: Behaviour,
        address: SocketAddr,
        transport: &'static str,
    ) -> (Arc<Mutex<Self>>, Arc<Mutex<Vec<String>>>) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (contacts, seen, ringing) = (Vec::new(), HashSet::new(), None);
        let service = Self {
            behaviour,
            address,
            transport,
            log: Arc::clone(&log),
            contacts,
            seen,
            ringing,
            nonces: 0,
        };
        (Arc::new(Mutex::new(service)), log)
    }

    fn handle(service: &Arc<Mutex<Self>>, request: &str, send: Send) {
        let mut this = service.lock().unwrap();
        this.log.lock().unwrap().push(request.to_owned());
        if this.behaviour.silent {
            return;
        }
        if let Some(garbage) = this.behaviour.garbage {
            return send(garbage);
        }
        let method = request.split(' ').next().unwrap().to_owned();
        let fresh = this.seen.insert(field(request, "Via").unwrap().to_owned() + &method);
        match method.as_str() {
            "OPTIONS" => {
                let code = if this.behaviour.first_options.is_empty() {
                    200
                } else {
                    this.behaviour.first_options.remove(0)
                };
                send(reply(request, code, "Server: double\r\n", "").as_bytes());
            }
            "REGISTER" => this.register(request, &send),
            "INVITE" if fresh => this.invite(request, &send),
            "CANCEL" => {
                send(reply(request, 200, "", "").as_bytes());
                if let Some(invite) = this.ringing.take() {
                    send(reply(&invite, 487, "", "").as_bytes());
                }
            }
            "BYE" => send(reply(request, 200, "", "").as_bytes()),
            _ => {}
        }
    }

    fn register(&mut self, request: &str, send: &Send) {
        if !self.let_in(request, send) {
            return;
        }
        let contact = field(request, "Contact").unwrap().to_owned();
        let gone = field(request, "Expires") == Some("0");
        self.contacts.retain(|known| *known != contact);
        if !gone || self.behaviour.keeps_binding {
            self.contacts.push(contact);
        }
        let list: String = self
            .contacts
            .iter()
            .map(|contact| format!("Contact: {contact};expires=120\r\n"))
            .collect();
        send(reply(request, 200, &list, "").as_bytes());
    }

    fn invite(&mut self, request: &str, send: &Send) {
        if !self.let_in(request, send) {
            return;
        }
        send(reply(request, 100, "", "").as_bytes());
        if self.behaviour.rings {
            self.ringing = Some(request.to_owned());
            return send(reply(request, 180, "", "").as_bytes());
        }
        if self.behaviour.invite_status != 200 {
            return send(reply(request, self.behaviour.invite_status, "", "").as_bytes());
        }
        let rtp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = rtp.local_addr().unwrap().port();
        let body = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
        );
        let contact = format!(
            "Contact: <sip:{};transport={}>\r\nContent-Type: application/sdp\r\n",
            self.behaviour.contact.unwrap_or(self.address),
            self.transport
        );
        let ok = reply(request, 200, &contact, &body);
        let question = self.behaviour.asks.map(|method| self.question(method, request));
        let (behaviour, transmit) = (self.behaviour.clone(), Arc::clone(send));
        thread::spawn(move || echo(&rtp, &behaviour, question, &transmit));
        send(ok.as_bytes());
        if self.behaviour.repeats_ok {
            send(ok.as_bytes());
        }
    }

    /// A request of this side inside the call.
    fn question(&self, method: &str, invite: &str) -> String {
        let uri = field(invite, "Contact").unwrap().trim_matches(['<', '>']).to_owned();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bKdouble\r\nFrom: {};tag=double\r\nTo: {}\r\n\
             Call-ID: {}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n",
            self.transport,
            self.address,
            field(invite, "To").unwrap(),
            field(invite, "From").unwrap(),
            field(invite, "Call-ID").unwrap(),
        )
    }

    /// Challenges a request, or checks its credentials.
    fn let_in(&mut self, request: &str, send: &Send) -> bool {
        let good = field(request, "Authorization")
            .is_some_and(|value| verify(value, request, self.behaviour.password));
        let stale = good && std::mem::take(&mut self.behaviour.stale_once);
        if good && !stale {
            return true;
        }
        self.nonces += 1;
        let stale = if stale { ", stale=true" } else { "" };
        let nonce = self.nonces;
        let challenges: String = self
            .behaviour
            .challenges
            .iter()
            .map(|rest| format!("WWW-Authenticate: Digest realm=\"double\", nonce=\"n{nonce}\", opaque=\"o\"{stale}, {rest}\r\n"))
            .collect();
        send(reply(request, 401, &challenges, "").as_bytes());
        false
    }
}

fn echo(rtp: &UdpSocket, behaviour: &Behaviour, mut question: Option<String>, send: &Send) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = rtp.recv_from(&mut buffer) {
        if let Some(question) = question.take() {
            send(question.as_bytes());
        }
        // Another stream: its own SSRC and sequence.
        buffer[8] ^= 0xff;
        buffer[2] ^= 0x10;
        match behaviour.audio {
            Audio::Nothing => continue,
            Audio::Silence => buffer[12..length].fill(0xff),
            Audio::Echo => {}
        }
        let _ = rtp.send_to(&buffer[..length], from);
    }
}

/// The first value of a header field.
pub(crate) fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let head = message.split("\r\n\r\n").next()?;
    head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn reply(request: &str, code: u16, fields: &str, body: &str) -> String {
    let to = field(request, "To").unwrap();
    let tag = if code == 100 || to.contains(";tag=") { "" } else { ";tag=double" };
    format!(
        "SIP/2.0 {code} Reason {code}\r\nVia: {};received=127.0.0.1\r\nFrom: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        field(request, "Via").unwrap(),
        field(request, "From").unwrap(),
        field(request, "Call-ID").unwrap(),
        field(request, "CSeq").unwrap(),
        body.len(),
    )
}

/// RFC 7616 §3.4.1 and RFC 2617 §3.2.2.1, over the words of an `Authorization` value.
fn verify(value: &str, request: &str, password: &str) -> bool {
    let word = |name: &str| {
        let entries = value.trim_start_matches("Digest ").split(", ");
        entries
            .filter_map(|entry| entry.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim_matches('"').to_owned())
    };
    let hash = |text: String| match word("algorithm").as_deref() {
        Some("SHA-256") => hex::encode(Sha256::digest(text)),
        _ => hex::encode(Md5::digest(text)),
    };
    let get = |name: &str| word(name).unwrap_or_default();
    let mut words = request.split(' ');
    let (method, uri) = (words.next().unwrap(), words.next().unwrap());
    let ha1 = hash(format!("{}:{}:{password}", get("username"), get("realm")));
    let ha2 = hash(format!("{method}:{uri}"));
    let middle = match word("qop") {
        Some(qop) => format!("{}:{}:{}:{qop}", get("nonce"), get("nc"), get("cnonce")),
        None => get("nonce"),
    };
    get("uri") == uri
        && get("opaque") == "o"
        && get("response") == hash(format!("{ha1}:{middle}:{ha2}"))
}
