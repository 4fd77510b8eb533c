//! Processes of our own: how a parent starts one and how a child lives no longer than its parent.
//!
//! Parent and child talk in lines of JSON: the child's standard input carries orders, its
//! standard output reports. The input is also the lifeline: when it ends, the parent is gone and
//! the child kills itself. On Linux the kernel does that as well, which reaches a child even
//! while it is stopped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::NodeError;

/// How long a child may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Tells a child the process id of its parent.
const PARENT: &str = "BRIGADE_PARENT";

/// Where glibc reads how `malloc` shall work.
const MALLOC_TUNABLES: &str = "GLIBC_TUNABLES";

/// A child process; it is ended and reaped when this is dropped.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
    name: String,
    orders: Option<ChildStdin>,
    /// Ends the thread that started it, which lives as long: on Linux the kernel kills a child with
    /// that thread.
    _keeper: mpsc::Sender<()>,
}

/// The reports of a child, read line by line.
#[derive(Debug)]
pub struct Reports {
    name: String,
    lines: BufReader<ChildStdout>,
}

/// Variables that every child gets, beside this process's own.
static GIVEN: Mutex<Vec<(&str, OsString)>> = Mutex::new(Vec::new());

/// Gives a variable to every child from now on, and by inheritance to theirs: a process cannot
/// safely change its own once it has threads.
pub fn give(variable: &'static str, value: OsString) {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    given.push((variable, value));
}

/// Starts this program again with a hidden command. `name` is for messages.
pub fn spawn(command: &str, name: &str) -> Result<(ChildProcess, Reports), NodeError> {
    spawn_with(&[command.into()], &[], name)
}

/// The same with arguments and changes to the environment.
pub fn spawn_with(
    args: &[OsString],
    environment: &[(&str, OsString)],
    name: &str,
) -> Result<(ChildProcess, Reports), NodeError> {
    let start = |error: io::Error| NodeError::Spawn {
        name: name.to_owned(),
        error,
    };
    let mut builder = Command::new(executable().map_err(start)?);
    builder
        .args(args)
        .envs(GIVEN.lock().unwrap_or_else(PoisonError::into_inner).clone())
        .envs(environment.iter().cloned())
        .env(PARENT, std::process::id().to_string())
        // An abort inside ggml starts a debugger otherwise.
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // Weights in huge pages: with small ones, walking page tables takes a tenth of the time.
    // Only glibc knows the variable, and a user who has set it knows better.
    if std::env::var_os(MALLOC_TUNABLES).is_none() {
        builder.env(MALLOC_TUNABLES, "glibc.malloc.hugetlb=1");
    }
    #[cfg(unix)]
    std::os::unix::process::CommandExt::arg0(&mut builder, "brigade");
    let (keeper, release) = mpsc::channel::<()>();
    let (sender, started) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(builder.spawn());
        let _ = release.recv();
    });
    let child = started
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("no thread")));
    let mut child = child.map_err(start)?;
    let orders = child.stdin.take();
    let reports = child
        .stdout
        .take()
        .ok_or_else(|| start(io::Error::other("no pipe")))?;
    Ok((
        ChildProcess {
            child,
            name: name.to_owned(),
            orders,
            _keeper: keeper,
        },
        Reports {
            name: name.to_owned(),
            lines: BufReader::new(reports),
        },
    ))
}

fn executable() -> io::Result<PathBuf> {
    // Stays valid when the file is replaced by a new build while this process runs.
    let own = PathBuf::from("/proc/self/exe");
    if cfg!(target_os = "linux") && own.exists() {
        return Ok(own);
    }
    std::env::current_exe()
}

impl ChildProcess {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends an order.
    pub fn order(&mut self, order: &impl Serialize) -> Result<(), NodeError> {
        let Some(orders) = &mut self.orders else {
            return Err(self.gone());
        };
        if write_line(orders, order).is_err() {
            return Err(self.gone());
        }
        Ok(())
    }

    /// An error that says how the process ended.
    pub fn gone(&mut self) -> NodeError {
        let how = match self.wait_until(Instant::now() + GRACE) {
            Some(status) => describe(status),
            None => "it does not answer".to_owned(),
        };
        NodeError::ChildGone {
            name: self.name.clone(),
            how,
        }
    }

    /// Kills it, for it has not answered in this time; an error that says so.
    pub fn hangs(&mut self, silence: Duration) -> NodeError {
        let _ = self.child.kill();
        NodeError::ChildGone {
            name: self.name.clone(),
            how: format!("it did not answer for {} s", silence.as_secs()),
        }
    }

    /// Tells it to end, without waiting for that.
    pub fn release(&mut self) {
        self.orders = None;
    }

    /// Tells it to end, and sees to it.
    pub fn end(&mut self) {
        self.release();
        if self.wait_until(Instant::now() + GRACE).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.end();
    }
}

impl Reports {
    /// Waits until a report begins, or the child has closed its output; false if neither happens in
    /// this time. Where pipes cannot be waited for, it is true at once.
    pub fn wait(&self, limit: Duration) -> bool {
        #[cfg(unix)]
        {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let deadline = Instant::now() + limit;
            while self.lines.buffer().is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = Timespec::try_from(left).ok();
                let mut pipe = [PollFd::new(self.lines.get_ref(), PollFlags::IN)];
                match poll(&mut pipe, timeout.as_ref()) {
                    Ok(0) => return false,
                    Err(rustix::io::Errno::INTR) => {}
                    Ok(_) | Err(_) => break,
                }
            }
        }
        true
    }

    /// Waits for the next report; `None` when the child has closed its output.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, NodeError> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) | Err(_) => Ok(None),
            Ok(_) => serde_json::from_str(&line)
                .map(Some)
                .map_err(|error| NodeError::Protocol {
                    name: self.name.clone(),
                    reason: format!("it reported {:?}: {error}", line.trim_end()),
                }),
        }
    }
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let hint = match signal {
            6 => " (it aborted)",
            9 => " (killed, perhaps for want of memory)",
            11 => " (it crashed)",
            _ => "",
        };
        return format!("it was ended by signal {signal}{hint}");
    }
    match status.code() {
        Some(code) => format!("it ended with status {code}"),
        None => "it ended".to_owned(),
    }
}

/// Whether this process was started by [`spawn`].
pub fn has_parent() -> bool {
    std::env::var_os(PARENT).is_some()
}

/// The child's side: binds this process's life to its parent's and gives the orders as they come.
pub fn orders<T: DeserializeOwned + Send + 'static>() -> mpsc::Receiver<T> {
    die_with_parent();
    keep_output();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str(&line) {
                Ok(order) => {
                    let _ = sender.send(order);
                }
                Err(error) => {
                    tracing::error!(%error, "the parent sent something that is no order");
                    break;
                }
            }
        }
        end_now();
    });
    receiver
}

/// The child's side, for one that gets no orders: binds this process's life to its parent's, and
/// calls `released` when the parent lets go.
pub fn until_released(released: impl FnOnce() + Send + 'static) {
    die_with_parent();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        released();
    });
}

/// The child's side: sends a report.
pub fn report(report: &impl Serialize) {
    let written = match REPORTS.get() {
        Some(mut reports) => write_line(&mut reports, report),
        None => write_line(&mut io::stdout().lock(), report),
    };
    if written.is_err() {
        end_now();
    }
}

/// The way to the parent, once nothing else is written there.
static REPORTS: OnceLock<File> = OnceLock::new();

/// Keeps standard output for reports: llama.cpp's RPC server prints there too, and its lines
/// lead nowhere from now on.
fn keep_output() {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        let keep = || -> io::Result<File> {
            let reports = io::stdout().as_fd().try_clone_to_owned()?;
            let nowhere = File::options().write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdout(nowhere)?;
            Ok(reports.into())
        };
        if let Ok(reports) = keep() {
            let _ = REPORTS.set(reports);
        }
    }
}

fn write_line(stream: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.flush()
}

/// Ends this process at once, without destructors that could wait for a computation.
fn end_now() -> ! {
    #[cfg(unix)]
    {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    std::process::exit(0)
}

fn die_with_parent() {
    #[cfg(unix)]
    {
        // A terminal sends Ctrl-C to every process of the group; the parent decides what it means.
        let ignored = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let _ = signal_hook::flag::register(signal_hook::consts::SIGINT, ignored);
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        // The parent may have died before the kernel was told.
        let expected = std::env::var(PARENT).ok();
        let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
        if expected.is_some() && expected != parent {
            end_now();
        }
    }
}
