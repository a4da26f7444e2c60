//! What packages ship of a program's command line: completions and manual pages. Both are made from its grammar, so that they
//! cannot disagree with it.
//!
//! A program has these subcommands by one variant of its own, `#[command(flatten)] Manual(manual::Manual)`.

use std::io;
use std::path::PathBuf;

use clap::Subcommand;
use clap_complete::Shell;
use system::exit::{Exit, Failure};

/// Subcommands of every program.
#[derive(Debug, Subcommand)]
pub enum Manual {
    /// Print the completion script of a shell
    ///
    /// The packages have those of bash, fish and zsh where these look for them.
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages, one for each subcommand, for packages
    #[command(hide = true)]
    Man {
        /// The directory to write them to
        directory: PathBuf,
    },
}

impl Manual {
    /// Does it for a program with this grammar. Hidden subcommands have no page.
    ///
    /// # Errors
    /// If the pages cannot be written.
    pub fn run(&self, mut program: clap::Command) -> Result<(), Failure> {
        match self {
            Self::Completions { shell } => {
                let name = program.get_name().to_owned();
                clap_complete::generate(*shell, &mut program, name, &mut io::stdout());
                Ok(())
            }
            Self::Man { directory } => clap_mangen::generate_to(program, directory).map_err(|error| {
                Failure::new(Exit::Refused, error).next("give a directory that is there and can be written")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "program", version)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Debug, Subcommand)]
    enum Command {
        /// Do it
        Work,
        /// For nobody
        #[command(hide = true)]
        Secret,
        #[command(flatten)]
        Manual(Manual),
    }

    #[test]
    fn every_subcommand_that_is_shown_has_a_page_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let line = ["program", "man", directory.path().to_str().unwrap()];
        let Command::Manual(manual) = Cli::parse_from(line).command else { panic!("not the manual") };
        manual.run(Cli::command()).unwrap();
        let mut pages: Vec<_> =
            directory.path().read_dir().unwrap().map(|page| page.unwrap().file_name()).collect();
        pages.sort();
        assert_eq!(pages, ["program-completions.1", "program-work.1", "program.1"]);
        let missing = Manual::Man { directory: directory.path().join("missing") };
        assert_eq!(missing.run(Cli::command()).unwrap_err().exit(), Exit::Refused);
    }
}
