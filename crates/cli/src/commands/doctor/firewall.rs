//! Whether other machines reach this one: the node's port, and those of its stages where nothing else
//! was said.

use serde_json::Value;

use super::Check;

const NAME: &str = "firewall";

/// The ports that must be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) node: u16,
    /// The first and the last of the stages'.
    pub(super) stages: (u16, u16),
}

/// What a firewall does with connections from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It lets them in unless told otherwise, or is told to let these in.
    Open,
    /// It lets some in, by their address or interface.
    Depends,
    Shut,
}

/// What `nft --json list ruleset` (1.0.6) says of these ports.
pub(super) fn nft(ruleset: &str, ports: Ports) -> Option<Gate> {
    let ruleset: Value = serde_json::from_str(ruleset).ok()?;
    let objects = ruleset["nftables"].as_array()?;
    let rules = |table: &Value, family: &Value| {
        let rules = objects.iter().map(|object| &object["rule"]);
        let (table, family) = (table.clone(), family.clone());
        rules.filter(move |rule| rule["table"] == table && rule["family"] == family)
    };
    let mut gate = Gate::Open;
    let chains = objects.iter().map(|object| &object["chain"]);
    for chain in chains.filter(|chain| chain["hook"] == "input") {
        let (table, family) = (&chain["table"], &chain["family"]);
        let own = rules(table, family).filter(|rule| rule["chain"] == chain["name"]);
        let closed = chain["policy"] == "drop" || own.clone().any(refuses_all);
        if !closed {
            continue;
        }
        // Chains of the same table may be jumped to.
        let admits = |port: u16| {
            rules(table, family)
                .map(|rule| admits(rule, port))
                .max_by_key(|gate| match gate {
                    Gate::Open => 2,
                    Gate::Depends => 1,
                    Gate::Shut => 0,
                })
                .unwrap_or(Gate::Shut)
        };
        let needed = [ports.node, ports.stages.0, ports.stages.1].map(admits);
        if needed.contains(&Gate::Shut) {
            return Some(Gate::Shut);
        }
        if needed.contains(&Gate::Depends) {
            gate = Gate::Depends;
        }
    }
    Some(gate)
}

fn expressions(rule: &Value) -> impl Iterator<Item = &Value> {
    rule["expr"].as_array().into_iter().flatten()
}

fn has(rule: &Value, verdict: &str) -> bool {
    expressions(rule).any(|expression| expression.get(verdict).is_some())
}

/// Whether a rule without a condition drops or rejects.
fn refuses_all(rule: &Value) -> bool {
    let conditions = ["match", "xt", "limit"];
    (has(rule, "drop") || has(rule, "reject"))
        && !conditions.iter().any(|condition| has(rule, condition))
}

/// Whether a rule lets new connections to a port in.
fn admits(rule: &Value, port: u16) -> Gate {
    if !has(rule, "accept") {
        return Gate::Shut;
    }
    let mut gate = Gate::Open;
    for expression in expressions(rule) {
        // A module of iptables that nft does not show.
        if expression.get("xt").is_some() {
            gate = Gate::Depends;
        }
        let Some(condition) = expression.get("match") else {
            continue;
        };
        let left = &condition["left"];
        if left["payload"]["field"] == "dport" {
            if left["payload"]["protocol"] == "udp" || !contains(&condition["right"], port) {
                return Gate::Shut;
            }
        } else if left["ct"]["key"] == "state" {
            let new = condition["right"].to_string().contains("\"new\"");
            if !new {
                return Gate::Shut;
            }
        } else if condition["right"] == "lo" {
            return Gate::Shut;
        } else if left["meta"]["key"] == "l4proto" || left["payload"]["field"] == "protocol" {
            if !condition["right"].to_string().contains("\"tcp\"") {
                return Gate::Shut;
            }
        } else {
            gate = Gate::Depends;
        }
    }
    gate
}

/// Whether a number, a set or a range has the port.
fn contains(right: &Value, port: u16) -> bool {
    if let Some(range) = right["range"].as_array() {
        let bound = |index: usize| range.get(index).and_then(Value::as_u64);
        return bound(0) <= Some(port.into()) && Some(port.into()) <= bound(1);
    }
    if let Some(set) = right["set"].as_array() {
        return set.iter().any(|one| contains(one, port));
    }
    right.as_u64() == Some(port.into())
}

/// What `ufw status` (0.36) says: the ports that are open to all, or what is allowed to some.
pub(super) fn ufw(status: &str, ports: Ports) -> Option<Gate> {
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))?;
    if state.trim() != "active" {
        return Some(Gate::Open);
    }
    let allowed: Vec<(&str, &str)> = status
        .lines()
        .filter_map(|line| line.split_once(" ALLOW"))
        .map(|(to, from)| (to.trim(), from.trim_start_matches(" IN").trim()))
        .collect();
    let admits = |port: u16| {
        let admitted = allowed.iter().filter(|(to, _)| {
            let (to, protocol) = to.split_once('/').unwrap_or((to, "tcp"));
            protocol == "tcp" && (to == "Anywhere" || in_range(to, port))
        });
        admitted
            .map(|(_, from)| {
                if from.starts_with("Anywhere") {
                    Gate::Open
                } else {
                    Gate::Depends
                }
            })
            .max_by_key(|gate| *gate == Gate::Open)
            .unwrap_or(Gate::Shut)
    };
    let needed = [ports.node, ports.stages.0, ports.stages.1].map(admits);
    Some(if needed.contains(&Gate::Shut) {
        Gate::Shut
    } else if needed.contains(&Gate::Depends) {
        Gate::Depends
    } else {
        Gate::Open
    })
}

/// Whether `8810`, `22,8810` or `8810:8820` has the port.
fn in_range(text: &str, port: u16) -> bool {
    text.split(',').any(|part| {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        let bounds = (first.parse::<u16>(), last.parse::<u16>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

/// The verdict on a Linux machine. `who` is the firewall that answered.
pub(super) fn linux(who: &str, gate: Option<Gate>, ports: Ports, reached: bool) -> Check {
    let (first, last) = ports.stages;
    let needed = format!("TCP {} and {first} to {last}", ports.node);
    let fix = match who {
        "ufw" => "sudo ufw allow from NETWORK, such as 192.168.1.0/24".to_owned(),
        "firewalld" => {
            "sudo firewall-cmd --permanent --zone=trusted --add-source=NETWORK, then --reload"
                .to_owned()
        }
        _ => format!("add a rule that accepts the other nodes' addresses on {needed}"),
    };
    match gate {
        Some(Gate::Open) => Check::ok(NAME, format!("{who} lets other machines in")),
        Some(Gate::Depends) => Check::unknown(
            NAME,
            format!("{who} lets some in by address or interface: are the other nodes among them?"),
        )
        .with_fix(fix),
        Some(Gate::Shut) => {
            let why = format!("{who} keeps other machines from {needed}");
            if reached {
                Check::problem(NAME, why, fix)
            } else {
                Check::warning(NAME, why, fix)
            }
        }
        None => {
            Check::unknown(NAME, format!("{who} tells only root")).with_fix("sudo brigade doctor")
        }
    }
}

/// Where the kernel may filter packets and no tool has told how.
pub(super) fn untold(is_root: bool) -> Check {
    if is_root {
        Check::unknown(NAME, "no tool here tells what the packet filter does")
            .with_fix("install nftables, of which doctor asks `nft`, and run it again")
    } else {
        Check::unknown(NAME, "the packet filter tells only root").with_fix("sudo brigade doctor")
    }
}

/// What `socketfilterfw --getglobalstate`, `--getblockall` and `--getappblocked PROGRAM` of macOS
/// say. Their wording is from documentation and reports of macOS 13 to 15, not seen here.
pub(super) fn macos(global: &str, block_all: &str, program: &str) -> Check {
    let fix = "System Settings, Network, Firewall, Options: allow brigade";
    if global.contains("State = 0") {
        return Check::ok(NAME, "the firewall is off");
    }
    if !global.contains("State = ") {
        return Check::unknown(NAME, "the firewall's state cannot be read");
    }
    let strict = block_all.to_lowercase();
    if global.contains("State = 2") || (strict.contains("enabled") && !strict.contains("disabled"))
    {
        return Check::problem(NAME, "the firewall blocks all incoming connections", fix);
    }
    if program.contains("not part of the firewall") {
        return Check::warning(
            NAME,
            "the firewall is on and does not know this program: it may ask, which nobody sees on \
             a Mac without a screen",
            "sudo /usr/libexec/ApplicationFirewall/socketfilterfw --add PROGRAM, then --unblockapp",
        );
    }
    if program.contains("blocked") {
        return Check::problem(NAME, "the firewall blocks this program", fix);
    }
    if program.contains("permitted") {
        return Check::ok(NAME, "the firewall lets this program be reached");
    }
    Check::unknown(
        NAME,
        "the firewall is on and does not say what it does with this program",
    )
    .with_fix(fix)
}
