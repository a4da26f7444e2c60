//! `patch-tools sign-module` from outside: openssl verifies what it appends, and what it refuses to sign with.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use patch_tools::module::{Module, SignerIdentity};
use support::compile;

/// A directory with a module, and keys that openssl has made.
struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(desk.path("fix.ko"), compile("one-function")).unwrap();
        desk.key("owner", &["-newkey", "rsa:2048"], &[]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// NAME.key and NAME.pem.
    fn key(&self, name: &str, kind: &[&str], more: &[&str]) {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        let made =
            ["req", "-new", "-x509", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &certificate];
        self.openssl(&[&made[..], kind, more].concat());
        fs::set_permissions(self.path(&key), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut openssl = Command::new("openssl");
        let output = openssl.args(arguments).current_dir(self.directory.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn sign(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_patch-tools"))
            .arg("sign-module")
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    /// Signs into `signed.ko`, and has openssl verify with the certificate; returns who signed.
    fn verified(&self, arguments: &[&str], certificate: &str) -> SignerIdentity {
        let output = self.sign(&[&["fix.ko", "--out", "signed.ko"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (module, signed) =
            (fs::read(self.path("fix.ko")).unwrap(), fs::read(self.path("signed.ko")).unwrap());
        let signature = Module::parse(&signed).unwrap().signature.unwrap();
        assert_eq!(signed[..module.len()], module);
        fs::write(self.path("signature"), &signed[module.len()..module.len() + signature.size]).unwrap();
        self.openssl(&[
            "cms",
            "-verify",
            "-binary",
            "-inform",
            "DER",
            "-in",
            "signature",
            "-content",
            "fix.ko",
            "-certfile",
            certificate,
            "-noverify",
            "-out",
            "content",
        ]);
        assert_eq!(signature.signers.len(), 1);
        signature.signers[0].identity.clone()
    }

    fn refused(&self, arguments: &[&str], words: &str) {
        let before = fs::read(self.path("fix.ko")).unwrap();
        let output = self.sign(&[&["fix.ko"], arguments].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(words), "{words:?} is not in {stderr}");
        assert_eq!(fs::read(self.path("fix.ko")).unwrap(), before, "it was changed");
    }
}

#[test]
fn openssl_verifies_what_is_appended_by_each_kind_of_key_and_digest() {
    let desk = Desk::new();
    for digest in ["sha256", "sha384", "sha512"] {
        let arguments = ["--key", "owner.key", "--certificate", "owner.pem", "--digest", digest];
        let signer = desk.verified(&arguments, "owner.pem");
        assert!(matches!(signer, SignerIdentity::Key { key_id } if key_id.len() == 40));
    }
    desk.key("curve", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"], &[]);
    desk.verified(&["--key", "curve.key", "--certificate", "curve.pem"], "curve.pem");
}

#[test]
fn a_certificate_without_a_key_identifier_is_named_by_issuer_and_serial_number() {
    let desk = Desk::new();
    let without = ["-addext", "subjectKeyIdentifier=none", "-set_serial", "0x1234"];
    desk.key("plain", &["-newkey", "rsa:2048"], &without);
    let signer = desk.verified(&["--key", "plain.key", "--certificate", "plain.pem"], "plain.pem");
    assert_eq!(signer, SignerIdentity::Certificate { issuer: "plain".to_owned(), serial: "1234".to_owned() });
}

#[test]
fn a_certificate_in_der_a_key_under_a_passphrase_and_a_command_sign_the_same() {
    let desk = Desk::new();
    desk.openssl(&["x509", "-in", "owner.pem", "-outform", "DER", "-out", "owner.der"]);
    desk.openssl(&["pkcs8", "-topk8", "-in", "owner.key", "-passout", "pass:horse", "-out", "locked.key"]);
    fs::set_permissions(desk.path("locked.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(desk.path("horse"), "horse\n").unwrap();
    desk.verified(&["--key", "owner.key", "--certificate", "owner.pem"], "owner.pem");
    let first = fs::read(desk.path("signed.ko")).unwrap();
    for with in [
        &["--key", "locked.key", "--passphrase-file", "horse"][..],
        &["--signer", "openssl dgst -sha256 -sign owner.key"],
        &["--signer", "openssl dgst -sha256 -sign owner.key | openssl base64"],
    ] {
        desk.verified(&[with, &["--certificate", "owner.der"]].concat(), "owner.pem");
        assert_eq!(fs::read(desk.path("signed.ko")).unwrap(), first);
    }
}

#[test]
fn what_cannot_sign_is_refused_and_the_module_stays_as_it_was() {
    let desk = Desk::new();
    desk.key("other", &["-newkey", "rsa:2048"], &[]);
    desk.key("small", &["-newkey", "rsa:1024"], &[]);
    desk.key("edwards", &["-newkey", "ed25519"], &[]);
    fs::write(desk.path("open.key"), fs::read(desk.path("owner.key")).unwrap()).unwrap();
    fs::set_permissions(desk.path("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    desk.refused(&["--key", "other.key", "--certificate", "owner.pem"], "not of the certificate's key");
    desk.refused(&["--key", "small.key", "--certificate", "small.pem"], "RSA with 2048 to 8192 bits");
    desk.refused(&["--key", "edwards.key", "--certificate", "edwards.pem"], "cannot sign modules");
    desk.refused(&["--key", "open.key", "--certificate", "owner.pem"], "can be read by others");
    desk.refused(&["--key", "owner.key", "--certificate", "owner.key"], "no X.509 certificate");
    desk.refused(&["--key", "owner.pem", "--certificate", "owner.pem"], "owner.pem is no private key");
    desk.refused(&["--signer", "exit 7", "--certificate", "owner.pem"], "exit status: 7");
    desk.refused(&["--signer", "cat >/dev/null; echo no", "--certificate", "owner.pem"], "another key's");
    desk.refused(&["--key", "missing", "--certificate", "owner.pem"], "cannot read missing");
}

#[test]
fn a_signed_module_is_not_signed_again_and_what_is_no_module_not_at_all() {
    let desk = Desk::new();
    let arguments = ["--key", "owner.key", "--certificate", "owner.pem"];
    let output = desk.sign(&[&["fix.ko", "--json"], &arguments[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["subject"], "CN=owner");
    desk.refused(&arguments, "signed already");
    fs::write(desk.path("fix.ko"), "no module").unwrap();
    desk.refused(&arguments, "not a proper kernel module");
}
