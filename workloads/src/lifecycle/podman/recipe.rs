//! How a container was made, by podman's record of the command line, and how another one is made the same way.
//!
//! podman 3.1 and later keep the words of `podman run` or `podman create`. What is not taken apart rightly here makes a copy
//! that differs or none at all, and is found out before the container is touched: so this need not know every option, only
//! which of them take no value.

/// Options of `podman create` and `podman run` that take no value (podman 5.4, `podman-create(1)`, `podman-run(1)`).
const SWITCHES: &[&str] = &[
    "detach",
    "disable-content-trust",
    "env-host",
    "help",
    "http-proxy",
    "init",
    "interactive",
    "no-healthcheck",
    "no-hostname",
    "no-hosts",
    "oom-kill-disable",
    "passwd",
    "privileged",
    "publish-all",
    "quiet",
    "read-only",
    "read-only-tmpfs",
    "replace",
    "rm",
    "rmi",
    "sig-proxy",
    "tls-verify",
    "tty",
    "unsetenv-all",
];
const SHORT_SWITCHES: &str = "dihtPq";

/// Options that are about that one command, or that are given anew: the name, what is done when the image is missing, the
/// restart policy, whose terminal it was, and files with its number.
const LEFT_OUT: &[&str] = &[
    "attach",
    "cidfile",
    "detach",
    "detach-keys",
    "name",
    "preserve-fd",
    "preserve-fds",
    "pull",
    "quiet",
    "replace",
    "restart",
    "rm",
    "rmi",
    "sig-proxy",
];
/// The same, short: `--attach`, `--detach`, `--quiet`.
const SHORT_LEFT_OUT: &str = "adq";

/// The words that make a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    /// podman's own options, before its command.
    global: Vec<String>,
    options: Vec<String>,
    /// What follows the image.
    command: Vec<String>,
}

impl Recipe {
    /// The recipe in podman's record.
    ///
    /// # Errors
    /// Why there is none, as a sentence.
    pub(super) fn of(record: &[String]) -> Result<Self, String> {
        let Some(verb) = record.iter().skip(1).position(|word| matches!(word.as_str(), "run" | "create"))
        else {
            return Err("podman has kept no command line that made it".to_owned());
        };
        let (before, after) = (&record[1..=verb], &record[verb + 2..]);
        // `podman container run` is the same.
        let global = before.iter().filter(|word| *word != "container").cloned().collect();
        let mut recipe = Self { global, options: Vec::new(), command: Vec::new() };
        let mut words = after.iter();
        loop {
            let Some(word) = words.next() else {
                return Err("the command line that podman has kept names no image".to_owned());
            };
            let value = if word == "--" {
                words.next();
                recipe.command = words.cloned().collect();
                return Ok(recipe);
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, inline) =
                    long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                let takes_next = inline.is_none() && !SWITCHES.contains(&name);
                let value = if takes_next { words.next() } else { None };
                if LEFT_OUT.contains(&name) {
                    continue;
                }
                recipe.options.push(word.clone());
                value
            } else if let Some(short) = word.strip_prefix('-').filter(|short| !short.is_empty()) {
                let switches = short.find(|letter| !SHORT_SWITCHES.contains(letter));
                let (switches, rest) = short.split_at(switches.unwrap_or(short.len()));
                let kept: String =
                    switches.chars().filter(|letter| !SHORT_LEFT_OUT.contains(*letter)).collect();
                // A letter with a value: what follows it in this word, or the next word.
                let value = if rest.len() == 1 { words.next() } else { None };
                let left_out = rest.starts_with(|letter| SHORT_LEFT_OUT.contains(letter));
                let rest = if left_out { "" } else { rest };
                if !kept.is_empty() || !rest.is_empty() {
                    recipe.options.push(format!("-{kept}{rest}"));
                }
                value.filter(|_| !left_out)
            } else {
                recipe.command = words.cloned().collect();
                return Ok(recipe);
            };
            recipe.options.extend(value.cloned());
        }
    }

    /// The words for one of this name, from this image, with these volumes beside those of the recipe (as for `--volume`),
    /// and without a restart policy.
    pub(super) fn words(&self, name: &str, image: &str, volumes: &[String]) -> Vec<String> {
        let own = |text: &str| text.to_owned();
        let mut words = self.global.clone();
        words.push(own("create"));
        words.extend(self.options.iter().cloned());
        words.extend(volumes.iter().flat_map(|volume| [own("--volume"), volume.clone()]));
        words.extend(["--restart", "no", "--pull", "never", "--name", name, "--", image].map(own));
        words.extend(self.command.iter().cloned());
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn again(line: &str) -> Result<String, String> {
        Ok(Recipe::of(&words(line))?.words("NAME", "IMAGE", &[]).join(" "))
    }

    const END: &str = "--restart no --pull never --name NAME -- IMAGE";

    #[test]
    fn a_container_is_made_again_by_the_words_that_made_it() {
        for (line, expected) in [
            ("podman run -d --name web greet:1", format!("create {END}")),
            (
                "podman run --detach --name web --restart always --memory 256m --volume data:/data greet:1",
                format!("create --memory 256m --volume data:/data {END}"),
            ),
            (
                "/usr/bin/podman --log-level=error container run -dit -p 80:80 -v/a:/b --rm=false greet:1 greetd -d --name x",
                format!("--log-level=error create -it -p 80:80 -v/a:/b {END} greetd -d --name x"),
            ),
            (
                "podman create -dq -e A=b --env=C=d --pull always --replace --privileged --read-only=true -- greet:1 run",
                format!("create -e A=b --env=C=d --privileged --read-only=true {END} run"),
            ),
            (
                "podman run -a stdout -astderr -tda stdin --cidfile /x --health-cmd true --no-hosts greet:1",
                format!("create -t --health-cmd true --no-hosts {END}"),
            ),
            (
                "podman --runtime runc run --label name=run --entrypoint [\"a\"] greet:1",
                format!("--runtime runc create --label name=run --entrypoint [\"a\"] {END}"),
            ),
        ] {
            assert_eq!(again(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_was_made_by_no_command_line_has_no_recipe() {
        for line in ["", "podman", "podman kube play x.yaml", "podman run", "podman run -d --name web"] {
            assert!(again(line).is_err(), "{line}");
        }
        assert!(Recipe::of(&[]).is_err());
    }

    #[test]
    fn volumes_without_a_name_of_their_own_are_given_by_name() {
        let recipe = Recipe::of(&words("podman run greet:1")).unwrap();
        let words = recipe.words("NAME", "IMAGE", &["0123:/data".to_owned()]).join(" ");
        assert_eq!(words, format!("create --volume 0123:/data {END}"));
    }
}
