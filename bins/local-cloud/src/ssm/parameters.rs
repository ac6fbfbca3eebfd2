//! What Parameter Store does not take, before the emulator keeps it. Pure.

use serde_json::Value;

use super::refusal::Refusal;

/// Checks a request to Parameter Store as far as the emulator does not.
pub(super) fn check(_operation: &str, _request: &Value) -> Result<(), Refusal> {
    Ok(())
}
