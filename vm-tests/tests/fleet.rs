//! A fleet of real machines: a controller on this host, two stock kernels whose hosts come in by a token, and manifests
//! that go through them in waves.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vm_tests::fixtures::livepatch::Livepatch;
use vm_tests::lab::Lab;
use vm_tests::lab::machine::Machine;
use vm_tests::publisher::{Draft, SIGNERS};
use vm_tests::stage::Stage;

/// Two hosts one after the other; each is watched for seconds.
const ROLLOUT: &str = "schema: 1
selector: {groups: [web]}
waves: {bake: 5s, start_over: 0s, largest: 100%}
caps: {fleet: 100%, domain: 100%}
";

/// By what guests reach this host.
const HOST: &str = "10.0.2.2";

struct Controller {
    directory: tempfile::TempDir,
    child: Child,
    program: PathBuf,
    port: u16,
    fingerprint: String,
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Controller {
    fn serve(program: &Path, grant: &Path, policy: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let home = directory.path().join("controller");
        fs::create_dir(&home)?;
        fs::copy(grant, home.join("grant.key"))?;
        fs::write(directory.path().join("policy.yaml"), policy)?;
        fs::write(directory.path().join("rollout.yaml"), ROLLOUT)?;
        let mut child = Command::new(program)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--name", "127.0.0.1", "--name", HOST])
            .args(["--poll", "2", "--policy", "policy.yaml", "--directory", "controller"])
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut first = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut first)?;
        let said: Value = serde_json::from_str(&first).with_context(|| first.clone())?;
        let address = said["listening"].as_str().context("no address")?;
        let port = address.rsplit(':').next().context("no port")?.parse()?;
        let fingerprint = said["ca_fingerprint"].as_str().context("no fingerprint")?.to_owned();
        Ok(Self { directory, child, program: program.to_owned(), port, fingerprint })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = Command::new(&self.program)
            .args(arguments)
            .args(["--as", "controller/admin.yaml"])
            .current_dir(self.directory.path())
            .output()?;
        println!(
            "-- update-controller {} ({})\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }

    fn json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = self.run(&[arguments, &["--json"]].concat())?;
        ensure!(output.status.success(), "{arguments:?} failed");
        String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Signs a draft, and hands it with its payloads to whoever starts a rollout: the name of its file.
    fn bring(&self, stage: &Stage, draft: &Draft, kernel: &str) -> Result<String> {
        for (from, name) in draft.payloads(&stage.props) {
            fs::copy(from, self.path(&name))?;
        }
        let envelope = stage.publisher.sign(&draft.yaml(&stage.props, kernel)?, &SIGNERS)?;
        let file = format!("{}.manifest.json", draft.name);
        fs::write(self.path(&file), envelope)?;
        Ok(file)
    }

    /// `update apply --fleet`.
    fn apply(&self, file: &str, key: &Path) -> Result<Option<i32>> {
        let key = key.to_str().context("a path")?;
        Ok(self.run(&["apply", file, "--policy", "rollout.yaml", "--key", key])?.status.code())
    }
}

fn livepatches(machine: &Machine) -> Result<String> {
    machine.sh("ls /sys/kernel/livepatch 2>/dev/null | xargs")
}

fn transactions(machine: &Machine) -> Result<usize> {
    Ok(machine.sh("update history --json")?.lines().count())
}

/// The agent's AppArmor profile is in force, and root itself gets at nothing else through it.
fn confined(machine: &Machine) -> Result<()> {
    let profile = machine.sh("cat /proc/$(pidof update-agent)/attr/current")?;
    ensure!(profile.trim() == "update-agent (enforce)", "{profile}");
    let asked =
        |prefix: &str| machine.sh(&format!("{prefix} update-agent --settings /etc/shadow run 2>&1; true"));
    let (free, confined) = (asked("")?, asked("aa-exec --profile=update-agent --")?);
    ensure!(
        !free.contains("Permission denied") && confined.contains("Permission denied"),
        "{free}\n{confined}"
    );
    Ok(())
}

#[test]
fn two_machines_come_in_by_a_token_and_take_a_manifest_in_waves_that_stop_and_go_back() -> Result<()> {
    let lab = Lab::for_test()?;
    let stage = Stage::set(&lab)?;
    let (operator, grant) = (stage.publisher.key("operator")?, stage.publisher.key("controller")?);
    let policy = stage.publisher.fleet_policy("operator", "controller")?;
    let controller = Controller::serve(&stage.product().controller, &grant, &policy)?;
    let machines = [stage.open(&lab)?.machine, stage.open(&lab)?.machine];
    let made = controller.json(&["token", "--group", "web", "--hosts", "2"])?;
    let token = made[0]["token"].as_str().context("no token")?;
    let (port, fingerprint) = (controller.port, &controller.fingerprint);
    let mut boots = Vec::new();
    for (number, machine) in machines.iter().enumerate() {
        machine.guest().write_file("/etc/update/policy.yaml", policy.as_bytes(), 0o644)?;
        stage.product().install_agent(machine.guest())?;
        machine.sh(&format!(
            "set -e; hostnamectl hostname web-{number} || hostname web-{number}
            systemctl start update-executor.socket
            update enrol https://{HOST}:{port} --token {token} --ca-fingerprint {fingerprint}
            systemctl start update-agent.service"
        ))?;
        boots.push(machine.sh("cat /proc/sys/kernel/random/boot_id")?);
    }
    ensure!(controller.json(&["hosts", "list"])?.len() == 2);
    let kernel = &machines[0].spec().kernel;

    // One manifest through both of them, one wave after the other.
    let fix = Draft {
        name: "pause-2026-001".to_owned(),
        livepatch: Some(Livepatch::Pause),
        library: None,
        ..Draft::fix()
    };
    let file = controller.bring(&stage, &fix, kernel)?;
    ensure!(controller.apply(&file, &operator)? == Some(0), "it should have completed");
    for machine in &machines {
        ensure!(livepatches(machine)? == "livepatch_pause");
        ensure!(transactions(machine)? == 1);
        let who = machine.sh("ps -o user= -C update-agent")?;
        ensure!(who.trim().starts_with("update"), "the agent runs as {who}");
        confined(machine)?;
    }

    // One that fails on the first host that takes it: the other never begins.
    let file = controller.bring(&stage, &Draft::broken(), kernel)?;
    let halted = controller.apply(&file, &operator)?;
    for machine in &machines {
        println!(
            "{}",
            machine.sh(
                "update history; update show; journalctl --no-pager -b -u update-executor -u update-agent"
            )?
        );
    }
    ensure!(halted == Some(1), "it should have halted");
    let begun: Vec<usize> = machines.iter().map(transactions).collect::<Result<_>>()?;
    ensure!(begun.iter().sum::<usize>() == 3, "one host alone began it: {begun:?}");
    for machine in &machines {
        ensure!(livepatches(machine)? == "livepatch_pause", "it went back by itself");
    }

    // Hosts go back because people say so.
    let first = controller.json(&["rollout", "status"])?;
    let completed = first.iter().find(|rollout| rollout["stage"] == "completed").context("none completed")?;
    let rollout = completed["rollout"].as_str().context("no digest")?;
    ensure!(controller.run(&["rollout", "rollback", rollout])?.status.success());
    ensure!(controller.run(&["rollout", "watch", rollout])?.status.code() == Some(1));
    for machine in &machines {
        ensure!(livepatches(machine)?.is_empty(), "every host is back");
        machine.sh("update status")?;
    }
    let told = controller.json(&["rollout", "explain", rollout, "web-0"])?;
    ensure!(told[0]["explanation"]["lines"].to_string().contains("told to go back"));

    // Nobody rebooted, and no kernel complained.
    for (machine, boot) in machines.iter().zip(boots) {
        ensure!(machine.sh("cat /proc/sys/kernel/random/boot_id")? == boot);
        ensure!(machine.splats()?.is_empty(), "{:?}", machine.splats()?);
    }
    Ok(())
}
