//! Which files a file is included by, from the `#include` lines of a whole tree.
//!
//! No preprocessor runs, so conditions are ignored and a name is taken to mean every file that it could mean
//! on some search path. That gives too many includers, never too few. A name in quotes that exists beside the
//! including file means that one, as for the compiler. Names made by macros: tracing headers include
//! themselves again, which changes nothing here; any other is taken to include everything.
//!
//! The lines are collected once per tree and kept in it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use memchr::memmem;
use system::durable;

use super::super::cache::CacheError;
use super::super::jobs;
use super::super::patch::SourcePath;
use super::super::tree::Tree;

/// Headers that the compiler is told to include before every unit (top Makefile, `LINUXINCLUDE`).
const FORCED: [&str; 3] =
    ["include/linux/compiler-version.h", "include/linux/kconfig.h", "include/linux/compiler_types.h"];

/// Directories of the source that no unit of the kernel includes from.
const APART: [&str; 4] = ["tools", "scripts", "samples", "Documentation"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Include {
    Quoted(String),
    Angled(String),
    Anything,
}

/// The include lines of a tree.
#[derive(Debug, Default)]
pub(super) struct IncludeGraph {
    /// Every file, with what it includes.
    files: Vec<(String, Vec<Include>)>,
    /// Which files include something of that last component.
    by_name: HashMap<String, Vec<usize>>,
    existing: HashSet<String>,
    /// Makefiles with a file that they name.
    rules: Vec<(String, String)>,
    /// Files that include what a macro names.
    anything: Vec<usize>,
}

/// C files that are included: by path, or as much of it as the include line tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IncludedSources(BTreeSet<String>);

impl IncludedSources {
    /// Whether a file may be one of them.
    pub(super) fn may_have(&self, path: &SourcePath) -> bool {
        let path = path.as_str();
        self.0.iter().any(|name| {
            path.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        })
    }
}

impl IncludeGraph {
    /// The graph of a prepared tree, generated headers included.
    pub(super) fn of_tree(tree: &Tree, jobs: usize) -> Result<Self, CacheError> {
        Ok(Self::parse(&Self::lines(tree, jobs)?))
    }

    /// C files that others include. Most patches change none of them, and need no graph.
    pub(super) fn included_sources(tree: &Tree, jobs: usize) -> Result<IncludedSources, CacheError> {
        let kept = tree.derived("included-sources");
        if let Ok(text) = fs::read_to_string(&kept) {
            return Ok(IncludedSources(text.lines().map(str::to_owned).collect()));
        }
        let sources = Self::of_tree(tree, jobs)?.sources();
        let text: String = sources.0.iter().flat_map(|name| [name, "\n"]).collect();
        durable::publish(&kept, text.as_bytes()).map_err(CacheError::io("write", &kept))?;
        Ok(sources)
    }

    fn sources(&self) -> IncludedSources {
        let mut found = BTreeSet::new();
        for (includer, includes) in &self.files {
            for include in includes {
                let (Include::Quoted(name) | Include::Angled(name)) = include else { continue };
                if name.ends_with(".c") {
                    let beside =
                        normalized(includer.rsplit_once('/').map_or("", |(directory, _)| directory), name);
                    let is_beside = matches!(include, Include::Quoted(_)) && self.existing.contains(&beside);
                    found.insert(if is_beside { beside } else { normalized("", name) });
                }
            }
        }
        IncludedSources(found)
    }

    fn lines(tree: &Tree, jobs: usize) -> Result<String, CacheError> {
        let kept = tree.derived("includes");
        if let Ok(text) = fs::read_to_string(&kept) {
            return Ok(text);
        }
        let mut roots: Vec<(&Path, String)> = Vec::new();
        for entry in list(tree.source())? {
            if !APART.contains(&entry.as_str()) {
                roots.push((tree.source(), entry));
            }
        }
        for generated in ["include/generated", "arch/x86/include/generated"] {
            roots.push((tree.output(), generated.to_owned()));
        }
        let mut paths = Vec::new();
        for (top, below) in roots {
            collect(top, below, &mut paths)?;
        }
        paths.sort();
        let chunks: Vec<_> = paths.chunks(256).collect();
        let texts = jobs::map(jobs, &chunks, |chunk| {
            let mut text = String::new();
            for (top, path) in *chunk {
                let file = top.join(path);
                let content = fs::read(&file).map_err(CacheError::io("read", &file))?;
                text.push_str(path);
                text.push('\n');
                if is_makefile(path) {
                    for name in mentions(path, &content) {
                        text.extend(["%", &name, "\n"]);
                    }
                    continue;
                }
                for include in includes(&content) {
                    match include {
                        Include::Quoted(name) => text.extend(["\"", &name, "\n"]),
                        Include::Angled(name) => text.extend(["<", &name, "\n"]),
                        Include::Anything => text.push_str("*\n"),
                    }
                }
            }
            Ok::<_, CacheError>(text)
        })?;
        let text = texts.concat();
        durable::publish(&kept, text.as_bytes()).map_err(CacheError::io("write", &kept))?;
        Ok(text)
    }

    fn parse(text: &str) -> Self {
        let mut graph = Self::default();
        for line in text.lines() {
            let include = match line.as_bytes().first() {
                Some(b'"') => Include::Quoted(line[1..].to_owned()),
                Some(b'<') => Include::Angled(line[1..].to_owned()),
                Some(b'*') => Include::Anything,
                Some(b'%') => {
                    let makefile = graph.files.last().map(|(name, _)| name.clone()).unwrap_or_default();
                    graph.rules.push((makefile, line[1..].to_owned()));
                    continue;
                }
                _ => {
                    graph.existing.insert(line.to_owned());
                    graph.files.push((line.to_owned(), Vec::new()));
                    continue;
                }
            };
            let Some(index) = graph.files.len().checked_sub(1) else { continue };
            match &include {
                Include::Quoted(name) | Include::Angled(name) => {
                    let last = name.rsplit('/').next().unwrap_or(name);
                    graph.by_name.entry(last.to_owned()).or_default().push(index);
                }
                Include::Anything => graph.anything.push(index),
            }
            graph.files[index].1.push(include);
        }
        graph
    }

    /// Every file that includes `path`, directly or not; not `path` itself.
    pub(super) fn includers(&self, path: &SourcePath) -> BTreeSet<SourcePath> {
        let mut reached: HashSet<usize> = HashSet::new();
        let mut names = vec![path.as_str().to_owned()];
        let mut everything = false;
        while let Some(name) = names.pop() {
            everything |= FORCED.contains(&name.as_str());
            let last = name.rsplit('/').next().unwrap_or(&name);
            for &index in self.by_name.get(last).into_iter().flatten().chain(&self.anything) {
                let (includer, includes) = &self.files[index];
                if !reached.contains(&index)
                    && includes.iter().any(|include| self.may_mean(includer, include, &name))
                {
                    reached.insert(index);
                    names.push(includer.clone());
                }
            }
        }
        let found = self.files.iter().enumerate().filter(|(index, _)| everything || reached.contains(index));
        found.filter_map(|(_, (name, _))| SourcePath::new(name)).filter(|found| found != path).collect()
    }

    /// The Makefiles that name a file.
    pub(super) fn rules_reading(&self, path: &SourcePath) -> Vec<&str> {
        let path = path.as_str();
        let named = self.rules.iter().filter(|(_, name)| match name.split_once('*') {
            None => path == name || path.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('/')),
            Some((start, end)) => {
                path.len() >= start.len() + end.len() && path.starts_with(start) && path.ends_with(end)
            }
        });
        let mut found: Vec<&str> = named.map(|(makefile, _)| makefile.as_str()).collect();
        found.dedup();
        found
    }

    fn may_mean(&self, includer: &str, include: &Include, path: &str) -> bool {
        let (name, quoted) = match include {
            Include::Anything => return true,
            Include::Quoted(name) => (name, true),
            Include::Angled(name) => (name, false),
        };
        if quoted {
            let beside = normalized(includer.rsplit_once('/').map_or("", |(directory, _)| directory), name);
            if beside == path {
                return true;
            }
            if self.existing.contains(&beside) {
                return false;
            }
        }
        let name = normalized("", name);
        path == name || path.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('/'))
    }
}

/// `directory/name` without `.` and `..`; a `..` above the top is dropped.
pub(super) fn normalized(directory: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(name.split('/')) {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn list(directory: &Path) -> Result<Vec<String>, CacheError> {
    let entries = fs::read_dir(directory).map_err(CacheError::io("list", directory))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

fn collect<'t>(top: &'t Path, below: String, paths: &mut Vec<(&'t Path, String)>) -> Result<(), CacheError> {
    let here = top.join(&below);
    if here.is_dir() && !here.is_symlink() {
        for name in list(&here)? {
            collect(top, format!("{below}/{name}"), paths)?;
        }
    } else if [".c", ".h", ".inc", ".S", ".def", ".tbl", ".inl"].iter().any(|end| below.ends_with(end))
        || is_makefile(&below)
    {
        paths.push((top, below));
    }
    Ok(())
}

fn is_makefile(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    // What `usr` says about headers is for checking them.
    !path.starts_with("usr/") && (name.starts_with("Makefile") || name.starts_with("Kbuild"))
}

/// The files of the source that a Makefile names, other than by their last component alone. Objects and directories
/// are not of interest, and what variables stand for is not known, but for those that name the place.
fn mentions(makefile: &str, content: &[u8]) -> Vec<String> {
    let directory = makefile.rsplit_once('/').map_or("", |(directory, _)| directory);
    let text = String::from_utf8_lossy(content)
        .replace("$(srctree)/", " ")
        .replace("$(src)/", &format!(" {directory}/"));
    let mut found: Vec<String> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.contains("header-test"))
        .flat_map(|line| {
            line.split(|character: char| character.is_whitespace() || "():=,'\"".contains(character))
        })
        .filter(|word| {
            let last = word.rsplit('/').next().unwrap_or(word);
            let end = last.rsplit_once('.').map_or("", |(_, end)| end);
            word.contains('/') && matches!(end, "h" | "c" | "S" | "uc" | "txt" | "inc" | "def" | "map")
        })
        .map(|word| normalized("", word))
        .filter(|name| name.contains('/') && name.split('*').count() <= 2)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The include lines of a file.
fn includes(content: &[u8]) -> Vec<Include> {
    let mut found = Vec::new();
    for at in memmem::find_iter(content, b"include") {
        // Only blanks before the `#`, which begins the line, and between it and the word.
        let before = content[..at].trim_ascii_end_blank();
        let Some((b'#', indent)) = before.split_last() else { continue };
        if !matches!(indent.trim_ascii_end_blank().last(), None | Some(b'\n')) {
            continue;
        }
        let rest = &content[at + "include".len()..];
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
        let closed = |end: u8| {
            let length = line.iter().skip(1).position(|byte| *byte == end)?;
            std::str::from_utf8(&line[1..=length]).ok().map(str::to_owned)
        };
        found.push(match line.first() {
            Some(b'"') => closed(b'"').map_or(Include::Anything, Include::Quoted),
            Some(b'<') => closed(b'>').map_or(Include::Anything, Include::Angled),
            // include/trace/define_trace.h: the header that includes it, once more.
            Some(_) if line.starts_with(b"TRACE_INCLUDE") => continue,
            // `#include_next` and words that only begin like it.
            Some(byte) if rest.first() == Some(byte) && !byte.is_ascii_whitespace() => continue,
            Some(_) => Include::Anything,
            None => continue,
        });
    }
    found
}

trait TrimBlanks {
    fn trim_ascii_end_blank(&self) -> &[u8];
}

impl TrimBlanks for [u8] {
    fn trim_ascii_end_blank(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
        &self[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> SourcePath {
        SourcePath::new(path).unwrap()
    }

    #[test]
    fn include_lines_are_found_in_all_their_forms() {
        let text = b"#include <a.h>\n  #  include \"b/c.h\" /* x */\n// #include <no.h>\nint include = 1;\n#include NAME\n#include TRACE_INCLUDE(X)\n#include\t<d.h>";
        assert_eq!(
            includes(text),
            [
                Include::Angled("a.h".into()),
                Include::Quoted("b/c.h".into()),
                Include::Anything,
                Include::Angled("d.h".into())
            ]
        );
    }

    #[test]
    fn includers_are_followed_to_the_units() {
        let graph = IncludeGraph::parse(
            "fs/a.c\n\"internal.h\nfs/internal.h\n<linux/x.h\nmm/b.c\n\"internal.h\nmm/internal.h\n\
             include/linux/x.h\narch/x86/include/generated/asm/x.h\n<asm-generic/y.h\nmm/c.c\n<asm/x.h\n",
        );
        assert_eq!(
            graph.includers(&path("include/linux/x.h")),
            [path("fs/a.c"), path("fs/internal.h")].into()
        );
        assert_eq!(graph.includers(&path("mm/internal.h")), [path("mm/b.c")].into());
        let through_generated = graph.includers(&path("include/asm-generic/y.h"));
        assert!(through_generated.contains(&path("mm/c.c")));
    }

    #[test]
    fn a_forced_header_and_a_macro_reach_every_unit() {
        let graph = IncludeGraph::parse("fs/a.c\n<linux/x.h\nfs/b.c\n*\n");
        assert_eq!(graph.includers(&path("include/linux/kconfig.h")).len(), 2);
        assert_eq!(graph.includers(&path("fs/any.h")), [path("fs/b.c")].into());
    }

    #[test]
    fn rules_that_read_a_header_are_found_by_its_name() {
        let text = b"# $(srctree)/include/no.h\nfeature = $(src)/../../include/asm/f.h\n\
            $(obj)/t.c: $(srctree)/include/linux/o.h $(obj)/x.h\n$(out)/y.h: $(srctree)/include/xen/xen*.h\n";
        let names = mentions("arch/x86/kernel/cpu/Makefile", text);
        assert_eq!(names, ["arch/x86/include/asm/f.h", "include/linux/o.h", "include/xen/xen*.h"]);
        let graph = IncludeGraph::parse("lib/Makefile\n%include/linux/o.h\n%include/xen/xen*.h\nlib/a.c\n");
        assert_eq!(graph.rules_reading(&path("include/linux/o.h")), ["lib/Makefile"]);
        assert_eq!(graph.rules_reading(&path("include/xen/xen-mca.h")), ["lib/Makefile"]);
        assert!(graph.rules_reading(&path("include/linux/no.h")).is_empty());
    }

    #[test]
    fn a_source_that_is_included_is_told_from_its_namesakes() {
        let graph = IncludeGraph::parse(
            "arch/boot/cmdline.c\narch/boot/c/cmdline.c\n\"../cmdline.c\nvdso/v.c\n\"../../lib/gettimeofday.c\nfs/proc/cmdline.c\n",
        );
        let sources = graph.sources();
        assert!(
            sources.may_have(&path("arch/boot/cmdline.c")) && sources.may_have(&path("lib/gettimeofday.c"))
        );
        assert!(
            !sources.may_have(&path("fs/proc/cmdline.c"))
                && !sources.may_have(&path("arch/boot/c/cmdline.c"))
        );
    }
}
