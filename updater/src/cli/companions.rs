//! `update agent`, `enrol`, `rollout`, `controller` and `apply --fleet`: programs of their own, so that this one, which is
//! root's, links no TLS and no server. They lie beside it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use system::exit::{Exit, Failure};

use super::Global;

/// Whatever the other program takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its arguments; --help shows them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    rest: Vec<OsString>,
}

/// Becomes the other program.
pub(super) fn run(program: &str, words: &[&str], args: &Args, global: &Global) -> Result<(), Failure> {
    become_it(program, words.iter().map(OsString::from).chain(args.rest.iter().cloned()), global)
}

/// The grammar without the companions: their pages come with their programs.
pub(super) fn left_out(grammar: clap::Command) -> clap::Command {
    // Their own grammar says what --help is.
    grammar.mut_subcommands(|command| {
        let theirs = command.is_disable_help_flag_set();
        command.hide(theirs)
    })
}

/// `update-controller apply`.
pub(super) fn apply(manifest: &Path, rest: &[OsString], global: &Global) -> Result<(), Failure> {
    let words = [OsString::from("apply"), manifest.as_os_str().to_owned()];
    become_it("update-controller", words.into_iter().chain(rest.iter().cloned()), global)
}

fn become_it(
    program: &str,
    arguments: impl Iterator<Item = OsString>,
    global: &Global,
) -> Result<(), Failure> {
    let beside =
        std::env::current_exe().ok().and_then(|me| me.parent().map(|directory| directory.join(program)));
    let path = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(program));
    #[expect(clippy::disallowed_methods, reason = "it takes this process's place")]
    let mut command = Command::new(&path);
    if global.json {
        command.arg("--json");
    }
    let error = command.args(arguments).exec();
    Err(Failure::new(Exit::Refused, format!("cannot start {program}: {error}"))
        .because(format!("{program} beside update, or on the path"), path.display())
        .next(format!("install the package that has {program}")))
}
