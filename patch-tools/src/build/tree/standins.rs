//! Programs that Kconfig asks for their version, and of which nothing else is needed here.
//!
//! Kconfig looks at the machine: with another pahole, or without a Rust compiler, the same configuration comes out
//! with other settings, and some of those change the code of C files. No BTF and no Rust is made here, so it is enough
//! that a script answers as the distribution's program did. What it answers is in the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use super::TreeError;
use crate::build::cache::CacheError;
use crate::image::Config;

/// Writes the scripts into a directory and returns the variables by which make uses them.
pub(super) fn make(directory: &Path, config: &Config) -> Result<Vec<String>, TreeError> {
    let mut settings = Vec::new();
    let number = |name: &str| config.get(name).and_then(|version| version.parse::<u32>().ok());
    if let Some(version) = number("CONFIG_PAHOLE_VERSION") {
        let answer = format!("echo v{}.{}", version / 100, version % 100);
        settings.push(format!("PAHOLE={}", script(directory, "pahole", &answer)?.display()));
    }
    if !config.is_set("CONFIG_RUST_IS_AVAILABLE") {
        // One that is here must not change the configuration.
        settings.extend(["RUSTC=false".to_owned(), "BINDGEN=false".to_owned()]);
        return Ok(settings);
    }
    let rust = Rust {
        version: number("CONFIG_RUSTC_VERSION").unwrap_or_default(),
        text: config.get("CONFIG_RUSTC_VERSION_TEXT").unwrap_or_default(),
        llvm: number("CONFIG_RUSTC_LLVM_VERSION").unwrap_or_default(),
        bindgen: config.get("CONFIG_BINDGEN_VERSION_TEXT").unwrap_or("bindgen 0.65.1"),
    };
    // Looked for to see whether the source of the core library is there.
    let core = directory.join("rust/lib/rustlib/src/rust/library/core/src");
    fs::create_dir_all(&core).map_err(CacheError::io("make", &core))?;
    let library = core.join("lib.rs");
    fs::write(&library, "").map_err(CacheError::io("write", &library))?;
    let rustc = script(directory, "rustc", &rust.rustc(&directory.join("rust")))?;
    let bindgen = script(directory, "bindgen", &rust.bindgen())?;
    settings.extend([
        format!("RUSTC={}", rustc.display()),
        format!("BINDGEN={}", bindgen.display()),
        // Over the configuration's, for the Makefiles alone: nothing of Rust is made.
        "CONFIG_RUST=".to_owned(),
    ]);
    Ok(settings)
}

struct Rust<'a> {
    /// 108501 of 1.85.1.
    version: u32,
    /// The compiler's own words, if Rust is used.
    text: &'a str,
    /// 190107 of 19.1.7.
    llvm: u32,
    bindgen: &'a str,
}

impl Rust<'_> {
    /// Its version and where its library is. Nothing else succeeds, so that no option of it counts as supported.
    fn rustc(&self, sysroot: &Path) -> String {
        let (version, llvm) = (self.version, self.llvm);
        let plain = format!("rustc {}.{}.{}", version / 100_000, version / 100 % 1000, version % 100);
        let text = if self.text.is_empty() { &plain } else { self.text };
        format!(
            "case \"$*\" in\n*'--print sysroot'*) echo '{}' ;;\n*--version*--verbose*) echo '{text}'; echo 'LLVM version: {}' ;;\n\
             *--version*) echo '{text}' ;;\n*) exit 1 ;;\nesac",
            sysroot.display(),
            dotted(llvm),
        )
    }

    /// Its version, or that of the libclang in it, for which it is given a header.
    fn bindgen(&self) -> String {
        format!(
            "case \"$*\" in\n*--version*) echo '{}' ;;\n*) echo 'clang version {}' >&2 ;;\nesac",
            self.bindgen,
            dotted(self.llvm),
        )
    }
}

/// 19.1.7 of 190107.
fn dotted(version: u32) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

fn script(directory: &Path, name: &str, body: &str) -> Result<PathBuf, TreeError> {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).map_err(CacheError::io("write", &path))?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, executable).map_err(CacheError::io("make executable", &path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn said(path: &Path, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(path).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    #[test]
    fn the_standins_answer_what_the_configuration_says() {
        let work = tempfile::tempdir().unwrap();
        let config = Config::parse(
            "CONFIG_PAHOLE_VERSION=130\nCONFIG_RUST_IS_AVAILABLE=y\nCONFIG_RUSTC_VERSION=108501\n\
             CONFIG_RUSTC_LLVM_VERSION=190107\nCONFIG_RUSTC_VERSION_TEXT=\"rustc 1.85.1 (4eb161250 2025-03-15)\"\n\
             CONFIG_BINDGEN_VERSION_TEXT=\"bindgen 0.71.1\"\n",
        );
        let settings = make(work.path(), &config).unwrap();
        let at = |name: &str| work.path().join(name);
        assert!(settings.contains(&format!("RUSTC={}", at("rustc").display())));
        assert_eq!(said(&at("pahole"), &["--version"]), (true, "v1.30\n".to_owned()));
        let rustc = (true, "rustc 1.85.1 (4eb161250 2025-03-15)\n".to_owned());
        assert_eq!(said(&at("rustc"), &["--version"]), rustc);
        assert_eq!(said(&at("rustc"), &["--version", "--verbose"]).1, rustc.1 + "LLVM version: 19.1.7\n");
        assert!(!said(&at("rustc"), &["-Zoption", "--crate-type=rlib", "/dev/null"]).0);
        assert_eq!(said(&at("bindgen"), &["x.h"]), (true, "clang version 19.1.7\n".to_owned()));
        let sysroot = said(&at("rustc"), &["--print", "sysroot"]).1;
        assert!(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file());
    }

    #[test]
    fn a_kernel_without_rust_finds_none() {
        let work = tempfile::tempdir().unwrap();
        let settings = make(work.path(), &Config::parse("CONFIG_X=y\n")).unwrap();
        assert_eq!(settings, ["RUSTC=false", "BINDGEN=false"]);
    }
}
