//! Sockets: unix peers outside the container, and TCP states that CRIU refuses.
//!
//! `/proc/net/unix` does not name peers, so the kernel's socket diagnosis is asked (sock_diag(7)), in the
//! container's network namespace: a unix socket lives in one too.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::criu::obstacles::descriptors::View;
use crate::criu::obstacles::of;
use crate::model::Pid;
use crate::model::{Obstacle, ObstacleKind};
use crate::network::netns;

/// Unix sockets whose peer is not among the container's own.
pub(crate) fn look(init: Pid, view: &View, found: &mut Vec<Obstacle>) {
    let namespace = PathBuf::from(format!("/proc/{init}/ns/net"));
    let peers = match netns::entered(&namespace, unix_peers).and_then(|asked| asked) {
        Ok(peers) => peers,
        Err(error) => {
            found.push(Obstacle::of_all(ObstacleKind::Unreadable, "unix sockets", error.to_string()));
            return;
        }
    };
    for (inode, process) in &view.sockets {
        if let Some(peer) = peers.get(inode).filter(|peer| !view.sockets.contains_key(*peer)) {
            let place = format!("unix socket {inode}");
            let outside = format!("its peer, socket {peer}, is outside the container");
            found.push(of(process, ObstacleKind::ForeignUnixPeer, place, outside));
        }
    }
}

/// TCP states that pass by themselves, unless something is wrong.
pub(crate) fn passing(init: Pid, view: &View) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{init}/net/{table}")).unwrap_or_default();
        for socket in text.lines().skip(1).filter_map(parse_tcp) {
            let Some(process) = view.sockets.get(&socket.inode) else { continue };
            let (kind, what) = match socket.state {
                SYN_SENT => {
                    (ObstacleKind::HalfOpenConnection, "waits for its peer's first answer".to_owned())
                }
                LISTEN if socket.waiting > 0 => {
                    (ObstacleKind::UnacceptedConnection, format!("{} connections wait", socket.waiting))
                }
                _ => continue,
            };
            found.push(of(process, kind, format!("TCP socket {}", socket.inode), what));
        }
    }
    found
}

/// The kernel's numbers (`include/net/tcp_states.h`).
const SYN_SENT: u8 = 2;
const LISTEN: u8 = 10;

#[derive(Debug, PartialEq, Eq)]
struct TcpSocket {
    state: u8,
    /// Bytes unread, or, of a listening socket, connections not accepted.
    waiting: u32,
    inode: u64,
}

/// A line of `/proc/net/tcp` (kernel `Documentation/networking/proc_net_tcp.rst`).
fn parse_tcp(line: &str) -> Option<TcpSocket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, waiting) = fields.get(4)?.split_once(':')?;
    Some(TcpSocket {
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        waiting: u32::from_str_radix(waiting, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `<linux/sock_diag.h>`, `<linux/unix_diag.h>`, `<linux/netlink.h>`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x0301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
const NLMSG_HEADER: usize = 16;
const UNIX_DIAG_MESSAGE: usize = 16;

/// Each connected unix socket of this thread's network namespace and its peer, by inode.
fn unix_peers() -> io::Result<BTreeMap<u64, u64>> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    sendto(kernel.as_raw_fd(), &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut peers = BTreeMap::new();
    // The kernel fills at most 32 KiB per message of a dump.
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read_messages(&buffer[..length], &mut peers)? == Dump::Over {
            return Ok(peers);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Dump {
    Continues,
    Over,
}

fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    bytes.extend(40_u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Sequence and port: one question, one socket.
    bytes.extend([0; 8]);
    // struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(UDIAG_SHOW_PEER.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_messages(mut bytes: &[u8], peers: &mut BTreeMap<u64, u64>) -> io::Result<Dump> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed answer of the socket diagnosis");
    while !bytes.is_empty() {
        let length = word(bytes, 0).ok_or_else(malformed)? as usize;
        let kind = half(bytes, 4).ok_or_else(malformed)?;
        let message = bytes.get(NLMSG_HEADER..length).ok_or_else(malformed)?;
        match kind {
            NLMSG_DONE => return Ok(Dump::Over),
            NLMSG_ERROR => {
                let code = word(message, 0).ok_or_else(malformed)? as i32;
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => {
                if let Some((inode, peer)) = read_socket(message) {
                    peers.insert(inode, peer);
                }
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Dump::Continues)
}

/// struct unix_diag_msg (family, type, state, padding, inode, cookie), then attributes.
fn read_socket(message: &[u8]) -> Option<(u64, u64)> {
    let inode = word(message, 4)?;
    let mut rest = message.get(UNIX_DIAG_MESSAGE..)?;
    while let (Some(length), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        if kind == UNIX_DIAG_PEER {
            let peer = word(rest, 4)?;
            return (peer != 0).then_some((inode.into(), peer.into()));
        }
        rest = rest.get(usize::from(length.max(4)).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_two_ends_of_a_pair_are_each_others_peers() {
        let (one, two) = UnixStream::pair().unwrap();
        let inode = |socket: &UnixStream| {
            fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino()
        };
        let peers = unix_peers().unwrap();
        assert_eq!(peers.get(&inode(&one)), Some(&inode(&two)));
        assert_eq!(peers.get(&inode(&two)), Some(&inode(&one)));
    }

    #[test]
    fn tcp_lines_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(parse_tcp(line), Some(TcpSocket { state: LISTEN, waiting: 2, inode: 4711 }));
        assert_eq!(parse_tcp("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn damaged_answers_never_panic() {
        let mut peers = BTreeMap::new();
        for length in 0..64_u32 {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(64, 0xff);
            let _ = read_messages(&bytes, &mut peers);
        }
    }
}
