//! A property list for launchd.
//!
//! Keys as launchd.plist(5) has them. Local Network: what launchd starts as a daemon needs no
//! permission, what it starts as an agent does (Apple's TN3179).

use std::fmt::Write as _;

use super::manager::Status;
use super::{MARK, OPEN_FILES, RESTART_SECONDS, STOP_SECONDS, Scope, Service};

/// What launchd calls it.
pub(super) const LABEL: &str = "brigade.node";

/// The property list.
pub(super) fn render(service: &Service) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <!-- {MARK}; it writes it again. -->\n\
         <plist version=\"1.0\">\n<dict>\n"
    );
    string(&mut text, "Label", LABEL);
    text.push_str("\t<key>ProgramArguments</key>\n\t<array>\n");
    for word in std::iter::once(&service.program).chain(&service.arguments) {
        let _ = writeln!(text, "\t\t<string>{}</string>", escaped(word));
    }
    text.push_str("\t</array>\n");
    let mut environment = service.environment.clone();
    if service.scope == Scope::System {
        string(&mut text, "UserName", &service.account.name);
        environment.insert(0, ("HOME".to_owned(), service.account.home.clone()));
    }
    if !environment.is_empty() {
        text.push_str("\t<key>EnvironmentVariables</key>\n\t<dict>\n");
        for (name, value) in &environment {
            let value = escaped(value);
            let _ = writeln!(text, "\t\t<key>{name}</key>\n\t\t<string>{value}</string>");
        }
        text.push_str("\t</dict>\n");
    }
    let log = format!("{}/Library/Logs/brigade.log", service.account.home);
    string(&mut text, "StandardOutPath", &log);
    string(&mut text, "StandardErrorPath", &log);
    text.push_str("\t<key>RunAtLoad</key>\n\t<true/>\n\t<key>KeepAlive</key>\n\t<true/>\n");
    // Else launchd slows the processor and the disk down for it.
    string(&mut text, "ProcessType", "Interactive");
    integer(&mut text, "\t", "ThrottleInterval", RESTART_SECONDS);
    integer(&mut text, "\t", "ExitTimeOut", STOP_SECONDS);
    integer(&mut text, "\t", "Umask", 0o077);
    for limits in ["SoftResourceLimits", "HardResourceLimits"] {
        let _ = writeln!(text, "\t<key>{limits}</key>\n\t<dict>");
        integer(&mut text, "\t\t", "NumberOfFiles", OPEN_FILES);
        text.push_str("\t</dict>\n");
    }
    text.push_str("</dict>\n</plist>\n");
    text
}

fn string(text: &mut String, key: &str, value: &str) {
    let value = escaped(value);
    let _ = writeln!(text, "\t<key>{key}</key>\n\t<string>{value}</string>");
}

fn integer(text: &mut String, indent: &str, key: &str, value: u32) {
    let _ = writeln!(
        text,
        "{indent}<key>{key}</key>\n{indent}<integer>{value}</integer>"
    );
}

/// A text as XML's content.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// What `launchctl print` tells: lines such as `state = running` and `pid = 4711`, among others.
/// Its output is not promised to stay; what is not found counts as not running.
pub(super) fn status(printed: &str) -> Status {
    let value = |name: &str| {
        let mut lines = printed.lines().filter_map(|line| line.split_once(" = "));
        // The first: those of the service stand before those of its parts.
        lines
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let pid = value("pid").and_then(|pid| pid.parse().ok());
    match (value("state"), pid) {
        (Some("running"), Some(pid)) => Status::Runs(pid),
        (state, _) => {
            let code = value("last exit code").map(|code| format!(", last exit code {code}"));
            let state = state.unwrap_or("not loaded");
            Status::Stopped(format!("{state}{}", code.unwrap_or_default()))
        }
    }
}
