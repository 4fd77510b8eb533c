//! A systemd unit.

use std::fmt::Write as _;

use anyhow::bail;

use super::manager::Status;
use super::{MARK, OPEN_FILES, RESTART_SECONDS, STOP_SECONDS, Scope, Service};

/// The unit's name.
pub(super) const UNIT: &str = "brigade.service";

/// The unit's file.
pub(super) fn render(service: &Service) -> anyhow::Result<String> {
    // However it is written ("Executable name contains special characters", systemd 252).
    if service.program.contains(['"', '\'', '\\']) {
        bail!(
            "systemd starts no program with a quote or a backslash in its path: move {}",
            service.program
        );
    }
    let mut text = format!("# {MARK}; it writes it again.\n[Unit]\n");
    text.push_str("Description=Brigade, several machines as one language model\n");
    if service.scope == Scope::System {
        text.push_str("Wants=network-online.target\nAfter=network-online.target\n");
    }
    // A machine may have its address only some minutes after a power cut.
    text.push_str("StartLimitIntervalSec=0\n\n[Service]\nType=exec\n");
    if service.scope == Scope::System {
        let _ = writeln!(text, "User={}", specifier(&service.account.name));
    }
    for (name, value) in &service.environment {
        let _ = writeln!(text, "Environment={}", quoted(&format!("{name}={value}")));
    }
    // Variables are not replaced in the program's own path, so a `$` there stays one.
    let _ = write!(text, "ExecStart={}", quoted(&service.program));
    for argument in &service.arguments {
        let _ = write!(text, " {}", quoted(&argument.replace('$', "$$")));
    }
    let _ = write!(
        text,
        "\nRestart=always\nRestartSec={RESTART_SECONDS}\nTimeoutStopSec={STOP_SECONDS}\n\
         KillMode=mixed\nLimitNOFILE={OPEN_FILES}\nUMask=0077\n\
         # A stage that outgrows the memory must not take the node with it.\n\
         OOMPolicy=continue\n\n[Install]\nWantedBy={}\n",
        match service.scope {
            Scope::User => "default.target",
            Scope::System => "multi-user.target",
        }
    );
    Ok(text)
}

/// A text in quotes, as systemd.syntax(7) and systemd.unit(5) have it.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", specifier(&escaped))
}

/// A text in which nothing is a specifier.
fn specifier(text: &str) -> String {
    text.replace('%', "%%")
}

/// What `systemctl show --property=ActiveState,SubState,MainPID,Result` tells.
pub(super) fn status(shown: &str) -> Status {
    let value = |name: &str| {
        let mut lines = shown.lines().filter_map(|line| line.split_once('='));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let pid = value("MainPID").and_then(|pid| pid.parse().ok());
    match (value("ActiveState"), pid) {
        (Some("active"), Some(pid)) if pid > 0 => Status::Runs(pid),
        (Some(state), _) => {
            let details = [value("SubState"), value("Result")];
            let details: Vec<&str> = details
                .into_iter()
                .flatten()
                .filter(|detail| !detail.is_empty() && *detail != "success")
                .collect();
            Status::Stopped(format!("{state} ({})", details.join(", ")))
        }
        (None, _) => Status::Stopped("systemd tells nothing of it".to_owned()),
    }
}
