//! Which kernels GRUB's menu has, and which one it takes.
//!
//! The format is what `grub-mkconfig` writes: `menuentry` and `submenu` with `$menuentry_id_option ID`, `set default=`, and in
//! an entry `linux IMAGE` (GRUB manual, "Writing full configuration files directly" and the script `10_linux`). `grubenv` has
//! lines `NAME=VALUE`, filled up with `#`. An entry is named by its index, its id or its title; one of a submenu by the
//! submenu's name, `>` and its own. What a person wrote by hand may do anything: then no entry is the default.

use manifests::KernelRelease;

/// The menu.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Menu {
    /// The entries that boot something, submenus opened, in order.
    pub entries: Vec<Entry>,
    /// What `set default=` says, where it is not about the next boot alone.
    default: Option<String>,
}

/// An entry of the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place and names, from the top of the menu.
    path: Vec<Level>,
    /// The kernel that it boots, if its image is called as packages call theirs.
    pub kernel: Option<KernelRelease>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Level {
    index: usize,
    id: Option<String>,
    title: String,
}

impl Level {
    fn is_called(&self, name: &str) -> bool {
        name.parse() == Ok(self.index) || self.id.as_deref() == Some(name) || self.title == name
    }
}

impl Entry {
    /// The name that stays when the order of the menu changes; `None` for an entry without ids.
    pub fn name(&self) -> Option<String> {
        let ids: Option<Vec<&str>> = self.path.iter().map(|level| level.id.as_deref()).collect();
        ids.map(|ids| ids.join(">"))
    }

    fn is_called(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split('>').collect();
        parts.len() == self.path.len()
            && self.path.iter().zip(parts).all(|(level, part)| level.is_called(part))
    }
}

/// What is open while a configuration is read.
enum Open {
    Submenu(Level),
    Entry,
    /// Braces of something else, such as a function.
    Other,
}

impl Menu {
    /// Reads `grub.cfg`.
    pub fn parse(text: &str) -> Self {
        let mut menu = Self::default();
        let mut open: Vec<Open> = Vec::new();
        // How many entries each menu that is open has so far.
        let mut counts = vec![0];
        for words in text.lines().map(words) {
            let Some(first) = words.first().map(String::as_str) else { continue };
            let opens = words.last().is_some_and(|last| last == "{");
            match first {
                "menuentry" | "submenu" if opens => {
                    let level = level(&words, counts.last_mut());
                    if first == "submenu" {
                        open.push(Open::Submenu(level));
                        counts.push(0);
                    } else {
                        let above = open.iter().filter_map(|one| match one {
                            Open::Submenu(level) => Some(level.clone()),
                            _ => None,
                        });
                        menu.entries.push(Entry { path: above.chain([level]).collect(), kernel: None });
                        open.push(Open::Entry);
                    }
                }
                "}" => {
                    if let Some(Open::Submenu(_)) = open.pop() {
                        counts.pop();
                    }
                }
                "linux" | "linuxefi" | "linux16" if matches!(open.last(), Some(Open::Entry)) => {
                    if let (Some(entry), Some(image)) = (menu.entries.last_mut(), words.get(1)) {
                        entry.kernel = release_of(image);
                    }
                }
                "set" => {
                    let default = words.get(1).and_then(|word| word.strip_prefix("default="));
                    if let Some(default) = default.filter(|default| *default != "${next_entry}") {
                        menu.default = Some(default.to_owned());
                    }
                }
                _ if opens => open.push(Open::Other),
                _ => {}
            }
        }
        menu
    }

    /// The entry that is taken by itself; `environment` is the text of `grubenv`, if there is one.
    pub fn taken(&self, environment: Option<&str>) -> Option<&Entry> {
        let named = self.default.as_deref().unwrap_or("0");
        match named {
            "${saved_entry}" => self.named(&variable(environment?, "saved_entry")?),
            named => self.named(named),
        }
    }

    /// The entry that is taken at the next boot alone, if somebody asked for one.
    pub fn once(&self, environment: Option<&str>) -> Option<&Entry> {
        self.named(&variable(environment?, "next_entry")?)
    }

    /// The entry of that name.
    pub fn named(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_called(name))
    }

    /// The entry that boots this kernel with its usual command line. In a menu of `10_linux` that is the one in the submenu whose
    /// id has the release; the entry at the top is another kernel's after the next installation.
    pub fn of(&self, kernel: &KernelRelease) -> Option<&Entry> {
        let usual = |entry: &&Entry| {
            let id = entry.path.last().and_then(|level| level.id.as_deref()).unwrap_or_default();
            entry.kernel.as_ref() == Some(kernel)
                && id.contains(kernel.as_str())
                && !id.contains("-recovery-")
        };
        self.entries.iter().find(usual)
    }
}

fn level(words: &[String], count: Option<&mut usize>) -> Level {
    let index = count.map_or(0, |count| std::mem::replace(count, *count + 1));
    let id = words.windows(2).find(|pair| matches!(pair[0].as_str(), "$menuentry_id_option" | "--id"));
    Level { index, id: id.map(|pair| pair[1].clone()), title: words.get(1).cloned().unwrap_or_default() }
}

/// `/boot/vmlinuz-RELEASE`, on whatever file system GRUB sees it.
fn release_of(image: &str) -> Option<KernelRelease> {
    image.rsplit('/').next()?.strip_prefix("vmlinuz-")?.parse().ok()
}

fn variable(environment: &str, name: &str) -> Option<String> {
    let value = environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    (!value.is_empty()).then(|| value.to_owned())
}

/// The words of a line, as a shell tells them apart. A comment has none.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '#' if word.is_none() => break,
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                word.extend(letters.by_ref().take_while(|next| *next != letter));
            }
            '\\' => word.get_or_insert_default().extend(letters.next()),
            letter if letter.is_whitespace() => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
#[path = "grub_tests.rs"]
pub(super) mod tests;
