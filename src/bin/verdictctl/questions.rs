//! Questions on a terminal.

use std::io::{self, IsTerminal};

use inquire::ui::RenderConfig;
use inquire::{Confirm, InquireError, MultiSelect, Select, Text};
use verdictd::cli::{Ask, AskError};

/// The terminal that the program was started on.
pub(crate) struct Terminal {
    pub(crate) colour: bool,
}

impl Terminal {
    /// Without a person there are no answers; asked first, so that nothing is waited for.
    fn there(&self) -> Result<RenderConfig<'static>, AskError> {
        let both = io::stdin().is_terminal() && io::stdout().is_terminal();
        match self.colour {
            _ if !both => Err(AskError::NoTerminal),
            true => Ok(RenderConfig::default_colored()),
            false => Ok(RenderConfig::empty()),
        }
    }
}

impl Ask for Terminal {
    fn one(&mut self, question: &str, options: &[String]) -> Result<usize, AskError> {
        let config = self.there()?;
        // inquire's own words tell of a filter also where there is none.
        let select = Select::new(question, options.to_vec())
            .without_filtering()
            .with_help_message("↑↓ to move, enter to choose");
        let chosen = select.with_render_config(config).raw_prompt();
        chosen.map(|option| option.index).map_err(told)
    }

    fn several(
        &mut self,
        question: &str,
        options: &[String],
        chosen: &[usize],
    ) -> Result<Vec<usize>, AskError> {
        let config = self.there()?;
        let select = MultiSelect::new(question, options.to_vec()).with_default(chosen);
        let select = select
            .without_filtering()
            .with_page_size(options.len().min(20))
            .with_help_message("↑↓ to move, space to choose, → all, ← none, enter when done");
        let chosen = select.with_render_config(config).raw_prompt();
        chosen
            .map(|options| options.iter().map(|option| option.index).collect())
            .map_err(told)
    }

    fn text(&mut self, question: &str, initial: &str) -> Result<String, AskError> {
        let config = self.there()?;
        let text = Text::new(question).with_initial_value(initial);
        text.with_render_config(config).prompt().map_err(told)
    }

    fn yes(&mut self, question: &str, default: bool) -> Result<bool, AskError> {
        let config = self.there()?;
        let confirm = Confirm::new(question).with_default(default);
        confirm.with_render_config(config).prompt().map_err(told)
    }
}

fn told(error: InquireError) -> AskError {
    match error {
        InquireError::OperationCanceled | InquireError::OperationInterrupted => AskError::Cancelled,
        InquireError::NotTTY => AskError::NoTerminal,
        other => AskError::Failed(other.to_string()),
    }
}
