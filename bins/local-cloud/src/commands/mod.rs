//! What a person types.

pub mod down;
pub mod hosts;
pub mod image;
pub mod status;
pub mod up;

use std::time::Duration;

use crate::daemon::{STATUS_PATH, Status};
use crate::error::Error;
use crate::place::{Place, State};

/// The state of the daemon that runs now, if one does.
pub(crate) fn running(place: &Place) -> Option<State> {
    place.read_state().filter(|state| state.daemon.alive())
}

/// What the daemon says about itself.
pub(crate) async fn ask(state: &State) -> Result<Status, Error> {
    let failed = |error: reqwest::Error| Error::setup("the rehearsal cloud does not answer", error);
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .map_err(failed)?;
    let url = format!("http://127.0.0.1:{}{STATUS_PATH}", state.port);
    client.get(url).send().await.map_err(failed)?.json().await.map_err(failed)
}
