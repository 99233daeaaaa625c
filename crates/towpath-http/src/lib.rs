#![doc = include_str!("../README.md")]

mod answer;
mod authorization;
mod build;
mod call;
mod origin;
mod pages;
mod retry;
mod sse;
mod streaming;
mod tls;
mod transport;

pub use answer::Answer;
pub use authorization::{Authorization, Bearer};
pub use build::TransportBuilder;
pub use call::{Call, Idempotency};
pub use retry::RetryPolicy;
pub use sse::{SseEvent, SseParser};
pub use streaming::StreamingAnswer;
pub use transport::Transport;

pub use bytes::Bytes;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
pub use url::Url;
