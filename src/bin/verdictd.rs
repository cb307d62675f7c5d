//! The engine's program: argv in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    verdictd::cli::engine::main()
}
