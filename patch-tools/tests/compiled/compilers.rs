//! The compilers that kernels are built with, and how each is told to make an object as kernels have it.
//!
//! `gcc-12` and whatever else is on the path is used as it is. Others come unpacked, each with the libraries of
//! its own distribution, from the directory that `examples/fetch-compilers` fills: they run with their own
//! dynamic linker, so nothing is installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use patch_tools::build::cache::Cache;

/// Compilers that Debian packages and kernels are built with.
pub(crate) const ALL: [&str; 12] = [
    "gcc-11", "gcc-12", "gcc-13", "gcc-14", "gcc-15", "gcc-16", "clang-14", "clang-15", "clang-16",
    "clang-17", "clang-18", "clang-19",
];

/// How an object tells where functions call `__fentry__`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    /// The calls are there, as the compiler makes them.
    Calls,
    /// `objtool --mnop` or `recordmcount` has made each a no-op with a relocation of type NONE, and listed it.
    NoOps,
}

/// One compiler.
#[derive(Debug, Clone)]
pub(crate) struct Compiler {
    pub(crate) name: &'static str,
    program: Program,
}

#[derive(Debug, Clone)]
enum Program {
    OnPath,
    /// The root of unpacked packages.
    Unpacked(PathBuf),
}

/// Options that shape a stock x86-64 kernel's objects, and those that the differ needs.
const OPTIONS: [&str; 18] = [
    "-O2",
    "-g0",
    "-ffreestanding",
    "-fno-pic",
    "-fno-pie",
    "-fno-common",
    "-fno-strict-aliasing",
    "-fshort-wchar",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-mno-sse",
    "-mfentry",
    "-ffunction-sections",
    "-fdata-sections",
    "-w",
];

impl Compiler {
    /// The one that the cases are written for.
    pub(crate) fn reference() -> Self {
        Self { name: "gcc", program: Program::OnPath }
    }

    /// The compiler of this name, if it is on the path.
    pub(crate) fn on_path(name: &'static str) -> Option<Self> {
        let found = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        found.then_some(Self { name, program: Program::OnPath })
    }

    /// The same, or the one in the cache.
    pub(crate) fn find(name: &'static str) -> Option<Self> {
        let unpacked = Cache::of_user().ok()?.packages().parent()?.join("compilers").join(name);
        let unpacked = unpacked.is_dir().then_some(Self { name, program: Program::Unpacked(unpacked) });
        Self::on_path(name).or(unpacked)
    }

    pub(crate) fn is_clang(&self) -> bool {
        self.name.starts_with("clang")
    }

    /// Compiles `UNIT.c` of a directory to `UNIT.o`.
    pub(crate) fn compile(&self, directory: &Path, unit: &str, options: &[&str], records: Records) {
        let mut options: Vec<&str> = OPTIONS.iter().chain(options).copied().collect();
        let mnop = records == Records::NoOps;
        if !self.is_clang() && !mnop {
            options.push("-mrecord-mcount");
        }
        let assembly = mnop || matches!(self.program, Program::Unpacked(_));
        let output = format!("{unit}.{}", if assembly { "s" } else { "o" });
        self.run(directory, &options, &format!("{unit}.c"), &output);
        if mnop {
            let path = directory.join(&output);
            let text = without_calls(&std::fs::read_to_string(&path).unwrap());
            std::fs::write(&path, text).unwrap();
        }
        if assembly {
            self.assemble(directory, unit);
        }
    }

    fn run(&self, directory: &Path, options: &[&str], input: &str, output: &str) {
        let mut command = match &self.program {
            Program::OnPath => Command::new(self.name),
            Program::Unpacked(root) if self.is_clang() => {
                let number = self.name.trim_start_matches("clang-");
                let home = format!("usr/lib/llvm-{number}");
                own_linker(root, &format!("{home}/bin/clang"), &[&format!("{home}/lib")])
            }
            Program::Unpacked(root) => {
                let number = self.name.trim_start_matches("gcc-");
                let at = ["libexec", "lib"].map(|at| format!("usr/{at}/gcc/x86_64-linux-gnu/{number}/cc1"));
                let cc1 = at.iter().find(|cc1| root.join(cc1).is_file()).expect("cc1 among the packages");
                own_linker(root, cc1, &[])
            }
        };
        // The driver of GCC calls `-pg` by another name when it talks to the compiler proper.
        let proper = matches!(self.program, Program::Unpacked(_)) && !self.is_clang();
        if proper {
            command.args(["-quiet", "-p"]);
        } else {
            command.args([if output.ends_with(".s") { "-S" } else { "-c" }, "-pg"]);
        }
        if self.is_clang() {
            command.args(["--target=x86_64-linux-gnu", "-fno-addrsig"]);
        }
        let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diff");
        command.args(options).arg("-I").arg(headers).args(["-o", output, input]);
        finished(&mut command, directory, self.name);
    }

    /// GCC leaves this to the assembler of the system, clang has its own.
    fn assemble(&self, directory: &Path, unit: &str) {
        let (input, output) = (format!("{unit}.s"), format!("{unit}.o"));
        if self.is_clang() {
            self.run(directory, &[], &input, &output);
        } else {
            finished(Command::new("as").args(["-o", &output, &input]), directory, "as");
        }
    }
}

/// Runs a program of unpacked packages with their dynamic linker and libraries.
fn own_linker(root: &Path, program: &str, libraries: &[&str]) -> Command {
    let at =
        ["lib64", "usr/lib64", "lib/x86_64-linux-gnu"].map(|at| root.join(at).join("ld-linux-x86-64.so.2"));
    let linker = at.iter().find(|linker| linker.is_file()).expect("libc6 among the packages");
    let path: Vec<String> = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
        .iter()
        .chain(libraries)
        .map(|library| root.join(library).display().to_string())
        .collect();
    let mut command = Command::new(linker);
    command.arg("--library-path").arg(path.join(":")).arg(root.join(program));
    command
}

fn finished(command: &mut Command, directory: &Path, name: &str) -> Output {
    let output = command.current_dir(directory).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    let source = std::fs::read_to_string(directory.join("unit.c")).unwrap_or_default();
    assert!(output.status.success(), "{name}: {told}\n{source}");
    output
}

/// Makes of each call of `__fentry__` what the kernel's tools make of it.
fn without_calls(assembly: &str) -> String {
    let mut text = String::with_capacity(assembly.len());
    for (number, line) in assembly.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_call = words
            .windows(2)
            .any(|pair| pair[0].starts_with("call") && pair[1].split('@').next() == Some("__fentry__"));
        if is_call {
            let site = format!(".Lsite{number}");
            text.push_str(&format!(
                "{site}:\n\t.byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n\t.reloc {site}+1, R_X86_64_NONE, __fentry__\n\
                 \t.pushsection __mcount_loc, \"a\", @progbits\n\t.quad {site}\n\t.popsection\n"
            ));
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
