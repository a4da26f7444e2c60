//! A walk over DER, as much as PKCS#7 signatures need (ITU-T X.690, clauses 8 and 10).
//!
//! Values are slices of the input with their offset, so that an error can name the place. Nesting is bounded
//! by the code that walks, not by the input.

use crate::elf::{Malformed, Rule};

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Bytes to be read as a series of values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'data> {
    data: &'data [u8],
    offset: u64,
}

/// One value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'data> {
    pub(super) tag: u8,
    pub(super) data: &'data [u8],
    pub(super) offset: u64,
}

impl<'data> Reader<'data> {
    /// Reads `data`, which stands at `offset` of the file.
    pub(super) fn new(data: &'data [u8], offset: u64) -> Self {
        Self { data, offset }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The tag of the next value.
    pub(super) fn peek(&self) -> Option<u8> {
        self.data.first().copied()
    }

    /// The next value, whatever it is.
    pub(super) fn value(&mut self) -> Result<Value<'data>, Malformed> {
        let broken = |found: &str| Malformed::new(self.offset, Rule::Der, found);
        let (&tag, rest) = self.data.split_first().ok_or_else(|| broken("the end of the data"))?;
        if tag & 0x1f == 0x1f {
            return Err(broken("a tag of several bytes"));
        }
        let (&first, rest) = rest.split_first().ok_or_else(|| broken("a value without a length"))?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let (digits, rest) = rest.split_at_checked(count).ok_or_else(|| broken("a cut length"))?;
                let length = digits.iter().fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
                if digits[0] == 0 || length < 0x80 {
                    return Err(broken("a length that is not minimal"));
                }
                (length, rest)
            }
            _ => return Err(broken("an indefinite or oversized length")),
        };
        let (data, after) = rest.split_at_checked(length).ok_or_else(|| {
            let found = format!("a value of {length} bytes with {} left", rest.len());
            Malformed::new(self.offset, Rule::Der, found)
        })?;
        let header = (self.data.len() - rest.len()) as u64;
        let value = Value { tag, data, offset: self.offset + header };
        self.offset += header + length as u64;
        self.data = after;
        Ok(value)
    }

    /// The next value, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<Value<'data>, Malformed> {
        let offset = self.offset;
        let value = self.value()?;
        if value.tag == tag {
            return Ok(value);
        }
        Err(Malformed::new(offset, Rule::Der, format!("tag {:#04x} where {tag:#04x} stands", value.tag)))
    }
}

impl<'data> Value<'data> {
    /// The values inside.
    pub(super) fn reader(&self) -> Reader<'data> {
        Reader { data: self.data, offset: self.offset }
    }

    /// An object identifier in dotted form.
    pub(super) fn oid(&self) -> Result<String, Malformed> {
        let broken = |found: &str| Malformed::new(self.offset, Rule::Der, found);
        let mut arcs: Vec<u64> = Vec::new();
        let mut arc: u64 = 0;
        let mut open = false;
        for byte in self.data {
            if arc > u64::MAX >> 7 {
                return Err(broken("an object identifier with a huge arc"));
            }
            arc = arc << 7 | u64::from(byte & 0x7f);
            open = byte & 0x80 != 0;
            if !open {
                arcs.push(arc);
                arc = 0;
            }
        }
        let (Some(first), false) = (arcs.first(), open) else {
            return Err(broken("an incomplete object identifier"));
        };
        let root = (first / 40).min(2);
        let mut text = format!("{root}.{}", first - root * 40);
        for arc in &arcs[1..] {
            text.push_str(&format!(".{arc}"));
        }
        Ok(text)
    }
}
