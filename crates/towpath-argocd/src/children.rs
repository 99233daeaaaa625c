//! Applications that come of others: those that an application has among its resources (app of apps), and those that an
//! ApplicationSet generates. The server does not judge the parent by them, so that whoever waits must wait for each.

use crate::config::SERVICE;
use crate::wire::{App, ResourceStatus};
use crate::{ArgoCd, ListFilter};
use futures_util::StreamExt;
use futures_util::stream;
use std::collections::BTreeSet;
use towpath_core::Application;
use towpath_elements::{Error, ErrorKind, Result};

/// The most descendants that are followed.
const MOST_CHILDREN: usize = 1000;
/// How many children are looked up at a time.
const AT_A_TIME: usize = 8;

/// Where a child is: its namespace, empty where that is not known, and its name.
type Place = (String, String);

impl ArgoCd {
    /// The applications among an application's resources, those among theirs, and so on; each once, the nearest first,
    /// without the application itself.
    ///
    /// A child that the server does not show, because it is not there yet or may not be seen, is among them by its name
    /// alone. From the server's cache, which may lag behind: the parent must have been compared before.
    ///
    /// # Errors
    /// Those of [`application`](Self::application); *invalid* beyond 1000 descendants.
    pub async fn children(&self, app: &Application) -> Result<Vec<Application>> {
        let parent = self.application(app).await?;
        let home = app
            .namespace()
            .or(parent.metadata.namespace.as_deref())
            .unwrap_or_default();
        let mut seen = BTreeSet::from([(home.to_owned(), app.name().to_string())]);
        let mut found = Vec::new();
        let mut next = places(&parent.status.resources);
        while !next.is_empty() {
            next.retain(|place| seen.insert(place.clone()));
            self.bound(app, found.len() + next.len())?;
            let mut below = Vec::new();
            for (child, seen) in self.look_up(app, home, next).await? {
                found.push(child);
                below.extend(seen.iter().flat_map(|child| places(&child.status.resources)));
            }
            next = below;
        }
        Ok(found)
    }

    /// The applications that an ApplicationSet has generated; without theirs, for which there is
    /// [`children`](Self::children).
    ///
    /// They are those in its status; where that has none, those that name it as their owner.
    ///
    /// # Errors
    /// Those of [`application_set`](Self::application_set); *invalid* beyond 1000 applications.
    pub async fn application_set_children(
        &self,
        name: &str,
        namespace: Option<&str>,
    ) -> Result<Vec<Application>> {
        let set = self.application_set(name, namespace).await?;
        let home = namespace
            .or(set.metadata.namespace.as_deref())
            .unwrap_or_default();
        let generated = places(&set.status.resources);
        self.bound(&name, generated.len())?;
        if !generated.is_empty() {
            let found = self.look_up(&name, home, generated).await?;
            return Ok(found.into_iter().map(|(child, _)| child).collect());
        }
        // Fields cannot be chosen: the owners are not among those that the server lets go alone.
        let filter = ListFilter {
            projects: set.project().map(str::to_owned).into_iter().collect(),
            namespace: namespace.map(str::to_owned),
            ..ListFilter::default()
        };
        let owned = self.applications(&filter).await?.items.into_iter().filter(|app| {
            app.metadata.owner_references.iter().any(|owner| {
                owner.kind == "ApplicationSet"
                    && owner.name == set.metadata.name
                    && set.metadata.uid.as_ref().is_none_or(|uid| *uid == owner.uid)
            })
        });
        let owned: Vec<App> = owned.collect();
        self.bound(&name, owned.len())?;
        owned
            .iter()
            .map(|app| address(&name, home, &place_of(app), Some(app)))
            .collect()
    }

    fn bound(&self, of: &impl std::fmt::Display, children: usize) -> Result<()> {
        if children <= MOST_CHILDREN {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::Invalid, SERVICE, "list the children of", of)
                .because(format!("they are more than {MOST_CHILDREN}")),
        )
    }

    /// The addresses of children, and what the server shows of them.
    async fn look_up(
        &self,
        of: &(impl std::fmt::Display + Sync),
        home: &str,
        places: Vec<Place>,
    ) -> Result<Vec<(Application, Option<App>)>> {
        let mut looks = stream::iter(places.into_iter().map(|place| async move {
            let filter = ListFilter {
                name: Some(place.1.clone()),
                namespace: Some(place.0.clone()).filter(|namespace| !namespace.is_empty()),
                fields: ["name", "namespace"]
                    .map(|field| format!("items.metadata.{field}"))
                    .into_iter()
                    .chain(["items.spec.project".into(), "items.status.resources".into()])
                    .collect(),
                ..ListFilter::default()
            };
            let shown = self.applications(&filter).await?.items.into_iter().next();
            Ok::<_, Error>((place, shown))
        }))
        .buffered(AT_A_TIME);
        let mut found = Vec::new();
        while let Some(look) = looks.next().await {
            let (place, shown) = look?;
            found.push((address(of, home, &place, shown.as_ref())?, shown));
        }
        Ok(found)
    }
}

/// The applications among resources.
fn places(resources: &[ResourceStatus]) -> Vec<Place> {
    resources
        .iter()
        .filter(|resource| resource.group == "argoproj.io" && resource.kind == "Application")
        .map(|resource| (resource.namespace.clone(), resource.name.clone()))
        .collect()
}

fn place_of(app: &App) -> Place {
    (
        app.metadata.namespace.clone().unwrap_or_default(),
        app.metadata.name.clone(),
    )
}

/// The address of a child, with its namespace where that is not its parent's.
fn address(
    of: &impl std::fmt::Display,
    home: &str,
    place: &Place,
    shown: Option<&App>,
) -> Result<Application> {
    let (namespace, name) = place;
    let project = shown.map(|app| match app.spec.project.as_str() {
        "" => "default",
        project => project,
    });
    let text = match project {
        None => name.clone(),
        Some(project) if namespace.is_empty() || namespace == home => format!("{project}/{name}"),
        Some(project) => format!("{project}/{namespace}/{name}"),
    };
    text.parse().map_err(|cause: towpath_core::ParseError| {
        Error::new(ErrorKind::Protocol, SERVICE, "list the children of", of)
            .because("one of them has a name that no application can have")
            .caused_by(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_addressed_by_what_is_shown_of_it() {
        let shown = |project: &str| {
            let mut app = App::default();
            app.spec.project = project.into();
            app
        };
        let place = |namespace: &str| (namespace.to_owned(), "web".to_owned());
        for (namespace, app, expected) in [
            ("argocd", Some(shown("shop")), "shop/web"),
            ("", Some(shown("")), "default/web"),
            ("team", Some(shown("shop")), "shop/team/web"),
            ("team", None, "web"),
        ] {
            let address = address(&"root", "argocd", &place(namespace), app.as_ref()).unwrap();
            assert_eq!(address.to_string(), expected);
        }
        let odd = (String::new(), "No Name".to_owned());
        let error = address(&"root", "argocd", &odd, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}
