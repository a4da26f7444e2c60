//! Nothing is executed on this machine that the lab does not install: neither by the lab, nor by any crate's tests, nor
//! by the scripts that run here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use vm_tests::lab::needs::is_declared;
use vm_tests::product::workspace;

/// The shell's own words.
const BUILT_IN: &[&str] = &[
    "set", "cd", "trap", "exec", "exit", "command", "printf", "echo", "[", "!", "read", "shift", ":", "true",
    "false",
];
/// What is built here.
const OURS: &[&str] = &["update", "patch-tools"];
/// What comes before a command.
const KEYWORDS: &[&str] =
    &["if", "then", "else", "elif", "while", "until", "do", "!", "exec", "command", "{"];
/// What is no command, or ends one.
const STRUCTURE: &[&str] = &["fi", "done", "for", "case", "esac", "}", "in"];

/// Every Rust file of the workspace, with its path from there.
fn sources() -> Result<Vec<(PathBuf, String)>> {
    let root = workspace()?;
    let (mut found, mut pending) = (Vec::new(), vec![root.clone()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.strip_prefix(&root)?.to_owned(), fs::read_to_string(&path)?));
            }
        }
    }
    ensure!(found.len() > 100, "only {} files of Rust were found", found.len());
    Ok(found)
}

/// The string literals that are the first argument of `call`.
fn literals<'a>(text: &'a str, call: &str) -> Vec<&'a str> {
    let calls = text.split(call).skip(1);
    calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next()).collect()
}

/// Names of the programs that a shell script calls: the first word of each command that is neither the shell's own,
/// nor a function, nor a path.
fn programs(script: &str) -> BTreeSet<String> {
    let mut functions = BTreeSet::new();
    let mut found = BTreeSet::new();
    let mut document: Option<String> = None;
    // A continued line is one line.
    for line in script.replace("\\\n", " ").lines() {
        if let Some(end) = &document {
            if line.trim() == end {
                document = None;
            }
            continue;
        }
        if let Some((_, rest)) = line.split_once("<<") {
            document =
                Some(rest.split_whitespace().next().unwrap_or_default().trim_matches(['-', '\'']).to_owned());
        }
        if let Some((name, _)) = line.split_once("()") {
            functions.insert(name.trim().to_owned());
        }
        found.extend(commands(line));
    }
    found.retain(|word| !functions.contains(word));
    found
}

fn commands(line: &str) -> Vec<String> {
    // What is quoted is no command, but for what is substituted into it.
    let mut bare = String::new();
    let mut quote = None;
    let mut before = ' ';
    for c in line.chars() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => break,
            (None, '\'' | '"') => {
                quote = Some(c);
                bare.push('_');
            }
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '(') if before == '$' => {
                quote = None;
                bare.push_str("$(");
            }
            (Some(_), _) => {}
            (None, c) => bare.push(c),
        }
        before = c;
    }
    // Sums are not commands.
    while let Some((open, close)) =
        bare.find("((").and_then(|open| Some((open, open + bare[open..].find("))")?)))
    {
        bare.replace_range(open..close + 2, "_");
    }
    let bare = bare
        .split_once("()")
        .map_or(bare.as_str(), |(_, body)| body)
        .replace("2>&1", " ")
        .replace(">&2", " ");
    let parts = bare.split(['|', '&', ';', '(', ')', '`']);
    let words = parts.filter_map(|part| {
        part.split_whitespace()
            .find(|word| !KEYWORDS.contains(word) && !is_assignment(word))
            .filter(|word| !STRUCTURE.contains(word) && !BUILT_IN.contains(word))
            .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()) && !word.contains('/'))
            .map(str::to_owned)
    });
    words.collect()
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.trim_end_matches('+').chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// The commands of a page.
fn typed(page: &str) -> String {
    let blocks = page.split("\n```sh").skip(1).filter_map(|rest| rest.split("```").next()?.split_once('\n'));
    blocks.map(|(_, commands)| commands).collect()
}

/// The text of a constant that is a raw string.
fn constant(file: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(workspace()?.join(file))?;
    let (_, rest) = text
        .split_once(&format!("const {name}: &str = r#\""))
        .with_context(|| format!("{name} in {file}"))?;
    Ok(rest.split("\"#").next().unwrap_or_default().to_owned())
}

#[test]
fn whatever_is_started_by_name_is_declared() -> Result<()> {
    for (path, text) in sources()?.into_iter().filter(|(path, _)| !path.ends_with("tests/tidy.rs")) {
        let mut calls = literals(&text, "Command::new(");
        if path.starts_with("vm-tests") {
            calls.extend(literals(&text, " program("));
            calls.extend(literals(&text, "(program("));
        }
        // One name stands for what is not declared, in a test.
        for name in calls.into_iter().filter(|name| !name.starts_with('/') && *name != "cowsay") {
            ensure!(
                is_declared(name),
                "{} starts `{name}`, which a fresh machine may not have: declare it in vm-tests/src/lab/needs.rs",
                path.display()
            );
        }
    }
    Ok(())
}

#[test]
fn the_lab_starts_programs_in_one_place() -> Result<()> {
    for (path, text) in sources()? {
        let is_ours = path.starts_with("vm-tests") && path != Path::new("vm-tests/src/lab/host.rs");
        let calls = text.split("Command::new(").skip(1);
        for call in calls.filter(|_| is_ours && !path.ends_with("tests/tidy.rs")) {
            // What was built here is started by its path.
            let argument = call.split(')').next().unwrap_or_default();
            ensure!(
                !argument.starts_with('"') || is_declared(argument.trim_matches('"')),
                "{} starts {argument} past `lab::host::program`",
                path.display()
            );
        }
    }
    Ok(())
}

#[test]
fn scripts_that_run_here_call_only_what_is_declared() -> Result<()> {
    let root = workspace()?;
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let scripts = [
        (".ci/run", read(".ci/run")?),
        ("vm-tests/guest/customize.sh", read("vm-tests/guest/customize.sh")?),
        ("vm-tests/guest/bare.sh", read("vm-tests/guest/bare.sh")?),
        ("the guest's root disk", constant("vm-tests/src/lab/image.rs", "SCRIPT")?),
        ("the server and its library", constant("vm-tests/src/fixtures/greet.rs", "BUILD")?),
    ];
    let pages = ["docs/key-ceremony.md", "docs/incidents.md"];
    let pages = pages.map(|page| Ok((page, typed(&read(page)?))));
    let scripts = scripts.into_iter().map(Ok).chain(pages).collect::<Result<Vec<_>>>()?;
    for (name, script) in &scripts {
        let called = programs(script);
        ensure!(called.len() >= 2, "{name}: only {called:?} were found");
        for program in called.iter().filter(|name| !OURS.contains(&name.as_str())) {
            ensure!(
                is_declared(program),
                "{name} calls `{program}`, which vm-tests/src/lab/needs.rs does not declare"
            );
        }
    }
    Ok(())
}

#[test]
fn commands_are_found_wherever_a_script_may_have_them() {
    let script = "set -e\nstep() { printf '%s' \"$*\"; }\nstep tidy # cowsay\nif ! jq . file | sort -u && [ -s x ]; then\n\
        \techo \"now: $(date -u)\" 'not rm'\nfi\nn=$((n + 1)) env make \\\n  all\ncat >x <<'EOF'\nperl is text\nEOF\ntar -x 2>&1\n";
    let found: Vec<String> = programs(script).into_iter().collect();
    assert_eq!(found, ["cat", "date", "env", "jq", "sort", "tar"]);
}
