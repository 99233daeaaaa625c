//! The objects of the cluster, found by key, by the application that manages them, and by the object that made them.

use super::object::{Key, Object};
use std::collections::{BTreeMap, BTreeSet};

/// Whatever an object says of its application and its owner is in the indexes too: both change by [`Objects`] alone.
#[derive(Debug, Default)]
pub(super) struct Objects {
    by_key: BTreeMap<Key, Object>,
    by_application: BTreeMap<String, BTreeSet<Key>>,
    by_owner: BTreeMap<Key, BTreeSet<Key>>,
}

impl Objects {
    pub(super) fn get(&self, key: &Key) -> Option<&Object> {
        self.by_key.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Object> {
        self.by_key.get_mut(key)
    }

    /// Every object, by key.
    pub(super) fn all(&self) -> impl Iterator<Item = &Object> {
        self.by_key.values()
    }

    /// What an application manages directly, by key.
    pub(super) fn managed(&self, application: &str) -> impl Iterator<Item = &Object> {
        self.found(self.by_application.get(application))
    }

    /// What an object made, by key.
    pub(super) fn owned(&self, owner: &Key) -> impl Iterator<Item = &Object> {
        self.found(self.by_owner.get(owner))
    }

    /// What an application manages and everything that came of it, by key.
    pub(super) fn tree(&self, application: &str) -> Vec<&Object> {
        let mut tree: Vec<&Object> = self.managed(application).collect();
        let mut next = 0;
        while let Some(owner) = tree.get(next) {
            tree.extend(self.owned(&owner.key));
            next += 1;
        }
        tree.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        tree
    }

    /// The object that this one came of in the end, which nothing in the cluster made.
    pub(super) fn root(&self, key: &Key) -> Option<&Object> {
        let mut object = self.get(key)?;
        while let Some(owner) = &object.owner {
            object = self.get(owner)?;
        }
        Some(object)
    }

    pub(super) fn insert(&mut self, object: Object) {
        self.remove(&object.key);
        if let Some(application) = &object.app {
            let managed = self.by_application.entry(application.clone()).or_default();
            managed.insert(object.key.clone());
        }
        if let Some(owner) = &object.owner {
            let owned = self.by_owner.entry(owner.clone()).or_default();
            owned.insert(object.key.clone());
        }
        self.by_key.insert(object.key.clone(), object);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Object> {
        let object = self.by_key.remove(key)?;
        if let Some(application) = &object.app {
            forget(&mut self.by_application, application, key);
        }
        if let Some(owner) = &object.owner {
            forget(&mut self.by_owner, owner, key);
        }
        Some(object)
    }

    /// Hands an object to an application, which manages it from now on.
    pub(super) fn hand_over(&mut self, key: &Key, application: &str) {
        let Some(object) = self.by_key.get_mut(key) else {
            return;
        };
        if object.app.as_deref() == Some(application) {
            return;
        }
        if let Some(before) = object.app.replace(application.to_owned()) {
            forget(&mut self.by_application, &before, key);
        }
        let managed = self.by_application.entry(application.to_owned()).or_default();
        managed.insert(key.clone());
    }

    fn found(&self, keys: Option<&BTreeSet<Key>>) -> impl Iterator<Item = &Object> {
        keys.into_iter().flatten().filter_map(|key| self.by_key.get(key))
    }
}

fn forget<Name: Ord>(index: &mut BTreeMap<Name, BTreeSet<Key>>, name: &Name, key: &Key) {
    if let Some(keys) = index.get_mut(name) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde_json::json;

    fn object(kind: &str, name: &str, app: Option<&str>, owner: Option<&Object>) -> Object {
        let manifest = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        let key = Key::of(&manifest, "prod").unwrap();
        Object::create(key, &manifest, app, owner, Timestamp::UNIX_EPOCH)
    }

    fn names<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Vec<&'a str> {
        objects
            .into_iter()
            .map(|object| object.key.name.as_str())
            .collect()
    }

    #[test]
    fn the_indexes_say_what_the_objects_say() {
        let web = object("Deployment", "web", Some("shop"), None);
        let set = object("ReplicaSet", "web-1", None, Some(&web));
        let pods = ["web-1-b", "web-1-a"].map(|name| object("Pod", name, None, Some(&set)));
        let (web_key, set_key, pod_key) = (web.key.clone(), set.key.clone(), pods[0].key.clone());
        let mut objects = Objects::default();
        for object in [web, set, object("Service", "web", Some("other"), None)] {
            objects.insert(object);
        }
        pods.into_iter().for_each(|pod| objects.insert(pod));

        assert_eq!(names(objects.managed("shop")), ["web"]);
        assert_eq!(names(objects.owned(&set_key)), ["web-1-a", "web-1-b"]);
        assert_eq!(
            names(objects.tree("shop")),
            ["web", "web-1-a", "web-1-b", "web-1"]
        );
        assert_eq!(objects.root(&pod_key).unwrap().key, web_key);

        objects.hand_over(&web_key, "other");
        assert_eq!(names(objects.tree("shop")), [""; 0]);
        assert_eq!(names(objects.managed("other")), ["web", "web"]);

        objects.remove(&set_key);
        assert_eq!(names(objects.owned(&web_key)), [""; 0]);
        assert!(objects.root(&pod_key).is_none(), "what made it is gone");
        assert_eq!(names(objects.owned(&set_key)).len(), 2, "they are still there");
    }
}
