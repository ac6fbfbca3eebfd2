//! Files beside the caches by which builders of one image wait for each other, and what builders leave.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::build::work_owner;
use super::suites::SUITES;
use super::{Bootable, Listener, Said, own};
use crate::error::Error;
use crate::process;

const START: &str = "local-cloud-image-";
const END: &str = ".lock";

fn path(cache: &Path, name: &str) -> PathBuf {
    cache.join(format!("{START}{name}{END}"))
}

/// One builder at a time of one image, in whichever process; ends with the file that it gives.
pub(super) async fn lock(cache: &Path, what: &Bootable, say: Listener<'_>) -> Result<File, Error> {
    let path = path(cache, what.name());
    let failed = |source| Error::File { doing: "lock", path: path.clone(), source };
    let mut told = false;
    loop {
        let file = File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => return Ok(file),
            // Whoever had it has removed it together with the image: this is a file that nobody else will find.
            Ok(()) => continue,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if !told => {
                say(Said::Step(format!(
                    "waiting for somebody else who builds the image of {}",
                    what.name()
                )));
                told = true;
            }
            Err(TryLockError::WouldBlock) => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let inode = |found: std::io::Result<std::fs::Metadata>| found.ok().map(|found| found.ino());
    inode(file.metadata()) == inode(path.metadata())
}

/// Removes the file of an image that is no more, while its lock is held.
pub(super) fn remove(cache: &Path, name: &str) -> Result<(), Error> {
    let path = path(cache, name);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { doing: "remove", path, source })
        }
        _ => Ok(()),
    }
}

/// Removes what builders left that could not clean up after themselves, and locks of images that are no more.
pub fn sweep(cache: &Path) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(cache) else { return Ok(()) };
    // A list that cannot be read is said by who needs it; until then every lock may be of one of its images.
    let own = own::read(cache).ok();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(pid) = work_owner(name)
            && process::Identity::of(pid).is_none()
        {
            std::fs::remove_dir_all(entry.path()).map_err(|source| Error::File {
                doing: "remove",
                path: entry.path(),
                source,
            })?;
        }
        let image = name.strip_prefix(START).and_then(|rest| rest.strip_suffix(END));
        if let (Some(image), Some(own)) = (image, &own)
            && SUITES.iter().all(|suite| suite.name != image)
            && own.iter().all(|own| own.name != image)
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            remove(cache, image)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::own::Own;
    use super::*;

    fn of(name: &str) -> Bootable {
        Bootable::Own(Own {
            id: "ami-0".into(),
            name: name.into(),
            source: "x".into(),
            added: jiff::Timestamp::UNIX_EPOCH,
            cloud_init: None,
        })
    }

    #[tokio::test]
    async fn locks_of_images_that_are_no_more_go_unless_they_are_held() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = folder.path();
        let quiet = |_: Said| {};
        drop(lock(cache, &of("gone"), &quiet).await.expect("free"));
        let held = lock(cache, &of("in-work"), &quiet).await.expect("free");
        std::fs::write(path(cache, "bookworm"), "").expect("written");
        sweep(cache).expect("swept");
        let there = |name| path(cache, name).exists();
        assert!(!there("gone") && there("in-work") && there("bookworm"));
        drop(held);
        sweep(cache).expect("swept");
        assert!(!there("in-work"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_lock_does_not_get_a_file_that_was_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = folder.path();
        let held = lock(cache, &of("one"), &|_| {}).await.expect("free");
        let place = cache.to_owned();
        let waiting = tokio::spawn(async move { lock(&place, &of("one"), &|_| {}).await });
        tokio::task::yield_now().await;
        remove(cache, "one").expect("removed");
        drop(held);
        let file = waiting.await.expect("no panic").expect("locked");
        assert!(is_at(&file, &path(cache, "one")));
    }
}
