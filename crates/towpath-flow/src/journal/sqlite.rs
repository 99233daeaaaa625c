//! A journal in an SQLite file: a row an entry, written through to the disk before the flow goes on.

use super::{Entry, Journal, JournalError, taken};
use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, params};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS entry (
        run   TEXT    NOT NULL,
        place INTEGER NOT NULL,
        body  TEXT    NOT NULL,
        PRIMARY KEY (run, place)
    ) STRICT, WITHOUT ROWID;
";

/// A journal in an SQLite file. Any number of processes may share the file; each run is run by one of them at a time.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use towpath_flow::{Journal, SqliteJournal};
/// # let folder = tempfile::tempdir()?;
/// let journal = SqliteJournal::open(folder.path().join("runs.db"))?;
/// assert!(journal.entries("release-7").await?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteJournal(Arc<Mutex<Connection>>);

impl SqliteJournal {
    /// Opens the file, and makes it where it is missing. Its folder must exist.
    ///
    /// # Errors
    /// Where the file cannot be opened or is not a journal; the error names it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let path = path.as_ref();
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(std::time::Duration::from_secs(10))?;
            // A lost entry is an effect done twice: every entry is on the disk before the flow goes on.
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        open()
            .map(|connection| Self(Arc::new(Mutex::new(connection))))
            .map_err(|error| JournalError {
                run: String::new(),
                problem: format!("cannot be opened at {}: {error}", path.display()),
            })
    }

    async fn with<T: Send + 'static>(
        &self,
        run: &str,
        work: impl FnOnce(&Connection, &str) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (connection, name) = (Arc::clone(&self.0), run.to_owned());
        let done = tokio::task::spawn_blocking(move || {
            work(&connection.lock().unwrap_or_else(PoisonError::into_inner), &name)
        });
        done.await
            .unwrap_or_else(|error| Err(broken(run, "was interrupted", error)))
    }
}

fn broken(run: &str, what: &str, error: impl std::fmt::Display) -> JournalError {
    JournalError {
        run: run.to_owned(),
        problem: format!("{what}: {error}"),
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn entries(&self, run: &str) -> Result<Vec<Entry>, JournalError> {
        self.with(run, |connection, run| {
            let unreadable = |error: rusqlite::Error| broken(run, "cannot be read", error);
            let mut select = connection
                .prepare_cached("SELECT place, body FROM entry WHERE run = ?1 ORDER BY place")
                .map_err(unreadable)?;
            let rows = select
                .query_map([run], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
                .map_err(unreadable)?;
            let mut entries = Vec::new();
            for row in rows {
                let (place, body) = row.map_err(unreadable)?;
                if usize::try_from(place) != Ok(entries.len()) {
                    return Err(broken(
                        run,
                        "has a gap",
                        format!("entry {} is missing", entries.len()),
                    ));
                }
                entries.push(serde_json::from_str(&body).map_err(|error| {
                    broken(
                        run,
                        &format!("has an entry at place {place} that cannot be read"),
                        error,
                    )
                })?);
            }
            Ok(entries)
        })
        .await
    }

    async fn append(&self, run: &str, place: usize, entry: &Entry) -> Result<(), JournalError> {
        let body = serde_json::to_string(entry).map_err(|error| broken(run, "cannot be written", error))?;
        self.with(run, move |connection, run| {
            // The entry goes in at the end or not at all, so that a run keeps no gap.
            let written = connection
                .prepare_cached(
                    "INSERT INTO entry (run, place, body)
                     SELECT ?1, ?2, ?3 WHERE (SELECT count(*) FROM entry WHERE run = ?1) = ?2",
                )
                .and_then(|mut insert| insert.execute(params![run, place as i64, body]));
            match written {
                Ok(1) => Ok(()),
                Ok(_) => Err(taken(run, place)),
                Err(rusqlite::Error::SqliteFailure(error, _))
                    if error.code == ErrorCode::ConstraintViolation =>
                {
                    Err(taken(run, place))
                }
                Err(error) => Err(broken(run, "cannot be written", error)),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn finished() -> Entry {
        Entry::Finished {
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn entries_survive_and_two_writers_notice_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.db");
        let (one, two) = (
            SqliteJournal::open(&path).unwrap(),
            SqliteJournal::open(&path).unwrap(),
        );
        one.append("r", 0, &finished()).await.unwrap();
        assert!(
            two.append("r", 0, &finished())
                .await
                .unwrap_err()
                .problem
                .contains("another process")
        );
        assert!(two.append("r", 2, &finished()).await.is_err());
        two.append("other", 0, &finished()).await.unwrap();
        drop((one, two));
        assert_eq!(
            SqliteJournal::open(&path).unwrap().entries("r").await.unwrap(),
            [finished()]
        );
    }

    #[tokio::test]
    async fn a_damaged_entry_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.db");
        let journal = SqliteJournal::open(&path).unwrap();
        journal.append("r", 0, &finished()).await.unwrap();
        Connection::open(&path)
            .unwrap()
            .execute("UPDATE entry SET body = '{'", [])
            .unwrap();
        let error = journal.entries("r").await.unwrap_err();
        assert!(
            error.to_string().contains("\"r\" has an entry at place 0"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = SqliteJournal::open("/nowhere/at/all/runs.db").unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all/runs.db"), "{error}");
    }
}
