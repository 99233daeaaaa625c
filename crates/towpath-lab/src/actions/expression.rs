//! `${{ … }}`: literals, property look-ups, comparison, logic and the status functions, after "Evaluate expressions
//! in workflows and actions". Any other function is refused by name.

use serde_json::Value;

/// What an expression can see.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// `github`, `env`, `secrets`, `vars`, `steps`, `needs`, `runner`, `job`, `inputs`.
    pub(crate) contexts: Value,
    /// Whether everything so far succeeded.
    pub(crate) success: bool,
    /// Whether the run was cancelled.
    pub(crate) cancelled: bool,
}

impl Scope {
    /// `text` with every `${{ … }}` replaced by its value.
    pub(crate) fn fill(&self, text: &str) -> Result<String, String> {
        let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(start) = rest.find("${{") {
            filled.push_str(&rest[..start]);
            let (expression, after) = rest[start + 3..]
                .split_once("}}")
                .ok_or_else(|| format!("an expression is not closed in {:?}", first_line(text)))?;
            filled.push_str(&text_of(&self.evaluate(expression)?));
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// Whether an `if` holds. One that names no status function holds only after success.
    pub(crate) fn holds(&self, condition: Option<&str>) -> Result<bool, String> {
        let Some(condition) = condition else {
            return Ok(self.success && !self.cancelled);
        };
        let trimmed = condition.trim();
        let bare = trimmed
            .strip_prefix("${{")
            .and_then(|text| text.strip_suffix("}}"))
            .unwrap_or(trimmed);
        let mut parser = Parser {
            scope: self,
            rest: bare,
            asked_status: false,
        };
        let value = parser.whole()?;
        Ok(truthy(&value) && (parser.asked_status || self.success && !self.cancelled))
    }

    /// The value of one expression.
    pub(crate) fn evaluate(&self, text: &str) -> Result<Value, String> {
        Parser {
            scope: self,
            rest: text,
            asked_status: false,
        }
        .whole()
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// How a value reads inside a text.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::String(left), Value::String(right)) => left.eq_ignore_ascii_case(right),
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => false,
        (left, right) if std::mem::discriminant(left) == std::mem::discriminant(right) => left == right,
        // Values of different kinds are compared as numbers.
        (left, right) => number(left) == number(right),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(0.0),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text.is_empty() => Some(0.0),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

struct Parser<'a> {
    scope: &'a Scope,
    rest: &'a str,
    asked_status: bool,
}

impl<'a> Parser<'a> {
    fn whole(&mut self) -> Result<Value, String> {
        let text = self.rest.trim();
        let value = self.or(0)?;
        if self.rest.trim().is_empty() {
            Ok(value)
        } else {
            Err(format!(
                "the lab cannot evaluate the expression {text:?} from {:?} on",
                self.rest.trim()
            ))
        }
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn or(&mut self, depth: usize) -> Result<Value, String> {
        let mut left = self.and(depth)?;
        while self.take("||") {
            let right = self.and(depth)?;
            left = if truthy(&left) { left } else { right };
        }
        Ok(left)
    }

    fn and(&mut self, depth: usize) -> Result<Value, String> {
        let mut left = self.comparison(depth)?;
        while self.take("&&") {
            let right = self.comparison(depth)?;
            left = if truthy(&left) { right } else { left };
        }
        Ok(left)
    }

    fn comparison(&mut self, depth: usize) -> Result<Value, String> {
        let left = self.single(depth)?;
        if self.take("==") {
            return Ok(Value::Bool(same(&left, &self.single(depth)?)));
        }
        if self.take("!=") {
            return Ok(Value::Bool(!same(&left, &self.single(depth)?)));
        }
        Ok(left)
    }

    fn single(&mut self, depth: usize) -> Result<Value, String> {
        if depth > 32 {
            return Err("an expression is nested too deeply".into());
        }
        if self.take("!") {
            return Ok(Value::Bool(!truthy(&self.single(depth + 1)?)));
        }
        if self.take("(") {
            let value = self.or(depth + 1)?;
            return if self.take(")") {
                Ok(value)
            } else {
                Err("a parenthesis is not closed".into())
            };
        }
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('\'') {
            return self.quoted().map(Value::String);
        }
        let word = self.word();
        match word {
            "" => Err(format!("the lab cannot evaluate {:?}", first_line(self.rest))),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            _ if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => word
                .parse::<serde_json::Number>()
                .map(Value::Number)
                .map_err(|_| format!("{word:?} is not a number")),
            _ if self.take("(") => self.function(word),
            _ => self.path(word),
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let (mut text, mut rest) = (String::new(), &self.rest[1..]);
        loop {
            let end = rest.find('\'').ok_or("a text is not closed")?;
            text.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            // Two quotes inside a text stand for one.
            match rest.strip_prefix('\'') {
                Some(after) => {
                    text.push('\'');
                    rest = after;
                }
                None => {
                    self.rest = rest;
                    return Ok(text);
                }
            }
        }
    }

    fn word(&mut self) -> &'a str {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn function(&mut self, name: &str) -> Result<Value, String> {
        if !self.take(")") {
            return Err(format!("the lab does not know the function {name}"));
        }
        self.asked_status = true;
        match name {
            "always" => Ok(Value::Bool(true)),
            "success" => Ok(Value::Bool(self.scope.success && !self.scope.cancelled)),
            "failure" => Ok(Value::Bool(!self.scope.success && !self.scope.cancelled)),
            "cancelled" => Ok(Value::Bool(self.scope.cancelled)),
            _ => Err(format!("the lab does not know the function {name}")),
        }
    }

    fn path(&mut self, first: &str) -> Result<Value, String> {
        let missing = || format!("Unrecognized named-value: '{first}'");
        let mut value = property(&self.scope.contexts, first)
            .cloned()
            .ok_or_else(missing)?;
        loop {
            let key = if let Some(rest) = self.rest.strip_prefix('.') {
                self.rest = rest;
                self.word().to_owned()
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest.trim_start();
                if !self.rest.starts_with('\'') {
                    return Err("the lab looks up names in brackets only as quoted texts".into());
                }
                let key = self.quoted()?;
                if !self.take("]") {
                    return Err("a bracket is not closed".into());
                }
                key
            } else {
                return Ok(value);
            };
            if key.is_empty() {
                return Err(format!("the lab cannot evaluate what follows {first}"));
            }
            // A property that is not there is empty, as on GitHub.
            value = property(&value, &key).cloned().unwrap_or(Value::Null);
        }
    }
}

/// A property by its name in any case.
fn property<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let map = value.as_object()?;
    map.get(name).or_else(|| {
        map.iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let contexts = json!({"github": {"sha": "abc", "ref": "refs/heads/main"}, "steps": {"a-b": {"outputs": {"x": "1"}}}});
        Scope {
            contexts,
            success: true,
            cancelled: false,
        }
    }

    #[test]
    fn look_ups_comparison_and_logic() {
        for (text, value) in [
            ("v${{ github.sha }}-${{steps.a-b.outputs.x}}", "vabc-1"),
            (
                "${{ github['ref'] == 'REFS/heads/main' && 'yes' || 'no' }}",
                "yes",
            ),
            ("${{ steps.none.outputs.x }}|${{ !github.none }}", "|true"),
            ("${{ (1 == '1') != false }}", "true"),
            ("${{ 'it''s' }}", "it's"),
            ("no expression", "no expression"),
        ] {
            assert_eq!(scope().fill(text).unwrap(), value, "{text}");
        }
        for text in [
            "${{ toJSON(github) }}",
            "${{ nobody.x }}",
            "${{ github.sha",
            "${{ }}",
            "${{ 'x }}",
            "${{ a b }}",
        ] {
            assert!(scope().fill(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_if_that_asks_for_no_status_waits_for_success() {
        let failed = Scope {
            success: false,
            ..scope()
        };
        assert!(!failed.holds(Some("github.sha == 'abc'")).unwrap());
        assert!(failed.holds(Some("${{ always() }}")).unwrap());
        assert!(failed.holds(Some("failure() && github.sha == 'abc'")).unwrap());
        assert!(scope().holds(None).unwrap() && !failed.holds(None).unwrap());
    }
}
