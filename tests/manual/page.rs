//! The page of a program: its verbs as the definition of the command line has them, between what is written by hand.

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

/// Where the verbs go in the part that is written by hand.
const PLACE: &str = ".\\\" COMMANDS\n";
/// What an apostrophe is, which clap_mangen's text refers to.
const PREAMBLE: [&str; 2] = [r".ie \n(.g .ds Aq \(aq", ".el .ds Aq '"];

/// The page of `command`. `parts`, written by hand, has a line [`PLACE`].
pub(crate) fn of(mut command: Command, parts: &str) -> String {
    command.build();
    let (before, after) = parts.split_once(PLACE).expect("a line for the verbs");
    let name = command.get_name().to_owned();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {}", about.trim_end_matches('.')))]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold(&name), roman(" "), italic("COMMAND"), roman(" [OPTIONS]")]);
    roff.control("br", []);
    roff.text([
        bold(&name),
        roman(" "),
        bold("--help"),
        roman(" | "),
        bold("--version"),
    ]);
    let mut page = head(&name, "8", "System administration") + &roff.to_roff() + before;
    page += ".SH COMMANDS\n";
    for verb in command.get_subcommands() {
        verbs(verb, &mut page);
    }
    if command.get_arguments().any(|arg| arg.is_global_set()) {
        page += ".SH \"OPTIONS OF EVERY COMMAND\"\n";
        page += &options(&command, |arg| arg.is_global_set());
    }
    page + after
}

/// The first lines of every page. Without a date: it would change with each day.
pub(crate) fn head(name: &str, section: &str, manual: &str) -> String {
    format!(
        ".\\\" Made by tests/manual from the code and from packaging/man/parts.\n{}\n{}\n\
         .TH {name} {section} \"\" \"verdictd {}\" \"{manual}\"\n",
        PREAMBLE[0],
        PREAMBLE[1],
        env!("CARGO_PKG_VERSION")
    )
}

/// A verb, or those below it.
fn verbs(command: &Command, page: &mut String) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    if command.has_subcommands() {
        command.get_subcommands().for_each(|below| verbs(below, page));
        return;
    }
    let mut title = command.get_bin_name().unwrap_or_default().to_owned();
    for arg in command.get_positionals().filter(|arg| !arg.is_hide_set()) {
        let name = arg
            .get_value_names()
            .map_or_else(|| arg.get_id().as_str().to_uppercase(), |names| names.join(" "));
        title += &match arg.is_required_set() {
            true => format!(" {name}"),
            false => format!(" [{name}]"),
        };
    }
    let mut roff = Roff::new();
    roff.control("SS", [title.as_str()]);
    let about = command
        .get_long_about()
        .or(command.get_about())
        .map(ToString::to_string);
    for (nth, paragraph) in about.unwrap_or_default().split("\n\n").enumerate() {
        if nth > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(sentence(&paragraph.replace('\n', " ")))]);
    }
    page.push_str(&roff.to_roff());
    page.push_str(&options(command, |arg| {
        !arg.is_global_set() && !["help", "version"].contains(&arg.get_id().as_str())
    }));
    if let Some(more) = command.get_after_help() {
        page.push_str(&preformatted(&more.to_string()));
    }
}

/// As clap_mangen lists them, without its title.
fn options(command: &Command, is_wanted: impl Fn(&Arg) -> bool) -> String {
    let hide_others = |arg: Arg| match is_wanted(&arg) {
        true => arg,
        false => arg.hide(true),
    };
    let mut list = Vec::new();
    let page = Man::new(command.clone().mut_args(hide_others));
    page.render_options_section(&mut list).unwrap();
    let list = String::from_utf8(list).unwrap();
    let lines = list
        .lines()
        .filter(|line| *line != ".SH OPTIONS" && !PREAMBLE.contains(line));
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Text whose lines stay as they are.
fn preformatted(text: &str) -> String {
    let mut roff = Roff::new();
    roff.control("PP", []).control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.to_roff()
}

fn sentence(text: &str) -> String {
    match text.ends_with(['.', ':']) || text.is_empty() {
        true => text.to_owned(),
        false => format!("{text}."),
    }
}
