//! Names without the numbers that the compiler puts into them.
//!
//! `foo.part.0`, `count.12` and `__UNIQUE_ID_x345` change their numbers when anything before them in the
//! file changes. [`stem`] removes the numbers; what remains is compared.

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
    if name.starts_with("__UNIQUE_ID_") || name.starts_with("__BTF_ID__") {
        let text = name.trim_end_matches(|letter: char| letter == '.' || letter.is_ascii_digit());
        return Stem { text: Cow::Borrowed(text), numbered: true };
    }
    if let Some(text) = initcall(name) {
        return Stem { text: Cow::Owned(text), numbered: true };
    }
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some((first, rest)) = name.split_once('.').filter(|(_, rest)| rest.split('.').any(is_number)) else {
        return Stem { text: Cow::Borrowed(name), numbered: false };
    };
    if is_number(rest) {
        return Stem { text: Cow::Borrowed(first), numbered: true };
    }
    let mut text = first.to_owned();
    for part in rest.split('.').filter(|part| !is_number(part)) {
        text.push('.');
        text.push_str(part);
    }
    Stem { text: Cow::Owned(text), numbered: true }
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

/// Labels that name nothing of their own: markers for build tools, and the assembler's.
pub(crate) fn is_marker(name: &str) -> bool {
    name.is_empty()
        || name.starts_with(".L")
        || name.starts_with("__pfx_")
        || name.starts_with("__cfi_")
        || name.starts_with("__BTF_ID__")
        || name.starts_with("__initcall__")
        || name.starts_with("__UNIQUE_ID___addressable")
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
            ("__initcall__kmod_my_fs__512_7305_init_my_fs6", "__initcall__kmod_my_fs__init_my_fs6", true),
            ("__BTF_ID__func__foo__77", "__BTF_ID__func__foo__", true),
            ("v1.2x", "v1.2x", false),
        ] {
            let stem = stem(name);
            assert_eq!((&*stem.text, stem.numbered), (expected, numbered), "{name}");
        }
    }

    #[test]
    fn cold_parts_name_their_parents() {
        assert_eq!(cold_parent("foo.cold"), Some("foo"));
        assert_eq!(cold_parent("foo.part.0.cold.3"), Some("foo.part.0"));
        assert_eq!(cold_parent("foo.colder"), None);
    }
}
