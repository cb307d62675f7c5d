//! `verdictctl`: argv in, exit code out; the work is in [`verdictd::cli`].
//!
//! Only the questions of `webhook setup` are asked here, so that what asks them is linked into no other program.

mod questions;

use std::env;
use std::io::{self, BufWriter, IsTerminal};
use std::process::ExitCode;

use verdictd::cli::{self, Screen, Style};
use verdictd::webhook::secret;

use crate::questions::Terminal;

fn main() -> ExitCode {
    secret::keep_from_others();
    let stdout = io::stdout();
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    let style = Style::of(stdout.is_terminal() && !dumb, no_colour);
    let screen = Screen {
        out: &mut BufWriter::new(stdout.lock()),
        err: &mut io::stderr(),
        style,
    };
    let mut terminal = Terminal { colour: style.colour };
    cli::run(env::args_os(), screen, &mut terminal).into()
}
