//! The rehearsal cloud: an AWS endpoint on one machine whose instances really boot.

pub mod hosts;
