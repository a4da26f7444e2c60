//! Names of the kernel's primitives: which lock, which count references, which wait.
//!
//! By their parts rather than by lists alone, since every subsystem has `foo_lock()` and `foo_get()` of its own. A
//! name that is taken for one by mistake costs a reviewer a look.

/// What a call does to a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locking {
    Acquire,
    Release,
}

/// What a call does to a reference count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    Take,
    Drop,
}

/// How a call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waiting {
    /// For a lock: as long as another holds it.
    Lock,
    /// For a time that the caller names.
    Timed,
    /// For an event: as long as it takes.
    Event,
}

fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split('_').filter(|part| !part.is_empty())
}

/// Whether a call takes or gives up a lock, or keeps interrupts, preemption or RCU readers off.
pub(super) fn locking(name: &str) -> Option<Locking> {
    const ACQUIRE: [&str; 22] = [
        "down",
        "down_interruptible",
        "down_killable",
        "down_trylock",
        "down_timeout",
        "down_read",
        "down_write",
        "down_read_trylock",
        "down_write_trylock",
        "down_read_killable",
        "down_write_killable",
        "percpu_down_read",
        "percpu_down_write",
        "local_irq_save",
        "local_irq_disable",
        "local_bh_disable",
        "preempt_disable",
        "write_seqcount_begin",
        "read_seqbegin",
        "read_seqcount_begin",
        "guard",
        "scoped_guard",
    ];
    const RELEASE: [&str; 14] = [
        "up",
        "up_read",
        "up_write",
        "downgrade_write",
        "percpu_up_read",
        "percpu_up_write",
        "local_irq_restore",
        "local_irq_enable",
        "local_bh_enable",
        "preempt_enable",
        "write_seqcount_end",
        "read_seqretry",
        "read_seqcount_retry",
        "release_sock",
    ];
    // Making, asserting and describing a lock is not holding it; file locks are data.
    const NOT: [&str; 12] = [
        "init", "assert", "lockdep", "is", "held", "class", "alloc", "free", "locks", "flock", "posix",
        "DEFINE",
    ];
    if ACQUIRE.contains(&name) {
        return Some(Locking::Acquire);
    }
    if RELEASE.contains(&name) {
        return Some(Locking::Release);
    }
    if parts(name).any(|part| NOT.contains(&part)) {
        return None;
    }
    parts(name).find_map(|part| match part {
        "lock" | "trylock" => Some(Locking::Acquire),
        "unlock" => Some(Locking::Release),
        _ => None,
    })
}

/// Whether a call takes or drops a reference.
pub(super) fn counting(name: &str) -> Option<Counting> {
    const TAKE: [&str; 19] = [
        "dget",
        "mntget",
        "igrab",
        "ihold",
        "iget",
        "fget",
        "fdget",
        "mmget",
        "mmgrab",
        "get_file",
        "get_page",
        "get_task_struct",
        "get_cred",
        "get_pid",
        "get_net",
        "get_device",
        "refcount_inc",
        "refcount_inc_not_zero",
        "refcount_add",
    ];
    const DROP: [&str; 22] = [
        "dput",
        "mntput",
        "iput",
        "fput",
        "fdput",
        "mmput",
        "mmdrop",
        "put_page",
        "put_task_struct",
        "put_cred",
        "put_pid",
        "put_net",
        "put_device",
        "put_filp",
        "kfree_skb",
        "consume_skb",
        "refcount_dec",
        "refcount_dec_and_test",
        "refcount_sub_and_test",
        "refcount_dec_and_lock",
        "module_put",
        "path_put",
    ];
    // Getting and putting values, not references.
    const VALUES: [&str; 14] = [
        "user",
        "unaligned",
        "nla",
        "seq",
        "cpu",
        "drvdata",
        "clientdata",
        "option",
        "bits",
        "be16",
        "be32",
        "be64",
        "le16",
        "le32",
    ];
    if TAKE.contains(&name) {
        return Some(Counting::Take);
    }
    if DROP.contains(&name) {
        return Some(Counting::Drop);
    }
    if parts(name).any(|part| VALUES.contains(&part)) {
        return None;
    }
    match parts(name).last() {
        Some("hold" | "grab") => Some(Counting::Take),
        Some("get") if parts(name).count() > 1 => Some(Counting::Take),
        Some("put") if parts(name).count() > 1 => Some(Counting::Drop),
        _ if name.ends_with("_get_unless_zero") || name == "try_module_get" => Some(Counting::Take),
        _ => None,
    }
}

/// How a function of the kernel, as objects call it, waits.
pub(super) fn waiting(name: &str) -> Option<Waiting> {
    const LOCKS: [&str; 12] = [
        "mutex_lock",
        "mutex_lock_interruptible",
        "mutex_lock_killable",
        "mutex_lock_nested",
        "down_read",
        "down_write",
        "down_read_killable",
        "down_write_killable",
        "rt_mutex_lock",
        "ww_mutex_lock",
        "lock_sock_nested",
        "__percpu_down_read",
    ];
    const TIMED: [&str; 10] = [
        "msleep",
        "msleep_interruptible",
        "usleep_range_state",
        "schedule_timeout",
        "schedule_timeout_interruptible",
        "schedule_timeout_killable",
        "schedule_timeout_uninterruptible",
        "schedule_hrtimeout_range",
        "schedule_hrtimeout",
        "io_schedule_timeout",
    ];
    const EVENTS: [&str; 33] = [
        "schedule",
        "io_schedule",
        "schedule_preempt_disabled",
        "prepare_to_wait",
        "prepare_to_wait_event",
        "prepare_to_wait_exclusive",
        "wait_woken",
        "do_wait_intr",
        "do_wait_intr_irq",
        "wait_for_completion",
        "wait_for_completion_io",
        "wait_for_completion_interruptible",
        "wait_for_completion_killable",
        "wait_for_completion_state",
        "wait_for_completion_timeout",
        "wait_for_completion_interruptible_timeout",
        "down",
        "down_interruptible",
        "down_killable",
        "__wait_on_bit",
        "out_of_line_wait_on_bit",
        "out_of_line_wait_on_bit_lock",
        "__wait_on_buffer",
        "folio_wait_bit",
        "folio_wait_bit_killable",
        "wait_on_page_bit",
        "__folio_lock",
        "synchronize_rcu",
        "synchronize_srcu",
        "synchronize_net",
        "rcu_barrier",
        "flush_work",
        "__flush_workqueue",
    ];
    match name {
        _ if EVENTS.contains(&name) => Some(Waiting::Event),
        _ if TIMED.contains(&name) => Some(Waiting::Timed),
        _ if LOCKS.contains(&name) => Some(Waiting::Lock),
        _ => None,
    }
}

/// Called by the main loop of a kernel thread, which never returns.
pub(super) fn asks_whether_to_stop(name: &str) -> bool {
    ["kthread_should_stop", "kthread_should_park", "kthread_freezable_should_stop"].contains(&name)
}

/// Functions that are on the stack of every sleeping task, or of one that never ends: no task leaves them.
pub(super) fn is_on_every_stack(name: &str) -> bool {
    [
        "__schedule",
        "schedule",
        "schedule_timeout",
        "schedule_preempt_disabled",
        "context_switch",
        "do_idle",
        "cpu_startup_entry",
        "kthread",
        "worker_thread",
        "ret_from_fork",
        "rcu_gp_kthread",
        "kthreadd",
        "smpboot_thread_fn",
        "kswapd",
        "kcompactd",
    ]
    .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_every_subsystem_are_known_by_their_parts() {
        for name in
            ["spin_lock_irqsave", "rcu_read_lock", "lock_sock", "mutex_trylock", "inode_lock", "down_read"]
        {
            assert_eq!(locking(name), Some(Locking::Acquire), "{name}");
        }
        for name in ["_raw_spin_unlock_irqrestore", "up", "release_sock", "rtnl_unlock"] {
            assert_eq!(locking(name), Some(Locking::Release), "{name}");
        }
        for name in
            ["clock_gettime", "blocked", "spin_lock_init", "lockdep_assert_held", "locks_free_lock", "update"]
        {
            assert_eq!(locking(name), None, "{name}");
        }
    }

    #[test]
    fn references_are_told_from_values() {
        for name in ["kref_get", "sock_hold", "dget", "kref_get_unless_zero", "try_module_get"] {
            assert_eq!(counting(name), Some(Counting::Take), "{name}");
        }
        for name in ["sock_put", "fput", "kfree_skb", "of_node_put"] {
            assert_eq!(counting(name), Some(Counting::Drop), "{name}");
        }
        for name in ["get_user", "nla_put", "seq_put", "get", "getname", "put_unaligned_le32"] {
            assert_eq!(counting(name), None, "{name}");
        }
    }
}
