use std::time::Duration;

/// Tells people what happens, step by step.
#[derive(Debug, Default)]
pub(crate) struct Story {
    step: u32,
    quiet: bool,
}

impl Story {
    /// Without words, for `--json`.
    pub(crate) fn quiet(quiet: bool) -> Self {
        Self { step: 0, quiet }
    }

    /// A new step.
    pub(crate) fn step(&mut self, title: &str) {
        self.step += 1;
        self.say(&format!("\n{}. {title}", self.step));
    }

    /// More of the step.
    pub(crate) fn tell(&self, text: &str) {
        if text.is_empty() {
            self.say("");
        }
        for line in text.lines() {
            self.say(&format!("   {line}"));
        }
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            // A reader that went away does not stop the demo.
            let _ = crate::cli::output::line(line.trim_end());
        }
    }
}

/// A duration in words: `12 ms`, `3.4 s`.
pub(crate) fn words(took: Duration) -> String {
    let ms = took.as_millis();
    if ms < 1_000 {
        format!("{ms} ms")
    } else {
        format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(words(Duration::from_micros(12_345)), "12 ms");
        assert_eq!(words(Duration::from_millis(3_456)), "3.4 s");
    }
}
