//! Which directories make up a root file system, and how a trial is stacked on them.
//!
//! Pure: names and option strings only; [`super::rootfs`] mounts them. The old upper directory is
//! never copied: the trial stacks it as a *lower* directory under a new, empty upper, so it cannot
//! change while the trial runs, the snapshot costs nothing, and the way back is the old mount again.
//!
//! Overlay's rules (kernel `Documentation/filesystems/overlayfs.rst`): lowers are named topmost first;
//! `upperdir` and `workdir` are on one file system; a work directory serves one upper at a time; the
//! whole option string of `mount(2)` fits in a page.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// `mount(2)` copies at most one page of options, the final NUL included.
const OPTIONS_LIMIT: usize = 4096;

/// Overlay's own limit (`OVL_MAX_STACK`).
const MOST_LOWERS: usize = 500;

/// What a root file system directory shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Topology {
    /// The directory itself; nothing is mounted on it.
    Plain,
    /// An overlay is mounted on it.
    Overlay(Overlay),
    /// An engine's storage mounts it, for as long as the container runs, as a file beside it says. Its upper directory
    /// keeps its name; what it showed before a trial is put aside, and is a lower directory under another name.
    Stored(Overlay),
}

/// The directories and options of an overlay mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Read-only directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// The directory that takes changes; absent on a read-only overlay.
    pub upper: Option<PathBuf>,
    /// The kernel's scratch directory beside `upper`.
    pub work: Option<PathBuf>,
    /// Other options of the file system, as the kernel showed them (`index=off`, `metacopy=on`, …).
    pub options: Vec<String>,
    /// Options of the mount itself (`ro`, `nosuid`, `nodev`, `noexec`, `noatime`, …), but for the
    /// kernel's defaults `rw` and `relatime`.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// A new upper directory and its work directory, both empty and on one file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreshUpper {
    /// Takes the changes.
    pub upper: PathBuf,
    /// The kernel's scratch space.
    pub work: PathBuf,
}

/// Why directories cannot be stacked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TopologyError {
    /// Too long for `mount(2)`.
    #[error("the overlay's options take {needed} bytes, expected at most {OPTIONS_LIMIT}: too many layers")]
    TooLong {
        /// Bytes needed, the final NUL included.
        needed: usize,
    },
    /// Too many layers for overlay.
    #[error("the overlay would have {found} lower directories, expected at most {MOST_LOWERS}")]
    TooMany {
        /// How many there would be.
        found: usize,
    },
    /// A directory that the kernel shows relative to somebody's working directory.
    #[error("the overlay names the directory {path:?} relative to the place it was mounted from")]
    Relative {
        /// What the kernel shows.
        path: PathBuf,
    },
    /// A path that is not text cannot be named in options here.
    #[error("the directory {path:?} is not UTF-8")]
    NotText {
        /// The path.
        path: PathBuf,
    },
    /// An overlay without a lower directory does not exist.
    #[error("the overlay has no lower directory")]
    NoLower,
}

impl Topology {
    /// The trial: `fixes`, topmost first, on top of everything `self` shows, changes going to `fresh`.
    ///
    /// `rootfs` is the directory itself, which becomes the bottom lower when it is plain.
    pub fn trial(&self, rootfs: &Path, fixes: &[PathBuf], fresh: &FreshUpper) -> Result<Self, TopologyError> {
        let mut lower = fixes.to_vec();
        let (mut options, mut flags) = (Vec::new(), Vec::new());
        match self {
            Self::Plain => lower.push(rootfs.to_owned()),
            Self::Overlay(old) => {
                lower.extend(old.upper.iter().chain(&old.lower).cloned());
                options.clone_from(&old.options);
                flags.clone_from(&old.flags);
            }
            Self::Stored(old) => {
                lower.push(aside(&fresh.upper));
                lower.extend(old.lower.iter().cloned());
                return Self::Stored(Overlay { lower, ..old.clone() }).checked();
            }
        }
        Self::Overlay(Overlay {
            lower,
            upper: Some(fresh.upper.clone()),
            work: Some(fresh.work.clone()),
            options,
            flags,
        })
        .checked()
    }

    /// The overlay, whoever mounts it.
    pub fn overlay(&self) -> Option<&Overlay> {
        match self {
            Self::Plain => None,
            Self::Overlay(overlay) | Self::Stored(overlay) => Some(overlay),
        }
    }

    /// Whether it is still so after a reboot, without anybody's mounting it.
    pub fn outlives_the_boot(&self) -> bool {
        matches!(self, Self::Stored(_))
    }

    /// The same directories with a new work directory, as a rollback before commit mounts them:
    /// the kernel may still hold the old work directory.
    pub fn with_new_work(&self, work: &Path) -> Self {
        match self {
            Self::Overlay(overlay) if overlay.upper.is_some() => {
                Self::Overlay(Overlay { work: Some(work.to_owned()), ..overlay.clone() })
            }
            other => other.clone(),
        }
    }

    /// The same without these layers, keeping all data written since: what a rollback after commit
    /// mounts.
    pub fn without(&self, fixes: &[PathBuf], work: &Path) -> Result<Self, TopologyError> {
        let mut without = self.with_new_work(work);
        if let Self::Overlay(overlay) | Self::Stored(overlay) = &mut without {
            overlay.lower.retain(|lower| !fixes.contains(lower));
        }
        without.checked()
    }

    /// Whether both show the same files and write to the same place. The work directory is the
    /// kernel's own, and it shows options that nobody gave.
    pub fn shows_the_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain, Self::Plain) => true,
            (Self::Overlay(one), Self::Overlay(two)) | (Self::Stored(one), Self::Stored(two)) => {
                one.lower == two.lower && one.upper == two.upper
            }
            _ => false,
        }
    }

    /// Where a new work directory for the same upper belongs: beside the old one, because both must
    /// lie on one mount.
    pub fn work_beside(&self, tag: &str) -> Option<PathBuf> {
        let Self::Overlay(Overlay { work: Some(work), .. }) = self else { return None };
        let mut name = work.file_name()?.to_owned();
        name.push(format!(".update-{tag}"));
        Some(work.with_file_name(name))
    }

    fn checked(self) -> Result<Self, TopologyError> {
        match &self {
            Self::Plain => {}
            Self::Overlay(overlay) => drop(overlay.mount_options()?),
            // An engine's storage names them more briefly where they would be too long.
            Self::Stored(overlay) => overlay.expect_few()?,
        }
        Ok(self)
    }
}

/// Where the upper directory of an engine's storage is put while a trial has one of its own in its place.
const ASIDE: &str = "old";

/// Where what a trial wrote in an engine's storage lies once it went back; `fresh` is the directory made for the trial.
#[must_use]
pub fn trial_of(fresh: &Path) -> PathBuf {
    fresh.with_file_name("trial")
}

/// Its path, beside the directory that was made for the trial.
fn aside(fresh: &Path) -> PathBuf {
    fresh.with_file_name(ASIDE)
}

impl Overlay {
    /// Reads what `/proc/self/mountinfo` shows as the super block's options, octal escapes resolved.
    pub fn from_options(shown: &str) -> Result<Self, TopologyError> {
        let mut overlay =
            Self { lower: Vec::new(), upper: None, work: None, options: Vec::new(), flags: Vec::new() };
        for option in split_unescaped(shown, ',') {
            match option.split_once('=') {
                Some(("lowerdir", value)) => {
                    overlay.lower =
                        split_unescaped(value, ':').into_iter().map(|one| unescape(one).into()).collect();
                }
                // How newer kernels show layers that were added one by one.
                Some(("lowerdir+", value)) => overlay.lower.push(unescape(value).into()),
                Some(("upperdir", value)) => overlay.upper = Some(unescape(value).into()),
                Some(("workdir", value)) => overlay.work = Some(unescape(value).into()),
                // `rw` and `ro` are the mount's state, not options of the file system.
                _ if matches!(option, "rw" | "ro" | "") => {}
                _ => overlay.options.push(option.to_owned()),
            }
        }
        if overlay.lower.is_empty() {
            return Err(TopologyError::NoLower);
        }
        let named = overlay.lower.iter().chain(&overlay.upper).chain(&overlay.work);
        match named.into_iter().find(|path| path.is_relative()) {
            Some(path) => Err(TopologyError::Relative { path: path.clone() }),
            None => Ok(overlay),
        }
    }

    fn expect_few(&self) -> Result<(), TopologyError> {
        match self.lower.len() {
            0 => Err(TopologyError::NoLower),
            found if found > MOST_LOWERS => Err(TopologyError::TooMany { found }),
            _ => Ok(()),
        }
    }

    /// The upper directories that were put aside below this directory of an engine's storage, topmost first.
    pub fn put_aside<'a>(&'a self, layer: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
        self.lower.iter().filter(move |lower| lower.starts_with(layer) && lower.ends_with(ASIDE))
    }

    /// The option string for `mount(2)`, or why the kernel would not take it.
    pub fn mount_options(&self) -> Result<String, TopologyError> {
        self.expect_few()?;
        let lowers: Result<Vec<String>, _> =
            self.lower.iter().map(|path| escape(path, &[':', ','])).collect();
        let mut parts = vec![format!("lowerdir={}", lowers?.join(":"))];
        for (name, path) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            if let Some(path) = path {
                parts.push(format!("{name}={}", escape(path, &[','])?));
            }
        }
        parts.extend(self.options.iter().cloned());
        let options = parts.join(",");
        let needed = options.len() + 1;
        if needed > OPTIONS_LIMIT { Err(TopologyError::TooLong { needed }) } else { Ok(options) }
    }
}

fn escape(path: &Path, special: &[char]) -> Result<String, TopologyError> {
    let text = path.to_str().ok_or_else(|| TopologyError::NotText { path: path.to_owned() })?;
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\\' || special.contains(&character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Ok(escaped)
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut begin, mut escaped) = (0, false);
    for (at, character) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == separator {
            parts.push(&text[begin..at]);
            begin = at + character.len_utf8();
        }
    }
    parts.push(&text[begin..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> FreshUpper {
        FreshUpper { upper: "/s/u1".into(), work: "/s/w1".into() }
    }

    fn original() -> Topology {
        let shown = "rw,lowerdir=/img/b:/img/a,upperdir=/c/upper,workdir=/c/work,index=off";
        Topology::Overlay(Overlay::from_options(shown).unwrap())
    }

    fn options(topology: &Topology) -> String {
        let Topology::Overlay(overlay) = topology else { panic!("plain") };
        overlay.mount_options().unwrap()
    }

    #[test]
    fn a_trial_puts_the_fix_on_top_and_the_old_upper_under_it() {
        let trial = original().trial(Path::new("/b/rootfs"), &["/s/fix".into()], &fresh()).unwrap();
        assert_eq!(
            options(&trial),
            "lowerdir=/s/fix:/c/upper:/img/b:/img/a,upperdir=/s/u1,workdir=/s/w1,index=off"
        );
    }

    #[test]
    fn a_plain_root_becomes_the_bottom_lower() {
        let trial = Topology::Plain.trial(Path::new("/b/rootfs"), &["/s/fix".into()], &fresh()).unwrap();
        assert_eq!(options(&trial), "lowerdir=/s/fix:/b/rootfs,upperdir=/s/u1,workdir=/s/w1");
    }

    #[test]
    fn a_second_fix_stacks_on_the_first_and_the_first_can_be_taken_out() {
        let first = original().trial(Path::new("/b/rootfs"), &["/s/fix1".into()], &fresh()).unwrap();
        let more = FreshUpper { upper: "/s/u2".into(), work: "/s/w2".into() };
        let second = first.trial(Path::new("/b/rootfs"), &["/s/fix2".into()], &more).unwrap();
        let without = second.without(&["/s/fix1".into()], Path::new("/s/w3")).unwrap();
        assert_eq!(
            options(&without),
            "lowerdir=/s/fix2:/s/u1:/c/upper:/img/b:/img/a,upperdir=/s/u2,workdir=/s/w3,index=off"
        );
    }

    #[test]
    fn going_back_changes_the_work_directory_only() {
        let back = original().with_new_work(Path::new("/s/w9"));
        assert_eq!(options(&back), "lowerdir=/img/b:/img/a,upperdir=/c/upper,workdir=/s/w9,index=off");
        assert_eq!(Topology::Plain.with_new_work(Path::new("/s/w9")), Topology::Plain);
    }

    #[test]
    fn a_new_work_directory_stands_beside_the_old_one() {
        assert_eq!(original().work_beside("7"), Some("/c/work.update-7".into()));
        assert_eq!(Topology::Plain.work_beside("7"), None);
    }

    #[test]
    fn paths_with_separators_survive_the_round_trip() {
        let overlay = Overlay {
            lower: vec!["/a:b,c\\d".into(), "/plain".into()],
            upper: Some("/u,p".into()),
            work: Some("/w".into()),
            options: vec![],
            flags: vec![],
        };
        assert_eq!(Overlay::from_options(&overlay.mount_options().unwrap()).unwrap(), overlay);
    }

    #[test]
    fn options_that_do_not_fit_a_page_are_refused_before_anything_is_mounted() {
        let lower = (0..60).map(|n| PathBuf::from(format!("/{}/{n}", "x".repeat(80)))).collect();
        let overlay = Overlay { lower, upper: None, work: None, options: vec![], flags: vec![] };
        assert!(matches!(overlay.mount_options(), Err(TopologyError::TooLong { needed }) if needed > 4096));
    }

    #[test]
    fn in_an_engines_storage_the_old_upper_is_put_aside_and_the_new_one_gets_its_name() {
        let shown = "lowerdir=/g/overlay/l/AB,upperdir=/g/overlay/L/diff,workdir=/g/overlay/L/work";
        let original = Topology::Stored(Overlay::from_options(shown).unwrap());
        let fresh = FreshUpper {
            upper: "/g/overlay/L/update-7/upper".into(),
            work: "/g/overlay/L/update-7/work".into(),
        };
        let trial = original.trial(Path::new("/g/overlay/L/merged"), &["/s/fix".into()], &fresh).unwrap();
        let overlay = trial.overlay().unwrap();
        assert_eq!(overlay.upper, original.overlay().unwrap().upper);
        let expected = ["/s/fix", "/g/overlay/L/update-7/old", "/g/overlay/l/AB"].map(PathBuf::from);
        assert_eq!(overlay.lower, expected);
        assert_eq!(overlay.put_aside(Path::new("/g/overlay/L")).collect::<Vec<_>>(), [&expected[1]]);
        assert!(!trial.shows_the_same_as(&original));
        let without = trial.without(&["/s/fix".into()], Path::new("/x")).unwrap();
        assert_eq!(without.overlay().unwrap().lower, expected[1..], "the data written since stays");
        assert!(trial.outlives_the_boot() && matches!(without, Topology::Stored(_)));
    }

    #[test]
    fn relative_layers_cannot_be_stacked_again() {
        let error =
            Overlay::from_options("rw,lowerdir=l/AB:l/CD,upperdir=x/diff,workdir=x/work").unwrap_err();
        assert!(matches!(error, TopologyError::Relative { .. }));
    }
}
