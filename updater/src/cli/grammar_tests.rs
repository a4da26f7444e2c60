//! The grammar as people read it.

use clap::CommandFactory as _;

use super::*;

#[test]
fn the_grammar_is_sound_and_every_subcommand_tells_what_it_is_for() {
    Cli::command().debug_assert();
    for command in Cli::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let imperative = about.starts_with(|first: char| first.is_ascii_uppercase()) && !about.ends_with('.');
        assert!(imperative, "{}: {about:?}", command.get_name());
    }
}

#[test]
fn a_subcommand_has_a_manual_page_unless_it_is_another_program() {
    let directory = tempfile::tempdir().unwrap();
    let words = ["update", "man", directory.path().to_str().unwrap()];
    Cli::try_parse_from(words).unwrap().run().unwrap();
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        // `update-agent.1` is the page of the program, which comes with it.
        let theirs = ["agent", "enrol", "rollout", "controller"].contains(&name);
        assert_eq!(directory.path().join(format!("update-{name}.1")).exists(), !theirs, "{name}");
    }
}

/// What a user reads of every command: the reference, held by a snapshot.
#[test]
fn help_of_every_command() {
    let mut text = Cli::command().term_width(100).render_long_help().to_string();
    for command in Cli::command().get_subcommands() {
        let mut command = command.clone().term_width(100).bin_name(format!("update {}", command.get_name()));
        let help = command.render_long_help();
        text += &format!("\n======== {}\n{help}", command.get_name());
    }
    insta::assert_snapshot!(text);
}
