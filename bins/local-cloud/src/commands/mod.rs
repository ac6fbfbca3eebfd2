//! What a person types.

pub(crate) mod client;
pub mod down;
pub mod events;
pub mod fault;
pub mod hosts;
pub mod image;
mod room;
pub mod status;
pub mod up;

use crate::control::Status;
use crate::error::Error;
use crate::place::{Place, State};

/// The state of the daemon that runs now, if one does.
pub(crate) fn running(place: &Place) -> Option<State> {
    place.read_state().filter(|state| state.daemon.alive())
}

/// What the daemon says about itself.
pub(crate) async fn ask(state: &State) -> Result<Status, Error> {
    client::Client::new(state)?.status().await
}
