//! The session description of one audio stream (RFC 4566, offer and answer of RFC 3264). Pure.

use std::net::{IpAddr, SocketAddr};

/// The payload type of PCMU at 8000 Hz, RFC 3551 §6.
pub const PCMU: u8 = 0;

/// What the other side answered about its audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where it wants to receive RTP.
    pub rtp: SocketAddr,
    /// Its payload types, preferred first.
    pub payload_types: Vec<u8>,
    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`.
    pub direction: String,
}

/// Why a description is of no use for a call with audio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// There is no body, or it is no text.
    #[error("the answer has no session description")]
    Missing,
    /// No `m=audio` line that can be read.
    #[error("the session description has no audio stream")]
    NoAudio,
    /// The stream's port is 0.
    #[error("the audio stream was refused (port 0)")]
    Refused,
    /// No `c=` line with an address; names are not looked up.
    #[error("the session description names no address for audio")]
    NoAddress,
    /// The offered codec is not in the answer.
    #[error("the answer does not take PCMU (payload types {0:?})")]
    Codec(Vec<u8>),
}

/// An offer of PCMU in 20 ms packets, to be received at `rtp`. `session` is a number for the `o=` line.
pub fn offer(rtp: SocketAddr, session: u32) -> Vec<u8> {
    let (ip, port) = (rtp.ip(), rtp.port());
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    let lines = [
        "v=0".to_owned(),
        format!("o=smoke-test-sip {session} {session} IN {family} {ip}"),
        "s=smoke test".to_owned(),
        format!("c=IN {family} {ip}"),
        "t=0 0".to_owned(),
        format!("m=audio {port} RTP/AVP {PCMU}"),
        format!("a=rtpmap:{PCMU} PCMU/8000"),
        "a=ptime:20".to_owned(),
        "a=sendrecv".to_owned(),
        String::new(),
    ];
    lines.join("\r\n").into_bytes()
}

impl Answer {
    /// Reads an answer to [`offer`]: its first audio stream.
    ///
    /// # Errors
    /// [`SdpError`] when it cannot carry the call.
    pub fn parse(body: &[u8]) -> Result<Self, SdpError> {
        let text = std::str::from_utf8(body)
            .ok()
            .filter(|text| !text.trim().is_empty())
            .ok_or(SdpError::Missing)?;
        let (mut session_ip, mut media_ip, mut media) = (None, None, None);
        let (mut session_direction, mut media_direction) = (None, None);
        for line in text.lines().map(str::trim_end) {
            let Some((kind, value)) = line.split_once('=') else { continue };
            match kind {
                "m" if media.is_some() => break,
                "m" => media = Some(parse_media(value)),
                "c" if media.is_some() => media_ip = parse_connection(value),
                "c" => session_ip = parse_connection(value),
                "a" if matches!(value, "sendrecv" | "sendonly" | "recvonly" | "inactive") => {
                    let slot =
                        if media.is_some() { &mut media_direction } else { &mut session_direction };
                    *slot = Some(value.to_owned());
                }
                _ => {}
            }
        }
        let (port, payload_types) = media.flatten().ok_or(SdpError::NoAudio)?;
        if port == 0 {
            return Err(SdpError::Refused);
        }
        if !payload_types.contains(&PCMU) {
            return Err(SdpError::Codec(payload_types));
        }
        let ip = media_ip.or(session_ip).ok_or(SdpError::NoAddress)?;
        let direction =
            media_direction.or(session_direction).unwrap_or_else(|| "sendrecv".to_owned());
        Ok(Self { rtp: SocketAddr::new(ip, port), payload_types, direction })
    }
}

/// `audio 12000 RTP/AVP 0 101`
fn parse_media(value: &str) -> Option<(u16, Vec<u8>)> {
    let mut words = value.split_ascii_whitespace();
    let ("audio", port, "RTP/AVP") = (words.next()?, words.next()?, words.next()?) else {
        return None;
    };
    let port = port.split('/').next()?.parse().ok()?;
    Some((port, words.filter_map(|word| word.parse().ok()).collect()))
}

/// `IN IP4 192.0.2.1`
fn parse_connection(value: &str) -> Option<IpAddr> {
    let mut words = value.split_ascii_whitespace();
    let ("IN", "IP4" | "IP6", address) = (words.next()?, words.next()?, words.next()?) else {
        return None;
    };
    address.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_reads_back_as_an_answer() {
        for rtp in ["192.0.2.1:4000", "[2001:db8::1]:4000"] {
            let rtp: SocketAddr = rtp.parse().unwrap();
            let answer = Answer::parse(&offer(rtp, 7)).unwrap();
            assert_eq!(
                answer,
                Answer { rtp, payload_types: vec![0], direction: "sendrecv".into() }
            );
        }
    }

    #[test]
    fn the_line_nearest_to_the_stream_wins() {
        let text = "v=0\r\nc=IN IP4 10.0.0.1\r\na=sendonly\r\nm=audio 5000/1 RTP/AVP 8 0 101\r\nc=IN IP4 10.0.0.2/127\r\na=inactive\r\nm=video 1 RTP/AVP 99\r\nc=IN IP4 10.0.0.3\r\n";
        let answer = Answer::parse(text.as_bytes()).unwrap();
        assert_eq!(answer.rtp, "10.0.0.2:5000".parse().unwrap());
        assert_eq!(
            (answer.payload_types, answer.direction.as_str()),
            (vec![8, 0, 101], "inactive")
        );
    }

    #[test]
    fn an_answer_without_usable_audio_says_why() {
        let check = |text: &str, expected: SdpError| {
            assert_eq!(Answer::parse(text.as_bytes()), Err(expected))
        };
        check("", SdpError::Missing);
        check("v=0\r\n", SdpError::NoAudio);
        check("c=IN IP4 10.0.0.1\r\nm=audio x RTP/AVP 0\r\n", SdpError::NoAudio);
        check("c=IN IP4 10.0.0.1\r\nm=audio 99999 RTP/AVP 0\r\n", SdpError::NoAudio);
        check("c=IN IP4 10.0.0.1\r\nm=audio 0 RTP/AVP 0\r\n", SdpError::Refused);
        check("c=IN IP4 host.example\r\nm=audio 5 RTP/AVP 0\r\n", SdpError::NoAddress);
        check("c=IN IP4 10.0.0.1\r\nm=audio 5 RTP/AVP 8\r\n", SdpError::Codec(vec![8]));
    }
}
