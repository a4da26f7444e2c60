//! The walk over the events that refuses what strict YAML does not have and keeps the rest as a tree.

use std::collections::HashSet;

use super::YamlError;
use super::events::{Event, Events, Place, Properties};

/// Levels of lists and mappings in one another. The deepest manifest has 7.
const MAX_DEPTH: usize = 16;

/// A value and where it starts.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) content: Content,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
}

/// A word, a number or a text. Only a plain one, without quotes, can be anything but a text.
#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) plain: bool,
}

/// A key and where it starts; no other key of its mapping has the same text.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) at: Place,
    pub(super) text: String,
}

impl Scalar {
    fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// The one document of `bytes`, which is a mapping.
pub(super) fn read(bytes: &[u8], limit: usize) -> Result<Node, YamlError> {
    if bytes.len() > limit {
        return Err(YamlError::TooLarge { limit, found: bytes.len() });
    }
    let text =
        std::str::from_utf8(bytes).map_err(|error| YamlError::NotUtf8 { offset: error.valid_up_to() })?;
    if text.starts_with('\u{FEFF}') {
        return Err(YamlError::ByteOrderMark);
    }
    refuse_characters(text)?;
    Walk { events: Events::new(text) }.document()
}

struct Walk<'text> {
    events: Events<'text>,
}

impl Walk<'_> {
    fn document(mut self) -> Result<Node, YamlError> {
        self.events.next()?; // the start of the stream
        let (start, _) = self.events.next()?;
        match start {
            Event::DocumentStart => {}
            _ => return Err(YamlError::Empty),
        }
        let (first, at) = self.events.next()?;
        let document = self.node(first, at, 0)?;
        match &document.content {
            Content::Scalar(scalar) if scalar.is_null() => return Err(YamlError::Empty),
            Content::Scalar(_) | Content::List(_) => return Err(YamlError::NotAMapping { at }),
            Content::Mapping(_) => {}
        }
        self.events.next()?; // the end of the document
        match self.events.next()? {
            (Event::DocumentStart, at) => Err(YamlError::SecondDocument { at }),
            _ => Ok(document),
        }
    }

    /// The value that begins with `first`, inside of `depth` lists and mappings.
    fn node(&mut self, first: Event, at: Place, depth: usize) -> Result<Node, YamlError> {
        let content = match first {
            Event::Scalar { properties, scalar } => {
                refuse_properties(properties)?;
                refuse_mark(&scalar, at)?;
                if depth > 0 && scalar.is_null() {
                    return Err(YamlError::Null { at });
                }
                Content::Scalar(scalar)
            }
            Event::ListStart { properties } | Event::MappingStart { properties } => {
                refuse_properties(properties)?;
                if depth == MAX_DEPTH {
                    return Err(YamlError::TooDeep { limit: MAX_DEPTH, at });
                }
                match first {
                    Event::ListStart { .. } => Content::List(self.list(depth + 1)?),
                    _ => Content::Mapping(self.mapping(depth + 1)?),
                }
            }
            Event::Alias => return Err(YamlError::Alias { at }),
            // The grammar has a node here.
            _ => return Err(YamlError::Empty),
        };
        Ok(Node { at, content })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, YamlError> {
        let mut nodes = Vec::new();
        loop {
            match self.events.next()? {
                (Event::ListEnd, _) => return Ok(nodes),
                (first, at) => nodes.push(self.node(first, at, depth)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, YamlError> {
        let mut pairs = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let key = match self.events.next()? {
                (Event::MappingEnd, _) => return Ok(pairs),
                (Event::Scalar { properties, scalar }, at) => {
                    refuse_properties(properties)?;
                    refuse_mark(&scalar, at)?;
                    if scalar.is_null() {
                        return Err(YamlError::KeyNotScalar { found: "nothing", at });
                    }
                    Key { at, text: scalar.text }
                }
                (Event::ListStart { properties } | Event::MappingStart { properties }, at) => {
                    refuse_properties(properties)?;
                    return Err(YamlError::KeyNotScalar { found: "a list or mapping", at });
                }
                (_, at) => return Err(YamlError::Alias { at }),
            };
            if !seen.insert(key.text.clone()) {
                return Err(YamlError::DuplicateKey { key: printable(&key.text), at: key.at });
            }
            let (first, at) = self.events.next()?;
            pairs.push((key, self.node(first, at, depth)?));
        }
    }
}

fn refuse_properties(properties: Properties) -> Result<(), YamlError> {
    match properties {
        Properties { anchor: Some(at), .. } => Err(YamlError::Anchor { at }),
        Properties { tag: Some(at), .. } => Err(YamlError::Tag { at }),
        Properties { anchor: None, tag: None } => Ok(()),
    }
}

/// Refuses a plain scalar that YAML 1.2 begins with `?` or `:`; YAML 1.1 has a key or a value there.
fn refuse_mark(scalar: &Scalar, at: Place) -> Result<(), YamlError> {
    match scalar.text.chars().next() {
        Some(mark @ ('?' | ':')) if scalar.plain => Err(YamlError::Unquoted { mark, at }),
        _ => Ok(()),
    }
}

/// Refuses what YAML does not allow in a text, and the characters that end a line in YAML 1.1 (5.4) and are
/// content in YAML 1.2 (5.4): a comment for the one would hide a field from the other.
fn refuse_characters(text: &str) -> Result<(), YamlError> {
    let mut at = Place { line: 1, column: 1 };
    for character in text.chars() {
        match character {
            '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{FEFF}' => {
                return Err(YamlError::Character { character, at });
            }
            '\n' => at = Place { line: at.line + 1, column: 0 },
            '\t' | '\r' | ' '..='~' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'.. => {}
            _ => return Err(YamlError::Character { character, at }),
        }
        at.column += 1;
    }
    Ok(())
}

fn printable(key: &str) -> String {
    key.escape_debug().take(80).collect()
}
