//! Making containers anew from other images, with their configuration kept.
//!
//! The new container is made beside the old one, which runs on, under a name of its own; then the two exchange names. So
//! there are three names, and which of them are there says how far an exchange has come: every request may be repeated,
//! after a crash as well.
//!
//! Invariants:
//! - At no moment do both have a restart policy: whoever starts containers by policy starts one of them at most.
//! - Nothing is set aside before a copy made from the *old* image was seen to be the same in everything that the engine says
//!   of it. So what the engine cannot be asked to make again is found out while the container still runs.

use std::collections::{BTreeMap, BTreeSet};

use manifests::{ContainerId, ImageDigest};
use serde_json::Value;

use crate::images::ImageArchive;
use crate::lifecycle::error::RuntimeError;
use crate::model::{Image, Replacement, RuntimeName, WorkloadId};

/// What a container is made from, and on what terms it can be made anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recreation {
    /// What it was made from; nothing where its engine does not say.
    pub image: Option<Image>,
    /// Its restart policy in the words of `--restart`.
    pub restart: String,
    /// Why it cannot be made anew, a sentence each; empty if it can.
    pub unmet: Vec<String>,
    /// What differs afterwards, a phrase each.
    pub changes: Vec<String>,
}

/// Makes containers anew. A runtime that knows no images refuses all of it.
pub trait Recreator {
    /// Looks at a container; changes nothing.
    fn recreation(&self, id: &WorkloadId) -> Result<Recreation, RuntimeError> {
        let unmet = vec![format!("{} knows no images", id.runtime)];
        Ok(Recreation { unmet, ..Recreation::default() })
    }

    /// Whether the runtime has an image with this configuration.
    fn has_image(&self, _runtime: &RuntimeName, _image: &ImageDigest) -> Result<bool, RuntimeError> {
        Ok(false)
    }

    /// Gives the runtime an image, and sees that it has just that. There already is success.
    fn load(&self, runtime: &RuntimeName, _image: &ImageArchive) -> Result<(), RuntimeError> {
        Err(RuntimeError::NoImages { runtime: runtime.clone() })
    }

    /// Makes the new container under its first name, without a restart policy, after a copy of the old one has shown that
    /// the engine can make it again. What is there under that name goes first.
    fn create(
        &self,
        id: &WorkloadId,
        _image: &ImageDigest,
        _replacement: &Replacement,
    ) -> Result<(), RuntimeError> {
        Err(RuntimeError::NoImages { runtime: id.runtime.clone() })
    }

    /// Sets the old container aside and puts the new one in place, with the restart policy. Neither may run.
    fn exchange(&self, id: &WorkloadId, _replacement: &Replacement) -> Result<(), RuntimeError> {
        Err(RuntimeError::NoImages { runtime: id.runtime.clone() })
    }

    /// The other way round, however far an exchange has come. Neither may run.
    fn put_back(&self, id: &WorkloadId, _replacement: &Replacement) -> Result<(), RuntimeError> {
        Err(RuntimeError::NoImages { runtime: id.runtime.clone() })
    }

    /// Removes a container that does not run, with volumes that have no name and that no other container has. Not there is
    /// success.
    fn remove(&self, id: &WorkloadId) -> Result<(), RuntimeError> {
        Err(RuntimeError::NoImages { runtime: id.runtime.clone() })
    }
}

/// The requests that an exchange is made of.
pub trait Names {
    /// Whether there is a container of this name.
    fn exists(&self, name: &ContainerId) -> Result<bool, RuntimeError>;

    /// Calls a container something else.
    fn rename(&self, from: &ContainerId, to: &ContainerId) -> Result<(), RuntimeError>;

    /// Gives a container another restart policy.
    fn set_restart(&self, name: &ContainerId, policy: &str) -> Result<(), RuntimeError>;
}

/// The policy of a container that nobody starts again.
pub const NEVER: &str = "no";

/// Which of the three names are there: the container's own, that of the trial, that of what was set aside.
fn seen(engine: &dyn Names, id: &WorkloadId, replacement: &Replacement) -> Result<[bool; 3], RuntimeError> {
    let Replacement { trial, aside, .. } = replacement;
    Ok([engine.exists(&id.id)?, engine.exists(trial)?, engine.exists(aside)?])
}

fn unexpected(id: &WorkloadId, replacement: &Replacement, seen: [bool; 3]) -> RuntimeError {
    let names = [&id.id, &replacement.trial, &replacement.aside];
    let there = names.iter().zip(seen).filter(|(_, there)| *there);
    let found = there.map(|(name, _)| name.to_string()).collect();
    RuntimeError::Names { id: id.clone(), replacement: Box::new(replacement.clone()), found }
}

/// Sets the container aside and puts the one on trial in its place, from wherever an earlier exchange was cut.
///
/// # Errors
/// [`RuntimeError::Names`] if the names are none that an exchange leaves, and what the engine says.
pub fn exchange(engine: &dyn Names, id: &WorkloadId, replacement: &Replacement) -> Result<(), RuntimeError> {
    let Replacement { trial, aside, restart } = replacement;
    match seen(engine, id, replacement)? {
        [true, true, false] => {
            engine.set_restart(&id.id, NEVER)?;
            engine.rename(&id.id, aside)?;
            engine.rename(trial, &id.id)?;
        }
        [false, true, true] => engine.rename(trial, &id.id)?,
        [true, false, true] => {}
        other => return Err(unexpected(id, replacement, other)),
    }
    engine.set_restart(&id.id, restart)
}

/// The other way round.
///
/// # Errors
/// As [`exchange`].
pub fn put_back(engine: &dyn Names, id: &WorkloadId, replacement: &Replacement) -> Result<(), RuntimeError> {
    let Replacement { trial, aside, restart } = replacement;
    match seen(engine, id, replacement)? {
        // Set aside or not: the old one is in place.
        [true, _, false] => {}
        [false, true, true] => engine.rename(aside, &id.id)?,
        [true, false, true] => {
            engine.set_restart(&id.id, NEVER)?;
            engine.rename(&id.id, trial)?;
            engine.rename(aside, &id.id)?;
        }
        other => return Err(unexpected(id, replacement, other)),
    }
    engine.set_restart(&id.id, restart)
}

/// What an engine says of one container, by the path to it; lists of mounts by where they are mounted.
pub(super) type View = BTreeMap<String, Value>;

/// All that an engine says of a container, as far as it can be the same of two: `own` are the texts by which an engine
/// names this very one (its id, short and long, and its name).
pub(super) fn view(answer: &Value, own: &[&str]) -> View {
    fn flatten(path: &str, value: &Value, own: &[&str], into: &mut View) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    flatten(&path, field, own, into);
                }
            }
            Value::Array(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    // In no certain order.
                    let place = entry.get("Destination").and_then(Value::as_str);
                    let place = place.map_or_else(|| index.to_string(), str::to_owned);
                    flatten(&format!("{path}.{place}"), entry, own, into);
                }
            }
            // Nothing is said in more than one way.
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => {
                let plain = own.iter().fold(text.clone(), |text, name| text.replace(name, "ITS-OWN"));
                into.insert(path.to_owned(), Value::String(plain));
            }
            leaf => drop(into.insert(path.to_owned(), leaf.clone())),
        }
    }
    let mut into = View::new();
    flatten("", answer, own, &mut into);
    into
}

/// In what two views differ, beside what is below one of these paths; a sentence each.
pub(super) fn differences(before: &View, after: &View, beside: &[&str]) -> Vec<String> {
    let below = |path: &str| {
        beside.iter().any(|prefix| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = paths.into_iter().filter(|path| before.get(*path) != after.get(*path) && !below(path));
    let word = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    differing
        .map(|path| format!("{path} would be {}, and is {}", word(after.get(path)), word(before.get(path))))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    /// Containers by name, with their policies; dies after so many requests that change something.
    struct Engine {
        containers: RefCell<BTreeMap<String, (&'static str, String)>>,
        left: RefCell<usize>,
    }

    impl Engine {
        fn new(left: usize) -> Self {
            let containers = [("web", ("old", "always")), ("web-new", ("new", "no"))];
            let containers =
                containers.map(|(name, (which, policy))| (name.to_owned(), (which, policy.to_owned())));
            Self { containers: RefCell::new(containers.into()), left: RefCell::new(left) }
        }

        fn change(&self) -> Result<(), RuntimeError> {
            let mut left = self.left.borrow_mut();
            *left = left.checked_sub(1).ok_or(RuntimeError::Unknown { id: id() })?;
            Ok(())
        }

        fn expect_one_policy(&self) {
            let containers = self.containers.borrow();
            let with = containers.values().filter(|(_, policy)| policy != NEVER).count();
            assert!(with <= 1, "{containers:?}");
        }

        fn is(&self, name: &str) -> (&'static str, String) {
            self.containers.borrow()[name].clone()
        }
    }

    impl Names for Engine {
        fn exists(&self, name: &ContainerId) -> Result<bool, RuntimeError> {
            Ok(self.containers.borrow().contains_key(name.as_str()))
        }

        fn rename(&self, from: &ContainerId, to: &ContainerId) -> Result<(), RuntimeError> {
            self.change()?;
            let mut containers = self.containers.borrow_mut();
            let moved = containers.remove(from.as_str()).unwrap();
            assert!(containers.insert(to.to_string(), moved).is_none(), "{to} is taken");
            Ok(())
        }

        fn set_restart(&self, name: &ContainerId, policy: &str) -> Result<(), RuntimeError> {
            self.change()?;
            self.containers.borrow_mut().get_mut(name.as_str()).unwrap().1 = policy.to_owned();
            self.expect_one_policy();
            Ok(())
        }
    }

    fn id() -> WorkloadId {
        "podman:web".parse().unwrap()
    }

    fn replacement() -> Replacement {
        Replacement {
            trial: "web-new".parse().unwrap(),
            aside: "web-old".parse().unwrap(),
            restart: "always".to_owned(),
        }
    }

    #[test]
    fn an_exchange_may_be_cut_anywhere_and_goes_on_or_back() {
        for cut in 0.. {
            let whole = |engine: &Engine| *engine.left.borrow_mut() = 100;
            let engine = Engine::new(cut);
            let done = exchange(&engine, &id(), &replacement()).is_ok();
            whole(&engine);
            exchange(&engine, &id(), &replacement()).unwrap();
            assert_eq!(engine.is("web"), ("new", "always".to_owned()), "cut {cut}");
            assert_eq!(engine.is("web-old"), ("old", "no".to_owned()), "cut {cut}");

            for second in 0.. {
                let engine = Engine::new(cut);
                let _ = exchange(&engine, &id(), &replacement());
                *engine.left.borrow_mut() = second;
                let back = put_back(&engine, &id(), &replacement()).is_ok();
                whole(&engine);
                put_back(&engine, &id(), &replacement()).unwrap();
                assert_eq!(engine.is("web"), ("old", "always".to_owned()), "cuts {cut}, {second}");
                assert_eq!(engine.is("web-new").0, "new", "cuts {cut}, {second}");
                if back {
                    break;
                }
            }
            if done {
                assert_eq!(cut, 4);
                break;
            }
        }
    }

    #[test]
    fn names_that_somebody_else_has_changed_are_left_as_they_are() {
        for gone in [&["web", "web-new"][..], &["web"], &["web-new"]] {
            let engine = Engine::new(100);
            gone.iter().for_each(|name| drop(engine.containers.borrow_mut().remove(*name)));
            let before = engine.containers.borrow().clone();
            let error = exchange(&engine, &id(), &replacement()).unwrap_err();
            assert!(matches!(&error, RuntimeError::Names { .. }), "{error}");
            assert_eq!(*engine.containers.borrow(), before, "{gone:?}");
        }
    }

    #[test]
    fn two_are_the_same_if_they_differ_in_what_is_their_own_alone() {
        let one = json!({
            "Id": "0123456789abcdef", "Name": "web", "Hostname": "0123456789ab", "Gone": null, "Empty": "",
            "Mounts": [{"Destination": "/a", "RW": true}, {"Destination": "/b", "RW": true}],
            "Memory": 5,
        });
        let two = json!({
            "Id": "fedcba9876543210", "Name": "web-new", "Hostname": "fedcba987654",
            "Mounts": [{"Destination": "/b", "RW": true}, {"Destination": "/a", "RW": true}],
            "Memory": 5,
        });
        let one = view(&one, &["0123456789abcdef", "0123456789ab"]);
        let mut two = view(&two, &["fedcba9876543210", "fedcba987654"]);
        assert_eq!(differences(&one, &two, &["Name"]), <[String; 0]>::default());
        two.insert("Memory".to_owned(), json!(6));
        two.remove("Mounts./a.RW");
        assert_eq!(
            differences(&one, &two, &["Name", "Mem"]),
            ["Memory would be 6, and is 5", "Mounts./a.RW would be nothing, and is true"]
        );
    }
}
