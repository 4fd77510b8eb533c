//! Who writes files, and who uses them, across processes: locks that end with whoever holds them.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::GgufError;

/// Somebody who only looks whether a file is in use holds its lock for less than this.
const GLANCE: Duration = Duration::from_millis(10);

/// Keeps files from being removed by [`Stored::remove`](super::Stored::remove), in whichever process,
/// until it and its clones are gone.
///
/// The lock is on the files themselves, so that it holds for any file and leaves nothing behind.
/// Where the file system has no locks, nothing is kept.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    _files: Arc<Vec<File>>,
}

impl Lease {
    /// Takes these files, and notes that they are used now. Fails where one is not there.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Self, GgufError> {
        let take = |path: &'a Path| {
            let file = hold(path).map_err(|error| GgufError::Read(error).at(path))?;
            // The time of the last access is nobody's proof of anything; only owners may set it.
            let _ = file.set_times(fs::FileTimes::new().set_accessed(SystemTime::now()));
            Ok(file)
        };
        let files: Result<_, GgufError> = paths.into_iter().map(take).collect();
        Ok(Self {
            _files: Arc::new(files?),
        })
    }
}

fn hold(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // Waits for somebody who removes it, or only looks.
    if file.lock_shared().is_ok() && !is_at(&file, path) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(file)
}

/// Takes a file for its removal; `None` where it is in use, or where that cannot be told.
pub(super) fn take_unused(path: &Path) -> io::Result<Option<File>> {
    // Network file systems want the right to write; elsewhere a file that lacks it can go as well.
    let file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path)?,
        opened => opened?,
    };
    for _ in 0..3 {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => thread::sleep(GLANCE),
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
    Ok(None)
}

/// Holds a name in a folder for whoever writes the files of that name, until it is dropped or the
/// process ends. Where the file system has no locks, two writers do the same work, each under names of
/// its own.
#[derive(Debug)]
pub struct WriteLock(Option<File>);

impl WriteLock {
    /// Waits for the lock of this name in a folder, which is created if need be.
    pub fn acquire(dir: &Path, name: &str) -> Result<Self, GgufError> {
        let path = dir.join(name);
        loop {
            fs::create_dir_all(dir).map_err(|error| GgufError::Write(error).at(dir))?;
            match open(&path) {
                // Somebody has just removed the folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(GgufError::Write(error).at(&path)),
                Ok(file) if file.lock().is_err() => return Ok(Self(None)),
                Ok(file) if is_at(&file, &path) => return Ok(Self(Some(file))),
                Ok(_) => {}
            }
        }
    }

    /// Takes the lock, if nobody has it.
    pub(super) fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        let taken = file.try_lock().is_ok() && is_at(&file, path);
        Ok(taken.then_some(Self(Some(file))))
    }

    /// Whether there is no other writer.
    pub(super) fn is_alone(&self) -> bool {
        self.0.is_some()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).open(path)
}

/// Whether a file still lies where it was opened. What was removed meanwhile locks nobody out.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let same = || {
            let (opened, there) = (file.metadata()?, fs::metadata(path)?);
            io::Result::Ok((opened.dev(), opened.ino()) == (there.dev(), there.ino()))
        };
        same().unwrap_or(false)
    }
    #[cfg(not(unix))]
    {
        // A file that is open cannot be removed there.
        let _ = file;
        path.exists()
    }
}
