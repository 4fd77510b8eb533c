//! Where the nodes of a lab keep their state, for as long as it runs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

const PREFIX: &str = "brigade-lab-";

/// A folder that goes with the lab. One that a killed lab left behind goes with the next one: the
/// lock in it is held for as long as its lab lives.
#[derive(Debug)]
pub(super) struct Folder {
    folder: TempDir,
    _lock: File,
}

impl Folder {
    pub(super) fn make() -> io::Result<Self> {
        Self::make_in(&std::env::temp_dir())
    }

    fn make_in(parent: &Path) -> io::Result<Self> {
        remove_left(parent);
        let ours = fs::Permissions::from_mode(0o700);
        let mut builder = tempfile::Builder::new();
        let folder = builder
            .prefix(PREFIX)
            .permissions(ours)
            .tempdir_in(parent)?;
        // Locked before it has its name, or another lab could take it for one that was left.
        let lock = tempfile::NamedTempFile::new_in(folder.path())?;
        lock.as_file().try_lock()?;
        let lock = lock.persist(folder.path().join("lock"))?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what labs have left that were killed. What cannot be looked at is somebody else's.
fn remove_left(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let lock = || File::options().write(true).open(entry.path().join("lock"));
        if named && lock().is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_lab_left_goes_with_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Folder::make_in(parent.path()).unwrap();
        let mode = fs::metadata(alive.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let killed = Folder::make_in(parent.path()).unwrap();
        let Folder {
            folder,
            _lock: lock,
        } = killed;
        let left = folder.keep();
        drop(lock);
        let foreign = parent.path().join("brigade-lab-without-a-lock");
        fs::create_dir(&foreign).unwrap();
        let next = Folder::make_in(parent.path()).unwrap();
        assert!(alive.path().exists() && foreign.exists() && !left.exists());
        let path = next.path().to_owned();
        drop(next);
        assert!(!path.exists());
    }
}
