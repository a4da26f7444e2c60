//! How long a livepatch takes to build, by phase, and beside it the bare compiles of the same file:
//! `cargo run --release -p patch-tools --example build-times -- RELEASE [--cold DIR]`
//!
//! Warm: packages and tree are there, and each file is built as if for the first time; the shortest of three runs. The
//! bare compiles are the file's own command line from the provenance record, run for two versions at once, and
//! objtool after each, as kbuild does. Both are told in seconds that passed and in seconds of processor time, which
//! says more on a machine that does other things, too. With `--cold` a build in an empty cache comes first, with packages copied from
//! the user's cache, so that it has everything but the download; DIR must not exist and is left for inspection.

mod bare;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use manifests::{KernelRelease, Replace};
use patch_tools::build::cache::Cache;
use patch_tools::build::kernel::{Kernel, KernelChoice};
use patch_tools::build::progress::{Phase, Progress, Quiet};
use patch_tools::build::tree::Tree;
use patch_tools::build::{Built, PatchInput, Request, build};

/// Files from small to large, each with a function to which a line is added.
const FILES: [(&str, &str); 4] = [
    ("fs/proc/cmdline.c", "\tseq_putc(m, '\\n');\n"),
    ("fs/minix/dir.c", "\tif (pos >= inode->i_size)\n"),
    ("fs/pipe.c", "\t__pipe_lock(pipe);\n"),
    ("fs/namei.c", "\tretval = do_inode_permission(mnt_userns, inode, mask);\n"),
];
const JOBS: usize = 2;
const RUNS: usize = 3;

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (release, cold) = match &arguments[..] {
        [release] => (release, None),
        [release, option, directory] if option == "--cold" => (release, Some(PathBuf::from(directory))),
        _ => bail!("expected RELEASE [--cold DIR]"),
    };
    let release: KernelRelease = release.parse()?;
    let cache = Cache::of_user()?;
    let choice = KernelChoice::Packages(release.clone());
    let kernel = Kernel::obtain(&cache, &choice, &Quiet)?;
    let tree = Tree::obtain(&cache, &kernel.tree, JOBS, &Quiet)?;
    let patches: Vec<(&str, PatchInput)> =
        FILES.iter().filter_map(|(path, at)| Some((*path, patch(&tree, path, at)?))).collect();
    let (_, first) =
        patches.first().context("none of the files is in this kernel as it is expected to be")?;
    if let Some(directory) = cold {
        print_cold(&cache, &directory, &request(&choice, first))?;
    }
    print!("{:<20}", "warm, seconds");
    for phase in Phase::ALL {
        print!("{:>10}", format!("{phase:?}").to_lowercase());
    }
    println!("{:>10}{:>10}{:>8}{:>10}{:>10}{:>8}", "all", "bare", "ratio", "cpu", "bare cpu", "ratio");
    for (path, patch) in &patches {
        print_warm(&cache, &tree, path, &request(&choice, patch))?;
    }
    Ok(())
}

/// A line more before the first `at`; nothing if the file has no such line.
fn patch(tree: &Tree, path: &str, at: &str) -> Option<PatchInput> {
    let text = fs::read_to_string(tree.source().join(path)).ok()?;
    let line = text[..text.find(at)?].lines().count();
    let content = format!(
        "--- a/{path}\n+++ b/{path}\n@@ -{},0 +{} @@\n+\tbarrier(); WRITE_ONCE(jiffies, READ_ONCE(jiffies));\n",
        line,
        line + 1
    );
    Some(PatchInput { name: format!("{}.patch", path.replace('/', "-")), content: content.into_bytes() })
}

fn request(kernel: &KernelChoice, patch: &PatchInput) -> Request {
    Request {
        kernel: kernel.clone(),
        patches: vec![patch.clone()],
        name: None,
        label: None,
        replace: Replace::None,
        fixes: Vec::new(),
        fixed_in: Vec::new(),
        jobs: JOBS,
        unit_limit: 600,
    }
}

/// Seconds that passed, and seconds of processor time of this process and of those that it ran.
#[derive(Debug, Clone, Copy)]
struct Cost {
    passed: f64,
    processor: f64,
}

/// What `work` costs; of several runs the least of each kind.
fn least<T>(mut work: impl FnMut() -> Result<T>) -> Result<(Cost, T)> {
    let mut least: Option<(Cost, T)> = None;
    for _ in 0..RUNS {
        let (start, before) = (now(), processor_seconds()?);
        let result = work()?;
        let cost = Cost { passed: start.elapsed().as_secs_f64(), processor: processor_seconds()? - before };
        least = Some(match least {
            None => (cost, result),
            Some((known, kept)) => {
                let processor = known.processor.min(cost.processor);
                match known.passed <= cost.passed {
                    true => (Cost { processor, ..known }, kept),
                    false => (Cost { processor, ..cost }, result),
                }
            }
        });
    }
    least.context("no run")
}

/// `utime`, `stime`, `cutime` and `cstime` of proc(5), which count hundredths of a second.
fn processor_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let fields = text.rsplit_once(") ").context("the name's end in /proc/self/stat")?.1;
    let ticks: u64 = fields.split(' ').skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

fn print_warm(cache: &Cache, tree: &Tree, path: &str, request: &Request) -> Result<()> {
    let (all, best) = least(|| {
        forget_objects(tree, path)?;
        Ok::<Built, anyhow::Error>(build(cache, request, &Quiet)?)
    })?;
    let commands = bare::Commands::of(&best.provenance, tree)?;
    let (bare, ()) = least(|| commands.run_twice())?;
    print!("{:<20}", best.report.units[0].source);
    for phase in Phase::ALL {
        print!("{:>10.3}", best.report.seconds.get(&phase).copied().unwrap_or_default());
    }
    print!("{:>10.3}{:>10.3}{:>8.2}", all.passed, bare.passed, all.passed / bare.passed);
    println!("{:>10.2}{:>10.2}{:>8.2}", all.processor, bare.processor, all.processor / bare.processor);
    Ok(())
}

/// Removes what earlier builds have kept of a file's original.
fn forget_objects(tree: &Tree, path: &str) -> Result<()> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let directory = tree.output().with_file_name("objects").join(directory);
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let kept = entry?.path();
        if kept.file_name().is_some_and(|kept| kept.to_string_lossy().starts_with(&format!("{name}."))) {
            fs::remove_file(kept)?;
        }
    }
    Ok(())
}

/// Steps with the time that each took.
struct Steps {
    started: Mutex<Vec<(Instant, String)>>,
}

impl Progress for Steps {
    fn step(&self, text: &str) {
        if let Ok(mut started) = self.started.lock() {
            started.push((now(), text.to_owned()));
        }
    }

    fn timed(&self, _: Phase, _: Duration) {}

    fn warning(&self, _: &str) {}
}

fn print_cold(warm: &Cache, directory: &Path, request: &Request) -> Result<()> {
    fs::create_dir(directory).context("the directory for the cold cache")?;
    let cache = Cache::at(std::path::absolute(directory)?);
    fs::create_dir_all(cache.packages())?;
    for entry in fs::read_dir(warm.packages())? {
        let entry = entry?;
        fs::copy(entry.path(), cache.packages().join(entry.file_name()))?;
    }
    let steps = Steps { started: Mutex::default() };
    let (start, before) = (now(), processor_seconds()?);
    build(&cache, request, &steps)?;
    let (end, processor) = (now(), processor_seconds()? - before);
    let started = steps.started.into_inner().unwrap_or_default();
    println!("cold, seconds");
    for (index, (at, step)) in started.iter().enumerate() {
        let next = started.get(index + 1).map_or(end, |(next, _)| *next);
        println!("{:>10.1}  {step}", (next - *at).as_secs_f64());
    }
    println!("{:>10.1}  all, {processor:.1} of processor time", (end - start).as_secs_f64());
    Ok(())
}
