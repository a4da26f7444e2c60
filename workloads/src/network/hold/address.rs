//! Addresses of containers that an engine has given up.
//!
//! A peer can be told that its connection is gone only by somebody who has the connection's other address. Between two
//! runs of a container, or when the new one got another address, nobody has it; the host takes it for that moment.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use system::command::Invocation;

/// A neighbour on the host's own bridge answers within a millisecond.
const ANSWER: Duration = Duration::from_millis(300);

/// Whether the namespace that this thread is in has this address.
pub(super) fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whether somebody answers at this address, be it by a refusal.
pub(super) fn is_in_use(place: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&place, ANSWER) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
    }
}

/// Addresses that the host has until this is dropped.
#[derive(Debug)]
pub(super) struct Lease(BTreeSet<IpAddr>);

/// Gives these addresses to the host. One that it cannot have is not had.
pub(super) fn lend(addresses: impl Iterator<Item = IpAddr>) -> Lease {
    let free: BTreeSet<IpAddr> = addresses.filter(|address| !is_ours(*address)).collect();
    Lease(free.into_iter().filter(|address| change("add", *address)).collect())
}

impl Drop for Lease {
    fn drop(&mut self) {
        for address in &self.0 {
            change("delete", *address);
        }
    }
}

fn change(action: &str, address: IpAddr) -> bool {
    let alone = match address {
        IpAddr::V4(v4) => format!("{v4}/32"),
        IpAddr::V6(v6) => format!("{v6}/128"),
    };
    let mut words = vec!["address", action, &alone, "dev", "lo"];
    if address.is_ipv6() && action == "add" {
        words.push("nodad");
    }
    let changed = Invocation::new("ip").args(words).output();
    if let Err(error) = &changed {
        tracing::info!(%address, action, error = error as &dyn std::error::Error, "the address of a container was not changed");
    }
    changed.is_ok()
}
