//! The alerts that come with the controller: Prometheus takes them, they are about what the controller tells, and they sound when they
//! should. Needs Debian's `promtool`.

#![expect(clippy::disallowed_methods, reason = "promtool is a real program")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::scene;
use common::served::Served;
use controller::server::limits::Limits;

fn rules() -> PathBuf {
    let file = "../dist/update-controller/usr/share/update-controller/alerts.yaml";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file).canonicalize().unwrap()
}

/// Where it is installed, or where the lab has unpacked it.
fn promtool() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("UPDATE_LAB_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("update-lab")))
        .or_else(|| Some(variable("HOME")?.join(".cache/update-lab")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(cache.map(|cache| cache.join("tools")));
    places.map(|place| place.join("promtool")).find(|program| program.is_file()).expect(
        "Debian's package `prometheus` is needed; `cargo run -p vm-tests -- test` unpacks it beside what is installed",
    )
}

fn judge(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(promtool()).args(arguments).output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&words).into_owned())
}

#[test]
fn prometheus_takes_the_alerts() {
    let (good, words) = judge(&["check", "rules", rules().to_str().unwrap()]);
    assert!(good && words.contains("10 rules found"), "{words}");
}

#[test]
fn alerts_are_about_what_the_controller_tells() {
    let served = Served::new(Limits::default());
    scene::enrol(&served.controller.authority, 0).unwrap();
    let (envelope, signed) = scene::document("manifest", scene::POLICY, 1);
    served.controller.authority.submit(&envelope, &signed, scene::POLICY, 1).unwrap();
    let told = served.admin("/metrics").words();
    assert!(
        told.contains("update_controller_hosts_silent 0")
            && told.contains("update_controller_hosts_cloned 0")
    );
    let stage = told.lines().find(|line| line.starts_with("update_controller_rollout_stage{")).unwrap();
    for label in ["name=\"fix\"", "version=\"1\"", "stage=\"", "cause=\"\"", "rollout=\""] {
        assert!(stage.contains(label), "{label}: {stage}");
    }
    let text = fs::read_to_string(rules()).unwrap();
    let letter = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !letter(c)).filter(|word| word.starts_with("update_controller_"));
    let asked: BTreeSet<&str> = words.collect();
    assert!(asked.len() >= 8, "{asked:?}");
    // A family of which nothing was counted yet is not told at all.
    let source = include_str!("../src/server/metrics.rs");
    let registered = source.split("registry.register(").skip(1);
    let registered: BTreeSet<String> = registered
        .map(|call| format!("update_controller_{}", call.split('"').nth(1).unwrap_or_default()))
        .collect();
    for metric in asked {
        assert!(registered.contains(metric.trim_end_matches("_total")), "{metric}: {registered:?}");
    }
}

/// Series by the minute, and which alerts sound at which.
const TRIALS: &str = r#"
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'update_controller_leads', values: '1 1 1 _ _ _ _ _ _'}
    alert_rule_test:
      - {eval_time: 2m, alertname: UpdateNobodyLeads}
      - {eval_time: 14m, alertname: UpdateNobodyLeads, exp_alerts: [{exp_labels: {severity: critical}, exp_annotations: {
          summary: 'No controller of the fleet leads, or none can be scraped',
          description: "No host begins anything, and no rollout goes on. Look at the controllers' journals and their database."}}]}
  - interval: 1m
    input_series:
      - {series: 'update_controller_rollout_stage{rollout="r", name="fix", version="2", stage="running", cause=""}', values: '1 1 _'}
      - {series: 'update_controller_rollout_stage{rollout="r", name="fix", version="2", stage="halted", cause="test"}', values: '_ _ 1 1'}
      - {series: 'update_controller_rollout_stage{rollout="o", name="fix", version="1", stage="paused", cause="operator"}', values: '1 1 1 1'}
    alert_rule_test:
      - {eval_time: 1m, alertname: UpdateRolloutHalted}
      - {eval_time: 3m, alertname: UpdateRolloutPausedByItself}
      - {eval_time: 3m, alertname: UpdateRolloutHalted, exp_alerts: [{
          exp_labels: {severity: critical, rollout: r, name: fix, version: '2', stage: halted, cause: test}, exp_annotations: {
          summary: 'The rollout of fix version 2 is halted',
          description: "Hosts were hurt. The rollout's page says where and how; on stuck hosts people have to look."}}]}
  - interval: 1m
    input_series:
      - {series: 'update_controller_rollout_hosts{rollout="r", state="bad"}', values: '2 2'}
      - {series: 'update_controller_rollout_hosts{rollout="o", state="bad"}', values: '1 1'}
      - {series: 'update_controller_rollout_stage{rollout="r", name="fix", version="2", stage="running", cause=""}', values: '1 1'}
      - {series: 'update_controller_rollout_stage{rollout="o", name="fix", version="1", stage="rolled-back", cause=""}', values: '1 1'}
    alert_rule_test:
      - {eval_time: 1m, alertname: UpdateHostsHurt, exp_alerts: [{exp_labels: {severity: warning, rollout: r}, exp_annotations: {
          summary: '2 host(s) of rollout r were hurt',
          description: 'Whether the rollout halts, its test says; each of these hosts is worth a look.'}}]}
  - interval: 1m
    input_series:
      - {series: 'update_controller_hosts', values: '100x60'}
      - {series: 'update_controller_hosts_silent', values: '5x20 6x40'}
    alert_rule_test:
      - {eval_time: 20m, alertname: UpdateHostsSilent}
      - {eval_time: 50m, alertname: UpdateHostsSilent, exp_alerts: [{exp_labels: {severity: warning}, exp_annotations: {
          summary: '6 host(s) were not heard of for a quarter of an hour',
          description: "More than a twentieth of the fleet. Is it them, their network, or the controller's address?"}}]}
"#;

#[test]
fn alerts_sound_when_they_should_and_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let trials = directory.path().join("trials.yaml");
    fs::write(&trials, format!("rule_files: ['{}']\n{TRIALS}", rules().display())).unwrap();
    let (good, words) = judge(&["test", "rules", trials.to_str().unwrap()]);
    assert!(good, "{words}");
}
