//! A PostgreSQL server of one test: Debian's, in a directory of its own, ended by its process id.

#![allow(dead_code, reason = "each test program takes what it needs")]
#![expect(clippy::disallowed_methods, reason = "a real server is started, waited for and ended in real time")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};
use tempfile::TempDir;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// Where Debian keeps the servers of each version.
const SERVERS: &str = "/usr/lib/postgresql";

/// The newest server's programs.
fn programs() -> PathBuf {
    let versions = fs::read_dir(SERVERS).into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        let bin = entry.path().join("bin");
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        (bin.join("initdb").exists() && bin.join("postgres").exists()).then_some((version, bin))
    });
    let newest = versions.max_by_key(|(version, _)| *version);
    newest.map(|(_, bin)| bin).unwrap_or_else(|| {
        panic!(
            "expected a PostgreSQL server in {SERVERS}, found none: install Debian's package `postgresql`, or run \
             `cargo run -p vm-tests -- test`, which installs what the tests need"
        )
    })
}

/// A program as somebody who is not root (a server refuses to be), which ends with the test that started it.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if geteuid().is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.arg("--").arg(program).current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn give_away(path: &Path) {
    if geteuid().is_root() {
        let user =
            User::from_name("postgres").unwrap().expect("the package `postgresql` makes the user postgres");
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A cluster that nobody has used, made once for all tests of this directory.
fn template(programs: &Path) -> PathBuf {
    let keep = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
    fs::create_dir_all(&keep).unwrap();
    let lock = fs::File::create(keep.join("lock")).unwrap();
    lock.lock().unwrap();
    let version = programs.parent().unwrap().file_name().unwrap();
    let template = keep.join(version);
    if !template.exists() {
        let fresh = tempfile::tempdir().unwrap();
        give_away(fresh.path());
        let data = fresh.path().join("data");
        let arguments = ["--username=update", "--auth=trust", "--no-locale", "--encoding=UTF8", "--no-sync"];
        succeeded(
            &unprivileged(&programs.join("initdb")).args(arguments).arg("-D").arg(&data).output().unwrap(),
        );
        let partial = keep.join("partial");
        let _ = fs::remove_dir_all(&partial);
        copy(&data, &partial);
        fs::rename(&partial, &template).unwrap();
    }
    template
}

/// With owners and modes.
fn copy(from: &Path, to: &Path) {
    succeeded(&Command::new("cp").arg("-a").arg(from).arg(to).output().unwrap());
}

/// A server.
pub(crate) struct Server {
    directory: TempDir,
    programs: PathBuf,
    process: Option<Child>,
    /// On loopback; for its socket, too.
    pub(crate) port: u16,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::SIGQUIT);
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        let server = Self::prepare();
        server.run()
    }

    /// With files in its directory and lines in its configuration.
    pub(crate) fn start_with(configure: impl FnOnce(&Path) -> String) -> Self {
        let server = Self::prepare();
        let more = configure(&server.data());
        server.configure(&more);
        server.run()
    }

    fn prepare() -> Self {
        let programs = programs();
        let template = template(&programs);
        let directory = tempfile::tempdir().unwrap();
        give_away(directory.path());
        copy(&template, &directory.path().join("data"));
        // Free a moment ago; nobody else listens on loopback here for long.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = Self { directory, programs, process: None, port, runtime };
        // Not synced: processes are killed here, machines are not.
        server.configure(
            "fsync = off\nshared_buffers = 16MB\nmax_connections = 40\nlisten_addresses = '127.0.0.1'\n",
        );
        server
    }

    /// Adds lines to its configuration; the last word counts.
    fn configure(&self, more: &str) {
        let path = self.data().join("postgresql.conf");
        fs::write(&path, fs::read_to_string(&path).unwrap() + more).unwrap();
    }

    fn run(mut self) -> Self {
        self.begin();
        self
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A file that the server may read, and nobody else.
    pub(crate) fn give(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        give_away(path);
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn begin(&mut self) {
        let log =
            fs::File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        let mut command = unprivileged(&self.programs.join("postgres"));
        command.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        command.arg("-p").arg(self.port.to_string());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while let Err(error) = self.try_sql("postgres", "SELECT 1") {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
            assert!(self.process.as_mut().unwrap().try_wait().unwrap().is_none(), "it ended: {log}");
            assert!(begun.elapsed() < Duration::from_secs(60), "no answer: {error}\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it: SIGINT in order, SIGQUIT at once.
    pub(crate) fn end(&mut self, how: Signal) {
        if let Some(mut process) = self.process.take() {
            kill(Pid::from_raw(process.id() as i32), how).unwrap();
            process.wait().unwrap();
        }
    }

    /// Another one with the files that this one has now; this one has to be ended.
    pub(crate) fn copy(&self) -> Self {
        assert!(self.process.is_none());
        let other = Self::prepare();
        fs::remove_dir_all(other.data()).unwrap();
        copy(&self.data(), &other.data());
        other.run()
    }

    /// Where its socket is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The part of an address that names it, by its socket.
    pub(crate) fn host(&self) -> String {
        format!("{}:{}", self.directory.path().display().to_string().replace('/', "%2F"), self.port)
    }

    /// The address of a database.
    pub(crate) fn address(&self, database: &str) -> String {
        format!("postgres://update@{}/{database}", self.host())
    }

    /// Makes a database; its address.
    pub(crate) fn make(&self, database: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {database}"));
        self.address(database)
    }

    /// Makes a schema whose sessions find another clock in front of the server's, which stands still; the address that leads into it. The clock is the
    /// one row of `SCHEMA.clock`.
    pub(crate) fn schema(&self, name: &str, now: jiff::Timestamp) -> String {
        let sql = "CREATE SCHEMA %; CREATE TABLE %.clock (now timestamptz); INSERT INTO %.clock VALUES ('@');
                   CREATE FUNCTION %.clock_timestamp() RETURNS timestamptz
                   LANGUAGE sql VOLATILE AS 'SELECT now FROM %.clock'";
        self.sql("postgres", &sql.replace('%', name).replace('@', &now.to_string()));
        self.address("postgres") + "?options=-csearch_path%3D" + name + ",pg_catalog"
    }

    /// As its superuser: the columns of all rows.
    pub(crate) fn sql(&self, database: &str, text: &str) -> Vec<Vec<String>> {
        self.try_sql(database, text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    fn try_sql(&self, database: &str, text: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host_path(self.directory.path()).port(self.port).user("update").dbname(database);
        self.runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            let connection = tokio::spawn(connection);
            let rows = client.simple_query(text).await?.into_iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|at| row.get(at).unwrap_or("").to_owned()).collect())
                }
                _ => None,
            });
            let rows = rows.collect();
            drop(client);
            let _ = connection.await;
            Ok(rows)
        })
    }
}
