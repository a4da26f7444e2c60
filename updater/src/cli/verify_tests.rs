//! Whole transcripts of `update verify`: what goes to standard output, to standard error, and the
//! exit code, with the clock and what the host remembers passed in.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use clap::Parser as _;
use manifests::verify::AcceptedVersion;
use manifests::{Envelope, SecretKey};

use super::*;

const TRUTH: &str = include_str!("../../../manifests/tests/truth.yaml");
const DURING: &str = "2026-11-10T12:00:00Z";
const MODULE: &[u8] = b"a module";

/// A key by the first letter of its owner's name.
fn key(name: &str) -> SecretKey {
    SecretKey::from_seed([name.as_bytes()[0]; 32])
}

const FIX: &[u8] = b"a fix to files";

/// The manifest that all transcripts are about, with payloads of ours.
fn manifest() -> String {
    manifest_with(MODULE)
}

/// The same with another module.
fn manifest_with(module: &[u8]) -> String {
    let digests = [
        ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "size: 100", module),
        ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size: 200", FIX),
    ];
    digests.into_iter().fold(TRUTH.to_owned(), |text, (digest, size, bytes)| {
        let text = text.replace(digest, &Sha256::of(bytes).to_string());
        text.replace(size, &format!("size: {}", bytes.len()))
    })
}

/// A directory with `policy.yaml` and `m.json`, from which transcripts are taken.
struct Desk {
    directory: tempfile::TempDir,
    floor: FloorSeen,
    now: &'static str,
}

impl Desk {
    /// Build by forge or carol, security review by two of alice, bob and carol; `m.json` is signed by `by`.
    fn signed(by: &[&str]) -> Self {
        let desk = Self {
            directory: tempfile::tempdir().unwrap(),
            floor: FloorSeen::Floor(TrustFloor::default()),
            now: DURING,
        };
        desk.policy(|_| "");
        desk.sign(&manifest(), by);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn policy(&self, extra: impl Fn(&str) -> &'static str) {
        let mut text = "schema: 1\nkeys:\n".to_owned();
        for name in ["forge", "alice", "bob", "carol"] {
            let public = key(name).public();
            let _ =
                writeln!(text, "  - {{name: {name}, id: {}, public: {public}{}}}", public.id(), extra(name));
        }
        text += "roles:\n  - {name: build, keys: [forge, carol], threshold: 1}\n";
        text += "  - {name: security-review, keys: [alice, bob, carol], threshold: 2}\n";
        self.write("policy.yaml", text);
        fs::set_permissions(self.path("policy.yaml"), fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn sign(&self, text: &str, by: &[&str]) {
        let mut envelope = Envelope::of_manifest(text.into());
        for name in by {
            envelope.sign(&key(name)).unwrap();
        }
        self.write("m.json", envelope.to_json());
    }

    /// What a user would see of `update verify ARGUMENTS`, with the directory's name taken out.
    fn transcript(&self, arguments: &str) -> String {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
            #[arg(long)]
            json: bool,
        }
        let directory = self.directory.path().to_str().unwrap();
        let words = arguments.replace("DIR", directory);
        let line = Line::parse_from(std::iter::once("verify").chain(words.split(' ')));
        let now = self.now.parse().unwrap();

        let (mut text, mut exit) = (String::new(), Exit::Done);
        let policy = line.args.policy.clone().unwrap();
        let outcome = examine(
            &Subject { args: &line.args, store: None, carried: None },
            &policy,
            self.floor.clone(),
            now,
        )
        .and_then(|(report, outcome)| {
            text += &match line.json {
                true => serde_json::to_string_pretty(&report).unwrap() + "\n",
                false => verify_text::render(&report).to_string(),
            };
            outcome
        });
        if let Err(failure) = outcome {
            exit = failure.exit();
            text += &if line.json { failure.for_program() } else { failure.for_person() };
        }
        let text = format!("$ update verify {arguments}\n{text}[exit {}]\n", exit.code());
        text.replace(directory, "DIR")
    }

    fn verify(&self) -> String {
        self.transcript("DIR/m.json --policy DIR/policy.yaml")
    }
}

#[test]
fn an_authentic_manifest_is_told_whole() {
    let desk = Desk::signed(&["forge", "alice", "bob", "mallory", "carol"]);
    desk.write("greet.tar.zst", FIX);
    insta::assert_snapshot!(desk.verify());
}

#[test]
fn a_program_is_told_the_same() {
    let desk = Desk::signed(&["forge", "alice", "bob"]);
    desk.write("greet.tar.zst", FIX);
    insta::assert_snapshot!(desk.transcript("DIR/m.json --policy DIR/policy.yaml --json"));
}

#[test]
fn a_host_whose_memory_cannot_be_read_is_told_so() {
    let mut desk = Desk::signed(&["forge", "alice", "bob"]);
    desk.floor = FloorSeen::Unreadable;
    let transcript = desk.verify();
    assert!(transcript.contains("not compared with what this host accepted before"), "{transcript}");
    assert!(transcript.ends_with("authentic; not all payloads are here\n[exit 0]\n"), "{transcript}");
}

/// Every way in which signatures, time or history refuse a manifest.
#[test]
fn each_untrusted_manifest_is_refused_in_its_own_words() {
    let all = &["forge", "alice", "bob"];
    let mut transcripts = String::new();
    let mut tell = |title: &str, desk: Desk| {
        let transcript = desk.verify();
        assert!(transcript.ends_with("[exit 4]\n"), "{title}: {transcript}");
        let _ = writeln!(transcripts, "# {title}\n{transcript}");
    };
    let remembers = |version, manifest| {
        let versions = [("greet".parse().unwrap(), AcceptedVersion { version, manifest })].into();
        FloorSeen::Floor(TrustFloor { versions, ..TrustFloor::default() })
    };

    tell("unsigned", Desk::signed(&[]));
    tell("keys of nobody", Desk::signed(&["mallory", "zoe"]));
    tell("too few for a role", Desk::signed(&["forge", "alice"]));
    tell("one key for two roles", Desk::signed(&["carol", "alice"]));

    let desk = Desk::signed(&["mallory", "alice", "bob"]);
    let json = fs::read_to_string(desk.path("m.json")).unwrap();
    let [mallory, forge] = ["mallory", "forge"].map(|name| key(name).public().id().to_string());
    desk.write("m.json", json.replace(&mallory, &forge));
    tell("another key under a known name", desk);

    let desk = Desk::signed(all);
    desk.policy(|name| if name == "bob" { ", revoked: 2026-11-05T00:00:00Z" } else { "" });
    tell("revoked key", desk);
    let desk = Desk::signed(all);
    desk.policy(|name| if name == "bob" { ", not_after: 2026-11-05T00:00:00Z" } else { "" });
    tell("key past its time", desk);

    let desk = Desk::signed(all);
    let json = fs::read_to_string(desk.path("m.json")).unwrap();
    desk.write("m.json", json.replace("manifest.v1+yaml", "statement.v1+json"));
    tell("another payload type", desk);

    let desk = Desk::signed(all);
    desk.sign(&manifest().replace("severity: high", "severity: \"\\e[31mhigh\""), all);
    tell("signed, and not a manifest", desk);

    tell("expired", Desk { now: "2026-12-01T00:00:00Z", ..Desk::signed(all) });
    tell("from the future", Desk { now: "2026-10-31T23:00:00Z", ..Desk::signed(all) });
    let floor = FloorSeen::Floor(TrustFloor {
        clock: Some("2026-11-20T00:00:00Z".parse().unwrap()),
        ..TrustFloor::default()
    });
    tell("clock gone back", Desk { floor, ..Desk::signed(all) });
    tell(
        "older than accepted before",
        Desk { floor: remembers(4, Sha256::of(b"four")), ..Desk::signed(all) },
    );
    tell(
        "another document of one version",
        Desk { floor: remembers(3, Sha256::of(b"three")), ..Desk::signed(all) },
    );

    let desk = Desk::signed(all);
    desk.write("livepatch-greet.ko", b"A module");
    tell("payload changed", desk);
    let desk = Desk::signed(all);
    desk.write("livepatch-greet.ko", b"a modul");
    tell("payload short", desk);

    insta::assert_snapshot!(transcripts);
}

/// Files that cannot be looked at for what they should be.
#[test]
fn each_unusable_file_is_refused_in_its_own_words() {
    let all = &["forge", "alice", "bob"];
    let mut transcripts = String::new();
    let mut tell = |title: &str, exit: u8, transcript: String| {
        assert!(transcript.ends_with(&format!("[exit {exit}]\n")), "{title}: {transcript}");
        let _ = writeln!(transcripts, "# {title}\n{transcript}");
    };

    let desk = Desk::signed(all);
    desk.write("m.json", manifest());
    tell("a bare manifest", 4, desk.verify());

    let desk = Desk::signed(all);
    let json = fs::read_to_string(desk.path("m.json")).unwrap();
    desk.write("m.json", &json[..500]);
    tell("a truncated envelope", 4, desk.verify());
    desk.write("m.json", json.clone() + "{}");
    tell("trailing garbage", 4, desk.verify());
    desk.write("m.json", json.replacen('{', "{\"\\u001b[31m\": 1,", 1));
    tell("an unknown field that talks to the terminal", 4, desk.verify());
    fs::File::create(desk.path("m.json")).unwrap().set_len(100 << 20).unwrap();
    tell("100 MB", 4, desk.verify());
    tell("no manifest", 3, desk.transcript("DIR/none.json --policy DIR/policy.yaml"));
    tell("no policy", 3, desk.transcript("DIR/m.json --policy DIR/none.yaml"));

    let desk = Desk::signed(all);
    desk.write("greet.tar.zst", FIX);
    tell(
        "payload asked for and missing",
        3,
        desk.transcript("DIR/m.json --policy DIR/policy.yaml --payloads DIR"),
    );

    let desk = Desk::signed(all);
    desk.policy(|name| if name == "bob" { ", role: build" } else { "" });
    tell("a policy with an unknown field", 3, desk.verify());
    let desk = Desk::signed(all);
    fs::set_permissions(desk.path("policy.yaml"), fs::Permissions::from_mode(0o666)).unwrap();
    let owner = format!("owner {},", nix::unistd::geteuid());
    tell("a policy that others can write", 3, desk.verify().replace(&owner, "owner ME,"));

    insta::assert_snapshot!(transcripts);
}

/// A desk with a manifest of a real module, for these functions.
fn with_module(functions: &str) -> (Desk, Vec<u8>) {
    let module = crate::operations::tests::bench::module("one-function");
    let text = manifest_with(&module).replace("module: livepatch_greet", "module: one_function");
    let desk = Desk::signed(&[]);
    desk.sign(&text.replace("{name: cmdline_proc_show}", functions), &["forge", "alice", "bob"]);
    desk.write("livepatch-greet.ko", &module);
    (desk, module)
}

#[test]
fn what_a_module_really_patches_is_held_against_what_the_manifest_says() {
    let (desk, _) = with_module("{name: cmdline_proc_show}");
    let transcript = desk.verify();
    assert!(
        transcript.contains("in it     just that, by the module's own tables; build id "),
        "{transcript}"
    );
    assert!(transcript.contains("\n               vmlinux: cmdline_proc_show\n"), "{transcript}");
    assert!(transcript.ends_with("authentic; not all payloads are here\n[exit 0]\n"), "{transcript}");

    for (functions, words) in [
        ("{name: another_function}", "vmlinux:another_function,0: expected patched, as the manifest says"),
        ("{name: cmdline_proc_show}, {name: another_function}", "found not patched by the module"),
        ("{name: another_function}", "vmlinux:cmdline_proc_show,0: expected not patched"),
    ] {
        let (desk, _) = with_module(functions);
        let transcript = desk.verify();
        assert!(transcript.contains("in it     NOT THAT"), "{transcript}");
        assert!(transcript.contains("DIFFERS") && transcript.contains(words), "{words}: {transcript}");
        assert!(transcript.contains("authentic, and NOT what the manifest says"), "{transcript}");
        assert!(transcript.contains("does not do what the manifest says"), "{transcript}");
        assert!(
            transcript.ends_with("[exit 3]\n"),
            "the signatures hold, and no host takes it: {transcript}"
        );
    }

    let desk = Desk::signed(&["forge", "alice", "bob"]);
    desk.write("livepatch-greet.ko", MODULE);
    let transcript = desk.verify();
    assert!(transcript.contains("NO MODULE that can be read"), "{transcript}");
    assert!(transcript.ends_with("[exit 3]\n"), "{transcript}");
}

#[test]
fn an_image_is_looked_through_blob_by_blob_and_has_to_be_the_one_that_is_meant() {
    let (archive, image) = crate::operations::tests::images::image("amd64");
    let transcript = |meant: &str| {
        let desk = Desk::signed(&["forge", "alice", "bob"]);
        let head = TRUTH.split_once("components:").unwrap().0;
        let text = format!(
            "{head}components:\n  - kind: image\n    payload: {{file: greet.oci.tar, sha256: {}, size: {}}}\n    \
             image: \"{meant}\"\n    instead_of: [\"sha256:{}\"]\n",
            Sha256::of(&archive),
            archive.len(),
            Sha256::of(b"old")
        );
        desk.sign(&text, &["forge", "alice", "bob"]);
        desk.write("greet.oci.tar", &archive);
        desk.verify()
    };
    let told = transcript(&image.to_string());
    assert!(told.contains("make any container anew that was made from one of these images"), "{told}");
    assert!(told.contains("in it     that image, for linux/amd64, manifest sha256:"), "{told}");
    assert!(told.ends_with("authentic\n[exit 0]\n"), "{told}");
    let told = transcript(&format!("sha256:{}", Sha256::of(b"another")));
    assert!(
        told.contains("in it     NOT that image: the archive has no image with the configuration"),
        "{told}"
    );
    assert!(
        told.contains("payload greet.oci.tar is not that image") && told.ends_with("[exit 3]\n"),
        "{told}"
    );
}

#[test]
fn where_a_module_is_said_to_come_from_is_told_with_who_signed_that() {
    use manifests::DocumentKind;
    use manifests::provenance::{Patch, REBUILD, Rebuild};
    use manifests::statement::{Statement, Subject};

    let (desk, module) = with_module("{name: cmdline_proc_show}");
    let transcript = desk.verify();
    assert!(transcript.contains("from what livepatch-greet.ko was built: no provenance"), "{transcript}");
    assert!(transcript.contains("nobody's word of a rebuild"), "{transcript}");

    let of = |module: &[u8]| Subject::of("livepatch-greet.ko", Sha256::of(module));
    let said = serde_json::json!({
        "buildDefinition": { "buildType": "urn:x", "resolvedDependencies": [{ "uri": "fix.patch" }] },
        "runDetails": { "builder": { "id": "urn:update:patch-tools" } },
    });
    let provenance = |module: &[u8]| {
        Statement::new(vec![of(module)], "https://slsa.dev/provenance/v1", said.clone()).to_json()
    };
    desk.write("livepatch-greet.intoto.json", provenance(&module));
    let transcript = desk.verify();
    assert!(
        transcript.contains(
            "built     by urn:update:patch-tools from 1 inputs (livepatch-greet.intoto.json, not signed)"
        ),
        "{transcript}"
    );
    assert!(transcript.contains("that the provenance of livepatch-greet.ko is true: no key"), "{transcript}");

    desk.write("livepatch-greet.intoto.json", provenance(b"another module"));
    assert!(desk.verify().contains("says nothing of it: it is of something else"), "{}", desk.verify());

    let rebuild = Rebuild {
        kernel: "6.1.0-50-amd64".parse().unwrap(),
        identical: true,
        rebuilt: Sha256::of(&module),
        patches: vec![Patch { file: "fix.patch".to_owned(), sha256: Sha256::of(b"fix") }],
        by: "patch-tools".to_owned(),
    };
    let statement = Statement::new(vec![of(&module)], REBUILD, rebuild).to_json();
    let sign = |by: &str| {
        let mut envelope = Envelope::new(DocumentKind::Evidence, statement.clone());
        envelope.sign(&key(by)).unwrap();
        desk.write("livepatch-greet.rebuild.evidence.json", envelope.to_json());
        desk.verify()
    };
    let transcript = sign("carol");
    assert!(
        transcript.contains(
            "rebuilt   gives the same bytes, from fix.patch for 6.1.0-50-amd64 (livepatch-greet.rebuild.evidence.json, signed by carol)"
        ),
        "{transcript}"
    );
    assert!(!transcript.contains("nobody's word of a rebuild"), "{transcript}");
    let transcript = sign("mallory");
    assert!(transcript.contains("signed by no key of this policy"), "{transcript}");
    assert!(transcript.contains("was built again: no key of the policy signed that"), "{transcript}");
}
