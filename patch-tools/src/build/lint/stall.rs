//! Where tasks may wait inside of a function: until they have left it, the transition is not complete.
//!
//! From the calls in the compiled original, through functions of the same file; what functions of other files do is
//! not followed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use object::elf::SHT_RELA;

use super::words::{self, Waiting};
use crate::elf::{Elf, Malformed, Place};

/// Who calls whom in one object.
#[derive(Debug, Default)]
pub(super) struct Calls {
    callees: HashMap<String, BTreeSet<String>>,
}

impl Calls {
    /// Reads them from the relocations of an object with a section for each function.
    pub(super) fn read(object: &[u8]) -> Result<Self, Malformed> {
        let elf = Elf::parse(object)?;
        let mut functions: HashMap<usize, Vec<&str>> = HashMap::new();
        for symbol in elf.symbols().iter().filter(|symbol| symbol.is_function()) {
            if let Place::Section(index) = symbol.place {
                functions.entry(index).or_default().push(symbol.name);
            }
        }
        let mut callees: HashMap<String, BTreeSet<String>> = HashMap::new();
        for table in elf.sections().iter().filter(|section| section.kind == SHT_RELA) {
            let Some(callers) = functions.get(&(table.info as usize)) else { continue };
            for one in elf.relocations(table)? {
                let Some(symbol) = elf.symbols().get(one.symbol) else { continue };
                let targets = match symbol.place {
                    Place::Section(index) if symbol.is_section() => {
                        functions.get(&index).cloned().unwrap_or_default()
                    }
                    _ => vec![symbol.name],
                };
                for caller in callers {
                    let known = callees.entry((*caller).to_owned()).or_default();
                    known.extend(targets.iter().map(|target| (*target).to_owned()));
                }
            }
        }
        Ok(Self { callees })
    }

    /// Whether the function itself asks if its thread is to stop: then it is the thread's main loop.
    pub(super) fn is_thread_loop(&self, function: &str) -> bool {
        self.callees
            .get(function)
            .is_some_and(|callees| callees.iter().any(|name| words::asks_whether_to_stop(name)))
    }

    /// Each way of waiting that the function has, with the shortest chain of calls that leads there.
    pub(super) fn waits(&self, function: &str) -> BTreeMap<Waiting, Vec<String>> {
        let mut found: BTreeMap<Waiting, Vec<String>> = BTreeMap::new();
        let mut seen = BTreeSet::from([function.to_owned()]);
        let mut queue = VecDeque::from([vec![function.to_owned()]]);
        while let Some(chain) = queue.pop_front() {
            let callees = chain.last().and_then(|last| self.callees.get(last));
            for callee in callees.into_iter().flatten() {
                let longer = || chain.iter().cloned().chain([callee.clone()]).collect::<Vec<_>>();
                if let Some(waiting) = words::waiting(callee) {
                    found.entry(waiting).or_insert_with(longer);
                } else if seen.insert(callee.clone()) {
                    queue.push_back(longer());
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn waits_are_found_through_functions_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (file, object) = (directory.path().join("a.c"), directory.path().join("a.o"));
        let source = "void schedule(void); void msleep(int); int kthread_should_stop(void); void quick(void);\n\
             static __attribute__((noinline)) void inner(void) { schedule(); quick(); }\n\
             void outer(int a) { if (a) msleep(a); inner(); quick(); }\n\
             void loop(void) { while (!kthread_should_stop()) outer(1); }\n\
             void none(void) { quick(); quick(); }\n";
        std::fs::write(&file, source).unwrap();

        let done = Command::new("gcc")
            .args(["-O1", "-ffunction-sections", "-fno-pic", "-c", "-o"])
            .arg(&object)
            .arg(&file)
            .status()
            .unwrap();
        assert!(done.success());
        let calls = Calls::read(&std::fs::read(object).unwrap()).unwrap();
        let waits = calls.waits("outer");
        assert_eq!(waits[&Waiting::Event], ["outer", "inner", "schedule"]);
        assert_eq!(waits[&Waiting::Timed], ["outer", "msleep"]);
        assert!(calls.is_thread_loop("loop") && !calls.is_thread_loop("outer"));
        assert!(calls.waits("none").is_empty());
    }
}
