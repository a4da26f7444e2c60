//! `update completions` and `update man`: made from the grammar, so that they cannot disagree with it.

use std::io;
use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;
use system::exit::{Exit, Failure};

use crate::cli::Cli;

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update completions bash > /usr/share/bash-completion/completions/update")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args) {
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut io::stdout());
}

const NAME: &str = "update";

/// Write the manual pages, one for each subcommand, for packages
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// The directory to write them to
    directory: PathBuf,
}

pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(|error| {
        Failure::new(Exit::Refused, error).next("give a directory that is there and can be written")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound_and_every_subcommand_tells_what_it_is_for() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let imperative =
                about.starts_with(|first: char| first.is_ascii_uppercase()) && !about.ends_with('.');
            assert!(imperative, "{}: {about:?}", command.get_name());
        }
    }

    #[test]
    fn every_subcommand_has_a_manual_page_and_completions() {
        let directory = tempfile::tempdir().unwrap();
        man(&ManArgs { directory: directory.path().to_owned() }).unwrap();
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Cli::command(), NAME, &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(directory.path().join(format!("update-{name}.1")).exists(), "{name}");
            assert!(script.contains(name), "{name}");
        }
    }

    /// What a user reads of every command: the reference, held by a snapshot.
    #[test]
    fn help_of_every_command() {
        let mut text = Cli::command().term_width(100).render_long_help().to_string();
        for command in Cli::command().get_subcommands() {
            let mut command =
                command.clone().term_width(100).bin_name(format!("update {}", command.get_name()));
            let help = command.render_long_help();
            text += &format!("\n======== {}\n{help}", command.get_name());
        }
        insta::assert_snapshot!(text);
    }
}
