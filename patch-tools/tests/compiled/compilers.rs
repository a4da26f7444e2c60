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
    /// As it is called on the path.
    name: &'static str,
    program: Program,
    /// The kernel whose options it gets, and these.
    kernel: Option<(String, Vec<String>)>,
}

#[derive(Debug, Clone)]
enum Program {
    OnPath,
    /// The root of unpacked packages.
    Unpacked(PathBuf),
}

/// Options that the differ needs, and tests.
const NEEDED: [&str; 6] =
    ["-g0", "-ffreestanding", "-fno-pic", "-ffunction-sections", "-fdata-sections", "-w"];

/// Options that shape a stock x86-64 kernel's objects, where no kernel's own are taken.
const SHAPE: [&str; 12] = [
    "-O2",
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
];

impl Compiler {
    /// The one that the cases are written for.
    pub(crate) fn reference() -> Self {
        Self { name: "gcc", program: Program::OnPath, kernel: None }
    }

    /// What tells it from the others.
    pub(crate) fn label(&self) -> String {
        let of_kernel = self.kernel.as_ref().map(|(release, _)| format!(" as for {release}"));
        format!("{}{}", self.name, of_kernel.unwrap_or_default())
    }

    /// The compiler of a kernel that `patch-tools build` has prepared, with the options that shape that kernel's code.
    pub(crate) fn of_kernel(release: &str) -> Self {
        let cache = Cache::of_user().unwrap().packages();
        let trees = std::fs::read_dir(cache.parent().unwrap().join("trees")).unwrap();
        let is_of = |tree: &PathBuf| {
            std::fs::read_to_string(tree.join("output/include/config/kernel.release"))
                .is_ok_and(|found| found.trim() == release)
        };
        let tree = trees.map(|tree| tree.unwrap().path()).find(is_of);
        let tree = tree.unwrap_or_else(|| panic!("patch-tools build has to prepare {release} first"));
        let command = std::fs::read_dir(tree.join("asking")).unwrap().find_map(|answer| {
            let answer = std::fs::read_to_string(answer.unwrap().path()).ok()?;
            let command = answer.lines().find_map(|line| line.strip_prefix("@compile "))?;
            let compile = command.split(" -c ").next()?;
            // A part of the kernel that is traced, as most are.
            compile.contains(" -pg ").then(|| compile.to_owned())
        });
        let command = command.expect("a unit of the kernel that was compiled");
        let mut words = command.split_whitespace();
        let program = words.next().unwrap();
        let name =
            ALL.into_iter().find(|name| program.ends_with(name)).unwrap_or_else(|| panic!("{program}"));
        let shapes = |word: &&str| {
            ["-f", "-m", "-O"].iter().any(|kind| word.starts_with(kind))
                && !["-fmacro-prefix-map", "-mrecord-mcount"].iter().any(|other| word.starts_with(other))
        };
        let options = words.filter(shapes).map(str::to_owned).collect();
        let compiler = Self::find(name).unwrap_or_else(|| panic!("{name} is needed for {release}"));
        Self { kernel: Some((release.to_owned(), options)), ..compiler }
    }

    /// The compiler of this name, if it is on the path.
    pub(crate) fn on_path(name: &'static str) -> Option<Self> {
        let found = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        found.then_some(Self { name, program: Program::OnPath, kernel: None })
    }

    /// The same, or the one in the cache.
    pub(crate) fn find(name: &'static str) -> Option<Self> {
        let unpacked = Cache::of_user().ok()?.packages().parent()?.join("compilers").join(name);
        let program = Program::Unpacked(unpacked.clone());
        let unpacked = unpacked.is_dir().then_some(Self { name, program, kernel: None });
        Self::on_path(name).or(unpacked)
    }

    /// Whether it does not do what a case needs, or is told not to.
    pub(crate) fn lacks(&self, feature: &str) -> bool {
        match feature {
            // Splitting functions, and making variants of them, by what the calls look like.
            "cold parts" | "partial inlining" | "clones" | "mergeable wide strings" => self.is_clang(),
            "jump tables" => {
                self.kernel.iter().any(|(_, options)| options.iter().any(|it| it == "-fno-jump-tables"))
            }
            other => panic!("no compiler feature {other}"),
        }
    }

    pub(crate) fn is_clang(&self) -> bool {
        self.name.starts_with("clang")
    }

    /// Compiles `UNIT.c` of a directory to `UNIT.o`.
    pub(crate) fn compile(&self, directory: &Path, unit: &str, options: &[&str], records: Records) {
        let shape: Vec<&str> = match &self.kernel {
            Some((_, options)) => options.iter().map(String::as_str).collect(),
            None => SHAPE.to_vec(),
        };
        let mut options: Vec<&str> = shape.iter().chain(&NEEDED).chain(options).copied().collect();
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
