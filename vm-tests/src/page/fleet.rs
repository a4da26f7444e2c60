//! A fleet for a browser to look at: the controller as it is built, and hosts that speak its protocol by `curl`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::host::{built, program, run};
use crate::product::Product;

/// Hosts one after the other, each watched for an hour.
const ROLLOUT: &str = "{schema: 1, selector: {groups: [web]}, waves: {bake: 1h, start_over: 0s, largest: 100%}, \
                       caps: {fleet: 100%, domain: 100%}}\n";

/// A manifest to practise with, as docs/fleet.md has it.
const MANIFEST: &str = r#"
echo 'a fixed library' >libtrial.so.1
tar -cf trial.tar libtrial.so.1
cat >trial.yaml <<END
schema: 1
name: trial
version: 1
issued: $(date -u +%Y-%m-%dT%H:%M:%SZ)
expires: $(date -u -d '30 days' +%Y-%m-%dT%H:%M:%SZ)
severity: low
summary: A manifest to practise with
targets: {arch: [x86_64]}
components:
  - kind: layer
    payload: {file: trial.tar, sha256: $(sha256sum <trial.tar | cut -d ' ' -f 1), size: $(stat -c %s trial.tar)}
    format: tar
    replaces:
      - {path: /usr/lib/libtrial.so.1, sha256: $(echo 'a broken library' | sha256sum | cut -d ' ' -f 1)}
END
"#;

/// See [the module](self).
pub(super) struct Fleet {
    directory: TempDir,
    child: Child,
    product: Product,
    /// Where it is.
    pub(super) address: String,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fleet {
    /// A controller that serves, and an operator's key.
    pub(super) fn serve(product: &Product) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = directory.path();
        run(built(&product.update).args(["key", "generate", "--out", "operator"]).current_dir(at))?;
        let mut child = built(&product.controller)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--name", "127.0.0.1", "--poll", "1"])
            .args(["--directory", "fleet", "--operator", "operator.pub"])
            .current_dir(at)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut first = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut first)?;
        let said: Value = serde_json::from_str(&first).with_context(|| first.clone())?;
        let address = format!("https://{}", said["listening"].as_str().context("no address")?);
        Ok(Self { directory, child, product: product.clone(), address })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command of people, as the administrator; what it says in JSON.
    pub(super) fn people(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut command = built(&self.product.controller);
        command
            .args(arguments)
            .args(["--json", "--as", "fleet/admin.yaml"])
            .current_dir(self.directory.path());
        let said = String::from_utf8(run(&mut command)?)?;
        said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// The token of somebody new in this role.
    pub(super) fn somebody(&self, role: &str) -> Result<String> {
        let out = format!("{role}.yaml");
        self.people(&["person", role, "--role", role, "--out", &out])?;
        let account = fs::read_to_string(self.path(&out))?;
        let token = account.lines().find_map(|line| line.strip_prefix("token: ")).context("no token")?;
        Ok(token.trim_matches('\'').to_owned())
    }

    /// The digest of its authority's key, as a browser wants it.
    pub(super) fn key(&self) -> Result<String> {
        let line = "openssl x509 -in fleet/ca.pem -pubkey -noout | openssl pkey -pubin -outform der | \
                    openssl dgst -sha256 -binary | base64";
        let said = run(program("sh").args(["-ec", line]).current_dir(self.directory.path()))?;
        Ok(String::from_utf8(said)?.trim().to_owned())
    }

    /// Hands a rollout in.
    pub(super) fn rollout(&self) -> Result<String> {
        let at = self.directory.path();
        run(program("sh").args(["-ec", MANIFEST]).current_dir(at))?;
        let sign = ["sign", "trial.yaml", "--type", "manifest", "--key", "operator.key"];
        run(built(&self.product.patch_tools).args(sign).current_dir(at))?;
        fs::write(at.join("rollout.yaml"), ROLLOUT)?;
        let start =
            ["rollout", "start", "trial.manifest.json", "--policy", "rollout.yaml", "--key", "operator.key"];
        let said = self.people(&start)?;
        let rollout = said.last().and_then(|said| said["rollout"].as_str());
        Ok(rollout.context("no rollout")?.to_owned())
    }

    /// A host that comes in under this name.
    pub(super) fn host(&self, name: &str) -> Result<Host<'_>> {
        let made = self.people(&["token", "--group", "web"])?;
        let number = fs::read_dir(self.directory.path())?.count();
        let directory = self.path(&format!("host-{number}"));
        fs::create_dir(&directory)?;
        let line = "openssl genpkey -algorithm ed25519 -out key.pem && openssl req -new -key key.pem -subj / -out request.pem";
        run(program("sh").args(["-ec", line]).current_dir(&directory))?;
        let host = Host { fleet: self, directory, reports: 0 };
        let facts = json!({"name": name, "kernel": "6.1.0-56-amd64", "cpu": "epyc", "services": []});
        let request = fs::read_to_string(host.directory.join("request.pem"))?;
        let enrol = json!({"version": 1, "token": made[0]["token"], "request": request, "facts": facts});
        let certificate = host.ask("/v1/enrol", &enrol)?;
        fs::write(host.directory.join("chain.pem"), certificate["chain"].as_str().context("no chain")?)?;
        Ok(host)
    }
}

/// A host, as the controller hears it.
pub(super) struct Host<'f> {
    fleet: &'f Fleet,
    directory: PathBuf,
    reports: u64,
}

impl Host<'_> {
    fn ask(&self, path: &str, message: &Value) -> Result<Value> {
        fs::write(self.directory.join("message"), serde_json::to_vec(message)?)?;
        let mut curl = program("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--cacert"])
            .arg(self.fleet.path("fleet/ca.pem"));
        if self.directory.join("chain.pem").exists() {
            curl.args(["--cert", "chain.pem", "--key", "key.pem"]);
        }
        let said = run(curl
            .args(["--data-binary", "@message"])
            .arg(format!("{}{path}", self.fleet.address))
            .current_dir(&self.directory))?;
        Ok(serde_json::from_slice(&said)?)
    }

    /// Whether something is offered to it now.
    pub(super) fn poll(&self) -> Result<bool> {
        let poll = json!({"version": 1, "boot": "07".repeat(16), "epoch": 0});
        let hint = self.ask("/v1/poll", &poll)?;
        Ok(hint["offers"].as_array().is_some_and(|offers| !offers.is_empty()))
    }

    /// Says something of an attempt.
    fn say(&mut self, rollout: &str, nonce: Option<&str>, said: Value) -> Result<()> {
        self.reports += 1;
        let mut attempt = json!({"rollout": rollout, "said": said});
        if let Some(nonce) = nonce {
            attempt["nonce"] = json!(nonce);
        }
        let report = json!({"version": 1, "number": self.reports, "attempts": [attempt]});
        let heard = self.ask("/v1/report", &report)?;
        ensure!(heard["news"] == json!([true]), "{heard}");
        Ok(())
    }

    /// Begins what it is offered.
    pub(super) fn begin(&mut self, rollout: &str) -> Result<()> {
        self.say(rollout, None, json!({"said": "ready"}))?;
        let nonce = "09".repeat(16);
        let begin = json!({"version": 1, "rollout": rollout, "action": "apply", "nonce": nonce, "epoch": 0});
        let answer = self.ask("/v1/begin", &begin)?;
        ensure!(answer["answer"] == "granted", "{answer}");
        Ok(())
    }

    /// Is hurt by what it began.
    pub(super) fn is_hurt(&mut self, rollout: &str) -> Result<()> {
        let nonce = "09".repeat(16);
        self.say(rollout, Some(&nonce), json!({"said": "hurt", "fault": "splat"}))
    }
}

/// Waits until one of these hosts is offered something; which.
pub(super) fn offered(hosts: &[Host<'_>]) -> Result<usize> {
    for _ in 0..300 {
        for (number, host) in hosts.iter().enumerate() {
            if host.poll()? {
                return Ok(number);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    anyhow::bail!("nothing is offered to any host")
}

/// Where pictures are kept, if somebody wants them.
pub(super) fn pictures() -> Option<PathBuf> {
    std::env::var_os("UPDATE_PICTURES").map(|directory| Path::new(&directory).to_owned())
}
