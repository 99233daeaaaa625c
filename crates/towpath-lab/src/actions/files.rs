//! The files that a step writes to: `GITHUB_OUTPUT`, `GITHUB_ENV`, `GITHUB_STATE` (`name=value`, or a value of
//! several lines between delimiters) and `GITHUB_PATH` (a directory per line).

/// Reads `name=value` lines and `name<<DELIMITER` blocks. The error is in the runner's words.
pub(crate) fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pairs = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (equals, heredoc) = (line.find('='), line.find("<<"));
        match (equals, heredoc) {
            (Some(equals), _) if heredoc.is_none_or(|heredoc| equals < heredoc) => {
                pairs.push((name_of(&line[..equals], line)?, line[equals + 1..].to_owned()));
            }
            (_, Some(at)) => {
                let (name, delimiter) = (name_of(&line[..at], line)?, &line[at + 2..]);
                if delimiter.is_empty() {
                    return Err(format!("Invalid format '{line}'. Delimiter must not be empty"));
                }
                let mut value = Vec::new();
                loop {
                    match lines.next() {
                        Some(end) if end == delimiter => break,
                        Some(inner) => value.push(inner),
                        None => {
                            return Err(format!(
                                "Invalid value. Matching delimiter not found '{delimiter}'"
                            ));
                        }
                    }
                }
                pairs.push((name, value.join("\n")));
            }
            _ => return Err(format!("Invalid format '{line}'")),
        }
    }
    Ok(pairs)
}

fn name_of(name: &str, line: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err(format!("Invalid format '{line}'. Name must not be empty"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_their_errors() {
        let text = "a=1=2\n\nb<<EOF\nx\n\ny=z\nEOF\nc<<E=F\nv\nE=F\n";
        let read = parse_pairs(text).unwrap();
        let expected = [("a", "1=2"), ("b", "x\n\ny=z"), ("c", "v")];
        assert_eq!(
            read,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        for bad in ["nothing", "=x", "a<<EOF\nnever closed", "a<<\nx"] {
            assert!(parse_pairs(bad).is_err(), "{bad}");
        }
    }
}
