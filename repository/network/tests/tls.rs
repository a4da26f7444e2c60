//! TLS and proxies: whom the transport believes to be the server that was asked for, and what it does for whom it does
//! not. Real servers on loopback, with certificates that `openssl` makes here.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use repository::transport::{FetchError, Transport as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use system::clock::{Clock as _, SystemClock};
use update_transport::{Http, Options};
use url::Url;

/// A name that only the proxies here can resolve.
const NAME: &str = "updates.example.org";

/// Long enough for a busy machine, and never reached.
const PATIENT: Duration = Duration::from_secs(60);

/// Days from today, from when and until when a certificate holds.
const TODAY: (i64, i64) = (-1, 30);

/// An authority, and the certificates that it gives.
struct Authority {
    files: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        Self::called("authority")
    }

    fn called(name: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let settings = "[ca]\ndefault_ca = all\n[all]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\n\
            default_md = sha256\npolicy = any\ncopy_extensions = copy\nunique_subject = no\n\
            [any]\ncommonName = supplied\n[req]\ndistinguished_name = name\n[name]\n";
        fs::write(files.path().join("settings"), settings).unwrap();
        fs::write(files.path().join("index"), "").unwrap();
        let authority = Self { files };
        authority.openssl(&format!(
            "req -x509 -config settings -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
             -subj /CN={name} -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem"
        ));
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "a test runs a peer")]
    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.files.path())
            .output()
            .unwrap_or_else(|error| panic!("openssl is needed: {error}"));
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// What a server needs to be `names`, in some days.
    fn server(&self, names: &str, (from, until): (i64, i64)) -> Arc<ServerConfig> {
        let day = |days: i64| {
            let at = SystemClock.now() + jiff::SignedDuration::from_hours(24 * days);
            at.strftime("%Y%m%d%H%M%SZ").to_string()
        };
        self.openssl(&format!(
            "req -new -config settings -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server \
             -addext subjectAltName={names} -keyout server.key -out server.csr"
        ));
        self.openssl(&format!(
            "ca -batch -notext -config settings -cert ca.pem -keyfile ca.key -in server.csr -out server.pem \
             -startdate {} -enddate {}",
            day(from),
            day(until)
        ));
        let certificate = CertificateDer::from_pem_file(self.path("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Arc::new(config)
    }
}

/// A listener on loopback whose every connection is served by `serve`, each in a thread.
fn listen(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            // Who was asked may be refused at any moment, and the other side then hangs up.
            std::thread::spawn(move || drop(serve(stream)));
        }
    });
    address
}

/// The lines of a request's head.
fn head(from: &mut dyn Read) -> io::Result<Vec<String>> {
    let lines = BufReader::with_capacity(1, from).lines();
    lines.take_while(|line| line.as_ref().map_or(true, |line| !line.is_empty())).collect()
}

/// A server of one answer, whatever is asked for.
fn https(config: Arc<ServerConfig>, answer: &str) -> SocketAddr {
    let answer = answer.to_owned();
    listen(move |stream| {
        let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, stream);
        head(&mut tls)?;
        tls.write_all(answer.as_bytes())?;
        tls.conn.send_close_notify();
        tls.flush()
    })
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

fn options(authorities: &Authority) -> Options {
    Options { silence: PATIENT, proxy: None, authorities: Some(authorities.path("ca.pem")) }
}

/// What is fetched, or why nothing is, with all causes.
fn fetch(options: &Options, url: &str) -> Result<String, String> {
    let url: Url = url.parse().unwrap();
    let words = |error: &(dyn std::error::Error + 'static)| {
        system::error::causes(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
    };
    let body = Http::new(options).unwrap().open(&url, 0).map_err(|error| words(&error))?;
    let mut text = String::new();
    body.expect("it is there").bytes.read_to_string(&mut text).map_err(|error| words(&error))?;
    Ok(text)
}

/// The same by the program that hosts run; its frames, as text.
#[expect(clippy::disallowed_methods, reason = "a test runs the program")]
fn by_the_program(options: &Options, url: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_update-transport"));
    command.arg("--silence").arg(options.silence.as_secs().to_string());
    if let Some(path) = &options.authorities {
        command.arg("--authorities").arg(path);
    }
    command.env_clear().envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("0 {url}\n").as_bytes()).unwrap();
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

#[test]
fn a_server_of_the_right_authority_is_believed_by_name_and_by_address() {
    let authority = Authority::new();
    let server = https(authority.server("DNS:localhost,IP:127.0.0.1", TODAY), HELLO);
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/x", server.port());
        assert_eq!(fetch(&options(&authority), &url).unwrap(), "hello", "{host}");
    }
    let said = by_the_program(&options(&authority), &format!("https://localhost:{}/x", server.port()), &[]);
    assert!(said.contains("hello"), "{said:?}");
}

#[test]
fn a_server_that_is_not_the_one_that_was_asked_for_is_told_by_what_is_wrong_with_it() {
    let (authority, other, namesake) = (Authority::new(), Authority::called("other"), Authority::new());
    let localhost = "DNS:localhost";
    // What the certificate is, who is believed, and what is said of it.
    let lies: [(&str, Arc<ServerConfig>, Option<&Authority>, &str); 6] = [
        (
            "of an authority of the same name",
            namesake.server(localhost, TODAY),
            Some(&authority),
            "that is believed here",
        ),
        ("of another authority", other.server(localhost, TODAY), Some(&authority), "that is believed here"),
        (
            "of an authority that the system does not know",
            authority.server(localhost, TODAY),
            None,
            "UnknownIssuer",
        ),
        ("expired", authority.server(localhost, (-30, -1)), Some(&authority), "expired"),
        ("not valid yet", authority.server(localhost, (1, 30)), Some(&authority), "not valid yet"),
        (
            "of another name",
            authority.server("DNS:mirror.example.org", TODAY),
            Some(&authority),
            "not valid for name",
        ),
    ];
    for (lie, config, believed, word) in lies {
        let server = https(config, HELLO);
        let url = format!("https://localhost:{}/x", server.port());
        let mut options = options(&authority);
        options.authorities = believed.map(|authority| authority.path("ca.pem"));
        let words = fetch(&options, &url).expect_err(lie);
        assert!(
            words.contains(&url) && words.contains("certificate") && words.contains(word),
            "{lie}: {words}"
        );
        let said = by_the_program(&options, &url, &[]);
        assert!(said.starts_with('f') && said.contains(word), "{lie}, by the program: {said:?}");
    }
}

#[test]
fn authorities_that_are_none_are_refused_and_not_replaced_by_the_systems() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let new = |path: &Path| {
        Http::new(&Options { silence: PATIENT, proxy: None, authorities: Some(path.to_owned()) }).map(drop)
    };
    assert_eq!(new(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    for text in ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", "words"] {
        fs::write(&path, text).unwrap();
        let refused = new(&path);
        assert!(refused.is_err(), "{text:?} was taken as a list of authorities");
    }
}

/// A proxy that leads every `CONNECT` to `server`; what it was asked for is kept.
fn proxy(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    let address = listen(move |mut stream| {
        let first = head(&mut stream)?.into_iter().next().unwrap_or_default();
        log.lock().unwrap().push(first.clone());
        if !first.starts_with("CONNECT ") {
            return stream.write_all(HELLO.as_bytes());
        }
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
        let upstream = TcpStream::connect(server)?;
        let (mut there, mut back) = ((stream.try_clone()?, upstream.try_clone()?), (upstream, stream));
        std::thread::spawn(move || {
            let _ = io::copy(&mut there.0, &mut there.1);
            there.1.shutdown(Shutdown::Write)
        });
        io::copy(&mut back.0, &mut back.1)?;
        back.1.shutdown(Shutdown::Write)
    });
    (address, asked)
}

#[test]
fn a_proxy_is_asked_for_a_tunnel_and_believed_as_little_as_any_other_on_the_way() {
    let authority = Authority::new();
    let server = https(authority.server(&format!("DNS:{NAME}"), TODAY), HELLO);
    let (address, asked) = proxy(server);
    let with = |authority: &Authority| Options {
        proxy: Some(format!("http://{address}").parse().unwrap()),
        ..options(authority)
    };
    // The name is the proxy's to resolve: nobody else knows it.
    let url = format!("https://{NAME}/x");
    assert_eq!(fetch(&with(&authority), &url).unwrap(), "hello");
    assert_eq!(*asked.lock().unwrap(), [format!("CONNECT {NAME}:443 HTTP/1.1")]);
    let words = fetch(&with(&Authority::new()), &url).unwrap_err();
    assert!(words.contains("that is believed here"), "{words}");
    // Plain HTTP goes through it, too.
    assert_eq!(fetch(&with(&authority), &format!("http://{NAME}/x")).unwrap(), "hello");
    assert_eq!(asked.lock().unwrap().last().unwrap(), &format!("GET http://{NAME}/x HTTP/1.1"));
}

#[test]
fn a_proxy_that_refuses_is_told_and_nobody_goes_around_it() {
    let authority = Authority::new();
    let reached: Arc<Mutex<usize>> = Arc::default();
    let count = reached.clone();
    let server = listen(move |_| {
        *count.lock().unwrap() += 1;
        Ok(())
    });
    let refuses = listen(|mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (proxy, word) in [(refuses, "proxy"), (closed, "refused")] {
        let options =
            Options { proxy: Some(format!("http://{proxy}").parse().unwrap()), ..options(&authority) };
        let words = fetch(&options, &format!("https://{server}/x")).unwrap_err();
        assert!(words.contains(word), "{words}");
    }
    assert_eq!(*reached.lock().unwrap(), 0);
}

#[test]
fn the_environments_proxy_is_not_asked() {
    let authority = Authority::new();
    let server = https(authority.server("DNS:localhost", TODAY), HELLO);
    let (address, asked) = proxy(server);
    let proxy = format!("http://{address}");
    let environment = ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let environment = environment.map(|name| (name, proxy.as_str()));
    let url = format!("https://localhost:{}/x", server.port());
    let said = by_the_program(&options(&authority), &url, &environment);
    assert!(said.contains("hello"), "{said:?}");
    assert_eq!(*asked.lock().unwrap(), [""; 0]);
}

#[test]
fn a_redirect_that_takes_tls_away_or_leads_elsewhere_is_refused() {
    let authority = Authority::new();
    let config = authority.server("DNS:localhost", TODAY);
    let reached: Arc<Mutex<usize>> = Arc::default();
    let count = reached.clone();
    let plain = listen(move |mut stream| {
        *count.lock().unwrap() += 1;
        stream.write_all(HELLO.as_bytes())
    });
    let elsewhere = https(config.clone(), HELLO);
    for to in [
        format!("http://localhost:{}/x", plain.port()),
        "http://localhost/x".to_owned(),
        format!("https://localhost:{}/x", elsewhere.port()),
    ] {
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        let server = https(config.clone(), &answer);
        let url = format!("https://localhost:{}/x", server.port()).parse().unwrap();
        match Http::new(&options(&authority)).unwrap().open(&url, 0) {
            Err(FetchError::Elsewhere { to: told, .. }) => assert_eq!(told, to),
            other => panic!("{to}: {other:?}"),
        }
    }
    assert_eq!(*reached.lock().unwrap(), 0, "nobody went there");
}

#[test]
fn a_handshake_that_is_silent_or_comes_by_the_byte_is_given_up_in_time() {
    let authority = Authority::new();
    let silent = listen(|mut stream| io::copy(&mut stream, &mut io::sink()).map(drop));
    // The head of a record of 16 KiB, and then as slowly as a patient liar likes.
    let drips = listen(|mut stream| {
        stream.write_all(&[0x16, 3, 3, 0x40, 0])?;
        loop {
            stream.write_all(&[2])?;
            SystemClock.sleep(Duration::from_millis(100));
        }
    });
    for (lie, server) in [("silent", silent), ("slow", drips)] {
        let options = Options { silence: Duration::from_secs(1), ..options(&authority) };
        let begun = SystemClock.elapsed();
        let words = fetch(&options, &format!("https://localhost:{}/x", server.port())).expect_err(lie);
        let lasted = SystemClock.elapsed() - begun;
        assert!(lasted < Duration::from_secs(20), "{lie}: {lasted:?}");
        assert!(["does not answer", "timed out"].iter().any(|word| words.contains(word)), "{lie}: {words}");
    }
}

#[test]
fn a_body_whose_end_somebody_else_made_is_not_whole() {
    let authority = Authority::new();
    let config = authority.server("DNS:localhost", TODAY);
    // Neither a length nor TLS's own end: whoever is on the way can cut there.
    let server = listen(move |stream| {
        let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, stream);
        head(&mut tls)?;
        tls.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhel")?;
        tls.flush()?;
        tls.sock.shutdown(Shutdown::Both)
    });
    let words = fetch(&options(&authority), &format!("https://localhost:{}/x", server.port())).unwrap_err();
    assert!(words.contains("close_notify"), "{words}");
}
