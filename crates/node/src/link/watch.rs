//! Noticing that the other machine is gone when nobody says so.
//!
//! A machine without power, or behind a cable that was pulled out, closes no connection, and a
//! stage that waits for its next step would wait for ever. The kernels ask each other instead: a
//! stage that computes for long, or a process that is stopped, still answers.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// An idle connection is asked after this time, and again as often.
const ASK: Duration = Duration::from_secs(1);

/// So many questions without an answer end a connection.
const UNANSWERED: u32 = 3;

/// Ends the connection, with an error for whoever reads or writes, some four seconds after the
/// other machine is gone.
#[cfg(unix)]
pub(super) fn notice_silence(socket: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, ASK)?;
    sockopt::set_tcp_keepintvl(socket, ASK)?;
    sockopt::set_tcp_keepcnt(socket, UNANSWERED)?;
    // The same where bytes are under way, which no question is sent behind.
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(socket, ASK.as_millis() as u32 * (UNANSWERED + 1))?;
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
pub(super) fn notice_silence(_socket: &TcpStream) -> io::Result<()> {
    Ok(())
}
