//! What a host's first look at a repository costs, beside python-tuf: metadata from a pinned root on, and one target.
//!
//! ```text
//! cargo bench -p update-transport
//! ```
//!
//! Both fetch from the same `python3` web server on loopback, in turn. Whole processes are compared, and what they do
//! once they are started. Needs what the tests of this package need.

#![expect(clippy::disallowed_methods, reason = "real processes are timed")]

#[path = "../tests/peer/mod.rs"]
mod peer;
#[path = "../../../updater/benches/peers/mod.rs"]
mod peers;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use peer::{WebServer, python};
use peers::{Peer, measure, show};
use repository::authoring::Repository;
use repository::client::Client;
use repository::store::Store;
use repository::transport::Patience;
use repository::transport::mirrors::{Mirror, Mirrors};
use support::Team;
use system::clock::{Clock as _, SystemClock};
use update_transport::{Http, Options};

/// Manifests in the repository.
const MANIFESTS: u64 = 100;
/// Runs of each.
const ROUNDS: usize = 20;
/// What is fetched.
const TARGET: &str = "fix-050/1/fix.ko";

/// Does it once for each line that it reads, in a directory of that name, and says so.
const PYTHON: &str = "
import os, sys
from tuf.ngclient import Updater
base, root = sys.argv[1:]
root = open(root, 'rb').read()
for line in sys.stdin:
    directory = line.strip()
    os.makedirs(directory)
    updater = Updater(directory, base + '/metadata/', directory, base + '/targets/', bootstrap=root)
    updater.refresh()
    updater.download_target(updater.get_targetinfo('fix-050/1/fix.ko'), directory + '/target')
    print('done', flush=True)
";

fn main() -> Result<()> {
    // `cargo test --benches` is no benchmark.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    // Clients have the clock of this machine.
    let team = Team { files: tempfile::tempdir()? };
    Repository::init(&team.path(), &support::founders(), SystemClock.now())?;
    for n in 0..MANIFESTS {
        let manifest = team.manifest(&format!("fix-{n:03}"), 1, format!("fix {n}").as_bytes());
        team.repository().add(&[manifest], None, SystemClock.now())?;
    }
    team.signed_and_published(SystemClock.now());
    let server = WebServer::new(&team.public());
    let desk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let root = desk.path().join("root.json");
    fs::write(&root, team.root())?;
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        desk.path().join(number.to_string())
    };

    let mut python = Command::new(python());
    python.args(["-c", PYTHON, &server.1]).arg(&root).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = python.spawn()?;
    let mut asks = running.stdin.take().context("no input")?;
    let mut says = BufReader::new(running.stdout.take().context("no output")?).lines();
    let http = Options { silence: Duration::from_secs(20), proxy: None, authorities: None };
    let http = Arc::new(Http::new(&http)?);
    let numbered = std::cell::RefCell::new(&mut fresh);
    let mut peers = [
        Peer::new("python-tuf, running", || {
            writeln!(asks, "{}", numbered.borrow_mut()().display())?;
            ensure!(says.next().context("it ended")?? == "done");
            Ok(())
        }),
        Peer::new("our client, running", || {
            let mirrors = Mirrors::new(
                vec![Mirror::parse(&server.1)?],
                http.clone(),
                Patience::default(),
                Arc::new(SystemClock),
            );
            let store = Store::new(&numbered.borrow_mut()());
            let mut client = Client::refresh(&team.root(), &mirrors, &store, SystemClock.now())?;
            let target = client.target(TARGET)?;
            ensure!(client.read(&target, 100)? == b"fix 50");
            Ok(())
        }),
    ];
    measure(&mut peers, ROUNDS)?;
    println!("refresh from a pinned root and one of {MANIFESTS} manifests' payloads, {ROUNDS} runs each");
    show(&peers);
    drop(peers);
    drop(asks);
    ensure!(running.wait()?.success(), "python-tuf failed");

    let mut peers = [
        Peer::new("python-tuf, whole process", || {
            let mut child = python.spawn()?;
            writeln!(child.stdin.take().context("no input")?, "{}", numbered.borrow_mut()().display())?;
            ensure!(child.wait()?.success());
            Ok(())
        }),
        Peer::new("tuf-client, whole process", || {
            let kept = numbered.borrow_mut()();
            fs::create_dir(&kept)?;
            fs::copy(&root, kept.join("root.json"))?;
            let mut client = Command::new(env!("CARGO_BIN_EXE_tuf-client"));
            client.args(["--metadata-url", &format!("{}/metadata", server.1), "--metadata-dir"]).arg(&kept);
            client.args(["--target-base-url", &format!("{}/targets", server.1), "--target-name", TARGET]);
            client.arg("--target-dir").arg(&kept).arg("download");
            ensure!(client.status()?.success());
            Ok(())
        }),
    ];
    measure(&mut peers, ROUNDS)?;
    show(&peers);
    Ok(())
}
