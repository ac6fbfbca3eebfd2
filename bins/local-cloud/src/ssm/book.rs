//! All commands and agents: what an agent is to do, what it did. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::agents::{Agent, Agents, Registration};
use super::command::{Command, Duty, Invocation, Order, Outcome, Presence, Recipient};
use super::status::End;

/// Run Command keeps what was sent for 30 days (user guide, "Run Command").
const HISTORY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// So many commands are kept within that time: with full output, about 240 MB. What has ended goes first, oldest first.
const MOST_KEPT: usize = 5_000;

/// More invocations than this do not wait at a time. Amazon's own limit is not published.
const MOST_WAITING: usize = 1_000;

/// What an agent is to do now.
#[derive(Debug, Default)]
pub(super) struct Work<'a> {
    pub(super) start: Vec<&'a Command>,
    pub(super) stop: Vec<&'a str>,
}

/// The state of Systems Manager.
#[derive(Debug)]
pub(super) struct Book {
    /// Oldest first.
    commands: Vec<Command>,
    agents: Agents,
    visible: Duration,
}

impl Book {
    /// `lost`: an agent silent for so long has lost its connection. `visible`: invocations can be read so much later.
    pub(super) fn new(lost: Duration, visible: Duration) -> Self {
        Self { commands: Vec::new(), agents: Agents::new(lost), visible }
    }

    /// Brings everything up to date. `host`: how it is with an instance.
    pub(super) fn advance(&mut self, now: Timestamp, host: impl Fn(&str) -> Presence) {
        self.agents.retain(|id| host(id) != Presence::Gone);
        self.commands.retain(|command| now.duration_since(command.requested) < HISTORY);
        let agents = &self.agents;
        let presence = |id: &str| match (host(id), agents.get(id)) {
            (Presence::Gone, _) | (_, None) => Presence::Gone,
            (Presence::Silent, _) => Presence::Silent,
            (Presence::There, Some(agent)) if agents.ping_status(agent, now) == "Online" => {
                Presence::There
            }
            (Presence::There, Some(_)) => Presence::Silent,
        };
        for command in &mut self.commands {
            command.advance(now);
            command.look_for(presence);
        }
    }

    /// How many invocations wait for their agents, over all commands.
    pub(super) fn waiting(&self) -> usize {
        let invocations = self.commands.iter().flat_map(|command| &command.invocations);
        invocations.filter(|invocation| invocation.state.waits()).count()
    }

    pub(super) fn send(
        &mut self,
        id: String,
        order: Order,
        recipients: Vec<Recipient>,
        now: Timestamp,
    ) -> &Command {
        let exceeds = self.waiting() + recipients.len() > MOST_WAITING;
        let command = if exceeds {
            Command::exceeding(id, order, now)
        } else {
            Command::new(id, order, recipients, now)
        };
        if self.commands.len() >= MOST_KEPT {
            let ended = self.commands.iter().position(Command::ended);
            self.commands.remove(ended.unwrap_or(0));
        }
        self.commands.push(command);
        &self.commands[self.commands.len() - 1]
    }

    pub(super) fn command(&self, id: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.id == id)
    }

    /// All commands, newest first.
    pub(super) fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter().rev()
    }

    /// Whether its invocations can be read yet.
    pub(super) fn is_visible(&self, command: &Command, now: Timestamp) -> bool {
        now.duration_since(command.requested).unsigned_abs() >= self.visible
    }

    pub(super) fn cancel(&mut self, id: &str, instance_ids: &[String]) {
        if let Some(command) = self.find(id) {
            command.cancel(instance_ids);
        }
    }

    pub(super) fn agent(&self, instance_id: &str) -> Option<&Agent> {
        self.agents.get(instance_id)
    }

    pub(super) fn agents(&self) -> impl Iterator<Item = (&str, &Agent)> {
        self.agents.all()
    }

    pub(super) fn ping_status(&self, agent: &Agent, now: Timestamp) -> &'static str {
        self.agents.ping_status(agent, now)
    }

    pub(super) fn register(&mut self, instance_id: &str, about: Registration, now: Timestamp) {
        self.agents.register(instance_id, about, now);
    }

    /// Notes a sign of life; `false` when the agent has to register first.
    pub(super) fn ping(&mut self, instance_id: &str, now: Timestamp) -> bool {
        self.agents.ping(instance_id, now).is_some()
    }

    /// What an agent that holds these commands is to do; `None` when it has to register first.
    pub(super) fn work(
        &mut self,
        instance_id: &str,
        held: &[String],
        now: Timestamp,
    ) -> Option<Work<'_>> {
        let workers = self.agents.get(instance_id)?.about.workers;
        let ended = |id: &String| {
            let command = self.commands.iter().find(|command| &command.id == id);
            command
                .and_then(|command| command.invocation(instance_id))
                .is_some_and(Invocation::reported)
        };
        let mut free = workers.saturating_sub(held.iter().filter(|id| !ended(id)).count());
        let mut work = Work::default();
        for command in &mut self.commands {
            let holds = held.contains(&command.id);
            match command.duty(instance_id, holds, now) {
                Duty::Start if free > 0 => {
                    free -= 1;
                    work.start.push(command);
                }
                Duty::Stop => work.stop.push(&command.id),
                Duty::Start | Duty::Nothing => {}
            }
        }
        Some(work)
    }

    /// The agent says how a command ended; `None` when no such command was sent to it.
    pub(super) fn finish(
        &mut self,
        instance_id: &str,
        command_id: &str,
        end: Option<End>,
        outcomes: Vec<Outcome>,
        now: Timestamp,
    ) -> Option<bool> {
        let command = self.find(command_id)?;
        command.invocation(instance_id)?;
        let news = command.finish(instance_id, end, outcomes);
        command.advance(now);
        Some(news)
    }

    fn find(&mut self, id: &str) -> Option<&mut Command> {
        self.commands.iter_mut().find(|command| command.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::Limit;
    use super::super::command::tests::{at, order, outcome};
    use super::*;

    fn book(workers: usize) -> Book {
        let mut book = Book::new(Duration::from_secs(15), Duration::from_millis(200));
        let about = Registration {
            agent_version: String::new(),
            platform_name: String::new(),
            platform_version: String::new(),
            computer_name: String::new(),
            workers,
        };
        book.register("i-1", about, at(0));
        book
    }

    fn send(book: &mut Book, id: &str) {
        let recipient = Recipient { instance_id: "i-1".into(), name: String::new(), refused: None };
        let order = order(Limit::Count(50), Limit::Count(0));
        book.send(id.into(), order, vec![recipient], at(0));
    }

    fn started(book: &mut Book, held: &[&str]) -> Vec<String> {
        let held: Vec<String> = held.iter().map(|id| (*id).to_owned()).collect();
        let work = book.work("i-1", &held, at(1)).expect("registered");
        work.start.iter().map(|command| command.id.clone()).collect()
    }

    #[test]
    fn the_book_keeps_so_many_commands_and_none_goes_that_has_not_ended() {
        let mut book = book(1);
        send(&mut book, "waits");
        let order = || order(Limit::Count(50), Limit::Count(0));
        for number in 0..MOST_KEPT + 10 {
            book.send(format!("nobody-{number}"), order(), Vec::new(), at(1));
        }
        assert_eq!(book.commands().count(), MOST_KEPT);
        assert!(book.command("waits").is_some(), "it has not ended");
        assert!(book.command("nobody-0").is_none(), "the oldest that has");
        assert!(book.command(&format!("nobody-{}", MOST_KEPT + 9)).is_some());
    }

    #[test]
    fn an_agent_gets_as_many_commands_as_it_has_workers_oldest_first() {
        let mut book = book(2);
        for id in ["a", "b", "c"] {
            send(&mut book, id);
        }
        assert_eq!(started(&mut book, &[]), ["a", "b"]);
        assert_eq!(started(&mut book, &[]), ["a", "b"], "the reply was lost");
        assert!(started(&mut book, &["a", "b"]).is_empty());
        assert_eq!(book.command("a").map(|c| c.status().0), Some("InProgress"));
        assert_eq!(book.command("c").map(|c| c.status().0), Some("Pending"));
        let mut finish = |instance: &str, id: &str, end: End| {
            book.finish(instance, id, Some(end), vec![outcome(end, 0)], at(2))
        };
        assert_eq!(finish("i-1", "a", End::Success), Some(true));
        assert_eq!(finish("i-1", "a", End::Failed), Some(false));
        assert_eq!(finish("i-1", "z", End::Failed), None);
        assert_eq!(finish("i-2", "b", End::Failed), None, "another host");
        assert_eq!(started(&mut book, &["a", "b"]), ["c"], "said before it knew that `a` is over");
    }

    #[test]
    fn an_agent_that_is_not_registered_gets_nothing() {
        let mut book = book(5);
        assert!(book.work("i-2", &[], at(1)).is_none());
        assert!(!book.ping("i-2", at(1)));
    }

    #[test]
    fn commands_are_forgotten_after_thirty_days() {
        let mut book = book(5);
        send(&mut book, "a");
        let month = 30 * 24 * 3600;
        book.advance(at(month - 1), |_| Presence::There);
        assert!(book.command("a").is_some());
        book.advance(at(month), |_| Presence::There);
        assert!(book.command("a").is_none());
    }

    #[test]
    fn an_agent_that_is_silent_or_gone_shows_in_what_waits_for_it() {
        let mut book = book(5);
        send(&mut book, "a");
        let details = |book: &Book| book.command("a").map(|c| c.invocations[0].state.details());
        book.advance(at(14), |_| Presence::There);
        assert_eq!(details(&book), Some("Pending"));
        book.advance(at(15), |_| Presence::There);
        assert_eq!(details(&book), Some("Delayed"), "not heard of for 15 seconds");
        book.advance(at(16), |_| Presence::Gone);
        assert_eq!(details(&book), Some("Undeliverable"));
    }

    #[test]
    fn too_many_that_wait_are_too_many() {
        let mut book = book(5);
        for number in 0..MOST_WAITING {
            send(&mut book, &number.to_string());
        }
        send(&mut book, "more");
        book.advance(at(1), |_| Presence::There);
        let status = |id: &str| book.command(id).map(|command| command.status().1);
        assert_eq!(status("more"), Some("RateExceeded"));
        assert_eq!(status("999"), Some("Pending"));
    }
}
