//! `vm-tests`: the lab on the command line. See [`vm_tests::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    match vm_tests::cli::run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("vm-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}
