//! Uploads of blobs that are under way. `/v2/` and the JSON API share them, as they share everything else.

use super::blobs::Upload;
use super::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The open sessions, by id.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Session>>);

/// One upload. Its requests take turns.
#[derive(Clone, Debug)]
pub(super) struct Session {
    repository: String,
    /// `None` once the upload is complete, cancelled or has run out.
    pub(super) open: Arc<tokio::sync::Mutex<Option<Open>>>,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) upload: Upload,
    /// How many bytes the last part of the JSON API had.
    pub(super) last_part: Option<u64>,
    /// Whether a part that others followed was smaller than a part may be.
    pub(super) short_part: bool,
}

impl Uploads {
    /// Opens a session, and gives its id.
    pub(super) fn open(&self, repository: &str, upload: Upload) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        let open = Open {
            upload,
            last_part: None,
            short_part: false,
        };
        let session = Session {
            repository: repository.to_owned(),
            open: Arc::new(tokio::sync::Mutex::new(Some(open))),
        };
        lock(&self.0).insert(id.clone(), session);
        id
    }

    /// A session of this repository.
    pub(super) fn find(&self, repository: &str, id: &str) -> Option<Session> {
        let session = lock(&self.0).get(id).cloned();
        session.filter(|session| session.repository == repository)
    }

    pub(super) fn close(&self, id: &str) {
        lock(&self.0).remove(id);
    }

    /// Ends every session. One that is just taking bytes ends with them.
    pub(super) fn expire_all(&self) {
        lock(&self.0).clear();
    }
}
