//! How long a livepatch takes to build, by phase, and beside it the bare compiles of the same file:
//! `cargo run --release -p patch-tools --example build-times -- RELEASE [--cold DIR]`
//!
//! Warm: packages and tree are there, and each file is built as if for the first time; the shortest of three runs. The
//! bare compiles are the file's own command line from the provenance record, run for two versions at once, and
//! objtool after each, as kbuild does. With `--cold` a build in an empty cache comes first, with packages copied from
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
    ("fs/namei.c", "\tif (unlikely(!name->uptr))\n"),
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
    let patches: Vec<PatchInput> = FILES.iter().filter_map(|(path, at)| patch(&tree, path, at)).collect();
    let first = patches.first().context("none of the files is in this kernel as it is expected to be")?;
    if let Some(directory) = cold {
        print_cold(&cache, &directory, &request(&choice, first))?;
    }
    print!("{:<20}", "warm, seconds");
    for phase in Phase::ALL {
        print!("{:>10}", format!("{phase:?}").to_lowercase());
    }
    println!("{:>10}{:>10}{:>8}", "all", "bare", "ratio");
    for patch in &patches {
        print_warm(&cache, &tree, &request(&choice, patch))?;
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
        replace: Replace::None,
        fixes: Vec::new(),
        jobs: JOBS,
        unit_limit: 600,
    }
}

fn print_warm(cache: &Cache, tree: &Tree, request: &Request) -> Result<()> {
    let mut best: Option<Built> = None;
    let all = |built: &Built| built.report.seconds.values().sum::<f64>();
    for _ in 0..RUNS {
        forget_objects(tree)?;
        let built = build(cache, request, &Quiet)?;
        if best.as_ref().is_none_or(|best| all(&built) < all(best)) {
            best = Some(built);
        }
    }
    let best = best.context("no run")?;
    let commands = bare::Commands::of(&best.provenance, tree)?;
    let mut shortest = Duration::MAX;
    for _ in 0..RUNS {
        let start = now();
        commands.run_twice()?;
        shortest = shortest.min(start.elapsed());
    }
    print!("{:<20}", best.report.units[0].source);
    for phase in Phase::ALL {
        print!("{:>10.3}", best.report.seconds.get(&phase).copied().unwrap_or_default());
    }
    let bare = shortest.as_secs_f64();
    println!("{:>10.3}{bare:>10.3}{:>8.2}", all(&best), all(&best) / bare);
    Ok(())
}

/// What earlier builds have kept of compiled originals.
fn forget_objects(tree: &Tree) -> Result<()> {
    let kept = tree.output().with_file_name("objects");
    if kept.exists() {
        fs::remove_dir_all(&kept)?;
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
    let start = now();
    build(&cache, request, &steps)?;
    let end = now();
    let started = steps.started.into_inner().unwrap_or_default();
    println!("cold, seconds");
    for (index, (at, step)) in started.iter().enumerate() {
        let next = started.get(index + 1).map_or(end, |(next, _)| *next);
        println!("{:>10.1}  {step}", (next - *at).as_secs_f64());
    }
    println!("{:>10.1}  all", (end - start).as_secs_f64());
    Ok(())
}
