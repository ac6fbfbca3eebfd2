//! The smoke test of one service: which steps, in which order, what is left out after a failure, what is always cleaned
//! up, and when to try again.

use crate::agent::{Agent, Settings};
use crate::args::{Plan, Target};
use crate::media::{self, Measurement, Probe};
use crate::message::{Message, Start};
use crate::rtp::TONES_HZ;
use crate::sdp;
use crate::transport::rtp_socket;
use crate::trouble::Trouble;
use deploy_cli::{Context, human};
use deploy_report::{Subject, SubjectOutcome};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

/// The pauses between tries: short at first, since most services come up at once or need a while.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(5),
];
/// All steps in their order.
const STEPS: [&str; 6] = ["options", "register", "call", "media", "bye", "unregister"];

/// How the test of one service ended.
#[derive(Debug)]
pub struct Outcome {
    /// One per step, in their order.
    pub subjects: Vec<Subject>,
    /// The first step that failed, and why.
    pub failure: Option<(&'static str, Trouble)>,
    /// What was measured, when audio was exchanged.
    pub measurement: Option<Measurement>,
}

/// Tests a service, and again until it is healthy, fails for good, or `deadline` has come.
pub async fn check(
    ctx: &Context,
    target: &Target,
    plan: &Plan,
    deadline: Option<Instant>,
) -> Outcome {
    let mut tries = 0;
    loop {
        let outcome = Attempt::new(ctx, target, plan, deadline).run().await;
        let pause = PAUSES[tries.min(PAUSES.len() - 1)];
        tries += 1;
        let Some((step, trouble)) =
            outcome.failure.as_ref().filter(|(_, trouble)| trouble.may_pass())
        else {
            return outcome;
        };
        let Some(deadline) = deadline.filter(|deadline| Instant::now() + pause < *deadline) else {
            return outcome;
        };
        let left = human(deadline.saturating_duration_since(Instant::now()));
        let progress = ctx.progress();
        progress.subject(&target.name, &format!("not yet healthy, {step}: {trouble}"));
        progress.heartbeat(|| {
            format!("{}: try {tries} failed, {left} left; {step}: {trouble}", target.name)
        });
        tokio::select! {
            () = sleep(pause) => {}
            _ = ctx.stopped() => return outcome,
        }
    }
}

/// One try.
struct Attempt<'a> {
    ctx: &'a Context,
    target: &'a Target,
    plan: &'a Plan,
    deadline: Option<Instant>,
    subjects: Vec<Subject>,
    failure: Option<(&'static str, Trouble)>,
    measurement: Option<Measurement>,
}

/// A step that went well.
struct Passed {
    detail: String,
    odd: bool,
    data: Value,
}

impl Passed {
    fn new(detail: String, data: Value) -> Self {
        Self { detail, odd: false, data }
    }
}

impl<'a> Attempt<'a> {
    fn new(
        ctx: &'a Context,
        target: &'a Target,
        plan: &'a Plan,
        deadline: Option<Instant>,
    ) -> Self {
        Self { ctx, target, plan, deadline, subjects: Vec::new(), failure: None, measurement: None }
    }

    async fn run(mut self) -> Outcome {
        let settings = Settings {
            transport: self.target.transport,
            domain: &self.target.domain,
            credentials: self.plan.credentials.as_ref(),
            timeout: self.plan.timeout,
            deadline: self.deadline,
        };
        let started = Instant::now();
        self.say("asking for OPTIONS");
        match Agent::open(self.ctx, &self.target.uri, settings).await {
            Ok(mut agent) => self.steps(&mut agent, started).await,
            Err(trouble) => self.fail("options", started, trouble),
        }
        let why = self.failure.as_ref().map(|(step, _)| format!("left out after `{step}` failed"));
        for step in STEPS {
            if !self.subjects.iter().any(|subject| subject.name == step) {
                let why = match self.asked_for(step) {
                    true => why.as_deref().unwrap_or("the other side had ended the call"),
                    false => "not asked for",
                };
                self.subjects.push(Subject::new("check", step, SubjectOutcome::Skipped, why));
            }
        }
        let order = |subject: &Subject| STEPS.iter().position(|step| *step == subject.name);
        self.subjects.sort_by_key(order);
        Outcome { subjects: self.subjects, failure: self.failure, measurement: self.measurement }
    }

    fn asked_for(&self, step: &str) -> bool {
        match step {
            "options" => true,
            "register" | "unregister" => self.plan.credentials.is_some(),
            "media" => self.plan.media.is_some(),
            _ => self.plan.call.is_some(),
        }
    }

    async fn steps(&mut self, agent: &mut Agent<'_>, started: Instant) {
        let passed = agent.options().await.map(|response| self.options(agent, &response));
        self.record("options", started, passed);
        if self.goes_on("register") {
            let user = self.plan.credentials.as_ref().map_or("", |credentials| &credentials.user);
            self.say(&format!("registering as {user}"));
            let started = Instant::now();
            let passed =
                agent.register().await.map(|response| self.registered(agent, &response, user));
            self.record("register", started, passed);
        }
        if self.goes_on("call") {
            let started = Instant::now();
            match self.call(agent).await {
                Ok((passed, socket, remote)) => {
                    self.record("call", started, Ok(passed));
                    if self.goes_on("media") {
                        let started = Instant::now();
                        let passed = self.media(agent, &socket, remote).await;
                        self.record("media", started, passed);
                    }
                }
                Err(trouble) => self.fail("call", started, trouble),
            }
        }
        // What follows also runs after a failure: no call and no binding may stay behind.
        if self.failure.as_ref().is_some_and(|(_, trouble)| hopeless(trouble)) {
            agent.begin_cleanup();
        }
        if agent.in_call() {
            self.say("hanging up");
            let (started, detour) = (Instant::now(), agent.detour());
            let passed = agent
                .bye()
                .await
                .map(|response| Passed::new(status(&response), json!({"status": response.code()})));
            let passed = passed.map_err(|trouble| explain_detour(trouble, detour, agent));
            self.record("bye", started, passed);
        }
        if agent.is_bound() {
            self.say("taking the binding back");
            let started = Instant::now();
            let passed = agent.unregister().await.map(|response| {
                Passed::new(
                    format!("{}, our contact is gone", status(&response)),
                    json!({"status": response.code()}),
                )
            });
            self.record("unregister", started, passed);
        }
    }

    fn options(&self, agent: &Agent<'_>, response: &Message) -> Passed {
        let server = response.header("Server").or_else(|| response.header("User-Agent"));
        let mut detail = format!(
            "{} from {} over {}",
            status(response),
            agent.target(),
            self.target.transport.name()
        );
        if matches!(response.code(), Some(401 | 407)) {
            detail.push_str(" (alive, asks for credentials)");
        }
        if let Some(server) = server {
            detail.push_str(&format!(", {server}"));
        }
        let data = json!({
            "status": response.code(),
            "server": server,
            "peer": agent.target().to_string(),
            "transport": self.target.transport.param(),
            "local": agent.local().to_string(),
            "seen_as": agent.seen_as(),
            "target": self.target.name,
        });
        Passed::new(detail, data)
    }

    fn registered(&self, agent: &Agent<'_>, response: &Message, user: &str) -> Passed {
        let login = agent.login();
        let how = login.map_or_else(
            || "without being asked for credentials".to_owned(),
            |login| format!("{} digest, realm {}", login.algorithm, login.realm),
        );
        let data = json!({
            "status": response.code(),
            "user": user,
            "algorithm": login.map(|login| &login.algorithm),
            "realm": login.map(|login| &login.realm),
        });
        // A registrar that takes anybody is no success that one may overlook.
        Passed {
            odd: login.is_none(),
            ..Passed::new(format!("{} as {user}, {how}", status(response)), data)
        }
    }

    async fn call(
        &mut self,
        agent: &mut Agent<'_>,
    ) -> Result<(Passed, UdpSocket, std::net::SocketAddr), Trouble> {
        let Some(callee) = &self.plan.call else {
            return Err(Trouble::Protocol("there is nobody to call".to_owned()));
        };
        let uri = self.target.callee(callee);
        self.say(&format!("calling {uri}"));
        let socket = rtp_socket(agent.local().ip()).await.map_err(Trouble::Socket)?;
        let offer = sdp::offer(socket.local_addr().map_err(Trouble::Socket)?, rand::random());
        let response = agent.invite(&uri, offer).await?;
        let answer = sdp::Answer::parse(&response.body)?;
        let mut detail = format!("{} from {uri}, PCMU to {}", status(&response), answer.rtp);
        let detour = agent.detour();
        if let Some(hop) = detour {
            detail.push_str(&format!(
                "; its Contact leads to {hop}, not to the address that was called"
            ));
        }
        let data = json!({
            "status": response.code(),
            "uri": uri.to_string(),
            "rtp": answer.rtp.to_string(),
            "direction": answer.direction,
            "contact_leads_to": detour.map(|hop| hop.to_string()),
        });
        Ok((Passed { odd: detour.is_some(), ..Passed::new(detail, data) }, socket, answer.rtp))
    }

    async fn media(
        &mut self,
        agent: &mut Agent<'_>,
        socket: &UdpSocket,
        remote: std::net::SocketAddr,
    ) -> Result<Passed, Trouble> {
        let duration = self.plan.media.unwrap_or_default();
        let tone_hz = TONES_HZ[usize::from(rand::random::<u8>()) % TONES_HZ.len()];
        let probe = Probe { remote, duration, tone_hz, ssrc: rand::random() };
        self.say(&format!("sending {tone_hz} Hz to {remote} for {}", human(duration)));
        let measured = agent.during(media::exchange(socket, &probe)).await??;
        let judged = media::judge(&measured, self.plan.max_loss);
        let data = measured.data();
        self.measurement = Some(measured);
        judged.map(|verdict| Passed { detail: verdict.detail, odd: verdict.odd, data })
    }

    fn goes_on(&self, step: &str) -> bool {
        self.failure.is_none() && self.asked_for(step)
    }

    fn say(&self, text: &str) {
        self.ctx.progress().subject(&self.target.name, text);
    }

    fn record(&mut self, step: &'static str, started: Instant, passed: Result<Passed, Trouble>) {
        match passed {
            Ok(Passed { detail, odd, data }) => {
                let outcome = if odd { SubjectOutcome::Warned } else { SubjectOutcome::Success };
                self.subjects.push(
                    Subject::new("check", step, outcome, detail)
                        .elapsed(started.elapsed())
                        .data(data),
                );
            }
            Err(trouble) => self.fail(step, started, trouble),
        }
    }

    fn fail(&mut self, step: &'static str, started: Instant, trouble: Trouble) {
        let outcome = match trouble {
            Trouble::Stopped => SubjectOutcome::Unknown,
            _ => SubjectOutcome::Failed,
        };
        let mut detail = trouble.to_string();
        let hint = trouble.hint();
        if let Some(hint) = &hint {
            detail.push_str(&format!(" (hint: {hint})"));
        }
        let mut data = match (step, &self.measurement) {
            ("media", Some(measured)) => measured.data(),
            _ => json!({}),
        };
        if let Trouble::Status { code, .. }
        | Trouble::Credentials { code, .. }
        | Trouble::NoCredentials { code, .. } = &trouble
        {
            data["status"] = json!(code);
        }
        data["exit"] = json!(trouble.exit().name());
        self.subjects.push(
            Subject::new("check", step, outcome, detail).elapsed(started.elapsed()).data(data),
        );
        self.failure.get_or_insert((step, trouble));
    }
}

/// After these, waiting long for an answer to BYE or REGISTER is in vain.
fn hopeless(trouble: &Trouble) -> bool {
    !matches!(
        trouble,
        Trouble::Status { .. } | Trouble::Media(_) | Trouble::Hangup { .. } | Trouble::Session(_)
    )
}

/// A BYE that is not answered at the address in the Contact has a cause that can be named.
fn explain_detour(
    trouble: Trouble,
    detour: Option<std::net::SocketAddr>,
    agent: &Agent<'_>,
) -> Trouble {
    match (&trouble, detour) {
        (
            Trouble::Silence { .. } | Trouble::Refused { .. } | Trouble::Unreachable { .. },
            Some(hop),
        ) => {
            let called = agent.target().ip();
            Trouble::Protocol(format!(
                "{trouble}; {hop} is the address in its Contact, {called} was called: does the service announce its public address for signalling?"
            ))
        }
        _ => trouble,
    }
}

fn status(response: &Message) -> String {
    match &response.start {
        Start::Response { code, reason } => format!("{code} {reason}"),
        Start::Request { method, .. } => method.clone(),
    }
}
