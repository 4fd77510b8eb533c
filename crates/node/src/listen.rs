//! Where the processes of this machine wait for a chain's connections.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address, and the ports that may be taken at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// The address of one interface, or the unspecified one for all of them.
    pub ip: IpAddr,
    /// The ports, of which the first that is free is taken; without them any that the system gives.
    pub ports: Option<Ports>,
}

/// Consecutive ports, the last included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Listen {
    /// Any port of loopback.
    pub const LOOPBACK: Self = Self {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ports: None,
    };

    /// Takes a port.
    pub fn bind(&self) -> io::Result<TcpListener> {
        let Some(ports) = self.ports else {
            return TcpListener::bind((self.ip, 0));
        };
        for port in ports.first..=ports.last {
            match TcpListener::bind((self.ip, port)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "every port of {ports} is taken: name more with `brigade up --stage-ports`, or \
                 unload a model"
            ),
        ))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

/// The text is no range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a range of ports: write the first and the last of them, such as 8820-8839")]
pub struct BadPorts;

impl FromStr for Ports {
    type Err = BadPorts;

    fn from_str(text: &str) -> Result<Self, BadPorts> {
        let (first, last) = text.split_once('-').ok_or(BadPorts)?;
        let port = |text: &str| text.trim().parse().map_err(|_| BadPorts);
        let ports = Self {
            first: port(first)?,
            last: port(last)?,
        };
        if ports.first == 0 || ports.first > ports.last {
            return Err(BadPorts);
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        let ports: Ports = "8820-8839".parse().unwrap();
        assert_eq!((ports.first, ports.last), (8820, 8839));
        assert_eq!(ports.to_string(), "8820-8839");
        for bad in ["8820", "0-5", "9-8", "1-70000", "a-b", ""] {
            assert_eq!(bad.parse::<Ports>(), Err(BadPorts), "{bad}");
        }
    }

    #[test]
    fn the_first_free_port_is_taken_and_a_full_range_says_so() {
        let taken = Listen::LOOPBACK.bind().unwrap();
        let port = taken.local_addr().unwrap().port();
        let full = Listen {
            ports: Some(Ports {
                first: port,
                last: port,
            }),
            ..Listen::LOOPBACK
        };
        let error = full.bind().unwrap_err().to_string();
        assert!(error.starts_with(&format!("every port of {port}-{port} is taken")));
        drop(taken);
        assert_eq!(full.bind().unwrap().local_addr().unwrap().port(), port);
    }
}
