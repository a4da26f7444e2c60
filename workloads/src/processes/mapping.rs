//! `/proc/PID/maps`: which files a process has mapped.
//!
//! The names are the kernel's view for *us*: they begin at our root, or at the top of another mount namespace
//! (never at the root of a process that called `chroot`), end with ` (deleted)` if the name is gone, and have
//! line feeds written as `\012`. What they say is a hint; the file itself is reached by [`super::foreign`].

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};

use memchr::memchr;
use nix::libc;

use crate::model::Pid;

/// The kernel's remark on a file that has no name any more; a name may end so, too.
pub(crate) const DELETED: &[u8] = b" (deleted)";

/// How the kernel writes a line feed; a name may hold these four characters, too.
pub(crate) const LINE_FEED: &[u8] = b"\\012";

/// A file that a process has mapped, once or more often.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mapping<'a> {
    /// Where it is mapped; as code, if it is.
    pub(crate) range: (u64, u64),
    /// Whether some of it is code.
    pub(crate) executable: Executable,
    /// Device, inode and name as the kernel prints them: the same for each mapping of one file by one process.
    pub(crate) key: &'a [u8],
    /// The name as the kernel prints it.
    pub(crate) name: &'a [u8],
}

/// Whether a mapping may be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Executable {
    Yes,
    No,
}

impl Mapping<'_> {
    /// The device as the kernel prints it: `08:01`.
    pub(crate) fn device(&self) -> &[u8] {
        self.key.split(|byte| *byte == b' ').next().unwrap_or_default()
    }

    /// The number of the inode as the kernel prints it.
    pub(crate) fn inode(&self) -> &[u8] {
        self.key.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    }

    /// Whether the printed name may stand for two names.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.name.windows(LINE_FEED.len()).any(|four| four == LINE_FEED)
    }
}

/// Reads the mappings of a process into `maps`, and returns under which id they are found: a process whose first
/// thread has ended shows none there, and goes on running in another. Nothing is read of a process that is gone,
/// and of a kernel thread.
pub(crate) fn read(pid: Pid, maps: &mut Vec<u8>) -> io::Result<Pid> {
    read_one(pid, maps)?;
    if maps.is_empty() {
        let tasks = match fs::read_dir(format!("/proc/{pid}/task")) {
            Err(error) if vanished(&error) => return Ok(pid),
            tasks => tasks?,
        };
        let others = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok().map(Pid));
        for other in others.filter(|other| *other != pid) {
            read_one(other, maps)?;
            if !maps.is_empty() {
                return Ok(other);
            }
        }
    }
    Ok(pid)
}

fn read_one(pid: Pid, maps: &mut Vec<u8>) -> io::Result<()> {
    maps.clear();
    match File::open(format!("/proc/{pid}/maps")).and_then(|file| read_whole(file, maps)) {
        Err(error) if vanished(&error) => {
            maps.clear();
            Ok(())
        }
        result => result,
    }
}

/// As `read_to_end`, which would first ask how large the file is: of a file that the kernel makes up that is no help, and
/// takes as long as a good part of the reading.
fn read_whole(mut file: File, text: &mut Vec<u8>) -> io::Result<()> {
    // The kernel gives a page at a time, and ends with the one mapping that is its own and lies above all of a process's: what
    // would come after it is not asked for. Where there is none (`vsyscall=none`), an empty answer is the end.
    const LAST: &[u8] =
        b"\nffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";
    const ROOM: usize = 4096;
    let mut end = 0;
    loop {
        if text.len() < end + ROOM {
            text.resize(end + 4 * ROOM, 0);
        }
        match file.read(&mut text[end..]) {
            Ok(0) => break,
            Ok(got) => {
                end += got;
                if text[..end].ends_with(LAST) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                text.truncate(end);
                return Err(error);
            }
        }
    }
    text.truncate(end);
    Ok(())
}

/// As many files are told apart without an index.
const FEW: usize = 24;

/// What a process has mapped.
#[derive(Debug, Default)]
pub(crate) struct Mapped<'a> {
    /// The files, each once.
    pub(crate) files: Vec<Mapping<'a>>,
    /// Whether there is code that no file stands behind, beside what the kernel brings itself.
    pub(crate) code_without_file: bool,
}

/// What the text says that the kernel has written.
pub(crate) fn mapped(maps: &[u8]) -> Mapped<'_> {
    let mut files: Vec<Mapping<'_>> = Vec::with_capacity(FEW);
    let mut code_without_file = false;
    // A process may have 65,530 mappings (`vm.max_map_count`), each of another file. Most have a few files, of which looking
    // at each is quicker.
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut rest = maps;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        // A file's mappings stand side by side; once it is known as code, more of them say nothing.
        if let Some(last) = files.last()
            && last.executable == Executable::Yes
            && is_of(last.key, line)
        {
            continue;
        }
        let Some(mapping) = parse(line) else {
            code_without_file |= is_code_without_file(line);
            continue;
        };
        // A file's mappings stand side by side, but for those that were made later.
        let place = match files.last() {
            Some(last) if last.key == mapping.key => files.len() - 1,
            _ if files.len() < FEW => {
                files.iter().position(|known| known.key == mapping.key).unwrap_or(files.len())
            }
            _ => {
                if places.is_empty() {
                    places.extend(files.iter().enumerate().map(|(place, known)| (known.key, place)));
                }
                *places.entry(mapping.key).or_insert(files.len())
            }
        };
        match files.get_mut(place) {
            Some(known) if known.executable == Executable::No => {
                if mapping.executable == Executable::Yes {
                    *known = mapping;
                }
            }
            Some(_) => {}
            None => files.push(mapping),
        }
    }
    Mapped { files, code_without_file }
}

/// Whether a line is of the file of this key: it stands behind range, permissions and offset, in none of which is a blank.
fn is_of(key: &[u8], line: &[u8]) -> bool {
    line.strip_suffix(key).is_some_and(|before| {
        before.ends_with(b" ") && before.iter().filter(|byte| **byte == b' ').count() == 3
    })
}

/// Whether a line that is of no file is of code that the process has made or loaded itself. `[vdso]` and its like are the
/// kernel's; what a process calls its own memory begins with `[anon` (`PR_SET_VMA_ANON_NAME`).
fn is_code_without_file(line: &[u8]) -> bool {
    let Some(blank) = memchr(b' ', line) else { return false };
    if line.get(blank + 3) != Some(&b'x') {
        return false;
    }
    let named = memchr(b'[', line).map(|at| &line[at..]);
    named.is_none_or(|name| name.starts_with(b"[anon") || name == b"[heap]")
}

pub(crate) fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// `start-end perms offset dev inode   path` (proc(5)); only those with a file and a path.
fn parse(line: &[u8]) -> Option<Mapping<'_>> {
    let blank = |from: usize| memchr(b' ', line.get(from..)?).map(|at| from + at);
    let permissions = blank(0)? + 1;
    let offset = blank(permissions)? + 1;
    let key = &line[blank(offset)? + 1..];
    // Device, inode, and a name that stands in a column of its own.
    let inode_at = memchr(b' ', key)? + 1;
    let inode_end = inode_at + memchr(b' ', &key[inode_at..])?;
    let inode = &key[inode_at..inode_end];
    let name = &key[inode_end + key[inode_end..].iter().position(|byte| *byte != b' ')?..];
    if !name.starts_with(b"/") || inode == b"0" || !inode.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (range, permissions) = (&line[..permissions - 1], &line[permissions..offset - 1]);
    let dash = memchr(b'-', range)?;
    let range = (hexadecimal(&range[..dash])?, hexadecimal(&range[dash + 1..])?);
    let executable = if permissions.get(2) == Some(&b'x') { Executable::Yes } else { Executable::No };
    Some(Mapping { range, executable, key, name })
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_map_a_file_count() {
        let line = b"7f1c2a000000-7f1c2a026000 r-xp 00000000 08:01 1234                       /usr/lib/a b.so (deleted)";
        let mapping = parse(line).unwrap();
        assert_eq!(mapping.range, (0x7f1c_2a00_0000, 0x7f1c_2a02_6000));
        assert_eq!((mapping.device(), mapping.executable), (&b"08:01"[..], Executable::Yes));
        assert_eq!(mapping.name, b"/usr/lib/a b.so (deleted)");
        for other in [
            &b"7f1c2a000000-7f1c2a026000 rw-p 00000000 00:00 0 "[..],
            b"7ffd0e1f5000-7ffd0e216000 rw-p 00000000 00:00 0                          [stack]",
            b"7ffd0e1f5000-7ffd0e216000 rw-s 00000000 00:0e 1234                       anon_inode:[io/uring]",
            b"",
            b"/",
            b"non/sense",
        ] {
            assert_eq!(parse(other), None);
        }
    }

    #[test]
    fn code_that_no_file_stands_behind_is_seen_and_what_the_kernel_brings_is_none() {
        for (line, expected) in [
            ("7f1c2a000000-7f1c2a026000 r-xp 00000000 00:00 0 ", true),
            ("7f1c2a000000-7f1c2a026000 rwxp 00000000 00:00 0                          [anon:v8]", true),
            ("55d0c2a00000-55d0c2a26000 rwxp 00000000 00:00 0                          [heap]", true),
            ("7f1c2a000000-7f1c2a026000 rw-p 00000000 00:00 0 ", false),
            ("7ffd0e1f5000-7ffd0e1f7000 r-xp 00000000 00:00 0                          [vdso]", false),
            ("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]", false),
            ("7ffd0e1f5000-7ffd0e216000 rwxp 00000000 00:00 0                          [stack]", false),
            ("7f1c2a000000-7f1c2a026000 r-xp 00000000 08:01 7    /lib/a.so", false),
            ("", false),
        ] {
            let text = format!("{line}\n");
            assert_eq!(mapped(text.as_bytes()).code_without_file, expected, "{line}");
        }
    }

    #[test]
    fn a_file_counts_once_and_where_it_is_code() {
        let maps = b"1000-2000 r--p 00000000 08:01 7    /a\n2000-3000 r-xp 00001000 08:01 7    /a\n\
            3000-4000 r--p 00002000 08:01 7    /a\n4000-5000 r--p 00000000 08:01 8    /b\n";
        let found: Vec<_> =
            mapped(maps).files.iter().map(|one| (one.name, one.range, one.executable)).collect();
        let (a, b) = (&b"/a"[..], &b"/b"[..]);
        assert_eq!(found, [(a, (0x2000, 0x3000), Executable::Yes), (b, (0x4000, 0x5000), Executable::No)]);
    }

    #[test]
    fn a_name_that_ends_like_another_line_is_its_own() {
        let maps = b"1000-2000 r-xp 0 08:01 7 /a\n2000-3000 r-xp 0 08:01 9 /x 0 08:01 7 /a\n3000-4000 r--p 0 08:01 7 /a\n";
        let found = mapped(maps);
        let names: Vec<_> = found.files.iter().map(|one| one.name).collect();
        assert_eq!(names, [&b"/a"[..], b"/x 0 08:01 7 /a"]);
    }

    #[test]
    fn what_a_process_maps_is_read_to_its_end() {
        let own = Pid(std::process::id());
        let (mut ours, mut whole) = (Vec::new(), Vec::new());
        read(own, &mut ours).unwrap();
        File::open("/proc/self/maps").unwrap().read_to_end(&mut whole).unwrap();
        let last = |text: &[u8]| text.split(|byte| *byte == b'\n').rev().nth(1).map(<[u8]>::to_vec);
        assert_eq!(last(&ours), last(&whole));
        assert!(mapped(&ours).files.len() >= 3, "{}", String::from_utf8_lossy(&ours));
    }

    #[test]
    fn a_file_that_is_mapped_again_much_later_counts_once() {
        let maps = b"1000-2000 r--p 0 08:01 7 /a\n2000-3000 r--p 0 08:01 8 /b\n3000-4000 r-xp 0 08:01 7 /a\n";
        let found: Vec<_> = mapped(maps).files.iter().map(|one| (one.name, one.executable)).collect();
        assert_eq!(found, [(&b"/a"[..], Executable::Yes), (&b"/b"[..], Executable::No)]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "how long it takes is the test")]
    fn as_many_files_as_a_process_may_map_are_read_at_once() {
        let maps: String =
            (1..65_530).map(|inode| format!("1000-2000 r-xp 00000000 08:01 {inode} /a/{inode}\n")).collect();
        let begun = std::time::Instant::now();
        assert_eq!(mapped(maps.as_bytes()).files.len(), 65_529);
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn bytes_that_are_no_text_are_a_name_too() {
        let line = b"1000-2000 r-xp 00000000 08:01 7    /\xff\\012 ";
        let mapping = parse(line).unwrap();
        assert_eq!(mapping.name, b"/\xff\\012 ");
        assert!(mapping.is_ambiguous());
    }
}
