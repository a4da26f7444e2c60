//! Looking names up in kallsyms.
//!
//! `/proc/kallsyms` has about 200,000 lines, of which a check needs a few dozen. So the text is kept as it is
//! and searched once for all names, without building a table of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use memchr::{memchr, memchr_iter};

use crate::image::Kallsyms;
use crate::module::ObjectName;

/// A kernel's symbols.
#[derive(Debug, Clone)]
pub enum SymbolList {
    /// The text of `/proc/kallsyms`.
    Proc(Vec<u8>),
    /// The kernel's own table, from an image or from its memory: without symbols of modules.
    Image(Arc<Kallsyms>),
}

/// A symbol with the name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSymbol {
    /// The object that it is in.
    pub object: ObjectName,
    /// Its address; zero where the kernel hides addresses from the reader.
    pub address: u64,
    /// The letter of `nm`.
    pub letter: u8,
    /// Bytes to the next symbol, where known.
    pub size: Option<u64>,
}

/// The answer to one search, by name, each in the order of kallsyms.
#[derive(Debug, Clone, Default)]
pub struct FoundSymbols {
    by_name: HashMap<String, Vec<FoundSymbol>>,
}

impl SymbolList {
    /// Finds every symbol whose name is wanted.
    pub fn find(&self, wanted: &HashSet<&str>) -> FoundSymbols {
        match self {
            Self::Proc(text) => find_in_text(text, wanted),
            Self::Image(kallsyms) => find_in_image(kallsyms, wanted),
        }
    }

    /// Every name that an address has in `/proc/kallsyms`; none where addresses are hidden.
    pub(super) fn names_at(&self, address: u64) -> Vec<&str> {
        let Self::Proc(text) = self else { return Vec::new() };
        if address == 0 {
            return Vec::new();
        }
        let prefix = format!("{address:016x} ");
        let lines = text.split(|byte| *byte == b'\n');
        let named = lines.filter_map(|line| match line.strip_prefix(prefix.as_bytes())? {
            [_, b' ', name @ ..] => std::str::from_utf8(name).ok()?.split('\t').next(),
            _ => None,
        });
        named.collect()
    }
}

impl FoundSymbols {
    /// Symbols of that name in that object, in the order in which the livepatch core counts them.
    pub fn in_object<'a>(
        &'a self,
        object: &'a ObjectName,
        name: &str,
    ) -> impl Iterator<Item = &'a FoundSymbol> + use<'a> {
        self.named(name).iter().filter(move |symbol| symbol.object == *object)
    }

    /// Symbols of that name in any object.
    pub fn named(&self, name: &str) -> &[FoundSymbol] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Adds a symbol behind those that are there.
    pub fn push(&mut self, name: &str, symbol: FoundSymbol) {
        match self.by_name.get_mut(name) {
            Some(list) => list.push(symbol),
            None => {
                self.by_name.insert(name.to_owned(), vec![symbol]);
            }
        }
    }
}

fn find_in_image(kallsyms: &Kallsyms, wanted: &HashSet<&str>) -> FoundSymbols {
    let mut found = FoundSymbols::default();
    for symbol in kallsyms.select(wanted) {
        found.push(
            symbol.name,
            FoundSymbol {
                object: ObjectName::Vmlinux,
                address: symbol.address,
                letter: symbol.letter,
                size: symbol.size,
            },
        );
    }
    found
}

/// Searches lines of the form `ADDRESS LETTER NAME` or `ADDRESS LETTER NAME\t[MODULE]`.
///
/// Lines of another form are passed over: the kernel writes none, and a line cut short at the end of the
/// text has no name that could be wanted.
fn find_in_text(text: &[u8], wanted: &HashSet<&str>) -> FoundSymbols {
    let lengths: HashSet<usize> = wanted.iter().map(|name| name.len()).collect();
    let mut found = FoundSymbols::default();
    let mut start = 0;
    for end in memchr_iter(b'\n', text) {
        let line = &text[start..end];
        start = end + 1;
        let Some(space) = memchr(b' ', line) else { continue };
        let [letter, b' ', rest @ ..] = &line[space + 1..] else { continue };
        let (name, module) = match memchr(b'\t', rest) {
            Some(tab) => (&rest[..tab], Some(&rest[tab + 1..])),
            None => (rest, None),
        };
        if !lengths.contains(&name.len()) {
            continue;
        }
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| wanted.contains(name)) else {
            continue;
        };
        let object = match module {
            None => ObjectName::Vmlinux,
            Some(module) => {
                let module = String::from_utf8_lossy(module);
                ObjectName::Module(module.trim_matches(['[', ']']).to_owned())
            }
        };
        let digits = std::str::from_utf8(&line[..space]).unwrap_or_default();
        let address = u64::from_str_radix(digits, 16).unwrap_or(0);
        found.push(name, FoundSymbol { object, address, letter: *letter, size: None });
    }
    found
}
