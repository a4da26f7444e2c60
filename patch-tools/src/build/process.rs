//! Runs the programs a build needs (compiler, make, linker, apt) and keeps what they said.
//!
//! Invariants: a program is started without a shell, with a cleaned environment (fixed locale and time
//! zone, so that messages and outputs do not depend on who builds), and a failure carries the command and
//! the end of its error output. This is the one place of the crate that starts programs, but for the one that holds a
//! build root's namespaces (`root`).
//!
//! Not `system::command`, which serves root on a host: there a program is found in a fixed path and not in the
//! user's, has a deadline, and does not hear a Ctrl-C. A compiler has to be the user's, may take as long as it needs,
//! and ends with whoever waits for it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use super::root::{Entered, PATH};

/// Lines of error output that a failure keeps; compilers print the cause first and repeat it, linkers last.
const KEPT_LINES: usize = 30;

/// A program that could not be run or did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not installed.
    #[error("`{program}` is not installed{}", install_hint(program))]
    Missing {
        /// The program's name.
        program: String,
    },
    /// The program could not be started.
    #[error("cannot run `{program}`")]
    Start {
        /// The program's name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The program ended with an error.
    #[error("`{command}` ended with {status}:\n{stderr}")]
    Failed {
        /// The command line, shortened.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote to standard error: the end of it.
        stderr: String,
    },
}

/// Which Debian package has a program that the build of a kernel needs.
pub(crate) fn package_of(program: &str) -> Option<&'static str> {
    Some(match program {
        "make" => "make",
        "flex" => "flex",
        "bison" => "bison",
        "bc" => "bc",
        "perl" => "perl",
        "ld" | "as" | "nm" | "objcopy" => "binutils",
        "apt-get" | "apt-cache" => "apt",
        _ => return None,
    })
}

fn install_hint(program: &str) -> String {
    match package_of(program) {
        Some(package) => format!("; install it with `apt-get install {package}`"),
        None if program.starts_with("gcc-") => format!("; install it with `apt-get install {program}`"),
        None => String::new(),
    }
}

/// A program with its arguments, working directory and the variables it is to see.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    name: OsString,
    arguments: Vec<OsString>,
    directory: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
    root: Option<Arc<Entered>>,
}

impl Program {
    /// A program found on the `PATH`, or at a path.
    pub(crate) fn new(name: impl AsRef<OsStr>) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            arguments: Vec::new(),
            directory: None,
            environment: Vec::new(),
            input: None,
            root: None,
        }
    }

    /// Runs it in a build root instead of this machine's own system.
    pub(super) fn within(mut self, root: Arc<Entered>) -> Self {
        self.root = Some(root);
        self
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Sets one variable.
    pub(crate) fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives it something on standard input.
    pub(crate) fn input(mut self, input: Vec<u8>) -> Self {
        self.input = Some(input);
        self
    }

    /// Runs it to its end and returns standard output.
    pub(crate) fn run(self) -> Result<Vec<u8>, ProcessError> {
        let (command, output) = self.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(ProcessError::Failed {
            command,
            status: output.status.to_string(),
            stderr: tail(&String::from_utf8_lossy(&output.stderr)),
        })
    }

    /// Runs it to its end, whatever its status, and returns the shortened command line and what came out.
    pub(crate) fn output(self) -> Result<(String, Output), ProcessError> {
        let shown = self.shown();
        let mut words = match &self.root {
            Some(root) => root.entrance(self.directory.as_deref().unwrap_or(Path::new("/"))),
            None => Vec::new(),
        };
        words.push(self.name.clone());
        let mut words = words.into_iter().chain(self.arguments);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let kept: &[&str] = match self.root {
            Some(_) => &["TMPDIR"],
            None => &["PATH", "HOME", "TMPDIR", "http_proxy", "https_proxy", "no_proxy"],
        };
        for kept in kept {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        if self.root.is_some() {
            command.env("PATH", PATH);
        }
        command.envs([("LC_ALL", "C"), ("TZ", "UTC")]).envs(self.environment);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let input = self.input;
        let outcome = command.spawn().and_then(|mut child| {
            let stdin = child.stdin.take();
            thread::scope(|scope| {
                // A program that ends without reading everything has its reasons, and says them.
                scope.spawn(move || stdin.zip(input).map(|(mut stdin, input)| stdin.write_all(&input)));
                child.wait_with_output()
            })
        });
        match outcome {
            Ok(output) => Ok((shown, output)),
            // A missing working directory is reported the same way; it is not the program's fault.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && self.directory.as_ref().is_none_or(|directory| directory.is_dir()) =>
            {
                Err(ProcessError::Missing { program: self.name.to_string_lossy().into_owned() })
            }
            Err(source) => {
                Err(ProcessError::Start { program: self.name.to_string_lossy().into_owned(), source })
            }
        }
    }

    /// The command line as a person would read it; compile commands run to 4 KiB, of which the ends tell.
    fn shown(&self) -> String {
        let mut words = vec![self.name.to_string_lossy().into_owned()];
        words.extend(self.arguments.iter().map(|argument| argument.to_string_lossy().into_owned()));
        if words.len() > 12 {
            let last = words.split_off(words.len() - 4);
            words.truncate(4);
            words.push("…".to_owned());
            words.extend(last);
        }
        words.join(" ")
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(KEPT_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_package_to_install() {
        let error = Program::new("flex-that-is-not-there").run().unwrap_err();
        assert_eq!(error.to_string(), "`flex-that-is-not-there` is not installed");
        let error = ProcessError::Missing { program: "flex".into() };
        assert_eq!(error.to_string(), "`flex` is not installed; install it with `apt-get install flex`");
    }

    #[test]
    fn a_failed_program_keeps_the_end_of_its_error_output() {
        let script = "i=0; while [ $i -lt 100 ]; do echo line $i >&2; i=$((i+1)); done; exit 3";
        let error = Program::new("sh").args(["-c", script]).run().unwrap_err();
        let ProcessError::Failed { status, stderr, .. } = error else { panic!("{error:?}") };
        assert_eq!(status, "exit status: 3");
        assert_eq!(stderr.lines().count(), KEPT_LINES);
        assert!(stderr.ends_with("line 99"));
    }

    #[test]
    fn large_input_and_output_do_not_block_each_other() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(Program::new("cat").input(input.clone()).run().unwrap(), input);
        assert_eq!(Program::new("true").input(input).run().unwrap(), b"");
    }

    #[test]
    fn programs_do_not_see_the_callers_locale_or_flags() {
        let out = Program::new("sh").args(["-c", "echo $LC_ALL $TZ $CFLAGS $MAKEFLAGS"]).run().unwrap();
        assert_eq!(out, b"C UTC\n");
    }
}
