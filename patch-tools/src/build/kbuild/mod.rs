//! Asks the kernel's own Makefiles which units a configuration builds and how each is compiled.
//!
//! Nothing is guessed: flags that a Makefile adds for one file, the module that a file belongs to and headers
//! that are generated for it all come from running those Makefiles in a prepared output directory, with the
//! rule that would compile replaced by one that prints. Three small makefiles of our own do that.
//!
//! The questions go to one directory's Makefile at a time, in the environment that the top Makefile would
//! give it; that takes 0.05 to 0.2 s, where going through the top takes seconds.

mod words;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use manifests::Sha256;
use system::durable;

use super::cache::{CacheError, Lock};
use super::patch::SourcePath;
use super::process::{ProcessError, Program};
use super::root::Tools;

const TOP_MK: &str = include_str!("top.mk");
const UNIT_MK: &str = include_str!("unit.mk");
const UNITS_MK: &str = include_str!("units.mk");

/// The makefiles by the name under which they are put into a prepared tree.
pub(super) const MAKEFILES: [(&str, &str); 3] =
    [("top.mk", TOP_MK), ("unit.mk", UNIT_MK), ("units.mk", UNITS_MK)];

/// A question that kbuild could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum KbuildError {
    /// make failed.
    #[error("the kernel's Makefiles cannot be asked about {about}")]
    Make {
        /// The question.
        about: String,
        /// What make said.
        source: ProcessError,
    },
    /// A lock could not be taken.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The answer has a form that is not understood.
    #[error("{unit} is compiled by a command that is not understood: {command}")]
    Command {
        /// The unit.
        unit: SourcePath,
        /// The command, shortened.
        command: String,
    },
}

/// The units that a configuration builds, each with the directory whose Makefile builds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UnitMap {
    /// By the path of the source without its ending.
    units: BTreeMap<String, Vec<Target>>,
    /// What else is made, by the file name without its ending.
    others: BTreeMap<String, Vec<Target>>,
}

/// A target of a directory's Makefile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The directory.
    pub(super) directory: String,
    /// The object's name as that Makefile writes it, which may contain `..`.
    pub(super) object: String,
}

/// How one unit is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitCommand {
    /// The C file.
    pub(super) source: SourcePath,
    /// What it becomes part of.
    pub(super) owner: Owner,
    /// The compiler and its arguments, without input, output and dependency file.
    pub(super) compile: Vec<String>,
    /// objtool and its arguments, without the object; empty where the unit is not for it. As for one object among
    /// others, even where the distribution ran it on what was linked: see [`OF_LINKED_OBJECTS`].
    pub(super) objtool: Vec<String>,
}

/// What a unit becomes part of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The kernel itself.
    Vmlinux,
    /// A module, by the path of its file below `lib/modules/RELEASE/kernel/`, without `.ko`.
    Module(String),
}

impl UnitMap {
    /// Reads what `units.mk` prints.
    pub(super) fn parse(text: &str) -> Self {
        let mut map = Self::default();
        let mut others = Vec::new();
        let mut directory = "";
        for line in text.lines() {
            let Some((kind, rest)) = line.strip_prefix('@').and_then(|line| line.split_once(' ')) else {
                continue;
            };
            match kind {
                "directory" => directory = rest,
                "builtin" | "module" => {
                    for object in rest.split(' ').filter(|object| object.ends_with(".o")) {
                        let target = Target { directory: directory.to_owned(), object: object.to_owned() };
                        let targets = map.units.entry(target.stem()).or_default();
                        if !targets.contains(&target) {
                            targets.push(target);
                        }
                    }
                }
                "other" => others.extend(rest.split(' ').map(|product| (directory, product))),
                _ => {}
            }
        }
        for (directory, product) in others {
            let known = [".o", ".s", ".lds"].iter().any(|end| product.ends_with(end));
            let target = Target { directory: directory.to_owned(), object: product.to_owned() };
            let stem = target.stem();
            if known && !map.units.contains_key(&stem) {
                let name = stem.rsplit('/').next().unwrap_or(&stem).to_owned();
                let targets = map.others.entry(name).or_default();
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
        map
    }

    /// The targets that compile a file; empty if the configuration does not build it.
    pub(super) fn targets(&self, source: &SourcePath) -> &[Target] {
        self.units.get(source.stem()).map_or(&[], Vec::as_slice)
    }

    /// What is made beside the units under the name of a file, in whichever directory: objects of other
    /// programs, files with constants, linker scripts.
    pub(super) fn others_like(&self, source: &SourcePath) -> Vec<Target> {
        let name = source.stem().rsplit('/').next().unwrap_or_default();
        self.others.get(name).cloned().unwrap_or_default()
    }
}

impl Target {
    /// The path of the product without its ending and without `..`: `virt/kvm/kvm_main` of
    /// `arch/x86/kvm/../../../virt/kvm/kvm_main.o`.
    pub(super) fn stem(&self) -> String {
        let mut parts: Vec<&str> = Vec::new();
        for part in self.object.split('/') {
            match part {
                ".." => drop(parts.pop()),
                "." | "" => {}
                part => parts.push(part),
            }
        }
        let path = parts.join("/");
        path.rsplit_once('.').map_or(path.as_str(), |(stem, _)| stem).to_owned()
    }

    /// The object of the same source, asked of the directory that it is in.
    pub(super) fn of_object(&self) -> Self {
        let stem = self.stem();
        let directory = stem.rsplit_once('/').map_or(".", |(directory, _)| directory).to_owned();
        Self { directory, object: format!("{stem}.o") }
    }
}

/// A prepared tree as kbuild sees it.
#[derive(Debug, Clone)]
pub(super) struct Kbuild {
    /// The source.
    pub(super) source: PathBuf,
    /// The output directory, prepared.
    pub(super) output: PathBuf,
    /// Where our makefiles are.
    pub(super) makefiles: PathBuf,
    /// What `top.mk` wrote.
    pub(super) environment: Vec<(String, String)>,
    /// Where make is.
    pub(super) tools: Tools,
}

impl Kbuild {
    /// The variables of a dumped environment, without those that belong to the make that dumped it.
    pub(super) fn read_environment(dump: &[u8]) -> Vec<(String, String)> {
        const OF_THAT_MAKE: [&str; 11] = [
            "MAKEFILES",
            "MAKEFLAGS",
            "MFLAGS",
            "MAKELEVEL",
            "MAKEOVERRIDES",
            "ENVIRONMENT",
            "_",
            "PWD",
            "OLDPWD",
            "SHLVL",
            "TMPDIR",
        ];
        dump.split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
            .filter(|(name, _)| !OF_THAT_MAKE.contains(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn make(&self, makefile: &str, directory: &str) -> Program {
        let mut make = self
            .tools
            .program("make")
            .args(["-r", "-R", "-s", "-f"])
            .arg(self.makefiles.join(makefile))
            .arg(format!("--include-dir={}", self.source.display()))
            .arg(format!("obj={directory}"))
            .arg("need-modorder=1")
            .directory(&self.output);
        for (name, value) in &self.environment {
            make = make.variable(name, value);
        }
        make
    }

    /// Lists the units of the whole tree.
    pub(super) fn list_units(&self, jobs: usize) -> Result<String, KbuildError> {
        let listed = self
            .make("units.mk", ".")
            .arg(format!("UNITS_MK={}", self.makefiles.join("units.mk").display()))
            .args([format!("-j{jobs}"), "--output-sync=recurse".to_owned(), "units".to_owned()])
            .run()
            .map_err(|source| KbuildError::Make {
                about: "the units of the configuration".to_owned(),
                source,
            })?;
        Ok(String::from_utf8_lossy(&listed).into_owned())
    }

    /// Asks how a unit is compiled.
    pub(super) fn command(&self, source: &SourcePath, target: &Target) -> Result<UnitCommand, KbuildError> {
        self.ask(source, &self.source.join(source), target)
    }

    /// As [`Self::command`], for a target that may be made of another file: then there is none.
    pub(super) fn command_of(
        &self,
        source: &SourcePath,
        target: &Target,
    ) -> Result<Option<UnitCommand>, KbuildError> {
        let answer = self.answer(source, target, &[])?;
        let file = self.source.join(source);
        match Answer::of(&answer).is_about(&file) {
            true => self.understood(&answer, source, &file, target).map(Some),
            false => Ok(None),
        }
    }

    /// Asks how a C file that is not in the source would be compiled: `NAME.c` in a directory of the output, which has
    /// a makefile for it.
    pub(super) fn command_in_output(
        &self,
        directory: &str,
        name: &SourcePath,
    ) -> Result<UnitCommand, KbuildError> {
        let target =
            Target { directory: directory.to_owned(), object: format!("{directory}/{}.o", name.stem()) };
        let file = self.output.join(directory).join(name);
        let source = self.output.join(directory);
        let answer = self.answer(name, &target, &[format!("src={}", source.display())])?;
        // Some versions look for it relative to the output directory.
        let relative = format!("@source {directory}/{name}\n");
        let answer = answer.replace(&relative, &format!("@source {}\n", file.display()));
        let answer = answer.replace(&format!(" {directory}/{name}"), &format!(" {}", file.display()));
        self.understood(&answer, name, &file, &target)
    }

    fn ask(&self, source: &SourcePath, file: &Path, target: &Target) -> Result<UnitCommand, KbuildError> {
        let answer = self.answer(source, target, &[])?;
        self.understood(&answer, source, file, target)
    }

    /// What the Makefiles say about a target, which is the same each time: they are of the tree, and so is all that they
    /// look at. So the answer is kept.
    fn answer(
        &self,
        source: &SourcePath,
        target: &Target,
        variables: &[String],
    ) -> Result<String, KbuildError> {
        let asking = self.makefiles.with_file_name("asking");
        let question = format!("{}\0{}\0{}", target.directory, target.object, variables.join("\0"));
        let kept = asking.join(format!("{}.answer", &Sha256::of(question.as_bytes()).to_string()[..24]));
        if let Ok(answer) = fs::read_to_string(&kept) {
            return Ok(answer);
        }
        // What units of one directory need first is made by the first question; two at once would make it twice.
        let place = target.directory.replace('/', "-");
        let _lock = Lock::wait(&asking.join(format!("{place}.lock")))?;
        let mut make = self.make("unit.mk", &target.directory);
        for product in OF_THE_KERNEL {
            make = make.arg("-o").arg(product);
        }
        let answer = make
            .arg(format!("UNIT={}", target.object))
            .args(variables)
            .arg("ask")
            .run()
            .map_err(|error| KbuildError::Make { about: source.to_string(), source: error })?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        durable::publish(&kept, answer.as_bytes()).map_err(CacheError::io("write", &kept))?;
        Ok(answer)
    }

    fn understood(
        &self,
        answer: &str,
        source: &SourcePath,
        file: &Path,
        target: &Target,
    ) -> Result<UnitCommand, KbuildError> {
        Answer::of(answer).command(source, file, target).ok_or_else(|| {
            let command = answer.lines().find_map(|line| line.strip_prefix("@compile ")).unwrap_or_default();
            KbuildError::Command { unit: source.clone(), command: command.chars().take(400).collect() }
        })
    }
}

/// Headers of the boot code that are made from a whole kernel, which there is none of here. Not to be made.
const OF_THE_KERNEL: [&str; 3] =
    ["arch/x86/boot/compressed/../voffset.h", "arch/x86/boot/zoffset.h", "arch/x86/boot/cpustr.h"];

/// What `unit.mk` prints.
struct Answer<'a> {
    input: &'a str,
    module: &'a str,
    compile: &'a str,
    /// objtool's command where kbuild leaves it for later.
    delayed: &'a str,
}

/// Arguments of objtool that are for whole modules and kernels. `--ibt` would note functions as never called through
/// a pointer because this one object has none; without it they keep their landing pads, which is always right.
const OF_LINKED_OBJECTS: [&str; 2] = ["--link", "--ibt"];

impl<'a> Answer<'a> {
    fn of(text: &'a str) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        Self {
            input: field("@source "),
            module: field("@module ").trim(),
            compile: field("@compile "),
            delayed: field("@objtool "),
        }
    }

    fn is_about(&self, file: &Path) -> bool {
        normalized(Path::new(self.input)) == file
    }

    fn command(&self, source: &SourcePath, file: &Path, target: &Target) -> Option<UnitCommand> {
        let mut commands = words::commands(self.compile)?.into_iter();
        let (compiler, mut objtool) = (commands.next()?, commands.next().unwrap_or_default());
        // One more command would be a step that we do not know (for example a linker for LTO objects).
        if commands.next().is_some() || !(objtool.is_empty() || objtool[0].ends_with("objtool")) {
            return None;
        }
        if objtool.is_empty() {
            objtool = words::commands(self.delayed)?.into_iter().next().unwrap_or_default();
        }
        objtool.retain(|word| !OF_LINKED_OBJECTS.contains(&word.as_str()));
        let mut compile = Vec::new();
        let mut words = compiler.into_iter();
        let mut output = None;
        while let Some(word) = words.next() {
            match word.as_str() {
                "-c" => {}
                "-o" => output = Some(words.next()?),
                word if word.starts_with("-Wp,-MMD,") => {}
                word if word == self.input => {}
                _ => compile.push(word),
            }
        }
        let output = output?;
        if !self.is_about(file) || objtool.last().is_some_and(|last| *last != output) {
            return None;
        }
        let owner = match compile.iter().any(|word| word == "-DMODULE") {
            true => Owner::Module(self.module_path(target)?),
            false => Owner::Vmlinux,
        };
        let objtool = objtool.split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default();
        Some(UnitCommand { source: source.clone(), owner, compile, objtool })
    }

    /// Where the module's file is: beside the Makefile that names it, or where the unit is when the module is
    /// that one unit.
    fn module_path(&self, target: &Target) -> Option<String> {
        let object = target.object.strip_suffix(".o")?;
        let is_unit = object.rsplit('/').next() == Some(self.module);
        match self.module {
            "" => None,
            _ if is_unit => normalized(Path::new(object)).to_str().map(str::to_owned),
            module => Some(format!("{}/{module}", target.directory)),
        }
    }
}

fn normalized(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_known_by_their_source_even_when_another_directory_builds_them() {
        let map = UnitMap::parse(
            "@directory fs\n@builtin fs/namei.o fs/open.o\n@module \n@directory arch/x86/kvm\n@builtin \n\
             @module arch/x86/kvm/../../../virt/kvm/kvm_main.o\nnoise\n\
             @directory arch/x86/entry/vdso\n@other arch/x86/entry/vdso/vgetcpu.o fs/namei.o modules.order\n\
             @directory arch/x86/kernel\n@other arch/x86/kernel/vmlinux.lds\n",
        );
        let path = |path| SourcePath::new(path).unwrap();
        assert_eq!(map.units.len(), 3);
        assert_eq!(map.targets(&path("fs/namei.c"))[0].directory, "fs");
        assert_eq!(map.targets(&path("virt/kvm/kvm_main.c"))[0].directory, "arch/x86/kvm");
        assert!(map.targets(&path("fs/absent.c")).is_empty());
        let others = map.others_like(&path("lib/vdso/vgetcpu.c"));
        assert_eq!(others[0].object, "arch/x86/entry/vdso/vgetcpu.o");
        assert!(map.others_like(&path("fs/namei.c")).is_empty());
        let script = &map.others_like(&path("arch/x86/kernel/vmlinux.lds.S"))[0];
        assert_eq!(
            (script.stem().as_str(), script.of_object().directory.as_str()),
            ("arch/x86/kernel/vmlinux", "arch/x86/kernel")
        );
    }

    #[test]
    fn a_question_is_put_to_make_once() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["source", "output", "makefiles"] {
            fs::create_dir(at(name)).unwrap();
        }
        let rule = "ask:\n\t@echo asked >> asked\n\t@echo \"@source $(obj) $(UNIT) $(src)\"\n";
        fs::write(at("makefiles/unit.mk"), rule).unwrap();
        let kbuild = Kbuild {
            source: at("source"),
            output: at("output"),
            makefiles: at("makefiles"),
            environment: Vec::new(),
            tools: Tools::of_this_machine(),
        };
        let ask = |directory: &str, object: &str, variables: &[String]| {
            let target = Target { directory: directory.to_owned(), object: object.to_owned() };
            kbuild.answer(&SourcePath::new("fs/a.c").unwrap(), &target, variables).unwrap()
        };
        for _ in 0..2 {
            assert_eq!(ask("fs", "fs/a.o", &[]).trim(), "@source fs fs/a.o");
            assert_eq!(ask("fs", "fs/b.o", &[]).trim(), "@source fs fs/b.o");
            assert_eq!(ask("fs", "fs/b.o", &["src=x".to_owned()]).trim(), "@source fs fs/b.o x");
        }
        assert_eq!(fs::read_to_string(at("output/asked")).unwrap().lines().count(), 3);
    }

    fn answer(module: &str, compile: &str) -> Option<UnitCommand> {
        let source = SourcePath::new("fs/ext4/inode.c").unwrap();
        let target = Target { directory: "fs/ext4".into(), object: "fs/ext4/inode.o".into() };
        let text = format!(
            "@unit fs/ext4/inode.o\n@source /src/fs/ext4/inode.c\n@module {module}\n@compile {compile}\n"
        );
        Answer::of(&text).command(&source, Path::new("/src/fs/ext4/inode.c"), &target)
    }

    #[test]
    fn a_compile_command_gives_up_its_input_and_output() {
        let parsed = answer(
            "ext4",
            r#"gcc-12 -Wp,-MMD,fs/ext4/.inode.o.d -O2 -DMODULE -DN='"ext4"' -c -o fs/ext4/inode.o /src/fs/ext4/inode.c ; ./objtool --orc fs/ext4/inode.o"#,
        )
        .unwrap();
        assert_eq!(parsed.compile, ["gcc-12", "-O2", "-DMODULE", "-DN=\"ext4\""]);
        assert_eq!(parsed.objtool, ["./objtool", "--orc"]);
        assert_eq!(parsed.owner, Owner::Module("fs/ext4/ext4".into()));
        let builtin = answer("inode", "gcc-12 -c -o fs/ext4/inode.o /src/fs/ext4/inode.c").unwrap();
        assert_eq!((builtin.owner, builtin.objtool.len()), (Owner::Vmlinux, 0));
    }

    #[test]
    fn a_module_of_one_unit_is_where_the_unit_is() {
        let parsed = answer("inode", "gcc -DMODULE -c -o fs/ext4/inode.o /src/fs/ext4/inode.c").unwrap();
        assert_eq!(parsed.owner, Owner::Module("fs/ext4/inode".into()));
    }

    #[test]
    fn a_command_with_unknown_steps_is_not_understood() {
        for command in [
            "gcc -c -o fs/ext4/inode.o /src/fs/ext4/inode.c; ld -r fs/ext4/inode.o",
            "gcc -c -o fs/ext4/inode.o /src/fs/ext4/inode.c; objtool b.o",
            "gcc -c /src/fs/ext4/inode.c",
        ] {
            assert_eq!(answer("ext4", command), None, "{command}");
        }
    }
}
