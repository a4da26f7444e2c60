//! `fuzz list`, `fuzz corpus TARGET FOLDER` and `fuzz mutate TARGET SEED SECONDS`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fuzz::mutate::mutant;
use fuzz::random::Random;
use fuzz::{TARGETS, Target};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.longest)),
        ["corpus", name, folder] => write_corpus(Target::named(name)?, Path::new(folder))?,
        ["mutate", name, seed, seconds] => {
            let time = Duration::from_secs(seconds.parse().context("SECONDS should be a number")?);
            mutate(Target::named(name)?, seed.parse().context("SEED should be a number")?, time)?;
        }
        _ => bail!("expected `list`, `corpus TARGET FOLDER` or `mutate TARGET SEED SECONDS`"),
    }
    Ok(())
}

/// Writes the inputs to begin with as files, for libFuzzer.
fn write_corpus(target: &Target, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (number, input) in target.corpus()?.iter().enumerate() {
        fs::write(folder.join(format!("{number:04}")), input)?;
    }
    Ok(())
}

/// Runs the target on blind mutants until the time is over. What a mutant does to this program ends it, and the mutant
/// is then in the file that was named.
fn mutate(target: &Target, seed: u64, time: Duration) -> Result<()> {
    let corpus = target.corpus()?;
    let current = std::env::temp_dir().join(format!("fuzz-{}-{}", target.name, std::process::id()));
    println!("if this ends early, {} has the input", current.display());
    let mut random = Random::from_seed(seed);
    let begun = Instant::now();
    let mut runs = 0_u64;
    while begun.elapsed() < time {
        let (one, other) = (random.below(corpus.len()), random.below(corpus.len()));
        let input = mutant(&corpus[one], &corpus[other], target.longest, &mut random);
        fs::write(&current, &input)?;
        target.run(&input);
        runs += 1;
    }
    fs::remove_file(&current)?;
    println!("{}: {runs} inputs in {} s", target.name, time.as_secs());
    Ok(())
}
