//! The client: one account, one set of credentials, one pool of connections; and how an operation is sent.

use crate::config::SERVICE;
use crate::credentials::{Credentials, Token, Tokens};
use crate::documents::{InstanceVersion, ViewerProbe, instance_version, viewer_probe};
use crate::model::Viewer;
use crate::reply::{Reply, Standing};
use graphql_client::GraphQLQuery;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use std::fmt;
use std::sync::Arc;
use towpath_core::{ParseError, Retry};
use towpath_elements::{Error, ErrorKind, Result};
use towpath_http::{Call, StatusCode, Transport};

/// A client of a Spacelift account, over its GraphQL API. Cheap to clone; clones share connections and token.
///
/// Its inherent methods are the service's own operations. The element's trait,
/// [`Infrastructure`](crate::Infrastructure), stands on top of them.
///
/// ```no_run
/// # async fn example() -> Result<(), towpath_spacelift::Error> {
/// use towpath_spacelift::{Secret, Spacelift};
/// let spacelift = Spacelift::with_api_key("https://acme.app.spacelift.io", "01HX…", Secret::new("…"))?.build()?;
/// let stack = spacelift.get_stack(&"shared-services".parse()?).await?;
/// println!("{}: {}", stack.summary.name, stack.summary.state);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Spacelift(Arc<Inner>);

struct Inner {
    transport: Transport,
    tokens: Tokens,
}

impl fmt::Debug for Spacelift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spacelift").field(&self.0.transport).finish()
    }
}

/// What is attempted, as in "cannot …", and on what.
pub(crate) type Purpose<'a> = (&'static str, &'a (dyn fmt::Display + Sync));

impl Spacelift {
    pub(crate) fn new(transport: Transport, credentials: Credentials) -> Result<Self> {
        let tokens = Tokens::new(credentials)?;
        Ok(Self(Arc::new(Inner { transport, tokens })))
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        self.0.tokens.credentials()
    }

    /// Who the caller is.
    ///
    /// # Errors
    /// *Unauthenticated* where the service does not know the caller, and the errors of every call.
    pub async fn viewer(&self) -> Result<Viewer> {
        let purpose: Purpose<'_> = ("ask who is", &"the caller");
        let data = self
            .query::<ViewerProbe>(viewer_probe::Variables, purpose)
            .await?;
        let viewer = data
            .viewer
            .ok_or_else(|| failed(ErrorKind::Unauthenticated, purpose))?;
        Ok(Viewer {
            id: viewer.id,
            name: viewer.name,
        })
    }

    /// The version of a self-hosted Spacelift; `None` for the service itself.
    pub async fn instance_version(&self) -> Result<Option<String>> {
        let purpose: Purpose<'_> = ("read the version of", &"the server");
        let data = self
            .query::<InstanceVersion>(instance_version::Variables, purpose)
            .await?;
        let version = data.debug_info.and_then(|info| info.self_hosted_version);
        Ok(version.filter(|version| !version.is_empty()))
    }

    /// Sends a query, as often as the retry policy allows.
    pub(crate) async fn query<Q: GraphQLQuery>(
        &self,
        variables: Q::Variables,
        purpose: Purpose<'_>,
    ) -> Result<Q::ResponseData> {
        let body = Q::build_query(variables);
        let call = call(purpose).json(&body)?.idempotent();
        self.run(body.operation_name, call, false).await?.data(false)
    }

    /// Sends a mutation, once. An error that leaves open whether it was carried out is
    /// [`Spent`](Retry::Spent): look before sending it again.
    pub(crate) async fn mutate<Q: GraphQLQuery>(
        &self,
        variables: Q::Variables,
        metadata: Option<&str>,
        purpose: Purpose<'_>,
    ) -> Result<Q::ResponseData> {
        let body = Q::build_query(variables);
        let mut call = call(purpose).json(&body)?;
        if let Some(metadata) = metadata {
            let value = HeaderValue::from_str(metadata).map_err(|_| {
                failed(ErrorKind::Invalid, purpose)
                    .because("the metadata holds characters that no header can carry")
            })?;
            call = call.header(METADATA, value);
        }
        let reply = self.run(body.operation_name, call, true).await;
        reply.and_then(|reply| reply.data(true)).map_err(|error| {
            if is_ambiguous(&error) {
                error.retrying(Retry::Spent)
            } else {
                error
            }
        })
    }

    /// Sends a call until the service knows the caller, with one new token at most.
    ///
    /// To a stranger the service shows empty lists, null, or `unauthorized`, which it also says to those who may not: so
    /// what looks like that is believed only once `viewer` says that the caller is known.
    async fn run(&self, operation: &'static str, call: Call, changes: bool) -> Result<Reply> {
        let Inner { transport, tokens } = &*self.0;
        let mut renewed = false;
        loop {
            let token = tokens.current(transport).await?;
            let sent = call.clone().header(AUTHORIZATION, token.header.clone());
            let answer = transport.send(sent).await?;
            let refused = answer.status() == StatusCode::UNAUTHORIZED;
            let mut failure = refused.then(|| answer.failure());
            if failure.is_none() {
                let reply = Reply::read(answer, &[&token.secret])?;
                let standing = match reply.standing() {
                    Standing::Doubtful => self.probe(&token).await?,
                    told => told,
                };
                tracing::debug!(
                    service = SERVICE,
                    operation,
                    changes,
                    known = standing == Standing::Known,
                    "answer"
                );
                if standing == Standing::Known {
                    return Ok(reply);
                }
                failure = Some(tokens.unknown(&reply));
            }
            let can_renew = tokens.refused(&token).await;
            if let Some(failure) = failure.filter(|_| renewed || !can_renew) {
                return Err(failure);
            }
            renewed = true;
        }
    }

    /// Asks with this very token who the caller is.
    async fn probe(&self, token: &Token) -> Result<Standing> {
        let body = ViewerProbe::build_query(viewer_probe::Variables);
        let call = call(("ask who is", &"the caller"))
            .json(&body)?
            .idempotent()
            .header(AUTHORIZATION, token.header.clone());
        let answer = self.0.transport.send(call).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            return Ok(Standing::Unknown);
        }
        match Reply::read(answer, &[&token.secret])?.standing() {
            Standing::Known => Ok(Standing::Known),
            Standing::Unknown | Standing::Doubtful => Ok(Standing::Unknown),
        }
    }
}

/// Carries opaque text to the run it starts or confirms, where policies see it.
const METADATA: HeaderName = HeaderName::from_static("spacelift-user-provided-run-metadata");

fn call((attempted, subject): Purpose<'_>) -> Call {
    Call::post("graphql").attempting(attempted, subject)
}

/// An error about what is attempted.
pub(crate) fn failed(kind: ErrorKind, (attempted, subject): Purpose<'_>) -> Error {
    Error::new(kind, SERVICE, attempted, subject)
}

/// An answer holds a name that cannot be one.
pub(crate) fn misnamed(purpose: Purpose<'_>) -> impl Fn(ParseError) -> Error {
    let (attempted, subject) = (purpose.0, purpose.1.to_string());
    move |cause| Error::new(ErrorKind::Protocol, SERVICE, attempted, &subject).because(cause.to_string())
}

/// Whether a mutation that failed like this may have been carried out all the same.
pub(crate) fn is_ambiguous(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Protocol
    )
}
