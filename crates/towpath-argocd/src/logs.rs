//! The logs of an application's pods: `GET /api/v1/applications/{name}/logs`, as newline-delimited JSON.

use crate::ArgoCd;
use crate::applications::{PATH, addressed};
use crate::config::SERVICE;
use crate::error::{self, StreamFailure};
use crate::wire::ResourceNode;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use serde::Deserialize;
use std::time::Duration;
use towpath_core::Application;
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Bytes, Call};

/// Which lines to read. The default reads all lines of all pods, once; the server refuses more than ten pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogRequest {
    /// Only the pods of this resource: a pod itself, or what made them, such as a Deployment.
    pub of: Option<ResourceNode>,
    /// The container; needed where a pod has several.
    pub container: Option<String>,
    /// Wait for further lines, until the pods end.
    pub follow: bool,
    /// Only so many of each pod's last lines.
    pub tail_lines: Option<u64>,
    /// Only lines of this time before now, in whole seconds and at least one.
    pub since: Option<Duration>,
    /// Only lines up to this time.
    pub until: Option<Timestamp>,
    /// Only lines that hold this text; with a `!` in front those that do not.
    pub filter: Option<String>,
    /// Tell capital letters from small ones in the filter.
    pub match_case: bool,
    /// The lines of the containers before their last restart.
    pub previous: bool,
    /// How long the stream may be silent; an hour where lines are waited for, else as long as the client's streams may.
    /// The server gives no sign of life between two lines, and what stands in front of it may cut sooner.
    pub silence: Option<Duration>,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// The pod; empty where the cluster says why there is no log yet.
    pub pod: String,
    /// The line, without its end.
    pub content: String,
    /// When it was written.
    pub time: Option<Timestamp>,
}

/// The longest line that is taken, in bytes of JSON.
const LONGEST_LINE: usize = 1 << 20;
const FOLLOWED_SILENCE: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    result: Option<Entry>,
    #[serde(default)]
    error: Option<StreamFailure>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    content: Option<String>,
    pod_name: Option<String>,
    time_stamp_str: Option<String>,
    last: Option<bool>,
}

impl ArgoCd {
    /// The lines of an application's pods, in the order of their times. The stream ends where the server says that it is
    /// at the end; no pods are no lines.
    ///
    /// # Errors
    /// *Denied* without the permission `logs, get` (3.0 and later); *invalid* where too many pods are meant. In the stream
    /// *unavailable* where the connection ends before the log does, *timed out* where it is silent for too long, and
    /// *protocol* where a line is longer than 1 MiB or is not one; nothing follows an error.
    pub async fn logs(
        &self,
        app: &Application,
        request: &LogRequest,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        let yes = |on: bool| on.then_some("true");
        let mut call = addressed(Call::get(PATH).attempting("read the logs of", app), app, "logs")
            .query_opt("container", request.container.as_deref())
            .query_opt("follow", yes(request.follow))
            .query_opt("tailLines", request.tail_lines.map(|lines| lines.to_string()))
            .query_opt(
                "sinceSeconds",
                // The server takes 0 for no limit.
                request.since.map(|since| since.as_secs().max(1).to_string()),
            )
            .query_opt("untilTime", request.until.map(|until| until.to_string()))
            .query_opt(
                "filter",
                request.filter.as_deref().filter(|filter| !filter.is_empty()),
            )
            .query_opt("matchCase", yes(request.match_case))
            .query_opt("previous", yes(request.previous));
        if let Some(node) = &request.of {
            call = match node.kind.as_str() {
                "Pod" => call.query("podName", &node.name),
                kind => call
                    .query("resourceName", &node.name)
                    .query("group", &node.group)
                    .query("kind", kind),
            }
            .query("namespace", &node.namespace);
        }
        let answer = self.transport().stream(call).await?;
        if !answer.status().is_success() || answer.is("text/html") {
            let answer = answer.into_answer().await?;
            error::accept(answer.clone(), true)?;
            return Err(answer
                .error(ErrorKind::Protocol)
                .because("the answer is not a log"));
        }
        let silence = request.silence.or(request.follow.then_some(FOLLOWED_SILENCE));
        let answer = match silence {
            Some(silence) => answer.idle_timeout(silence),
            None => answer,
        };
        let reader = Reader {
            app: app.clone(),
            chunks: answer.chunks(),
            buffer: Vec::new(),
            searched: 0,
            began: false,
        };
        Ok(stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|line| (line, reader)))
        })
        .boxed())
    }
}

/// Takes lines out of pieces that are cut anywhere, within a character too.
struct Reader {
    app: Application,
    chunks: BoxStream<'static, Result<Bytes>>,
    buffer: Vec<u8>,
    searched: usize,
    began: bool,
}

impl Reader {
    fn failed(&self, kind: ErrorKind) -> Error {
        Error::new(kind, SERVICE, "read the logs of", &self.app)
    }

    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            if let Some(found) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let rest = self.buffer.split_off(self.searched + found + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                self.began = true;
                return self.entry(&line);
            }
            self.searched = self.buffer.len();
            if self.searched > LONGEST_LINE {
                return Err(self
                    .failed(ErrorKind::Protocol)
                    .because(format!("a line is longer than {LONGEST_LINE} bytes")));
            }
            match self.chunks.next().await.transpose()? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return self.end(),
            }
        }
    }

    /// The connection has ended. The server's last word is an entry that says so, or an error without a line end; no pod
    /// at all is no word at all.
    fn end(&mut self) -> Result<Option<LogLine>> {
        let rest = std::mem::take(&mut self.buffer);
        let said = serde_json::from_slice::<Envelope>(&rest).is_ok_and(|said| {
            said.error.is_some() || said.result.is_some_and(|entry| entry.last == Some(true))
        });
        match said {
            true => self.entry(&rest),
            false if rest.is_empty() && !self.began => Ok(None),
            false => Err(self
                .failed(ErrorKind::Unavailable)
                .because("the connection ended before the log did")),
        }
    }

    fn entry(&self, line: &[u8]) -> Result<Option<LogLine>> {
        if line.len() > LONGEST_LINE {
            return Err(self
                .failed(ErrorKind::Protocol)
                .because(format!("a line is longer than {LONGEST_LINE} bytes")));
        }
        // Only where it broke: a log may hold secrets.
        let envelope: Envelope = serde_json::from_slice(line).map_err(|cause| {
            self.failed(ErrorKind::Protocol).because(format!(
                "a line of the answer is not as expected, column {}",
                cause.column()
            ))
        })?;
        if let Some(failure) = envelope.error {
            return Err(failure.meaning(true, |kind| self.failed(kind)));
        }
        let entry = envelope.result.unwrap_or_default();
        let content = entry.content.unwrap_or_default();
        // What comes after `untilTime` is the end, whatever it says.
        if entry.last == Some(true) {
            return Ok(None);
        }
        Ok(Some(LogLine {
            pod: entry.pod_name.unwrap_or_default(),
            content,
            // Go's zero time is none.
            time: entry
                .time_stamp_str
                .filter(|text| !text.starts_with("0001-"))
                .and_then(|text| text.parse().ok()),
        }))
    }
}
