//! Server-sent events, by the WHATWG HTML standard, section 9.2.6.

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SseEvent {
    /// Its type; empty where the server named none.
    pub event: String,
    /// Its data, the lines joined with line feeds.
    pub data: String,
    /// The last id that the stream has named.
    pub id: Option<String>,
}

/// Reads server-sent events from lines, without doing any I/O.
///
/// ```
/// use towpath_http::SseParser;
/// let mut parser = SseParser::default();
/// assert_eq!(parser.line(": still here"), None);
/// assert_eq!(parser.line("data: {\"a\":1}"), None);
/// assert_eq!(parser.line("").unwrap().data, "{\"a\":1}");
/// ```
#[derive(Debug, Default)]
pub struct SseParser {
    next: SseEvent,
    has_data: bool,
}

impl SseParser {
    /// Takes in one line without its end; gives an event when the line completes one.
    pub fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let id = self.next.id.clone();
            let event = std::mem::take(&mut self.next);
            self.next.id = id;
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.next.data.push('\n');
                }
                self.next.data.push_str(value);
                self.has_data = true;
            }
            "event" => value.clone_into(&mut self.next.event),
            "id" if !value.contains('\0') => self.next.id = Some(value.to_owned()),
            // An empty field name is a comment, which servers send to keep the connection open.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_events() {
        let mut parser = SseParser::default();
        let text = "id: 7\nevent: change\ndata: a\ndata:b\n\n: ping\n\n\ndata\n\nretry: 10\n\ndata: c ";
        let events: Vec<_> = text.split('\n').filter_map(|line| parser.line(line)).collect();
        assert_eq!(events.len(), 2);
        assert_eq!(
            (events[0].event.as_str(), events[0].data.as_str()),
            ("change", "a\nb")
        );
        assert_eq!(
            (events[1].data.as_str(), events[1].id.as_deref()),
            ("", Some("7"))
        );
        assert_eq!(parser.line("").unwrap().data, "c ");
    }
}
