//! What encryption costs a link: `cargo bench -p brigade-node --bench links`.
//!
//! Bare TCP and TLS take turns on loopback within one run, so that what they share (the machine,
//! its load, the kernel) falls out of the ratio. A frame's one-way cost is half of a round trip
//! of 32 KiB each way; before each there is a pause, as between two decode steps, because a hot
//! socket flatters everybody.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use brigade_node::{Expected, KeyPair, Link};

const FRAME_BYTES: usize = 32 * 1024;
const PAUSE: Duration = Duration::from_millis(2);
const ROUND_TRIPS: usize = 60;
const BULK_BYTES: usize = 512 << 20;
const BULK_PIECE_BYTES: usize = 256 * 1024;
const ROUNDS: usize = 5;

/// The most that a frame may cost beyond bare TCP, one way, at the median.
const MOST_EXTRA_MS: f64 = 0.15;
/// The least that bulk may reach of bare TCP.
const LEAST_BULK: f64 = 0.5;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let (mut plain_ms, mut tls_ms) = (Vec::new(), Vec::new());
    let (mut plain_bulk, mut tls_bulk) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain_ms.extend(one_way_ms(plain()?)?);
        tls_ms.extend(one_way_ms(encrypted()?)?);
        plain_bulk.push(gbit_s(plain()?)?);
        tls_bulk.push(gbit_s(encrypted()?)?);
    }
    let (plain_ms, tls_ms) = (median(&mut plain_ms), median(&mut tls_ms));
    let pairs = tls_bulk.iter().zip(&plain_bulk);
    let ratio = median(&mut pairs.map(|(tls, plain)| tls / plain).collect::<Vec<_>>());
    let (plain_bulk, tls_bulk) = (median(&mut plain_bulk), median(&mut tls_bulk));
    let extra = tls_ms - plain_ms;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!(
        "32 KiB one way: TCP {plain_ms:.3} ms, TLS {tls_ms:.3} ms: {extra:+.3} ms \
         (at most {MOST_EXTRA_MS})\n\
         bulk: TCP {plain_bulk:.1} Gbit/s, TLS {tls_bulk:.1} Gbit/s: ratio {ratio:.2} \
         (at least {LEAST_BULK})\n\
         medians, loopback, {cores} cores, {}",
        std::env::consts::ARCH
    );
    Ok(if extra <= MOST_EXTRA_MS && ratio >= LEAST_BULK {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

type Pair = (Link, Link);

fn sockets() -> Result<(TcpListener, std::net::SocketAddr), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn plain() -> Result<Pair, Box<dyn Error>> {
    let (listener, address) = sockets()?;
    let here = TcpStream::connect(address)?;
    let (there, _) = listener.accept()?;
    for socket in [&here, &there] {
        socket.set_nodelay(true)?;
    }
    Ok((Link::Plain(here), Link::Plain(there)))
}

fn encrypted() -> Result<Pair, Box<dyn Error>> {
    let (listener, address) = sockets()?;
    let (client, server) = (KeyPair::generate(), KeyPair::generate());
    let (asked, limit) = (server.public(), Duration::from_secs(5));
    let connecting = thread::spawn(move || Link::connect(address, &client, asked, limit));
    let (socket, _) = listener.accept()?;
    let (there, _) = Link::accept(socket, &server, Expected::AnyKey, limit)?;
    let (here, _) = connecting.join().map_err(|_| "the client panicked")??;
    Ok((here, there))
}

fn one_way_ms((mut here, mut there): Pair) -> Result<Vec<f64>, Box<dyn Error>> {
    let echo = thread::spawn(move || -> std::io::Result<()> {
        let mut frame = vec![0; FRAME_BYTES];
        for _ in 0..ROUND_TRIPS {
            there.read_exact(&mut frame)?;
            there.write_all(&frame)?;
        }
        Ok(())
    });
    let mut frame = vec![7; FRAME_BYTES];
    let mut times = Vec::new();
    for _ in 0..ROUND_TRIPS {
        thread::sleep(PAUSE);
        let start = Instant::now();
        here.write_all(&frame)?;
        here.read_exact(&mut frame)?;
        times.push(start.elapsed().as_secs_f64() * 1e3 / 2.0);
    }
    echo.join().map_err(|_| "the echo panicked")??;
    Ok(times)
}

fn gbit_s((mut here, mut there): Pair) -> Result<f64, Box<dyn Error>> {
    let drain = thread::spawn(move || -> std::io::Result<()> {
        let mut piece = vec![0; BULK_PIECE_BYTES];
        for _ in 0..BULK_BYTES / BULK_PIECE_BYTES {
            there.read_exact(&mut piece)?;
        }
        there.write_all(&[1])
    });
    let piece = vec![7; BULK_PIECE_BYTES];
    let start = Instant::now();
    for _ in 0..BULK_BYTES / BULK_PIECE_BYTES {
        here.write_all(&piece)?;
    }
    here.read_exact(&mut [0])?;
    let rate = BULK_BYTES as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9;
    drain.join().map_err(|_| "the drain panicked")??;
    Ok(rate)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
