//! containerd's own containers: those of `ctr` and nerdctl, and of Kubernetes. They are found and told, so that nobody
//! takes them for fixed, and left alone.
//!
//! containerd keeps a directory for each task, by its namespace: `NAMESPACE/ID`, with the OCI bundle in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::model::Unreadable;

/// Where the tasks are (containerd 1.2 and later).
pub(super) const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";

/// The namespace of docker's, which docker speaks for.
pub(super) const DOCKER: &str = "moby";

/// The namespace of the kubelet's.
const KUBERNETES: &str = "k8s.io";

/// By these annotations containerd's part for Kubernetes says what a task is.
const KIND: &str = "io.kubernetes.cri.container-type";
const NAME: [&str; 3] = [
    "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.cri.sandbox-name",
    "io.kubernetes.cri.container-name",
];

/// The part of a bundle that is used.
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The containers of all namespaces but docker's.
pub(super) fn told(tasks: &Path) -> Vec<Unreadable> {
    let mut told = Vec::new();
    for namespace in names(tasks).into_iter().filter(|namespace| namespace != DOCKER) {
        let tasks = tasks.join(&namespace);
        told.extend(names(&tasks).into_iter().filter_map(|id| one(&namespace, &id, &tasks.join(&id))));
    }
    told
}

fn one(namespace: &str, id: &str, bundle: &Path) -> Option<Unreadable> {
    let config = fs::read(bundle.join("config.json")).unwrap_or_default();
    let Config { annotations } = serde_json::from_slice(&config).unwrap_or_default();
    if namespace != KUBERNETES {
        return Some(Unreadable {
            container: format!("containerd:{namespace}/{id}"),
            why: "it is containerd's own, and is left alone".to_owned(),
        });
    }
    // The one that holds a pod's namespaces runs nothing else.
    (annotations.get(KIND).map(String::as_str) != Some("sandbox")).then(|| {
        let named: Option<Vec<&str>> =
            NAME.iter().map(|name| annotations.get(*name).map(String::as_str)).collect();
        Unreadable {
            container: format!("kubernetes:{}", named.map_or(id.to_owned(), |names| names.join("/"))),
            why: "it is the kubelet's, which would replace it: a fixed image goes out with its manifest"
                .to_owned(),
        }
    })
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> =
        directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_of_others_are_told_by_their_names_and_dockers_are_not_theirs() {
        let tasks = tempfile::tempdir().unwrap();
        let bundle = |path: &str, config: &str| {
            fs::create_dir_all(tasks.path().join(path)).unwrap();
            fs::write(tasks.path().join(path).join("config.json"), config).unwrap();
        };
        bundle("moby/aa", "{}");
        bundle("default/web", r#"{"annotations": {}}"#);
        bundle("k8s.io/bb", r#"{"annotations": {"io.kubernetes.cri.container-type": "sandbox"}}"#);
        bundle(
            "k8s.io/cc",
            r#"{"annotations": {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.sandbox-name": "web-0", "io.kubernetes.cri.container-name": "nginx"}}"#,
        );
        bundle("k8s.io/dd", "not json");
        let told: Vec<String> = told(tasks.path()).into_iter().map(|one| one.container).collect();
        assert_eq!(told, ["containerd:default/web", "kubernetes:shop/web-0/nginx", "kubernetes:dd"]);
        assert!(super::told(Path::new("/nonexistent")).is_empty());
    }
}
