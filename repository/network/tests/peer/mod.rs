//! The reference implementation of TUF, from PyPI, and a real static web server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(crate) mod environment;

use environment::environment;

const PACKAGE: &str = "tuf==7.0.1";

/// The interpreter of an environment that has the package.
pub(crate) fn python() -> PathBuf {
    environment(PACKAGE, &["securesystemslib[crypto]"], "import tuf.ngclient, cryptography")
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
