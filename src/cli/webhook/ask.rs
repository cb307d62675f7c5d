//! Questions to a person, whoever asks them: `verdictctl` on its terminal, a test from a script.

use thiserror::Error;

/// Asks, and waits for an answer.
pub trait Ask {
    /// Which of `options`: its place.
    ///
    /// # Errors
    /// If there is no answer.
    fn one(&mut self, question: &str, options: &[String]) -> Result<usize, AskError>;

    /// Which of `options`, with those at `chosen` chosen already: their places.
    ///
    /// # Errors
    /// If there is no answer.
    fn several(
        &mut self,
        question: &str,
        options: &[String],
        chosen: &[usize],
    ) -> Result<Vec<usize>, AskError>;

    /// A line of text; `initial` is there to be changed.
    ///
    /// # Errors
    /// If there is no answer.
    fn text(&mut self, question: &str, initial: &str) -> Result<String, AskError>;

    /// Yes or no.
    ///
    /// # Errors
    /// If there is no answer.
    fn yes(&mut self, question: &str, default: bool) -> Result<bool, AskError>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// The person wants out.
    #[error("cancelled, nothing was changed")]
    Cancelled,
    /// There is nobody to ask.
    #[error("no terminal to ask on; give --non-interactive with --name and --url")]
    NoTerminal,
    /// The terminal does not work.
    #[error("cannot ask: {0}")]
    Failed(String),
}
