//! Sends the test tone over RTP, listens to what comes back, and judges it. [`exchange`] is the edge, [`judge`] is pure.

use crate::rtp::{Arrival, PACKET_TIME, Packet, SAMPLES, tone, tone_share};
use crate::sdp::PCMU;
use crate::trouble::Trouble;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How long after the last packet was sent the last one back is waited for.
const DRAIN: Duration = Duration::from_millis(500);
/// From this share of the power on, a packet counts as the tone: µ-law noise leaves more than 0.95.
const TONE_SHARE: f64 = 0.7;
/// Comfort noise, RFC 3389.
const COMFORT_NOISE: u8 = 13;

/// One exchange of audio, being prepared.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Where the other side wants its audio.
    pub remote: SocketAddr,
    /// For how long to send.
    pub duration: Duration,
    /// The tone.
    pub tone_hz: u32,
    /// The name of our stream.
    pub ssrc: u32,
}

/// What was sent and what came back.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// The tone that was sent.
    pub tone_hz: u32,
    /// Where audio was sent to.
    pub remote: SocketAddr,
    /// Packets sent.
    pub sent: u32,
    /// What arrived.
    pub arrival: Arrival,
    /// Received packets that hold the tone.
    pub tone_packets: u32,
    /// Packets by payload type.
    pub payload_types: BTreeMap<u8, u32>,
    /// Packets by the stream's name.
    pub streams: BTreeMap<u32, u32>,
    /// Packets by where they came from.
    pub sources: BTreeMap<SocketAddr, u32>,
    /// Datagrams that are no RTP.
    pub strangers: u32,
    /// How long after the first packet was sent the first one came back.
    pub first_after: Option<Duration>,
}

impl Measurement {
    fn new(probe: &Probe) -> Self {
        Self {
            tone_hz: probe.tone_hz,
            remote: probe.remote,
            sent: 0,
            arrival: Arrival::default(),
            tone_packets: 0,
            payload_types: BTreeMap::new(),
            streams: BTreeMap::new(),
            sources: BTreeMap::new(),
            strangers: 0,
            first_after: None,
        }
    }

    fn add(&mut self, at: Duration, from: SocketAddr, datagram: &[u8]) {
        let Some(packet) = Packet::parse(datagram) else {
            self.strangers += 1;
            return;
        };
        self.first_after.get_or_insert(at);
        *self.payload_types.entry(packet.payload_type).or_default() += 1;
        *self.streams.entry(packet.ssrc).or_default() += 1;
        *self.sources.entry(from).or_default() += 1;
        let before = self.arrival.received();
        self.arrival.add(at, &packet);
        let fresh = self.arrival.received() > before;
        if fresh
            && packet.payload_type == PCMU
            && tone_share(packet.payload, self.tone_hz) >= TONE_SHARE
        {
            self.tone_packets += 1;
        }
    }

    /// Packets that were sent and did not come back, in percent.
    pub fn loss_percent(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => {
                100.0 * f64::from(sent.saturating_sub(self.arrival.received())) / f64::from(sent)
            }
        }
    }

    /// The figures for the report.
    pub fn data(&self) -> Value {
        let count = |name: &dyn std::fmt::Display, packets: &u32| json!({"name": name.to_string(), "packets": packets});
        json!({
            "packets_sent": self.sent,
            "packets_received": self.arrival.received(),
            "loss_percent": round(self.loss_percent()),
            "jitter_ms": round(self.arrival.jitter_ms()),
            "missing_in_sequence": self.arrival.missing(),
            "duplicates": self.arrival.duplicates(),
            "reordered": self.arrival.reordered(),
            "first_packet_after_ms": self.first_after.map(|after| round(after.as_secs_f64() * 1000.0)),
            "tone_hz": self.tone_hz,
            "tone_packets": self.tone_packets,
            "payload_types": self.payload_types.iter().map(|(name, packets)| count(name, packets)).collect::<Vec<_>>(),
            "ssrcs": self.streams.iter().map(|(name, packets)| count(&format!("{name:08x}"), packets)).collect::<Vec<_>>(),
            "sent_to": self.remote.to_string(),
            "received_from": self.sources.iter().map(|(name, packets)| count(name, packets)).collect::<Vec<_>>(),
            "source_is_as_announced": self.sources.keys().all(|source| *source == self.remote),
        })
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        format!(
            "{} packets sent, {} came back, loss {:.1} %, jitter {:.1} ms",
            self.sent,
            self.arrival.received(),
            self.loss_percent(),
            self.arrival.jitter_ms()
        )
    }
}

/// A measurement that is good enough, with what somebody should look at nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// One line for people.
    pub detail: String,
    /// Something is odd, although audio flows.
    pub odd: bool,
}

/// Whether audio flows both ways: what came back is the tone that was sent, and enough of it.
///
/// # Errors
/// [`Trouble::Media`] with the reason.
pub fn judge(measured: &Measurement, max_loss_percent: f64) -> Result<Verdict, Trouble> {
    let received = measured.arrival.received();
    let no = |reason: String| Err(Trouble::Media(format!("{reason}; {}", measured.summary())));
    if received == 0 {
        let strangers = match measured.strangers {
            0 => String::new(),
            count => format!(" ({count} datagrams that are no RTP)"),
        };
        return no(format!("no audio came back from {}{strangers}", measured.remote));
    }
    let foreign: Vec<String> = measured
        .payload_types
        .keys()
        .filter(|kind| !matches!(**kind, PCMU | COMFORT_NOISE))
        .map(u8::to_string)
        .collect();
    if !foreign.is_empty() {
        return no(format!(
            "payload type {} came back, agreed was {PCMU} (PCMU)",
            foreign.join(", ")
        ));
    }
    // Nine of ten: the first packets may still carry what the other side played before the echo.
    if measured.tone_packets * 10 < received * 9 {
        let hz = measured.tone_hz;
        let tone = measured.tone_packets;
        return no(format!(
            "only {tone} of {received} packets that came back hold the {hz} Hz tone that was sent (silence, noise or other audio)"
        ));
    }
    if measured.loss_percent() > max_loss_percent {
        return no(format!("more than {max_loss_percent} % of the packets did not come back"));
    }
    let mut detail = format!("{}, {} Hz came back", measured.summary(), measured.tone_hz);
    let mut odd = false;
    if let Some(source) = measured.sources.keys().find(|source| **source != measured.remote) {
        detail.push_str(&format!(
            "; audio came from {source}, the answer announced {}",
            measured.remote
        ));
        odd = true;
    }
    if measured.streams.len() > 1 {
        detail.push_str(&format!(
            "; {} streams (SSRC) where one was expected",
            measured.streams.len()
        ));
        odd = true;
    }
    Ok(Verdict { detail, odd })
}

/// Sends the tone for its duration, one packet each 20 ms, and takes what comes back.
///
/// # Errors
/// [`Trouble::Unreachable`] when the system refuses to send there.
pub async fn exchange(socket: &UdpSocket, probe: &Probe) -> Result<Measurement, Trouble> {
    let mut measured = Measurement::new(probe);
    let packets = u32::try_from(probe.duration.as_millis() / PACKET_TIME.as_millis())
        .unwrap_or(u32::MAX)
        .max(1);
    let (mut sequence, mut timestamp): (u16, u32) = rand::random();
    let mut ticks = interval(PACKET_TIME);
    // On a busy machine packets go late, but they all go: what is measured is the way, not the scheduler.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let started = Instant::now();
    let mut end = None;
    let mut buffer = vec![0; 2048];
    loop {
        tokio::select! {
            _ = ticks.tick(), if end.is_none() => {
                let payload = tone(probe.tone_hz, measured.sent);
                let packet = Packet { payload_type: PCMU, sequence, timestamp, ssrc: probe.ssrc, payload: &payload };
                let sent = socket.send_to(&packet.to_bytes(measured.sent == 0), probe.remote).await;
                sent.map_err(|error| Trouble::Unreachable { peer: probe.remote, error })?;
                sequence = sequence.wrapping_add(1);
                timestamp = timestamp.wrapping_add(SAMPLES as u32);
                measured.sent += 1;
                if measured.sent == packets {
                    end = Some(Instant::now() + DRAIN);
                }
            }
            // An error here is an ICMP message about an earlier packet; silence is judged at the end.
            Ok((length, from)) = socket.recv_from(&mut buffer) => measured.add(started.elapsed(), from, &buffer[..length]),
            () = sleep_until(end.unwrap_or(started)), if end.is_some() => return Ok(measured),
        }
        if end.is_some() && measured.arrival.received() >= measured.sent {
            return Ok(measured);
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A measurement of ten packets sent, of which those in `back` came back with this payload.
    fn measured(
        back: std::ops::Range<u16>,
        payload_type: u8,
        payload: &dyn Fn(u32) -> Vec<u8>,
    ) -> Measurement {
        let remote = "192.0.2.1:4000".parse().unwrap();
        let probe = Probe { remote, duration: Duration::ZERO, tone_hz: 1150, ssrc: 1 };
        let mut measured = Measurement { sent: 10, ..Measurement::new(&probe) };
        for number in back {
            let payload = payload(u32::from(number));
            let timestamp = 160 * u32::from(number);
            let packet =
                Packet { payload_type, sequence: number, timestamp, ssrc: 7, payload: &payload };
            measured.add(PACKET_TIME * u32::from(number), remote, &packet.to_bytes(false));
        }
        measured
    }

    fn why(measured: &Measurement) -> String {
        judge(measured, 10.0).unwrap_err().to_string()
    }

    #[test]
    fn the_tone_that_was_sent_passes() {
        let verdict = judge(&measured(0..10, 0, &|at| tone(1150, at)), 10.0).unwrap();
        assert_eq!(
            verdict.detail,
            "10 packets sent, 10 came back, loss 0.0 %, jitter 0.0 ms, 1150 Hz came back"
        );
        assert!(!verdict.odd);
        assert!(judge(&measured(0..9, 0, &|at| tone(1150, at)), 10.0).is_ok());
    }

    #[test]
    fn silence_another_tone_loss_and_another_codec_do_not_pass() {
        assert!(
            why(&measured(0..0, 0, &|_| Vec::new()))
                .starts_with("no audio came back from 192.0.2.1:4000; 10 packets")
        );
        assert!(why(&measured(0..10, 0, &|_| vec![0xff; 160])).starts_with("only 0 of 10 packets"));
        assert!(why(&measured(0..10, 0, &|at| tone(650, at))).starts_with("only 0 of 10 packets"));
        assert!(
            why(&measured(0..8, 0, &|at| tone(1150, at)))
                .starts_with("more than 10 % of the packets")
        );
        assert!(
            why(&measured(0..10, 8, &|at| tone(1150, at))).starts_with("payload type 8 came back")
        );
    }

    #[test]
    fn audio_from_another_address_passes_and_is_said() {
        let mut measured = measured(0..10, 0, &|at| tone(1150, at));
        measured.remote = "10.0.0.1:4000".parse().unwrap();
        let verdict = judge(&measured, 10.0).unwrap();
        assert!(verdict.odd);
        assert!(
            verdict
                .detail
                .ends_with("audio came from 192.0.2.1:4000, the answer announced 10.0.0.1:4000")
        );
    }
}
