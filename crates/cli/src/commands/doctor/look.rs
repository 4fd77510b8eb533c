//! Asks the system and the daemon.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use brigade_node::NodeView;

use super::firewall::{self, Gate, Ports};
use super::machine::Folder;
use super::network::Interface;
use super::{Check, cluster, machine, network, power};
use crate::commands::up::{STAGE_PORTS, USUAL_PORT};
use crate::control::{Reply, Request, ask};
use crate::this_machine;

pub(super) fn all() -> Vec<Check> {
    let nodes = match ask(&Request::Nodes, |_| {}) {
        Ok(Reply::Nodes { nodes, .. }) => Some(nodes),
        _ => None,
    };
    let nodes = nodes.as_deref();
    let mut checks = vec![state(), disk(), processor(), devices()];
    checks.extend(cluster::nodes(nodes));
    checks.push(ways(nodes));
    checks.push(open_files());
    let is_mac = cfg!(target_os = "macos");
    checks.extend(if is_mac {
        on_macos(nodes)
    } else {
        on_linux(nodes)
    });
    checks.extend([clock(), cluster::clocks(nodes)]);
    checks
}

fn on_linux(nodes: Option<&[NodeView]>) -> Vec<Check> {
    vec![
        linux_firewall(nodes),
        linux_sleep(),
        machine::overcommit(&read("/proc/sys/vm/overcommit_memory")),
        machine::huge_pages(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
        Check::not_applicable("local network", "only macOS asks for it"),
        Check::not_applicable("FileVault", "only macOS has it"),
        Check::not_applicable("GPU memory", "only macOS limits it"),
    ]
}

fn on_macos(nodes: Option<&[NodeView]>) -> Vec<Check> {
    let filter = "/usr/libexec/ApplicationFirewall/socketfilterfw";
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.to_string_lossy();
    let settings = said("pmset", &["-g"]).unwrap_or_default();
    let ask = |arguments: &[&str]| said(filter, arguments).unwrap_or_default();
    let sysctl = |name: &str| said("sysctl", &["-n", name]).unwrap_or_default();
    vec![
        firewall::macos(
            &ask(&["--getglobalstate"]),
            &ask(&["--getblockall"]),
            &ask(&["--getappblocked", &program]),
        ),
        cluster::local_network(nodes),
        power::pmset(&settings),
        power::autorestart(&settings),
        power::filevault(&said("fdesetup", &["status"]).unwrap_or_default()),
        machine::metal_limit(&sysctl("iogpu.wired_limit_mb"), &sysctl("hw.memsize")),
    ]
}

fn state() -> Check {
    let Ok(path) = brigade_node::home_dir() else {
        return Check::problem(
            "state folder",
            "there is no home folder to keep it in",
            "name a folder in BRIGADE_HOME",
        );
    };
    let folder = fs::metadata(&path).ok().map(|folder| Folder {
        mode: folder.permissions().mode(),
        is_ours: folder.uid() == rustix::process::geteuid().as_raw(),
        key_mode: fs::metadata(path.join("identity"))
            .ok()
            .map(|file| file.permissions().mode()),
    });
    machine::state(&path.to_string_lossy(), folder)
}

fn disk() -> Check {
    let Ok(path) = brigade_node::cache_dir() else {
        return machine::disk("the cache folder", None);
    };
    let free = path
        .ancestors()
        .find_map(|folder| rustix::fs::statvfs(folder).ok())
        .map(|space| space.f_bavail.saturating_mul(space.f_frsize));
    machine::disk(&path.to_string_lossy(), free)
}

fn processor() -> Check {
    let compiled: Vec<&str> = [
        (cfg!(target_feature = "avx"), "avx"),
        (cfg!(target_feature = "avx2"), "avx2"),
        (cfg!(target_feature = "fma"), "fma"),
        (cfg!(target_feature = "bmi2"), "bmi2"),
        (cfg!(target_feature = "avx512f"), "avx512f"),
        (cfg!(target_feature = "avx512vnni"), "avx512_vnni"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect();
    let cpuinfo = read("/proc/cpuinfo");
    let llama = brigade_llama::cpu_features();
    machine::processor(&compiled, &llama, &machine::flags(&cpuinfo))
}

fn devices() -> Check {
    let mut facts = this_machine::of_system();
    facts.ask_devices();
    machine::devices(&facts)
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    machine::open_files(limit.current)
}

fn clock() -> Check {
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.map(|since| since.as_secs()).unwrap_or_default()
    };
    let built = std::env::current_exe()
        .and_then(fs::metadata)
        .and_then(|file| file.modified());
    let told = said("timedatectl", &["show", "--property=NTPSynchronized"]);
    machine::clock(
        &told.unwrap_or_default(),
        seconds(SystemTime::now()),
        built.ok().map(seconds),
    )
}

fn linux_firewall(nodes: Option<&[NodeView]>) -> Check {
    let own = nodes.into_iter().flatten().find(|node| node.is_self);
    let ports = Ports {
        node: own
            .and_then(NodeView::address)
            .map_or(USUAL_PORT, |own| own.port()),
        stages: (STAGE_PORTS.first, STAGE_PORTS.last),
    };
    // Whether other machines have to reach this one.
    let reached = own.is_some_and(|own| !own.is_inside());
    if let Some(status) = said("ufw", &["status"]) {
        let gate = firewall::ufw(&status, ports);
        // Where it is off, other rules may be there.
        if gate != Some(Gate::Open) || status.contains("Status: active") {
            return firewall::linux("ufw", gate, ports, reached);
        }
    }
    if let Some(ruleset) = said("nft", &["--json", "list", "ruleset"]) {
        let who = match said("firewall-cmd", &["--state"]) {
            Some(state) if state.trim() == "running" => "firewalld",
            _ => "nftables",
        };
        return firewall::linux(who, firewall::nft(&ruleset, ports), ports, reached);
    }
    let tables = fs::read_dir("/proc/sys/net/netfilter").is_ok();
    if tables || Path::new("/usr/sbin/nft").exists() {
        return firewall::untold(rustix::process::geteuid().is_root());
    }
    firewall::linux("no firewall: the kernel", Some(Gate::Open), ports, reached)
}

fn linux_sleep() -> Check {
    let mut logind = read("/etc/systemd/logind.conf");
    let drop_ins = fs::read_dir("/etc/systemd/logind.conf.d");
    let mut drop_ins: Vec<_> = drop_ins
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    drop_ins.sort();
    for path in drop_ins {
        logind.push('\n');
        logind.push_str(&read(path));
    }
    let target = if Path::new("/run/systemd/system").is_dir() {
        // The exit status tells apart what the text tells already.
        printed("systemctl", &["is-enabled", "sleep.target"]).unwrap_or_default()
    } else {
        String::new()
    };
    let key = "org.gnome.settings-daemon.plugins.power";
    let gnome = said("gsettings", &["get", key, "sleep-inactive-ac-type"]);
    let batteries = fs::read_dir("/sys/class/power_supply");
    let is_laptop = batteries.into_iter().flatten().flatten().any(|supply| {
        let name = supply.file_name();
        name.to_string_lossy().starts_with("BAT")
    });
    power::linux(&target, &logind, &gnome.unwrap_or_default(), is_laptop)
}

fn ways(nodes: Option<&[NodeView]>) -> Check {
    let others = nodes.into_iter().flatten().filter(|node| !node.is_self);
    let ways: Vec<_> = others
        .filter(|node| !node.is_inside())
        .filter_map(|node| Some((node.name.clone(), device(node.address()?.ip()))))
        .collect();
    network::ways(&ways, &interfaces())
}

/// The interface that leads to an address.
fn device(address: IpAddr) -> Option<String> {
    let address = address.to_string();
    if cfg!(target_os = "macos") {
        let family = if address.contains(':') {
            "-inet6"
        } else {
            "-inet"
        };
        network::device_of_route(&said("route", &["-n", "get", family, &address])?)
    } else {
        network::device_of_ip(&said("ip", &["-json", "route", "get", &address])?)
    }
}

fn interfaces() -> Vec<Interface> {
    if cfg!(target_os = "macos") {
        let ports = said("networksetup", &["-listallhardwareports"]).unwrap_or_default();
        let active = said("ifconfig", &[]).unwrap_or_default();
        return network::interfaces_of_macos(&ports, &active);
    }
    let entries = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    entries
        // Those without a device are bridges, tunnels and the like.
        .filter(|entry| entry.path().join("device").exists())
        .map(|entry| Interface {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_wireless: entry.path().join("wireless").exists(),
            is_up: read(entry.path().join("carrier")).trim() == "1",
            label: None,
        })
        .collect()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What a program that succeeds prints.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    run(program, arguments)
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a program prints, however it ends.
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    run(program, arguments).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(program: &str, arguments: &[&str]) -> Option<std::process::Output> {
    // Where a user's PATH does not lead, most of these tools lie.
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
}
