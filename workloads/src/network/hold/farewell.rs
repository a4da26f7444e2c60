//! Telling peers that their connection is no more.
//!
//! The sockets died silently, so nobody ever sent a FIN or a reset, and their sequence numbers are
//! not ours to know. A SYN/ACK of the 4-tuple needs none: a peer in any synchronised state answers
//! it with a challenge ACK that carries its real numbers (RFC 5961, section 4.2); that finds no
//! socket here, and the kernel answers it with a reset which the peer accepts (RFC 9293, section
//! 3.10.7.1). Connection tracking lets a stray SYN/ACK of a known connection pass, where an ACK with a
//! wrong number would be dropped as invalid or leave untranslated.
//!
//! The challenge ACKs are watched for: a peer that answered has been reset. Peers answer at most once
//! in half a second (`tcp_invalid_ratelimit`), hence the repetition.

#![expect(clippy::disallowed_methods, reason = "answers arrive in real time")]

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto, socket,
};

use crate::criu::images::Connection;
use crate::network::hold::{Family, Farewell};

/// When probes are sent, counted from the first. The second covers a lost packet, the third a peer
/// that had just used up its answer.
const SEND_AT: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(600)];

/// How long answers are waited for in all; a peer learns within a second or by its own timers.
const WAIT: Duration = Duration::from_millis(900);

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const TCP: u8 = 6;

pub(crate) fn say(connections: &[Connection]) -> io::Result<Farewell> {
    let mut silent: BTreeSet<Connection> = connections.iter().copied().collect();
    let mut told = Vec::new();
    let mut wires = Vec::new();
    for family in [Family::V4, Family::V6] {
        if silent.iter().any(|connection| Family::of(connection) == family) {
            wires.push(Wire::open(family)?);
        }
    }
    let begun = Instant::now();
    let mut rounds = SEND_AT.iter().peekable();
    while !silent.is_empty() && begun.elapsed() < WAIT {
        if rounds.next_if(|at| begun.elapsed() >= **at).is_some() {
            for connection in &silent {
                let wire = wires.iter().find(|wire| wire.family == Family::of(connection));
                // A peer that cannot be reached cannot be told; it stays among the silent.
                let _ = wire.map(|wire| wire.probe(connection));
            }
        }
        let next = rounds.peek().map_or(WAIT, |at| **at);
        for (peer, port) in answers(&wires, next.saturating_sub(begun.elapsed()))? {
            let one = silent.iter().find(|one| one.peer == peer && one.local.port() == port).copied();
            if let Some(one) = one.filter(|one| silent.remove(one)) {
                told.push(one);
            }
        }
    }
    Ok(Farewell { told, silent: silent.into_iter().collect() })
}

/// Peers that sent an ACK, and the ports they sent it to, within `wait`.
fn answers(wires: &[Wire], wait: Duration) -> io::Result<Vec<(SocketAddr, u16)>> {
    let mut watched: Vec<PollFd> =
        wires.iter().map(|wire| PollFd::new(wire.receiver.as_fd(), PollFlags::POLLIN)).collect();
    // Rounded up, lest the last fraction of a millisecond be spent spinning.
    let timeout = PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut watched, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut found = Vec::new();
    for wire in wires {
        wire.drain(&mut found)?;
    }
    Ok(found)
}

/// Two raw sockets of one family: one sends whole packets, the other sees all TCP that arrives.
struct Wire {
    family: Family,
    sender: OwnedFd,
    receiver: OwnedFd,
}

impl Wire {
    fn open(family: Family) -> io::Result<Self> {
        let domain = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        // With IPPROTO_RAW the packet brings its own IP header, in both families (raw(7), ipv6(7)).
        let sender = socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let receiver = socket(domain, SockType::Raw, flags, SockProtocol::Tcp)?;
        Ok(Self { family, sender, receiver })
    }

    fn probe(&self, connection: &Connection) -> io::Result<()> {
        // A raw socket takes no port.
        let mut to = connection.peer;
        to.set_port(0);
        let packet = packet(connection);
        sendto(self.sender.as_raw_fd(), &packet, &SockaddrStorage::from(to), MsgFlags::empty())?;
        Ok(())
    }

    fn drain(&self, into: &mut Vec<(SocketAddr, u16)>) -> io::Result<()> {
        let mut buffer = [0; 128];
        loop {
            match recvfrom::<SockaddrStorage>(self.receiver.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    let from = from.as_ref().and_then(ip_of);
                    into.extend(from.and_then(|from| answer(self.family, from, &buffer[..length.min(128)])));
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// The peer and our port, if a received packet is an ACK. A raw socket hands over IPv4 packets with
/// their header and IPv6 packets without.
fn answer(family: Family, from: IpAddr, packet: &[u8]) -> Option<(SocketAddr, u16)> {
    let header = match family {
        Family::V4 => usize::from(packet.first()? & 0x0f) * 4,
        Family::V6 => 0,
    };
    let tcp = packet.get(header..)?;
    let flags = *tcp.get(13)?;
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let acknowledges = flags & (SYN | ACK | RST) == ACK;
    acknowledges.then_some((SocketAddr::new(from, port(0)?), port(2)?))
}

/// A SYN/ACK from the container's end to the peer's, IP header included.
fn packet(connection: &Connection) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(20);
    tcp.extend(connection.local.port().to_be_bytes());
    tcp.extend(connection.peer.port().to_be_bytes());
    // Sequence and acknowledgement numbers: any will do.
    tcp.extend([0; 8]);
    // Header length in words, flags; then window, checksum, urgent pointer.
    tcp.extend([5 << 4, SYN | ACK]);
    tcp.extend([0; 6]);

    let (mut header, pseudo) = match (connection.local.ip(), connection.peer.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // Length, identification and checksum are filled in by the kernel (raw(7)).
            let mut header = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            (header, [&from.octets()[..], &to.octets()].concat())
        }
        (from, to) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let mut header = vec![0x60, 0, 0, 0, 0, 20, TCP, 64];
            header.extend(octets(from));
            header.extend(octets(to));
            (header, [octets(from), octets(to)].concat())
        }
    };
    let sum = checksum(&[&pseudo, &[0, TCP, 0, 20], &tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    header.extend(tcp);
    header
}

/// The Internet checksum (RFC 1071) over parts of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(local: &str, peer: &str) -> Connection {
        Connection { local: local.parse().unwrap(), peer: peer.parse().unwrap() }
    }

    #[test]
    fn probes_carry_a_valid_checksum_in_both_families() {
        for (one, header) in [
            (connection("10.0.0.2:80", "10.0.0.1:4000"), 20),
            (connection("[fd00::2]:80", "[fd00::1]:4000"), 40),
        ] {
            let packet = packet(&one);
            assert_eq!(packet.len(), header + 20);
            let addresses = if header == 20 { &packet[12..20] } else { &packet[8..40] };
            // A correct checksum makes the sum over everything zero.
            assert_eq!(checksum(&[addresses, &[0, TCP, 0, 20], &packet[header..]]), 0);
            assert_eq!(&packet[header..header + 4], &[0, 80, 0x0f, 0xa0]);
            assert_eq!(packet[header + 13], SYN | ACK);
        }
    }

    #[test]
    fn only_plain_acks_count_as_answers() {
        let one = connection("10.0.0.1:4000", "10.0.0.2:80");
        let mut reply = packet(&one);
        assert_eq!(answer(Family::V4, one.local.ip(), &reply), None, "a SYN/ACK is no answer");
        reply[33] = ACK;
        assert_eq!(answer(Family::V4, one.local.ip(), &reply), Some((one.local, 80)));
        reply[33] = ACK | RST;
        assert_eq!(answer(Family::V4, one.local.ip(), &reply), None);
        for length in 0..34 {
            assert_eq!(answer(Family::V4, one.local.ip(), &reply[..length]), None);
        }
    }
}
