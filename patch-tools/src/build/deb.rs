//! Unpacks Debian packages in one pass, without dpkg and without root.
//!
//! A package is an `ar` archive (deb(5)) whose `data.tar.*` member holds the files. Only what the caller
//! selects is written. Owners, modes and times in the archive are not restored: what is unpacked is read by
//! a compiler, not installed. Names that would leave the target directory are errors. Decompression runs in
//! a thread of its own beside the writing of files.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// A package that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[error("cannot unpack {}", package.display())]
pub struct UnpackError {
    /// The package.
    pub package: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Writes the files of a package for which `target` returns a path; `target` gets the name without `./`.
pub(crate) fn unpack(
    package: &Path,
    target: impl FnMut(&Path) -> Option<PathBuf>,
) -> Result<(), UnpackError> {
    let unpack = || {
        let (name, data) = data_member(BufReader::new(File::open(package)?))?;
        write(decompressed(&name, data)?, target)
    };
    unpack().map_err(|source| UnpackError { package: package.to_owned(), source })
}

/// As [`unpack`], but the files are in a compressed archive that is one file of the package: how the kernel's
/// source is packaged. `inner` chooses that file.
pub(crate) fn unpack_inner(
    package: &Path,
    inner: impl Fn(&Path) -> bool,
    target: impl FnMut(&Path) -> Option<PathBuf> + Send,
) -> Result<(), UnpackError> {
    let unpack = || {
        let (name, data) = data_member(BufReader::new(File::open(package)?))?;
        let mut archive = tar::Archive::new(decompressed(&name, data)?);
        for entry in archive.entries()? {
            let entry = entry?;
            let path = entry.path()?.into_owned();
            if inner(&path) {
                return thread::scope(|scope| {
                    let (sender, receiver) = sync_channel(16);
                    let name = path.to_string_lossy().into_owned();
                    let writer =
                        scope.spawn(move || write(decompressed(&name, Chunks::new(receiver))?, target));
                    let mut entry = entry;
                    // The writer ends early when it fails; its error is the one to report.
                    while let Some(chunk) = read_chunk(&mut entry)? {
                        if sender.send(chunk).is_err() {
                            break;
                        }
                    }
                    drop(sender);
                    writer.join().unwrap_or_else(|_| Err(io::Error::other("the unpacking thread panicked")))
                });
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "the source archive is not in the package"))
    };
    unpack().map_err(|source| UnpackError { package: package.to_owned(), source })
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// The name and content of the `data.tar.*` member.
fn data_member<R: Read>(mut file: R) -> io::Result<(String, io::Take<R>)> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic)?;
    if &magic != b"!<arch>\n" {
        return Err(invalid("not a Debian package: the ar magic is missing"));
    }
    loop {
        // name[16] date[12] uid[6] gid[6] mode[8] size[10] "`\n"
        let mut header = [0; 60];
        file.read_exact(&mut header)?;
        if &header[58..] != b"`\n" {
            return Err(invalid("a member header of the package is malformed"));
        }
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
        let name = text(0..16).trim_end_matches('/').to_owned();
        let size: u64 =
            text(48..58).parse().map_err(|_| invalid("a member size of the package is no number"))?;
        if name.starts_with("data.tar") {
            return Ok((name, file.take(size)));
        }
        let padded = size + size % 2;
        if io::copy(&mut (&mut file).take(padded), &mut io::sink())? != padded {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn decompressed<R: Read + Send + 'static>(name: &str, data: R) -> io::Result<Box<dyn Read>> {
    let decoder: Box<dyn Read + Send> = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(data)),
        Some("zst") => Box::new(zstd::Decoder::new(data)?),
        Some("gz") => Box::new(flate2::read::GzDecoder::new(data)),
        Some("tar") => return Ok(Box::new(data)),
        _ => return Err(invalid(format!("{name} is compressed in a way that is not known"))),
    };
    Ok(Box::new(ahead(decoder)))
}

/// Reads ahead in a thread of its own.
fn ahead(mut source: Box<dyn Read + Send>) -> Chunks {
    let (sender, receiver) = sync_channel(16);
    thread::spawn(move || {
        loop {
            let chunk = read_chunk(&mut source).transpose();
            let Some(chunk) = chunk else { break };
            let failed = chunk.is_err();
            // The reader may be gone: it has what it wanted.
            if sender.send(chunk).is_err() || failed {
                break;
            }
        }
    });
    Chunks { receiver: Source::Fallible(receiver), chunk: Vec::new(), at: 0 }
}

fn read_chunk(source: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut chunk = Vec::with_capacity(1 << 18);
    source.take(1 << 18).read_to_end(&mut chunk)?;
    Ok((!chunk.is_empty()).then_some(chunk))
}

enum Source {
    Plain(Receiver<Vec<u8>>),
    Fallible(Receiver<io::Result<Vec<u8>>>),
}

/// The reading end of a channel of chunks.
struct Chunks {
    receiver: Source,
    chunk: Vec<u8>,
    at: usize,
}

impl Chunks {
    fn new(receiver: Receiver<Vec<u8>>) -> Self {
        Self { receiver: Source::Plain(receiver), chunk: Vec::new(), at: 0 }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let next = match &self.receiver {
                Source::Plain(receiver) => receiver.recv().map(Ok),
                Source::Fallible(receiver) => receiver.recv(),
            };
            match next {
                Ok(chunk) => (self.chunk, self.at) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn write(data: impl Read, mut target: impl FnMut(&Path) -> Option<PathBuf>) -> io::Result<()> {
    let mut archive = tar::Archive::new(data);
    let mut last_parent = PathBuf::new();
    let mut links: HashSet<PathBuf> = HashSet::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_symlink() || kind.is_hard_link()) {
            continue;
        }
        let name = entry.path()?.into_owned();
        let name = below(&name)?;
        if !links.is_empty() && name.ancestors().skip(1).any(|parent| links.contains(parent)) {
            return Err(invalid(format!("{} lies below a symbolic link of the package", name.display())));
        }
        let Some(path) = target(name) else { continue };
        if let Some(parent) = path.parent()
            && parent != last_parent
        {
            fs::create_dir_all(parent)?;
            last_parent = parent.to_owned();
        }
        if kind.is_symlink() {
            let link = entry.link_name()?.ok_or_else(|| invalid("a symbolic link without a target"))?;
            std::os::unix::fs::symlink(&link, &path)?;
            links.insert(name.to_owned());
        } else if kind.is_hard_link() {
            let first = entry.link_name()?.ok_or_else(|| invalid("a hard link without a target"))?;
            let first = target(below(&first)?)
                .ok_or_else(|| invalid(format!("{} is a link to a file that is left out", name.display())))?;
            fs::hard_link(&first, &path)?;
        } else {
            let mut file = new_file(&path, entry.header().mode()?)?;
            io::copy(&mut entry, &mut file)?;
        }
    }
    Ok(())
}

/// A name in an archive, which must not lead out of the directory.
fn below(name: &Path) -> io::Result<&Path> {
    let below = name.strip_prefix("./").unwrap_or(name);
    match below.components().all(|component| matches!(component, Component::Normal(_))) {
        true => Ok(below),
        false => Err(invalid(format!("the package holds a file named {}", name.display()))),
    }
}

/// A new file, executable if the archive says so (scripts of the kernel's build), never through a link.
fn new_file(path: &Path, mode: u32) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
    File::options().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn tar(names: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            // Written past the crate's own check, as an attacker would.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(2);
            header.set_mode(0o755);
            header.set_cksum();
            builder.append(&header, &b"hi"[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn deb(data_name: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"!<arch>\n").unwrap();
        for (name, content) in
            [("debian-binary", &b"2.0\n"[..]), ("control.tar.xz", b"odd"), (data_name, data)]
        {
            writeln!(file, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100644, content.len()).unwrap();
            file.write_all(content).unwrap();
            file.write_all(&b"\n"[..content.len() % 2]).unwrap();
        }
        file
    }

    #[test]
    fn only_what_is_selected_is_written() {
        let root = tempfile::tempdir().unwrap();
        let package = deb("data.tar", &tar(&["./boot/a", "./usr/b"]));
        unpack(package.path(), |name| name.strip_prefix("boot").ok().map(|name| root.path().join(name)))
            .unwrap();
        assert_eq!(fs::read(root.path().join("a")).unwrap(), b"hi");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_archive_within_the_package_is_unpacked_in_the_same_pass() {
        let root = tempfile::tempdir().unwrap();
        let mut inner = liblzma::write::XzEncoder::new(Vec::new(), 1);
        inner.write_all(&tar(&["linux/fs/a"])).unwrap();
        let inner = inner.finish().unwrap();
        let mut outer = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(inner.len() as u64);
        header.set_cksum();
        outer.append_data(&mut header, "usr/src/linux.tar.xz", &inner[..]).unwrap();
        let package = deb("data.tar", &outer.into_inner().unwrap());
        let is_source = |name: &Path| name.ends_with("linux.tar.xz");
        unpack_inner(package.path(), is_source, |name| Some(root.path().join(name))).unwrap();
        assert_eq!(fs::read(root.path().join("linux/fs/a")).unwrap(), b"hi");
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_an_error() {
        for name in ["../a", "/a", "x/../../a"] {
            let package = deb("data.tar", &tar(&[name]));
            let error = unpack(package.path(), |_| panic!("{name} was offered")).unwrap_err();
            assert!(
                error.source.to_string().starts_with("the package holds a file named"),
                "{}",
                error.source
            );
        }
    }

    #[test]
    fn a_truncated_package_is_an_error_and_no_panic() {
        let root = tempfile::tempdir().unwrap();
        let package = deb("data.tar.xz", &{
            let mut data = liblzma::write::XzEncoder::new(Vec::new(), 1);
            data.write_all(&tar(&["./a"])).unwrap();
            data.finish().unwrap()
        });
        let whole = fs::read(package.path()).unwrap();
        for length in (0..whole.len() - 8).step_by(7) {
            fs::write(package.path(), &whole[..length]).unwrap();
            let target = root.path().join(length.to_string());
            assert!(unpack(package.path(), |_| Some(target.clone())).is_err(), "{length} bytes were enough");
        }
    }
}
