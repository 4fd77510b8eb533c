//! Which commands install what is missing. Decides only; nothing runs here.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use super::Need;
use crate::host::which;

/// Where packages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// Debian, Ubuntu and their kin.
    Apt,
    /// macOS with Homebrew.
    Homebrew,
    /// macOS without it: only Apple's command line tools can be had.
    BareMac,
    Unknown,
}

impl System {
    pub(super) fn detect() -> Self {
        if cfg!(target_os = "macos") {
            if which("brew").is_some() {
                Self::Homebrew
            } else {
                Self::BareMac
            }
        } else if which("apt-get").is_some() {
            Self::Apt
        } else {
            Self::Unknown
        }
    }
}

/// Something to install, under the name that the system's installer knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Package {
    Named(&'static str),
    /// Apple's command line tools: compiler, make and libclang in one.
    AppleTools,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named(name) => name,
            Self::AppleTools => "Apple's command line tools",
        })
    }
}

/// The packages that meet `missing`, each once.
pub(super) fn packages(system: System, missing: &[Need]) -> Vec<Package> {
    let mut packages = Vec::new();
    for need in missing {
        let package = match system {
            System::Apt => Package::Named(match need {
                Need::CxxCompiler => "g++",
                Need::Cmake => "cmake",
                Need::Make => "make",
                Need::Libclang => "libclang-dev",
                Need::Pip | Need::Venv => "python3-venv",
            }),
            System::Homebrew | System::BareMac => match need {
                Need::CxxCompiler | Need::Make | Need::Libclang => Package::AppleTools,
                Need::Cmake => Package::Named("cmake"),
                Need::Pip | Need::Venv => Package::Named("python3"),
            },
            System::Unknown => Package::Named(match need {
                Need::CxxCompiler => "g++ or clang++",
                Need::Cmake => "cmake",
                Need::Make => "make",
                Need::Libclang => "libclang with its headers (clang-devel, clang)",
                Need::Pip | Need::Venv => "python3 with pip and venv",
            }),
        };
        if !packages.contains(&package) {
            packages.push(package);
        }
    }
    packages
}

/// Commands that install packages, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) commands: Vec<Line>,
    pub(super) as_root: bool,
}

/// One command of a [`Plan`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    words: Vec<&'static str>,
    /// Whether the commands after it are worth a try when it fails.
    pub(super) may_fail: bool,
}

impl Line {
    fn new(words: &[&'static str]) -> Self {
        Self {
            words: words.to_vec(),
            may_fail: false,
        }
    }

    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().copied()
    }
}

impl Plan {
    /// The whole plan as one line for a shell, each command after the words of `prefix`.
    pub(super) fn shell(&self, prefix: &[&str]) -> String {
        self.commands
            .iter()
            .map(|line| {
                let words: Vec<&str> = prefix.iter().copied().chain(line.words()).collect();
                words.join(" ")
            })
            .collect::<Vec<_>>()
            .join(" && ")
    }
}

/// How to install `packages` on `system`; `None` where that is left to the user.
pub(super) fn plan(system: System, packages: &[Package], lists: Lists) -> Option<Plan> {
    let named: Vec<&'static str> = packages
        .iter()
        .filter_map(|package| match package {
            Package::Named(name) => Some(*name),
            Package::AppleTools => None,
        })
        .collect();
    let mut commands = Vec::new();
    match system {
        System::Unknown => return None,
        System::BareMac if !named.is_empty() => return None,
        System::Apt => {
            if lists == Lists::Old {
                commands.push(Line {
                    may_fail: true,
                    ..Line::new(&["apt-get", "update"])
                });
            }
            let mut line = Line::new(&["apt-get", "install", "-y", "--no-install-recommends"]);
            line.words.extend(named);
            commands.push(line);
        }
        System::Homebrew | System::BareMac => {
            if packages.contains(&Package::AppleTools) {
                commands.push(Line::new(&["xcode-select", "--install"]));
            }
            if !named.is_empty() {
                let mut line = Line::new(&["brew", "install"]);
                line.words.extend(named);
                commands.push(line);
            }
        }
    }
    Some(Plan {
        commands,
        as_root: system == System::Apt,
    })
}

/// The state of apt's package lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    Fresh,
    Old,
}

/// Lists older than a day, or none (as in a container image), name versions that the mirror may have dropped.
pub(super) fn lists_are_old() -> Lists {
    const FRESH: Duration = Duration::from_secs(24 * 3600);
    let newest = fs::read_dir("/var/lib/apt/lists")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        .filter_map(|entry| {
            // The file's own time is the mirror's; its status changes when it is fetched.
            let changed = std::os::unix::fs::MetadataExt::ctime(&entry.metadata().ok()?);
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(changed.try_into().ok()?))
        })
        .max();
    match newest.map(|time| time.elapsed()) {
        // A list from the future: the clock was set back, and the list is new.
        Some(Err(_)) => Lists::Fresh,
        Some(Ok(age)) if age < FRESH => Lists::Fresh,
        _ => Lists::Old,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Need; 6] = [
        Need::CxxCompiler,
        Need::Cmake,
        Need::Make,
        Need::Libclang,
        Need::Pip,
        Need::Venv,
    ];

    fn shell(system: System, missing: &[Need], lists: Lists, prefix: &[&str]) -> Option<String> {
        plan(system, &packages(system, missing), lists).map(|plan| plan.shell(prefix))
    }

    #[test]
    fn debian_installs_each_package_once() {
        assert_eq!(
            shell(System::Apt, &ALL, Lists::Fresh, &[]).unwrap(),
            "apt-get install -y --no-install-recommends g++ cmake make libclang-dev python3-venv"
        );
        assert_eq!(
            shell(System::Apt, &[Need::Cmake], Lists::Fresh, &[]).unwrap(),
            "apt-get install -y --no-install-recommends cmake"
        );
    }

    #[test]
    fn old_lists_are_updated_first_and_that_may_fail() {
        let missing = packages(System::Apt, &[Need::Make]);
        let plan = plan(System::Apt, &missing, Lists::Old).unwrap();
        assert!(plan.as_root);
        assert!(plan.commands[0].may_fail && !plan.commands[1].may_fail);
        assert_eq!(
            plan.shell(&["sudo"]),
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends make"
        );
    }

    #[test]
    fn homebrew_needs_no_root() {
        let missing = packages(System::Homebrew, &ALL);
        let plan = plan(System::Homebrew, &missing, Lists::Old).unwrap();
        assert!(!plan.as_root);
        assert_eq!(
            plan.shell(&[]),
            "xcode-select --install && brew install cmake python3"
        );
    }

    #[test]
    fn mac_without_homebrew_gets_apples_tools_only() {
        assert_eq!(
            shell(System::BareMac, &[Need::Libclang], Lists::Old, &[]).unwrap(),
            "xcode-select --install"
        );
        assert_eq!(
            shell(System::BareMac, &[Need::Cmake], Lists::Old, &[]),
            None
        );
    }

    #[test]
    fn unknown_system_is_left_to_the_user() {
        assert_eq!(shell(System::Unknown, &ALL, Lists::Old, &[]), None);
        assert_eq!(packages(System::Unknown, &ALL).len(), 5);
    }
}
