//! The walk over the events that refuses what strict YAML does not have.

use std::collections::HashSet;

use super::YamlError;
use super::events::{Event, Events, Place, Properties};

/// Levels of lists and mappings in one another. The deepest manifest has 7.
const MAX_DEPTH: usize = 16;

/// An open list or mapping.
enum Open {
    List,
    /// A mapping between two pairs; `seen` holds its keys so far.
    Key {
        seen: HashSet<Vec<u8>>,
    },
    /// A mapping after a key.
    Value {
        seen: HashSet<Vec<u8>>,
    },
}

pub(super) fn check(bytes: &[u8], limit: usize) -> Result<(), YamlError> {
    if bytes.len() > limit {
        return Err(YamlError::TooLarge { limit, found: bytes.len() });
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| YamlError::NotUtf8 { offset: error.valid_up_to() })?;
    if text.starts_with('\u{FEFF}') {
        return Err(YamlError::ByteOrderMark);
    }

    let mut events = Events::new(text);
    let mut open: Vec<Open> = Vec::new();
    let mut documents = 0;
    loop {
        let (event, at) = events.next()?;
        match event {
            Event::StreamStart | Event::DocumentEnd => {}
            Event::StreamEnd if documents == 0 => return Err(YamlError::Empty),
            Event::StreamEnd => return Ok(()),
            Event::DocumentStart { directives } => {
                documents += 1;
                if documents > 1 {
                    return Err(YamlError::SecondDocument { at });
                }
                if directives {
                    return Err(YamlError::Directive { at });
                }
            }
            Event::Alias => return Err(YamlError::Alias { at }),
            Event::Scalar { properties, plain, text } => {
                refuse_properties(properties, at)?;
                let null = plain && matches!(text.as_slice(), b"" | b"~" | b"null" | b"Null" | b"NULL");
                match open.last_mut() {
                    None if null => return Err(YamlError::Empty),
                    None => return Err(YamlError::NotAMapping { at }),
                    Some(Open::Key { seen }) => {
                        let key = printable(&text);
                        if !seen.insert(text) {
                            return Err(YamlError::DuplicateKey { key, at });
                        }
                    }
                    Some(_) if null => return Err(YamlError::Null { at }),
                    Some(_) => {}
                }
                completed(&mut open);
            }
            Event::ListStart { properties } | Event::MappingStart { properties } => {
                refuse_properties(properties, at)?;
                let list = matches!(event, Event::ListStart { .. });
                match open.last() {
                    None if list => return Err(YamlError::NotAMapping { at }),
                    Some(Open::Key { .. }) => return Err(YamlError::KeyNotScalar { at }),
                    _ if open.len() == MAX_DEPTH => return Err(YamlError::TooDeep { limit: MAX_DEPTH, at }),
                    _ => {}
                }
                open.push(if list { Open::List } else { Open::Key { seen: HashSet::new() } });
            }
            Event::ListEnd | Event::MappingEnd => {
                open.pop();
                completed(&mut open);
            }
        }
    }
}

/// One node of the innermost open list or mapping is complete: a key awaits its value, a value the next key.
fn completed(open: &mut [Open]) {
    if let Some(last) = open.last_mut() {
        *last = match std::mem::replace(last, Open::List) {
            Open::List => Open::List,
            Open::Key { seen } => Open::Value { seen },
            Open::Value { seen } => Open::Key { seen },
        };
    }
}

fn refuse_properties(properties: Properties, at: Place) -> Result<(), YamlError> {
    if properties.anchor {
        return Err(YamlError::Anchor { at });
    }
    if properties.tag {
        return Err(YamlError::Tag { at });
    }
    Ok(())
}

fn printable(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().take(80).collect()
}
