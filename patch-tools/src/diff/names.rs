//! Names without the numbers that the compiler puts into them.
//!
//! `foo.part.0`, `count.12` and `__UNIQUE_ID_x345` change their numbers when anything before them in the
//! file changes. [`stem`] removes the numbers; what remains is compared. [`variable`] also removes the function
//! that clang puts before the name of a static local.

use std::borrow::Cow;

/// A name, and whether the compiler had numbered it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stem<'a> {
    /// The name without numbers.
    pub(crate) text: Cow<'a, str>,
    /// Whether there was a number: then the name does not identify a symbol by itself.
    pub(crate) numbered: bool,
}

/// Removes the compiler's numbers from a name.
pub(crate) fn stem(name: &str) -> Stem<'_> {
    if name.starts_with("__BTF_ID__") {
        return Stem { text: Cow::Borrowed(without_digits(name)), numbered: true };
    }
    if let Some(text) = initcall(name) {
        return Stem { text: Cow::Owned(text), numbered: true };
    }
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_unique = |part: &str| part.starts_with("__UNIQUE_ID_");
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let rest = rest.into_iter().flat_map(|rest| rest.split('.'));
    if !is_unique(first) && !rest.clone().any(|part| is_number(part) || is_unique(part)) {
        return Stem { text: Cow::Borrowed(name), numbered: false };
    }
    let shown = |part: &'_ str| if is_unique(part) { without_counter(part).len() } else { part.len() };
    let mut text = first[..shown(first)].to_owned();
    for part in rest.filter(|part| !is_number(part)) {
        text.push('.');
        text.push_str(&part[..shown(part)]);
    }
    Stem { text: Cow::Owned(text), numbered: true }
}

fn without_digits(name: &str) -> &str {
    name.trim_end_matches(|letter: char| letter == '.' || letter.is_ascii_digit())
}

/// `__UNIQUE_ID_ddebug` of `__UNIQUE_ID_ddebug456`, and of `__UNIQUE_ID_ddebug_456` as 6.19 and later have it.
fn without_counter(name: &str) -> &str {
    match without_digits(name) {
        same if same.len() == name.len() => name,
        rest => rest.strip_suffix('_').unwrap_or(rest),
    }
}

/// A variable's name without what the compiler adds to that of a static local: `count` of GCC's `count.12` and
/// of clang's `show.count` and `show.count.1`; then it does not identify a variable by itself.
pub(crate) fn variable(name: &str) -> Stem<'_> {
    let stem = stem(name);
    let text = ["lto_priv", "llvm"]
        .iter()
        .find_map(|part| stem.text.strip_suffix(part)?.strip_suffix('.'))
        .unwrap_or(&stem.text);
    let Some((function, variable)) = text.rsplit_once('.') else {
        return Stem { text: Cow::Owned(text.to_owned()), numbered: stem.numbered };
    };
    let by_compiler = ["__func__", "__FUNCTION__", "__PRETTY_FUNCTION__"].contains(&function);
    let text = if text.starts_with("switch.table.") {
        "switch.table"
    } else if by_compiler {
        function
    } else {
        variable
    };
    Stem { text: Cow::Owned(text.to_owned()), numbered: true }
}

/// `__initcall__kmod_MODULE__COUNTER_LINE_FUNCTION`: the counter and the line go.
fn initcall(name: &str) -> Option<String> {
    let rest = name.strip_prefix("__initcall__kmod_")?;
    let at = rest.rmatch_indices("__").map(|(at, _)| at).find(|&at| {
        let mut parts = rest[at + 2..].splitn(3, '_');
        let mut number =
            || parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        number() && number()
    })?;
    let function = rest[at + 2..].splitn(3, '_').nth(2)?;
    Some(format!("__initcall__kmod_{}__{function}", &rest[..at]))
}

/// The function that a `.cold` part was split off.
pub(crate) fn cold_parent(name: &str) -> Option<&str> {
    let (parent, number) = name.rsplit_once(".cold")?;
    let number = number.strip_prefix('.').unwrap_or(number);
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(parent)
}

/// Functions that compilers add to a file for sanitizers and coverage: they run once, when its code is loaded or goes.
pub(crate) fn is_constructor(name: &str) -> bool {
    let of_gcc = name.strip_prefix("_GLOBAL_").unwrap_or(name);
    ["_sub_I_", "_sub_D_"].iter().any(|start| of_gcc.starts_with(start))
        || ["asan.module_ctor", "asan.module_dtor"].contains(&name)
}

/// Labels that name nothing of their own: markers for build tools, and the assembler's.
pub(crate) fn is_marker(name: &str) -> bool {
    name.is_empty()
        || name.starts_with(".L")
        || name.starts_with("__pfx_")
        || name.starts_with("__cfi_")
        || name.starts_with("__BTF_ID__")
        || name.starts_with("__initcall__")
        || name.starts_with("__UNIQUE_ID___addressable")
        || name.starts_with("__UNIQUE_ID_addressable_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_compiler_go_and_the_rest_of_a_name_stays() {
        for (name, expected, numbered) in [
            ("foo", "foo", false),
            ("foo.cold", "foo.cold", false),
            ("count.12", "count", true),
            ("foo.part.0", "foo.part", true),
            ("foo.isra.0.cold", "foo.isra.cold", true),
            ("__UNIQUE_ID_ddebug456.7", "__UNIQUE_ID_ddebug", true),
            ("__UNIQUE_ID_ddebug_456.7", "__UNIQUE_ID_ddebug", true),
            ("__initcall__kmod_my_fs__512_7305_init_my_fs6", "__initcall__kmod_my_fs__init_my_fs6", true),
            ("__BTF_ID__func__foo__77", "__BTF_ID__func__foo__", true),
            ("v1.2x", "v1.2x", false),
        ] {
            let stem = stem(name);
            assert_eq!((&*stem.text, stem.numbered), (expected, numbered), "{name}");
        }
    }

    #[test]
    fn static_locals_have_the_name_of_the_source_whatever_the_compiler() {
        for (name, expected, numbered) in [
            ("count", "count", false),
            ("count.12", "count", true),
            ("show.count", "count", true),
            ("show.count.3", "count", true),
            ("show.llvm.123456.count", "count", true),
            ("state.lto_priv.0", "state", true),
            ("__func__.show", "__func__", true),
            ("__func__.7", "__func__", true),
            ("show.__UNIQUE_ID_ddebug12", "__UNIQUE_ID_ddebug", true),
            ("show.__UNIQUE_ID_ddebug_12", "__UNIQUE_ID_ddebug", true),
            ("switch.table.show.3", "switch.table", true),
            (".compoundliteral", "compoundliteral", true),
        ] {
            let variable = variable(name);
            assert_eq!((&*variable.text, variable.numbered), (expected, numbered), "{name}");
        }
    }

    #[test]
    fn cold_parts_name_their_parents() {
        assert_eq!(cold_parent("foo.cold"), Some("foo"));
        assert_eq!(cold_parent("foo.part.0.cold.3"), Some("foo.part.0"));
        assert_eq!(cold_parent("foo.colder"), None);
    }
}
