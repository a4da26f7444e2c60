//! Types whose layout the patch changes: objects that are alive keep the old one.

use std::fmt::Write as _;

use super::types::{Layout, Types};

/// The most members that one finding names.
const NAMED: usize = 6;

/// How one type differs, in words.
pub(super) fn changes(original: &Types, patched: &Types) -> Vec<(String, String)> {
    let both = original.iter().filter_map(|(name, before)| Some((name, before, patched.get(name)?)));
    both.filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| (name.clone(), describe(name.starts_with("enum"), before, after)))
        .collect()
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
        changes(&with(before), &with(after)).into_iter().map(|(name, how)| format!("{name}: {how}")).collect()
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
