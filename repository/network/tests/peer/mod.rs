//! The reference implementation of TUF, from PyPI, and a real static web server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const PACKAGE: &str = "tuf==7.0.1";

#[expect(clippy::disallowed_methods, reason = "a test runs a peer")]
pub(crate) fn run(program: &Path, arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// The interpreter of an environment that has the package.
pub(crate) fn python() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE);
    let python = home.join("bin/python");
    // Tests run in processes of their own, at once.
    let lock = std::fs::File::create(home.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !run(Path::new("python3"), &["--version"]).0 {
        panic!("python3 is needed: apt-get install python3 python3-venv");
    }
    if !python.exists() || !run(&python, &["-c", "import tuf.ngclient, cryptography"]).0 {
        let (made, words) = run(Path::new("python3"), &["-m", "venv", "--clear", home.to_str().unwrap()]);
        assert!(made, "python3-venv is needed: {words}");
        let (installed, words) =
            run(&python, &["-m", "pip", "install", "--quiet", PACKAGE, "securesystemslib[crypto]"]);
        assert!(installed, "{words}");
    }
    python
}

/// `python3 -m http.server`, which knows no ranges.
pub(crate) struct WebServer(Child, pub(crate) String);

impl WebServer {
    #[expect(clippy::disallowed_methods, reason = "a test runs a peer")]
    pub(crate) fn new(directory: &Path) -> Self {
        let script = "import http.server, functools, sys\n\
            handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n\
            server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n\
            print(server.server_port, flush=True)\n\
            server.serve_forever()\n";
        let mut child = Command::new("python3")
            .args(["-c", script, directory.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut port).unwrap();
        Self(child, format!("http://127.0.0.1:{}", port.trim()))
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
