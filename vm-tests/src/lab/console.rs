//! Reads a machine's kernel log for signs that a kernel has come to harm.

/// Beginnings of messages that no healthy run prints, searched anywhere in a line.
const SPLATS: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops:",
    "Oops ",
    "general protection fault",
    "Kernel panic",
    "kernel BUG at",
    "invalid opcode:",
    "stack segment:",
    "divide error:",
    "double fault:",
    "Call Trace:",
    "unable to handle",
    "list_add corruption",
    "list_del corruption",
    "refcount_t:",
    "suspicious RCU usage",
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
    "detected stalls on",
    "hung_task",
];

/// Lines of a kernel log that a healthy run does not have.
pub fn splats(log: &str) -> Vec<String> {
    log.lines().filter(|line| is_splat(line)).map(str::to_owned).collect()
}

fn is_splat(line: &str) -> bool {
    SPLATS.iter().any(|sign| line.contains(sign))
        || (line.contains("livepatch:") && (line.contains("fail") || line.contains("invalid")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_livepatch_is_a_splat_and_a_loaded_one_is_not() {
        let log = "[1.0] livepatch: 'fix': patching complete\n\
            [2.0] livepatch: symbol 'nothing' not found, failed to apply\n\
            [3.0] WARNING: CPU: 0 PID: 1 at kernel/fork.c:1\n";
        assert_eq!(splats(log).len(), 2);
    }
}
