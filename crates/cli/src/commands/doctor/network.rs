//! Which way goes to the other nodes: a cable should not lie idle beside Wi-Fi.

use serde_json::Value;

use super::Check;

const NAME: &str = "way to nodes";

/// An interface of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) is_wireless: bool,
    /// It has a carrier.
    pub(super) is_up: bool,
    /// What people call it, such as `Thunderbolt Bridge`.
    pub(super) label: Option<String>,
}

/// The interface in what `ip -json route get ADDRESS` (iproute2 6.1) prints.
pub(super) fn device_of_ip(route: &str) -> Option<String> {
    let routes: Value = serde_json::from_str(route).ok()?;
    Some(routes[0]["dev"].as_str()?.to_owned())
}

/// The interface in what `route -n get ADDRESS` of macOS prints: a line `  interface: en0`.
pub(super) fn device_of_route(route: &str) -> Option<String> {
    let mut lines = route.lines().filter_map(|line| line.split_once(':'));
    let line = lines.find(|(key, _)| key.trim() == "interface")?;
    Some(line.1.trim().to_owned())
}

/// The interfaces in what `networksetup -listallhardwareports` of macOS prints, stanzas of
/// `Hardware Port: Wi-Fi`, `Device: en0`, `Ethernet Address: …`, and whether `ifconfig` prints
/// `status: active` for them. From documentation, not seen here.
pub(super) fn interfaces_of_macos(ports: &str, ifconfig: &str) -> Vec<Interface> {
    let mut interfaces = Vec::new();
    let mut label = None;
    for (key, value) in ports.lines().filter_map(|line| line.split_once(": ")) {
        match key {
            "Hardware Port" => label = Some(value.trim().to_owned()),
            "Device" => {
                let name = value.trim().to_owned();
                interfaces.push(Interface {
                    is_wireless: label.as_deref() == Some("Wi-Fi"),
                    is_up: is_active(ifconfig, &name),
                    label: label.take(),
                    name,
                });
            }
            _ => {}
        }
    }
    interfaces
}

/// Whether the part of `ifconfig`'s text that is about an interface has `status: active`.
fn is_active(ifconfig: &str, name: &str) -> bool {
    let beginning = format!("{name}: ");
    let mut lines = ifconfig.lines();
    lines.any(|line| line.starts_with(&beginning))
        && lines
            .take_while(|line| line.starts_with(char::is_whitespace))
            .any(|line| line.trim() == "status: active")
}

/// Whether a node is reached by Wi-Fi while a cable is plugged in. `ways` are nodes and the
/// interfaces that lead to them.
pub(super) fn ways(ways: &[(String, Option<String>)], interfaces: &[Interface]) -> Check {
    if ways.is_empty() {
        return Check::not_applicable(NAME, "there are no other nodes");
    }
    let wireless = |device: &str| {
        let mut found = interfaces.iter();
        found.any(|interface| interface.name == device && interface.is_wireless)
    };
    let by_air: Vec<&str> = ways
        .iter()
        .filter(|(_, device)| device.as_deref().is_some_and(wireless))
        .map(|(node, _)| node.as_str())
        .collect();
    if by_air.is_empty() {
        let unknown: Vec<&str> = ways
            .iter()
            .filter(|(_, device)| device.is_none())
            .map(|(node, _)| node.as_str())
            .collect();
        if unknown.is_empty() {
            return Check::ok(NAME, "no node is reached by Wi-Fi");
        }
        let why = format!("the system names no way to {}", unknown.join(", "));
        return Check::unknown(NAME, why);
    }
    let cables: Vec<String> = interfaces
        .iter()
        .filter(|interface| !interface.is_wireless && interface.is_up)
        .map(|interface| match &interface.label {
            Some(label) => format!("{label} ({})", interface.name),
            None => interface.name.clone(),
        })
        .collect();
    let nodes = by_air.join(", ");
    if cables.is_empty() {
        Check::warning(
            NAME,
            format!("{nodes}: by Wi-Fi, which is slow and shakes"),
            "connect the machines with a cable",
        )
    } else {
        Check::warning(
            NAME,
            format!(
                "{nodes}: by Wi-Fi, though {} has a carrier",
                cables.join(", ")
            ),
            "give the cable's interfaces addresses of one network; `brigade nodes --links` shows the ways",
        )
    }
}
