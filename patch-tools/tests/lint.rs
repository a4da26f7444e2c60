//! `patch-tools lint` with the stock kernel: what a reviewer is told of a fix.

mod support;

use serde_json::Value;
use support::fix::{self, Bench, KERNEL};

/// The findings of a topic as `risk subject: detail`.
fn found(report: &Value, topic: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["topic"] == topic).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = check["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|one| format!("{} {}: {}", text(&one["risk"]), text(&one["subject"]), text(&one["detail"])))
        .collect()
}

#[test]
fn a_fix_that_changes_a_living_structure_is_told_with_everything_it_leads_to() {
    let path = "fs/eventfd.c";
    let content = fix::edited(path, "\t__u64 count;\n", "\tu32 fresh;\n\t__u64 count;\n");
    let content = content.replacen("\tctx->count += n;\n", "\tctx->count += n;\n\tctx->fresh++;\n", 1);
    let content = content.replacen(
        "\twake_up_poll(&ctx->wqh, EPOLLHUP);\n",
        "\tkref_get(&ctx->kref);\n\tspin_lock_irq(&ctx->wqh.lock);\n\twake_up_poll(&ctx->wqh, EPOLLHUP);\n",
        1,
    );
    let bench = Bench::new();
    bench.put("fix.patch", fix::patch(path, &content));
    // The compiler, the differ and the kernel would take it.
    let report = bench.json(&["lint", "fix.patch", "--kernel", KERNEL], 3);
    assert_eq!((report["risk"].as_str(), report["livepatchable"].as_bool()), (Some("high"), Some(false)));

    let layout = found(&report, "data-layout");
    assert_eq!(
        layout,
        [
            "high struct eventfd_ctx: 56 bytes, was 48; count moves from byte 32 to byte 40; flags moves from byte 40 \
          to byte 48; fresh is new at byte 32; id moves from byte 44 to byte 52 (the running kernel's BTF has the \
          old layout)"
        ]
    );
    let exports = found(&report, "exports");
    assert!(exports.contains(&"low eventfd_ctx_put: is exported to modules".to_owned()), "{exports:?}");
    assert_eq!(found(&report, "locking"), ["high eventfd_release: adds spin_lock_irq()"]);
    assert_eq!(found(&report, "reference-counts"), ["medium eventfd_release: adds kref_get()"]);
    let stall = found(&report, "stall");
    let waits = "medium eventfd_read: may wait for an event, without a limit: eventfd_read -> schedule";
    assert!(stall.contains(&waits.to_owned()), "{stall:?}");
    // No line of it is in the patch, but the members that it uses have moved.
    let pulled_in = found(&report, "pulled-in");
    assert!(pulled_in.iter().any(|one| one.starts_with("low eventfd_read: ")), "{pulled_in:?}");
    assert!(!pulled_in.iter().any(|one| one.contains("eventfd_release")), "{pulled_in:?}");
    for check in report["checks"].as_array().unwrap() {
        let asks = check["question"].is_string();
        assert_eq!(asks, !check["findings"].as_array().unwrap().is_empty(), "{check}");
    }
}

#[test]
fn a_small_fix_is_a_low_risk_and_the_list_says_what_was_looked_at() {
    let path = "fs/proc/cmdline.c";
    let show = "static int cmdline_proc_show(struct seq_file *m, void *v)\n{\n";
    let content = fix::edited(path, show, &format!("static int shown;\n\n{show}\tshown++;\n"));
    let bench = Bench::new();
    bench.put("fix.patch", fix::patch(path, &content));
    let lint = ["lint", "fix.patch", "--kernel", KERNEL];
    let output = bench.run(&lint);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    for line in [
        "6.1.0-50-amd64: 1 function to replace in fs/proc/cmdline.c",
        "[x] data layout",
        "[ ] low    static data",
        "fs/proc/cmdline.c: shown: is new",
        "[x] locking",
        "[x] functions pulled in",
        "low risk; a livepatch can be built",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let limited = bench.run(&[&lint[..], &["--max-risk", "none"]].concat());
    assert_eq!(limited.status.code(), Some(3));
}

#[test]
fn changed_init_code_and_data_are_high_risks() {
    let path = "fs/proc/version.c";
    let content = fix::edited(
        path,
        "\treturn 0;\n}\nfs_initcall",
        "\tpr_info(\"again\\n\");\n\treturn 0;\n}\nfs_initcall",
    );
    let bench = Bench::new();
    bench.put("fix.patch", fix::patch(path, &content));
    let report = bench.json(&["lint", "fix.patch", "--kernel", KERNEL], 3);
    let init = found(&report, "init-code");
    assert!(init.iter().any(|one| one.starts_with("high proc_version_init: ")), "{init:?}");
    assert_eq!(report["livepatchable"], false);
}
