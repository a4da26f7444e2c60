//! Reading against a directory that looks like sysfs and procfs of a machine in transition.

use std::os::unix::fs::symlink;

use workloads::model::CgroupOwner;

use super::*;
use crate::kernel::livepatch::TaskState;
use system::kernel_file::KernelFileError;

struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { directory: tempfile::tempdir().unwrap() };
        machine.file("proc/self/cgroup", "0::/system.slice/update.service\n");
        machine.make_directory("sys/kernel/livepatch");
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn make_directory(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    fn patch(&self, name: &str, enabled: &str, transition: &str) {
        self.file(&format!("sys/kernel/livepatch/{name}/enabled"), enabled);
        self.file(&format!("sys/kernel/livepatch/{name}/transition"), transition);
        self.make_directory(&format!("sys/kernel/livepatch/{name}/vmlinux/cmdline_proc_show,1"));
    }

    fn task(&self, pid: i32, tid: i32, patch_state: &str, task: &str, cgroup: &str) {
        let directory = format!("proc/{pid}/task/{tid}");
        self.file(&format!("{directory}/patch_state"), patch_state);
        self.file(&format!("{directory}/stat"), format!("{tid} (holder) {task} 1 1 1 0 -1 4194560 0"));
        self.file(&format!("{directory}/cgroup"), format!("0::{cgroup}\n"));
        self.file(
            &format!("{directory}/stack"),
            "[<0>] do_nanosleep+0x67/0x190\n[<0>] cmdline_proc_show+0x10/0x30\n",
        );
    }

    fn sysfs(&self) -> Sysfs {
        let roots = Roots { sys: self.path("sys"), proc: self.path("proc"), kmsg: self.path("dev/kmsg") };
        Sysfs::new(roots, Vec::new()).unwrap()
    }
}

fn name(text: &str) -> ModuleName {
    text.parse().unwrap()
}

#[test]
fn a_kernel_without_livepatch_says_so() {
    let machine = Machine::new();
    fs::remove_dir(machine.path("sys/kernel/livepatch")).unwrap();
    assert!(matches!(machine.sysfs().loaded(), Err(KernelError::NoLivepatch { .. })));
}

#[test]
fn a_patch_is_read_with_its_functions_and_its_build() {
    let machine = Machine::new();
    machine.patch("fix", "1\n", "0\n");
    machine.file("sys/module/fix/srcversion", "6B2C9F\n");
    let mut note = [4u32, 20, 3].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    note.extend(b"GNU\0");
    note.extend([0xab; 20]);
    machine.file("sys/module/fix/notes/.note.gnu.build-id", note);
    let patches = machine.sysfs().loaded().unwrap();
    assert_eq!(patches[0].state, PatchState::Settled(Enabled::Enabled));
    assert_eq!(patches[0].objects[0].name, "vmlinux");
    let function = LoadedFunction { name: "cmdline_proc_show".to_owned(), sympos: 1 };
    assert_eq!(patches[0].objects[0].functions, [function]);
    assert_eq!(patches[0].identity.srcversion.as_deref(), Some("6B2C9F"));
    assert_eq!(patches[0].identity.build_id, Some("ab".repeat(20).parse().unwrap()));
}

#[test]
fn a_loaded_module_is_told_by_its_build_whether_it_is_a_livepatch_or_not() {
    let machine = Machine::new();
    assert_eq!(machine.sysfs().module(&name("fix")).unwrap(), None);
    machine.file("sys/module/fix/initstate", "live\n");
    let unnamed = machine.sysfs().module(&name("fix")).unwrap().unwrap();
    assert!(!unnamed.proves(&unnamed), "no build id proves nothing");
    let note = [&[4u32, 20, 3].map(u32::to_ne_bytes).concat()[..], b"GNU\0", &[0xab; 20]].concat();
    machine.file("sys/module/fix/notes/.note.gnu.build-id", note);
    let found = machine.sysfs().module(&name("fix")).unwrap().unwrap();
    assert_eq!(found.to_string(), format!("build id {}", "ab".repeat(20)));
    assert!(found.proves(&found) && !found.proves(&unnamed) && !unnamed.proves(&found));
}

#[test]
fn the_state_tells_the_direction() {
    let machine = Machine::new();
    machine.patch("on", "1\n", "1\n");
    machine.patch("off", "0\n", "1\n");
    let sysfs = machine.sysfs();
    assert_eq!(sysfs.state(&name("on")).unwrap(), PatchState::InTransition(Enabled::Enabled));
    assert_eq!(sysfs.state(&name("off")).unwrap(), PatchState::InTransition(Enabled::Disabled));
    assert_eq!(sysfs.state(&name("gone")).unwrap(), PatchState::Absent);
}

#[test]
fn a_state_file_with_anything_but_a_flag_is_an_error() {
    let machine = Machine::new();
    machine.patch("fix", "yes\n", "0\n");
    assert!(matches!(
        machine.sysfs().state(&name("fix")),
        Err(KernelError::File(KernelFileError::Format { .. }))
    ));
}

#[test]
fn only_tasks_in_the_state_that_the_transition_leaves_block_it() {
    let machine = Machine::new();
    let id = "c".repeat(64);
    machine.patch("fix", "1\n", "1\n");
    machine.task(100, 100, "0\n", "S", &format!("/docker/{id}"));
    machine.task(100, 101, "1\n", "S", &format!("/docker/{id}"));
    machine.task(200, 200, "-1\n", "S", "/");
    machine.task(300, 300, "0\n", "D", "/system.slice/update.service");
    let mut blockers = machine.sysfs().blockers().unwrap();
    blockers.sort_by_key(|blocker| blocker.tid);
    assert_eq!(blockers.iter().map(|blocker| blocker.tid).collect::<Vec<_>>(), [100, 300]);
    assert_eq!(blockers[0].owner, CgroupOwner::Container(id.parse().unwrap()));
    assert_eq!(blockers[0].held_in.as_deref(), Some("cmdline_proc_show"));
    assert_eq!(blockers[0].stack, ["do_nanosleep", "cmdline_proc_show"]);
    assert_eq!((blockers[1].task, &blockers[1].owner), (TaskState::Uninterruptible, &CgroupOwner::Protected));
}

#[test]
fn going_back_it_is_the_patched_tasks_that_block() {
    let machine = Machine::new();
    machine.patch("fix", "0\n", "1\n");
    machine.task(100, 100, "0\n", "S", "/a");
    machine.task(101, 101, "1\n", "S", "/a");
    let blockers = machine.sysfs().blockers().unwrap();
    assert_eq!(blockers.iter().map(|blocker| blocker.tid).collect::<Vec<_>>(), [101]);
}

#[test]
fn a_task_that_ends_while_it_is_looked_at_blocks_nothing() {
    let machine = Machine::new();
    machine.patch("fix", "1\n", "1\n");
    machine.file("proc/100/task/100/patch_state", "0\n");
    symlink("/nonexistent", machine.path("proc/101")).unwrap();
    assert_eq!(machine.sysfs().blockers().unwrap(), []);
}

#[test]
fn without_a_transition_nothing_is_held_back() {
    let machine = Machine::new();
    machine.patch("fix", "1\n", "0\n");
    machine.task(100, 100, "0\n", "S", "/a");
    assert_eq!(machine.sysfs().blockers().unwrap(), []);
}

#[test]
fn a_build_id_note_of_another_shape_is_no_identity() {
    assert_eq!(build_id(b""), None);
    assert_eq!(build_id(&[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0, 1]), None);
}
