//! A small SIP user agent: sends requests until they are answered, answers what it is asked meanwhile, cancels and
//! hangs up what it began. Knows transactions, authentication and one call; not what a smoke test is.

use crate::args::Credentials;
use crate::dialog::Dialog;
use crate::digest::{self, Answer};
use crate::header::{NameAddr, Via, split_commas, tag};
use crate::message::{Message, Start};
use crate::timers::Resend;
use crate::transport::{Event, Flows, Transport};
use crate::trouble::Trouble;
use crate::uri::SipUri;
use deploy_cli::Context;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// What this agent answers to.
const ALLOW: &str = "ACK, BYE, CANCEL, INVITE, NOTIFY, OPTIONS, UPDATE";
/// How long the ending of a failed or stopped run may take, all its messages together.
pub const CLEANUP: Duration = Duration::from_secs(2);
/// How long a binding lasts that nobody took back. Asterisk's and Kamailio's default minimum is 60 s.
const EXPIRES_SECONDS: u32 = 120;
/// How long a connection to the address in a Contact may take; the 2xx waits for its ACK meanwhile.
const DETOUR: Duration = Duration::from_secs(2);
/// One challenge per realm and one stale nonce are honest; more is a loop.
const MAX_ROUNDS: usize = 4;

/// Who asks, how, and for how long.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// How SIP travels.
    pub transport: Transport,
    /// The host part of our own address.
    pub domain: &'a str,
    /// The account, when there is one.
    pub credentials: Option<&'a Credentials>,
    /// How long one request may stay without a final answer.
    pub timeout: Duration,
    /// When everything has to end.
    pub deadline: Option<Instant>,
}

/// The user agent. Dropping it closes its sockets without a word: end the call and the binding first.
pub struct Agent<'a> {
    ctx: &'a Context,
    settings: Settings<'a>,
    flows: Flows,
    target: SocketAddr,
    local: SocketAddr,
    contact_user: String,
    contact: String,
    register_call: (String, String, u32),
    dialog: Option<(Dialog, SocketAddr)>,
    acks: Vec<Ack>,
    bound: bool,
    hung_up: bool,
    cleanup: Option<Instant>,
    not_sip: Option<&'static str>,
    login: Option<Login>,
    invite_login: Vec<(&'static str, String)>,
    seen_as: Option<String>,
}

/// How the service let us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The digest algorithm that was answered.
    pub algorithm: String,
    /// The server's realm.
    pub realm: String,
}

/// An ACK that has to be sent again whenever its response comes again.
#[derive(Debug)]
struct Ack {
    branch: String,
    call_id: String,
    cseq: u32,
    /// The `To` tag of a 2xx; `None` for other final responses.
    accepted: Option<String>,
    peer: SocketAddr,
    message: Message,
}

/// A request that may have to be sent several times with other credentials.
#[derive(Debug, Clone)]
struct Draft {
    method: &'static str,
    uri: String,
    from: String,
    to: String,
    call_id: String,
    cseq: u32,
    routes: Vec<String>,
    peer: SocketAddr,
    fields: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

/// What an exchange waits for.
struct Waiting<'w> {
    branch: &'w str,
    method: &'w str,
    peer: SocketAddr,
}

impl<'a> Agent<'a> {
    /// Opens the flow to the service.
    ///
    /// # Errors
    /// [`Trouble`] when the host cannot be resolved, reached or connected to.
    pub async fn open(
        ctx: &'a Context,
        target: &SipUri,
        settings: Settings<'a>,
    ) -> Result<Self, Trouble> {
        let limit = until(&settings);
        let target = within(ctx, limit, resolve(target), || silent_resolver(target)).await??;
        let mut flows = Flows::new(settings.transport);
        let started = Instant::now();
        let connect = || Trouble::Connect { peer: target, after: started.elapsed() };
        let opened = within(ctx, limit, flows.open(target), connect).await?;
        let local = opened.map_err(|error| Trouble::from_io(target, settings.transport, error))?;
        let contact_user = format!("smoke-{}", token());
        let transport = match settings.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
        };
        Ok(Self {
            ctx,
            flows,
            target,
            local,
            contact: format!("<sip:{contact_user}@{local}{transport}>"),
            contact_user,
            register_call: (call_id(), token(), 0),
            settings,
            dialog: None,
            acks: Vec::new(),
            bound: false,
            hung_up: false,
            cleanup: None,
            not_sip: None,
            login: None,
            invite_login: Vec::new(),
            seen_as: None,
        })
    }

    /// The service's address.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// The address that the service is talked to from.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The address from which the service sees us, when it told another one than ours.
    pub fn seen_as(&self) -> Option<&str> {
        self.seen_as.as_deref()
    }

    /// How the last authenticated request was let in.
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Whether there may be a binding of ours at the registrar.
    pub fn is_bound(&self) -> bool {
        self.bound
    }

    /// Whether a call of ours is up.
    pub fn in_call(&self) -> bool {
        self.dialog.is_some()
    }

    /// The address that in-dialog requests go to, when it is not the one that was called.
    pub fn detour(&self) -> Option<SocketAddr> {
        self.dialog.as_ref().map(|(_, hop)| *hop).filter(|hop| *hop != self.target)
    }

    /// From now on only [`CLEANUP`] is left, and signals no longer interrupt.
    pub fn begin_cleanup(&mut self) {
        self.cleanup.get_or_insert_with(|| Instant::now() + CLEANUP);
    }

    /// Asks for the service's capabilities. Any final answer below 500 shows that it is alive.
    ///
    /// # Errors
    /// [`Trouble`], also for an answer of 500 and above.
    pub async fn options(&mut self) -> Result<Message, Trouble> {
        let mut draft = self.draft("OPTIONS", self.home(), call_id());
        draft.fields =
            vec![("Accept", "application/sdp".into()), ("Contact", self.contact.clone())];
        // Without credentials on purpose: a challenge is an answer, and every failed login counts somewhere.
        let response = self.send(&mut draft, &[]).await?;
        match response.code() {
            Some(200..=499) if response.code() != Some(408) => Ok(response),
            _ => Err(refusal(&response, "OPTIONS")),
        }
    }

    /// Binds our contact to the account and checks that the registrar lists it.
    ///
    /// # Errors
    /// [`Trouble`] by the registrar's answer.
    pub async fn register(&mut self) -> Result<Message, Trouble> {
        let response = self.bind(EXPIRES_SECONDS).await?;
        match self.listed(&response) {
            true => Ok(response),
            false => Err(Trouble::Protocol(
                "REGISTER was answered 200, but its Contact list does not have our contact".into(),
            )),
        }
    }

    /// Takes the binding back and checks that the registrar no longer lists it.
    ///
    /// # Errors
    /// [`Trouble`] by the registrar's answer.
    pub async fn unregister(&mut self) -> Result<Message, Trouble> {
        let response = self.bind(0).await?;
        match self.listed(&response) {
            false => {
                self.bound = false;
                Ok(response)
            }
            true => Err(Trouble::Protocol(
                "REGISTER with Expires: 0 was answered 200, but our contact is still listed".into(),
            )),
        }
    }

    /// Calls `uri` with this session description; returns the 2xx after it was acknowledged.
    ///
    /// # Errors
    /// [`Trouble`] by the answer. A call that was begun is cancelled, one that was answered too late is in
    /// [`Agent::in_call`].
    pub async fn invite(&mut self, uri: &SipUri, offer: Vec<u8>) -> Result<Message, Trouble> {
        let mut draft = self.draft("INVITE", uri.to_string(), call_id());
        draft.to = format!("<{uri}>");
        draft.fields = vec![("Contact", self.contact.clone()), ("Allow", ALLOW.into())];
        draft.body = Some(offer);
        let response = self.authenticated(&mut draft).await?;
        match response.code() {
            Some(200..=299) => self.accept(&response).await.map(|()| response),
            _ => Err(refusal(&response, "INVITE")),
        }
    }

    /// Ends the call.
    ///
    /// # Errors
    /// [`Trouble`] when the other side does not confirm it; the call is forgotten nevertheless.
    pub async fn bye(&mut self) -> Result<Message, Trouble> {
        let Some((dialog, peer)) = self.dialog.take() else {
            return Err(Trouble::Protocol("there is no call to end".into()));
        };
        let mut draft = self.in_dialog("BYE", &dialog, peer)?;
        let outcome = self.authenticated(&mut draft).await;
        if outcome.is_err() && peer != self.target {
            // The address in the Contact may be unreachable from here. The call must not stay up because of that.
            draft.peer = self.target;
            self.cleanup = Some(Instant::now() + CLEANUP);
            let direct = self.authenticated(&mut draft).await;
            self.ctx.progress().debug(&format!(
                "BYE sent to {} instead: {}",
                self.target,
                direct.is_ok()
            ));
        }
        let response = outcome?;
        match response.code() {
            // 481: the other side ended it at the same moment.
            Some(200..=299 | 481) => Ok(response),
            _ => Err(refusal(&response, "BYE")),
        }
    }

    /// Runs `work` while the agent answers what comes in.
    ///
    /// # Errors
    /// [`Trouble`] when the call ends, the deadline passes or the run is stopped before `work` is done.
    pub async fn during<F: Future>(&mut self, work: F) -> Result<F::Output, Trouble> {
        let (ctx, started) = (self.ctx, Instant::now());
        let mut work = pin!(work);
        let mut stopped = pin!(ctx.stopped());
        loop {
            let deadline = self.settings.deadline;
            tokio::select! {
                output = &mut work => return Ok(output),
                event = self.flows.next() => {
                    self.on_event(event, None).await?;
                    if self.hung_up {
                        self.dialog = None;
                        return Err(Trouble::Hangup { after: started.elapsed() });
                    }
                }
                _ = &mut stopped, if self.cleanup.is_none() => return Err(Trouble::Stopped),
                () = sleep_until(deadline.unwrap_or_else(far)), if deadline.is_some() => return Err(Trouble::Deadline),
            }
        }
    }

    async fn bind(&mut self, expires: u32) -> Result<Message, Trouble> {
        let (id, from_tag, cseq) = self.register_call.clone();
        let mut draft = self.draft("REGISTER", self.home(), id);
        let account = self.account();
        draft.from = format!("<{account}>;tag={from_tag}");
        draft.to = format!("<{account}>");
        draft.cseq = cseq;
        let mut expires = expires;
        loop {
            draft.fields =
                vec![("Contact", self.contact.clone()), ("Expires", expires.to_string())];
            // Set before it is sent: a registrar may have acted although its answer is lost.
            self.bound = true;
            let outcome = self.authenticated(&mut draft).await;
            self.register_call.2 = draft.cseq;
            let response = match outcome {
                Err(
                    Trouble::Credentials { .. }
                    | Trouble::NoCredentials { .. }
                    | Trouble::Challenge(_)
                    | Trouble::Refused { .. },
                ) => {
                    self.bound = false;
                    return outcome;
                }
                outcome => outcome?,
            };
            let longer = response
                .header("Min-Expires")
                .and_then(|value| value.parse().ok())
                .filter(|min| *min > expires);
            match (response.code(), longer) {
                (Some(200..=299), _) => return Ok(response),
                // Once: the next value is the registrar's own. An hour is what phones ask for.
                (Some(423), Some(min)) if expires == EXPIRES_SECONDS && min <= 3600 => {
                    expires = min
                }
                _ => {
                    self.bound = expires == 0;
                    return Err(refusal(&response, "REGISTER"));
                }
            }
        }
    }

    /// Whether our contact is in the list of bindings. Compared by its user part, which nobody else has: a server behind
    /// whose NAT support the host part is rewritten still lists it.
    fn listed(&self, response: &Message) -> bool {
        response.all("Contact").flat_map(split_commas).filter_map(NameAddr::parse).any(|contact| {
            contact
                .uri
                .split_once('@')
                .is_some_and(|(user, _)| user.rsplit(':').next() == Some(&self.contact_user))
        })
    }

    /// Makes the dialog of a 2xx and acknowledges it.
    async fn accept(&mut self, response: &Message) -> Result<(), Trouble> {
        let dialog = Dialog::from_2xx(response).map_err(Trouble::Protocol)?;
        let hop = dialog.way().map_err(Trouble::Protocol)?.hop;
        let limit = self.limit();
        let peer = within(self.ctx, limit, resolve(&hop), || silent_resolver(&hop))
            .await
            .and_then(|found| found);
        // A Contact that cannot be resolved leaves the way that worked so far.
        let mut peer = peer.unwrap_or(self.target);
        if !matches!(timeout(DETOUR, self.flows.open(peer)).await, Ok(Ok(_))) {
            peer = self.target;
        }
        let ack = self.in_dialog("ACK", &dialog, peer)?;
        // RFC 3261 §22.1: it carries the credentials of its INVITE, since it cannot be challenged.
        let credentials = std::mem::take(&mut self.invite_login);
        let fields: Vec<(&str, &str)> =
            credentials.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let message = self.build(&ack, &branch(), &fields);
        self.acks.push(Ack {
            branch: String::new(),
            call_id: dialog.call_id.clone(),
            cseq: dialog.cseq,
            accepted: Some(tag(&dialog.remote).unwrap_or_default()),
            peer,
            message: message.clone(),
        });
        self.dialog = Some((dialog, peer));
        self.hung_up = false;
        self.transmit(peer, &message).await
    }

    /// Sends a request, and again with credentials when it is challenged.
    async fn authenticated(&mut self, draft: &mut Draft) -> Result<Message, Trouble> {
        let mut logins: Vec<(&'static str, String, String)> = Vec::new();
        let mut stale = false;
        for _ in 0..MAX_ROUNDS {
            let fields: Vec<(&str, &str)> =
                logins.iter().map(|(name, _, value)| (*name, value.as_str())).collect();
            if draft.method == "INVITE" {
                self.invite_login =
                    logins.iter().map(|(name, _, value)| (*name, value.clone())).collect();
            }
            let response = self.send(draft, &fields).await?;
            let (ask, reply, code) = match response.code() {
                Some(401) => ("WWW-Authenticate", "Authorization", 401),
                Some(407) => ("Proxy-Authenticate", "Proxy-Authorization", 407),
                _ => return Ok(response),
            };
            let Some(credentials) = self.settings.credentials else {
                return Err(Trouble::NoCredentials { method: draft.method.to_owned(), code });
            };
            let challenge = digest::choose(&response.all(ask).collect::<Vec<_>>())?;
            let known =
                logins.iter().any(|(name, realm, _)| *name == reply && *realm == challenge.realm);
            if known && (!challenge.stale || std::mem::replace(&mut stale, true)) {
                return Err(credentials_rejected(
                    draft.method,
                    credentials,
                    challenge.realm,
                    &response,
                ));
            }
            let cnonce = token();
            let value = challenge.authorization(&Answer {
                user: &credentials.user,
                password: credentials.password.expose(),
                method: draft.method,
                uri: &draft.uri,
                cnonce: &cnonce,
                count: 1,
            });
            self.login = Some(Login {
                algorithm: challenge.algorithm_name().to_owned(),
                realm: challenge.realm.clone(),
            });
            logins.retain(|(name, realm, _)| !(*name == reply && *realm == challenge.realm));
            logins.push((reply, challenge.realm, value));
        }
        Err(Trouble::Protocol(format!("{} was challenged again and again", draft.method)))
    }

    /// Sends a request as a transaction of its own and waits for its final response.
    async fn send(
        &mut self,
        draft: &mut Draft,
        credentials: &[(&str, &str)],
    ) -> Result<Message, Trouble> {
        let peer = draft.peer;
        // A connection that broke in between is made anew; bounded like everything else.
        let (limit, transport, started) = (self.limit(), self.settings.transport, Instant::now());
        let opened = timeout_at(limit, self.flows.open(peer)).await;
        opened
            .map_err(|_| Trouble::Connect { peer, after: started.elapsed() })?
            .map_err(|error| Trouble::from_io(peer, transport, error))?;
        draft.cseq += 1;
        let branch = branch();
        let request = self.build(draft, &branch, credentials);
        let response = self.exchange(peer, &branch, draft.method, &request).await?;
        self.note_public_address(&response);
        if draft.method == "INVITE" && !matches!(response.code(), Some(200..=299)) {
            self.acknowledge_refusal(peer, &branch, &request, &response).await?;
        }
        Ok(response)
    }

    async fn exchange(
        &mut self,
        peer: SocketAddr,
        branch: &str,
        method: &str,
        request: &Message,
    ) -> Result<Message, Trouble> {
        let (ctx, started, mut limit) = (self.ctx, Instant::now(), self.limit());
        let (mut resend, mut sent, mut ringing) = (Resend::new(method == "INVITE"), 1, None);
        let waiting = Waiting { branch, method, peer };
        let mut stopped = pin!(ctx.stopped());
        self.transmit(peer, request).await?;
        let mut again = self.pause(&mut resend);
        let trouble = loop {
            tokio::select! {
                event = self.flows.next() => match self.on_event(event, Some(&waiting)).await? {
                    Some(response) if response.code().is_some_and(|code| code >= 200) => return Ok(response),
                    Some(response) => {
                        if ringing.is_none() {
                            // A provisional answer shows that the service works on it: Timer B ends, ours begins anew.
                            limit = self.limit();
                            resend.provisional();
                            again = self.pause(&mut resend);
                        }
                        ringing = response.code();
                    }
                    None => {}
                },
                () = sleep_until(again.unwrap_or(limit)), if again.is_some() => {
                    self.transmit(peer, request).await?;
                    sent += 1;
                    again = self.pause(&mut resend);
                }
                () = sleep_until(limit) => {
                    let after = started.elapsed();
                    break match (ringing, self.not_sip) {
                        (Some(code), _) if method == "INVITE" => Trouble::Ringing { peer, code, after },
                        (None, Some(why)) => Trouble::Protocol(format!("{peer} answers with something that is no SIP: {why}")),
                        _ => Trouble::Silence { method: method.to_owned(), peer, transport: self.settings.transport, after, sent },
                    };
                }
                _ = &mut stopped, if self.cleanup.is_none() => break Trouble::Stopped,
            }
        };
        if method == "INVITE" && (ringing.is_some() || matches!(trouble, Trouble::Stopped)) {
            self.begin_cleanup();
            self.cancel(peer, branch, request, ringing.is_some()).await?;
        }
        Err(trouble)
    }

    /// Takes an INVITE back (RFC 3261 §9.1): CANCEL once a provisional response has come, then wait for the end.
    async fn cancel(
        &mut self,
        peer: SocketAddr,
        branch: &str,
        invite: &Message,
        rang: bool,
    ) -> Result<(), Trouble> {
        let mut start =
            Message::new(Start::Request { method: "CANCEL".into(), uri: request_uri(invite) });
        for name in ["Via", "Max-Forwards", "Route", "From", "To", "Call-ID"] {
            for value in invite.all(name) {
                start = start.with(name, value);
            }
        }
        let (number, _) = invite.cseq().unwrap_or_default();
        let cancel = start.with("CSeq", format!("{number} CANCEL"));
        let (limit, mut resend) = (self.limit(), Resend::new(false));
        let waiting = Waiting { branch, method: "INVITE", peer };
        let mut again = None;
        if rang {
            self.transmit(peer, &cancel).await?;
            again = self.pause(&mut resend);
        }
        let mut asked = rang;
        loop {
            tokio::select! {
                event = self.flows.next() => {
                    let Some(response) = self.on_event(event, Some(&waiting)).await? else { continue };
                    match response.code() {
                        Some(100..=199) if !asked => {
                            asked = true;
                            self.transmit(peer, &cancel).await?;
                            again = self.pause(&mut resend);
                        }
                        Some(100..=199) | None => {}
                        // It was answered at the same moment: acknowledged here, ended by whoever cleans up.
                        Some(200..=299) => return self.accept(&response).await,
                        Some(_) => return self.acknowledge_refusal(peer, branch, invite, &response).await,
                    }
                }
                () = sleep_until(again.unwrap_or(limit)), if again.is_some() => {
                    self.transmit(peer, &cancel).await?;
                    again = self.pause(&mut resend);
                }
                () = sleep_until(limit) => return Ok(()),
            }
        }
    }

    /// The ACK of a final response that is no 2xx belongs to the INVITE's transaction, RFC 3261 §17.1.1.3.
    async fn acknowledge_refusal(
        &mut self,
        peer: SocketAddr,
        branch: &str,
        invite: &Message,
        response: &Message,
    ) -> Result<(), Trouble> {
        let mut message =
            Message::new(Start::Request { method: "ACK".into(), uri: request_uri(invite) });
        for name in ["Via", "Max-Forwards", "Route", "From", "Call-ID"] {
            for value in invite.all(name) {
                message = message.with(name, value);
            }
        }
        let (cseq, _) = invite.cseq().unwrap_or_default();
        message = message
            .with("To", response.header("To").unwrap_or_default())
            .with("CSeq", format!("{cseq} ACK"));
        let call_id = invite.header("Call-ID").unwrap_or_default().to_owned();
        self.acks.push(Ack {
            branch: branch.to_owned(),
            call_id,
            cseq,
            accepted: None,
            peer,
            message: message.clone(),
        });
        self.transmit(peer, &message).await
    }

    /// Acts on an event; returns the response that was waited for.
    async fn on_event(
        &mut self,
        event: Event,
        waiting: Option<&Waiting<'_>>,
    ) -> Result<Option<Message>, Trouble> {
        match event {
            Event::Message { from, message } => {
                self.trace("received from", from, &message);
                let Some(code) = message.code() else {
                    self.answer(from, &message).await?;
                    return Ok(None);
                };
                let own = message.header("Via").and_then(Via::parse);
                let method = message.cseq().map(|(_, method)| method);
                let waited = waiting.is_some_and(|waiting| {
                    own.as_ref().is_some_and(|via| via.branch == waiting.branch)
                        && method == Some(waiting.method)
                });
                if waited {
                    return Ok(Some(*message));
                }
                if method == Some("INVITE") && code >= 200 {
                    self.acknowledge_again(code, own.as_ref(), &message).await?;
                }
                Ok(None)
            }
            Event::Malformed { from, why } => {
                self.ctx.progress().debug(&format!("{from} sent something that is no SIP: {why}"));
                self.not_sip = Some(why);
                Ok(None)
            }
            Event::Broken { peer, error } => {
                self.flows.close(peer);
                match waiting.filter(|waiting| waiting.peer == peer) {
                    Some(waiting) => Err(match (error, self.not_sip) {
                        (_, Some(why)) => Trouble::Protocol(format!(
                            "{peer} answers with something that is no SIP: {why}"
                        )),
                        (Some(error), _) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                            Trouble::from_io(peer, self.settings.transport, error)
                        }
                        _ => Trouble::Closed { peer, method: waiting.method.to_owned() },
                    }),
                    None => Ok(None),
                }
            }
        }
    }

    /// A final response to an INVITE came again, or another phone accepted the same INVITE (a fork).
    async fn acknowledge_again(
        &mut self,
        code: u16,
        via: Option<&Via>,
        message: &Message,
    ) -> Result<(), Trouble> {
        let (call_id, cseq) = (message.header("Call-ID"), message.cseq().map(|(number, _)| number));
        let to_tag = message.header("To").and_then(tag);
        let same_call =
            |ack: &&Ack| Some(ack.call_id.as_str()) == call_id && Some(ack.cseq) == cseq;
        let known = self.acks.iter().filter(same_call).find(|ack| match &ack.accepted {
            Some(tag) => code < 300 && Some(tag) == to_tag.as_ref(),
            None => code >= 300 && via.is_some_and(|via| via.branch == ack.branch),
        });
        if let Some((peer, message)) = known.map(|ack| (ack.peer, ack.message.clone())) {
            return self.transmit(peer, &message).await;
        }
        let forked =
            code < 300 && self.acks.iter().filter(same_call).any(|ack| ack.accepted.is_some());
        if let (true, Ok(dialog)) = (forked, Dialog::from_2xx(message)) {
            let ack = self.in_dialog("ACK", &dialog, self.target)?;
            let mut bye = self.in_dialog("BYE", &dialog, self.target)?;
            bye.cseq += 1;
            for draft in [ack, bye] {
                let message = self.build(&draft, &branch(), &[]);
                self.transmit(self.target, &message).await?;
            }
        }
        Ok(())
    }

    /// Answers a request of the other side.
    async fn answer(&mut self, from: SocketAddr, request: &Message) -> Result<(), Trouble> {
        let ours = self.dialog.as_ref().is_some_and(|(dialog, _)| dialog.holds(request, true));
        let (code, reason) = match request.method().unwrap_or_default() {
            "ACK" => return Ok(()),
            "OPTIONS" | "NOTIFY" => (200, "OK"),
            "BYE" if ours => {
                self.hung_up = true;
                (200, "OK")
            }
            "UPDATE" if ours && request.body.is_empty() => (200, "OK"),
            // The session stays as it is; RFC 3261 §14.2 lets the other side go on with it.
            "INVITE" | "UPDATE" if ours => (488, "Not Acceptable Here"),
            "INVITE" if request.header("To").and_then(tag).is_none() => (486, "Busy Here"),
            "INVITE" | "BYE" | "UPDATE" | "CANCEL" => (481, "Call/Transaction Does Not Exist"),
            _ => (405, "Method Not Allowed"),
        };
        let mut response = Message::new(Start::Response { code, reason: reason.to_owned() });
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            for value in request.all(name) {
                let tagged = name != "To" || tag(value).is_some();
                let value = if tagged {
                    value.to_owned()
                } else {
                    format!("{value};tag={}", self.contact_user)
                };
                response = response.with(name, value);
            }
        }
        response = response
            .with("Contact", self.contact.clone())
            .with("Allow", ALLOW)
            .with("User-Agent", user_agent());
        self.transmit(from, &response).await
    }

    async fn transmit(&mut self, peer: SocketAddr, message: &Message) -> Result<(), Trouble> {
        self.trace("sent to", peer, message);
        let sent = self.flows.send(peer, &message.to_bytes()).await;
        sent.map_err(|error| Trouble::from_io(peer, self.settings.transport, error))
    }

    fn trace(&self, way: &str, peer: SocketAddr, message: &Message) {
        if self.ctx.verbose() {
            let title = format!("{way} {peer} ({})", self.settings.transport.name());
            self.ctx.untrusted(&title, &message.redacted());
        }
    }

    /// The pause until a request is sent again; none over a reliable transport.
    fn pause(&self, resend: &mut Resend) -> Option<Instant> {
        let pause = resend.pause()?;
        (self.settings.transport == Transport::Udp).then(|| Instant::now() + pause)
    }

    /// When a request that is sent now has to be answered.
    fn limit(&self) -> Instant {
        match self.cleanup {
            Some(cleanup) => cleanup.min(Instant::now() + self.settings.timeout),
            None => until(&self.settings),
        }
    }

    fn draft(&self, method: &'static str, uri: String, call_id: String) -> Draft {
        let from = format!("<{}>;tag={}", self.account(), token());
        let to = format!("<{uri}>");
        let (routes, fields) = (Vec::new(), Vec::new());
        Draft {
            method,
            uri,
            from,
            to,
            call_id,
            cseq: 0,
            routes,
            peer: self.target,
            fields,
            body: None,
        }
    }

    fn in_dialog(
        &self,
        method: &'static str,
        dialog: &Dialog,
        peer: SocketAddr,
    ) -> Result<Draft, Trouble> {
        let way = dialog.way().map_err(Trouble::Protocol)?;
        let (from, to, call_id) =
            (dialog.local.clone(), dialog.remote.clone(), dialog.call_id.clone());
        let (uri, routes) = (way.uri, way.routes);
        Ok(Draft {
            method,
            uri,
            from,
            to,
            call_id,
            cseq: dialog.cseq,
            routes,
            peer,
            fields: Vec::new(),
            body: None,
        })
    }

    fn build(&self, draft: &Draft, branch: &str, credentials: &[(&str, &str)]) -> Message {
        let transport = self.settings.transport.name();
        let local = self.flows.local(draft.peer).unwrap_or(self.local);
        let start = Start::Request { method: draft.method.to_owned(), uri: draft.uri.clone() };
        let mut message = Message::new(start)
            .with("Via", format!("SIP/2.0/{transport} {local};branch={branch};rport"))
            .with("Max-Forwards", "70");
        for route in &draft.routes {
            message = message.with("Route", route);
        }
        message = message
            .with("From", &draft.from)
            .with("To", &draft.to)
            .with("Call-ID", &draft.call_id)
            .with("CSeq", format!("{} {}", draft.cseq, draft.method));
        for (name, value) in &draft.fields {
            message = message.with(name, value);
        }
        for (name, value) in credentials {
            message = message.with(name, *value);
        }
        message = message.with("User-Agent", user_agent());
        match &draft.body {
            Some(body) => message.with_body("application/sdp", body.clone()),
            None => message,
        }
    }

    /// Our own address of record.
    fn account(&self) -> String {
        let user = self
            .settings
            .credentials
            .map_or(env!("CARGO_PKG_NAME"), |credentials| &credentials.user);
        format!("sip:{user}@{}", self.settings.domain)
    }

    /// The URI of the registrar and of the service as a whole.
    fn home(&self) -> String {
        format!("sip:{}", self.settings.domain)
    }

    fn note_public_address(&mut self, response: &Message) {
        let Some(via) = response.header("Via").and_then(Via::parse) else { return };
        let ip = via.received.unwrap_or_else(|| self.local.ip().to_string());
        let port = via.rport.unwrap_or(self.local.port());
        let seen = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
        self.seen_as = (seen != self.local.to_string()).then_some(seen);
    }
}

fn refusal(response: &Message, method: &str) -> Trouble {
    let Start::Response { code, reason } = &response.start else {
        return Trouble::Protocol(format!("{method} was answered by a request"));
    };
    let more = ["Retry-After", "Warning"]
        .iter()
        .find_map(|name| response.header(name).map(|value| format!("{name}: {value}")));
    let contact = || {
        response
            .header("Contact")
            .filter(|_| (300..400).contains(code))
            .map(|value| format!("Contact: {value}"))
    };
    Trouble::Status {
        method: method.to_owned(),
        code: *code,
        reason: reason.clone(),
        more: more.or_else(contact),
    }
}

fn credentials_rejected(
    method: &str,
    credentials: &Credentials,
    realm: String,
    response: &Message,
) -> Trouble {
    let (code, reason) = match &response.start {
        Start::Response { code, reason } => (*code, reason.clone()),
        Start::Request { .. } => (0, String::new()),
    };
    Trouble::Credentials {
        method: method.to_owned(),
        user: credentials.user.clone(),
        realm,
        code,
        reason,
    }
}

fn until(settings: &Settings<'_>) -> Instant {
    let own = Instant::now() + settings.timeout;
    settings.deadline.map_or(own, |deadline| deadline.min(own))
}

/// An instant that no run reaches.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(24 * 3600)
}

/// Waits for `work`, but neither past `limit` nor past a signal.
async fn within<F: Future>(
    ctx: &Context,
    limit: Instant,
    work: F,
    late: impl FnOnce() -> Trouble,
) -> Result<F::Output, Trouble> {
    tokio::select! {
        biased;
        done = timeout_at(limit, work) => done.map_err(|_| late()),
        _ = ctx.stopped() => Err(Trouble::Stopped),
    }
}

fn silent_resolver(uri: &SipUri) -> Trouble {
    Trouble::Resolve { host: uri.host.clone(), error: std::io::ErrorKind::TimedOut.into() }
}

/// The first address of a URI's host, as the system's resolver orders them.
async fn resolve(uri: &SipUri) -> Result<SocketAddr, Trouble> {
    if let Some(address) = uri.address() {
        return Ok(address);
    }
    let trouble = |error| Trouble::Resolve { host: uri.host.clone(), error };
    let mut found = tokio::net::lookup_host(uri.authority()).await.map_err(trouble)?;
    found.next().ok_or_else(|| trouble(std::io::Error::other("it has no address")))
}

fn request_uri(request: &Message) -> String {
    match &request.start {
        Start::Request { uri, .. } => uri.clone(),
        Start::Response { .. } => String::new(),
    }
}

fn token() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}

fn call_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// The cookie marks a branch that is unique for its transaction, RFC 3261 §8.1.1.7.
fn branch() -> String {
    format!("z9hG4bK{}", token())
}

fn user_agent() -> String {
    concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).to_owned()
}
