//! RTP packets, PCMU, a test tone and what a stream's arrival says about the network. Pure: no socket, no clock.
//!
//! RFC 3550 (packets, jitter), RFC 3551 (PCMU), ITU-T G.711 (µ-law).

use std::f64::consts::TAU;
use std::time::Duration;

/// Samples per second of PCMU.
pub const SAMPLE_RATE: u32 = 8000;
/// Samples in one packet of 20 ms.
pub const SAMPLES: usize = 160;
/// How often a packet is sent.
pub const PACKET_TIME: Duration = Duration::from_millis(20);
/// Tones to choose from: whole cycles in 20 ms, and none that a telephone system makes by itself.
pub const TONES_HZ: [u32; 8] = [650, 850, 950, 1150, 1250, 1350, 1550, 1650];
/// Amplitude of the tone, about -12 dBm0: loud enough to find, far from clipping.
const AMPLITUDE: f64 = 8000.0;
const HEADER_BYTES: usize = 12;

/// A received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Names the encoding.
    pub payload_type: u8,
    /// Counts packets, with wrap-around.
    pub sequence: u16,
    /// In samples, with wrap-around.
    pub timestamp: u32,
    /// Names the stream.
    pub ssrc: u32,
    /// The audio.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a datagram; `None` when it is no RTP packet (RFC 3550 §5.1, §5.3.1).
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (header, mut payload) = datagram.split_at_checked(HEADER_BYTES)?;
        let &[first, second, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = header else { return None };
        if first >> 6 != 2 {
            return None;
        }
        payload = payload.get(usize::from(first & 0x0f) * 4..)?;
        if first & 0x10 != 0 {
            let words = u16::from_be_bytes([*payload.get(2)?, *payload.get(3)?]);
            payload = payload.get(4 + usize::from(words) * 4..)?;
        }
        if first & 0x20 != 0 {
            let padding = usize::from(*payload.last()?);
            payload = payload.get(..payload.len().checked_sub(padding)?)?;
        }
        Some(Self {
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([i0, i1, i2, i3]),
            payload,
        })
    }

    /// The bytes to send; `marker` begins a talk spurt.
    pub fn to_bytes(&self, marker: bool) -> Vec<u8> {
        let mut bytes = vec![0x80, self.payload_type | u8::from(marker) << 7];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(self.payload);
        bytes
    }
}

/// One packet's worth of a sine, as µ-law; `packet` counts from 0 so that the wave goes on from packet to packet.
pub fn tone(hz: u32, packet: u32) -> Vec<u8> {
    let first = u64::from(packet) * SAMPLES as u64;
    let sample = |at: u64| {
        let phase = TAU * f64::from(hz) * at as f64 / f64::from(SAMPLE_RATE);
        encode((AMPLITUDE * phase.sin()) as i16)
    };
    (first..first + SAMPLES as u64).map(sample).collect()
}

/// How much of the audio is the tone: 1 for nothing but it, near 0 for silence, noise or another tone.
///
/// The Goertzel algorithm over the whole of `audio`, against its total power.
pub fn tone_share(audio: &[u8], hz: u32) -> f64 {
    let samples: Vec<f64> = audio.iter().map(|byte| f64::from(decode(*byte))).collect();
    let power: f64 = samples.iter().map(|sample| sample * sample).sum();
    // Comfort noise and silence are below this mean square; a share of nothing means nothing.
    let floor = 100.0 * 100.0 * samples.len() as f64;
    if power <= floor {
        return 0.0;
    }
    let coefficient = 2.0 * (TAU * f64::from(hz) / f64::from(SAMPLE_RATE)).cos();
    let (last, before) = samples
        .iter()
        .fold((0.0, 0.0), |(last, before), sample| (sample + coefficient * last - before, last));
    let magnitude = last * last + before * before - coefficient * last * before;
    (2.0 * magnitude / (samples.len() as f64 * power)).min(1.0)
}

/// µ-law of a linear sample, ITU-T G.711.
fn encode(linear: i16) -> u8 {
    const BIAS: i32 = 0x84;
    const CLIP: i32 = 32_635;
    let sign = if linear < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(linear).abs().min(CLIP) + BIAS;
    let exponent = (0..8).rev().find(|bit| magnitude & (0x80 << bit) != 0).unwrap_or(0);
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    // Eight bits: sign, three of exponent, four of mantissa.
    !u8::try_from(sign | exponent << 4 | mantissa).unwrap_or(u8::MAX)
}

/// The linear sample of a µ-law byte, ITU-T G.711.
fn decode(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = ((i16::from(byte & 0x0f) << 3) + 0x84) << ((byte & 0x70) >> 4);
    if byte & 0x80 != 0 { 0x84 - magnitude } else { magnitude - 0x84 }
}

/// What the arrival of one stream's packets says.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    received: u32,
    duplicates: u32,
    reordered: u32,
    first: i64,
    highest: i64,
    seen: std::collections::HashSet<i64>,
    transit: Option<i64>,
    jitter: f64,
}

impl Arrival {
    /// Counts a packet that came `at` after some fixed moment.
    pub fn add(&mut self, at: Duration, packet: &Packet<'_>) {
        let number = self.extend(packet.sequence);
        if !self.seen.insert(number) {
            self.duplicates += 1;
            return;
        }
        if self.received == 0 {
            (self.first, self.highest) = (number, number);
        } else if number < self.highest {
            self.reordered += 1;
        }
        self.first = self.first.min(number);
        self.highest = self.highest.max(number);
        self.received += 1;
        // RFC 3550 §6.4.1 and appendix A.8, in units of the RTP clock.
        let arrived =
            i64::try_from(at.as_micros()).unwrap_or(i64::MAX) * i64::from(SAMPLE_RATE) / 1_000_000;
        let transit = arrived - i64::from(packet.timestamp);
        if let Some(before) = self.transit.replace(transit) {
            // The timestamp wraps; the difference of two transits is small, so the low 32 bits say it all.
            let difference = f64::from(((transit - before) as i32).unsigned_abs());
            self.jitter += (difference - self.jitter) / 16.0;
        }
    }

    /// Packets that came, each counted once.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Packets that came again.
    pub fn duplicates(&self) -> u32 {
        self.duplicates
    }

    /// Packets that came after a later one.
    pub fn reordered(&self) -> u32 {
        self.reordered
    }

    /// Gaps in the sequence numbers: what was lost on the way here.
    pub fn missing(&self) -> u32 {
        let expected = if self.received == 0 { 0 } else { self.highest - self.first + 1 };
        u32::try_from(expected - i64::from(self.received)).unwrap_or(0)
    }

    /// Interarrival jitter in milliseconds, RFC 3550.
    pub fn jitter_ms(&self) -> f64 {
        self.jitter * 1000.0 / f64::from(SAMPLE_RATE)
    }

    /// The sequence number without its wrap-around, nearest to the highest one seen.
    fn extend(&self, sequence: u16) -> i64 {
        if self.received == 0 {
            return i64::from(sequence);
        }
        let step = sequence.wrapping_sub(self.highest as u16) as i16;
        self.highest + i64::from(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16, timestamp: u32) -> Packet<'static> {
        Packet { payload_type: 0, sequence, timestamp, ssrc: 9, payload: &[] }
    }

    #[test]
    fn a_packet_reads_back_and_its_extras_are_skipped() {
        let sent = Packet { payload: b"audio", ..packet(65_535, u32::MAX) };
        assert_eq!(Packet::parse(&sent.to_bytes(true)), Some(sent));
        // One CSRC, an extension of one word, two bytes of padding.
        let mut bytes = vec![0xb1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        bytes.extend([0; 4]);
        bytes.extend([0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
        bytes.extend(b"audio\0\x02");
        assert_eq!(Packet::parse(&bytes).unwrap().payload, b"audio");
        for end in 0..bytes.len() {
            let _ = Packet::parse(&bytes[..end]);
        }
        *bytes.last_mut().unwrap() = 200;
        assert_eq!(Packet::parse(&bytes), None);
        assert_eq!(Packet::parse(&[0; 40]), None);
    }

    #[test]
    fn mu_law_has_the_values_of_the_standard() {
        // ITU-T G.711 table 2: 0xff is silence, 0x80 and 0x00 are the ends.
        for (linear, byte) in
            [(0, 0xff), (32_124, 0x80), (-32_124, 0x00), (i16::MAX, 0x80), (i16::MIN, 0x00)]
        {
            assert_eq!(encode(linear), byte, "{linear}");
        }
        for byte in 0..=u8::MAX {
            let again = encode(decode(byte));
            // There are two zeros.
            assert!(again == byte || (byte == 0x7f && again == 0xff), "{byte:#x} {again:#x}");
        }
    }

    #[test]
    fn only_the_tone_that_was_sent_is_found() {
        for hz in TONES_HZ {
            for packet in [0, 1, 7] {
                let audio = tone(hz, packet);
                assert!(tone_share(&audio, hz) > 0.95, "{hz}");
                for other in TONES_HZ.into_iter().filter(|other| *other != hz) {
                    assert!(tone_share(&audio, other) < 0.05, "{hz} {other}");
                }
            }
        }
        assert_eq!(tone_share(&[0xff; SAMPLES], 1150), 0.0);
        assert_eq!(tone_share(&[], 1150), 0.0);
        let noise: Vec<u8> =
            (0..160_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert!(tone_share(&noise, 1150) < 0.3);
    }

    #[test]
    fn arrival_counts_gaps_doubles_and_order_across_the_wrap() {
        let mut arrival = Arrival::default();
        for (at, sequence) in [(0, 65_534), (20, 65_535), (40, 1), (60, 0), (60, 0), (100, 4)] {
            arrival.add(Duration::from_millis(at), &packet(sequence, 0));
        }
        assert_eq!((arrival.received(), arrival.missing()), (5, 2));
        assert_eq!((arrival.duplicates(), arrival.reordered()), (1, 1));
    }

    #[test]
    fn jitter_is_that_of_rfc_3550() {
        let mut steady = Arrival::default();
        // The timestamp wraps in the middle.
        let start = u32::MAX - 1000;
        for number in 0..50_u16 {
            let timestamp = start.wrapping_add(160 * u32::from(number));
            steady.add(PACKET_TIME * u32::from(number), &packet(number, timestamp));
        }
        assert_eq!(steady.jitter_ms(), 0.0);
        let mut late = Arrival::default();
        late.add(Duration::ZERO, &packet(0, 0));
        late.add(Duration::from_millis(36), &packet(1, 160));
        // 16 ms late once: J = 16/16.
        assert_eq!(late.jitter_ms(), 1.0);
    }
}
