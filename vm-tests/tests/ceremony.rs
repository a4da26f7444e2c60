//! The pages that people follow word for word: every command that stands there is run, with the programs as built, at a
//! terminal, and prints what stands there.
//!
//! In a page, a block of `sh` is run; the words behind `sh` say with what it ends (`exit-3`), if not with 0, or that it stays in a
//! terminal of its own (`serves`). A block of `text` behind it is what it prints: `…` stands for anything within a line, and alone for any number of lines.

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
    /// It does not end: the others are run beside it, once it has said the last line that the page has.
    serves: bool,
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
                let word = words.next().unwrap_or_default();
                let exit =
                    word.strip_prefix("exit-").unwrap_or("0").parse().with_context(|| place.clone())?;
                blocks.push(Block { place, commands: content, exit, serves: word == "serves", prints: None });
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
    for (index, Block { commands, exit, serves, prints, .. }) in blocks.iter().enumerate() {
        let last = prints.as_deref().unwrap_or_default().lines().last().unwrap_or_default();
        let last = last.split('…').next().unwrap_or_default();
        let _ = match exit {
            _ if *serves => write!(
                script,
                "printf '{MARK}{index}\\n'\n\
                 script --quiet --return --flush --command {command} /dev/null >terminal-{index} </dev/null &\n\
                 until grep -q -F -s -e {last} terminal-{index}; do sleep 0.1; kill -0 $!; done\ncat terminal-{index}\n",
                command = quoted(commands.trim_end()),
                last = quoted(last),
            ),
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

/// A word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Runs a script at a terminal, and types a passphrase where one is asked for.
fn at_a_terminal(directory: &Path, script: &str, product: &Product, apart: &str) -> Result<(bool, String)> {
    let file = directory.join("commands");
    fs::write(&file, script)?;
    let programs = [&product.update, &product.patch_tools].map(|path| path.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = programs.into_iter().flatten().chain(std::env::split_paths(&path)).collect::<Vec<PathBuf>>();
    // Hosts are changed by root: of this machine, or of a namespace of its own.
    let as_root = match (nix::unistd::geteuid().is_root(), apart) {
        (true, "") => String::new(),
        (true, apart) => format!("unshare {apart} "),
        (false, apart) => format!("unshare --map-root-user {apart} "),
    };
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

/// Runs the blocks of pages behind a script of the test's own, in namespaces of their own, and holds what they print against the pages.
fn follow(all: &[Block], before: &str, apart: &str) -> Result<()> {
    let product = Product::build(Build::Tests)?;
    let directory = tempfile::tempdir()?;
    let script = format!("{before}{}", script(all));
    let (done, said) = at_a_terminal(directory.path(), &script, &product, apart)?;
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
fn the_key_ceremony_and_the_incidents_go_as_they_stand_on_their_pages() -> Result<()> {
    let mut all = blocks("key-ceremony.md")?;
    all.extend(blocks("incidents.md")?);
    ensure!(all.len() > 40, "only {} blocks were found", all.len());
    follow(&all, "", "")
}

/// Two hosts beside this machine: each sees directories of its own in place of those of `update`, and has its own name. What `ssh`,
/// `scp` and `systemctl` do there is what the page has them do: run a command, copy a file, start what the units start.
const HOSTS: &str = r#"set -eu
busybox ip link set lo up
printf '127.0.0.1 localhost fleet.example.org\n' >"$HOSTS/names"
mount --bind "$HOSTS/names" /etc/hosts
cat >"$HOSTS/systemctl" <<'END'
#!/bin/sh
case "$*" in
    "enable --now update-executor.socket update-agent.service") ;;
    *) echo "this host has no unit for: $*" >&2; exit 1 ;;
esac
exec /bin/sh -c "exec $(sed -n 's|^ExecStart=/usr/bin/||p' "$UNITS/update-agent.service")" </dev/null >"$HOSTS/agent" 2>&1 &
END
cat >"$HOSTS/host" <<'END'
set -eu
echo "$1" >/proc/sys/kernel/hostname
mount -t tmpfs none /usr/local/sbin
cp "$RUNC" /usr/local/sbin/runc
cp "$HOSTS/systemctl" /usr/local/sbin/systemctl
chmod 755 /usr/local/sbin/*
mount -t tmpfs none /run
mkdir -p /run/update
for directory in /var/lib /etc; do
    mkdir -p "$HOSTS/$1$directory"
done
cp /etc/hosts /etc/passwd /etc/group /etc/ld.so.cache "$HOSTS/$1/etc/"
cp -r /etc/ssl "$HOSTS/$1/etc/"
mkdir -p "$HOSTS/$1/etc/update" "$HOSTS/$1/var/lib/update" "$HOSTS/$1/var/lib/update-agent"
mount --bind "$HOSTS/$1/etc" /etc
mount --bind "$HOSTS/$1/var/lib" /var/lib
echo $$ >"$HOSTS/$1/pid"
# As the socket's unit has it started.
exec update executor >"$HOSTS/$1/executor" 2>&1
END
for host in web-1 web-2; do
    mkdir "$HOSTS/$host"
    unshare --mount --uts --propagation private sh "$HOSTS/host" $host &
done
ssh() {
    there=$HOSTS/${1#root@}
    nsenter --target "$(cat "$there/pid")" --mount --uts env PATH="/usr/local/sbin:$PATH" sh -c "$2"
}
scp() {
    ssh "${3%%:*}" "cat >${3#*:}" <"$2"
}
for host in web-1 web-2; do
    until [ -e "$HOSTS/$host/pid" ] && ssh root@$host 'test -S /run/update/executor.sock'; do
        kill -0 $! || { cat "$HOSTS"/*/executor; exit 1; }
        sleep 0.1
    done
done
"#;

#[test]
fn a_controller_two_hosts_and_a_rollout_go_as_they_stand_on_their_page() -> Result<()> {
    let all = blocks("fleet.md")?;
    ensure!(all.len() > 5, "only {} blocks were found", all.len());
    let hosts = tempfile::tempdir()?;
    let runc = vm_tests::lab::host::find_program("runc").context("runc is needed")?.canonicalize()?;
    let units = workspace()?.join("dist/update-agent/usr/lib/systemd/system");
    let places = [("HOSTS", hosts.path()), ("RUNC", &runc), ("UNITS", &units)];
    let places =
        places.map(|(name, path)| format!("export {name}={}\n", quoted(&path.display().to_string())));
    let apart = "--mount --net --uts --pid --fork --kill-child --mount-proc --propagation private";
    follow(&all, &format!("{}{HOSTS}", places.concat()), apart)
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
