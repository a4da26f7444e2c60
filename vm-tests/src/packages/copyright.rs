//! Whose work is in a package, and on what terms: `/usr/share/doc/PACKAGE/copyright` (Debian's machine-readable format, 1.0).
//!
//! Where a crate may be had under Apache-2.0 it is taken under that, of which every Debian has a copy; else what comes with the
//! crate is quoted.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use spdx::{Expression, ParseMode};

use super::control::Needed;
use super::crates::Crate;
use super::{Package, Workshop};
use crate::product::{files_under, workspace};

const HEAD: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: update
Comment: The programs are made of update itself and of the crates below, each in the version that is named. SQLite, in
 libsqlite3-sys, is in the public domain; liblzma, in liblzma-sys, is under 0BSD.

Files: *
Copyright: the authors of update
License: Apache-2.0
";

/// What the compiler brings into every program.
const RUST: &str = "
Files: rust/library/*
Copyright: the Rust project's contributors
License: Apache-2.0
";

/// What static programs have in them.
const STATIC: &str = "
Files: glibc/*
Copyright: Free Software Foundation, Inc. and others
License: LGPL-2.1+

Files: libgcc/*
Copyright: Free Software Foundation, Inc.
License: GPL-3+ with GCC Runtime Library Exception
 The exception lets works that GCC has compiled be conveyed under any terms. On Debian systems the licence is in
 /usr/share/common-licenses/GPL-3.

License: LGPL-2.1+
 On Debian systems the licence is in /usr/share/common-licenses/LGPL-2.1.
";

const APACHE: &str = "
License: Apache-2.0
 On Debian systems the licence is in /usr/share/common-licenses/Apache-2.0.
";

/// The copyright file of a package.
pub(super) fn of(workshop: &Workshop<'_>, package: &Package) -> Result<String> {
    let mut crates = BTreeMap::new();
    let mut linked_statically = false;
    for program in package.programs {
        let linked = workshop.crates.of(program.name)?;
        crates.extend(linked.into_iter().map(|one| ((&one.name, &one.version), one)));
        linked_statically |= Needed::of(workshop.program(program.name)?)?.libraries.is_empty();
    }
    let mut text = HEAD.to_owned() + RUST;
    for one in crates.into_values().filter(|one| one.source.is_some()) {
        text += &stanza(one).with_context(|| format!("the licence of {} {}", one.name, one.version))?;
    }
    if linked_statically {
        text += STATIC;
    }
    Ok(text + APACHE)
}

fn stanza(one: &Crate) -> Result<String> {
    let Crate { name, version, .. } = one;
    let expression = one.license.as_deref().context("it names none")?;
    let holders = match one.authors.as_slice() {
        [] => format!("the authors of {name}"),
        authors => authors.join("\n "),
    };
    let licence = match is_apache_enough(expression)? {
        true => "Apache-2.0".to_owned(),
        false => format!("{expression}\n{}", quoted(&texts(one)?)),
    };
    Ok(format!("\nFiles: crates/{name}-{version}/*\nCopyright: {holders}\nLicense: {}\n", licence.trim_end()))
}

/// Whether Apache-2.0 alone lets us have it.
fn is_apache_enough(expression: &str) -> Result<bool> {
    let parsed = Expression::parse_mode(expression, ParseMode::LAX)?;
    Ok(parsed.evaluate(|required| {
        required.addition.is_none() && required.license.id().is_some_and(|id| id.name == "Apache-2.0")
    }))
}

/// The licences that come with a crate, one after the other; of one that comes without, what is in `dist/licences`.
fn texts(one: &Crate) -> Result<String> {
    let is_licence = |name: &str| {
        ["LICEN", "COPYING", "UNLICENSE"].iter().any(|start| name.to_uppercase().starts_with(start))
    };
    let mut found = files_under(one.directory())?;
    found.retain(|(_, below)| is_licence(below));
    if found.is_empty() {
        found.push((workspace()?.join("dist/licences").join(&one.name), String::new()));
    }
    let mut all = String::new();
    for (path, _) in found {
        let text = fs::read(&path)
            .with_context(|| format!("it comes without one, and {} is not there", path.display()))?;
        all += &without_apache(&String::from_utf8_lossy(&text));
        all.push('\n');
    }
    ensure!(!all.trim().is_empty(), "its text is empty");
    Ok(all)
}

/// A text without that of Apache-2.0 in it, which every Debian has.
fn without_apache(text: &str) -> String {
    let terms = text.find("Version 2.0, January 2004").and_then(|at| {
        let begin = text[..at].rfind("Apache License")?;
        let end =
            begin + text[begin..].find("END OF TERMS AND CONDITIONS")? + "END OF TERMS AND CONDITIONS".len();
        Some(begin..end)
    });
    match terms {
        Some(terms) => format!("{}(the terms of Apache-2.0){}", &text[..terms.start], &text[terms.end..]),
        None => text.to_owned(),
    }
}

/// As the rest of a field: every line is indented, and an empty one has a dot.
fn quoted(text: &str) -> String {
    let lines = text.trim().lines().map(|line| match line.trim_end() {
        "" => " .\n".to_owned(),
        line => format!(" {line}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_had_under_apache_is_and_the_rest_is_quoted() -> Result<()> {
        for (expression, enough) in [
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
            ("Apache-2.0 AND ISC", false),
            ("Unlicense OR MIT", false),
        ] {
            assert_eq!(is_apache_enough(expression)?, enough, "{expression}");
        }
        assert!(is_apache_enough("do as you like").is_err());
        let both = "a\n  Apache License\n  Version 2.0, January 2004\n1. b\nEND OF TERMS AND CONDITIONS\nc";
        assert_eq!(without_apache(both), "a\n  (the terms of Apache-2.0)\nc");
        assert_eq!(without_apache("Apache License, Version 2.0"), "Apache License, Version 2.0");
        assert_eq!(quoted("a\n\n b \n"), " a\n .\n  b\n");
        Ok(())
    }
}
