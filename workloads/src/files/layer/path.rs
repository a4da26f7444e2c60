//! Names in a layer: which are allowed, and what they ask for.
//!
//! Pure. A [`LayerPath`] is relative, is UTF-8, has no `.`, `..` or empty part, and fits into a system
//! call; what its parts are on disk is [`super::tree`]'s to find out.

use crate::files::layer::archive::{Entry, Kind};
use crate::files::layer::error::{EntryName, LayerError, Rule};

/// Longest part of a name (`NAME_MAX`).
const PART_LIMIT: usize = 255;

/// Longest name without its NUL (`PATH_MAX` less one).
const PATH_LIMIT: usize = 4095;

/// Most parts of a name. Removing a tree recurses; Linux distributions stay below 30.
const DEPTH_LIMIT: usize = 128;

/// Before the name of what a layer removes (OCI image-spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// A directory with this in it hides everything below it (layer.md, "Opaque Whiteout").
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A checked name; empty for the layer's root.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct LayerPath {
    joined: Vec<u8>,
    /// Where the last part begins.
    last: usize,
    depth: usize,
}

/// What an entry's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To be there.
    Entry(LayerPath),
    /// To remove this name of lower layers.
    Whiteout(LayerPath),
    /// To hide what lower layers have in this directory.
    Opaque(LayerPath),
}

impl LayerPath {
    /// Checks a name and brings it into its only form.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, Rule> {
        if raw.is_empty() {
            return Err(Rule::Empty);
        }
        if raw.contains(&0) {
            return Err(Rule::Nul);
        }
        if raw[0] == b'/' {
            return Err(Rule::Absolute);
        }
        if raw.len() > PATH_LIMIT {
            return Err(Rule::TooLong { limit: PATH_LIMIT, found: raw.len() });
        }
        if std::str::from_utf8(raw).is_err() {
            return Err(Rule::NotText);
        }
        let mut path = Self::default();
        for part in raw.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(Rule::DotDot),
                part if part.len() > PART_LIMIT => {
                    return Err(Rule::PartTooLong { limit: PART_LIMIT, found: part.len() });
                }
                part => path.push(part),
            }
        }
        match path.depth > DEPTH_LIMIT {
            true => Err(Rule::TooDeep { limit: DEPTH_LIMIT, found: path.depth }),
            false => Ok(path),
        }
    }

    /// All of it; empty for the root.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.joined
    }

    /// The directory that it lies in; empty for the root.
    pub(super) fn parent(&self) -> &[u8] {
        &self.joined[..self.last.saturating_sub(1)]
    }

    /// Its last part.
    pub(super) fn name(&self) -> &[u8] {
        &self.joined[self.last..]
    }

    /// Whether it is the layer's root.
    pub(super) fn is_root(&self) -> bool {
        self.joined.is_empty()
    }

    fn push(&mut self, part: &[u8]) {
        if !self.joined.is_empty() {
            self.joined.push(b'/');
        }
        self.last = self.joined.len();
        self.joined.extend_from_slice(part);
        self.depth += 1;
    }

    /// The parent as a path of its own.
    fn directory(&self) -> Self {
        let mut directory = Self::default();
        for part in self.parent().split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            directory.push(part);
        }
        directory
    }
}

impl Place {
    /// What the name of `entry` asks for, with every rule that the name alone can break.
    pub(super) fn of(entry: &Entry) -> Result<Self, LayerError> {
        Self::checked(entry.name.as_bytes(), entry).map_err(|rule| entry.refused(rule))
    }

    fn checked(raw: &[u8], entry: &Entry) -> Result<Self, Rule> {
        let path = LayerPath::parse(raw)?;
        if entry.kind != Kind::Directory {
            if path.is_root() {
                return Err(Rule::Root);
            }
            if raw.ends_with(b"/") {
                return Err(Rule::TrailingSlash);
            }
        }
        if path.parent().split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(Rule::WhiteoutParent);
        }
        let Some(hidden) = path.name().strip_prefix(WHITEOUT) else {
            if let Kind::Symlink { target } = &entry.kind {
                check_symlink(&path, target)?;
            }
            return Ok(Self::Entry(path));
        };
        if entry.kind != (Kind::File { size: 0 }) || !entry.attributes.xattrs.is_empty() {
            return Err(Rule::WhiteoutContent);
        }
        let mut directory = path.directory();
        match hidden {
            _ if path.name() == OPAQUE => match directory.is_root() {
                true => Err(Rule::OpaqueRoot),
                false => Ok(Self::Opaque(directory)),
            },
            // Names below ".wh..wh." belong to AUFS.
            b"" | b"." | b".." => Err(Rule::WhiteoutName { found: hidden.into() }),
            _ if hidden.starts_with(WHITEOUT) => Err(Rule::WhiteoutName { found: hidden.into() }),
            _ => {
                directory.push(hidden);
                Ok(Self::Whiteout(directory))
            }
        }
    }
}

/// A symbolic link's target, by its form: relative, and never above the layer's root on its way.
fn check_symlink(path: &LayerPath, target: &[u8]) -> Result<(), Rule> {
    if target.is_empty() || target.len() > PATH_LIMIT || target.contains(&0) {
        return Err(Rule::SymlinkTarget { limit: PATH_LIMIT, found: target.len() });
    }
    if target[0] == b'/' {
        return Err(Rule::SymlinkAbsolute { target: EntryName::from(target) });
    }
    let mut depth = path.depth - 1;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| Rule::SymlinkClimbs { target: EntryName::from(target) })?;
            }
            _ => depth += 1,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_have_one_form() {
        let plain = LayerPath::parse(b"usr/lib/x").unwrap();
        for raw in [&b"./usr/lib/x"[..], b"usr//lib/./x", b"usr/lib/x/", b"././usr/lib/x/."] {
            assert_eq!(LayerPath::parse(raw).unwrap(), plain);
        }
        assert_eq!((plain.parent(), plain.name()), (&b"usr/lib"[..], &b"x"[..]));
        assert_eq!(plain.directory().as_bytes(), b"usr/lib");
        assert!(LayerPath::parse(b"./").unwrap().is_root());
    }

    #[test]
    fn links_may_climb_to_the_root_and_not_above() {
        let path = LayerPath::parse(b"a/b/link").unwrap();
        for target in [&b"x"[..], b"../x", b"../../x", b"c/../../../x", b"./../.."] {
            assert_eq!(check_symlink(&path, target), Ok(()), "{target:?}");
        }
        for target in [&b"../../../x"[..], b"c/../../../../x", b"..//..//.."] {
            assert!(matches!(check_symlink(&path, target), Err(Rule::SymlinkClimbs { .. })), "{target:?}");
        }
    }
}
