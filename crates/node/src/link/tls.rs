//! TLS 1.3 with raw public keys (RFC 7250): both ends show an Ed25519 key and sign the handshake.
//!
//! There is no certificate, no name and no authority: a peer is its key. No session is resumed
//! and no ticket sent, so after the handshake a link carries our bytes and nothing else, and an
//! end that only writes never has to read.

mod verifier;

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brigade_wire::NodeKey;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::shape::Wire;
use super::{Expected, KeyPair, Peer};
use verifier::{KeyVerifier, public_key, public_key_info};

/// rustls reads 4 KiB at a time, each a system call if this did not lie between.
const READ_BUFFER_BYTES: usize = 128 * 1024;

/// Bytes that are encrypted before they are written: a decode step's hidden states in one go,
/// while those of a prompt's chunk leave before all of them are encrypted.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// What a server says when it has accepted the client's key.
const WELCOME: [u8; 1] = [1];

const EXPORTER: &[u8] = b"EXPORTER-brigade-binding";

/// An encrypted connection.
#[derive(Debug)]
pub struct Encrypted {
    connection: Connection,
    input: BufReader<Wire>,
}

pub(super) fn connect(
    wire: Wire,
    own: &KeyPair,
    peer: NodeKey,
    deadline: Instant,
) -> io::Result<(Encrypted, Peer)> {
    let provider = provider();
    let verifier = KeyVerifier::new(&provider, Expected::Key(peer));
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(
            own,
        )?)));
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    // A peer is its key; the name is neither sent nor looked at.
    let name = ServerName::try_from("brigade").map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let (mut encrypted, peer) = Encrypted::handshake(connection.into(), wire, deadline)?;
    // A client is done before the server has judged its key: wait for the word.
    let left = deadline.saturating_duration_since(Instant::now());
    let left = left.max(Duration::from_millis(1));
    encrypted.socket().set_read_timeout(Some(left))?;
    let mut word = [0];
    encrypted.read_exact(&mut word)?;
    if word != WELCOME {
        return Err(io::Error::other(
            "the peer sent something else than its welcome",
        ));
    }
    encrypted.socket().set_read_timeout(None)?;
    Ok((encrypted, peer))
}

pub(super) fn accept(
    wire: Wire,
    own: &KeyPair,
    expected: Expected,
    deadline: Instant,
) -> io::Result<(Encrypted, Peer)> {
    let provider = provider();
    let verifier = KeyVerifier::new(&provider, expected);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(
            own,
        )?)));
    config.send_tls13_tickets = 0;
    let connection = ServerConnection::new(Arc::new(config)).map_err(io::Error::other)?;
    let (mut encrypted, peer) = Encrypted::handshake(connection.into(), wire, deadline)?;
    encrypted.write_all(&WELCOME)?;
    Ok((encrypted, peer))
}

/// ring's algorithms, fewer of them: one key exchange, and AES before `ChaCha20`, because what
/// runs models has instructions for it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    })
}

/// A key pair as rustls wants it: the "certificate" is the bare public key.
fn certified(own: &KeyPair) -> io::Result<Arc<CertifiedKey>> {
    let secret = PrivatePkcs8KeyDer::from(own.pkcs8());
    let key = ring::sign::any_eddsa_type(&secret).map_err(io::Error::other)?;
    let public = CertificateDer::from(public_key_info(own.public()));
    Ok(Arc::new(CertifiedKey::new(vec![public], key)))
}

impl Encrypted {
    fn handshake(
        mut connection: Connection,
        mut wire: Wire,
        deadline: Instant,
    ) -> io::Result<(Self, Peer)> {
        connection.set_buffer_limit(Some(WRITE_BUFFER_BYTES));
        let mut timed = Timed {
            wire: &mut wire,
            deadline,
        };
        while connection.is_handshaking() {
            connection.complete_io(&mut timed).map_err(explain)?;
        }
        // The last flight of a server may be waiting.
        while connection.wants_write() {
            connection.write_tls(&mut timed)?;
        }
        let key = connection
            .peer_certificates()
            .and_then(|certificates| public_key(certificates.first()?))
            .ok_or_else(|| io::Error::other("the peer showed no key"))?;
        let binding = connection
            .export_keying_material([0; 32], EXPORTER, None)
            .map_err(io::Error::other)?;
        wire.socket().set_read_timeout(None)?;
        wire.socket().set_write_timeout(None)?;
        let input = BufReader::with_capacity(READ_BUFFER_BYTES, wire);
        Ok((Self { connection, input }, Peer { key, binding }))
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.input.get_ref().socket()
    }

    /// Whether bytes are held that the socket does not tell of any more.
    pub(super) fn holds_input(&mut self) -> bool {
        let decrypted = |state: rustls::IoState| state.plaintext_bytes_to_read() > 0;
        !self.input.buffer().is_empty()
            || self.connection.process_new_packets().is_ok_and(decrypted)
    }

    /// Writes what is encrypted.
    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(self.input.get_mut())?;
        }
        Ok(())
    }
}

impl Read for Encrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Frames have lengths, so an end without TLS's farewell cuts nothing short that
                // would not be noticed: it is an end like any other.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            match self.connection.read_tls(&mut self.input) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
                result => result?,
            };
            if let Err(error) = self.connection.process_new_packets() {
                // Tells the peer why, if it still listens.
                let _ = self.send();
                return Err(explain(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }
}

impl Write for Encrypted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.connection.writer().write(bytes)?;
        self.send()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// TLS's errors in the words of somebody who knows nothing of certificates.
fn explain(error: io::Error) -> io::Error {
    use rustls::{AlertDescription, CertificateError, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let text = match inner {
        Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            "the peer is not who it should be: it proved another key"
        }
        Some(Error::AlertReceived(
            AlertDescription::AccessDenied | AlertDescription::BadCertificate,
        )) => "the peer does not know this side's key",
        Some(Error::AlertReceived(_) | Error::InvalidMessage(_)) => {
            "the peer does not speak Brigade's encrypted protocol"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

/// A wire until a deadline, so that bytes that trickle in cannot keep a handshake alive.
struct Timed<'a> {
    wire: &'a mut Wire,
    deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.socket().set_read_timeout(self.left()?)?;
        self.wire.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wire.socket().set_write_timeout(self.left()?)?;
        self.wire.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
