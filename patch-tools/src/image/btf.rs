//! BTF: the kernel's types, as far as layouts matter.
//!
//! Format: `Documentation/bpf/btf.rst`. Parsing walks all types once and checks that each lies within the
//! section; what is asked for is decoded from there on request.

use std::collections::HashMap;

use crate::elf::{Malformed, Rule};

const MAGIC: u16 = 0xeb9f;
/// Chains of typedefs, qualifiers and arrays are short; this stops cycles.
const MAX_DEPTH: usize = 64;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FWD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_FLOAT: u32 = 16;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// The types of a kernel.
#[derive(Debug)]
pub struct Btf<'data> {
    types: &'data [u8],
    strings: &'data [u8],
    /// Where each type starts in `types`; the first is void.
    starts: Vec<u32>,
    structures: HashMap<&'data str, u32>,
}

/// A structure or union.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BtfStruct<'data> {
    /// Its name.
    pub name: &'data str,
    /// Its size in bytes.
    pub size: u32,
    /// Its members in order.
    pub members: Vec<BtfMember<'data>>,
}

/// A member of a structure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BtfMember<'data> {
    /// Its name; empty for anonymous structures and unions.
    pub name: &'data str,
    /// Its offset in bits.
    pub offset: u32,
    /// Its width in bits, if it is a bit field.
    pub width: Option<u32>,
    /// Its type as C would write it.
    pub type_name: String,
    /// Its size in bytes, where it has one.
    pub size: Option<u64>,
}

/// The fixed part of a type.
#[derive(Debug, Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    flag: bool,
    count: usize,
    /// Size or type, depending on the kind.
    size: u32,
    /// Where what follows starts in `types`.
    tail: usize,
}

impl<'data> Btf<'data> {
    /// Reads the section `data`, which stands at `offset` of the file.
    pub fn parse(data: &'data [u8], offset: u64) -> Result<Self, Malformed> {
        let broken = |at: usize, found: String| Malformed::new(offset + at as u64, Rule::Btf, found);
        let header = |at: usize| word(data, at).ok_or_else(|| broken(at, "the end".to_owned()));
        let magic = header(0)?;
        if magic & 0xffff != u32::from(MAGIC) || magic >> 16 & 0xff != 1 {
            return Err(broken(0, format!("magic and version {magic:#x}")));
        }
        let length = header(4)? as usize;
        let part = |at: usize| -> Result<&'data [u8], Malformed> {
            let (start, size) = (header(at)? as usize, header(at + 4)? as usize);
            let start = start.saturating_add(length);
            data.get(start..start.saturating_add(size))
                .ok_or_else(|| broken(at, format!("{size} bytes at {start} of {}", data.len())))
        };
        let (types, strings) = (part(8)?, part(16)?);
        if strings.last() != Some(&0) {
            return Err(broken(16, "strings without an end".to_owned()));
        }
        let mut btf = Self { types, strings, starts: vec![0], structures: HashMap::new() };
        let mut position = 0;
        while position < types.len() {
            let id = btf.starts.len() as u32;
            let found = btf.at(position).and_then(|found| Some((found, found.end()?)));
            let Some((found, end)) = found.filter(|(_, end)| *end <= types.len()) else {
                return Err(broken(length + position, format!("type {id} cut short or of unknown kind")));
            };
            btf.starts.push(position as u32);
            if matches!(found.kind, KIND_STRUCT | KIND_UNION) && found.name != 0 {
                let name = btf.string(found.name).ok_or_else(|| {
                    broken(length + position, format!("type {id} with a name outside of the strings"))
                })?;
                btf.structures.entry(name).or_insert(id);
            }
            position = end;
        }
        Ok(btf)
    }

    /// The structure or union of that name; the first, where there are several.
    pub fn structure(&self, name: &str) -> Option<BtfStruct<'data>> {
        let found = self.type_of(*self.structures.get(name)?)?;
        let members = (0..found.count).map(|index| self.member(&found, index)).collect::<Option<_>>()?;
        Some(BtfStruct { name: self.string(found.name)?, size: found.size, members })
    }

    /// Names of all structures and unions that have one, in no order.
    pub fn structure_names(&self) -> impl Iterator<Item = &'data str> {
        self.structures.keys().copied()
    }

    /// Number of types, void included.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is no type but void.
    pub fn is_empty(&self) -> bool {
        self.starts.len() == 1
    }

    fn member(&self, owner: &Type, index: usize) -> Option<BtfMember<'data>> {
        let at = owner.tail + index * 12;
        let (name, id, offset) =
            (word(self.types, at)?, word(self.types, at + 4)?, word(self.types, at + 8)?);
        // With the flag, the upper 8 bits are the width of a bit field.
        let (offset, width) = if owner.flag { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
        Some(BtfMember {
            name: self.string(name)?,
            offset,
            width: (width != 0).then_some(width),
            type_name: self.describe(id, 0),
            size: self.size(id),
        })
    }

    fn string(&self, offset: u32) -> Option<&'data str> {
        let tail = self.strings.get(offset as usize..)?;
        std::str::from_utf8(&tail[..memchr::memchr(0, tail)?]).ok()
    }

    fn type_of(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        self.at(*self.starts.get(id as usize)? as usize)
    }

    fn at(&self, position: usize) -> Option<Type> {
        let info = word(self.types, position + 4)?;
        Some(Type {
            name: word(self.types, position)?,
            kind: info >> 24 & 0x1f,
            flag: info >> 31 != 0,
            count: (info & 0xffff) as usize,
            size: word(self.types, position + 8)?,
            tail: position + 12,
        })
    }

    /// Size in bytes of a type.
    fn size(&self, id: u32) -> Option<u64> {
        let mut id = id;
        let mut factor: u64 = 1;
        for _ in 0..MAX_DEPTH {
            let found = self.type_of(id)?;
            match found.kind {
                KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_FLOAT | KIND_ENUM64 => {
                    return factor.checked_mul(u64::from(found.size));
                }
                KIND_PTR => return factor.checked_mul(8),
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => id = found.size,
                KIND_ARRAY => {
                    id = word(self.types, found.tail)?;
                    factor = factor.checked_mul(u64::from(word(self.types, found.tail + 8)?))?;
                }
                _ => return None,
            }
        }
        None
    }

    /// A type in words; enough to tell whether two are the same.
    fn describe(&self, id: u32, depth: usize) -> String {
        let Some(found) = self.type_of(id).filter(|_| depth < MAX_DEPTH) else {
            return if id == 0 { "void".to_owned() } else { "?".to_owned() };
        };
        let name = self.string(found.name).unwrap_or("?");
        let inner = |id| self.describe(id, depth + 1);
        match found.kind {
            KIND_PTR => format!("{} *", inner(found.size)),
            KIND_ARRAY => {
                let (element, count) = (word(self.types, found.tail), word(self.types, found.tail + 8));
                format!("{}[{}]", inner(element.unwrap_or(0)), count.unwrap_or(0))
            }
            KIND_STRUCT if name.is_empty() => format!("struct of {} bytes", found.size),
            KIND_UNION if name.is_empty() => format!("union of {} bytes", found.size),
            KIND_STRUCT => format!("struct {name}"),
            KIND_UNION => format!("union {name}"),
            KIND_FWD if found.flag => format!("union {name}"),
            KIND_FWD => format!("struct {name}"),
            KIND_ENUM | KIND_ENUM64 => format!("enum {name}"),
            KIND_VOLATILE => format!("volatile {}", inner(found.size)),
            KIND_CONST => format!("const {}", inner(found.size)),
            KIND_RESTRICT | KIND_TYPE_TAG => inner(found.size),
            KIND_FUNC_PROTO => format!("{}({} parameters)", inner(found.size), found.count),
            _ => name.to_owned(),
        }
    }
}

impl Type {
    /// Where the next type starts: what follows the fixed part depends on the kind.
    fn end(&self) -> Option<usize> {
        let tail = match self.kind {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => self.count * 12,
            KIND_ENUM | KIND_FUNC_PROTO => self.count * 8,
            KIND_PTR..=KIND_TYPE_TAG => 0,
            _ => return None,
        };
        Some(self.tail + tail)
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}
