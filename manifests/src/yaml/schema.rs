//! From the tree of a strict document to a type, by serde.
//!
//! A scalar is read as what its type asks for: a text from any scalar, a number or a truth value from a plain one that
//! is written as such in YAML 1.2's core schema. Where serde asks what a scalar is (untagged and flattened types), a
//! plain one that is written as a number is a number. `yaml_serde` reads the same; a property test compares them.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::events::Place;
use super::strict::{Content, Key, Node, Scalar};

/// YAML, but not of the expected types: a field is unknown, missing or malformed.
#[derive(Debug)]
pub struct SchemaError {
    problem: String,
    /// From the inside out.
    path: Vec<Segment>,
    at: Option<Place>,
}

#[derive(Debug)]
enum Segment {
    Field(String),
    Index(usize),
}

impl SchemaError {
    /// Where it is, unless something inside knew better.
    fn or_at(mut self, at: Place) -> Self {
        self.at.get_or_insert(at);
        self
    }

    fn below(mut self, segment: Segment) -> Self {
        self.path.push(segment);
        self
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.path.iter().rev().enumerate() {
            match segment {
                Segment::Field(name) if index == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(at) => write!(f, "[{at}]")?,
            }
        }
        if !self.path.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.problem)?;
        self.at.map_or(Ok(()), |at| write!(f, " at {at}"))
    }
}

impl std::error::Error for SchemaError {}

impl de::Error for SchemaError {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self { problem: problem.to_string(), path: Vec::new(), at: None }
    }
}

/// What a plain scalar is where nothing says what it should be.
enum Meaning {
    Truth(bool),
    Positive(u64),
    Negative(i64),
    Float(f64),
}

impl Scalar {
    /// Nothing if it is a text. <https://yaml.org/spec/1.2.2/#1032-tag-resolution>, with whole numbers of 64
    /// bits, and with YAML 1.1's binary ones, so that what one of the two takes for a number is no text.
    fn meaning(&self) -> Option<Meaning> {
        if !self.plain {
            return None;
        }
        let text = self.text.as_str();
        match text {
            "true" | "True" | "TRUE" => return Some(Meaning::Truth(true)),
            "false" | "False" | "FALSE" => return Some(Meaning::Truth(false)),
            ".nan" | ".NaN" | ".NAN" => return Some(Meaning::Float(f64::NAN)),
            _ => {}
        }
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        whole(digits, negative).or_else(|| float(digits, negative))
    }
}

fn whole(digits: &str, negative: bool) -> Option<Meaning> {
    let (digits, radix) = match digits.get(..2) {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        _ => (digits, 10),
    };
    // A second sign, which Rust would take, and leading zeros, which are octal to YAML 1.1.
    let leading_zero = radix == 10 && digits.starts_with('0') && digits != "0";
    if leading_zero || !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    match negative {
        false => u64::from_str_radix(digits, radix).ok().map(Meaning::Positive),
        true => i64::from_str_radix(&format!("-{digits}"), radix).ok().map(Meaning::Negative),
    }
}

fn float(digits: &str, negative: bool) -> Option<Meaning> {
    let value = match digits {
        ".inf" | ".Inf" | ".INF" => f64::INFINITY,
        // Only zeros and digits: a whole number with leading zeros, which nobody reads alike.
        _ if digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.starts_with('0') => return None,
        _ if digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') => {
            digits.parse().ok().filter(|value: &f64| value.is_finite())?
        }
        _ => return None,
    };
    Some(Meaning::Float(if negative { -value } else { value }))
}

impl Node {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.content {
            Content::List(_) => Unexpected::Seq,
            Content::Mapping(_) => Unexpected::Map,
            Content::Scalar(scalar) => match scalar.meaning() {
                Some(Meaning::Truth(value)) => Unexpected::Bool(value),
                Some(Meaning::Positive(value)) => Unexpected::Unsigned(value),
                Some(Meaning::Negative(value)) => Unexpected::Signed(value),
                Some(Meaning::Float(value)) => Unexpected::Float(value),
                None => Unexpected::Str(&scalar.text),
            },
        }
    }

    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, SchemaError> {
        match &self.content {
            Content::Scalar(scalar) => match scalar.meaning() {
                Some(Meaning::Truth(value)) => visitor.visit_bool(value),
                Some(Meaning::Positive(value)) => visitor.visit_u64(value),
                Some(Meaning::Negative(value)) => visitor.visit_i64(value),
                Some(Meaning::Float(value)) => visitor.visit_f64(value),
                None => visitor.visit_str(&scalar.text),
            },
            Content::List(nodes) => {
                let mut list = List { nodes, next: 0 };
                let value = visitor.visit_seq(&mut list)?;
                match list.next == nodes.len() {
                    true => Ok(value),
                    false => {
                        let expected = format!("a list of {}", list.next);
                        Err(de::Error::invalid_length(nodes.len(), &expected.as_str()))
                    }
                }
            }
            Content::Mapping(pairs) => visitor.visit_map(Mapping { pairs, value: None }),
        }
    }
}

impl<'de> Deserializer<'de> for &Node {
    type Error = SchemaError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        self.visit(visitor).map_err(|error| error.or_at(self.at))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        match &self.content {
            Content::Scalar(scalar) => visitor.visit_str(&scalar.text),
            _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
        .map_err(|error: SchemaError| error.or_at(self.at))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        match &self.content {
            Content::Mapping(_) => self.deserialize_any(visitor),
            _ => {
                let error: SchemaError = de::Error::invalid_type(self.unexpected(), &visitor);
                Err(error.or_at(self.at))
            }
        }
    }

    // Not a list of its fields, which serde would take.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        self.deserialize_map(visitor)
    }

    // There are no nulls.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        visitor.visit_newtype_struct(self)
    }

    /// Variants are words; none holds a value.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        match &self.content {
            Content::Scalar(scalar) => visitor.visit_enum(scalar.text.as_str().into_deserializer()),
            _ => Err(de::Error::invalid_type(self.unexpected(), &"a word")),
        }
        .map_err(|error: SchemaError| error.or_at(self.at))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct seq tuple tuple_struct
    }
}

struct List<'n> {
    nodes: &'n [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = SchemaError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, SchemaError> {
        let Some(node) = self.nodes.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(node).map(Some).map_err(|error| error.or_at(node.at).below(Segment::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.nodes.len() - self.next)
    }
}

struct Mapping<'n> {
    pairs: &'n [(Key, Node)],
    value: Option<&'n (Key, Node)>,
}

impl<'de> de::MapAccess<'de> for Mapping<'_> {
    type Error = SchemaError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, SchemaError> {
        let Some((pair, rest)) = self.pairs.split_first() else { return Ok(None) };
        (self.value, self.pairs) = (Some(pair), rest);
        let key = pair.0.text.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error: SchemaError| error.or_at(pair.0.at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, SchemaError> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key: a bug"));
        };
        let named = |error: SchemaError| error.or_at(node.at).below(Segment::Field(key.text.clone()));
        seed.deserialize(node).map_err(named)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.pairs.len())
    }
}
