//! How long a kernel image takes to read, by part:
//! `cargo run --release -p patch-tools --example image-times -- /boot/vmlinuz-RELEASE`

use std::time::{Duration, Instant};

use patch_tools::image::{KernelImage, decompress};

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}

/// The shortest of several runs: what the work takes when nothing else is in the way.
fn shortest<T>(mut work: impl FnMut() -> T) -> (Duration, T) {
    let mut best: Option<(Duration, T)> = None;
    for _ in 0..5 {
        let start = now();
        let result = work();
        let taken = start.elapsed();
        if best.as_ref().is_none_or(|(shortest, _)| taken < *shortest) {
            best = Some((taken, result));
        }
    }
    best.expect("five runs")
}

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/boot/vmlinuz".to_owned());
    let file = std::fs::read(path)?;
    let (unpacking, kernel) = shortest(|| decompress(&file));
    let kernel = kernel?;
    let (reading, image) = shortest(|| KernelImage::parse(&kernel));
    let image = image?;
    let (types, btf) = shortest(|| image.btf().map(|btf| btf.map_or(0, |btf| btf.len())));
    println!("decompress           {unpacking:>10.1?}  {} -> {} bytes", file.len(), kernel.len());
    let (symbols, exports) = (image.kallsyms().len(), image.exports().len());
    println!("kallsyms and exports {reading:>10.1?}  {symbols} symbols, {exports} exports");
    println!("BTF                  {types:>10.1?}  {} types", btf?);
    println!("all                  {:>10.1?}", unpacking + reading + types);
    Ok(())
}
