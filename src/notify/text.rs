//! Text that a terminal, a log file or a journal may show: nothing in it acts on its reader.

/// `text` without anything a terminal would act on: control, format and other invisible characters are escaped.
/// One line stays one line.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// The same for finished JSON: what [`plain`] would escape is escaped as JSON does. Line breaks between values stay.
pub fn plain_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || c.is_ascii_graphic() || c == ' ' || c.escape_debug().len() == 1 {
            shown.push(c);
        } else {
            // Beyond ASCII characters stand only within strings, where this is their other spelling.
            shown.extend(
                c.encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            );
        }
    }
    shown
}

/// A number with its thousands apart: `65,535`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor_or_turns_the_text_around() {
        assert_eq!(
            plain("a\nb\x1b[2J\u{202e}c\u{7f}"),
            "a\\nb\\u{1b}[2J\\u{202e}c\\u{7f}"
        );
        assert_eq!(plain("it's \"äöü\" \\"), "it's \"äöü\" \\");
        assert_eq!(
            plain_json("{\"a\":\"\u{202e}ä\u{7f}\"}"),
            "{\"a\":\"\\u202eä\\u007f\"}"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            [0, 999, 1_000, 65_535, 1_000_000].map(grouped),
            ["0", "999", "1,000", "65,535", "1,000,000"]
        );
    }
}
