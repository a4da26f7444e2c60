//! Bytes from somewhere: a narrow transport, and the limits that hold whatever it is.
//!
//! - [`file`] for `file://`
//! - [`helper`] for HTTP by a process of its own, without rights; [`wire`] is what is said between the two
//! - what that process does is the package `update-transport` (`network/`), which no other program links
//! - [`mirrors`], the places that have the same files, in the order in which they are asked
//!
//! Nothing that comes from here is believed: it is hashed and its signatures are checked by whoever asked.
//! What *is* decided here is how much is read and for how long: [`Metered`].

pub mod file;
pub mod helper;
pub mod mirrors;
pub mod wire;

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use system::clock::Clock;
use url::Url;

/// Opens files by their addresses.
pub trait Transport: Send + Sync {
    /// The bytes of `url` from the byte `from` on; nothing if there is no such file.
    ///
    /// The answer may begin earlier than asked, but never later: see [`Body::from`].
    ///
    /// # Errors
    /// [`FetchError`]. Reading the body fails within a bounded time, too.
    fn open(&self, url: &Url, from: u64) -> Result<Option<Body>, FetchError>;
}

/// What a transport found.
pub struct Body {
    /// Where in the file `bytes` begins.
    pub from: u64,
    /// The rest of the file.
    pub bytes: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body(from {})", self.from)
    }
}

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No transport here speaks it.
    #[error("{url}: expected http, https or file, found {:?}", url.scheme())]
    Scheme {
        /// The address.
        url: Url,
    },
    /// The server sends us to another one.
    #[error("{from} redirects to {to}: expected the same server")]
    Elsewhere {
        /// What was asked for.
        from: String,
        /// Where it points.
        to: String,
    },
    /// The server answered something else than the file.
    #[error("{url} was answered with status {status}: expected 200, 206 or 404")]
    Status {
        /// The address.
        url: Url,
        /// The status.
        status: u16,
    },
    /// The server sent another part of the file than was asked for.
    #[error("{url}: expected its bytes from {expected} on, found {found}")]
    Range {
        /// The address.
        url: Url,
        /// Asked for.
        expected: u64,
        /// What the server says that it sends.
        found: String,
    },
    /// Connecting, reading or the local file system failed.
    #[error("cannot fetch {url}")]
    Io {
        /// The address.
        url: Url,
        /// Why.
        source: io::Error,
    },
    /// The process that speaks HTTP cannot be started.
    #[error(
        "cannot start {program}, which speaks HTTP for this program as nobody, who must be able to reach it"
    )]
    Helper {
        /// Its path.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// What is borne with of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long it may be silent. Also how long a slow one is given before its rate is judged.
    pub silence: Duration,
    /// The lowest rate, over the whole of a transfer, in bytes a second.
    pub slowest: u64,
}

impl Default for Patience {
    /// 20 s; 1 KiB/s, which is a modem of the eighties: who is slower means to be.
    fn default() -> Self {
        Self { silence: Duration::from_secs(20), slowest: 1024 }
    }
}

/// A body that may be neither endless nor slow.
pub struct Metered<R> {
    bytes: R,
    clock: Arc<dyn Clock + Send + Sync>,
    begun: Duration,
    patience: Patience,
    most: u64,
    read: u64,
}

impl<R: Read> Metered<R> {
    /// At most `most` bytes of `bytes`.
    pub fn new(bytes: R, most: u64, patience: Patience, clock: Arc<dyn Clock + Send + Sync>) -> Self {
        let begun = clock.elapsed();
        Self { bytes, clock, begun, patience, most, read: 0 }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        self.read += read as u64;
        if self.read > self.most {
            return Err(too_long(self.most));
        }
        let lasted = self.clock.elapsed().saturating_sub(self.begun);
        if read > 0 && lasted > self.patience.silence {
            let rate = self.read / lasted.as_secs().max(1);
            if rate < self.patience.slowest {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("expected at least {} bytes a second, found {rate}", self.patience.slowest),
                ));
            }
        }
        Ok(read)
    }
}

/// More bytes than there may be.
pub(crate) fn too_long(most: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("expected at most {most} bytes, found more"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::Timestamp;

    use super::*;

    /// A clock that reading moves.
    #[derive(Default)]
    struct Hands(Mutex<Duration>);

    impl Clock for Hands {
        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn sleep(&self, duration: Duration) {
            *self.0.lock().unwrap() += duration;
        }
    }

    /// Gives one byte each `pause`, for ever.
    struct Drip(Arc<Hands>, Duration);

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.sleep(self.1);
            buffer[0] = b'x';
            Ok(1)
        }
    }

    fn drip(pause: Duration, most: u64) -> (io::Result<Vec<u8>>, Duration) {
        let clock = Arc::new(Hands::default());
        let body = Metered::new(Drip(clock.clone(), pause), most, Patience::default(), clock.clone());
        let read = manifests::bounded::read(body, 1 << 20).map_err(|error| match error {
            manifests::bounded::BoundedError::Io(error) => error,
            other => panic!("{other}"),
        });
        (read, clock.elapsed())
    }

    #[test]
    fn slow_data_is_given_up_as_soon_as_its_rate_can_be_judged() {
        let (read, lasted) = drip(Duration::from_secs(1), 1 << 20);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(lasted, Duration::from_secs(21));
    }

    #[test]
    fn endless_data_is_cut_at_its_limit_however_fast_it_comes() {
        let (read, _) = drip(Duration::from_micros(1), 1000);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
