//! Proof by real fixes: what came in a later version of a kernel's source is made into livepatches for the stock
//! kernel of an earlier one, which is booted, patched, used and put back.
//!
//! | module | what |
//! |---|---|
//! | `sources` | the two packaged sources, reduced to what differs |
//! | `selection` | which files, in which order |
//! | `carry` | which fixes a livepatch can carry, told by the source alone |
//! | `patches` | a patch for one file, with hunks of headers where it needs them |
//! | `building` | `patch-tools build`, and what came of it |
//! | `rules` | which refusals are right |
//! | `trial` | load, wait, use, disable, wait, unload; the kernel's log |
//! | `report` | counts, files, times |
//!
//! The report goes to files outside of the repository. Nothing of the kernel's sources is kept but in the lab's
//! cache.

mod building;
mod carry;
mod patches;
mod report;
mod rules;
mod selection;
mod sources;
mod trial;

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use anyhow::{Context, Result, ensure};

pub use building::Change;
use building::{Attempt, Builder};
use carry::Carry;
use report::Row;
pub use report::{Counts, Report};
use selection::{Candidate, candidates};
use sources::Sources;
use trial::Bench;

use crate::exam::Share;
use crate::lab::apt::Apt;
use crate::lab::{Lab, kernel};
use crate::product::Product;

/// What to prove.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kernel that is patched.
    pub kernel: String,
    /// The version of its source package that has the fixes; the newest if not given.
    pub later: Option<String>,
    /// What is done to each file.
    pub change: Change,
    /// How many fixes that count to try.
    pub limit: usize,
    /// Only these files.
    pub only: Vec<String>,
    /// So many files are looked at, in the order in which they are chosen.
    pub files: usize,
    /// Which of these.
    pub share: Share,
    /// `patch-tools`; built from this workspace if not given.
    pub program: Option<PathBuf>,
    /// The report: this file as Markdown, and beside it as JSON.
    pub report: PathBuf,
    /// Fixes that are built at once, each with one compiler.
    pub jobs: usize,
    /// Picks the refusals that the report argues.
    pub seed: u64,
    /// Whether an earlier run's report is gone on with.
    pub beginning: Beginning,
}

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// With the first fix.
    Anew,
    /// After those in the report, if there is one.
    Resumed,
}

/// Builds and tries fixes, and writes the report.
///
/// # Errors
/// If the sources or the lab are not to be had. A fix that fails is in the report.
pub fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => Product::one_for_users("patch-tools", "patch-tools")?,
    };
    let package = sources::source_package(&options.kernel)?;
    let apt = Apt::open(lab.cache())?;
    let old = kernel::image_version(&apt, &options.kernel)?;
    let new = match &options.later {
        Some(version) => version.clone(),
        None => {
            apt.versions(&package)?.into_iter().next().with_context(|| format!("no suite has {package}"))?
        }
    };
    let sources = Sources::prepare(lab.cache(), &apt, &package, &old, &new)?;
    let mut chosen = candidates(&sources.differing);
    if !options.only.is_empty() {
        chosen.retain(|candidate| options.only.contains(&candidate.path));
        ensure!(!chosen.is_empty(), "none of the files differs between {old} and {new} and is ours to see");
    }
    chosen.truncate(options.files);
    let mut number = 0..;
    chosen.retain(|_| number.next().is_some_and(|number| options.share.takes(number)));
    eprintln!("{} files differ between {old} and {new} and are ours to see", chosen.len());
    let work = tempfile::tempdir()?;
    let builder = Builder {
        program: &program,
        sources: &sources,
        release: &options.kernel,
        change: options.change,
        work: work.path(),
    };
    let mut report = Report {
        kernel: options.kernel.clone(),
        change: options.change,
        package,
        old,
        new,
        machines: 0,
        spent: 0.0,
        rows: Vec::new(),
    };
    let beside = options.report.with_extension("json");
    if options.beginning == Beginning::Resumed && beside.is_file() {
        report
            .resume(&fs::read_to_string(&beside)?)
            .with_context(|| format!("going on with {}", beside.display()))?;
        for row in &mut report.rows {
            row.carry = builder.carry(&row.path)?;
        }
        chosen.retain(|candidate| report.rows.iter().all(|row| row.path != candidate.path));
    }
    let done = report.rows.iter().filter(|row| row.build.outcome.counts()).count();
    let machines = report.machines;
    let spent = report.spent;
    let mut bench = Bench::new(lab, &options.kernel);
    // Fixes are compiled while others are being tried.
    let queue = Mutex::new(VecDeque::from(chosen));
    let counted = AtomicUsize::new(done);
    thread::scope(|scope| -> Result<()> {
        let (sender, built) = mpsc::channel::<(Candidate, Result<(Carry, Attempt)>)>();
        let (builder, limit, queue, counted) = (&builder, options.limit, &queue, &counted);
        for _ in 0..options.jobs {
            let sender = sender.clone();
            scope.spawn(move || {
                let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
                while counted.load(Ordering::Relaxed) < limit
                    && let Some(candidate) = next()
                {
                    let attempt = builder.judged_attempt(&candidate);
                    if let Ok((carry, attempt)) = &attempt {
                        eprintln!(
                            "build {} (livepatch {carry}): {}",
                            candidate.path,
                            attempt.outcome.words()
                        );
                        counted.fetch_add(usize::from(attempt.outcome.counts()), Ordering::Relaxed);
                    }
                    // The other side goes away when it fails.
                    if sender.send((candidate, attempt)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting: Vec<Row> = Vec::new();
        let mut more = true;
        while more {
            match built.recv() {
                Ok((candidate, attempt)) => {
                    let (carry, build) = attempt.with_context(|| format!("building {}", candidate.path))?;
                    waiting.push(Row {
                        path: candidate.path,
                        area: candidate.area,
                        carry,
                        build,
                        trial: None,
                    });
                }
                Err(mpsc::RecvError) => more = false,
            }
            if !more || waiting.iter().filter(|row| row.module().is_some()).count() == trial::COMPANY {
                try_out(&mut bench, &mut waiting)?;
                report.rows.append(&mut waiting);
                report.machines = machines + bench.machines;
                report.spent = spent + bench.spent.as_secs_f64();
                write(&report, options)?;
            }
        }
        Ok(())
    })?;
    Ok(report)
}

/// Tries what was built, together.
fn try_out(bench: &mut Bench<'_>, rows: &mut [Row]) -> Result<()> {
    let modules: Vec<_> = rows.iter().filter_map(|row| Some((row.module()?, row.area))).collect();
    if modules.is_empty() {
        return Ok(());
    }
    let trials = bench.try_out(&modules)?;
    for (row, trial) in rows.iter_mut().filter(|row| row.module().is_some()).zip(trials) {
        row.trial = Some(trial);
        eprintln!("trial {}: {}", row.path, row.words());
    }
    Ok(())
}

/// Writes the report as far as it has come, so that a long run can be looked at.
fn write(report: &Report, options: &Options) -> Result<()> {
    let path = options.report.as_path();
    fs::write(path, report.markdown(options.seed)).with_context(|| format!("writing {}", path.display()))?;
    let beside = path.with_extension("json");
    fs::write(&beside, report.json()?).with_context(|| format!("writing {}", beside.display()))?;
    Ok(())
}
