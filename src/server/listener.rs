//! Listening sockets, one per worker on the same address (`SO_REUSEPORT`).

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps for us while all workers are busy.
const BACKLOG: i32 = 4096;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address of the configuration.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Binds `count` sockets to `address`. Port 0 is chosen by the first and shared by the rest.
///
/// # Errors
/// The address is in use, not ours, or not permitted.
pub(super) fn bind(
    address: SocketAddr,
    count: usize,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), BindError> {
    let fail = |source| BindError { address, source };
    // Another process on the port would silently get a share of the connections: refuse it before sharing among us.
    drop(bind_one(address, false).map_err(fail)?);
    let first = bind_one(address, true).map_err(fail)?;
    let local = first.local_addr().map_err(fail)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bind_one(local, true).map_err(fail)?);
    }
    Ok((local, sockets))
}

fn bind_one(address: SocketAddr, share: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if share {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_the_port_and_others_are_refused_it() {
        let (address, sockets) = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_ne!(address.port(), 0);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        let error = bind(address, 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}")), "{error}");
    }
}
