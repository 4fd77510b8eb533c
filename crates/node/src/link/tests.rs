//! Encrypted links over real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

use super::*;

const SOON: Duration = Duration::from_secs(20);

type End = io::Result<(Link, Peer)>;

/// Both ends of a connection of `client` to `server`.
fn pair(client: &KeyPair, asked: NodeKey, server: &KeyPair, expected: Expected) -> (End, End) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let (socket, _) = listener.accept().unwrap();
            Link::accept(socket, server, expected, SOON)
        });
        let connected = Link::connect(address, client, asked, SOON);
        (connected, accepted.join().unwrap())
    })
}

fn trusting(client: &KeyPair, server: &KeyPair) -> (Link, Link) {
    let expected = Expected::Key(client.public());
    let (connected, accepted) = pair(client, server.public(), server, expected);
    (connected.unwrap().0, accepted.unwrap().0)
}

#[test]
fn both_ends_learn_the_key_and_share_a_secret() {
    let (client, server) = (KeyPair::generate(), KeyPair::generate());
    let (connected, accepted) = pair(&client, server.public(), &server, Expected::AnyKey);
    let ((mut a, there), (mut b, here)) = (connected.unwrap(), accepted.unwrap());
    assert_eq!(here.key, client.public());
    assert_eq!(there.key, server.public());
    assert_eq!(here.binding, there.binding);
    a.write_all(b"ping").unwrap();
    let mut buffer = [0; 4];
    b.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"ping");
    b.write_all(b"pong").unwrap();
    a.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"pong");
    assert!(a.socket().nodelay().unwrap() && b.socket().nodelay().unwrap());

    let (again, _) = pair(&client, server.public(), &server, Expected::AnyKey);
    assert_ne!(
        again.unwrap().1.binding,
        here.binding,
        "each connection has its own"
    );
}

#[test]
fn another_server_than_asked_for_is_left() {
    let (client, server, other) = (
        KeyPair::generate(),
        KeyPair::generate(),
        KeyPair::generate(),
    );
    let (connected, accepted) = pair(&client, other.public(), &server, Expected::AnyKey);
    let error = connected.unwrap_err().to_string();
    assert_eq!(
        error,
        "the peer is not who it should be: it proved another key"
    );
    assert!(accepted.is_err());
}

#[test]
fn another_client_than_expected_gets_nothing() {
    let (client, server, other) = (
        KeyPair::generate(),
        KeyPair::generate(),
        KeyPair::generate(),
    );
    let expected = Expected::Key(other.public());
    let (connected, accepted) = pair(&client, server.public(), &server, expected);
    assert_eq!(
        accepted.unwrap_err().to_string(),
        "the peer is not who it should be: it proved another key"
    );
    assert_eq!(
        connected.unwrap_err().to_string(),
        "the peer does not know this side's key"
    );
}

/// A key that is shown but not held, which only the signature tells.
#[test]
fn a_borrowed_key_is_no_proof() {
    let (client, server, victim) = (
        KeyPair::generate(),
        KeyPair::generate(),
        KeyPair::generate(),
    );
    let impostor = KeyPair::forged(&client, victim.public());
    let expected = Expected::Key(victim.public());
    let (_, accepted) = pair(&impostor, server.public(), &server, expected);
    let error = accepted.unwrap_err().to_string();
    assert!(error.contains("BadSignature"), "{error}");

    let impostor = KeyPair::forged(&server, victim.public());
    let (connected, _) = pair(&client, victim.public(), &impostor, Expected::AnyKey);
    let error = connected.unwrap_err().to_string();
    assert!(error.contains("BadSignature"), "{error}");
}

#[test]
fn megabytes_arrive_as_they_were_sent() {
    let (mut a, mut b) = trusting(&KeyPair::generate(), &KeyPair::generate());
    let sent: Vec<u8> = (0..5_000_000u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    let expected = sent.clone();
    let writer = thread::spawn(move || {
        a.write_all(&sent).unwrap();
        a
    });
    let mut received = vec![0; expected.len()];
    b.read_exact(&mut received).unwrap();
    assert!(received == expected);
    drop(writer.join().unwrap());
    assert_eq!(b.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_byte_changed_on_the_way_ends_the_link() {
    let (client, server) = (KeyPair::generate(), KeyPair::generate());
    let (mut a, mut b) = trusting(&client, &server);
    // Past TLS, into the socket: a record that nobody encrypted.
    a.socket()
        .write_all(&[
            0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
            20,
        ])
        .unwrap();
    let error = b.read(&mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    a.socket().shutdown(Shutdown::Write).unwrap();
    assert!(a.read(&mut [0; 4]).is_err());
}

#[test]
fn garbage_and_silence_are_refused_in_time() {
    let server = KeyPair::generate();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let accept = |limit| {
        let (socket, _) = listener.accept().unwrap();
        Link::accept(socket, &server, Expected::AnyKey, limit).unwrap_err()
    };
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16; 600], &[0xff; 600]] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(garbage).unwrap();
        assert_eq!(
            accept(SOON).to_string(),
            "the peer does not speak Brigade's encrypted protocol"
        );
    }
    let _silent = TcpStream::connect(address).unwrap();
    let kind = accept(Duration::from_millis(50)).kind();
    assert!(
        matches!(kind, ErrorKind::TimedOut | ErrorKind::WouldBlock),
        "{kind:?}"
    );
}

#[test]
fn keys_read_back_and_hide_their_secret() {
    let pair = KeyPair::generate();
    assert_eq!(KeyPair::from_pkcs8(pair.pkcs8()).unwrap(), pair);
    assert_eq!(format!("{pair:?}"), format!("KeyPair({})", pair.id()));
    assert!(KeyPair::from_pkcs8(&pair.pkcs8()[1..]).is_err());
    assert_ne!(KeyPair::generate().public(), pair.public());
}
