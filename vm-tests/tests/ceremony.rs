//! The pages that people follow word for word: every command that stands there is run, with the programs as built, at a
//! terminal, and prints what stands there.
//!
//! In a page, a block of `sh` is run; the words behind `sh` say with what it ends (`exit-3`), if not with 0. A block of
//! `text` behind it is what it prints: `…` stands for anything within a line, and alone for any number of lines.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use vm_tests::lab::host::program;
use vm_tests::product::{Build, Product, workspace};

/// What every person of the test types.
const PASSPHRASE: &str = "six words that nobody else knows\n";

/// How a program asks a person for a passphrase.
const QUESTIONS: [&str; 3] = ["Passphrase of ", "New passphrase of ", "Once more, that of "];

/// Stands before the output of each block; no program prints it.
const MARK: char = '\u{1e}';

/// Commands of a page.
struct Block {
    place: String,
    commands: String,
    exit: i32,
    prints: Option<String>,
}

/// The blocks of a page in `docs/`.
fn blocks(page: &str) -> Result<Vec<Block>> {
    let text = fs::read_to_string(workspace()?.join("docs").join(page))?;
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(words) = line.strip_prefix("```") else { continue };
        let content = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let content: String = content.flat_map(|line| [line, "\n"]).collect();
        let place = format!("docs/{page}:{}", number + 1);
        let mut words = words.split(' ');
        match words.next() {
            Some("sh") => {
                let exit = words.next().and_then(|word| word.strip_prefix("exit-")).unwrap_or("0");
                let exit = exit.parse().with_context(|| place.clone())?;
                blocks.push(Block { place, commands: content, exit, prints: None });
            }
            Some("text") => {
                let before = blocks.last_mut().filter(|block| block.prints.is_none());
                before.with_context(|| format!("{place}: of which commands?"))?.prints = Some(content);
            }
            _ => {}
        }
    }
    Ok(blocks)
}

/// One script of all blocks, since what is set in one is used in others.
fn script(blocks: &[Block]) -> String {
    let mut script = "stty -echo\nset -eu\n".to_owned();
    for (index, Block { commands, exit, .. }) in blocks.iter().enumerate() {
        let _ = match exit {
            0 => write!(script, "printf '{MARK}{index}\\n'\n{commands}"),
            exit => write!(
                script,
                "printf '{MARK}{index}\\n'\nset +e\n{commands}code=$?\nset -e\n\
                 [ $code = {exit} ] || {{ echo \"expected exit code {exit}, found $code\"; exit 1; }}\n"
            ),
        };
    }
    script
}

/// Runs a script at a terminal, and types a passphrase where one is asked for.
fn at_a_terminal(directory: &Path, script: &str, product: &Product) -> Result<(bool, String)> {
    let file = directory.join("commands");
    fs::write(&file, script)?;
    let programs = [&product.update, &product.patch_tools].map(|path| path.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = programs.into_iter().flatten().chain(std::env::split_paths(&path)).collect::<Vec<PathBuf>>();
    // Hosts are changed by root: of this machine, or of a namespace of its own.
    let as_root = if nix::unistd::geteuid().is_root() { "" } else { "unshare --map-root-user " };
    let home = directory.join("home");
    fs::create_dir(&home)?;
    let mut terminal = program("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!("{as_root}bash {}", file.display()))
        .arg("/dev/null")
        .env("PATH", std::env::join_paths(path)?)
        .env("LC_ALL", "C.UTF-8")
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut keyboard, screen) = (terminal.stdin.take(), terminal.stdout.take());
    let (mut said, mut chunk) = (Vec::new(), [0; 4096]);
    let mut screen = screen.context("no screen")?;
    let mut answered = 0;
    loop {
        let read = screen.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        said.extend_from_slice(&chunk[..read]);
        let begins = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = String::from_utf8_lossy(&said[begins..]);
        let asks = line.ends_with(": ") && QUESTIONS.iter().any(|question| line.starts_with(question));
        if asks && answered < said.len() {
            answered = said.len();
            keyboard.as_mut().context("no keyboard")?.write_all(PASSPHRASE.as_bytes())?;
        }
    }
    let text = String::from_utf8_lossy(&said).replace('\r', "");
    Ok((terminal.wait()?.success(), text))
}

/// Whether `found` is `expected`, in which `…` stands for anything.
fn is_as(expected: &str, found: &str) -> bool {
    let within = |expected: &str, found: &str| {
        let mut parts = expected.split('…');
        let Some(mut rest) = found.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let mut last = None;
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            last = Some(part);
            rest = &rest[at + part.len()..];
        }
        rest.is_empty() || last.is_some_and(|last| last.is_empty() || found.ends_with(last))
    };
    fn lines(expected: &[&str], found: &[&str], within: &dyn Fn(&str, &str) -> bool) -> bool {
        match expected {
            [] => found.is_empty(),
            ["…", rest @ ..] => (0..=found.len()).any(|skip| lines(rest, &found[skip..], within)),
            [first, rest @ ..] => {
                // What asks ends in a space, which editors take away.
                let is_it =
                    |line: &&str| [*line, line.trim_end()].iter().any(|line| within(first.trim_end(), line));
                found.first().is_some_and(is_it) && lines(rest, &found[1..], within)
            }
        }
    }
    let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    lines(&expected, &found, &within)
}

#[test]
fn the_key_ceremony_and_the_incidents_go_as_they_stand_on_their_pages() -> Result<()> {
    let product = Product::build(Build::Tests)?;
    let mut all = blocks("key-ceremony.md")?;
    all.extend(blocks("incidents.md")?);
    ensure!(all.len() > 40, "only {} blocks were found", all.len());
    let directory = tempfile::tempdir()?;
    let (done, said) = at_a_terminal(directory.path(), &script(&all), &product)?;
    let outputs: Vec<&str> = said.split(MARK).skip(1).collect();
    for (index, (block, output)) in all.iter().zip(&outputs).enumerate() {
        let output = output.split_once('\n').map_or("", |(_, output)| output);
        println!("-- {}\n{}{output}", block.place, block.commands);
        if !done && index + 1 == outputs.len() {
            bail!("{} failed:\n{}{output}", block.place, block.commands);
        }
        if let Some(prints) = &block.prints {
            ensure!(is_as(prints, output), "{}: expected\n{prints}found\n{output}", block.place);
        }
    }
    ensure!(outputs.len() == all.len(), "{} of {} blocks were run\n{said}", outputs.len(), all.len());
    Ok(())
}

#[test]
fn what_is_left_open_on_a_page_is_anything_and_the_rest_is_not() {
    assert!(is_as("a … c\n", "a b c\n"));
    assert!(is_as("…\nlast\n", "one\ntwo\nlast\n"));
    assert!(is_as("id …\n", "id \n"));
    for (expected, found) in [
        ("a … c\n", "a b d\n"),
        ("one\n", "one\ntwo\n"),
        ("one\ntwo\n", "one\n"),
        ("…\nlast\n", "last\nmore\n"),
        ("a\n", "ab\n"),
        ("", "something\n"),
    ] {
        assert!(!is_as(expected, found), "{expected:?} {found:?}");
    }
}
