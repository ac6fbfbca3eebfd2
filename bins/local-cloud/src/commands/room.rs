//! Room for many hosts on one machine: a limit of the kernel that all of them share.

use deploy_cli::Context;

/// Inotify instances that one user may have. The service managers and daemons of all hosts are root's, and a manager
/// that gets none ends at once ("Failed to allocate manager object: Too many open files").
const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";

/// What a booted Debian host has open.
const OF_A_HOST: u64 = 9;

/// Enough for a hundred hosts. The kernel's own default, 128, is for fourteen.
const WANTED: u64 = 1024;

/// Raises the limit where it is lower, and says so: it stays until the machine boots anew. Where it cannot be raised, how
/// many hosts fit is said.
pub(super) fn make(ctx: &Context) {
    let text = std::fs::read_to_string(LIMIT).unwrap_or_default();
    let Some(limit) = too_low(&text) else { return };
    match std::fs::write(LIMIT, WANTED.to_string()) {
        Ok(()) => ctx.progress().note(&format!(
            "fs.inotify.max_user_instances is now {WANTED}, was {limit}: every host needs about {OF_A_HOST}"
        )),
        Err(error) => ctx.progress().warn(&format!(
            "fs.inotify.max_user_instances is {limit} and cannot be raised ({error}): more than {} hosts at once do \
             not boot",
            limit / OF_A_HOST
        )),
    }
}

fn too_low(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < WANTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_only_ever_raised() {
        assert_eq!(too_low("128\n"), Some(128));
        assert_eq!((too_low("1024\n"), too_low("65536\n"), too_low("")), (None, None, None));
    }
}
