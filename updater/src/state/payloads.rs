//! Payloads by digest: hashed while they are copied in, used only as the file that was hashed.
//!
//! `payloads/<sha256>` in the store. A payload becomes visible under its digest only after its bytes were
//! hashed, synced and renamed, so a name in this directory is a statement about its content. [`Payloads::open`]
//! hashes again and returns the descriptor that it hashed: nothing re-opens the path.
//!
//! It does not know what a payload is for.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use manifests::{Payload, Sha256};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::Digest;
use system::durable;
use system::durable::{Partial, Unnamed};

/// Large enough that hashing, not system calls, sets the pace.
const CHUNK: usize = 256 * 1024;

/// Why a payload cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The payload's file is not where it was looked for.
    #[error("payload {name} is missing: looked for {path}")]
    Missing {
        /// Its name in the manifest.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The payload has another size than the manifest says.
    #[error("payload {name} is {found} bytes long, the manifest says {expected}")]
    Size {
        /// Its name in the manifest.
        name: String,
        /// What the manifest says, in bytes.
        expected: u64,
        /// What was found, in bytes; at most one more than expected is read.
        found: u64,
    },
    /// The payload's bytes are not the ones that were signed.
    #[error("payload {name} has SHA-256 {found}, the manifest says {expected}")]
    Changed {
        /// Its name in the manifest.
        name: String,
        /// What the manifest says.
        expected: Sha256,
        /// What was found.
        found: Sha256,
    },
    /// The store's own copy is damaged.
    #[error("the store's copy of {digest} is damaged: its bytes have SHA-256 {found}")]
    Damaged {
        /// What it should be.
        digest: Sha256,
        /// What it is.
        found: Sha256,
    },
    /// The repository does not give it.
    #[error("payload {name} is not to be had from the repository")]
    Repository {
        /// Its name in the manifest.
        name: String,
        /// Why.
        source: Box<repository::client::ClientError>,
    },
    /// Reading or writing failed.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl StoreError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// Where payloads come from. What it gives is not trusted: the store hashes all of it.
pub trait PayloadSource {
    /// The payload's bytes, from their beginning.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    fn open(&self, payload: &Payload) -> Result<Box<dyn Read>, StoreError>;

    /// The payload's bytes from `from` on, for a source that is worth going on with; nothing for one where it costs
    /// little to begin again.
    ///
    /// # Errors
    /// As [`PayloadSource::open`].
    fn go_on(&self, _: &Payload, _: u64) -> Result<Option<Box<dyn Read>>, StoreError> {
        Ok(None)
    }
}

/// Files in a directory, by the names that the manifest gives them.
#[derive(Debug, Clone)]
pub struct PayloadDirectory(pub PathBuf);

impl PayloadSource for PayloadDirectory {
    fn open(&self, payload: &Payload) -> Result<Box<dyn Read>, StoreError> {
        open_in(&self.0, payload.file.as_ref(), payload)
    }
}

/// Files in a directory, by their digests: somebody else's, who fetched them for us.
#[derive(Debug, Clone)]
pub struct Spool(pub PathBuf);

impl PayloadSource for Spool {
    fn open(&self, payload: &Payload) -> Result<Box<dyn Read>, StoreError> {
        open_in(&self.0, &payload.sha256.to_string(), payload)
    }
}

fn open_in(directory: &Path, file: &str, payload: &Payload) -> Result<Box<dyn Read>, StoreError> {
    let path = directory.join(file);
    // Opening a named pipe without this flag would wait for its writer.
    let file = match OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Missing { name: payload.file.to_string(), path });
        }
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(StoreError::io("copy", &path)(error));
    }
    Ok(Box::new(file))
}

/// Keeps payloads from being collected. Any number of these may be held at once.
#[derive(Debug)]
pub struct InUse(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

/// Nobody else uses the payloads, so those that nothing names may go.
#[derive(Debug)]
pub struct Unused(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

/// The payload directory of a store.
#[derive(Debug, Clone)]
pub struct Payloads {
    directory: PathBuf,
}

impl Payloads {
    /// The payloads of the store at `store`; the directory is made when the first one is added.
    pub fn new(store: &Path) -> Self {
        Self { directory: store.join("payloads") }
    }

    /// Whether there is a file of that name; what is in it is looked at by whoever opens it.
    pub fn has(&self, sha256: &Sha256) -> bool {
        self.path(sha256).exists()
    }

    /// Copy the payload in from a source unless it is there already, hashing what is copied.
    ///
    /// # Errors
    /// [`StoreError`]; the store then holds no trace of it.
    pub fn add(&self, payload: &Payload, from: &dyn PayloadSource) -> Result<(), StoreError> {
        if self.path(&payload.sha256).exists() && self.open(&payload.sha256).is_ok() {
            return Ok(());
        }
        self.make_directory()?;
        let path = self.path(&payload.sha256);
        if self.add_going_on(payload, from, &path)? {
            return Ok(());
        }
        let name = payload.file.to_string();
        let mut source = from.open(payload)?;
        let mut copy = Unnamed::beside(&path).map_err(StoreError::io("make a file in", &self.directory))?;
        // One byte more than expected is enough to know that it is too long.
        let mut limited = (&mut source).take(payload.size.saturating_add(1));
        let (found, size) = hash_while(&mut limited, |chunk| copy.write_all(chunk))
            .map_err(StoreError::io("copy", Path::new(&name)))?;
        if size != payload.size {
            return Err(StoreError::Size { name, expected: payload.size, found: size });
        }
        if found != payload.sha256 {
            return Err(StoreError::Changed { name, expected: payload.sha256, found });
        }
        copy.replace().map_err(StoreError::io("write", &path))
    }

    /// Copy in from a source that can go on where an earlier attempt ended. False if it is not one.
    ///
    /// Each byte is hashed as it comes, once; those of an earlier attempt are hashed again, since nobody knows what
    /// became of them.
    fn add_going_on(
        &self,
        payload: &Payload,
        from: &dyn PayloadSource,
        path: &Path,
    ) -> Result<bool, StoreError> {
        let name = payload.file.to_string();
        let io = |doing| StoreError::io(doing, path);
        loop {
            let Some(partial) = Partial::of(path).map_err(io("go on with"))? else { return Ok(false) };
            let file = partial.file();
            let known = file.metadata().map_err(io("look at"))?.len();
            // Too long already: the next one begins at nothing.
            if known > payload.size {
                partial.discard().map_err(io("remove"))?;
                continue;
            }
            let Some(rest) = from.go_on(payload, known)? else {
                partial.discard().map_err(io("remove"))?;
                return Ok(false);
            };
            // At its end the file is where what comes next belongs.
            let mut all = file.chain(rest).take(payload.size.saturating_add(1));
            let mut at = 0;
            let keep = |chunk: &[u8]| {
                let new = chunk.len().min((at + chunk.len() as u64).saturating_sub(known) as usize);
                at += chunk.len() as u64;
                let mut file = file;
                file.write_all(&chunk[chunk.len() - new..])
            };
            let (found, size) =
                hash_while(&mut all, keep).map_err(StoreError::io("fetch", Path::new(&name)))?;
            if (found, size) == (payload.sha256, payload.size) {
                partial.replace().map_err(io("write"))?;
                return Ok(true);
            }
            partial.discard().map_err(io("remove"))?;
            match (known, size == payload.size) {
                // What was there may have been at fault.
                (1.., _) => {}
                (0, false) => return Err(StoreError::Size { name, expected: payload.size, found: size }),
                (0, true) => return Err(StoreError::Changed { name, expected: payload.sha256, found }),
            }
        }
    }

    /// Keep what is there and what is added from being collected by another command, for as long as the result
    /// is held. Whoever holds the host need not: collections hold it too.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn in_use(&self) -> Result<InUse, StoreError> {
        let (path, file) = self.lock_file()?;
        Flock::lock(file, FlockArg::LockShared)
            .map(InUse)
            .map_err(|(_, errno)| StoreError::io("lock", &path)(errno.into()))
    }

    /// The right to remove payloads; `None` while somebody uses them.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn unused(&self) -> Result<Option<Unused>, StoreError> {
        let (path, file) = self.lock_file()?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Unused(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(StoreError::io("lock", &path)(errno.into())),
        }
    }

    fn lock_file(&self) -> Result<(PathBuf, File), StoreError> {
        let path = self.directory.with_extension("lock");
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(StoreError::io("open", &path))?;
        Ok((path, file))
    }

    fn make_directory(&self) -> Result<(), StoreError> {
        durable::make_directory(&self.directory).map_err(StoreError::io("make", &self.directory))
    }

    /// Open a payload, hash it, and return the very descriptor that was hashed, at its start.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the bytes are not those of its name any more.
    pub fn open(&self, digest: &Sha256) -> Result<File, StoreError> {
        let path = self.path(digest);
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let (found, _) = hash_while(&mut file, |_| Ok(())).map_err(StoreError::io("read", &path))?;
        if found != *digest {
            return Err(StoreError::Damaged { digest: *digest, found });
        }
        file.rewind().map_err(StoreError::io("rewind", &path))?;
        Ok(file)
    }

    /// The bytes of a payload, checked.
    ///
    /// # Errors
    /// As [`Payloads::open`].
    pub fn read(&self, digest: &Sha256) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.open(digest)?.read_to_end(&mut bytes).map_err(StoreError::io("read", &self.path(digest)))?;
        Ok(bytes)
    }

    fn path(&self, digest: &Sha256) -> PathBuf {
        self.directory.join(digest.to_string())
    }
}

/// Read to the end, give each chunk to `sink`, and return the SHA-256 and the number of bytes.
pub fn hash_while(
    source: &mut dyn Read,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(Sha256, u64)> {
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let read = match source.read(&mut chunk) {
            Ok(0) => return Ok((Sha256::from_bytes(hash.finalize().into()), size)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&chunk[..read]);
        sink(&chunk[..read])?;
        size += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn from(directory: &tempfile::TempDir) -> PayloadDirectory {
        PayloadDirectory(directory.path().to_owned())
    }

    /// A source that is no directory.
    struct Memory(&'static [u8]);

    impl PayloadSource for Memory {
        fn open(&self, _: &Payload) -> Result<Box<dyn Read>, StoreError> {
            Ok(Box::new(self.0))
        }
    }

    #[test]
    fn what_a_source_gives_is_hashed_whatever_kind_of_source_it_is() {
        let store = tempfile::tempdir().unwrap();
        let payloads = Payloads::new(store.path());
        let wanted = payload(b"right");
        assert!(matches!(payloads.add(&wanted, &Memory(b"wrong")), Err(StoreError::Changed { .. })));
        payloads.add(&wanted, &Memory(b"right")).unwrap();
        assert_eq!(payloads.read(&wanted.sha256).unwrap(), b"right");
    }

    /// A source far away, whose connection breaks after some bytes.
    struct Far {
        bytes: &'static [u8],
        breaks: std::cell::Cell<Option<u64>>,
        asked: std::cell::RefCell<Vec<u64>>,
    }

    impl PayloadSource for Far {
        fn open(&self, _: &Payload) -> Result<Box<dyn Read>, StoreError> {
            panic!("it is gone on with")
        }

        fn go_on(&self, _: &Payload, from: u64) -> Result<Option<Box<dyn Read>>, StoreError> {
            struct Broken;
            impl Read for Broken {
                fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                    Err(io::ErrorKind::ConnectionReset.into())
                }
            }
            self.asked.borrow_mut().push(from);
            let rest = &self.bytes[from as usize..];
            Ok(Some(match self.breaks.take() {
                Some(after) => Box::new(rest.take(after).chain(Broken)),
                None => Box::new(rest),
            }))
        }
    }

    #[test]
    fn a_download_goes_on_where_it_broke_off_and_only_the_signed_bytes_get_a_name() {
        let store = tempfile::tempdir().unwrap();
        let payloads = Payloads::new(store.path());
        let far = |bytes, breaks: Option<u64>| Far { bytes, breaks: breaks.into(), asked: <_>::default() };
        let wanted = payload(b"right and long");
        for (bytes, breaks) in [(&b"right and long"[..], 5), (b"right and long", 3)] {
            assert!(matches!(payloads.add(&wanted, &far(bytes, Some(breaks))), Err(StoreError::Io { .. })));
            assert!(!payloads.path(&wanted.sha256).exists());
        }
        let source = far(b"right and long", None);
        payloads.add(&wanted, &source).unwrap();
        assert_eq!(*source.asked.borrow(), [8], "5 and 3 are there");
        assert_eq!(payloads.read(&wanted.sha256).unwrap(), b"right and long");
        assert_eq!(fs::read_dir(store.path().join("payloads")).unwrap().count(), 1);

        // Others' bytes, or what a power cut made of ours: begun once more, and no further.
        let other = payload(b"another one");
        assert!(payloads.add(&other, &far(b"LIES and so", Some(4))).is_err());
        let source = far(b"another one", None);
        payloads.add(&other, &source).unwrap();
        assert_eq!(*source.asked.borrow(), [4, 0]);
        let source = far(b"LIES and so", None);
        assert!(matches!(payloads.add(&payload(b"a third one"), &source), Err(StoreError::Changed { .. })));
        assert_eq!(*source.asked.borrow(), [0]);
        assert_eq!(fs::read_dir(store.path().join("payloads")).unwrap().count(), 2, "no trace of it");
    }

    #[test]
    fn payloads_in_use_are_not_free_to_be_collected() {
        let store = tempfile::tempdir().unwrap();
        let payloads = Payloads::new(store.path());
        let (one, two) = (payloads.in_use().unwrap(), payloads.in_use().unwrap());
        assert!(payloads.unused().unwrap().is_none());
        drop(one);
        assert!(payloads.unused().unwrap().is_none(), "one of two is still there");
        drop(two);
        assert!(payloads.unused().unwrap().is_some());
    }

    fn payload(bytes: &[u8]) -> Payload {
        let yaml = format!("{{file: fix.ko, sha256: \"{}\", size: {}}}", Sha256::of(bytes), bytes.len());
        manifests::yaml::from_slice(yaml.as_bytes(), 4096).unwrap()
    }

    #[test]
    fn only_the_signed_bytes_get_a_name_in_the_store() {
        let (store, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let payloads = Payloads::new(store.path());
        let wanted = payload(b"right");
        for wrong in [&b"wrong"[..], b"right!", b"righ", b""] {
            fs::write(source.path().join("fix.ko"), wrong).unwrap();
            assert!(payloads.add(&wanted, &from(&source)).is_err(), "{wrong:?}");
            assert_eq!(fs::read_dir(store.path().join("payloads")).unwrap().count(), 0, "{wrong:?}");
        }
        fs::write(source.path().join("fix.ko"), "right").unwrap();
        payloads.add(&wanted, &from(&source)).unwrap();
        assert_eq!(payloads.read(&wanted.sha256).unwrap(), b"right");
    }

    #[test]
    fn a_copy_that_changed_in_the_store_or_became_a_link_is_not_opened() {
        let (store, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let payloads = Payloads::new(store.path());
        let wanted = payload(b"right");
        fs::write(source.path().join("fix.ko"), "right").unwrap();
        payloads.add(&wanted, &from(&source)).unwrap();
        let path = payloads.path(&wanted.sha256);
        fs::write(&path, "wrong").unwrap();
        assert!(matches!(payloads.open(&wanted.sha256), Err(StoreError::Damaged { .. })));
        payloads.add(&wanted, &from(&source)).unwrap();
        assert_eq!(payloads.read(&wanted.sha256).unwrap(), b"right", "it is copied in again");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(source.path().join("fix.ko"), &path).unwrap();
        assert!(matches!(payloads.open(&wanted.sha256), Err(StoreError::Io { .. })));
    }

    #[test]
    fn a_payload_that_is_a_pipe_does_not_hang() {
        let (store, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = source.path().join("fix.ko");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(
            Payloads::new(store.path()).add(&payload(b"right"), &from(&source)),
            Err(StoreError::Io { .. })
        ));
    }
}
