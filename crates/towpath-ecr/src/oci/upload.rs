//! Pushing a blob: skipped where it is there, mounted where the registry can, else sent in one request that streams or
//! in several, and carried on from where the registry says it was cut (*OCI Distribution Specification*, "Pushing
//! blobs").

use super::feed::Feed;
use super::transport::{Payload, Reply, Request};
use super::{Blob, BlobSource, OciClient, PROGRESS, origin};
use http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use http::{Method, StatusCode};
use towpath_core::{Digest, ImageRef, Retry};
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pushed {
    /// It was there already.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Sent,
}

const ATTEMPTED: &str = "push the blob";

impl OciClient {
    /// Uploads a blob to the image's repository, unless it is there.
    ///
    /// An upload that is cut goes on from the byte that the registry says it has; what it has is not sent again. A
    /// session that the registry has lost is begun anew.
    ///
    /// # Errors
    /// *Not found* where the repository is missing, *invalid* where the bytes are not what the digest says, and what
    /// the transport meets once its attempts are spent.
    pub async fn push_blob(&self, repository: &ImageRef, blob: &Blob) -> Result<Pushed> {
        if self.blob_size(repository, &blob.digest).await?.is_some() {
            return Ok(Pushed::Present);
        }
        let upload = Upload {
            client: self,
            repository,
            blob,
            feed: Feed::new(blob),
            subject: repository.at(blob.digest.clone()).to_string(),
        };
        let from = match &blob.source {
            BlobSource::Registry(from)
                if from.image().registry() == repository.registry()
                    && from.image().repository() != repository.repository() =>
            {
                Some(from.image())
            }
            _ => None,
        };
        let Some(session) = upload.begin(from).await? else {
            return Ok(Pushed::Mounted);
        };
        upload.send_all(session).await.map(|()| Pushed::Sent)
    }
}

struct Upload<'a> {
    client: &'a OciClient,
    repository: &'a ImageRef,
    blob: &'a Blob,
    feed: Feed,
    subject: String,
}

/// An upload that the registry has opened.
struct Session {
    location: Url,
    /// How many bytes the registry has.
    offset: u64,
    /// The least that it takes in one request, the last one apart.
    least: u64,
}

/// What is known of an upload that was cut.
enum Progress {
    /// The registry has this many bytes.
    At(u64, Url),
    /// The blob is there, whatever the cut hid.
    Done,
    /// The session is gone, or does not tell.
    Gone,
}

impl Upload<'_> {
    /// Opens a session, or mounts the blob; `None` where the mount worked.
    async fn begin(&self, from: Option<&ImageRef>) -> Result<Option<Session>> {
        let mut url = self.client.url(self.repository, "blobs/uploads/")?;
        if let Some(from) = from {
            url.query_pairs_mut()
                .append_pair("mount", self.blob.digest.as_str())
                .append_pair("from", from.repository().as_str());
        }
        let mut request = self.request(Method::POST, url);
        request.scope.mount_from = from.map(|from| from.repository().to_string());
        // A session that nobody uses runs out by itself, so opening a second one does no harm.
        request.again = true;
        let reply = self.client.send(&request).await?;
        match reply.status {
            StatusCode::CREATED if from.is_some() => Ok(None),
            StatusCode::ACCEPTED => Ok(Some(Session {
                location: self.location(&reply)?,
                offset: 0,
                least: number(&reply.headers, "oci-chunk-min-length").unwrap_or(0),
            })),
            _ => Err(self.refuse(&reply)),
        }
    }

    async fn send_all(&self, mut session: Session) -> Result<()> {
        let (mut attempt, mut cut_at) = (1, 0);
        loop {
            let failure = match self.finish(&mut session).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let limit = self.client.settings().attempts.max(1);
            if attempt >= limit || !failure.may_go_on {
                return Err(failure.error);
            }
            tracing::debug!(attempt, digest = %self.blob.digest, "upload was cut");
            tokio::time::sleep(self.client.pause(attempt)).await;
            attempt += 1;
            match self.progress(&session.location).await? {
                Progress::Done => return Ok(()),
                Progress::At(offset, location) if offset <= self.blob.size => {
                    (session.location, session.offset) = (location, offset);
                }
                Progress::At(..) | Progress::Gone => {
                    if self.is_there().await? {
                        return Ok(());
                    }
                    match self.begin(None).await? {
                        Some(begun) => session = begun,
                        None => return Ok(()),
                    }
                }
            }
            // A long blob on a weak line may be cut more often than a request may fail, as long as it gets on.
            if session.offset >= cut_at + PROGRESS {
                attempt = 1;
                cut_at = session.offset;
            }
        }
    }

    /// Sends what is missing and commits the upload.
    async fn finish(&self, session: &mut Session) -> Result<(), Failure> {
        let size = self.blob.size;
        let most = match self.client.settings().chunk {
            Some(chunk) => chunk.max(session.least).max(1),
            None => u64::MAX,
        };
        // The middle of a blob goes with PATCH; only a whole one may go with the request that commits it.
        if session.offset == 0 && size <= most {
            return self.commit(session, size).await;
        }
        while session.offset < size {
            self.send_part(session, most.min(size - session.offset)).await?;
        }
        self.commit(session, 0).await
    }

    async fn send_part(&self, session: &mut Session, length: u64) -> Result<(), Failure> {
        let offset = session.offset;
        let mut request = self.request(Method::PATCH, session.location.clone());
        let range = format!("{offset}-{}", offset + length - 1);
        if let Ok(range) = HeaderValue::try_from(range) {
            request.headers.insert(CONTENT_RANGE, range);
        }
        request.payload = Payload::Blob {
            feed: &self.feed,
            offset,
            length,
        };
        let reply = self.client.send(&octets(request)).await.map_err(Failure::of)?;
        // 202 by the specification, 201 by Amazon ECR.
        if !matches!(reply.status, StatusCode::ACCEPTED | StatusCode::CREATED) {
            return Err(self.rejected(&reply));
        }
        // ECR keeps one address for the whole session, and may leave it out.
        if reply.headers.contains_key(LOCATION) {
            session.location = self.location(&reply).map_err(Failure::of)?;
        }
        let range = reply.headers.get(RANGE).and_then(|value| value.to_str().ok());
        session.offset = match range.and_then(received) {
            // It took a part of the part.
            Some(has) if has > offset && has < offset + length => has,
            _ => offset + length,
        };
        Ok(())
    }

    /// Commits the upload, with the first `length` bytes of it.
    async fn commit(&self, session: &Session, length: u64) -> Result<(), Failure> {
        let mut location = session.location.clone();
        location
            .query_pairs_mut()
            .append_pair("digest", self.blob.digest.as_str());
        let mut request = self.request(Method::PUT, location);
        if length > 0 {
            request.payload = Payload::Blob {
                feed: &self.feed,
                offset: 0,
                length,
            };
        }
        request.again = false;
        let reply = self.client.send(&octets(request)).await.map_err(Failure::of)?;
        if !reply.status.is_success() {
            return Err(self.rejected(&reply));
        }
        let stored = reply
            .headers
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse::<Digest>().ok());
        match stored.filter(|stored| {
            stored.algorithm() == self.blob.digest.algorithm() && *stored != self.blob.digest
        }) {
            Some(stored) => Err(Failure::of(
                self.broken(&format!("the registry stored {stored} instead")),
            )),
            None => Ok(()),
        }
    }

    /// Asks the registry how far a cut upload came.
    async fn progress(&self, location: &Url) -> Result<Progress> {
        let reply = self
            .client
            .send(&self.request(Method::GET, location.clone()))
            .await?;
        match reply.status {
            StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED => {}
            StatusCode::CREATED => return Ok(Progress::Done),
            _ => return Ok(Progress::Gone),
        }
        let next = match reply.headers.contains_key(LOCATION) {
            true => self.location(&reply)?,
            false => location.clone(),
        };
        let range = reply.headers.get(RANGE).and_then(|value| value.to_str().ok());
        Ok(match range.and_then(received) {
            Some(offset) => Progress::At(offset, next),
            None => Progress::Gone,
        })
    }

    async fn is_there(&self) -> Result<bool> {
        let size = self.client.blob_size(self.repository, &self.blob.digest).await?;
        Ok(size.is_some())
    }

    fn request(&self, method: Method, url: Url) -> Request<'_> {
        let mut request = Request::new(method, self.repository, url, ATTEMPTED).about(self.subject.clone());
        request.scope.push = true;
        request
    }

    /// The session's address, absolute or relative. It may lie with another host; credentials then stay behind.
    fn location(&self, reply: &Reply) -> Result<Url> {
        let location = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        location
            .and_then(|location| reply.url.join(location).ok())
            .filter(|next| origin::may_lead(&reply.url, next))
            .ok_or_else(|| self.broken("the registry names no usable place to send it to (Location)"))
    }

    fn broken(&self, detail: &str) -> Error {
        Error::new(
            ErrorKind::Protocol,
            self.client.service(),
            ATTEMPTED,
            &self.subject,
        )
        .because(detail.to_owned())
    }

    fn refuse(&self, reply: &Reply) -> Error {
        let refusal = &reply.refusal;
        let error = refusal.of_push(reply.status, self.client.service(), ATTEMPTED, &self.subject);
        match reply.status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                error.advise("send it in parts: set OciSettings::chunk to what the registry's front takes")
            }
            _ => error,
        }
    }

    fn rejected(&self, reply: &Reply) -> Failure {
        // 416 is about the offset, 404 about the session: both are mended by asking how far it came.
        let may_go_on = matches!(
            reply.status,
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND
        );
        Failure {
            error: self.refuse(reply),
            may_go_on,
        }
    }
}

fn octets(mut request: Request<'_>) -> Request<'_> {
    request
        .headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    request
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `0-41` is 42 bytes. `0-0` is what registries say of an empty session, so it is none; a registry that has one byte
/// answers the wrong offset with 416, and the session begins anew.
pub(super) fn received(range: &str) -> Option<u64> {
    let range = range.trim();
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    match (first, last) {
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

struct Failure {
    error: Error,
    may_go_on: bool,
}

impl Failure {
    fn of(error: Error) -> Self {
        let may_go_on = matches!(error.retry(), Retry::Spent)
            && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut);
        Self { error, may_go_on }
    }
}

#[cfg(test)]
mod tests {
    use super::received;

    #[test]
    fn ranges_say_how_much_is_there() {
        assert_eq!(received("0-41"), Some(42));
        assert_eq!(received("bytes=0-9"), Some(10));
        assert_eq!(received("0-0"), Some(0));
        for bad in ["", "5-9", "0-", "x-1", "0-18446744073709551615"] {
            assert_eq!(received(bad), None, "{bad}");
        }
    }
}
