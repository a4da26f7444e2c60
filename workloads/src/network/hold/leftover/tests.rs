//! On the packet filter of the running kernel, in namespaces made for the test: as root, with `nft` and both variants
//! of iptables installed.

use nix::sched::{CloneFlags, unshare};

use super::*;
use system::command::CommandError;

/// Runs `work` in a network namespace of its own.
fn in_a_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own, as root");
        work()
    };
    std::thread::scope(|scope| {
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run(program: &str, words: &[&str]) -> Result<String, CommandError> {
    let output = Invocation::new(program).args(words).output()?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Runs a command that must be installed and succeed.
fn must(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    run(words[0], &words[1..]).unwrap_or_else(|error| panic!("{error}"))
}

fn connection() -> Connection {
    Connection { local: "10.0.0.2:80".parse().unwrap(), peer: "10.0.0.1:4000".parse().unwrap() }
}

/// What CRIU leaves behind.
fn lock(iptables: &str) {
    for rule in [
        "-N CRIU",
        "-A INPUT -j CRIU",
        "-A OUTPUT -j CRIU",
        "-A CRIU -m mark --mark 0xC114 -j ACCEPT",
        "-A CRIU -j DROP",
        "-A INPUT -p tcp -m mark ! --mark 0xC114 -s 10.0.0.1 --sport 4000 -d 10.0.0.2 --dport 80 -j DROP",
        "-A OUTPUT -p tcp -m mark ! --mark 0xC114 -s 10.0.0.2 --sport 80 -d 10.0.0.1 --dport 4000 -j DROP",
    ] {
        must(&format!("{iptables} {rule}"));
    }
}

#[test]
fn the_lock_goes_whichever_iptables_made_it() {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        in_a_namespace(|| {
            lock(iptables);
            let lock = remove(Scope::WholeNamespace(&[connection()])).unwrap();
            assert!(lock.removed >= 5, "{iptables}: {lock:?}");
            let left = must(&format!("{iptables} -S"));
            assert_eq!(left, "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n", "{iptables}");
            assert_eq!(remove(Scope::WholeNamespace(&[connection()])).unwrap().removed, 0, "{iptables}");
        });
    }
}

#[test]
fn in_a_namespace_of_others_only_the_rules_of_our_connections_go() {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        in_a_namespace(|| {
            lock(iptables);
            assert_eq!(remove(Scope::These(&[connection()])).unwrap().removed, 2, "{iptables}");
            let left = must(&format!("{iptables} -S"));
            assert!(left.contains("-A INPUT -j CRIU") && !left.contains("--sport"), "{left}");
        });
    }
}

#[test]
fn a_comment_with_a_line_feed_forges_no_rule() {
    for iptables in ["iptables-nft", "iptables-legacy"] {
        in_a_namespace(|| {
            lock(iptables);
            let forged =
                "x\n-A INPUT -s 10.9.9.9/32 -j CRIU\n-A INPUT -p icmp -m mark ! --mark 0xc114 -j DROP";
            let own = ["-A", "INPUT", "-p", "icmp", "-m", "comment", "--comment", forged, "-j", "ACCEPT"];
            run(iptables, &own).unwrap_or_else(|error| panic!("{error}"));
            let table = "add table inet CRIU-x";
            must(&format!("nft {table}"));
            remove(Scope::WholeNamespace(&[connection()])).unwrap();
            let left = must(&format!("{iptables} -S"));
            assert!(left.contains(forged), "{iptables}: its own rule stays: {left}");
            assert!(!left.contains("--sport") && !left.contains("-N CRIU"), "{iptables}: {left}");
            assert!(!must("nft list tables").contains("CRIU-x"));
        });
    }
}

#[test]
fn the_empty_table_that_asking_made_goes_too() {
    in_a_namespace(|| {
        lock("iptables-nft");
        remove(Scope::WholeNamespace(&[connection()])).unwrap();
        assert_eq!(must("nft list ruleset"), "");
    });
}
