use brigade_node::{NodeState, NodeView};

use super::firewall::{Gate, Ports};
use super::machine::Folder;
use super::network::Interface;
use super::*;
use crate::this_machine::devices::{Device, DeviceKind};
use crate::this_machine::{Facts, Gpu};

const PORTS: Ports = Ports {
    node: 8810,
    stages: (32_768, 60_999),
};

/// nftables 1.0.6: policy drop; ports 22 and 8810, and those for any, are accepted.
const NFT_OPEN: &str = include_str!("recorded/nft-open.json");

/// nftables 1.0.6 with iptables 1.8.9's rules: policy DROP, 8810 is accepted, and by a module that
/// nft does not show, 22 and 8810 to 8820.
const NFT_OF_IPTABLES: &str = include_str!("recorded/nft-of-iptables.json");

/// nftables 1.0.6: policy accept, but the last rule rejects all but what is answered and a network.
const NFT_DEPENDS: &str = include_str!("recorded/nft-depends.json");

#[test]
fn packet_filters() {
    assert_eq!(firewall::nft(NFT_OPEN, PORTS), Some(Gate::Open));
    let other = Ports {
        node: 8811,
        ..PORTS
    };
    assert_eq!(firewall::nft(NFT_OPEN, other), Some(Gate::Shut));
    let node_only = Ports {
        node: 8810,
        stages: (8810, 8810),
    };
    assert_eq!(firewall::nft(NFT_OF_IPTABLES, node_only), Some(Gate::Open));
    // What the module lets in is not known.
    assert_eq!(firewall::nft(NFT_OF_IPTABLES, PORTS), Some(Gate::Depends));
    assert_eq!(firewall::nft(NFT_DEPENDS, PORTS), Some(Gate::Depends));
    let without = NFT_DEPENDS
        .replace("saddr", "daddr")
        .replace("\"accept\"", "\"log\"");
    assert_eq!(firewall::nft(&without, PORTS), Some(Gate::Shut));
    let none = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}]}"#;
    assert_eq!(firewall::nft(none, PORTS), Some(Gate::Open));
    assert_eq!(firewall::nft("", PORTS), None);
}

#[test]
fn ufw() {
    // ufw 0.36, as ufw(8) shows it; not seen here.
    let status = "Status: active\n\nTo                         Action      From\n\
                  --                         ------      ----\n\
                  22/tcp                     ALLOW       Anywhere\n\
                  8810/tcp                   ALLOW       Anywhere\n\
                  8810/tcp (v6)              ALLOW       Anywhere (v6)\n";
    let gate = |status: &str| firewall::ufw(status, PORTS);
    assert_eq!(gate(status), Some(Gate::Shut));
    let range = format!("{status}32768:60999/tcp            ALLOW IN    Anywhere\n");
    assert_eq!(gate(&range), Some(Gate::Open));
    let network = format!("{status}Anywhere                   ALLOW       192.168.1.0/24\n");
    assert_eq!(gate(&network), Some(Gate::Depends));
    assert_eq!(gate("Status: inactive\n"), Some(Gate::Open));
    assert_eq!(
        gate("ERROR: You need to be root to run this script\n"),
        None
    );
}

#[test]
fn a_shut_firewall_stops_a_node_that_others_reach() {
    let of = |reached| firewall::linux("ufw", Some(Gate::Shut), PORTS, reached);
    assert_eq!(of(true).outcome, Outcome::Problem);
    assert_eq!(of(false).outcome, Outcome::Warning);
    assert!(of(true).why.contains("TCP 8810 and 32768 to 60999"));
}

#[test]
fn a_firewall_of_which_nobody_tells() {
    let (user, root) = (firewall::untold(false), firewall::untold(true));
    assert_eq!(
        (user.outcome, root.outcome),
        (Outcome::Unknown, Outcome::Unknown)
    );
    assert_eq!(user.fix.as_deref(), Some("sudo brigade doctor"));
    assert!(!root.fix.unwrap().contains("sudo"));
}

#[test]
fn the_firewall_of_a_mac() {
    let of = |global: &str, all: &str, program: &str| firewall::macos(global, all, program).outcome;
    let on = "Firewall is enabled. (State = 1)";
    let part = "Firewall has block all state set to disabled.";
    let permitted = "Incoming connection to the application is permitted.";
    assert_eq!(of("Firewall is disabled. (State = 0)", "", ""), Outcome::Ok);
    assert_eq!(of(on, part, permitted), Outcome::Ok);
    assert_eq!(
        of(on, part, ""),
        Outcome::Unknown,
        "silence is no permission"
    );
    assert_eq!(
        of(on, part, "The application is not part of the firewall."),
        Outcome::Warning
    );
    assert_eq!(
        of(
            on,
            part,
            "Incoming connection to the application is blocked."
        ),
        Outcome::Problem
    );
    assert_eq!(of(on, "Block all ENABLED!", permitted), Outcome::Problem);
    assert_eq!(
        of("Firewall is enabled. (State = 2)", "", ""),
        Outcome::Problem
    );
    assert_eq!(of("", "", ""), Outcome::Unknown);
}

#[test]
fn sleep_and_power() {
    // pmset -g of macOS 14, from its manual, shortened.
    let settings = "System-wide power settings:\nCurrently in use:\n autorestart          0\n \
                    disksleep            10\n sleep                1 (sleep prevented by sharingd)\n";
    let asleep = power::pmset(settings);
    assert_eq!(asleep.outcome, Outcome::Problem);
    assert!(asleep.why.contains("after 1 min "), "{}", asleep.why);
    assert_eq!(power::autorestart(settings).outcome, Outcome::Warning);
    let server = " autorestart          1\n sleep                0\n";
    assert_eq!(power::pmset(server).outcome, Outcome::Ok);
    assert_eq!(power::autorestart(server).outcome, Outcome::Ok);
    assert_eq!(power::pmset("").outcome, Outcome::Unknown);
    assert_eq!(
        power::filevault("FileVault is On.\n").outcome,
        Outcome::Warning
    );
    assert_eq!(power::filevault("FileVault is Off.\n").outcome, Outcome::Ok);
    assert_eq!(power::filevault("").outcome, Outcome::Unknown);

    let linux = |target: &str, logind: &str, gnome: &str, laptop: bool| {
        power::linux(target, logind, gnome, laptop).outcome
    };
    let idle = "[Login]\n#IdleAction=suspend\nIdleAction=ignore\nIdleAction=suspend\n";
    assert_eq!(linux("masked\n", idle, "'suspend'", true), Outcome::Ok);
    assert_eq!(linux("static\n", idle, "", false), Outcome::Problem);
    assert_eq!(
        linux("static\n", "#IdleAction=suspend\n", "", false),
        Outcome::Ok
    );
    assert_eq!(
        linux("static\n", "", "'suspend'\n", false),
        Outcome::Problem
    );
    assert_eq!(linux("static\n", "", "'nothing'\n", true), Outcome::Warning);
    assert_eq!(
        linux("static\n", "HandleLidSwitch=ignore\n", "", true),
        Outcome::Ok
    );
    assert_eq!(linux("", "", "", false), Outcome::NotApplicable);
}

#[test]
fn a_cable_beside_wifi() {
    // networksetup and ifconfig of macOS 14, from documentation, shortened.
    let ports = "\nHardware Port: Wi-Fi\nDevice: en0\nEthernet Address: 00:11:22:33:44:55\n\n\
                 Hardware Port: Thunderbolt Bridge\nDevice: bridge0\nEthernet Address: N/A\n";
    let ifconfig = "en0: flags=8863<UP> mtu 1500\n\tether 00:11:22:33:44:55\n\tstatus: active\n\
                    bridge0: flags=8863<UP> mtu 1500\n\tstatus: active\n";
    let interfaces = network::interfaces_of_macos(ports, ifconfig);
    assert_eq!(
        interfaces[1],
        Interface {
            name: "bridge0".into(),
            is_wireless: false,
            is_up: true,
            label: Some("Thunderbolt Bridge".into()),
        }
    );
    let way = |device: &str| vec![("studio".to_owned(), Some(device.to_owned()))];
    let by_air = network::ways(&way("en0"), &interfaces);
    assert_eq!(by_air.outcome, Outcome::Warning);
    assert_eq!(
        by_air.why,
        "studio: by Wi-Fi, though Thunderbolt Bridge (bridge0) has a carrier"
    );
    assert_eq!(
        network::ways(&way("bridge0"), &interfaces).outcome,
        Outcome::Ok
    );
    let idle = network::interfaces_of_macos(ports, "en0: flags\n\tstatus: active\n");
    assert!(network::ways(&way("en0"), &idle).why.contains("slow"));
    assert_eq!(network::ways(&[], &idle).outcome, Outcome::NotApplicable);
    assert_eq!(
        network::ways(&[("a".to_owned(), None)], &idle).outcome,
        Outcome::Unknown
    );

    // iproute2 6.1.
    let route = r#"[{"dst":"192.168.1.1","gateway":"192.0.2.1","dev":"eth0","flags":[]}]"#;
    assert_eq!(network::device_of_ip(route).as_deref(), Some("eth0"));
    let route = "   route to: 10.0.0.2\ndestination: 10.0.0.2\n  interface: en0\n";
    assert_eq!(network::device_of_route(route).as_deref(), Some("en0"));
}

#[test]
fn folders_disk_and_processor() {
    let folder = Folder {
        mode: 0o40700,
        is_ours: true,
        key_mode: Some(0o100_600),
    };
    let of = |folder: Folder| machine::state("/s", Some(folder)).outcome;
    assert_eq!(of(folder), Outcome::Ok);
    let open = Folder {
        mode: 0o40755,
        ..folder
    };
    assert_eq!(of(open), Outcome::Warning);
    let read = Folder {
        key_mode: Some(0o100_640),
        ..folder
    };
    assert_eq!(of(read), Outcome::Problem);
    let foreign = Folder {
        is_ours: false,
        ..folder
    };
    assert_eq!(of(foreign), Outcome::Problem);
    assert_eq!(machine::state("/s", None).outcome, Outcome::Ok);

    assert_eq!(machine::disk("/c", Some(1 << 30)).outcome, Outcome::Problem);
    assert_eq!(machine::disk("/c", Some(9 << 30)).outcome, Outcome::Warning);
    assert_eq!(machine::disk("/c", Some(99 << 30)).outcome, Outcome::Ok);
    assert_eq!(machine::disk("/c", None).outcome, Outcome::Unknown);

    let flags = machine::flags("processor\t: 0\nflags\t\t: sse2 avx avx2 fma\n\nflags\t\t: x\n");
    assert_eq!(flags, ["sse2", "avx", "avx2", "fma"]);
    let llama = ["SSE3", "AVX", "AVX2", "FMA"].map(str::to_owned);
    let of = |compiled: &[&str], llama: &[String], flags: &[&str]| {
        machine::processor(compiled, llama, flags).outcome
    };
    assert_eq!(of(&["avx2"], &llama, &flags), Outcome::Ok);
    assert_eq!(of(&["avx2", "avx512f"], &llama, &flags), Outcome::Problem);
    assert_eq!(of(&[], &llama[..1], &flags), Outcome::Warning);
    assert_eq!(of(&["avx2"], &llama, &[]), Outcome::NotApplicable);
}

#[test]
fn memory_files_and_clock() {
    assert_eq!(machine::overcommit("0\n").outcome, Outcome::Ok);
    assert_eq!(machine::overcommit("2\n").outcome, Outcome::Warning);
    assert_eq!(machine::overcommit("").outcome, Outcome::NotApplicable);
    let pages = |setting: &str| machine::huge_pages(setting).outcome;
    assert_eq!(pages("always [madvise] never\n"), Outcome::Ok);
    assert_eq!(pages("always madvise [never]\n"), Outcome::Warning);
    assert_eq!(pages(""), Outcome::NotApplicable);
    assert_eq!(machine::open_files(Some(256)).outcome, Outcome::Warning);
    assert_eq!(machine::open_files(Some(4096)).outcome, Outcome::Ok);
    assert_eq!(machine::open_files(None).outcome, Outcome::Ok);

    let metal = |mib: &str| machine::metal_limit(mib, "68719476736\n");
    assert_eq!(metal("0\n").outcome, Outcome::Ok);
    assert_eq!(metal("56000\n").outcome, Outcome::Ok);
    let greedy = metal("65000\n");
    assert_eq!(greedy.outcome, Outcome::Warning);
    assert_eq!(
        greedy.fix.as_deref(),
        Some("sudo sysctl iogpu.wired_limit_mb=57344")
    );
    assert_eq!(metal("").outcome, Outcome::Unknown);

    let clock = |told: &str, built: u64| machine::clock(told, 1000, Some(built)).outcome;
    assert_eq!(clock("NTPSynchronized=yes\n", 1), Outcome::Ok);
    assert_eq!(clock("NTPSynchronized=no\n", 1), Outcome::Warning);
    assert_eq!(clock("", 1), Outcome::Unknown);
    assert_eq!(clock("NTPSynchronized=yes\n", 2000), Outcome::Problem);
}

fn node(name: &str, state: NodeState, trouble: Option<&str>) -> NodeView {
    NodeView {
        id: name.repeat(8),
        name: name.to_owned(),
        addresses: vec![([10, 0, 0, 1], 8810).into()],
        in_use: None,
        is_self: false,
        state,
        round_trip_ms: None,
        clock_ahead_s: None,
        trouble: trouble.map(str::to_owned),
        facts: None,
    }
}

#[test]
fn clocks_of_other_nodes() {
    let mut nodes = [
        node("a", NodeState::Up, None),
        node("b", NodeState::Up, None),
        node("c", NodeState::Up, None),
    ];
    nodes[0].is_self = true;
    assert_eq!(cluster::clocks(None).outcome, Outcome::NotApplicable);
    let alone = cluster::clocks(Some(&nodes[..1]));
    assert_eq!(alone.outcome, Outcome::NotApplicable);
    nodes[1].clock_ahead_s = Some(-0.04);
    assert_eq!(cluster::clocks(Some(&nodes)).outcome, Outcome::Unknown);
    nodes[2].clock_ahead_s = Some(59.0);
    assert_eq!(cluster::clocks(Some(&nodes)).outcome, Outcome::Ok);
    nodes[1].clock_ahead_s = Some(-7100.0);
    nodes[2].clock_ahead_s = Some(61.0);
    let apart = cluster::clocks(Some(&nodes));
    assert_eq!(apart.outcome, Outcome::Warning);
    let told = "b's is 118 min behind this one's, c's is 61 s ahead of this one's: ";
    assert!(apart.why.starts_with(told), "{}", apart.why);
    // One that is wrong is told of, whoever is silent.
    nodes[2].clock_ahead_s = None;
    assert_eq!(cluster::clocks(Some(&nodes)).outcome, Outcome::Warning);
}

#[test]
fn devices_against_what_the_system_tells() {
    let device = |name: &str, kind| Device {
        name: name.to_owned(),
        description: name.to_owned(),
        kind,
        bus_id: None,
        memory_bytes: 0,
        free_bytes: 0,
        used: true,
    };
    let mut facts = Facts::default();
    assert_eq!(machine::devices(&facts).outcome, Outcome::Unknown);
    facts.devices = vec![device("CPU", DeviceKind::Cpu)];
    assert_eq!(machine::devices(&facts).outcome, Outcome::Ok);
    facts.gpus = vec![Gpu {
        name: "NVIDIA GeForce RTX 3090".into(),
        memory_bytes: Some(24 << 30),
    }];
    let unused = machine::devices(&facts);
    assert_eq!(unused.outcome, Outcome::Warning);
    assert!(
        unused
            .why
            .ends_with("the system has NVIDIA GeForce RTX 3090")
    );
    facts.devices.insert(0, device("CUDA0", DeviceKind::Gpu));
    assert_eq!(machine::devices(&facts).outcome, Outcome::Ok);
    facts.devices_trouble = Some("it was ended by signal 11 (it crashed)".into());
    assert_eq!(machine::devices(&facts).outcome, Outcome::Problem);
}

#[test]
fn a_cluster() {
    let outcomes = |nodes: Option<&[NodeView]>| {
        let checks = cluster::nodes(nodes);
        checks.iter().map(|check| check.outcome).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(None), [Outcome::NotApplicable]);
    let mut nodes = [
        node("a", NodeState::Up, None),
        node("b", NodeState::Up, None),
    ];
    nodes[0].is_self = true;
    assert_eq!(outcomes(Some(&nodes)), [Outcome::Ok]);
    nodes[0].addresses = vec![([127, 0, 0, 1], 8810).into()];
    assert_eq!(outcomes(Some(&nodes)), [Outcome::Ok, Outcome::Problem]);
    let build = "it runs llama.cpp 2, this node llama.cpp 1: upgrade brigade on this node";
    nodes[1] = node("b", NodeState::Down, Some(build));
    let check = &cluster::nodes(Some(&nodes))[0];
    assert_eq!(check.outcome, Outcome::Problem);
    assert!(check.why.ends_with(build), "{}", check.why);
    assert_eq!(
        check.fix.as_deref(),
        Some("give all nodes the same release of brigade")
    );
    assert_eq!(
        cluster::local_network(Some(&nodes)).outcome,
        Outcome::Unknown
    );
    nodes[1].trouble = Some("cannot connect: No route to host (os error 65)".into());
    assert_eq!(
        cluster::local_network(Some(&nodes)).outcome,
        Outcome::Problem
    );
    nodes[1] = node("b", NodeState::Up, None);
    nodes[1].round_trip_ms = Some(0.2);
    assert_eq!(cluster::local_network(Some(&nodes)).outcome, Outcome::Ok);
}

#[test]
fn what_a_person_reads() {
    let checks = [
        Check::ok("disk", "900.0 GB free"),
        Check::warning("sleep", "the lid", "mask it"),
        Check::problem("firewall", "shut", "open it"),
        Check::unknown("clock", "nobody says"),
        Check::not_applicable("FileVault", "only macOS has it"),
    ];
    insta::assert_snapshot!(report(&checks));
}
