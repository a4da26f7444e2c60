//! Speeds of what needs no machine, each beside a peer that is measured in the same run.
//!
//! ```text
//! cargo bench -p updater
//! ```
//!
//! - the whole process `update verify` of a 4 KiB manifest with three signatures, beside starting `/bin/true` (what any
//!   process costs here), and `minisign -V` and `openssl pkeyutl -verify` (one Ed25519 signature over the same bytes)
//! - hashing a payload while it is read, beside `sha256sum` and `openssl dgst -sha256`
//!
//! Runs of the peers alternate, so that a busy machine disturbs both. Times are of wall clocks; the
//! median and the fastest run are shown; the fastest is what the code costs and not what else the machine did.
//! What a refresh costs beside python-tuf is measured by `cargo bench -p update-transport`.

#![expect(clippy::disallowed_methods, reason = "real processes are timed")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manifests::{Envelope, SecretKey};
use updater::state::journal::Journal;

mod peers;

use peers::{Peer, measure, show};

/// Rounds of short processes.
const ROUNDS: usize = 300;
/// Rounds of hashing.
const HASH_ROUNDS: usize = 7;
/// Bytes of the hashed payload.
const PAYLOAD: usize = 256 << 20;
/// Bytes of the verified manifest.
const MANIFEST: usize = 4096;

fn main() -> Result<()> {
    // In memory where there is one, so that no disk is measured.
    let desk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    verify(desk.path())?;
    hash(desk.path())
}

/// A program that is run to its end.
fn command<'a>(name: &'static str, command: impl Fn() -> Command + 'a) -> Peer<'a> {
    Peer::new(name, move || {
        let status = command().stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "{name} ended with {status}");
        Ok(())
    })
}

fn verify(desk: &Path) -> Result<()> {
    let text = manifest();
    let [build, first, second] = [1, 2, 3].map(|seed| SecretKey::from_seed([seed; 32]));
    let mut envelope = Envelope::of_manifest(text.clone().into_bytes());
    for signer in [&build, &first, &second] {
        envelope.sign(signer)?;
    }
    fs::write(desk.join("m.json"), envelope.to_json())?;
    let key = |name: &str, key: &SecretKey| {
        format!("  - {{name: {name}, id: {}, public: {}}}\n", key.public().id(), key.public())
    };
    let policy = format!(
        "schema: 1\nkeys:\n{}{}{}roles:\n  - {{name: build, keys: [build], threshold: 1}}\n  \
         - {{name: security-review, keys: [first, second], threshold: 2}}\n",
        key("build", &build),
        key("first", &first),
        key("second", &second)
    );
    fs::write(desk.join("policy.yaml"), policy)?;
    // As anybody runs it, and as root does, who can read what the host has accepted before.
    let store = desk.join("store");
    fs::create_dir(&store)?;
    drop(Journal::open(&store)?);
    fs::write(desk.join("root.yaml"), format!("store: {}\n", store.display()))?;
    fs::write(desk.join("anybody.yaml"), format!("store: {}\n", desk.join("none").display()))?;
    let update = |config: &'static str| {
        move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_update"));
            command
                .args(["verify", "m.json", "--policy", "policy.yaml", "--config", config])
                .current_dir(desk);
            command
        }
    };
    for config in ["anybody.yaml", "root.yaml"] {
        let output = update(config)().output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fs::write(desk.join("m.yaml"), &text)?;
    let openssl = |arguments: &'static [&'static str]| {
        move || {
            let mut command = Command::new("openssl");
            command.args(arguments).current_dir(desk);
            command
        }
    };
    for arguments in [
        &["genpkey", "-algorithm", "ed25519", "-out", "key.pem"][..],
        &["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"],
        &["pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "m.yaml", "-out", "signature"],
    ] {
        let status = openssl(arguments)().stderr(Stdio::null()).status().context("openssl")?;
        ensure!(status.success(), "openssl {}", arguments.join(" "));
    }

    let minisign = |arguments: &'static [&'static str]| {
        move || {
            let mut command = Command::new("minisign");
            command.args(arguments).current_dir(desk);
            command
        }
    };
    for arguments in [
        &["-G", "-W", "-p", "minisign.pub", "-s", "minisign.key"][..],
        &["-S", "-s", "minisign.key", "-m", "m.yaml", "-x", "m.minisig"],
    ] {
        let status = minisign(arguments)().stdout(Stdio::null()).status().context("minisign")?;
        ensure!(status.success(), "minisign {}", arguments.join(" "));
    }

    let mut peers = [
        command("/bin/true", || Command::new("/bin/true")),
        command(
            "minisign -V, one signature",
            minisign(&["-V", "-q", "-p", "minisign.pub", "-m", "m.yaml", "-x", "m.minisig"]),
        ),
        command(
            "openssl pkeyutl -verify, one",
            openssl(&[
                "pkeyutl",
                "-verify",
                "-pubin",
                "-inkey",
                "public.pem",
                "-rawin",
                "-in",
                "m.yaml",
                "-sigfile",
                "signature",
            ]),
        ),
        command("update verify, as root", update("root.yaml")),
        command("update verify", update("anybody.yaml")),
    ];
    measure(&mut peers, ROUNDS)?;
    println!("whole process, {} bytes with three signatures for two roles, {ROUNDS} runs each", text.len());
    show(&peers);
    let [.., ours] = &peers;
    println!("  goal: at most 3 ms, {}", reached(ours.fastest() <= Duration::from_millis(3)));
    Ok(())
}

/// A manifest that names functions until it is as long as wanted.
fn manifest() -> String {
    let now = jiff_now();
    let mut functions = String::new();
    let with = |functions: &str| {
        format!(
            "schema: 1\nname: bench\nversion: 1\nissued: {}\nexpires: {}\nseverity: low\n\
             summary: A manifest of a known length\n\
             targets: {{arch: [x86_64], kernels: [6.1.0-50-amd64]}}\ncomponents:\n  - kind: livepatch\n    \
             module: bench\n    payload: {{file: bench.ko, sha256: {}, size: 1}}\n    \
             kernel: 6.1.0-50-amd64\n    patches:\n      - object: vmlinux\n        functions:\n{functions}",
            now.0,
            now.1,
            "0".repeat(64),
        )
    };
    for index in 0.. {
        let line = format!("          - {{name: function_{index:03}}}\n");
        if with(&functions).len() + line.len() > MANIFEST {
            break;
        }
        functions += &line;
    }
    with(&functions)
}

/// Yesterday and in a month, as manifests write them.
fn jiff_now() -> (String, String) {
    let now = jiff::Timestamp::now();
    let at = |hours: i64| {
        (now + jiff::SignedDuration::from_hours(hours)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    (at(-24), at(24 * 30))
}

fn hash(desk: &Path) -> Result<()> {
    let payload = desk.join("payload");
    let bytes: Vec<u8> = (0..PAYLOAD).map(|index| ((index * 31) >> 3) as u8).collect();
    fs::write(&payload, &bytes)?;
    drop(bytes);
    let tool = |program: &'static str, arguments: &'static [&'static str]| {
        let payload = &payload;
        move || {
            let mut command = Command::new(program);
            command.args(arguments).arg(payload);
            command
        }
    };
    let mut peers = [
        command("sha256sum", tool("sha256sum", &[])),
        command("openssl dgst -sha256", tool("openssl", &["dgst", "-sha256"])),
        Peer::new("update", || {
            let (_, size) = updater::state::payloads::hash_while(&mut File::open(&payload)?, |_| Ok(()))?;
            ensure!(size == PAYLOAD as u64);
            Ok(())
        }),
    ];
    measure(&mut peers, HASH_ROUNDS)?;
    println!("hashing a payload of {} MiB, {HASH_ROUNDS} runs each", PAYLOAD >> 20);
    let rate = |peer: &Peer<'_>| PAYLOAD as f64 / 1e6 / peer.fastest().as_secs_f64();
    for peer in &peers {
        println!("  {:<28} {:>6.0} MB/s", peer.name, rate(peer));
    }
    let [sum, openssl, ours] = &peers;
    println!(
        "  ours / sha256sum {:.2}, ours / openssl {:.2}; goal: as fast as openssl uses the processor, {}",
        rate(ours) / rate(sum),
        rate(ours) / rate(openssl),
        reached(rate(ours) >= 0.9 * rate(openssl)),
    );
    Ok(())
}

fn reached(goal: bool) -> &'static str {
    if goal { "reached" } else { "MISSED" }
}
