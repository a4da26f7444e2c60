//! How the layouts of two versions of a unit differ.

use std::fmt::Write as _;

use super::types::{Layout, Types};

/// The most members that one finding names.
const NAMED: usize = 6;

/// A type that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) struct Change {
    /// As `struct file`.
    pub(in crate::build) type_name: String,
    /// How, in words.
    pub(in crate::build) how: String,
    /// Whether what is stored by the old version means the same to the new one: true for an enumeration that only grew.
    pub(in crate::build) keeps_meaning: bool,
}

/// The types that both versions have and that differ.
pub(in crate::build) fn changes(original: &Types, patched: &Types) -> Vec<Change> {
    let both = original.iter().filter_map(|(name, before)| Some((name, before, patched.get(name)?)));
    both.filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| {
            let is_enum = name.starts_with("enum ");
            Change {
                type_name: name.clone(),
                how: describe(is_enum, before, after),
                keeps_meaning: is_enum && before.size == after.size && only_grew(before, after),
            }
        })
        .collect()
}

/// Whether no enumerator has another value, except those that say how many there are.
fn only_grew(before: &Layout, after: &Layout) -> bool {
    let moved = before
        .members
        .iter()
        .filter(|(name, member)| after.members.get(*name).is_some_and(|after| after.place != member.place));
    moved.into_iter().all(|(name, _)| is_count(name))
}

/// `__NL80211_ATTR_AFTER_LAST`, `NR_PAGEFLAGS`, `IFLA_MAX`, `num_states`.
fn is_count(enumerator: &str) -> bool {
    const WORDS: [&str; 9] = ["MAX", "NUM", "NR", "COUNT", "CNT", "LAST", "END", "SIZE", "N"];
    enumerator.split('_').any(|word| WORDS.iter().any(|count| word.eq_ignore_ascii_case(count)))
}

fn describe(is_enum: bool, before: &Layout, after: &Layout) -> String {
    let mut parts = Vec::new();
    for (name, member) in &after.members {
        match before.members.get(name) {
            None => parts.push(format!("{name} is new at {}", place(is_enum, member.place))),
            Some(old) if old.type_name != member.type_name => {
                parts.push(format!("{name} is {}, was {}", short(&member.type_name), short(&old.type_name)));
            }
            Some(old) if old.place != member.place => {
                let (from, to) = (place(is_enum, old.place), place(is_enum, member.place));
                parts.push(format!("{name} moves from {from} to {to}"));
            }
            Some(_) => {}
        }
    }
    let gone = before.members.keys().filter(|name| !after.members.contains_key(*name));
    parts.extend(gone.map(|name| format!("{name} is gone")));
    let mut text = match before.size == after.size {
        true => format!("{} bytes as before", after.size),
        false => format!("{} bytes, was {}", after.size, before.size),
    };
    let more = parts.len().saturating_sub(NAMED);
    for part in parts.iter().take(NAMED) {
        let _ = write!(text, "; {part}");
    }
    if more > 0 {
        let _ = write!(text, "; and {more} more");
    }
    text
}

fn place(is_enum: bool, place: i128) -> String {
    match (is_enum, place % 8) {
        (true, _) => place.to_string(),
        (false, 0) => format!("byte {}", place / 8),
        (false, bit) => format!("byte {} bit {bit}", place / 8),
    }
}

fn short(type_name: &str) -> String {
    match type_name.char_indices().nth(60) {
        Some((at, _)) => format!("`{}…`", &type_name[..at]),
        None => format!("`{type_name}`"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::types;
    use super::*;

    fn compiled(source: &str) -> Types {
        let directory = tempfile::tempdir().unwrap();
        let (file, object) = (directory.path().join("a.c"), directory.path().join("a.o"));
        std::fs::write(&file, source).unwrap();

        let done =
            Command::new("gcc").args(["-g", "-O2", "-c", "-o"]).arg(&object).arg(&file).status().unwrap();
        assert!(done.success());
        types::read(&std::fs::read(object).unwrap()).unwrap()
    }

    fn changed(before: &str, after: &str) -> Vec<String> {
        let with =
            |body: &str| compiled(&format!("{body}\nstruct a x; long f(void) {{ return sizeof(x); }}"));
        changes(&with(before), &with(after))
            .into_iter()
            .map(|one| format!("{}: {}", one.type_name, one.how))
            .collect()
    }

    #[test]
    fn members_that_come_go_and_move_are_named() {
        assert_eq!(
            changed("struct a { int b; long c; };", "struct a { int b; int d; long c; char e; };"),
            ["struct a: 24 bytes, was 16; d is new at byte 4; e is new at byte 16"]
        );
        assert_eq!(
            changed("struct a { long b; long c; };", "struct a { long c; };"),
            ["struct a: 8 bytes, was 16; c moves from byte 8 to byte 0; b is gone"]
        );
    }

    #[test]
    fn bit_fields_and_anonymous_members_count() {
        assert_eq!(
            changed("struct a { int b:3; int c:4; };", "struct a { int b:4; int c:4; };"),
            [
                "struct a: 4 bytes as before; b is `int:4`, was `int:3`; c moves from byte 0 bit 3 to byte 0 bit 4"
            ]
        );
        assert_eq!(
            changed(
                "struct a { union { int b; struct { short c; short d; }; }; };",
                "struct a { union { int b; struct { short d; short c; }; }; };"
            ),
            ["struct a: 4 bytes as before; c moves from byte 0 to byte 2; d moves from byte 2 to byte 0"]
        );
        assert_eq!(
            changed("struct a { struct { int b; } c; };", "struct a { struct { long b; } c; };").len(),
            1
        );
    }

    #[test]
    fn an_enumeration_may_grow_but_not_give_old_values_another_meaning() {
        let keeps = |before: &str, after: &str| {
            let with = |body: &str| compiled(&format!("enum e {{ {body} }} x;"));
            let found = changes(&with(before), &with(after));
            found.iter().map(|one| one.keeps_meaning).collect::<Vec<_>>()
        };
        assert_eq!(keeps("A, B, __MAX", "A, B, C, __MAX"), [true]);
        assert_eq!(keeps("A, B, NR_OF", "A, B, C, NR_OF"), [true]);
        assert_eq!(keeps("A, B", "A, C, B"), [false]);
        assert_eq!(keeps("A, B, LIMIT", "A, B, C, LIMIT"), [false]);
        assert_eq!(keeps("A, B", "A, B, C = 1L << 40"), [false]);
        assert_eq!(keeps("A, B", "A, B"), [false; 0]);
    }

    #[test]
    fn pointers_to_changed_types_are_not_changes_of_their_own() {
        let before = "struct b { int c; }; struct a { struct b *b; enum e { E1, E2 } e; }; struct b y;";
        let after = "struct b { long c; }; struct a { struct b *b; enum e { E1, E3, E2 } e; }; struct b y;";
        assert_eq!(
            changed(before, after),
            [
                "enum e: 4 bytes as before; E2 moves from 1 to 2; E3 is new at 1",
                "struct b: 8 bytes, was 4; c is `long int`, was `int`"
            ]
        );
        assert_eq!(changed(before, before), [""; 0]);
    }
}
