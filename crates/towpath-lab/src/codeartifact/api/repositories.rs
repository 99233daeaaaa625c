//! Repositories, their upstreams and their external connection.

use super::call::Call;
use super::error::ApiError;
use super::{Answer, epoch};
use crate::codeartifact::model::{ExternalConnection, Repository};
use crate::codeartifact::store::Store;
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_core::PackageFormat;

/// How many direct upstreams a repository may have.
const MAX_UPSTREAMS: usize = 10;

#[derive(Deserialize)]
struct Settings {
    description: Option<String>,
    upstreams: Option<Vec<Upstream>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Upstream {
    repository_name: String,
}

pub(super) fn create(call: &mut Call<'_>) -> Answer {
    let domain = call.domain_name()?;
    let name = call.required("repository")?.to_owned();
    let settings: Settings = call.json()?;
    let fits = (2..=100).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !fits {
        return Err(ApiError::invalid(
            "repository must be 2 to 100 letters, digits, ., _ and -, and start with a letter or a digit",
        ));
    }
    let upstreams = upstreams(call, &name, settings.upstreams)?.unwrap_or_default();
    let repositories = &mut call.domain()?.repositories;
    if repositories.contains_key(&name) {
        return Err(ApiError::conflict(
            "repository",
            &name,
            format!("repository {name} already exists"),
        ));
    }
    repositories.insert(
        name.clone(),
        Repository::new(&name, settings.description, upstreams),
    );
    described(call, &domain, &name)
}

pub(super) fn describe(call: &mut Call<'_>) -> Answer {
    let (domain, name) = (call.domain_name()?, call.required("repository")?.to_owned());
    described(call, &domain, &name)
}

pub(super) fn update(call: &mut Call<'_>) -> Answer {
    let settings: Settings = call.json()?;
    let name = call.repository()?.name.clone();
    let upstreams = upstreams(call, &name, settings.upstreams)?;
    let repository = call.repository()?;
    if let Some(upstreams) = upstreams {
        repository.upstreams = upstreams;
    }
    if settings.description.is_some() {
        repository.description = settings.description;
    }
    describe(call)
}

pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let answer = describe(call)?;
    let name = call.repository()?.name.clone();
    let domain = call.domain()?;
    domain.repositories.remove(&name);
    for repository in domain.repositories.values_mut() {
        repository.upstreams.retain(|upstream| *upstream != name);
    }
    Ok(answer)
}

pub(super) fn list(call: &mut Call<'_>) -> Answer {
    listed(call, None)
}

pub(super) fn list_in_domain(call: &mut Call<'_>) -> Answer {
    let domain = call.domain_name()?;
    listed(call, Some(&domain))
}

pub(super) fn connect(call: &mut Call<'_>) -> Answer {
    let name = call.required("external-connection")?;
    let connection = ExternalConnection::named(name)
        .ok_or_else(|| ApiError::invalid(format!("there is no external connection {name}")))?;
    let repository = call.repository()?;
    match repository.external_connection {
        Some(known) if known == connection => Err(ApiError::conflict(
            "repository",
            &repository.name,
            format!("{} is connected to {} already", repository.name, known.name()),
        )),
        Some(known) => Err(ApiError::quota(
            "repository",
            &repository.name,
            format!(
                "{} has the one external connection it may have: {}",
                repository.name,
                known.name()
            ),
        )),
        None => {
            repository.external_connection = Some(connection);
            describe(call)
        }
    }
}

pub(super) fn disconnect(call: &mut Call<'_>) -> Answer {
    let name = call.required("external-connection")?.to_owned();
    let repository = call.repository()?;
    if repository
        .external_connection
        .is_none_or(|connection| connection.name() != name)
    {
        return Err(ApiError::not_found("external-connection", &name));
    }
    repository.external_connection = None;
    describe(call)
}

pub(super) fn endpoint(call: &mut Call<'_>) -> Answer {
    let domain = call.domain_name()?;
    let repository = call.repository()?.name.clone();
    let format: PackageFormat = call
        .choice("format")?
        .ok_or_else(|| ApiError::invalid("format is required"))?;
    if format == PackageFormat::Generic {
        return Err(ApiError::invalid("generic packages have no endpoint"));
    }
    let url = call
        .service
        .endpoint(&call.store.account, &domain, format.as_str(), &repository);
    Ok(json!({ "repositoryEndpoint": url }))
}

/// The wanted upstreams, once they are known to exist and to be few enough.
fn upstreams(
    call: &mut Call<'_>,
    name: &str,
    wanted: Option<Vec<Upstream>>,
) -> Result<Option<Vec<String>>, ApiError> {
    let Some(wanted) = wanted else { return Ok(None) };
    if wanted.len() > MAX_UPSTREAMS {
        let message = format!("a repository has at most {MAX_UPSTREAMS} upstreams");
        return Err(ApiError::quota("repository", name, message));
    }
    let domain = call.domain()?;
    let mut upstreams = Vec::new();
    for Upstream { repository_name } in wanted {
        if repository_name == name {
            return Err(ApiError::invalid("a repository is not its own upstream"));
        }
        if !domain.repositories.contains_key(&repository_name) {
            return Err(ApiError::not_found("repository", &repository_name));
        }
        upstreams.push(repository_name);
    }
    Ok(Some(upstreams))
}

fn listed(call: &Call<'_>, domain: Option<&str>) -> Answer {
    let prefix = call.optional("repository-prefix").unwrap_or_default();
    let administrator = call
        .optional("administrator-account")
        .unwrap_or(&call.store.account);
    let mut repositories = Vec::new();
    for place in call
        .store
        .domains
        .values()
        .filter(|place| domain.is_none_or(|name| place.name == name))
    {
        let named = place
            .repositories
            .values()
            .filter(|repository| repository.name.starts_with(prefix));
        repositories.extend(named.map(|repository| (&place.name, repository)));
    }
    repositories.retain(|_| administrator == call.store.account);
    let (repositories, next) = call.page(repositories, |(domain, repository)| {
        format!("{domain}/{}", repository.name)
    })?;
    let repositories: Vec<Value> = repositories
        .into_iter()
        .map(|(domain, repository)| summary(call.store, domain, repository))
        .collect();
    Ok(json!({ "repositories": repositories, "nextToken": next }))
}

fn described(call: &Call<'_>, domain: &str, name: &str) -> Answer {
    let repository = call
        .store
        .repository(domain, name)
        .ok_or_else(|| ApiError::not_found("repository", name))?;
    let mut description = summary(call.store, domain, repository);
    let upstreams: Vec<Value> = repository
        .upstreams
        .iter()
        .map(|name| json!({ "repositoryName": name }))
        .collect();
    let connections: Vec<Value> = repository
        .external_connection
        .iter()
        .map(|connection| {
            json!({
                "externalConnectionName": connection.name(),
                "packageFormat": connection.format().as_str(),
                "status": "Available",
            })
        })
        .collect();
    description["upstreams"] = json!(upstreams);
    description["externalConnections"] = json!(connections);
    Ok(json!({ "repository": description }))
}

fn summary(store: &Store, domain: &str, repository: &Repository) -> Value {
    let (region, account, name) = (&store.region, &store.account, &repository.name);
    json!({
        "name": name,
        "administratorAccount": account,
        "domainName": domain,
        "domainOwner": account,
        "arn": format!("arn:aws:codeartifact:{region}:{account}:repository/{domain}/{name}"),
        "description": repository.description,
        "createdTime": epoch(repository.created),
    })
}
