//! How the layouts of two versions of a unit differ.

use std::fmt::Write as _;

use super::types::{Kind, Layout, Types};

/// The most members that one finding names.
const NAMED: usize = 6;

/// A type that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::build) struct Change {
    /// As `struct file`; an enumeration without a name goes by the first of its values, as `enum with NAME`.
    pub(in crate::build) type_name: String,
    /// How, in words.
    pub(in crate::build) how: String,
    /// Whether what is stored by the old version means the same to the new one: true for an enumeration that only grew.
    pub(in crate::build) keeps_meaning: bool,
}

/// The types and variables that both versions have and that differ.
pub(in crate::build) fn changes(original: &Types, patched: &Types) -> Vec<Change> {
    let named = original.named.iter().filter_map(|(name, before)| {
        let after = patched.named.get(name).or_else(|| same_enumeration(before, patched))?;
        Some((name.clone(), before, after))
    });
    let unnamed = original.unnamed.iter().filter_map(|before| {
        let first = before.members.iter().min_by_key(|(_, member)| member.place);
        Some((format!("enum with {}", first?.0), before, same_enumeration(before, patched)?))
    });
    named
        .chain(unnamed)
        .filter(|(_, before, after)| differ(before, after))
        .map(|(type_name, before, after)| Change {
            type_name,
            how: describe(before, after),
            keeps_meaning: before.kind == Kind::Enumeration
                && before.kind == after.kind
                && before.size == after.size
                && only_grew(before, after),
        })
        .collect()
}

fn differ(before: &Layout, after: &Layout) -> bool {
    match (before.kind, after.kind) {
        (Kind::Alias, Kind::Alias) => before.members.keys().any(|name| !after.members.contains_key(name)),
        _ => before != after,
    }
}

/// The enumeration that has most of these values, by their names, which a file has only once.
fn same_enumeration<'t>(before: &Layout, patched: &'t Types) -> Option<&'t Layout> {
    if before.kind != Kind::Enumeration {
        return None;
    }
    let shared =
        |layout: &Layout| before.members.keys().filter(|name| layout.members.contains_key(*name)).count();
    let enumerations = patched.named.values().chain(&patched.unnamed);
    let enumerations = enumerations.filter(|layout| layout.kind == Kind::Enumeration);
    enumerations.max_by_key(|layout| shared(layout)).filter(|layout| shared(layout) > 0)
}

/// Whether every value still has its name. A name that says how many there are may move on, or go: it is stored nowhere.
fn only_grew(before: &Layout, after: &Layout) -> bool {
    before.members.iter().all(|(name, member)| match after.members.get(name) {
        Some(now) if now.place == member.place => true,
        Some(_) => ends(name, before) && ends(name, after),
        None => ends(name, before),
    })
}

/// Whether a name says how many values there are, and stands where they end.
fn ends(name: &str, layout: &Layout) -> bool {
    let Some(own) = layout.members.get(name).filter(|_| is_count(name)) else { return false };
    layout.members.iter().all(|(other, member)| is_count(other) || member.place <= own.place)
}

/// `__NL80211_ATTR_AFTER_LAST`, `NR_PAGEFLAGS`, `IFLA_MAX`, `num_states`; but not `LAST_ACK`.
fn is_count(enumerator: &str) -> bool {
    const FIRST: [&str; 4] = ["MAX", "NUM", "NR", "COUNT"];
    const LAST: [&str; 7] = ["MAX", "NUM", "NR", "COUNT", "LAST", "END", "SIZE"];
    let mut words = enumerator.split('_').filter(|word| !word.is_empty());
    let is_one_of = |words: &[&str], word: &str| words.iter().any(|count| word.eq_ignore_ascii_case(count));
    let first = words.next().unwrap_or_default();
    let last = words.next_back().unwrap_or(first);
    is_one_of(&FIRST, first) || is_one_of(&LAST, last)
}

fn describe(before: &Layout, after: &Layout) -> String {
    if before.kind == Kind::Alias || after.kind == Kind::Alias {
        return format!("it is {}, was {}", types(after), types(before));
    }
    let is_enum = after.kind == Kind::Enumeration;
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

/// What a typedef or a variable is.
fn types(layout: &Layout) -> String {
    match layout.kind {
        Kind::Alias => layout.members.keys().map(|one| short(one)).collect::<Vec<_>>().join(" or "),
        Kind::Record | Kind::Enumeration => format!("a type of {} bytes", layout.size),
    }
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
        // A value has another name, was removed or replaced.
        assert_eq!(keeps("INIT, RUN, STOP", "INIT, PAUSE, STOP, RUN2"), [false]);
        assert_eq!(keeps("A, B, C", "A, B"), [false]);
        assert_eq!(keeps("A, B", "A, B2"), [false]);
        // One that looks like a count and is a value, or is not at the end any more.
        assert_eq!(keeps("SYN, FIN, LAST_ACK", "SYN, FIN, WAIT, LAST_ACK"), [false]);
        assert_eq!(keeps("A, LIST_END, B", "A, C, LIST_END, B"), [false]);
        assert_eq!(keeps("A, B, E_MAX", "A, B, C = 7, E_MAX = 4"), [false]);
        assert_eq!(
            keeps("A, __E_LAST, E_MAX = __E_LAST - 1", "A, B, __E_LAST, E_MAX = __E_LAST - 1"),
            [true]
        );
    }

    #[test]
    fn enumerations_without_a_name_and_renamed_ones_are_told_by_their_values() {
        let keeps = |before: &str, after: &str| {
            let of = |types| compiled(&format!("{types} int f(int a) {{ return a == DONE; }}"));
            let found = changes(&of(before), &of(after));
            found.iter().map(|one| (one.type_name.clone(), one.keeps_meaning)).collect::<Vec<_>>()
        };
        let is = |name: &str, keeps| vec![(name.to_owned(), keeps)];
        assert_eq!(
            keeps("enum { DONE, OVER };", "enum { STARTED, DONE, OVER };"),
            is("enum with DONE", false)
        );
        assert_eq!(keeps("enum { DONE, OVER };", "enum { DONE, OVER, MORE };"), is("enum with DONE", true));
        assert_eq!(keeps("enum a { DONE, OVER };", "enum b { OVER, DONE };"), is("enum a", false));
        assert_eq!(keeps("enum { DONE, OVER };", "enum { DONE, OVER };"), []);
        assert_eq!(
            keeps("typedef enum { DONE } t; t x;", "typedef enum { NEW, DONE } t; t x;"),
            is("t", false)
        );
    }

    #[test]
    fn a_typedef_is_what_it_stands_for() {
        let with = |types: &str| compiled(&format!("{types}; t *x; int f(void) {{ return sizeof(*x); }}"));
        let found = |before: &str, after: &str| {
            let found = changes(&with(before), &with(after));
            found.into_iter().map(|one| format!("{}: {}", one.type_name, one.how)).collect::<Vec<_>>()
        };
        assert_eq!(
            found("typedef struct { int a; int b; } t", "typedef struct { int a; int c; int b; } t"),
            ["t: 12 bytes, was 8; b moves from byte 4 to byte 8; c is new at byte 4"]
        );
        assert_eq!(
            found("typedef int s; typedef s t", "typedef long s; typedef s t"),
            [
                "s: it is `long int`, was `int`",
                "t: it is `long int`, was `int`",
                "variable x: it is `long int *`, was `int *`"
            ]
        );
        assert_eq!(
            found("typedef int (*t)(int)", "typedef int (*t)(long)"),
            ["variable x: it is `int (long int) * *`, was `int (int) * *`"]
        );
        let parameter = |argument| {
            format!("typedef int c(int {argument}); int g(c *c) {{ return (long)c; }} typedef int t")
        };
        assert_eq!(found(&parameter(""), &parameter(", int")), [""; 0]);
        // The same under another name.
        assert_eq!(found("typedef int t", "typedef int s; typedef s t"), [""; 0]);
        assert_eq!(
            found(
                "struct a { int b; }; typedef struct a t",
                "struct a { int b; }; typedef struct a s; typedef s t"
            ),
            [""; 0]
        );
    }

    #[test]
    fn a_variable_keeps_its_type_while_it_can_be_written() {
        let with = |variables: &str, body: &str| {
            compiled(&format!("{variables}; long f(void) {{ {body}; return (long)s++; }}"))
        };
        let found = |before: (&str, &str), after: (&str, &str)| {
            let found = changes(&with(before.0, before.1), &with(after.0, after.1));
            found.into_iter().map(|one| format!("{}: {}", one.type_name, one.how)).collect::<Vec<_>>()
        };
        assert_eq!(
            found(("static int *s", ""), ("static unsigned long s", "")),
            ["variable s: it is `long unsigned int`, was `int *`"]
        );
        assert_eq!(
            found(("", "static int *s"), ("", "static unsigned long s")),
            ["variable f::s: it is `long unsigned int`, was `int *`"]
        );
        assert_eq!(
            found(("extern int s; int s", ""), ("extern unsigned s; unsigned s", "")),
            ["variable s: it is `unsigned int`, was `int`"]
        );
        assert_eq!(
            found(("struct { int a; } x; long s", ""), ("struct { int b; int a; } x; long s", "")).len(),
            1
        );
        // On the stack, never written, declared only, or of that name in another place of the function.
        let same = [
            ("long s", "int *a = 0; s += (long)a"),
            ("static const int a[] = { 3 }; long s", "s += a[s & 0]"),
            ("extern int a; long s", "s += a"),
            ("long s", "static int a; { static int *a; s += (long)a++; } s += a++"),
        ];
        let other = [
            ("long s", "long a = 0; s += (long)a"),
            ("static const long a[] = { 3 }; long s", "s += a[s & 0]"),
            ("extern long a; long s", "s += a"),
            (
                "long s",
                "static int a; { static int *a; s += (long)a++; } { static long a; s += a++; } s += a++",
            ),
        ];
        for (before, after) in same.into_iter().zip(other) {
            assert_eq!(found(before, after), [""; 0], "{before:?}");
        }
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
