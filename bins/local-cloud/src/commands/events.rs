//! `local-cloud events`.

use deploy_cli::actions::console;
use deploy_cli::actions::text::line;
use deploy_cli::{Context, Exit, Format};
use futures_util::StreamExt as _;

use super::client::Client;
use super::running;
use crate::args::EventsArgs;
use crate::error::Error;
use crate::events::Event;
use crate::place::Place;

/// Shows what happened, and with `--follow` what happens. With `--format json` one document per line.
pub async fn events(
    args: &EventsArgs,
    project: &str,
    place: &Place,
    ctx: &Context,
) -> Result<u8, Error> {
    let not_running = || Error::NotRunning { project: project.to_owned() };
    let state = running(place).ok_or_else(not_running)?;
    let mut path = format!("events?follow={}", args.follow);
    if let Some(ago) = args.since {
        let since = jiff::Timestamp::now()
            .checked_sub(ago)
            .map_err(|_| Error::BadInput("--since: that is before all time".into()))?;
        path.push_str(&format!("&since={since}"));
    }
    let mut stream = Client::new(&state)?.stream(&path).await?.bytes_stream();
    let mut rest = Vec::new();
    loop {
        let piece = tokio::select! {
            piece = stream.next() => piece,
            exit = ctx.stopped() => return Ok(exit.code()),
        };
        match piece {
            Some(Ok(piece)) => rest.extend_from_slice(&piece),
            None if !args.follow => return Ok(Exit::Success.code()),
            // It ended while we listened.
            Some(Err(_)) | None => return Err(not_running()),
        }
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = rest.drain(..whole).collect();
        if let Err(error) = show(&lines, ctx.format()) {
            // A reader that has seen enough is no failure.
            if error.kind() == std::io::ErrorKind::BrokenPipe {
                return Ok(Exit::Success.code());
            }
            return Err(Error::setup("cannot write to stdout", error));
        }
    }
}

fn show(lines: &[u8], format: Format) -> std::io::Result<()> {
    if format == Format::Json {
        return console::print_json(&String::from_utf8_lossy(lines));
    }
    let mut text = String::new();
    for event in serde_json::Deserializer::from_slice(lines).into_iter::<Event>() {
        let event = event.map_err(std::io::Error::other)?;
        text.push_str(&format!("{:.3} {}\n", event.time, line(&event.text)));
    }
    console::print(&text)
}
