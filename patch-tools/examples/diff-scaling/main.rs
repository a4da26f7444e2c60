//! Time and memory of a comparison as objects grow: `cargo run --release --example diff-scaling`.
//!
//! Makes pairs of objects of 1,000 to 8,000 functions, in the image of what gcc and objtool make of kernel
//! code, and compares each in a process of its own, so that the peak of its memory is its own. In the patched
//! object one function in a hundred is changed and one is new, so that everything behind it has moved. If
//! `create-diff-object` of kpatch is on the PATH, it compares the same objects.
//!
//! Sizes can be given as arguments; `--write DIR SIZE` leaves a pair of objects there.

mod generate;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use generate::{Version, object};
use patch_tools::diff::{Options, Verdict, compare};
use patch_tools::module::ObjectName;

/// How often a comparison is timed; the best counts, since everything else is noise.
const ROUNDS: u32 = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [one, size] if one == "--one" => measure(size.parse().unwrap(), Version::Patched),
        [all, size] if all == "--all" => measure(size.parse().unwrap(), Version::Rewritten),
        [write, directory, size] if write == "--write" => {
            leave(Path::new(directory), size.parse().unwrap(), Version::Patched);
        }
        [write, directory, size] if write == "--write-all" => {
            leave(Path::new(directory), size.parse().unwrap(), Version::Rewritten);
        }
        [] => table(&[1000, 2000, 4000, 8000]),
        sizes => table(&sizes.iter().map(|size| size.parse().unwrap()).collect::<Vec<_>>()),
    }
}

/// Time that this thread has been on a processor: what others do on the machine does not count.
///
/// The first field of `/proc/thread-self/schedstat`, in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn now() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().and_then(|field| field.parse().ok()).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "this program measures")]
fn wall() -> Instant {
    Instant::now()
}

/// Prints a row for each size, measured in a child process.
fn table(sizes: &[usize]) {
    println!("functions  both objects  CPU time  per function  peak memory  over inputs");
    for size in sizes {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--one", &size.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    if let Some(tool) = on_path("create-diff-object") {
        println!("create-diff-object on the same objects:");
        sizes.iter().for_each(|&size| compare_with(&tool, size));
    } else {
        println!("create-diff-object is not on the PATH");
    }
}

/// Compares one pair and prints its row.
fn measure(size: usize, version: Version) {
    let directory = tempfile::tempdir().unwrap();
    let (before, after) = files(directory.path());
    // The generator's memory is not the comparison's: let another process make the files.
    let written = Command::new(std::env::current_exe().unwrap())
        .arg(if version == Version::Rewritten { "--write-all" } else { "--write" })
        .arg(directory.path())
        .arg(size.to_string())
        .status()
        .unwrap();
    assert!(written.success());
    let idle = peak_memory();
    let (orig, patched) = (std::fs::read(before).unwrap(), std::fs::read(after).unwrap());
    let inputs = orig.len() + patched.len();
    let mut best = Duration::MAX;
    let mut peak = 0;
    for _ in 0..ROUNDS {
        let start = now();
        let diff = compare(&orig, &patched, &Options::new(ObjectName::Vmlinux)).unwrap();
        best = best.min(now() - start);
        assert_eq!(diff.report().verdict, Verdict::Changed);
        let changed = if version == Version::Rewritten { size } else { size / 100 };
        assert_eq!(diff.report().changed_functions.len(), changed);
        assert_eq!(diff.report().new_functions, ["inserted"]);
        if peak == 0 {
            peak = peak_memory();
        }
    }
    println!(
        "{size:>9}  {:>8.2} MiB  {:>6.1} ms  {:>9.2} us  {:>7.2} MiB  {:>10.2}",
        mib(inputs),
        best.as_secs_f64() * 1e3,
        best.as_secs_f64() * 1e6 / size as f64,
        mib(peak),
        (peak - idle) as f64 / inputs as f64
    );
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The most memory that this process has had, in bytes (`VmHWM` in `/proc/self/status`).
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn files(directory: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    (directory.join("orig.o"), directory.join("patched.o"))
}

fn leave(directory: &Path, size: usize, patched: Version) {
    let (before, after) = files(directory);
    std::fs::write(before, object(size, Version::Original)).unwrap();
    std::fs::write(after, object(size, patched)).unwrap();
}

fn on_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Runs kpatch's differ on the same pair. It wants the symbols of the parent object as readelf prints them, and
/// the sizes of the kernel's structures in its environment.
fn compare_with(tool: &Path, size: usize) {
    let directory = tempfile::tempdir().unwrap();
    leave(directory.path(), size, Version::Patched);
    let (before, after) = files(directory.path());
    let symbols = directory.path().join("symtab");
    let text = Command::new("readelf").args(["-s", "--wide"]).arg(&before).output().unwrap().stdout;
    std::fs::write(&symbols, text).unwrap();
    std::fs::write(directory.path().join("symvers"), "").unwrap();
    let start = wall();
    let output = Command::new(tool)
        .args([&before, &after])
        .arg("vmlinux")
        .arg(&symbols)
        .arg(directory.path().join("symvers"))
        .arg("scaling")
        .arg(directory.path().join("out.o"))
        .env("ALT_STRUCT_SIZE", "12")
        .env("BUG_STRUCT_SIZE", "12")
        .env("EX_STRUCT_SIZE", "12")
        .env("JUMP_STRUCT_SIZE", "16")
        .env("ORC_STRUCT_SIZE", "6")
        .env("PARA_STRUCT_SIZE", "16")
        .env("STATIC_CALL_STRUCT_SIZE", "8")
        .output()
        .unwrap();
    println!(
        "{size:>9}  {:>6.1} ms of wall-clock time  ({})",
        start.elapsed().as_secs_f64() * 1e3,
        output.status
    );
}
