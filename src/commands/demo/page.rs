//! What the demo prints: short, aligned, coloured only where a person looks.

use std::io::{IsTerminal as _, Write as _};

use crate::exit::{Failure, IOERR};

/// Stdout as a page of steps.
pub(super) struct Page {
    colour: bool,
    steps: u32,
}

/// Colours by what they mean.
#[derive(Clone, Copy)]
pub(super) enum Ink {
    Title,
    Command,
    Good,
    Bad,
}

impl Page {
    /// Colour on a terminal, unless `NO_COLOR` is set.
    pub(super) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !plain, steps: 0 }
    }

    /// A new step begins.
    pub(super) fn step(&mut self, title: &str) -> anyhow::Result<()> {
        self.steps += 1;
        let title = self.ink(Ink::Title, &format!("{}  {title}", self.steps));
        line("")?;
        line(&title)
    }

    /// A line of a step.
    pub(super) fn say(text: &str) -> anyhow::Result<()> {
        line(&format!("   {text}"))
    }

    /// A command that a person would type.
    pub(super) fn command(&self, text: &str) -> anyhow::Result<()> {
        Self::say(&self.ink(Ink::Command, &format!("$ {text}")))
    }

    /// Text in a colour.
    pub(super) fn ink(&self, ink: Ink, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Title => "1",
            Ink::Command => "36",
            Ink::Good => "1;32",
            Ink::Bad => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One line.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
    // Not `exit`: what the demo has started must be ended.
    written.map_err(|e| Failure::new(IOERR, format!("cannot write to stdout: {e}")).into())
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 key`, `2 keys`.
pub(super) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (n, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), want);
        }
        assert_eq!(count(1, "key", "keys"), "1 key");
    }
}
