//! One stream of changes for any number of listeners.
//!
//! The stream is as narrow as its listeners let it be: one application, the projects of several, or everything. It is
//! opened with the first listener, opened anew where a listener is not covered by it, and closed after the last. Only names
//! and versions travel on it.

use crate::config::SERVICE;
use crate::wait::{Change, Changes};
use crate::{ArgoCd, WatchEvent, WatchFilter};
use futures_util::StreamExt;
use futures_util::stream;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use towpath_core::Application;
use towpath_elements::{Error, ErrorKind};

/// Listeners that come together are served by one stream.
const GATHERING: Duration = Duration::from_millis(20);

/// What a listener hears.
#[derive(Clone, Debug, Default)]
enum News {
    #[default]
    Nothing,
    Changed(Option<u64>),
    /// There will be no more news, and why.
    Ended(String),
}

#[derive(Debug, Default)]
pub(crate) struct Hub(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A listener has come or gone.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    listeners: Listeners,
    listening: bool,
}

/// Who listens, by the name of the application: an event has no more to say of which it is about than that and a namespace,
/// and costs what the listeners of that name cost, however many others there are.
#[derive(Debug, Default)]
struct Listeners(HashMap<String, HashMap<Application, watch::Sender<News>>>);

impl Listeners {
    /// The news of an application, which from now on is listened to.
    fn listen(&mut self, application: &Application) -> watch::Receiver<News> {
        self.0
            .entry(application.name().to_string())
            .or_default()
            .entry(application.clone())
            .or_default()
            .subscribe()
    }

    /// Forgets an application where this is the last that listens to it; says whether it was.
    fn leave(&mut self, application: &Application, news: &watch::Receiver<News>) -> bool {
        let Some(namesakes) = self.0.get_mut(application.name().as_str()) else {
            return false;
        };
        // After a stream has ended, what stands here may be a later listener's. This one still counts.
        let is_last = namesakes
            .get(application)
            .is_some_and(|sender| sender.receiver_count() == 1 && sender.subscribe().same_channel(news));
        if is_last {
            namesakes.remove(application);
            if namesakes.is_empty() {
                self.0.remove(application.name().as_str());
            }
        }
        is_last
    }

    fn of_name(&self, name: &str) -> impl Iterator<Item = (&Application, &watch::Sender<News>)> {
        self.0.get(name).into_iter().flatten()
    }

    fn applications(&self) -> impl Iterator<Item = &Application> + Clone {
        self.0.values().flat_map(HashMap::keys)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells all of them, and forgets them.
    fn end(&mut self, news: &News) {
        for listener in std::mem::take(&mut self.0).values().flat_map(HashMap::values) {
            listener.send_replace(news.clone());
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One listener; its application is forgotten with the last of them.
struct Listener {
    shared: Arc<Shared>,
    application: Application,
    news: watch::Receiver<News>,
    ended: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.shared.state().listeners.leave(&self.application, &self.news) {
            self.shared.moved.notify_one();
        }
    }
}

impl Hub {
    /// The changes of an application from now on. Several changes may come as one.
    pub(crate) fn listen(&self, client: &ArgoCd, application: &Application) -> Changes {
        let mut state = self.0.state();
        let news = state.listeners.listen(application);
        let listener = Listener {
            shared: self.0.clone(),
            application: application.clone(),
            news,
            ended: false,
        };
        if state.listening {
            self.0.moved.notify_one();
        } else {
            state.listening = true;
            tokio::spawn(serve(client.clone(), self.0.clone()));
        }
        drop(state);
        stream::unfold(listener, |mut listener| async move {
            if listener.ended || listener.news.changed().await.is_err() {
                return None;
            }
            let news = listener.news.borrow_and_update().clone();
            let heard = match news {
                News::Nothing => Ok(Change::default()),
                News::Changed(version) => Ok(Change::to(version)),
                News::Ended(why) => {
                    listener.ended = true;
                    Err(
                        Error::new(ErrorKind::Unavailable, SERVICE, "watch", &listener.application)
                            .because(why),
                    )
                }
            };
            Some((heard, listener))
        })
        .boxed()
    }
}

/// Keeps a stream open that covers the listeners, until there is none.
async fn serve(client: ArgoCd, shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(GATHERING).await;
        let filter = {
            let mut state = shared.state();
            if state.listeners.is_empty() {
                state.listening = false;
                return;
            }
            covering(state.listeners.applications())
        };
        let mut events = client.watch(filter.clone());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => tell(&shared, &event),
                    ended => {
                        let why = match ended {
                            Some(Err(error)) => error.to_string(),
                            _ => "the stream has ended".to_owned(),
                        };
                        // Nobody listens twice to what another connection would not mend.
                        let mut state = shared.state();
                        state.listening = false;
                        state.listeners.end(&News::Ended(why));
                        return;
                    }
                },
                () = shared.moved.notified() => {
                    let state = shared.state();
                    if state.listeners.is_empty() || !state.listeners.applications().all(|one| covers(&filter, one)) {
                        break;
                    }
                }
            }
        }
    }
}

fn tell(shared: &Shared, event: &WatchEvent) {
    let (WatchEvent::Changed(app) | WatchEvent::Deleted(app)) = event;
    let version = app.metadata.version_number();
    let state = shared.state();
    for (application, listener) in state.listeners.of_name(&app.metadata.name) {
        let here = match (application.namespace(), &app.metadata.namespace) {
            (Some(wanted), Some(is)) => wanted == is,
            _ => true,
        };
        if here {
            listener.send_replace(News::Changed(version));
        }
    }
}

/// The narrowest filter for these.
fn covering<'a>(applications: impl Iterator<Item = &'a Application> + Clone) -> WatchFilter {
    let mut few = applications.clone();
    let filter = match (few.next(), few.next()) {
        (Some(only), None) => WatchFilter::of(only),
        _ => WatchFilter {
            projects: applications
                .map(|one| one.project().map(str::to_owned))
                .collect::<Option<BTreeSet<_>>>()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            ..WatchFilter::default()
        },
    };
    WatchFilter {
        fields: FIELDS.iter().map(|&field| field.to_owned()).collect(),
        ..filter
    }
}

/// Also the error: the server would leave it out, too.
const FIELDS: [&str; 5] = [
    "error",
    "result.type",
    "result.application.metadata.name",
    "result.application.metadata.namespace",
    "result.application.metadata.resourceVersion",
];

fn covers(filter: &WatchFilter, application: &Application) -> bool {
    match &filter.name {
        Some(_) => {
            let narrow = WatchFilter::of(application);
            (&filter.name, &filter.projects, &filter.namespace)
                == (&narrow.name, &narrow.projects, &narrow.namespace)
        }
        None => {
            filter.projects.is_empty()
                || application
                    .project()
                    .is_some_and(|project| filter.projects.iter().any(|one| one == project))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::App;

    fn apps(texts: &[&str]) -> Vec<Application> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_listener_of_an_ended_stream_takes_no_other_along() {
        let client = ArgoCd::builder("http://127.0.0.1:9", crate::Login::Anonymous)
            .and_then(|builder| builder.build())
            .unwrap();
        let (hub, application) = (Hub::default(), apps(&["shop/web"]).remove(0));
        let listeners = || hub.0.state().listeners.applications().count();
        let first = hub.listen(&client, &application);
        hub.0.state().listeners.end(&News::Nothing);
        let second = hub.listen(&client, &application);
        drop(first);
        assert_eq!(listeners(), 1);
        drop(second);
        assert_eq!(listeners(), 0);
        assert!(hub.0.state().listeners.is_empty());
    }

    #[test]
    fn an_event_is_told_to_all_of_its_name_and_namespace_and_to_no_other() {
        let shared = Shared::default();
        let all = apps(&[
            "web",
            "shop/web",
            "shop/argocd/web",
            "shop/elsewhere/web",
            "shop/api",
        ]);
        let mut news: Vec<_> = all
            .iter()
            .map(|one| shared.state().listeners.listen(one))
            .collect();
        let mut heard = |namespace: Option<&str>| -> Vec<bool> {
            let mut app = App::default();
            app.metadata.name = "web".into();
            app.metadata.namespace = namespace.map(str::to_owned);
            app.metadata.resource_version = Some("7".into());
            tell(&shared, &WatchEvent::Changed(Box::new(app)));
            news.iter_mut()
                .map(|one| {
                    let new = one.has_changed().unwrap();
                    new && matches!(*one.borrow_and_update(), News::Changed(Some(7)))
                })
                .collect()
        };
        assert_eq!(heard(Some("argocd")), [true, true, true, false, false]);
        assert_eq!(heard(None), [true, true, true, true, false]);
        assert_eq!(heard(Some("nowhere")), [true, true, false, false, false]);

        // One leaves, and its namesakes stay.
        assert!(shared.state().listeners.leave(&all[0], &news[0]));
        assert_eq!(shared.state().listeners.of_name("web").count(), 3);
        assert!(!shared.state().listeners.leave(&all[1], &news[2]));
        let again = shared.state().listeners.listen(&all[4]);
        assert!(!shared.state().listeners.leave(&all[4], &again));
    }

    #[test]
    fn a_stream_is_as_narrow_as_its_listeners_let_it_be() {
        let one = apps(&["shop/web"]);
        let filter = covering(one.iter());
        assert_eq!((filter.name.as_deref(), filter.projects.len()), (Some("web"), 1));
        assert!(covers(&filter, &one[0]));

        let two = apps(&["shop/web", "shop/api", "pay/api"]);
        assert!(!covers(&filter, &two[1]) && !covers(&filter, &two[2]));
        let filter = covering(two.iter());
        assert_eq!(
            (filter.name.as_deref(), filter.projects.as_slice()),
            (None, &["pay".to_owned(), "shop".to_owned()][..])
        );
        assert!(two.iter().all(|one| covers(&filter, one)));
        assert!(!covers(&filter, &apps(&["other/x"])[0]));

        let unnamed = apps(&["shop/web", "api"]);
        assert!(covering(unnamed.iter()).projects.is_empty());
    }
}
