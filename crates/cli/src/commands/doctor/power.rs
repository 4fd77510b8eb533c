//! Whether the machine stays awake, and comes back after a power cut.

use super::Check;

const SLEEP: &str = "sleep";

/// What `pmset -g` of macOS says of idle sleep: a line ` sleep                1 (…)`, minutes,
/// 0 for never. From its manual; not seen here.
pub(super) fn pmset(settings: &str) -> Check {
    let value = |name: &str| {
        settings.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(name)).then(|| words.next()?.parse::<u32>().ok())?
        })
    };
    match value("sleep") {
        Some(0) => Check::ok(SLEEP, "this Mac does not sleep by itself"),
        Some(minutes) => Check::problem(
            SLEEP,
            format!("this Mac sleeps after {minutes} min without input"),
            "sudo pmset -a sleep 0",
        ),
        None => Check::unknown(SLEEP, "pmset tells nothing of sleep"),
    }
}

/// Whether a Mac starts again by itself when the power comes back: `autorestart` of `pmset -g`.
pub(super) fn autorestart(settings: &str) -> Check {
    let name = "power cut";
    let mut lines = settings.lines().map(str::trim);
    let value = lines.find_map(|line| line.strip_prefix("autorestart"));
    match value.map(str::trim) {
        Some("1") => Check::ok(name, "this Mac starts again when the power comes back"),
        Some("0") => Check::warning(
            name,
            "this Mac stays off when the power comes back",
            "sudo pmset -a autorestart 1",
        ),
        _ => Check::not_applicable(name, "this Mac has no such setting"),
    }
}

/// What `fdesetup status` says: `FileVault is On.` or `FileVault is Off.`
pub(super) fn filevault(status: &str) -> Check {
    let name = "FileVault";
    if status.contains("FileVault is Off") {
        Check::ok(
            name,
            "off: after a power cut this Mac starts without anybody",
        )
    } else if status.contains("FileVault is On") {
        Check::warning(
            name,
            "on: after a power cut this Mac waits until somebody unlocks the disk",
            "turn it off where the place is safe; for a planned restart: sudo fdesetup authrestart",
        )
    } else {
        Check::unknown(name, "fdesetup tells nothing of it")
    }
}

/// What a Linux machine's settings say. `target` is what `systemctl is-enabled sleep.target`
/// prints (systemd 252: `static`, or `masked`), `logind` the text of logind.conf and of its
/// drop-ins, `gnome` what `gsettings get org.gnome.settings-daemon.plugins.power
/// sleep-inactive-ac-type` prints.
pub(super) fn linux(target: &str, logind: &str, gnome: &str, is_laptop: bool) -> Check {
    let fix = "sudo systemctl mask sleep.target suspend.target hibernate.target";
    if target.trim() == "masked" {
        return Check::ok(SLEEP, "sleep.target is masked");
    }
    // The last one counts.
    let setting = |name: &str| {
        let lines = logind.lines().filter_map(|line| line.split_once('='));
        lines
            .filter(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
            .next_back()
    };
    let sleeps = |action: &str| {
        matches!(action, "suspend" | "hibernate" | "hybrid-sleep")
            || action.starts_with("suspend-then")
    };
    if let Some(action) = setting("IdleAction").filter(|action| sleeps(action)) {
        return Check::problem(SLEEP, format!("logind's IdleAction is {action}"), fix);
    }
    if gnome.contains("suspend") || gnome.contains("hibernate") {
        return Check::problem(
            SLEEP,
            "the desktop suspends this machine when nobody uses it",
            fix,
        );
    }
    let lid = setting("HandleLidSwitch").unwrap_or("suspend");
    if is_laptop && sleeps(lid) {
        return Check::warning(SLEEP, "this machine sleeps when its lid is closed", fix);
    }
    if target.trim().is_empty() {
        return Check::not_applicable(SLEEP, "nothing here puts this machine to sleep");
    }
    Check::ok(SLEEP, "nothing puts this machine to sleep by itself")
}
