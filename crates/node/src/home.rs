//! The state folder: who this node is, and whom it trusts.
//!
//! ```text
//! identity       the node's Ed25519 key pair (PKCS#8), made once
//! members.json   the cluster's table
//! listen         the address that was last named for listening, if one was
//! lock           held by the running daemon
//! control.sock   where this user's commands reach the daemon
//! ```
//!
//! The folder and what is in it belong to its user alone. Files are written beside their names,
//! synced and renamed, so that a power cut leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use brigade_wire::members::Members;

use crate::{KeyPair, NodeError};

/// The table is never longer than this, in bytes.
const MEMBERS_FILE_LIMIT: u64 = 4 << 20;

/// How long a daemon that was killed may still hold the folder: its threads end one by one, and whoever
/// starts it again may be quicker.
const LEAVING: Duration = Duration::from_secs(1);

/// A state folder, for this process alone.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    identity: KeyPair,
    /// Holds the lock until it is dropped or the process ends.
    _lock: File,
}

/// The state folder: `BRIGADE_HOME`, else the platform's folder for data with `brigade` in it.
pub fn home_dir() -> Result<PathBuf, NodeError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable("BRIGADE_HOME") {
        return Ok(folder.into());
    }
    // The XDG specification says to ignore a relative path.
    let xdg = variable("XDG_DATA_HOME").map(PathBuf::from);
    if let Some(folder) = xdg.filter(|folder| folder.is_absolute()) {
        return Ok(folder.join("brigade"));
    }
    let home = PathBuf::from(variable("HOME").ok_or(NodeError::NoHome)?);
    Ok(if cfg!(target_os = "macos") {
        home.join("Library/Application Support/brigade")
    } else {
        home.join(".local/share/brigade")
    })
}

impl Home {
    /// Opens a state folder, makes it and the identity if there are none, and keeps every other
    /// process out of it.
    pub fn open(folder: &Path) -> Result<Self, NodeError> {
        let until = Instant::now() + LEAVING;
        Self::open_waiting(folder, || {
            thread::sleep(Duration::from_millis(20));
            Instant::now() < until
        })
    }

    /// The same, trying again for as long as `wait` says so.
    fn open_waiting(folder: &Path, mut wait: impl FnMut() -> bool) -> Result<Self, NodeError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| NodeError::File { path, error }
        };
        make_private_folder(folder).map_err(failed(folder))?;
        let path = folder.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed(&path))?;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if wait() => {}
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(NodeError::HomeInUse(folder.to_owned()));
                }
                Err(fs::TryLockError::Error(error)) => return Err(failed(&path)(error)),
            }
        }
        Ok(Self {
            identity: identity(&folder.join("identity"))?,
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    /// Who this node is.
    pub fn identity(&self) -> &KeyPair {
        &self.identity
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The address that was last named for listening.
    pub fn listen(&self) -> Result<Option<SocketAddr>, NodeError> {
        let path = self.folder.join("listen");
        let failed = |error| NodeError::File {
            path: path.clone(),
            error,
        };
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(address) => Ok(Some(address)),
                Err(_) => Err(failed(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it holds no address; delete it",
                ))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Keeps the address that was named for listening.
    pub fn keep_listen(&self, address: SocketAddr) -> Result<(), NodeError> {
        let path = self.folder.join("listen");
        write(&path, format!("{address}\n").as_bytes(), Existing::Replaced)
            .map_err(|error| NodeError::File { path, error })
    }

    /// The table as it was last written; empty if it never was.
    pub fn members(&self) -> Result<Members, NodeError> {
        let path = self.folder.join("members.json");
        let failed = |error| NodeError::File {
            path: path.clone(),
            error,
        };
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => file
                .take(MEMBERS_FILE_LIMIT)
                .read_to_end(&mut text)
                .map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Members::default());
            }
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_slice(&text).map_err(|error| {
            failed(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "it is not the table of members any more ({error}); put a copy of it back, or \
                     delete it and join the cluster again"
                ),
            ))
        })
    }

    /// Writes the table.
    pub fn keep_members(&self, members: &Members) -> Result<(), NodeError> {
        let path = self.folder.join("members.json");
        let text = serde_json::to_vec_pretty(members).map_err(io::Error::from);
        text.and_then(|text| write(&path, &text, Existing::Replaced))
            .map_err(|error| NodeError::File { path, error })
    }
}

/// Reads the node's key pair, or makes one.
fn identity(path: &Path) -> Result<KeyPair, NodeError> {
    let failed = |error| NodeError::File {
        path: path.to_owned(),
        error,
    };
    match fs::read(path) {
        Ok(bytes) => {
            only_ours(path).map_err(failed)?;
            KeyPair::from_pkcs8(&bytes)
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let pair = KeyPair::generate();
            // Never over another one: whoever trusts it would not know this node again.
            write(path, pair.pkcs8(), Existing::Kept).map_err(failed)?;
            Ok(pair)
        }
        Err(error) => Err(failed(error)),
    }
}

/// What happens to a file that is there already.
#[derive(Clone, Copy)]
enum Existing {
    Replaced,
    Kept,
}

/// Writes a file whole or not at all, in place of what is there, for the owner's eyes only.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, Existing::Replaced)
}

/// Writes a file whole or not at all, for the owner's eyes only.
fn write(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Made with permissions for the owner alone.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match existing {
        Existing::Replaced => file.persist(path),
        Existing::Kept => file.persist_noclobber(path),
    }
    .map_err(|error| error.error)?;
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(unix)]
fn make_private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn make_private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// An identity that others could read is no identity any more.
#[cfg(unix)]
fn only_ours(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)?.permissions().mode();
    let by_others = mode & 0o077;
    if by_others == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "others may read this node's key (mode {:o}): if nobody has, `chmod 600` it; \
             else delete it and join again",
            mode & 0o777
        ),
    ))
}

#[cfg(not(unix))]
fn only_ours(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_identity_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let home = Home::open(&folder).unwrap();
        let id = home.identity().id();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("identity")), 0o600);
        let busy = Home::open(&folder).unwrap_err().to_string();
        assert!(busy.contains("already running"), "{busy}");
        // One that is about to end is waited for.
        let mut leaving = Some(home);
        let again = Home::open_waiting(&folder, || leaving.take().is_some());
        drop(again.unwrap());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(Home::open(&folder).unwrap().identity().id(), id);
        assert_eq!(mode(&folder), 0o700);
        let other = Home::open(&dir.path().join("c")).unwrap();
        assert_ne!(other.identity().id(), id);
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Home::open(dir.path()).unwrap());
        let path = dir.path().join("identity");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Home::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("others may read this node's key (mode 640)"),
            "{error}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        let error = Home::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not an Ed25519 key"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"no key");
    }

    #[test]
    fn the_table_is_written_whole_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(home.members().unwrap(), Members::default());
        let mut members = Members::default();
        let addresses = [([127, 0, 0, 1], 1).into()];
        members.admit(home.identity().public(), "me", &addresses);
        home.keep_members(&members).unwrap();
        home.keep_members(&members).unwrap();
        assert_eq!(home.members().unwrap(), members);
        assert_eq!(mode(&dir.path().join("members.json")), 0o600);
        let files = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 3, "no half-written file is left");
        fs::write(dir.path().join("members.json"), "{").unwrap();
        assert!(home.members().is_err());
    }
}
