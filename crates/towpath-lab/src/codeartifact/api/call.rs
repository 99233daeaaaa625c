//! One call of the API: what its query and its body say, checked, and the pages of its lists.

use super::error::ApiError;
use crate::codeartifact::Service;
use crate::codeartifact::model::{Domain, Package, Repository};
use crate::codeartifact::store::Store;
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashMap;
use std::str::FromStr;
use towpath_core::{PackageFormat, PackageId};

/// How many items a page has where the caller does not say.
const PAGE: usize = 100;
/// How many it may have.
const MAX_PAGE: usize = 1000;

/// A signed request whose operation is known.
pub(super) struct Call<'a> {
    pub(super) service: &'a Service,
    pub(super) store: &'a mut Store,
    pub(super) query: HashMap<String, String>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
}

impl Call<'_> {
    pub(super) fn optional(&self, field: &str) -> Option<&str> {
        self.query.get(field).map(String::as_str)
    }

    pub(super) fn required(&self, field: &str) -> Result<&str, ApiError> {
        let value = self.optional(field).filter(|value| !value.is_empty());
        value.ok_or_else(|| ApiError::invalid(format!("{field} is required")))
    }

    /// A field that has one of a few values.
    pub(super) fn choice<T: FromStr>(&self, field: &str) -> Result<Option<T>, ApiError> {
        let parse = |value: &str| {
            value
                .parse()
                .map_err(|_| ApiError::invalid(format!("{value:?} is not a value of {field}")))
        };
        self.optional(field).map(parse).transpose()
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let body: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        serde_json::from_slice(body).map_err(|error| ApiError::unreadable(format!("the body: {error}")))
    }

    /// The domain's name, once it is known to exist and to be the owner's.
    pub(super) fn domain_name(&self) -> Result<String, ApiError> {
        let name = self.required("domain")?;
        let owner = self.optional("domain-owner");
        if owner.is_some_and(|owner| owner != self.store.account) || !self.store.domains.contains_key(name) {
            return Err(ApiError::not_found("domain", name));
        }
        Ok(name.to_owned())
    }

    pub(super) fn domain(&mut self) -> Result<&mut Domain, ApiError> {
        let name = self.domain_name()?;
        self.store
            .domains
            .get_mut(&name)
            .ok_or_else(|| ApiError::not_found("domain", &name))
    }

    pub(super) fn repository(&mut self) -> Result<&mut Repository, ApiError> {
        self.repository_in("repository")
    }

    /// The repository that this field of the query names.
    pub(super) fn repository_in(&mut self, field: &str) -> Result<&mut Repository, ApiError> {
        let name = self.required(field)?.to_owned();
        self.domain()?
            .repositories
            .get_mut(&name)
            .ok_or_else(|| ApiError::not_found("repository", &name))
    }

    /// The coordinates of the package that the query names.
    pub(super) fn package_id(&self) -> Result<PackageId, ApiError> {
        let format = self.required("format")?;
        let format: PackageFormat = format
            .parse()
            .map_err(|_| ApiError::invalid(format!("there is no format {format:?}")))?;
        PackageId::new(format, self.optional("namespace"), self.required("package")?)
            .map_err(|error| ApiError::invalid(error.to_string()))
    }

    pub(super) fn package(&mut self) -> Result<(PackageId, &mut Package), ApiError> {
        let id = self.package_id()?;
        match self.repository()?.packages.get_mut(&id) {
            Some(package) => Ok((id, package)),
            None => Err(ApiError::not_found("package", &id.to_string())),
        }
    }

    /// The page that `max-results` and `next-token` ask for.
    pub(super) fn page<T>(
        &self,
        items: Vec<T>,
        key: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, Option<String>), ApiError> {
        page(
            items,
            key,
            self.choice("max-results")?,
            self.optional("next-token"),
        )
    }
}

/// A page of `items`, and the token of the one after it: the key of the last item here, so that a list may change
/// between two pages.
pub(super) fn page<T>(
    mut items: Vec<T>,
    key: impl Fn(&T) -> String,
    max_results: Option<usize>,
    token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let size = max_results.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&size) {
        return Err(ApiError::invalid(format!(
            "max-results must be from 1 to {MAX_PAGE}"
        )));
    }
    if let Some(token) = token {
        let bad = || ApiError::invalid("next-token is not one that this operation gave");
        let after = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        let at = items
            .iter()
            .position(|item| key(item).as_bytes() == after)
            .ok_or_else(bad)?;
        items.drain(..=at);
    }
    let more = items.len() > size;
    items.truncate(size);
    let next = items
        .last()
        .filter(|_| more)
        .map(|last| URL_SAFE_NO_PAD.encode(key(last)));
    Ok((items, next))
}

/// An object as the service writes it: what has no value is not there.
pub(super) fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
        for value in fields.values_mut() {
            *value = without_nulls(value.take());
        }
    } else if let Value::Array(items) = &mut value {
        for item in items {
            *item = without_nulls(item.take());
        }
    }
    value
}
