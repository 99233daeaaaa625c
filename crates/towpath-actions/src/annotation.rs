//! Annotations: messages that GitHub shows beside a line of a file.

/// A message of `error`, `warning` or `notice`, with the place it belongs to.
///
/// GitHub shows ten of each kind for a step and fifty for a job; the log keeps all.
///
/// ```
/// use towpath_actions::Annotation;
/// let annotation = Annotation::new("this name is taken").title("Clash").file("src/lib.rs").lines(3, 5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Annotation {
    pub(crate) message: String,
    pub(crate) properties: Vec<(&'static str, String)>,
}

impl Annotation {
    /// A message without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            properties: Vec::new(),
        }
    }

    /// The headline.
    pub fn title(self, title: impl Into<String>) -> Self {
        self.with("title", title.into())
    }

    /// The file, relative to the root of the repository.
    pub fn file(self, path: impl Into<String>) -> Self {
        self.with("file", path.into())
    }

    /// The line, counted from 1.
    pub fn line(self, line: u32) -> Self {
        self.with("line", line.to_string())
    }

    /// The first and the last line, counted from 1.
    pub fn lines(self, first: u32, last: u32) -> Self {
        self.line(first).with("endLine", last.to_string())
    }

    /// The first and the last column, counted from 1. GitHub shows them only within one line.
    pub fn columns(self, first: u32, last: u32) -> Self {
        self.with("col", first.to_string())
            .with("endColumn", last.to_string())
    }

    fn with(mut self, key: &'static str, value: String) -> Self {
        self.properties.retain(|(known, _)| *known != key);
        self.properties.push((key, value));
        self
    }
}

impl From<&str> for Annotation {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Annotation {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}
