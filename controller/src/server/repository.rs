//! A repository, as it was published: plain files, for whoever asks. They are public and signed, and whoever fetches them
//! believes signatures and digests alone; so they are served to anybody, also by a controller that does not lead.
//!
//! Nothing else is: what is asked for is a regular file in `metadata` or `targets` beneath the directory, reached over no
//! link, and no directory is listed. It is opened anew for each request, so a publication counts at once; what is sent is
//! what was there then, as many bytes as it had.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use axum::extract::FromRequestParts;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use manifests::UtcTime;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::Shared;
use super::answer::{Refusal, blocking};
use super::api::{Page, Takes};
use super::asked::At;
use super::hosts::{Stream, send};

/// Under which everything of a repository is.
pub(super) const PLACE: &str = "/repository/";

/// What a repository has.
const ROOMS: [&str; 2] = ["metadata", "targets"];

/// A directory that `update repo publish` wrote, or that is a copy of one.
#[derive(Debug, Clone)]
pub struct Repository(PathBuf);

/// Why a directory is no repository.
#[derive(Debug, thiserror::Error)]
pub enum NoRepository {
    /// Nothing was published there.
    #[error(
        "{directory}: expected what `update repo publish` writes, with metadata/timestamp.json in it, or a directory with `public` of that kind"
    )]
    Nothing {
        /// The directory.
        directory: PathBuf,
    },
}

impl Repository {
    /// What was published into `directory`, or into its `public`: whoever names the whole repository means that, and
    /// nothing beside it is served.
    ///
    /// # Errors
    /// [`NoRepository`].
    pub fn open(directory: &Path) -> Result<Self, NoRepository> {
        let found = [directory.to_owned(), directory.join("public")]
            .into_iter()
            .find(|directory| directory.join("metadata/timestamp.json").is_file());
        found.map(Self).ok_or_else(|| NoRepository::Nothing { directory: directory.to_owned() })
    }

    /// Until when its timestamp counts, which moves most: it is made anew again and again, or hosts learn of nothing new.
    pub(super) fn timestamp_until(&self) -> Option<UtcTime> {
        // Timestamps have a few hundred bytes.
        const MOST: usize = 64 << 10;
        let (file, _) = self.file("metadata", "timestamp.json").ok().flatten()?;
        let bytes = manifests::bounded::read(file, MOST).ok()?;
        let metadata: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        metadata["signed"]["expires"].as_str()?.parse().ok()
    }

    /// A file of it; nothing if there is none of that name.
    fn file(&self, room: &str, name: &str) -> io::Result<Option<(File, u64)>> {
        let path = Path::new(room).join(name);
        let mut parts = path.components();
        let plain = ROOMS.contains(&room)
            && !name.is_empty()
            && parts.all(|part| matches!(part, Component::Normal(_)));
        if !plain {
            return Ok(None);
        }
        let directory = File::open(&self.0)?;
        let how = OpenHow::new()
            // Opening a named pipe without `O_NONBLOCK` would wait for its writer.
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .mode(Mode::empty())
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let opened: OwnedFd = match openat2(&directory, &path, how) {
            Ok(opened) => opened,
            // A link, a directory in place of a file, or a name that no file can have.
            Err(
                Errno::ENOENT
                | Errno::ELOOP
                | Errno::ENOTDIR
                | Errno::EXDEV
                | Errno::ENAMETOOLONG
                | Errno::EINVAL,
            ) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let file = File::from(opened);
        let found = file.metadata()?;
        Ok(found.is_file().then_some((file, found.len())))
    }
}

/// The part of a file that is wanted, as `Range` has it; of a range that is none, or of several, it is all.
pub(super) enum Part {
    /// All of it.
    All,
    /// These bytes: from one on, perhaps to one.
    From(u64, Option<u64>),
    /// The last ones.
    Last(u64),
}

impl Part {
    fn read(range: &str) -> Option<Self> {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        let number =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match (from, to) {
            ("", last) => number(last).map(Self::Last),
            (from, "") => Some(Self::From(number(from)?, None)),
            (from, to) => Some(Self::From(number(from)?, Some(number(to)?))).filter(|part| match part {
                Self::From(from, Some(to)) => from <= to,
                _ => true,
            }),
        }
    }

    /// Of so many bytes; no error if it is all of them.
    fn of(&self, size: u64) -> Result<Option<Range<u64>>, Refusal> {
        let range = match *self {
            Self::All => return Ok(None),
            Self::From(from, to) => from..to.map_or(size, |to| size.min(to.saturating_add(1))),
            Self::Last(last) => size.saturating_sub(last)..size,
        };
        match range.start < size {
            true => Ok(Some(range)),
            false => Err(Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                format_args!("expected a range within {size} bytes"),
            )),
        }
    }
}

impl FromRequestParts<Shared> for Part {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Refusal> {
        let range = parts.headers.get(header::RANGE).and_then(|range| Self::read(range.to_str().ok()?));
        Ok(range.unwrap_or(Self::All))
    }
}

impl Takes for Part {
    fn tell(page: &mut Page<'_>) {
        page.header("Range", "bytes=N-, bytes=N-M or bytes=-N: which part");
    }
}

/// What a file is called, below `metadata` or `targets`.
pub(super) struct Name {
    /// As the path has it.
    written: String,
    /// With what is escaped in it.
    meant: String,
}

impl FromRequestParts<Shared> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, controller: &Shared) -> Result<Self, Refusal> {
        let written = parts.uri.path().splitn(4, '/').nth(3).unwrap_or_default().to_owned();
        let At(meant) = At::<String>::from_request_parts(parts, controller).await?;
        Ok(Self { written, meant })
    }
}

impl Takes for Name {
    fn tell(page: &mut Page<'_>) {
        At::<String>::tell(page);
    }
}

pub(super) async fn metadata(controller: State<Shared>, name: Name, part: Part) -> Result<Stream, Refusal> {
    file(controller, "metadata", name, part).await
}

pub(super) async fn target(controller: State<Shared>, name: Name, part: Part) -> Result<Stream, Refusal> {
    file(controller, "targets", name, part).await
}

async fn file(
    State(controller): State<Shared>,
    room: &'static str,
    Name { written, meant }: Name,
    part: Part,
) -> Result<Stream, Refusal> {
    let found = blocking(move || {
        let Some(repository) = &controller.settings.repository else {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "this controller serves no repository: --repository",
            ));
        };
        // The name of a role is escaped in that of its file already.
        let file = match repository.file(room, &meant) {
            Ok(None) => repository.file(room, &written),
            found => found,
        };
        file.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format_args!("{room}: {error}")))
    });
    let Some((file, size)) = found.await? else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "the repository has no such file"));
    };
    send(file, size, part.of(size)?).await
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn published() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("staged/secret", "not yet");
        write("public/other", "neither here nor there");
        write("public/metadata/timestamp.json", "t");
        write("public/metadata/1.r%2Fs.json", "odd");
        write("public/targets/a/1.b c?#", "odd, too");
        symlink("../../staged/secret", directory.path().join("public/targets/link")).unwrap();
        symlink("../staged", directory.path().join("public/targets/linked")).unwrap();
        nix::unistd::mkfifo(&directory.path().join("public/targets/pipe"), Mode::S_IRUSR).unwrap();
        directory
    }

    #[test]
    fn only_regular_files_of_the_publication_are_served() {
        let directory = published();
        let repository = Repository::open(directory.path()).unwrap();
        let found = |room: &str, name: &str| repository.file(room, name).unwrap().map(|(_, size)| size);
        assert_eq!(found("metadata", "timestamp.json"), Some(1));
        assert_eq!(found("metadata", "1.r%2Fs.json"), Some(3));
        assert_eq!(found("targets", "a/1.b c?#"), Some(8));
        for name in [
            "",
            ".",
            "..",
            "/",
            "a",
            "a/",
            "a/..",
            "../other",
            "../metadata/timestamp.json",
            "../../staged/secret",
            "/etc/passwd",
            "//etc/passwd",
            "a/../../other",
            "link",
            "linked/secret",
            "pipe",
            "a/1.b c?#/x",
            "a\0b",
        ] {
            assert_eq!(found("targets", name), None, "{name:?}");
        }
        assert_eq!(found("targets", &"x".repeat(5000)), None);
        assert_eq!(found("", "other"), None);
        assert_eq!(found("..", "staged/secret"), None);
    }

    #[test]
    fn a_directory_in_which_nothing_was_published_is_none() {
        let directory = published();
        assert!(Repository::open(&directory.path().join("public")).is_ok());
        let error = Repository::open(&directory.path().join("staged")).unwrap_err();
        assert!(error.to_string().contains("update repo publish"));
    }

    #[test]
    fn a_range_is_one_part_or_all() {
        let of = |range: &str| Part::read(range).unwrap_or(Part::All).of(10).ok();
        assert_eq!(of("bytes=3-"), Some(Some(3..10)));
        assert_eq!(of("bytes=3-4"), Some(Some(3..5)));
        assert_eq!(of("bytes=3-99999999999999999999"), Some(None), "no number");
        assert_eq!(of("bytes=3-18446744073709551615"), Some(Some(3..10)));
        assert_eq!(of("bytes=-4"), Some(Some(6..10)));
        assert_eq!(of("bytes=-40"), Some(Some(0..10)));
        assert_eq!(of("bytes=10-"), None);
        assert_eq!(of("bytes=-0"), None);
        for all in
            ["", "bytes=", "bytes=-", "lines=3-", "bytes=4-3", "bytes=1-2,4-5", "bytes=+1-", "bytes=a-b"]
        {
            assert_eq!(of(all), Some(None), "{all:?}");
        }
    }
}
