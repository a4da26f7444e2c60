//! The shipped code as memory with symbols.

use std::collections::HashMap;

use crate::image::KernelImage;

/// Code and data at addresses, and names for them.
pub trait Shipped {
    /// `size` bytes from an address; `None` where the file has none.
    fn bytes(&self, address: u64, size: usize) -> Option<&[u8]>;
    /// Where symbols of that name are, in the order in which a livepatch counts them.
    fn named(&self, name: &str) -> &[u64];
    /// Whether the shipped object defines every symbol that code in it can refer to. A module does not: what
    /// it imports has no address of its own.
    fn knows(&self, name: &str) -> bool {
        !self.named(name).is_empty()
    }
}

/// A kernel image.
#[derive(Debug)]
pub struct Vmlinux<'a> {
    image: &'a KernelImage,
    names: HashMap<&'a str, Vec<u64>>,
}

impl<'a> Vmlinux<'a> {
    /// Indexes the image's symbols.
    pub fn new(image: &'a KernelImage) -> Self {
        let symbols = image.kallsyms();
        let mut names: HashMap<&str, Vec<u64>> = HashMap::with_capacity(symbols.len());
        for symbol in symbols.iter() {
            names.entry(symbol.name).or_default().push(symbol.address);
        }
        Self { image, names }
    }
}

impl Shipped for Vmlinux<'_> {
    fn bytes(&self, address: u64, size: usize) -> Option<&[u8]> {
        self.image.bytes(address, size)
    }

    fn named(&self, name: &str) -> &[u64] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }
}
