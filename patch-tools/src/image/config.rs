//! A kernel's configuration, as text in the format of `/boot/config-*`.

use std::collections::HashMap;

/// The options that are set.
#[derive(Debug, Clone, Default)]
pub struct Config {
    values: HashMap<String, String>,
}

impl Config {
    /// Reads the text; lines that set nothing are left out.
    pub fn parse(text: &str) -> Self {
        let settings =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        let values =
            settings.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect();
        Self { values }
    }

    /// The value of an option, given with its `CONFIG_` prefix; `None` when it is not set.
    pub fn get(&self, option: &str) -> Option<&str> {
        self.values.get(option).map(String::as_str)
    }

    /// Whether an option is `y`.
    pub fn is_set(&self, option: &str) -> bool {
        self.get(option) == Some("y")
    }

    /// The vermagic of a kernel with this configuration (`include/linux/vermagic.h`).
    pub fn vermagic(&self, release: &str) -> String {
        let mut vermagic = format!("{release} ");
        let words = [
            ("CONFIG_SMP", "SMP "),
            ("CONFIG_PREEMPT_BUILD", "preempt "),
            ("CONFIG_PREEMPT_RT", "preempt_rt "),
            ("CONFIG_MODULE_UNLOAD", "mod_unload "),
            ("CONFIG_MODVERSIONS", "modversions "),
        ];
        for (_, word) in words.iter().filter(|(option, _)| self.is_set(option)) {
            vermagic.push_str(word);
        }
        vermagic
    }
}
