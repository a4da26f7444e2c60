//! The events of the YAML parser, with what the strict reading asks of a node.
//!
//! The parser is `granit-parser`: YAML 1.2, without unsafe code, with bounds of its own on nesting and
//! look-ahead. It is told to stop at directives, to keep aliases as events, to follow the
//! specification's indentation, and to end a block scalar at the end of the text as libyaml does.

use std::fmt;

use granit_parser::{ErrorKind, Event as Parsed, Marker, Options, Parser, ScalarStyle, Span, StrInput};

use super::YamlError;
use super::strict::Scalar;

/// A place in a text; line and column count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl From<Marker> for Place {
    fn from(mark: Marker) -> Self {
        Self { line: mark.line() as u64, column: mark.col() as u64 + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// What a node carries besides its value, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Properties {
    pub(super) anchor: Option<Place>,
    pub(super) tag: Option<Place>,
}

#[derive(Debug)]
pub(super) enum Event {
    StreamStart,
    StreamEnd,
    DocumentStart,
    DocumentEnd,
    Alias,
    Scalar { properties: Properties, scalar: Scalar },
    ListStart { properties: Properties },
    ListEnd,
    MappingStart { properties: Properties },
    MappingEnd,
}

/// A parser over a text.
pub(super) struct Events<'text> {
    parser: Parser<'text, StrInput<'text>>,
    end: Place,
}

impl<'text> Events<'text> {
    pub(super) fn new(text: &'text str) -> Self {
        let parser = Parser::new_from_str_with_options(text, options());
        Self { parser, end: Place { line: 1, column: 1 } }
    }

    /// The next event and where it starts. After the end of the stream, `StreamEnd`.
    pub(super) fn next(&mut self) -> Result<(Event, Place), YamlError> {
        let Some((parsed, span)) = self.parsed()? else { return Ok((Event::StreamEnd, self.end)) };
        let event = match parsed {
            Parsed::StreamStart => Event::StreamStart,
            Parsed::StreamEnd => Event::StreamEnd,
            Parsed::DocumentStart(..) => Event::DocumentStart,
            Parsed::DocumentEnd => Event::DocumentEnd,
            Parsed::Alias(_) | Parsed::UnresolvedAlias(_) => Event::Alias,
            Parsed::Scalar(text, style, anchor, tag) => Event::Scalar {
                properties: self.properties(anchor, tag.is_some(), span)?,
                scalar: Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain },
            },
            Parsed::SequenceStart(_, anchor, tag) => {
                Event::ListStart { properties: self.properties(anchor, tag.is_some(), span)? }
            }
            Parsed::SequenceEnd => Event::ListEnd,
            Parsed::MappingStart(_, anchor, tag) => {
                Event::MappingStart { properties: self.properties(anchor, tag.is_some(), span)? }
            }
            Parsed::MappingEnd => Event::MappingEnd,
            // Kinds that are not asked for, or that a later parser may have: never passed over in silence.
            other => {
                let problem = format!("unexpected {other:?}");
                return Err(YamlError::Syntax { problem, at: span.start.into() });
            }
        };
        self.end = span.start.into();
        Ok((event, self.end))
    }

    fn parsed(&mut self) -> Result<Option<(Parsed<'text>, Span)>, YamlError> {
        self.parser.next().transpose().map_err(|error| {
            let at = Place::from(*error.marker());
            match error.kind() {
                ErrorKind::DirectiveDisallowed => YamlError::Directive { at },
                _ => YamlError::Syntax { problem: error.info(), at },
            }
        })
    }

    /// The properties of the node at `node`; an anchor, 0 if there is none, is an event of its own behind it.
    fn properties(&mut self, anchor: usize, tag: bool, node: Span) -> Result<Properties, YamlError> {
        let anchor = match anchor {
            0 => None,
            _ => Some(self.parsed()?.map_or(node.start, |(_, span)| span.start).into()),
        };
        let tag = tag.then(|| node.tag_start.unwrap_or(node.start).into());
        Ok(Properties { anchor, tag })
    }
}

fn options() -> Options {
    granit_parser::options! {
        strict_indentation: true,
        disallow_directives: true,
        block_scalar_eof_without_line_feed: true,
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        emit_comments: false,
    }
}
