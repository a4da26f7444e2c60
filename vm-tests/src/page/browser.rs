//! A headless Chromium, told what to do over a pair of pipes (Chrome DevTools Protocol).
//!
//! It believes the one authority of a fleet by its key, and no other more than it always does. What it complains of (a script that fails,
//! something that the page's policy does not let it do) is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::host::{find_program, program, run};

/// It is ended after so many seconds, whatever it does: nobody waits for it for ever.
const LIFE: &str = "600";

/// How long something on a page may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// See [the module](self).
pub(super) struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    number: u64,
    session: Option<String>,
    complaints: Vec<String>,
    base: String,
    directory: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// A browser with one page, for what is served at `base`; it believes the authority whose key has this digest, in base64.
    pub(super) fn start(base: &str, key: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let pipes = ["in", "out"].map(|name| directory.path().join(name));
        for pipe in &pipes {
            nix::unistd::mkfifo(pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        let chromium = find_program("chromium-headless-shell").context("no chromium-headless-shell")?;
        let child = program("timeout")
            .args(["--signal=KILL", LIFE, "sh", "-c", "exec \"$@\" 3<in 4>out", "sh"])
            .arg(chromium)
            .args(["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--user-data-dir=profile", "--window-size=1280,900"])
            .arg(format!("--ignore-certificate-errors-spki-list={key}"))
            .current_dir(directory.path())
            .env("HOME", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("log"))?)
            .spawn()?;
        let to = OpenOptions::new().write(true).open(&pipes[0])?;
        let from = BufReader::new(File::open(&pipes[1])?);
        let base = base.to_owned();
        let mut this =
            Self { child, to, from, number: 0, session: None, complaints: Vec::new(), base, directory };
        let page = this.tell("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = this.tell("Target.attachToTarget", attach)?;
        this.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            this.tell(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(this)
    }

    /// Tells it to do something; what came of it.
    pub(super) fn tell(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes)?;
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes)?;
            ensure!(bytes.pop() == Some(0), "the browser ended");
            let mut said: Value = serde_json::from_slice(&bytes)?;
            if said["id"] == self.number {
                ensure!(said["error"].is_null(), "{method}: {}", said["error"]);
                return Ok(said["result"].take());
            }
            self.hear(&said);
        }
    }

    fn hear(&mut self, said: &Value) {
        let parameters = &said["params"];
        match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(parameters["exceptionDetails"].to_string())
            }
            Some("Log.entryAdded") => {
                let entry = &parameters["entry"];
                // A page with a status that is no success is one of those that it is asked for.
                if entry["level"] == "error" && entry["source"] != "network" {
                    self.complaints.push(entry["text"].to_string());
                }
            }
            _ => {}
        }
    }

    /// Refuses whatever it has complained of so far.
    pub(super) fn content(&self) -> Result<()> {
        ensure!(self.complaints.is_empty(), "the browser complains: {:#?}", self.complaints);
        Ok(())
    }

    /// The value of an expression on the page.
    pub(super) fn value(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut told = self.tell("Runtime.evaluate", asked)?;
        ensure!(told["exceptionDetails"].is_null(), "{expression}: {}", told["exceptionDetails"]);
        Ok(told["result"]["value"].take())
    }

    /// Waits until an expression is true.
    pub(super) fn until(&mut self, expression: &str) -> Result<()> {
        let begun = Instant::now();
        while self.value(expression)? != true {
            if begun.elapsed() > PATIENCE {
                bail!("it is never so: {expression}; the page: {}", self.text()?);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Goes to a place of the page.
    pub(super) fn go(&mut self, path: &str) -> Result<()> {
        let url = format!("{}{path}", self.base);
        let gone = self.tell("Page.navigate", json!({"url": url}))?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        self.until("document.readyState === 'complete'")
    }

    /// Presses what a selector finds, and waits until that led to a page whose path begins so.
    pub(super) fn press(&mut self, selector: &str, leads_to: &str) -> Result<()> {
        let quoted = json!(selector);
        self.value(&format!("window.old = true; document.querySelector({quoted}).click()"))?;
        let place = json!(leads_to);
        self.until(&format!(
            "window.old !== true && document.readyState === 'complete' && location.pathname.startsWith({place})"
        ))
    }

    /// What people read on the page.
    pub(super) fn text(&mut self) -> Result<String> {
        Ok(self.value("document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// A window of this size, in the colours of this scheme.
    pub(super) fn is_like(&mut self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.tell("Emulation.setDeviceMetricsOverride", size)?;
        let colours = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.tell("Emulation.setEmulatedMedia", colours)?;
        Ok(())
    }

    /// Presses a key. One that says nothing (`text`) presses no button either.
    pub(super) fn key(&mut self, key: &str, code: u32, text: &str) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.tell("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Keeps what is seen, as a PNG.
    pub(super) fn picture(&mut self, path: &Path) -> Result<()> {
        let told = self.tell("Page.captureScreenshot", json!({"format": "png"}))?;
        let encoded = self.directory.path().join("picture");
        fs::write(&encoded, told["data"].as_str().context("no picture")?)?;
        fs::write(path, run(program("base64").arg("-d").arg(encoded))?)?;
        Ok(())
    }
}
