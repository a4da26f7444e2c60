//! Entries in the native protocol of systemd's journal (`systemd.io/JOURNAL_NATIVE_PROTOCOL`).

use manifests::chain::Record;

use super::Said;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// What all entries of this host's records have in common: `journalctl MESSAGE_ID=…`.
pub const MESSAGE_ID: &str = "5d2e4f7a6c0b4c83a1d94b7e3f18c605";

/// `notice`: worth keeping, nothing to wake anybody for.
const PRIORITY: &str = "5";

/// One entry: a field a line; what has line breaks in it with its length, as the protocol has it.
pub(super) fn entry(record: &Record, said: &Said) -> Vec<u8> {
    let Record { seq, at, kind, about, by, content, previous, hash } = record;
    let author = said.by.as_ref().map(|by| &by.author);
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let fields = [
        ("MESSAGE", Some(said.words.clone())),
        ("MESSAGE_ID", Some(MESSAGE_ID.to_owned())),
        ("PRIORITY", Some(PRIORITY.to_owned())),
        ("SYSLOG_IDENTIFIER", Some("update".to_owned())),
        ("UPDATE_RECORD", Some(seq.to_string())),
        ("UPDATE_PREVIOUS", Some(previous.to_string())),
        ("UPDATE_AT", Some(at.clone())),
        ("UPDATE_KIND", Some(kind.clone())),
        ("UPDATE_ABOUT", Some(about.clone())),
        ("UPDATE_BY", Some(by.clone())),
        ("UPDATE_CONTENT", Some(content.to_string())),
        ("UPDATE_HASH", Some(hash.to_string())),
        ("UPDATE_UID", number(author.map(|author| author.uid))),
        ("UPDATE_LOGIN_UID", number(author.and_then(|author| author.login_uid))),
        ("UPDATE_SUDO_USER", author.and_then(|author| author.sudo_user.clone())),
        ("UPDATE_GRANT", said.by.as_ref().and_then(|by| by.grant).map(|grant| grant.to_string())),
    ];
    let mut bytes = Vec::new();
    for (name, value) in fields {
        let Some(value) = value else { continue };
        bytes.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}
