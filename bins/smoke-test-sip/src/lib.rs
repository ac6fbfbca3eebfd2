//! Asks a deployed SIP service whether it answers, registers a phone and carries a call with audio.

pub mod digest;
pub mod header;
pub mod message;
pub mod rtp;
pub mod sdp;
pub mod uri;
