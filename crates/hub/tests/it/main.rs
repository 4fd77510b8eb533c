//! Names and files, against servers on this machine.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod headers;
mod hub;

use std::time::Duration;

use brigade_hub::{Client, HubError, Patience, Resolved, Settings};

/// Waits of a test: long enough on a busy machine, and never in the way.
fn settings() -> Settings {
    Settings {
        patience: Patience {
            again: Duration::from_millis(1),
            ..Patience::default()
        },
        ..Settings::default()
    }
}

fn read(url: &str) -> Result<Resolved, HubError> {
    Client::new(settings()).resolve(&url.parse().unwrap())
}

fn refusal(url: &str) -> String {
    read(url).unwrap_err().to_string()
}
