//! What logs get, whatever is in a record.

use manifests::Sha256;
use manifests::chain::{Record, content_digest};

use super::*;

fn exported(what: &str, by: &str) -> Exported {
    let fields = vec![("what".to_owned(), Some(what.to_owned()))];
    let at = "2026-11-01T00:00:00.123456789Z".to_owned();
    let record =
        Record::following(Head::EMPTY, at, "audit", "1".to_owned(), by.to_owned(), content_digest(&fields));
    Exported { record, fields: Some(fields) }
}

const BY: &str = r#"{"uid":0,"login_uid":1000,"sudo_user":"alice","grant":null}"#;

#[test]
fn a_record_is_one_line_of_rfc_5424_whatever_is_in_it() {
    let exported = exported("held: \"a]\\b\nc\u{85}\u{1b}", BY);
    let line = syslog::line("web-1.example.org", &exported.record, &said(&exported));
    let head = "<109>1 2026-11-01T00:00:00.123456Z web-1.example.org update - audit [record@32473 seq=\"1\" ";
    assert!(line.starts_with(head), "{line}");
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert!(
        line.contains(r#"by="{\"uid\":0,\"login_uid\":1000,\"sudo_user\":\"alice\",\"grant\":null}""#),
        "{line}"
    );
    assert!(line.contains("] record 1: held: \"a]\\b c"), "{line}");
    assert!(line.ends_with(", by uid 0, by sudo for alice, logged in as uid 1000"), "{line}");
    let odd = syslog::line("two words", &exported.record, &said(&exported));
    assert!(odd.starts_with("<109>1 2026-11-01T00:00:00.123456Z - update - audit ["), "{odd}");
}

/// Reads an entry as `systemd.io/JOURNAL_NATIVE_PROTOCOL` has it.
fn fields_of(mut bytes: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let line = text(&bytes[..end]);
        bytes = &bytes[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            fields.push((name.to_owned(), value.to_owned()));
            continue;
        }
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        fields.push((line, text(&bytes[8..8 + length])));
        assert_eq!(bytes[8 + length], b'\n');
        bytes = &bytes[9 + length..];
    }
    fields
}

#[test]
fn an_entry_of_journald_has_all_that_the_hash_is_of() {
    let exported = exported("two\nUPDATE_HASH=forged", BY);
    let fields = fields_of(&journald::entry(&exported.record, &said(&exported)));
    let value = |name: &str| {
        let found: Vec<&String> =
            fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value).collect();
        assert_eq!(found.len(), 1, "{name}: {fields:?}");
        found[0].clone()
    };
    assert_eq!(value("MESSAGE_ID"), MESSAGE_ID);
    assert!(value("MESSAGE").starts_with("record 1: two\nUPDATE_HASH=forged, by uid 0"));
    assert_eq!((value("UPDATE_UID"), value("UPDATE_LOGIN_UID")), ("0".to_owned(), "1000".to_owned()));
    assert_eq!(value("UPDATE_SUDO_USER"), "alice");
    let again = Record {
        seq: value("UPDATE_RECORD").parse().unwrap(),
        at: value("UPDATE_AT"),
        kind: value("UPDATE_KIND"),
        about: value("UPDATE_ABOUT"),
        by: value("UPDATE_BY"),
        content: value("UPDATE_CONTENT").parse().unwrap(),
        previous: value("UPDATE_PREVIOUS").parse().unwrap(),
        hash: value("UPDATE_HASH").parse().unwrap(),
    };
    assert_eq!(again, exported.record);
    assert_eq!(again.computed(), again.hash);
}

#[test]
fn records_go_to_a_socket_of_the_host_and_over_tcp_with_their_lengths() {
    use std::io::Read as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let exported = exported("held", "null");
    let mut sender = Sender::open(Target::Unix(path), "web-1", Box::new(|_| {})).unwrap();
    sender.send(&exported).unwrap();
    let mut buffer = [0; 4096];
    let size = log.recv(&mut buffer).unwrap();
    let line = syslog::line("web-1", &exported.record, &said(&exported));
    assert_eq!(&buffer[..size], line.as_bytes());

    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::Tcp(server.local_addr().unwrap());
    let mut sender = Sender::open(target, "web-1", Box::new(|_| {})).unwrap();
    sender.send(&exported).unwrap();
    sender.send(&exported).unwrap();
    drop(sender);
    let mut text = String::new();
    server.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{0} {line}{0} {line}", line.len()));

    let gone = directory.path().join("gone");
    let mut sender = Sender::open(Target::Unix(gone), "web-1", Box::new(|_| {})).unwrap();
    assert!(matches!(sender.send(&exported), Err(ExportError::Send { seq: 1, .. })));
}

#[test]
fn a_target_is_named_in_one_way() {
    assert_eq!("journald".parse::<Target>().unwrap(), Target::Journald);
    assert_eq!("udp:127.0.0.1:514".parse::<Target>().unwrap().to_string(), "udp:127.0.0.1:514");
    for bad in ["", "file", "udp:localhost:514", "tcp:127.0.0.1", "unix:log", "journald:"] {
        assert!(bad.parse::<Target>().is_err(), "{bad:?} was taken");
    }
}

#[test]
fn how_far_an_export_came_is_kept_as_a_head() {
    let directory = tempfile::tempdir().unwrap();
    let cursor = Cursor(directory.path().join("cursor"));
    assert_eq!(cursor.read().unwrap(), None);
    let head = Head { seq: 7, hash: Sha256::of(b"seven") };
    cursor.keep(head).unwrap();
    assert_eq!(cursor.read().unwrap(), Some(head));
    std::fs::write(&cursor.0, "seven").unwrap();
    assert!(matches!(cursor.read(), Err(ExportError::Unreadable { .. })));
}
