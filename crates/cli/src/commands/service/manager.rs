//! The service manager of this machine: its files and its commands.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::{Account, MARK, Scope, Service, launchd, systemd};

/// Who keeps services here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    Systemd,
    Launchd,
}

/// Whether the service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    Absent,
    /// With this process id.
    Runs(u32),
    /// What the manager says.
    Stopped(String),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("not installed"),
            Self::Runs(pid) => write!(f, "running, process {pid}"),
            Self::Stopped(how) => write!(f, "not running: {how}"),
        }
    }
}

impl Manager {
    pub(super) fn of_this_platform() -> anyhow::Result<Self> {
        if cfg!(target_os = "linux") {
            Ok(Self::Systemd)
        } else if cfg!(target_os = "macos") {
            Ok(Self::Launchd)
        } else {
            bail!("services are for systemd and launchd; let this system start `brigade up`")
        }
    }

    /// The service's file.
    pub(super) fn render(self, service: &Service) -> anyhow::Result<String> {
        match self {
            Self::Systemd => systemd::render(service),
            Self::Launchd => Ok(launchd::render(service)),
        }
    }

    /// Where the service's file lies.
    pub(super) fn file(self, scope: Scope) -> anyhow::Result<PathBuf> {
        let home = || {
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
            home.map(PathBuf::from).context("HOME is not set")
        };
        Ok(match (self, scope) {
            (Self::Systemd, Scope::System) => Path::new("/etc/systemd/system").join(systemd::UNIT),
            (Self::Systemd, Scope::User) => {
                let xdg = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
                let config = match xdg.filter(|folder| folder.is_absolute()) {
                    Some(folder) => folder,
                    None => home()?.join(".config"),
                };
                config.join("systemd/user").join(systemd::UNIT)
            }
            (Self::Launchd, scope) => {
                let root = match scope {
                    Scope::System => PathBuf::from("/Library/LaunchDaemons"),
                    Scope::User => home()?.join("Library/LaunchAgents"),
                };
                root.join(format!("{}.plist", launchd::LABEL))
            }
        })
    }

    /// Writes the file, starts the service, and says what of that was needed.
    pub(super) fn install(self, service: &Service, text: &str) -> anyhow::Result<&'static str> {
        let scope = service.scope;
        must_be_allowed(scope)?;
        if let Err(error) = self.must_run(scope) {
            bail!(
                "{error}; let whatever starts programs here run `{}`, or see the file with \
                 --dry-run",
                service.command_line()
            );
        }
        let file = self.file(scope)?;
        let same = match fs::read_to_string(&file) {
            Ok(old) if !old.contains(MARK) => bail!(
                "{} was not written by this command: remove it first",
                file.display()
            ),
            Ok(old) => old == text,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error).context(file.display().to_string()),
        };
        if same && matches!(self.status(scope)?, Status::Runs(_)) {
            return Ok("installed already, and running");
        }
        write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        match self {
            Self::Systemd => {
                systemctl(scope, &["daemon-reload"])?;
                systemctl(scope, &["enable", "--quiet", systemd::UNIT])?;
                systemctl(scope, &["restart", systemd::UNIT])?;
            }
            Self::Launchd => {
                // It may not be loaded.
                let _ = said("launchctl", &["bootout", &target(scope)]);
                said("launchctl", &["enable", &target(scope)])?;
                let path = file.to_string_lossy();
                said("launchctl", &["bootstrap", &domain(scope), &path])?;
            }
        }
        Ok("installed and started")
    }

    /// Ends the service and removes its file; whether there was one.
    pub(super) fn uninstall(self, scope: Scope) -> anyhow::Result<bool> {
        let file = self.file(scope)?;
        let Ok(text) = fs::read_to_string(&file) else {
            return Ok(false);
        };
        must_be_allowed(scope)?;
        if !text.contains(MARK) {
            bail!("{} was not written by this command", file.display());
        }
        let runs = self.must_run(scope).is_ok();
        match self {
            Self::Systemd if runs => {
                systemctl(scope, &["disable", "--quiet", "--now", systemd::UNIT])?;
            }
            Self::Systemd => {}
            // It may not be loaded.
            Self::Launchd => drop(said("launchctl", &["bootout", &target(scope)])),
        }
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        if self == Self::Systemd && runs {
            systemctl(scope, &["daemon-reload"])?;
        }
        Ok(true)
    }

    pub(super) fn status(self, scope: Scope) -> anyhow::Result<Status> {
        Ok(match self {
            Self::Systemd => {
                let properties = "--property=ActiveState,SubState,MainPID,Result";
                systemd::status(&systemctl(scope, &["show", properties, systemd::UNIT])?)
            }
            Self::Launchd => {
                let printed = said("launchctl", &["print", &target(scope)]);
                launchd::status(&printed.unwrap_or_default())
            }
        })
    }

    /// What else is wise to do or know.
    pub(super) fn hint(self, service: &Service) -> Option<String> {
        match (self, service.scope) {
            (Self::Systemd, Scope::User) => {
                let name = &service.account.name;
                let linger = said("loginctl", &["show-user", name, "--property=Linger"]);
                let stays = linger.is_ok_and(|linger| linger.trim() == "Linger=yes");
                (!stays).then(|| {
                    "it starts when you log in and ends when you log out; to keep it from the \
                     machine's start on: loginctl enable-linger"
                        .to_owned()
                })
            }
            (Self::Systemd, Scope::System) => None,
            (Self::Launchd, Scope::User) => Some(
                "it starts when you log in, and macOS may ask whether it may use the local \
                 network; `sudo brigade service install --system` starts it before any login and \
                 needs no permission"
                    .to_owned(),
            ),
            (Self::Launchd, Scope::System) => Some(
                "with FileVault on, it starts only after somebody has unlocked the disk".to_owned(),
            ),
        }
    }

    /// Whether there is a manager to talk to.
    fn must_run(self, scope: Scope) -> anyhow::Result<()> {
        if self == Self::Launchd {
            return Ok(());
        }
        // What sd_booted(3) looks at.
        if !Path::new("/run/systemd/system").is_dir() {
            bail!("systemd does not run this machine (there is no /run/systemd/system)");
        }
        if scope == Scope::User && systemctl(scope, &["show", "--property=Version"]).is_err() {
            bail!(
                "systemd does not answer for this user: log in as them, not by su or sudo, or \
                 install with --system"
            );
        }
        Ok(())
    }
}

/// Whether this process has root's rights.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn must_be_allowed(scope: Scope) -> anyhow::Result<()> {
    if scope == Scope::System && !is_root() {
        bail!("a service of the machine needs root: put sudo before the command");
    }
    Ok(())
}

/// The program to start: as it is found by its name where that is this one, since a package
/// manager keeps that path when it replaces the file behind it.
pub(super) fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let real = fs::canonicalize(&own).context("cannot tell where this program is")?;
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&paths)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("brigade"))
        .find(|path| fs::canonicalize(path).is_ok_and(|path| path == real));
    Ok(named.unwrap_or(real))
}

/// Who asks.
pub(super) fn this_account() -> anyhow::Result<Account> {
    let name = said("id", &["-un"])?.trim().to_owned();
    let home = std::env::var("HOME").context("HOME is not set")?;
    Ok(Account { name, home })
}

/// A user of this machine, by name.
pub(super) fn account(name: &str) -> anyhow::Result<Account> {
    if name.is_empty() || name.starts_with('-') {
        bail!("'{name}' is no user's name");
    }
    let unknown = || format!("this machine has no user '{name}'");
    let home = if cfg!(target_os = "macos") {
        let user = format!("/Users/{name}");
        let read =
            said("dscl", &[".", "-read", &user, "NFSHomeDirectory"]).with_context(unknown)?;
        home_of_dscl(&read).map(str::to_owned)
    } else {
        let entry = said("getent", &["passwd", name]).with_context(unknown)?;
        home_of_passwd(&entry).map(str::to_owned)
    };
    Ok(Account {
        name: name.to_owned(),
        home: home.with_context(|| format!("user '{name}' has no home folder"))?,
    })
}

/// The home folder in a line of passwd(5).
pub(super) fn home_of_passwd(entry: &str) -> Option<&str> {
    let home = entry.lines().next()?.split(':').nth(5)?;
    home.starts_with('/').then_some(home)
}

/// The home folder in what `dscl . -read /Users/ann NFSHomeDirectory` prints; a value with blanks
/// stands in a line of its own.
pub(super) fn home_of_dscl(read: &str) -> Option<&str> {
    let home = read.split_once("NFSHomeDirectory:")?.1.trim();
    home.starts_with('/').then_some(home)
}

/// launchd's name for where a scope's services live.
fn domain(scope: Scope) -> String {
    match scope {
        Scope::System => "system".to_owned(),
        Scope::User => format!("gui/{}", rustix::process::getuid().as_raw()),
    }
}

fn target(scope: Scope) -> String {
    format!("{}/{}", domain(scope), launchd::LABEL)
}

fn systemctl(scope: Scope, arguments: &[&str]) -> anyhow::Result<String> {
    let scope = match scope {
        Scope::User => "--user",
        Scope::System => "--system",
    };
    said("systemctl", &[&[scope], arguments].concat())
}

/// What a program that succeeds prints.
fn said(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let command = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        match reason.trim() {
            "" => bail!("`{command}` failed ({})", output.status),
            reason => bail!("`{command}` failed: {reason}"),
        }
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes a file that everybody may read, whole or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
