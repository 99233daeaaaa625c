//! The schedules of sync windows: the standard five fields of cron, as robfig/cron v3 reads them.

/// Minutes, hours, days of the month, months and days of the week, each as a set of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Whether both kinds of days are restricted: then one of them is enough.
    either_day: bool,
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// Reads a schedule.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "expected exactly 5 fields, found {}: {text:?}",
                fields.len()
            ));
        };
        // A star with a step is a restriction.
        let any = |field: &str| {
            field
                .split(',')
                .any(|part| matches!(part, "*" | "?" | "*/1" | "?/1"))
        };
        Ok(Self {
            minute: set(minute, 0, 59, &[])?,
            hour: set(hour, 0, 23, &[])?,
            day: set(day, 1, 31, &[])?,
            month: set(month, 1, 12, &MONTHS)?,
            weekday: set(weekday, 0, 6, &WEEKDAYS)?,
            either_day: !any(day) && !any(weekday),
        })
    }

    /// Whether it names this minute.
    pub(super) fn names(&self, at: jiff::civil::DateTime) -> bool {
        let has = |set: u64, value: i8| set & (1 << value) != 0;
        let (day, weekday) = (
            has(self.day, at.day()),
            has(self.weekday, at.weekday().to_sunday_zero_offset()),
        );
        let right_day = if self.either_day {
            day || weekday
        } else {
            day && weekday
        };
        right_day && has(self.month, at.month()) && has(self.hour, at.hour()) && has(self.minute, at.minute())
    }
}

/// A field: parts with commas in between, each `*`, a value or a range, with or without a step.
fn set(field: &str, least: u32, most: u32, names: &[&str]) -> Result<u64, String> {
    let value = |text: &str| -> Result<u32, String> {
        let lower = text.to_lowercase();
        match names.iter().position(|name| *name == lower) {
            Some(index) => Ok(index as u32 + least),
            None => text
                .parse()
                .map_err(|_| format!("failed to parse int from {text:?}")),
        }
    };
    let mut bits = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(value(step)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (least, most),
            Some((first, last)) => (value(first)?, value(last)?),
            // `5/15` goes on to the end.
            None if step.is_some() => (value(range)?, most),
            None => (value(range)?, value(range)?),
        };
        if first < least || last > most || first > last || step == Some(0) {
            return Err(format!("{part:?} is outside {least} to {most}"));
        }
        for value in (first..=last).step_by(step.unwrap_or(1) as usize) {
            bits |= 1 << value;
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn fields_name_minutes() {
        // 2026-08-21 was a Friday.
        let friday = date(2026, 8, 21);
        for (text, hour, minute, named) in [
            ("* * * * *", 3, 7, true),
            ("0 22 * * *", 22, 0, true),
            ("0 22 * * *", 22, 1, false),
            ("*/15 9-17 * * MON-FRI", 9, 45, true),
            ("*/15 9-17 * * mon-fri", 18, 0, false),
            ("5/20 * * * *", 0, 45, true),
            ("1,2,30-32 * * * *", 0, 31, true),
            ("0 0 21 8 *", 0, 0, true),
            ("0 0 21 sep *", 0, 0, false),
            ("0 0 * * 0,6", 0, 0, false),
            // With both kinds of days, one is enough.
            ("0 0 1 * 5", 0, 0, true),
            ("0 0 21 * 1", 0, 0, true),
            ("0 0 1 * 1", 0, 0, false),
            ("0 0 */2 * 1", 0, 0, true),
            ("0 0 */2 * *", 0, 0, true),
        ] {
            let schedule = Schedule::parse(text).unwrap();
            assert_eq!(schedule.names(friday.at(hour, minute, 9, 0)), named, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "1- * * * *",
            "-1 * * * *",
            "@daily",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
