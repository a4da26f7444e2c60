//! The event stream of libyaml, behind a safe type.
//!
//! `yaml_serde` keeps its parser to itself, and aliases are already resolved when serde sees a
//! value. This is the parser that it builds on, asked for what serde is not told. All of the crate's
//! `unsafe` is here.

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use libyaml_rs as sys;

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

impl From<sys::yaml_mark_t> for Place {
    fn from(mark: sys::yaml_mark_t) -> Self {
        Self { line: mark.line + 1, column: mark.column + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// What a node carries besides its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Properties {
    pub(super) anchor: bool,
    pub(super) tag: bool,
}

#[derive(Debug)]
pub(super) enum Event {
    StreamStart,
    StreamEnd,
    DocumentStart { directives: bool },
    DocumentEnd,
    Alias,
    Scalar { properties: Properties, scalar: Scalar },
    ListStart { properties: Properties },
    ListEnd,
    MappingStart { properties: Properties },
    MappingEnd,
}

/// A libyaml parser over a text.
///
/// Invariant: `parser` comes from `Box::into_raw`, is initialised, and is not moved until dropped
/// (it holds a pointer to itself); its input outlives it by `'text`.
pub(super) struct Events<'text> {
    parser: NonNull<sys::yaml_parser_t>,
    text: PhantomData<&'text str>,
}

impl<'text> Events<'text> {
    pub(super) fn new(text: &'text str) -> Self {
        let parser = Box::into_raw(Box::new(MaybeUninit::<sys::yaml_parser_t>::uninit()));
        let parser = NonNull::new(parser.cast()).expect("a box is never null");
        // SAFETY: `parser` points to memory of the right size and alignment that nobody else uses;
        // `initialize` writes all of it before the other two calls read it. It fails on a failed
        // allocation only, and Rust's allocator aborts before that. The input is `text.len()`
        // readable bytes that live for `'text`, longer than `Self`.
        unsafe {
            let initialised = sys::yaml_parser_initialize(parser.as_ptr());
            assert!(initialised.ok, "libyaml could not allocate its parser");
            sys::yaml_parser_set_encoding(parser.as_ptr(), sys::yaml_encoding_t::YAML_UTF8_ENCODING);
            sys::yaml_parser_set_input_string(parser.as_ptr(), text.as_ptr(), text.len() as u64);
        }
        Self { parser, text: PhantomData }
    }

    /// The next event and where it starts. After an error or the end of the stream, `StreamEnd`.
    pub(super) fn next(&mut self) -> Result<(Event, Place), YamlError> {
        let parser = self.parser.as_ptr();
        let mut event = MaybeUninit::<sys::yaml_event_t>::uninit();
        // SAFETY: the parser is initialised (invariant of `Self`) and used by us alone (`&mut self`).
        // `parse` zeroes the event first, so it is initialised on success; it is deleted once, after
        // `convert` has copied what it needs. On failure libyaml owns nothing in the event, and
        // `problem` is one of its NUL-terminated constants or null.
        unsafe {
            if sys::yaml_parser_parse(parser, event.as_mut_ptr()).fail {
                let state = &*parser;
                let words = match state.problem.is_null() {
                    true => "unknown problem".into(),
                    false => CStr::from_ptr(state.problem.cast()).to_string_lossy(),
                };
                return Err(YamlError::Syntax { problem: words.into_owned(), at: state.problem_mark.into() });
            }
            let mut event = event.assume_init();
            let converted = (convert(&event), event.start_mark.into());
            sys::yaml_event_delete(&raw mut event);
            Ok(converted)
        }
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // SAFETY: the parser is initialised, deleted once, and its memory came from a box of a
        // type with the same layout (`MaybeUninit`), which needs no drop of its own.
        unsafe {
            sys::yaml_parser_delete(self.parser.as_ptr());
            drop(Box::from_raw(self.parser.as_ptr().cast::<MaybeUninit<sys::yaml_parser_t>>()));
        }
    }
}

/// Copies what the strict walk needs out of an event.
///
/// # Safety
/// `event` was filled by a successful `yaml_parser_parse` and is not deleted yet.
unsafe fn convert(event: &sys::yaml_event_t) -> Event {
    use sys::yaml_event_type_t as Type;
    // SAFETY: the event's type says which member of the union libyaml has filled, and only that one
    // is read. A scalar's value is `length` bytes, never null (libyaml allocates it even when empty).
    unsafe {
        match event.type_ {
            Type::YAML_STREAM_START_EVENT => Event::StreamStart,
            Type::YAML_DOCUMENT_START_EVENT => {
                let start = &event.data.document_start;
                let tags = start.tag_directives.start != start.tag_directives.end;
                Event::DocumentStart { directives: tags || !start.version_directive.is_null() }
            }
            Type::YAML_DOCUMENT_END_EVENT => Event::DocumentEnd,
            Type::YAML_ALIAS_EVENT => Event::Alias,
            Type::YAML_SCALAR_EVENT => {
                let scalar = &event.data.scalar;
                let text = std::slice::from_raw_parts(scalar.value, scalar.length as usize);
                Event::Scalar {
                    properties: Properties { anchor: !scalar.anchor.is_null(), tag: !scalar.tag.is_null() },
                    scalar: Scalar {
                        text: String::from_utf8_lossy(text).into_owned(),
                        plain: matches!(scalar.style, sys::yaml_scalar_style_t::YAML_PLAIN_SCALAR_STYLE),
                    },
                }
            }
            Type::YAML_SEQUENCE_START_EVENT => {
                let list = &event.data.sequence_start;
                Event::ListStart {
                    properties: Properties { anchor: !list.anchor.is_null(), tag: !list.tag.is_null() },
                }
            }
            Type::YAML_SEQUENCE_END_EVENT => Event::ListEnd,
            Type::YAML_MAPPING_START_EVENT => {
                let map = &event.data.mapping_start;
                Event::MappingStart {
                    properties: Properties { anchor: !map.anchor.is_null(), tag: !map.tag.is_null() },
                }
            }
            Type::YAML_MAPPING_END_EVENT => Event::MappingEnd,
            // `YAML_NO_EVENT` is what `parse` gives past the end; there are no other types.
            _ => Event::StreamEnd,
        }
    }
}
