//! The signer with SoftHSM, a token in software: keys that are made in it and keys that came into it, as
//! `patch-tools sign --signer` asks for them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use manifests::{PublicKeyFile, SecretKey};
use patch_tools::signing::{Signer, SigningError};

/// Where Debian's package `libsofthsm2` has it.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

const PIN: &str = "1234";

/// A directory with the settings and the tokens of SoftHSM.
struct Desk {
    files: tempfile::TempDir,
}

impl Desk {
    /// With one token, `office`, and its PIN in a file.
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let tokens = files.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        let settings = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(files.path().join("softhsm2.conf"), settings).unwrap();
        fs::write(files.path().join("pin"), format!("{PIN}\n")).unwrap();
        let desk = Self { files };
        desk.util(&["--init-token", "--free", "--label", "office", "--so-pin", "4321", "--pin", PIN]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn util(&self, arguments: &[&str]) {
        let output = Command::new("softhsm2-util")
            .args(arguments)
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .output()
            .unwrap_or_else(|error| panic!("softhsm2 is needed: {error}"));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The signer's words on a command line, for a key.
    fn words(&self, command: &str, key: &str) -> Vec<String> {
        let pin = self.path("pin").display().to_string();
        [command, "--module", MODULE, "--token", "office", "--key", key, "--pin-file", &pin]
            .map(str::to_owned)
            .to_vec()
    }

    fn signer(&self, words: &[String]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_update-sign-pkcs11"))
            .args(words)
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }

    fn public(&self, command: &str, key: &str) -> PublicKeyFile {
        let output = self.signer(&self.words(command, key));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PublicKeyFile::parse(&output.stdout).unwrap()
    }

    fn refused(&self, words: &[String]) -> String {
        let output = self.signer(words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(output.stdout.is_empty());
        assert!(text.contains("next:"), "{text}");
        text
    }

    /// What `--signer` is given.
    fn command(&self, key: &str) -> String {
        format!(
            "SOFTHSM2_CONF={} {} {}",
            self.path("softhsm2.conf").display(),
            env!("CARGO_BIN_EXE_update-sign-pkcs11"),
            self.words("sign", key).join(" ")
        )
    }
}

#[test]
fn a_key_that_was_made_in_the_token_signs_what_patch_tools_asks_for() {
    let desk = Desk::new();
    let made = desk.public("generate", "build-2026");
    assert_eq!(made.name.as_str(), "build-2026");
    assert_eq!(desk.public("public", "build-2026"), made);
    let signer = Signer::Command { command: desk.command("build-2026"), public: made.public.clone() };
    // Nothing, a little, and more than a pipe holds.
    for message in [Vec::new(), b"message".to_vec(), vec![7; 1 << 20]] {
        let signature = signer.sign(&message).unwrap();
        assert!(made.public.verifies(&message, &signature));
    }
    let text = desk.refused(&desk.words("generate", "build-2026"));
    assert!(text.contains("has an Ed25519 key build-2026 already"), "{text}");
}

#[test]
fn a_key_that_came_from_a_file_is_the_same_key() {
    let desk = Desk::new();
    let key = SecretKey::from_seed([7; 32]);
    fs::write(desk.path("key.pem"), key.to_pem().as_bytes()).unwrap();
    let path = desk.path("key.pem").display().to_string();
    desk.util(&["--import", &path, "--token", "office", "--label", "alice", "--id", "01", "--pin", PIN]);
    assert_eq!(desk.public("public", "alice").public, key.public());
    let signer = Signer::Command { command: desk.command("alice"), public: key.public() };
    // Ed25519 is deterministic.
    assert_eq!(signer.sign(b"message").unwrap(), key.sign(b"message"));
    let other = SecretKey::from_seed([8; 32]).public();
    let signer = Signer::Command { command: desk.command("alice"), public: other };
    assert!(matches!(signer.sign(b"message").unwrap_err(), SigningError::Wrong { .. }));
}

#[test]
fn what_is_missing_or_wrong_is_told() {
    let desk = Desk::new();
    desk.public("generate", "build-2026");
    let with = |name: &str, value: &str| {
        let mut words = desk.words("sign", "build-2026");
        let at = words.iter().position(|word| word == name).unwrap();
        words[at + 1] = value.to_owned();
        words
    };
    fs::write(desk.path("wrong"), "9999\n").unwrap();
    let wrong = desk.path("wrong").display().to_string();
    for (name, value, word) in [
        ("--pin-file", wrong.as_str(), "does not open with this PIN"),
        ("--pin-file", "/nonexistent", "cannot read the PIN in /nonexistent"),
        ("--token", "home", "no token is called \"home\": found office"),
        ("--key", "alice", "has no Ed25519 key alice"),
        ("--module", "/nonexistent.so", "cannot load /nonexistent.so"),
        ("--module", "/bin/true", "cannot load /bin/true"),
    ] {
        let text = desk.refused(&with(name, value));
        assert!(text.contains(word), "{name} {value}: {text}");
    }
}
