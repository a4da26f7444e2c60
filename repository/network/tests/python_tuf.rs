//! The reference implementation, from PyPI, on what we write, through a real static web server; and our client on what
//! the reference implementation writes.
//!
//! Needs `python3` with `venv`, and PyPI once: the environment stays in the build directory.

mod peer;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use peer::environment::run;
use peer::{WebServer, python};
use support::{Host, ROOTS, TARGETS, Team, key, now};

/// Fetches a target as any TUF client would.
const FETCH: &str = "
import sys, datetime, os
from unittest import mock
from tuf.ngclient import Updater
import tuf.ngclient._internal.trusted_metadata_set as trusted
base, root, directory, target, now = sys.argv[1:]
os.makedirs(directory, exist_ok=True)
real = datetime.datetime
class At(real):
    @classmethod
    def now(cls, tz=None):
        return real.fromisoformat(now).astimezone(tz)
with mock.patch.object(trusted.datetime, 'datetime', At):
    updater = Updater(directory, base + '/metadata/', directory, base + '/targets/', bootstrap=open(root, 'rb').read())
    updater.refresh()
    info = updater.get_targetinfo(target)
    if info is None:
        sys.exit('no such target')
    path = updater.download_target(info, os.path.join(directory, 'target'))
print(open(path, 'rb').read().decode())
";

fn fetch(server: &WebServer, team: &Team, directory: &str, target: &str, now: &str) -> (bool, String) {
    let root = team.files.path().join("root.json");
    std::fs::write(&root, team.root()).unwrap();
    let directory = team.files.path().join(directory);
    run(
        &python(),
        &["-c", FETCH, &server.1, root.to_str().unwrap(), directory.to_str().unwrap(), target, now],
    )
}

#[test]
fn what_is_published_is_accepted_by_python_tuf_through_rotations_and_splits() {
    let team = Team::founded();
    let server = WebServer::new(&team.public());
    let today = "2026-11-10T12:00:00+00:00";
    for n in 0..120 {
        let path = team.manifest(&format!("cve-2026-{n:03}"), 1, format!("fix {n}").as_bytes());
        team.repository().add(&[path], None, now()).unwrap();
    }
    team.signed_and_published(now());
    assert!(team.names().len() > 8, "roles were split: {:?}", team.names());
    for n in [0, 59, 119] {
        let (accepted, words) = fetch(&server, &team, "python", &format!("cve-2026-{n:03}/1/fix.ko"), today);
        assert!(accepted && words.trim() == format!("fix {n}"), "{words}");
    }
    let (found, _) = fetch(&server, &team, "python", "cve-2026-120/1/fix.ko", today);
    assert!(!found, "what is not listed is not found");

    // Other people for the root and for what is in it, and a prefix for others.
    let rotation = |add: u8, remove: u8| repository::authoring::draft::Rotation {
        add: vec![key(add).public()],
        remove: vec![key(remove).public().id().to_string()],
        threshold: None,
    };
    team.repository().rotate("root", &rotation(4, ROOTS[2]), now()).unwrap();
    team.repository().rotate("targets", &rotation(13, TARGETS[1]), now()).unwrap();
    team.repository().sign(&key(4)).unwrap();
    // The root says who signs targets; targets has to be signed anew by them.
    team.repository().rotate("targets", &Default::default(), now()).unwrap();
    team.repository().sign(&key(13)).unwrap();
    let holders = repository::authoring::draft::Holders { keys: vec![key(61).public()], threshold: 1 };
    team.repository().delegate("kernel-", &holders, now()).unwrap();
    team.add("kernel-1", 1, b"a kernel");
    for seed in [13, 61] {
        team.repository().sign(&key(seed)).unwrap();
    }
    team.signed_and_published(now());
    for (target, bytes) in [("kernel-1/1/fix.ko", "a kernel"), ("cve-2026-059/1/fix.ko", "fix 59")] {
        for directory in ["python", "python-new"] {
            let (accepted, words) = fetch(&server, &team, directory, target, today);
            assert!(accepted && words.trim() == bytes, "{target}: {words}");
        }
    }
    // It refuses what we refuse.
    let (accepted, words) = fetch(&server, &team, "python", "kernel-1/1/fix.ko", "2026-11-17T12:00:00+00:00");
    assert!(!accepted && words.contains("expired"), "{words}");
}

#[test]
fn our_client_takes_everything_from_a_server_that_knows_no_ranges() {
    let team = Team::founded();
    team.add("greet", 1, b"one");
    team.signed_and_published(now());
    let server = WebServer::new(&team.public());
    let mut host = Host::new(&team);
    let options = update_transport::Options {
        silence: std::time::Duration::from_secs(20),
        proxy: None,
        authorities: None,
    };
    host.transport = Arc::new(update_transport::Http::new(&options).unwrap());
    let mut client = host.refresh(&[&server.1], now()).unwrap();
    let target = client.target("greet/1/fix.ko").unwrap();
    assert_eq!(client.read(&target, 10).unwrap(), b"one");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut client.open(&target, 1).unwrap(), &mut rest).unwrap();
    assert_eq!(rest, "ne");
}

/// A repository as python-tuf makes one, with ECDSA keys, and its clock.
const MAKE: &str = "
import sys, os, datetime, json
from tuf.api.metadata import *
from securesystemslib.signer import CryptoSigner
base, case = sys.argv[1:]
far = datetime.datetime(2050, 1, 1, tzinfo=datetime.timezone.utc)
past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
make = {'rsa': CryptoSigner.generate_rsa, 'ed25519': CryptoSigner.generate_ed25519}.get(case, CryptoSigner.generate_ecdsa)
signers = {role: make() for role in ['root', 'timestamp', 'snapshot', 'targets', 'one', 'two']}
root, ts, snap, tgt = Root(expires=far), Timestamp(expires=far), Snapshot(expires=far), Targets(expires=far)
root.consistent_snapshot = case != 'not-consistent'
for role in ['root', 'timestamp', 'snapshot', 'targets']:
    root.add_key(signers[role].public_key, role)
def put(name, data):
    os.makedirs(os.path.dirname(name), exist_ok=True)
    open(name, 'wb').write(data)
info = TargetFile.from_data('dir/file', b'content', ['sha256'] if case != 'sha512' else ['sha512'])
one, two = Targets(expires=past if case == 'expired-delegation' else far), Targets(expires=far)
# one delegates to two; targets to one.
tgt.delegations = Delegations({}, {'one': DelegatedRole('one', [], 1, case == 'terminating', ['dir/*']), 'two': DelegatedRole('two', [], 1, False, ['dir/*'])})
tgt.add_key(signers['one'].public_key, 'one'); tgt.add_key(signers['two'].public_key, 'two')
(two if case in ('second', 'terminating') else tgt if case == 'top' else one).targets['dir/file'] = info
if case == 'wrong-length': info.length += 1
if case == 'wrong-hash': info.hashes['sha256'] = '0' * 64
if case == 'outside': one.targets = {'elsewhere/file': info}
for role, body in [('targets', tgt), ('one', one), ('two', two)]:
    snap.meta[role + '.json'] = MetaFile(1)
if case == 'expired-timestamp': ts.expires = past
if case == 'expired-snapshot': snap.expires = past
if case == 'expired-targets': tgt.expires = past
if case == 'expired-root': root.expires = past
if case == 'threshold': root.roles['snapshot'].threshold = 2
if case == 'snapshot-version': ts.snapshot_meta.version = 2
for role, body in [('root', root), ('timestamp', ts), ('snapshot', snap), ('targets', tgt), ('one', one), ('two', two)]:
    md = Metadata(body)
    md.sign(signers['one' if case == 'wrong-key' and role == 'snapshot' else role])
    data = md.to_bytes()
    prefix = '' if role == 'timestamp' or (case == 'not-consistent' and role != 'root') else '1.'
    put(f'{base}/metadata/{prefix}{role}.json', data)
prefix = '' if case == 'not-consistent' else list(info.hashes.values())[0] + '.'
put(f'{base}/targets/dir/{prefix}file', b'content')
";

#[test]
fn our_client_takes_and_refuses_what_python_tuf_writes_as_the_specification_says() {
    let cases = [
        ("ecdsa", true),
        ("rsa", true),
        ("ed25519", true),
        ("sha512", true),
        ("not-consistent", true),
        ("top", true),
        ("second", true),
        ("terminating", false),
        ("outside", false),
        ("wrong-length", false),
        ("wrong-hash", false),
        ("wrong-key", false),
        ("threshold", false),
        ("snapshot-version", false),
        ("expired-root", false),
        ("expired-timestamp", false),
        ("expired-snapshot", false),
        ("expired-targets", false),
        ("expired-delegation", false),
    ];
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    for (case, _) in cases {
        let base = directory.path().join(case);
        let (made, words) = run(&python, &["-c", MAKE, base.to_str().unwrap(), case]);
        assert!(made, "{case}: {words}");
    }
    let server = WebServer::new(directory.path());
    let client = Path::new(env!("CARGO_BIN_EXE_tuf-client"));
    for (case, good) in cases {
        let kept = directory.path().join(format!("{case}-client"));
        let kept = kept.to_str().unwrap();
        let downloads = format!("{kept}-targets");
        std::fs::create_dir_all(&downloads).unwrap();
        let root = directory.path().join(case).join("metadata/1.root.json");
        let (metadata, targets) =
            (format!("{}/{case}/metadata", server.1), format!("{}/{case}/targets", server.1));
        assert!(run(client, &["--metadata-dir", kept, "init", root.to_str().unwrap()]).0);
        let common = ["--metadata-url", &metadata, "--metadata-dir", kept];
        let wanted = ["--target-name", "dir/file", "--target-dir", &downloads, "--target-base-url", &targets];
        for _ in 0..2 {
            let (taken, words) = run(client, &[&common[..], &wanted, &["download"]].concat());
            assert_eq!(taken, good, "{case}: {words}");
        }
        let files: Vec<_> = std::fs::read_dir(&downloads).unwrap().flatten().collect();
        assert_eq!(files.len(), usize::from(good), "{case}");
        if good {
            assert_eq!(std::fs::read(files[0].path()).unwrap(), b"content");
            assert!(run(client, &[&common[..], &["refresh"]].concat()).0);
        }
        // As the suite looks at it: names without versions, and the very bytes.
        for entry in std::fs::read_dir(kept).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            let name = entry.file_name().into_string().unwrap();
            let known =
                ["root.json", "timestamp.json", "snapshot.json", "targets.json", "one.json", "two.json"];
            assert!(known.contains(&name.as_str()), "{case}: {name}");
            let served = directory.path().join(case).join("metadata");
            let bytes = std::fs::read(entry.path()).unwrap();
            let same = ["", "1."].iter().any(|prefix| {
                std::fs::read(served.join(format!("{prefix}{name}"))).is_ok_and(|served| served == bytes)
            });
            assert!(same, "{case}: {name}");
        }
    }
}

/// Moves the clock of a program by as many seconds as `MOVED` says.
const CLOCK: &str = "
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *to) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, \"clock_gettime\");
    int result = real(id, to);
    if (id == CLOCK_REALTIME) to->tv_sec += atoll(getenv(\"MOVED\"));
    return result;
}
";

#[test]
#[expect(clippy::disallowed_methods, reason = "a test runs a peer")]
fn the_client_sees_a_clock_that_a_library_moves_as_the_suite_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("clock.c"), CLOCK).unwrap();
    let (built, words) =
        run(Path::new("gcc"), &["-shared", "-fPIC", "-o", &path("clock.so"), &path("clock.c"), "-ldl"]);
    assert!(built, "gcc is needed: {words}");
    let (made, words) = run(&python(), &["-c", MAKE, &path("repo"), "ecdsa"]);
    assert!(made, "{words}");
    let server = WebServer::new(directory.path());
    let client = env!("CARGO_BIN_EXE_tuf-client");
    let (kept, metadata) = (path("kept"), format!("{}/repo/metadata", server.1));
    assert!(run(Path::new(client), &["--metadata-dir", &kept, "init", &path("repo/metadata/1.root.json")]).0);
    let refresh = |seconds: i64| {
        let output = Command::new(client)
            .args(["--metadata-url", &metadata, "--metadata-dir", &kept, "refresh"])
            .env("LD_PRELOAD", path("clock.so"))
            .env("MOVED", seconds.to_string())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // What is made there ends in 2050.
    let century = 100 * 365 * 86_400;
    let (code, words) = refresh(century);
    assert!(code == Some(1) && words.contains("expired"), "{code:?} {words}");
    assert_eq!(refresh(0).0, Some(0));
    assert_eq!(refresh(-86_400).0, Some(0));
    assert_eq!(refresh(century).0, Some(1), "what is kept does not make it young");
}
