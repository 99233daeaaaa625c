//! The log of a job: workflow commands on its lines (`::add-mask::`, `::error …::`, `::stop-commands::`), secrets
//! covered, a time before each line. After "Workflow commands for GitHub Actions".

use serde_json::{Value, json};

/// A step shows this many annotations of one level.
const MOST_ANNOTATIONS: usize = 10;

/// What is written while a job runs.
#[derive(Debug, Default)]
pub(crate) struct Log {
    text: String,
    masks: Vec<String>,
    stopped: Option<String>,
    annotations: Vec<Value>,
    in_step: [usize; 3],
}

impl Log {
    /// Covers a value, and each line of it, from now on.
    pub(crate) fn mask(&mut self, secret: &str) {
        for line in secret.lines().map(str::trim).chain([secret.trim()]) {
            if !line.is_empty() && !self.masks.iter().any(|known| known == line) {
                self.masks.push(line.to_owned());
            }
        }
        // The longest first, so that a mask inside another does not leave a part of it.
        self.masks.sort_by_key(|mask| std::cmp::Reverse(mask.len()));
    }

    /// The text with every mask covered.
    pub(crate) fn cover(&self, text: &str) -> String {
        self.masks
            .iter()
            .fold(text.to_owned(), |text, mask| text.replace(mask.as_str(), "***"))
    }

    /// Whether the text holds something that must not be seen.
    pub(crate) fn holds_secret(&self, text: &str) -> bool {
        self.masks.iter().any(|mask| text.contains(mask.as_str()))
    }

    /// Writes one line of the runner's own.
    pub(crate) fn write(&mut self, line: &str) {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
        let line = self.cover(line);
        self.text.push_str(&format!("{now} {line}\n"));
    }

    /// Begins a step: commands work again, and its annotations are counted anew.
    pub(crate) fn begin_step(&mut self) {
        self.stopped = None;
        self.in_step = [0; 3];
    }

    /// Takes one line that a step printed.
    pub(crate) fn take(&mut self, line: &str) {
        let Some((name, properties, data)) = command(line) else {
            self.write(line);
            return;
        };
        if let Some(token) = &self.stopped {
            if name == token {
                self.stopped = None;
            }
            self.write(line);
            return;
        }
        match name {
            "add-mask" => {
                self.mask(&unescape(data, false));
                self.write("::add-mask::***");
            }
            "stop-commands" => {
                self.stopped = Some(data.trim().to_owned());
                self.write(line);
            }
            "error" | "warning" | "notice" => {
                let data = unescape(data, false);
                self.write(&format!("##[{name}]{data}"));
                self.annotate(name, properties, &data);
            }
            "group" => self.write(&format!("##[group]{}", unescape(data, false))),
            "endgroup" => self.write("##[endgroup]"),
            // Debug lines are shown only where a run asks for them.
            "debug" | "echo" => {}
            _ => self.write(line),
        }
    }

    /// Adds an error of the runner's own.
    pub(crate) fn fail(&mut self, message: &str) {
        self.write(&format!("##[error]{message}"));
        self.annotate("error", "", message);
    }

    fn annotate(&mut self, level: &str, properties: &str, message: &str) {
        let (level, slot) = match level {
            "error" => ("failure", 0),
            "warning" => ("warning", 1),
            _ => ("notice", 2),
        };
        self.in_step[slot] += 1;
        if self.in_step[slot] > MOST_ANNOTATIONS {
            return;
        }
        let property = |name: &str| {
            let found = properties.split(',').filter_map(|pair| pair.split_once('='));
            found
                .into_iter()
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| unescape(value, true))
        };
        let line = |name: &str| property(name).and_then(|line| line.parse::<u64>().ok());
        let start = line("line").unwrap_or(1);
        self.annotations.push(json!({
            "path": property("file").unwrap_or_else(|| ".github".into()),
            "start_line": start, "end_line": line("endLine").unwrap_or(start),
            "annotation_level": level, "title": property("title"), "message": self.cover(message),
        }));
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn annotations(&self) -> &[Value] {
        &self.annotations
    }
}

/// Splits `::name properties::data`.
fn command(line: &str) -> Option<(&str, &str, &str)> {
    let (head, data) = line.trim_start().strip_prefix("::")?.split_once("::")?;
    let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
    (!name.is_empty()).then_some((name, properties, data))
}

fn unescape(text: &str, property: bool) -> String {
    let text = text.replace("%0D", "\r").replace("%0A", "\n");
    let text = if property {
        text.replace("%3A", ":").replace("%2C", ",")
    } else {
        text
    };
    text.replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cover_and_stopped_commands_are_only_text() {
        let mut log = Log::default();
        log.take("::add-mask::hunter2");
        log.take("the word is hunter2");
        log.take("::stop-commands::pause");
        log.take("::error::not one");
        log.take("::pause::");
        log.take("::error file=src/a.rs,line=3,title=a%2Cb::50%25 of hunter2");
        assert!(!log.text().contains("hunter2"), "{}", log.text());
        assert!(log.text().contains("the word is ***"));
        assert_eq!(log.annotations().len(), 1);
        let one = &log.annotations()[0];
        assert_eq!(
            (&one["path"], &one["start_line"], &one["title"]),
            (&json!("src/a.rs"), &json!(3), &json!("a,b"))
        );
        assert_eq!(one["message"], "50% of ***");
    }
}
