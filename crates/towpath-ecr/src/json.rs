//! JSON that is written the same way every time.

use bytes::Bytes;
use serde_json::Value;
use towpath_elements::{Error, ErrorKind, Result};

/// The bytes of a value with all keys sorted, whatever features other crates switch on in `serde_json`.
pub(crate) fn canonical(mut value: Value) -> Result<Bytes> {
    value.sort_all_objects();
    serde_json::to_vec(&value)
        .map(Bytes::from)
        .map_err(|error| Error::new(ErrorKind::Invalid, "Towpath", "write", "a manifest").caused_by(error))
}
