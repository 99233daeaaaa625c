//! An answer that is read while it comes.

use crate::answer::Purpose;
use crate::transport::{Body, Failure, read_whole};
use crate::{Answer, SseEvent, SseParser};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use std::fmt;
use std::time::Duration;
use towpath_core::Retry;
use towpath_elements::{ErrorKind, Result};
use url::Url;

/// The longest line of a stream: Argo CD sends whole applications in one.
const LONGEST_LINE: usize = 64 << 20;

/// A server's answer whose body has not been read yet.
pub struct StreamingAnswer {
    pub(crate) purpose: Purpose,
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) spent: bool,
    pub(crate) idle: Duration,
    pub(crate) longest_body: usize,
}

impl fmt::Debug for StreamingAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingAnswer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl StreamingAnswer {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Whether the body is of this type, whatever its parameters.
    pub fn is(&self, content_type: &str) -> bool {
        self.headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split(';').next())
            .is_some_and(|text| text.trim().eq_ignore_ascii_case(content_type))
    }

    /// Lets the stream be silent this long instead of the transport's usual time.
    #[must_use]
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Reads the rest at once, for answers that turn out to be errors.
    pub async fn into_answer(self) -> Result<Answer> {
        let body = match self.body {
            Body::Whole(body) => body,
            Body::Open(response) => {
                let reading = read_whole(response, self.longest_body, &self.purpose);
                match tokio::time::timeout(self.idle, reading).await {
                    Ok(read) => read.map_err(|failure| failure.into_error(&self.purpose))?,
                    Err(_) => return Err(silent(&self.purpose, self.idle)),
                }
            }
        };
        Ok(Answer {
            purpose: self.purpose,
            url: self.url,
            status: self.status,
            headers: self.headers,
            body,
            spent: self.spent,
        })
    }

    /// The body in pieces as they come. The end of the stream is the end of the body; a broken connection and a silence
    /// beyond the idle timeout are errors, after which nothing comes.
    pub fn chunks(self) -> BoxStream<'static, Result<Bytes>> {
        let Self {
            purpose, body, idle, ..
        } = self;
        let response = match body {
            Body::Whole(body) => return stream::iter([Ok(body)]).boxed(),
            Body::Open(response) => response,
        };
        stream::try_unfold((response, purpose), move |(mut response, purpose)| async move {
            match tokio::time::timeout(idle, response.chunk()).await {
                Ok(Ok(Some(bytes))) => Ok(Some((bytes, (response, purpose)))),
                Ok(Ok(None)) => Ok(None),
                Ok(Err(error)) => Err(Failure::of(error, &purpose).into_error(&purpose)),
                Err(_) => Err(silent(&purpose, idle)),
            }
        })
        .boxed()
    }

    /// The body line by line, without line ends; a last line without an end is one too. For NDJSON.
    pub fn lines(self) -> BoxStream<'static, Result<String>> {
        let purpose = self.purpose.clone();
        let state = LineReader {
            chunks: Some(self.chunks()),
            buffer: BytesMut::new(),
            searched: 0,
            purpose,
        };
        stream::try_unfold(state, |mut state| async move {
            Ok(state.next().await?.map(|line| (line, state)))
        })
        .boxed()
    }

    /// The body as server-sent events. An event that the end of the stream cuts off is dropped, as the standard asks.
    pub fn events(self) -> BoxStream<'static, Result<SseEvent>> {
        let mut parser = SseParser::default();
        self.lines()
            .filter_map(move |line| {
                let event = match line {
                    Ok(line) => parser.line(&line).map(Ok),
                    Err(error) => Some(Err(error)),
                };
                std::future::ready(event)
            })
            .boxed()
    }
}

struct LineReader {
    chunks: Option<BoxStream<'static, Result<Bytes>>>,
    buffer: BytesMut,
    searched: usize,
    purpose: Purpose,
}

impl LineReader {
    async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(found) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line = self.buffer.split_to(self.searched + found + 1);
                self.searched = 0;
                return self.text(&line[..line.len() - 1]).map(Some);
            }
            self.searched = self.buffer.len();
            if self.searched > LONGEST_LINE {
                return Err(self.purpose.error(ErrorKind::Protocol).because(format!(
                    "a line of the answer is longer than {LONGEST_LINE} bytes"
                )));
            }
            let next = match &mut self.chunks {
                Some(chunks) => chunks.next().await.transpose()?,
                None => None,
            };
            match next {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => {
                    self.chunks = None;
                    let rest = self.buffer.split();
                    self.searched = 0;
                    return if rest.is_empty() {
                        Ok(None)
                    } else {
                        self.text(&rest).map(Some)
                    };
                }
            }
        }
    }

    fn text(&self, line: &[u8]) -> Result<String> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        String::from_utf8(line.to_vec()).map_err(|_| {
            self.purpose
                .error(ErrorKind::Protocol)
                .because("a line of the answer is not UTF-8")
        })
    }
}

fn silent(purpose: &Purpose, idle: Duration) -> towpath_elements::Error {
    purpose
        .error(ErrorKind::TimedOut)
        .because(format!("the stream was silent for {idle:?}"))
        .retrying(Retry::Later)
}
