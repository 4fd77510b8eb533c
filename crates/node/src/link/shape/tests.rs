//! Shapes: what is typed, when bytes are due, and what a real link then does.

use std::net::{Ipv4Addr, TcpListener};

use proptest::prelude::*;

use super::*;
use crate::link::{Expected, KeyPair, Link, Peer, tls};

const SOON: Duration = Duration::from_secs(20);

fn shape(text: &str) -> LinkShape {
    LinkShape::default().with(text).unwrap()
}

fn us(microseconds: u64) -> Duration {
    Duration::from_micros(microseconds)
}

#[test]
fn units_as_people_type_them() {
    for text in ["rtt=0.3ms", "rtt=300us", "rtt=300µs", " rtt = 0.0003s "] {
        assert_eq!(shape(text).rtt, us(300), "{text}");
    }
    for text in [
        "bw=40gbit",
        "bw=40 Gbit/s",
        "bw=40Gbps",
        "bw=40Gb/s",
        "bw=5GB/s",
        "bw=40000mbit",
        "bw=40000000000bit",
    ] {
        assert_eq!(shape(text).bandwidth_bit_s, Some(40e9), "{text}");
    }
    let all = shape("rtt=2ms,bw=600mbit,jitter=1ms");
    assert_eq!((all.rtt, all.jitter), (us(2000), us(1000)));
    // What a text does not name stays.
    assert_eq!(all.with("jitter=0").unwrap().bandwidth_bit_s, Some(6e8));
}

#[test]
fn what_makes_no_sense_is_named() {
    let complaint = |text| LinkShape::default().with(text).unwrap_err().to_string();
    for (text, named) in [
        ("rtt", "'' is no time"),
        ("rtt=1ms,loss=1%", "'loss=1%' says nothing of a link"),
        ("rtt=fast", "'fast' is no time"),
        ("rtt=3", "'3' is no time"),
        ("rtt=-1ms", "'-1ms' is no time"),
        ("rtt=11s", "'11s' is no time"),
        ("rtt=1e999s", "'1e999s' is no time"),
        ("bw=40", "'40' is no bandwidth"),
        ("bw=40gb!", "'40gb!' is no bandwidth"),
        ("bw=0gbit", "'0gbit' is no bandwidth"),
        ("rtt=1ms,jitter=0.6ms", "a jitter of more than half"),
        ("", "'' says nothing"),
    ] {
        let said = complaint(text);
        assert!(said.starts_with(named), "{text}: {said}");
    }
}

#[test]
fn the_last_word_on_a_pair_counts_in_both_directions() {
    let (slow, usual) = (shape("rtt=5ms"), shape("rtt=1ms"));
    let wiring = Wiring {
        own: 1,
        nodes: 3,
        seed: 0,
        usual: Some(usual),
        pairs: vec![((1, 2), shape("rtt=9ms")), ((2, 1), slow)],
    };
    assert_eq!(wiring.between(1, 2), Some(slow));
    assert_eq!(wiring.between(2, 1), Some(slow));
    assert_eq!(wiring.between(3, 1), Some(usual));
    assert_eq!(wiring.between(2, 2), None);
    let (_, text) = wiring.variable();
    assert_eq!(serde_json::from_str::<Wiring>(&text).unwrap(), wiring);
}

#[test]
fn bytes_leave_one_after_the_other_and_travel_together() {
    let mut link = Shaping::new(shape("rtt=20ms,bw=8mbit"), 1);
    // 1,000 bytes leave in a millisecond and arrive ten later, whether or not others are under way.
    assert_eq!(link.send(us(100_000), 1000), us(111_000));
    assert_eq!(link.send(us(100_000), 1000), us(112_000));
    assert_eq!(link.send(us(200_000), 500), us(210_500));
    let mut link = Shaping::new(shape("rtt=20ms"), 1);
    assert_eq!(link.send(us(1000), 1 << 30), us(11_000));
    assert_eq!(link.send(us(1000), 1), us(11_000));
}

proptest! {
    #[test]
    fn jitter_keeps_to_its_bounds_and_to_the_order(
        seed: u64,
        gaps in prop::collection::vec(0_u64..400, 1..60),
    ) {
        let shape = shape("rtt=1ms,jitter=0.3ms,bw=100mbit");
        let mut link = Shaping::new(shape, seed);
        let (mut sent, mut last) = (us(1000), Duration::ZERO);
        for gap in gaps {
            sent += us(gap);
            let before = last;
            last = link.send(sent, 100);
            prop_assert!(last >= before && last >= sent + us(200));
            // No later than those that came before, or than chance allows.
            prop_assert!(last <= before.max(link.free + us(800)));
        }
    }
}

/// An encrypted link between two nodes of a lab whose links are so.
fn lab_link(shape: LinkShape) -> (Link, Link) {
    let wiring = |own| Wiring {
        own,
        nodes: 2,
        seed: 7,
        usual: Some(shape),
        pairs: Vec::new(),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = (KeyPair::generate(), KeyPair::generate());
    let deadline = Instant::now() + SOON;
    let wire = |socket: TcpStream, own| {
        socket.set_nodelay(true).unwrap();
        Wire::between(socket, &wiring(own), deadline).unwrap()
    };
    let link = |(link, _): (_, Peer)| Link::Encrypted(Box::new(link));
    thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let (socket, _) = listener.accept().unwrap();
            link(tls::accept(wire(socket, 2), &server, Expected::AnyKey, deadline).unwrap())
        });
        let wire = wire(TcpStream::connect(address).unwrap(), 1);
        let connected = tls::connect(wire, &client, server.public(), deadline).unwrap();
        (link(connected), accepted.join().unwrap())
    })
}

/// Answers messages of so many bytes by one byte each, until the other side is gone.
fn acknowledge(mut link: Link, bytes: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut message = vec![0; bytes];
        while link.read_exact(&mut message).is_ok() && link.write_all(&[1]).is_ok() {}
    })
}

/// Repeats a measurement until it is right: a machine that is busy with other things may be late.
/// None may be early.
fn takes(expected: Duration, mut measure: impl FnMut() -> Duration) {
    let tolerance = expected.mul_f64(0.05).max(us(50));
    let mut seen = Vec::new();
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        let measured = measure();
        assert!(
            measured + tolerance >= expected,
            "{measured:?} for {expected:?}"
        );
        if measured <= expected + tolerance {
            return;
        }
        seen.push(measured);
    }
    panic!("never {expected:?}, but {:?}", seen.iter().min());
}

#[test]
fn a_round_trip_takes_as_long_as_was_asked_for() {
    for text in ["rtt=0.3ms", "rtt=2ms", "rtt=0.6ms,jitter=0.1ms", "rtt=20ms"] {
        let shape = shape(text);
        let (mut here, there) = lab_link(shape);
        let echo = acknowledge(there, 1);
        let median = || {
            let trip = |_| {
                // As between two decode steps: a hot socket flatters.
                thread::sleep(us(500));
                let sent = Instant::now();
                here.write_all(&[1]).unwrap();
                here.read_exact(&mut [0]).unwrap();
                sent.elapsed()
            };
            let mut trips: Vec<_> = (0..40).map(trip).collect();
            trips.sort();
            trips[trips.len() / 2]
        };
        takes(shape.rtt, median);
        drop(here);
        echo.join().unwrap();
    }
}

#[test]
fn bulk_takes_its_bandwidth() {
    const BYTES: usize = 1 << 20;
    for (text, rate) in [("rtt=1ms,bw=1gbit", 1e9), ("rtt=4ms,bw=100mbit", 1e8)] {
        let shape = shape(text);
        let (mut here, there) = lab_link(shape);
        let echo = acknowledge(there, BYTES);
        let sent = vec![7; BYTES];
        let expected = shape.rtt + Duration::from_secs_f64(BYTES as f64 * 8.0 / rate);
        takes(expected, || {
            let start = Instant::now();
            here.write_all(&sent).unwrap();
            here.read_exact(&mut [0]).unwrap();
            start.elapsed()
        });
        drop(here);
        echo.join().unwrap();
    }
}

/// Ten frames at once over a long link take one round trip, not ten.
#[test]
fn frames_in_flight_do_not_wait_for_each_other() {
    let (mut here, there) = lab_link(shape("rtt=40ms,bw=1gbit"));
    let echo = acknowledge(there, 2000);
    takes(us(40_160), || {
        let start = Instant::now();
        for _ in 0..10 {
            here.write_all(&[1; 2000]).unwrap();
        }
        here.read_exact(&mut [0; 10]).unwrap();
        start.elapsed()
    });
    drop(here);
    echo.join().unwrap();
}

#[test]
fn a_stranger_is_no_node_of_the_lab() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stranger.write_all(&[0x16, 3, 1, 0, 1]).unwrap();
    let wiring = Wiring {
        own: 1,
        nodes: 2,
        ..Wiring::default()
    };
    let (socket, _) = listener.accept().unwrap();
    let error = Wire::between(socket, &wiring, Instant::now() + SOON).unwrap_err();
    assert_eq!(error.to_string(), "the peer is no node of this lab");
}
