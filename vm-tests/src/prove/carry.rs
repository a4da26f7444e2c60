//! Whether a livepatch can carry a fix, decided on the source alone, before anything is built: what the results are
//! measured by must not come from the program that is measured.
//!
//! Both versions of the C file are taken apart into what stands at its top: functions, types, data, macros, and
//! invocations of macros. A livepatch replaces functions. So it cannot carry a fix that changes
//!
//! 1. a function that has run and is gone (`__init`, `__exit`), or that ftrace does not hook: `notrace`, `noinstr`,
//!    `inline` without `static` (the kernel's `inline` implies `notrace`), and all of `lib/*.c` and
//!    `kernel/trace/*.c`, whose Makefiles say so;
//! 2. a structure, a union or an enumeration that is in both versions: objects of the old layout live on;
//! 3. the value of a variable that is in both versions: it holds a state;
//! 4. what the kernel reads as a table when it boots or loads a module: exports, parameters, initcalls and the like.
//!
//! A changed macro counts as a change of everything that names it. What is only in one version (new functions, types,
//! variables) is no obstacle, nor are prototypes and comments. The rule is coarse on purpose: it is short enough to be
//! checked by reading.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The rule in a sentence, for the report.
pub(super) const RULE: &str = "A livepatch can carry a fix unless it changes, of what is in both versions of the C \
    file, a function marked `__init`, `__exit`, `notrace`, `noinstr` or `inline` without `static`, a structure, union or enumeration, the \
    initial value of a variable at the top of the file, or an export, parameter, initcall or other table entry; or \
    unless it is in lib/*.c or kernel/trace/*.c, which ftrace does not hook. \
    Decided on the source text, before anything is built.";

/// Words in a function's head with which it cannot be replaced.
const NEVER_REPLACED: [&str; 9] =
    ["__init", "__exit", "__net_exit", "__meminit", "__cpuinit", "notrace", "noinstr", "__head", "__noendbr"];

/// Directories whose Makefile takes ftrace's hook from every file in it.
const WITHOUT_FTRACE: [&str; 2] = ["lib", "kernel/trace"];

/// Beginnings of macros at the top of a file that tell people things, and change nothing.
const TOLD: [&str; 1] = ["MODULE_"];

/// Whether a livepatch can carry a fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Carry {
    /// It can.
    Can,
    /// No function, type, datum or table differs.
    Nothing,
    /// It cannot, with each obstacle.
    Cannot(Vec<String>),
}

impl fmt::Display for Carry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Can => formatter.write_str("can"),
            Self::Nothing => formatter.write_str("nothing to carry"),
            Self::Cannot(obstacles) => write!(formatter, "cannot: {}", obstacles.join(", ")),
        }
    }
}

impl Carry {
    /// Judges the two versions of a C file.
    pub(super) fn of(path: &str, old: &str, new: &str) -> Self {
        let macros = (macros(old), macros(new));
        let (old, new) = (top(old), top(new));
        let redefined: BTreeSet<&str> = macros
            .0
            .iter()
            .filter(|(name, text)| macros.1.get(*name).is_some_and(|other| other != *text))
            .map(|(name, _)| name.as_str())
            .collect();
        let differs = |key: &&Key| {
            old.get(*key) != new.get(*key)
                || old.get(*key).is_some_and(|text| words(text).any(|word| redefined.contains(word)))
        };
        let changed: BTreeSet<&Key> = old.keys().chain(new.keys()).filter(differs).collect();
        let mut obstacles = Vec::new();
        if path.rsplit_once('/').is_some_and(|(directory, _)| WITHOUT_FTRACE.contains(&directory)) {
            obstacles.push("functions without ftrace".to_owned());
        }
        for key in &changed {
            let in_both = old.contains_key(*key) && new.contains_key(*key);
            let texts = old.get(*key).into_iter().chain(new.get(*key));
            match key.kind {
                Kind::Function if in_both => {
                    let marks = NEVER_REPLACED.iter().find(|mark| {
                        texts.clone().any(|text| head(text).split_whitespace().any(|word| word == **mark))
                    });
                    obstacles.extend(marks.map(|mark| format!("{mark} function {}", key.name)));
                    let lone_inline = |text: &&String| {
                        let mut words = head(text).split_whitespace();
                        words.clone().any(|word| word == "inline") && words.all(|word| word != "static")
                    };
                    if old.get(*key).iter().any(lone_inline) {
                        obstacles.push(format!("inline function {}", key.name));
                    }
                }
                Kind::Type if in_both => obstacles.push(format!("layout of {}", key.name)),
                Kind::Data if in_both => obstacles.push(format!("data {}", key.name)),
                Kind::Invocation if !TOLD.iter().any(|start| key.name.starts_with(start)) => {
                    obstacles.push(format!("table entry {}", key.name));
                }
                _ => {}
            }
        }
        match (changed.is_empty(), obstacles.is_empty()) {
            (true, _) => Self::Nothing,
            (false, true) => Self::Can,
            (false, false) => Self::Cannot(obstacles),
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
}

/// The macros that a file defines, each with its text.
fn macros(source: &str) -> BTreeMap<String, String> {
    let joined = source.replace("\\\n", " ");
    let defined = joined.lines().filter_map(|line| line.trim_start().strip_prefix("#define"));
    let text = |definition: &str| plain(definition).split_whitespace().collect::<Vec<_>>().join(" ");
    defined.filter_map(|line| Some((words(line.trim_start()).next()?.to_owned(), text(line)))).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Function,
    Type,
    Data,
    /// `EXPORT_SYMBOL(x);`
    Invocation,
    /// A prototype, a typedef.
    Declaration,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    name: String,
}

/// What stands at the top of a file, with its text without comments and superfluous white space. Macros stay out.
fn top(source: &str) -> BTreeMap<Key, String> {
    let source = plain(source);
    let mut items = BTreeMap::new();
    let mut text = String::new();
    let (mut braces, mut parentheses) = (0_u32, 0_u32);
    for (index, character) in source.char_indices() {
        text.push(character);
        match character {
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            '(' if braces == 0 => parentheses += 1,
            ')' if braces == 0 => parentheses = parentheses.saturating_sub(1),
            _ => {}
        }
        let at_top = braces == 0 && parentheses == 0;
        let ends = match character {
            ';' => at_top,
            '}' => at_top && kind_of(&text) == Kind::Function,
            // Invocations without a semicolon: `module_init(x)`. What has a body is a function: `SYSCALL_DEFINE0(x)`.
            '\n' => at_top && is_invocation(text.trim()) && !source[index..].trim_start().starts_with('{'),
            _ => false,
        };
        if ends {
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            if words != ";" {
                let key = Key { kind: kind_of(&words), name: name_of(&words) };
                // Two of one name (behind #if) count as one text.
                items.entry(key).or_insert_with(String::new).push_str(&words);
            }
            text.clear();
        }
    }
    items
}

/// The text up to the first brace, or up to the value.
fn head(text: &str) -> &str {
    text.split(['{', '=', ';']).next().unwrap_or(text)
}

fn is_invocation(text: &str) -> bool {
    let Some((word, rest)) = text.split_once('(') else { return false };
    let rest = rest.trim_end_matches(';').trim_end();
    word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !word.is_empty()
        && rest.ends_with(')')
}

fn kind_of(text: &str) -> Kind {
    let text = text.trim();
    let before = head(text);
    let has_value = text[before.len()..].starts_with('=');
    let is_type = ["struct ", "union ", "enum "]
        .iter()
        .any(|word| before.trim_start_matches("typedef ").starts_with(word));
    match () {
        () if has_value => Kind::Data,
        () if before.contains('(') && text[before.len()..].starts_with('{') => Kind::Function,
        () if is_type && text[before.len()..].starts_with('{') => Kind::Type,
        () if is_invocation(text) => Kind::Invocation,
        () if before.contains('(') || before.starts_with("typedef") || before.starts_with("extern") => {
            Kind::Declaration
        }
        () if text[before.len()..].starts_with('{') => Kind::Data,
        () => Kind::Declaration,
    }
}

fn name_of(text: &str) -> String {
    let before = head(text);
    let named = match kind_of(text) {
        Kind::Function | Kind::Declaration if before.contains('(') => {
            let (name, rest) = before.split_once('(').unwrap_or((before, ""));
            // `SYSCALL_DEFINE2(open, …)`: the macro's name is nobody's.
            let first = name.split_whitespace().last().unwrap_or_default();
            let is_macro = first.bytes().all(|byte| !byte.is_ascii_lowercase());
            return if is_macro {
                format!("{first}({})", rest.split([',', ')']).next().unwrap_or_default())
            } else {
                first.to_owned()
            };
        }
        Kind::Invocation => return text.trim_end_matches(';').trim().to_owned(),
        Kind::Type => before,
        _ => before.split('[').next().unwrap_or(before),
    };
    let name = named.trim();
    match kind_of(text) {
        Kind::Type => name.trim_start_matches("typedef ").to_owned(),
        _ => name.split_whitespace().last().unwrap_or_default().trim_start_matches('*').to_owned(),
    }
}

/// The source without comments, the content of literals, and lines of the preprocessor.
fn plain(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut characters = source.chars().peekable();
    let mut at_line_start = true;
    while let Some(character) = characters.next() {
        match character {
            '/' if characters.peek() == Some(&'*') => {
                let mut last = ' ';
                characters.next();
                for inside in characters.by_ref() {
                    if last == '*' && inside == '/' {
                        break;
                    }
                    last = inside;
                }
                plain.push(' ');
            }
            '/' if characters.peek() == Some(&'/') => {
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            '#' if at_line_start => {
                let mut last = ' ';
                while let Some(next) = characters.next_if(|next| *next != '\n' || last == '\\') {
                    last = next;
                }
            }
            '"' | '\'' => {
                plain.push(character);
                while let Some(inside) = characters.next() {
                    plain.push(match inside {
                        '{' | '}' | '(' | ')' | ';' | '=' => '_',
                        other => other,
                    });
                    match inside {
                        '\\' => plain.extend(characters.next()),
                        end if end == character => break,
                        _ => {}
                    }
                }
                at_line_start = false;
            }
            other => {
                plain.push(other);
                at_line_start = other == '\n' || (at_line_start && other.is_whitespace());
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
#include <linux/module.h>
#define LIMIT 4 /* { */
struct thing { int a; };
static int limit = LIMIT;
static const char *const names[] = { "a;", "b}" };
static int helper(struct thing *t) { return t->a; }
static int __init start(void) { return helper(NULL); }
SYSCALL_DEFINE1(tell, int, x) { return x; }
module_init(start);
EXPORT_SYMBOL(helper);
MODULE_LICENSE("GPL");
"#;

    fn with(old: &str, new: &str) -> Carry {
        assert!(FILE.contains(old));
        Carry::of("fs/a.c", FILE, &FILE.replace(old, new))
    }

    #[test]
    fn what_changes_functions_only_can_be_carried() {
        assert_eq!(with("return t->a;", "return t->a + 1;"), Carry::Can);
        assert_eq!(with("return x;", "return x ? 1 : 0;"), Carry::Can);
        assert_eq!(with("SYSCALL", "static void fresh(void) { }\nSYSCALL"), Carry::Can);
        assert_eq!(with("struct thing {", "struct fresh { int b; };\nstruct thing {"), Carry::Can);
    }

    #[test]
    fn a_macro_with_a_body_is_a_function_wherever_its_brace_stands() {
        for head in ["SYSCALL_DEFINE2(tell,\n\tint, x,\n\tint, y)", "BPF_CALL_1(bpf_tell, int, x)"] {
            let source = |value: &str| format!("{FILE}\n{head}\n{{\n\tint z = {value};\n\n\treturn z;\n}}\n");
            assert_eq!(Carry::of("fs/a.c", &source("1"), &source("2")), Carry::Can, "{head}");
            let told = source("1").replace("return z;", "return z; /* told */");
            assert_eq!(Carry::of("fs/a.c", &source("1"), &told), Carry::Nothing, "{head}");
        }
    }

    #[test]
    fn what_ftrace_does_not_hook_is_named() {
        let (old, new) = ("inline int f(int x) { return x; }\n", "inline int f(int x) { return -x; }\n");
        assert_eq!(Carry::of("fs/a.c", old, new), Carry::Cannot(vec!["inline function f".to_owned()]));
        let kept = |text: &str| format!("static {text}");
        assert_eq!(Carry::of("fs/a.c", &kept(old), &kept(new)), Carry::Can);
        let hidden = Carry::Cannot(vec!["functions without ftrace".to_owned()]);
        assert_eq!(Carry::of("lib/a.c", &kept(old), &kept(new)), hidden);
        assert_eq!(Carry::of("lib/zstd/a.c", &kept(old), &kept(new)), Carry::Can);
    }

    #[test]
    fn comments_are_nothing_to_carry() {
        assert_eq!(with("/* { */", "/* } */"), Carry::Nothing);
        assert_eq!(with("return x; }", "return x; /* as told */ }"), Carry::Nothing);
    }

    #[test]
    fn data_layouts_tables_and_code_that_has_run_are_named() {
        for (old, new, obstacle) in [
            ("int a;", "int a; int b;", "layout of struct thing"),
            ("= LIMIT", "= 2 * LIMIT", "data limit"),
            ("LIMIT 4", "LIMIT 5", "data limit"),
            ("\"a;\"", "\"c;\"", "data names"),
            ("return helper(NULL);", "return 0;", "__init function start"),
            ("EXPORT_SYMBOL(helper);", "", "table entry EXPORT_SYMBOL(helper)"),
        ] {
            assert_eq!(with(old, new), Carry::Cannot(vec![obstacle.to_owned()]), "{old} -> {new}");
        }
    }
}
