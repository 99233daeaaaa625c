//! The contracts of the elements, clause by clause, for every implementation to hold.
//!
//! Each module is the contract of one trait of `towpath-elements`: a function for each numbered clause of the trait's
//! documentation, of the same name, and a fixture that prepares the world behind the implementation for it. The macros
//! make one test of each clause; the fixture expression is evaluated anew for each, inside the test:
//!
//! ```text
//! towpath_testkit::source_contract!(MyFixture::start().await);
//! towpath_testkit::source_contract!(WorldFixture::new(), #[tokio::test(start_paused = true)]);
//! ```
//!
//! The crate that uses the macros needs `tokio` with `macros` and `rt`. A clause that is not held panics, as a test does.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a clause that is not held fails by panicking, as a test does"
)]

pub mod artifacts;
pub mod ci;
pub mod delivery;
pub mod infrastructure;
pub mod registry;
pub mod source;

use std::fmt::{Debug, Display};
use std::future::Future;
use std::str::FromStr;
use towpath_core::wait::{self, Judgement, Outcome, Policy};
use towpath_core::{Cancellation, Retry};
use towpath_elements::{Error, ErrorKind, Result};

/// Makes one test of each clause. Used by the macros of the elements.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_suite {
    ($element:ident, $attributes:tt, $fixture:expr, $($clause:ident)+) => {
        $($crate::contract_clause!($element, $attributes, $fixture, $clause);)+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_clause {
    ($element:ident, [$($attribute:tt)+], $fixture:expr, $clause:ident) => {
        $($attribute)+
        async fn $clause() {
            let fixture = $fixture;
            $crate::contract::$element::$clause(&fixture).await;
        }
    };
}

/// The error of a call that must fail with this kind.
#[track_caller]
fn refused<T: Debug>(result: Result<T>, kind: ErrorKind, what: &str) -> Error {
    match result {
        Err(error) => {
            assert_eq!(error.kind(), kind, "{what}: {error:?}");
            error
        }
        Ok(value) => panic!("{what} must be refused as {kind:?}, and gave {value:?}"),
    }
}

/// Looks until something is there.
async fn until<T, F: Future<Output = Result<T>>>(
    policy: &Policy,
    what: &str,
    look: impl FnMut() -> F,
    is_there: impl Fn(&T) -> bool,
) -> T
where
    T: Debug,
{
    let judge = |seen: &T| match is_there(seen) {
        true => Judgement::Met,
        false => Judgement::pending("it"),
    };
    let outcome = wait::until(
        policy,
        &Cancellation::new(),
        look,
        |_: &Error| Retry::Never,
        judge,
    )
    .await;
    match outcome {
        Outcome::Met(value) => value,
        other => panic!("{what}: {other:?}"),
    }
}

/// A word that the contract itself brings.
fn word<T: FromStr>(text: &str) -> T
where
    T::Err: Debug + Display,
{
    text.parse().unwrap()
}
