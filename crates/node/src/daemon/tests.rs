//! Daemons over real sockets, each with a state folder of its own.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;

use brigade_wire::PROTOCOL_VERSION;
use brigade_wire::frame::{read_preamble, send_value, write_preamble};
use brigade_wire::token::{Side, TokenSecret};
use tempfile::TempDir;

use super::message::{self, Answer, Greeting, Opening};
use super::*;
use crate::KeyPair;
use crate::link::{Link, Peer};
use crate::worker::Shard;

/// How long anything may take that should take a moment, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

const LIFE: Duration = Duration::from_secs(600);

struct Node {
    daemon: Daemon,
    folder: TempDir,
}

fn config(folder: &Path, name: &str, build: &str) -> DaemonConfig {
    DaemonConfig {
        home: Home::open(folder).unwrap(),
        name: name.to_owned(),
        build: build.to_owned(),
        cache: crate::Cache::unlimited(folder.join("cache")),
        hub: brigade_hub::Client::new(brigade_hub::Settings::default()),
        listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        stage_ports: None,
        discovery: Discovery::Off,
    }
}

fn node_of(build: &str, name: &str) -> Node {
    let folder = TempDir::new().unwrap();
    let daemon = Daemon::start(config(folder.path(), name, build)).unwrap();
    Node { daemon, folder }
}

fn node(name: &str) -> Node {
    node_of("llama.cpp 0.0.5", name)
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Names and states, by name.
fn states(node: &Node) -> Vec<(String, NodeState)> {
    let nodes = node.daemon.nodes();
    nodes
        .into_iter()
        .map(|node| (node.name, node.state))
        .collect()
}

fn all_up(nodes: &[&Node], names: &[&str]) -> bool {
    let expected: Vec<_> = names
        .iter()
        .map(|&name| (name.to_owned(), NodeState::Up))
        .collect();
    nodes.iter().all(|node| states(node) == expected)
}

fn join(node: &Node, inviter: &Node) {
    let token = inviter.daemon.invite(LIFE);
    node.daemon.join(&token).unwrap();
}

/// A cluster of these names.
fn cluster(names: &[&str]) -> Vec<Node> {
    let nodes: Vec<_> = names.iter().map(|name| node(name)).collect();
    for other in &nodes[1..] {
        join(other, &nodes[0]);
    }
    let all: Vec<_> = nodes.iter().collect();
    wait_until("every node sees every other", || all_up(&all, names));
    nodes
}

fn refused(node: &Node, token: &Token) -> String {
    node.daemon.join(token).unwrap_err().to_string()
}

#[test]
fn four_nodes_join_and_show_the_same_view() {
    let start = Instant::now();
    let nodes = cluster(&["a", "b", "c", "d"]);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let view = |node: &Node| -> Vec<_> {
        let nodes = node.daemon.nodes();
        nodes
            .into_iter()
            .map(|node| (node.id, node.name, node.addresses, node.state))
            .collect()
    };
    for node in &nodes {
        assert_eq!(view(node), view(&nodes[0]));
        let own = node.daemon.nodes().into_iter().find(|node| node.is_self);
        assert_eq!(own.unwrap().addresses, [node.daemon.listens()]);
        let hosts = node.daemon.hosts();
        assert_eq!(hosts.len(), 4);
        assert_eq!(hosts[0].key, node.daemon.shared.own().public());
    }
}

/// What a node knew survives its restart, at another address, without an invitation.
#[test]
fn a_node_that_starts_again_is_a_member_still() {
    let mut nodes = cluster(&["a", "b", "c"]);
    let Node { daemon, folder } = nodes.pop().unwrap();
    let before = daemon.listens();
    let gone = Instant::now();
    drop(daemon);
    let rest: Vec<_> = nodes.iter().collect();
    wait_until("the others notice", || {
        rest.iter().all(|node| states(node)[2].1 == NodeState::Down)
    });
    assert!(
        gone.elapsed() < Duration::from_secs(2),
        "{:?}",
        gone.elapsed()
    );
    let trouble = nodes[0].daemon.nodes()[2].trouble.clone();
    assert!(trouble.is_some());

    wait_until("the folder is free", || Home::open(folder.path()).is_ok());
    let daemon = Daemon::start(config(folder.path(), "c", "llama.cpp 0.0.5")).unwrap();
    assert_ne!(daemon.listens(), before);
    let again = Node { daemon, folder };
    wait_until("it is back", || {
        all_up(&[&nodes[0], &nodes[1], &again], &["a", "b", "c"])
    });
    assert_eq!(
        nodes[0].daemon.nodes()[2].addresses,
        [again.daemon.listens()]
    );
}

#[test]
fn a_token_is_good_once_and_not_for_ever() {
    let (a, b, c) = (node("a"), node("b"), node("c"));
    let token = a.daemon.invite(LIFE);
    b.daemon.join(&token).unwrap();
    assert!(
        refused(&c, &token).ends_with(
            "the token was used already: `brigade invite` prints a new one for each node"
        )
    );
    let expired = a.daemon.invite(Duration::ZERO);
    assert!(
        refused(&c, &expired).ends_with("the token has expired: `brigade invite` prints a new one")
    );
    let mut wrong = a.daemon.invite(LIFE);
    wrong.secret = TokenSecret([1; 16]);
    assert!(refused(&c, &wrong).contains("the token is not one of this node's"));
    assert_eq!(a.daemon.nodes().len(), 2);
    assert_eq!(c.daemon.nodes().len(), 1);
    let own = a.daemon.invite(LIFE);
    assert!(refused(&a, &own).contains("this node's own"));
}

/// A token names its inviter by its key, so that nobody else can pretend to be it.
#[test]
fn a_token_leads_to_its_inviter_only() {
    let (a, b, c) = (node("a"), node("b"), node("c"));
    let mut token = a.daemon.invite(LIFE);
    token.addresses = vec![b.daemon.listens()];
    assert!(refused(&c, &token).contains("it proved another key"));
    // A hint that leads nowhere is passed over.
    token.addresses = vec![b.daemon.listens(), a.daemon.listens()];
    assert_eq!(c.daemon.join(&token).unwrap(), "a");
}

#[test]
fn a_node_of_one_cluster_does_not_slip_into_another() {
    let first = cluster(&["a", "b"]);
    let other = node("c");
    let error = refused(&first[1], &other.daemon.invite(LIFE));
    assert!(
        error.contains("belongs to a cluster already, with a"),
        "{error}"
    );
}

#[test]
fn a_foreign_build_is_told_which_side_to_upgrade() {
    let a = node("a");
    let (old, new) = (
        node_of("llama.cpp 0.0.4", "b"),
        node_of("llama.cpp 0.0.6", "c"),
    );
    let token = a.daemon.invite(LIFE);
    let error = refused(&old, &token);
    assert!(
        error.ends_with(
            "it runs llama.cpp 0.0.5, this node llama.cpp 0.0.4: upgrade brigade on this node"
        ),
        "{error}"
    );
    assert!(refused(&new, &token).ends_with("upgrade brigade on that node"));
    // Neither has used the token up.
    node("d").daemon.join(&token).unwrap();
}

#[test]
fn a_forgotten_node_is_out_everywhere_until_it_is_invited_again() {
    let nodes = cluster(&["a", "b", "c"]);
    let [a, b, c] = &nodes[..] else { panic!() };
    assert_eq!(a.daemon.forget("c").unwrap(), "c");
    wait_until("b has heard of it", || all_up(&[a, b], &["a", "b"]));
    wait_until("c is told so", || {
        let nodes = c.daemon.nodes();
        let told = |view: &NodeView| {
            let trouble = view.trouble.as_deref().unwrap_or_default();
            trouble.contains("the cluster has forgotten this node")
        };
        nodes.iter().filter(|view| told(view)).count() == 2
    });
    assert!(a.daemon.forget("c").is_err() && a.daemon.forget("nobody").is_err());
    let error = a.daemon.forget("a").unwrap_err().to_string();
    assert!(error.contains("is this node"), "{error}");

    join(c, b);
    wait_until("it is back", || all_up(&[a, b, c], &["a", "b", "c"]));
}

/// A state folder that was copied to a second machine.
#[test]
fn two_nodes_with_one_identity_are_not_both_let_in() {
    let nodes = cluster(&["a", "b"]);
    let [a, b] = &nodes[..] else { panic!() };
    let copy = TempDir::new().unwrap();
    for file in ["identity", "members.json"] {
        std::fs::copy(b.folder.path().join(file), copy.path().join(file)).unwrap();
    }
    let second = Node {
        daemon: Daemon::start(config(copy.path(), "b2", "llama.cpp 0.0.5")).unwrap(),
        folder: copy,
    };
    wait_until("the second is refused", || {
        let nodes = second.daemon.nodes();
        let trouble = nodes[0].trouble.clone().unwrap_or_default();
        trouble.contains(&format!(
            "another node with the same identity is up at {}",
            b.daemon.listens()
        ))
    });
    let token = a.daemon.invite(LIFE);
    let error = refused(&second, &token);
    assert!(
        error.contains("another node with the same identity"),
        "{error}"
    );
    assert!(all_up(&[a, b], &["a", "b"]), "{:?}", states(a));
}

/// Opens an encrypted connection to a node as whoever holds `key`.
fn stranger(key: &KeyPair, node: &Node) -> (Link, Peer) {
    let asked = node.daemon.shared.own().public();
    Link::connect(node.daemon.listens(), key, asked, SOON).unwrap()
}

#[test]
fn an_unknown_key_gets_nothing_but_advice() {
    let a = node("a");
    let key = KeyPair::generate();
    let greeting = || Greeting {
        build: "llama.cpp 0.0.5".to_owned(),
        boot: 1,
        name: "x".to_owned(),
        addresses: vec![([127, 0, 0, 1], 1).into()],
    };
    let answer = message::open(&mut stranger(&key, &a).0, &Opening::Peer(greeting()));
    let Answer::Refused(Refusal::UnknownKey) = answer.unwrap() else {
        panic!("it was let in");
    };
    let shard = Shard {
        path: "/model.gguf".into(),
        identity: String::new(),
        layers: brigade_gguf::Layers { start: 0, end: 1 },
        run: crate::worker::RunParams {
            model: "m".to_owned(),
            params: brigade_wire::StageParams {
                context_tokens: 1,
                sequences: 1,
                batch_tokens: 1,
                flash_attention: true,
                draft_tokens: 0,
            },
            threads: None,
        },
        guard: None,

        delivery: None,
    };
    let shard = Job::Stage(Box::new(shard));
    let answer = message::open(
        &mut stranger(&key, &a).0,
        &Opening::Run(shard, Claim::default()),
    );
    let Answer::Refused(Refusal::UnknownKey) = answer.unwrap() else {
        panic!("it was given a stage");
    };
}

/// A proof that was made for another connection: what a relay would have.
#[test]
fn a_relayed_proof_is_worth_nothing() {
    let a = node("a");
    let token = a.daemon.invite(LIFE);
    let (victim, relay) = (KeyPair::generate(), KeyPair::generate());
    let (_, first) = stranger(&victim, &a);
    let send = |link: &mut Link, joiner: NodeKey| {
        let opening = Opening::Join {
            token: token.secret.id(),
            proof: token
                .secret
                .proof(Side::Joiner, &first.binding, joiner, token.inviter),
            greeting: Greeting {
                build: "llama.cpp 0.0.5".to_owned(),
                boot: 1,
                name: "x".to_owned(),
                addresses: vec![([127, 0, 0, 1], 1).into()],
            },
        };
        message::open(link, &opening).unwrap()
    };
    for (key, joiner) in [
        (&relay, victim.public()),
        (&relay, relay.public()),
        (&victim, victim.public()),
    ] {
        let (mut link, other) = stranger(key, &a);
        assert_ne!(first.binding, other.binding);
        let Answer::Refused(Refusal::UnknownToken) = send(&mut link, joiner) else {
            panic!("a relayed proof was taken");
        };
    }
    assert_eq!(a.daemon.nodes().len(), 1);
    node("b").daemon.join(&token).unwrap();
}

#[test]
fn another_version_of_the_protocol_is_named() {
    let a = node("a");
    let (mut link, _) = stranger(&KeyPair::generate(), &a);
    let mut preamble = Vec::new();
    write_preamble(&mut preamble).unwrap();
    preamble[4..].copy_from_slice(&(PROTOCOL_VERSION + 1).to_le_bytes());
    link.write_all(&preamble).unwrap();
    // It says its own version, so that the other side can name the one to upgrade as well.
    read_preamble(&mut link).unwrap();
    assert!(brigade_wire::frame::receive_value::<Answer>(&mut link, 1000).is_err());
}

#[test]
fn garbage_does_no_harm() {
    let nodes = cluster(&["a", "b"]);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 300], &[0xff; 3000]] {
        let mut stream = TcpStream::connect(nodes[0].daemon.listens()).unwrap();
        // It may close at the first byte.
        let _ = stream.write_all(garbage);
    }
    let (mut link, _) = stranger(&KeyPair::generate(), &nodes[0]);
    write_preamble(&mut link).unwrap();
    send_value(&mut link, &vec![0xffu8; 1000]).unwrap();
    assert!(all_up(&[&nodes[0], &nodes[1]], &["a", "b"]));
    join(&node("c"), &nodes[0]);
}

#[test]
fn a_daemon_needs_a_name() {
    let folder = TempDir::new().unwrap();
    let error = Daemon::start(config(folder.path(), "a b", "llama.cpp 0.0.5"));
    assert!(error.unwrap_err().to_string().contains("without blanks"));
}

/// A node that listens everywhere is found by itself, and tells what leads to it.
#[test]
fn a_node_that_listens_everywhere_tells_its_addresses() {
    let folder = TempDir::new().unwrap();
    let mut everywhere = config(folder.path(), "a", "llama.cpp 0.0.5");
    everywhere.listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let daemon = Daemon::start(everywhere).unwrap();
    let here = daemon.here();
    let way = daemon.route(&here, &here).unwrap();
    assert!(way.ip().is_loopback());
    let addresses = daemon.addresses();
    assert!(addresses.iter().all(|address| address.port() == way.port()));
    assert!(
        !addresses
            .iter()
            .any(|address| address.ip().is_unspecified())
    );
    assert_eq!(daemon.invite(LIFE).addresses, addresses);
    let joining = node("b");
    let mut token = daemon.invite(LIFE);
    // Dead hints beside one that works.
    token.addresses = vec![([127, 0, 0, 1], 1).into(), way, ([127, 0, 0, 1], 2).into()];
    assert_eq!(joining.daemon.join(&token).unwrap(), "a");
}

/// Both directions of every pair are measured, one burst after the other, and each node knows of
/// the others' links what they know.
#[test]
fn links_are_measured_and_known_to_every_node() {
    let nodes = cluster(&["a", "b", "c"]);
    wait_until("every node knows every link", || {
        nodes.iter().all(|node| {
            let links = node.daemon.links();
            let known = |link: &LinkView| {
                let measured = link.measured;
                link.kind == Some(crate::LinkKind::Loopback)
                    && link.in_use
                    && measured.round_trip_ms.is_some_and(|ms| ms > 0.0)
                    && measured.jitter_ms.is_some()
                    && measured.bandwidth_gbit_s.is_some_and(|rate| rate > 0.01)
                    && measured.bandwidth_age_s.is_some()
            };
            links.len() == 6 && links.iter().all(known)
        })
    });
    let names: Vec<_> = nodes[1].daemon.links();
    let names: Vec<_> = names.iter().map(|link| (&*link.from, &*link.to)).collect();
    // Its own come first.
    let expected = [
        ("b", "a"),
        ("b", "c"),
        ("a", "b"),
        ("a", "c"),
        ("c", "a"),
        ("c", "b"),
    ];
    assert_eq!(names, expected);
}

#[test]
fn nodes_compare_their_clocks() {
    let nodes = cluster(&["a", "b"]);
    let ahead = |of: &str| {
        let view = nodes[0].daemon.nodes();
        let node = view.into_iter().find(|node| node.name == of).unwrap();
        node.clock_ahead_s
    };
    // They have one clock; a busy machine may make the way back longer than the way there.
    let ahead_s = ahead("b").unwrap();
    assert!(ahead_s.abs() < 2.0, "{ahead_s}");
    assert_eq!(ahead("a"), None);
}

#[test]
fn what_a_node_says_of_its_machine_reaches_the_others() {
    let nodes = cluster(&["a", "b"]);
    let heard = |of: &str| {
        let view = nodes[0].daemon.nodes();
        let node = view.into_iter().find(|node| node.name == of).unwrap();
        node.facts.unwrap_or_default().about
    };
    for said in ["first", "second"] {
        nodes[1].daemon.tell(said.to_owned(), Vec::new());
        wait_until("it is heard", || heard("b") == said);
    }
    nodes[0].daemon.tell("own".to_owned(), Vec::new());
    assert_eq!(heard("a"), "own");
}
