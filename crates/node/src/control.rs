//! Where a user's commands reach the user's daemon: a Unix socket in the state folder, which
//! nobody else may enter. Requests and replies are lines of JSON.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::NodeError;

/// The most bytes of a line.
const LINE_LIMIT: u64 = 1 << 20;

/// How long whoever connects may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The daemon's end; the socket goes when it is dropped.
#[derive(Debug)]
pub struct ControlListener {
    listener: UnixListener,
    path: PathBuf,
}

/// A connection between a command and the daemon.
#[derive(Debug)]
pub struct Conversation {
    stream: BufReader<UnixStream>,
}

impl ControlListener {
    /// Listens in a state folder, which the caller has locked.
    pub fn bind(folder: &Path) -> Result<Self, NodeError> {
        let path = folder.join("control.sock");
        let bind = || {
            // Left by a daemon that was killed; the lock says that none is running.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            // The folder keeps others out already; this is the second door.
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        match bind() {
            Ok(listener) => Ok(Self { listener, path }),
            Err(error) => Err(NodeError::File { path, error }),
        }
    }

    /// Waits for a command.
    pub fn accept(&self) -> io::Result<Conversation> {
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        Ok(Conversation::new(stream))
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        // One that is left is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

impl Conversation {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Connects to the daemon of a state folder.
    pub fn open(folder: &Path) -> Result<Self, NodeError> {
        let path = folder.join("control.sock");
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self::new(stream)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(NodeError::NoDaemon)
            }
            Err(error) => Err(NodeError::File { path, error }),
        }
    }

    /// Sends a line.
    pub fn say(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)
    }

    /// Waits for a line; `None` at the end.
    pub fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(LINE_LIMIT);
        limited.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_command_reaches_the_daemon_and_nobody_else_does() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Conversation::open(dir.path()),
            Err(NodeError::NoDaemon)
        ));
        drop(ControlListener::bind(dir.path()).unwrap());
        // One that was killed leaves its socket.
        std::mem::forget(ControlListener::bind(dir.path()).unwrap());
        let listener = ControlListener::bind(dir.path()).unwrap();
        let mode = fs::metadata(&listener.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let folder = dir.path().to_owned();
        let asking = thread::spawn(move || {
            let mut asking = Conversation::open(&folder).unwrap();
            asking.say(&"question").unwrap();
            let answer = asking.hear::<Vec<u32>>().unwrap();
            (answer, asking.hear::<u32>().unwrap())
        });
        let mut answering = listener.accept().unwrap();
        assert_eq!(answering.hear::<String>().unwrap().unwrap(), "question");
        answering.say(&[1, 2]).unwrap();
        drop(answering);
        assert_eq!(asking.join().unwrap(), (Some(vec![1, 2]), None));
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let listener = ControlListener::bind(dir.path()).unwrap();
        let mut asking = Conversation::open(dir.path()).unwrap();
        asking.stream.get_mut().write_all(b"{{{\n").unwrap();
        assert!(listener.accept().unwrap().hear::<String>().is_err());
    }
}
