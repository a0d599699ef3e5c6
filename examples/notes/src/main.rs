//! The program: everything else is in the library, for the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    notes::service().main(notes::start)
}
