//! Lines of RFC 5424.

use manifests::chain::Record;

use super::Said;

/// Facility 13 (log audit), severity 5 (notice): RFC 5424, 6.2.1.
const PRIORITY: u32 = 13 * 8 + 5;

/// 32473 is the number for examples (RFC 5612): this program has none of its own.
const ELEMENT: &str = "record@32473";

/// One line, without an end: whatever is in a record, there is no line break in it.
pub(super) fn line(host: &str, record: &Record, said: &Said) -> String {
    let Record { seq, at, kind, about, by, content, previous, hash } = record;
    let (seq, content, previous, hash) =
        (seq.to_string(), content.to_string(), previous.to_string(), hash.to_string());
    let parameters = [
        ("seq", seq.as_str()),
        ("previous", &previous),
        ("at", at),
        ("kind", kind),
        ("about", about),
        ("by", by),
        ("content", &content),
        ("hash", &hash),
    ];
    let parameters: String =
        parameters.map(|(name, value)| format!(" {name}=\"{}\"", escaped(value))).concat();
    let words: String = said.words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!(
        "<{PRIORITY}>1 {} {} update - {} [{ELEMENT}{parameters}] {words}",
        timestamp(at),
        header(host, 255),
        header(kind, 32)
    )
}

/// RFC 5424, 6.2.3: at most six digits of a second.
fn timestamp(at: &str) -> String {
    match at.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        Err(_) => "-".to_owned(),
    }
}

/// A field of the header: printable ASCII, or nothing.
fn header(text: &str, most: usize) -> String {
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { text.to_owned() } else { "-".to_owned() }
}

/// RFC 5424, 6.3.3: a quotation mark, a backslash and a closing bracket have a backslash before them.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' | ']' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
