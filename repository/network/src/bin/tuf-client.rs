//! `tuf-client`: a client of any TUF repository, as the conformance suite of the TUF project drives one.
//!
//! ```text
//! tuf-client --metadata-dir D init ROOT
//! tuf-client --metadata-url U --metadata-dir D refresh
//! tuf-client --metadata-url U --metadata-dir D --target-name N --target-dir T --target-base-url B download
//! ```
//!
//! Exit code 0 on full success, 1 on any failure. It is the client that hosts have, but for the process of its own that
//! speaks HTTP. Link it dynamically: the suite moves its clock by a library that is loaded before it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use repository::client::Client;
use repository::store::Store;
use repository::transport::Patience;
use repository::transport::mirrors::{Mirror, Mirrors};
use system::clock::{Clock as _, SystemClock};
use system::durable;
use update_transport::{Http, Options};

/// The largest target, in bytes.
const LARGEST: usize = 1 << 30;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tuf-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    values: BTreeMap<String, String>,
    targets: Vec<String>,
    words: Vec<String>,
}

impl Arguments {
    fn read() -> anyhow::Result<Self> {
        let (mut values, mut targets, mut words) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                None => words.push(argument),
                Some(name) => {
                    let value = arguments.next().with_context(|| format!("{argument} wants a value"))?;
                    match name {
                        "target-name" => targets.push(value),
                        _ => drop(values.insert(name.to_owned(), value)),
                    }
                }
            }
        }
        Ok(Self { values, targets, words })
    }

    fn value(&self, name: &str) -> anyhow::Result<&str> {
        self.values.get(name).map(String::as_str).with_context(|| format!("expected --{name}"))
    }
}

fn run() -> anyhow::Result<()> {
    let arguments = Arguments::read()?;
    let directory = PathBuf::from(arguments.value("metadata-dir")?);
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    match words[..] {
        ["init", root] => {
            durable::make_directory(&directory)?;
            Ok(durable::replace(&directory.join("root.json"), &fs::read(root)?)?)
        }
        ["refresh"] => client(&arguments, &directory).map(drop),
        ["download"] => download(&arguments, &directory),
        _ => bail!("expected init ROOT, refresh or download"),
    }
}

fn client(arguments: &Arguments, directory: &Path) -> anyhow::Result<Client> {
    let metadata = arguments.value("metadata-url")?.parse()?;
    let targets = arguments
        .values
        .get("target-base-url")
        .map_or_else(|| arguments.value("metadata-url"), |url| Ok(url))?;
    let place = Mirror::apart(metadata, targets.parse()?);
    let http = Http::new(&Options { silence: Duration::from_secs(20), proxy: None, authorities: None })?;
    let mirrors = Mirrors::new(vec![place], Arc::new(http), Patience::default(), Arc::new(SystemClock));
    let root = fs::read(directory.join("root.json"))?;
    Ok(Client::refresh(&root, &mirrors, &Store::new(directory), SystemClock.now())?)
}

fn download(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    if arguments.targets.is_empty() {
        bail!("expected --target-name");
    }
    let to = PathBuf::from(arguments.value("target-dir")?);
    let mut client = client(arguments, directory)?;
    for name in &arguments.targets {
        let target = client.target(name)?;
        let path = to.join(file_name(name));
        if fs::read(&path).is_ok_and(|known| target.check(&known).is_ok()) {
            continue;
        }
        let bytes = client.read(&target, LARGEST)?;
        durable::replace(&path, &bytes)?;
    }
    Ok(())
}

/// One name for each target, inside of the directory whatever the target is called.
fn file_name(target: &str) -> String {
    let escape = |c: char| match c {
        'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' | '.' => c.to_string(),
        _ => c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
    };
    let name: String = target.chars().map(escape).collect();
    match name.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => name,
    }
}
