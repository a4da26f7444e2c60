//! A controller that serves, within this process and with the limits that a test wants, and who asks it over loopback.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use controller::access::{self, Person, Role};
use controller::authority::Authority;
use controller::certificates::CertificateAuthority;
use controller::content::Content;
use controller::enrolment::{self, Terms};
use controller::server::limits::Limits;
use controller::server::repository::Repository;
use controller::server::{self, Controller, Listening, Settings};
use controller::store::{Memory, Store};
use fleet::protocol::{Certificate, Enrol, HostFacts, Message, Version, paths};
use manifests::{HostId, Nonce, Sha256, UtcTime};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use reqwest::StatusCode;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use system::clock::{Clock, SystemClock};

use super::scene::{origin, secret, trust};

/// A connection over which a test says byte by byte what it wants.
pub(crate) type Wire = StreamOwned<ClientConnection, TcpStream>;

pub(crate) struct Served {
    pub(crate) controller: Arc<Controller>,
    pub(crate) address: SocketAddr,
    pub(crate) runtime: tokio::runtime::Runtime,
    /// The token of somebody who may do everything.
    pub(crate) admin: String,
    ends: Option<tokio::sync::oneshot::Sender<()>>,
    serving: Option<tokio::task::JoinHandle<()>>,
    pub(crate) directory: tempfile::TempDir,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Vec<u8>,
}

impl Answered {
    pub(crate) fn words(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Served {
    pub(crate) fn new(limits: Limits) -> Self {
        let clock = Arc::new(SystemClock);
        Self::over(Arc::new(Memory::new(clock.clone())), clock, limits)
    }

    /// With a repository.
    pub(crate) fn with(repository: Repository) -> Self {
        let clock = Arc::new(SystemClock);
        Self::made(Arc::new(Memory::new(clock.clone())), clock, Limits::default(), Some(repository))
    }

    /// Over a store, with a clock.
    pub(crate) fn over(store: Arc<dyn Store>, clock: Arc<dyn Clock + Send + Sync>, limits: Limits) -> Self {
        Self::made(store, clock, limits, None)
    }

    fn made(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock + Send + Sync>,
        limits: Limits,
        repository: Option<Repository>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = UtcTime::floor(clock.now());
        let authority =
            Authority::take(store, clock.clone(), secret("controller"), origin(), "one".to_owned(), 0)
                .unwrap();
        let person = Person { name: "admin".parse().unwrap(), role: Role::Admin };
        let admin = access::admit(&authority, &person, None).unwrap();
        let certificates = CertificateAuthority::open(directory.path(), now).unwrap();
        let content = Content::open(directory.path().join("content"), None).unwrap();
        let settings = Settings {
            names: vec!["127.0.0.1".to_owned()],
            poll: 60,
            limits,
            checkpoint: None,
            repository,
            prometheus: None,
        };
        let controller =
            Arc::new(Controller::new(authority, certificates, content, Some(trust()), settings, clock));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (ends, end) = tokio::sync::oneshot::channel();
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = server::listen(any).unwrap();
        let listening = runtime.block_on(async { Listening::by(controller.clone(), listener) }).unwrap();
        let address = listening.address;
        let serving = runtime.spawn(listening.serve(async { drop(end.await) }));
        Self { controller, address, runtime, admin, ends: Some(ends), serving: Some(serving), directory }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// A client from an address of loopback, with a host's certificate or without.
    pub(crate) fn client(&self, from: &str, identity: Option<&str>) -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(self.controller.certificates.pem.as_bytes()).unwrap();
        let from: IpAddr = from.parse().unwrap();
        let mut builder = reqwest::Client::builder()
            .tls_certs_only([authority])
            .no_proxy()
            .local_address(from)
            .timeout(Duration::from_secs(60));
        if let Some(pem) = identity {
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }

    pub(crate) fn send(&self, request: reqwest::RequestBuilder) -> Result<Answered, reqwest::Error> {
        self.runtime.block_on(async {
            let response = request.send().await?;
            let status = response.status();
            let retry_after = response.headers().get("retry-after");
            let retry_after = retry_after.map(|value| value.to_str().unwrap().parse().unwrap());
            Ok(Answered { status, retry_after, body: response.bytes().await?.to_vec() })
        })
    }

    pub(crate) fn get(&self, client: &reqwest::Client, path: &str) -> Answered {
        self.send(client.get(self.url(path))).unwrap()
    }

    /// Asked by the administrator.
    pub(crate) fn admin(&self, path: &str) -> Answered {
        let client = self.client("127.0.0.9", None);
        self.send(client.get(self.url(path)).bearer_auth(&self.admin)).unwrap()
    }

    /// How often somebody was turned away, by the metrics that everybody sees.
    pub(crate) fn turned_away(&self, by: &str) -> u64 {
        let metrics = self.admin("/metrics").words();
        let line = format!("update_controller_turned_away_total{{by=\"{by}\"}} ");
        metrics.lines().find_map(|text| text.strip_prefix(&line)).map_or(0, |number| number.parse().unwrap())
    }

    /// A token that lets so many hosts in.
    pub(crate) fn token(&self, hosts: u32) -> Nonce {
        let terms = Terms {
            groups: vec!["fleet".parse().unwrap()],
            domain: "rack-1".parse().unwrap(),
            role: "db".parse().unwrap(),
            hosts,
            expires: "2126-12-01T00:00:00Z".parse().unwrap(),
        };
        enrolment::make(&self.controller.authority, &terms, &"admin".parse().unwrap()).unwrap()
    }

    /// A connection over TLS, with a host's key and certificate or without.
    pub(crate) fn wire(&self, identity: Option<&str>) -> Wire {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.controller.certificates.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(pem) => {
                let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let name = self.address.ip().into();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
    }

    /// Asks it to end.
    pub(crate) fn ask_to_end(&mut self) {
        drop(self.ends.take());
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(&mut self) {
        self.ask_to_end();
        if let Some(serving) = self.serving.take() {
            self.runtime.block_on(serving).unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

/// Everything that still comes over a connection, also over one on which nothing can be said any more.
pub(crate) fn rest(wire: &mut Wire) -> String {
    let _ = wire.flush();
    let mut bytes = Vec::new();
    while matches!(wire.conn.read_tls(&mut wire.sock), Ok(1..)) && wire.conn.process_new_packets().is_ok() {
        // There is no more at this moment, or ever.
        let _ = wire.conn.reader().read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Says something piece by piece, until nobody listens any more; how many pieces were said.
pub(crate) fn dribble(wire: &mut Wire, pieces: impl Iterator<Item = Vec<u8>>, every: Duration) -> usize {
    let mut said = 0;
    for piece in pieces {
        if wire.write_all(&piece).and_then(|()| wire.flush()).is_err() {
            break;
        }
        said += 1;
        SystemClock.sleep(every);
    }
    said
}

/// A host, from outside.
pub(crate) struct Machine {
    pub(crate) key: KeyPair,
    pub(crate) host: HostId,
    /// Key and certificate, once it came in.
    pub(crate) identity: String,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let host = HostId::new(Sha256::of(&rcgen::PublicKeyData::subject_public_key_info(&key)));
        Self { key, host, identity: String::new() }
    }

    pub(crate) fn request(&self) -> String {
        CertificateParams::default().serialize_request(&self.key).unwrap().pem().unwrap()
    }

    pub(crate) fn facts(&self) -> HostFacts {
        HostFacts::new("one".parse().unwrap(), "6.1.0-50-amd64".parse().unwrap(), "epyc".parse().unwrap())
    }

    /// Asks to come in, from an address.
    pub(crate) fn enrol(&mut self, served: &Served, from: &str, token: Nonce) -> Answered {
        let enrol = Enrol { version: Version, token, request: self.request(), facts: self.facts() };
        let body = serde_json::to_vec(&enrol).unwrap();
        let client = served.client(from, None);
        let answer = served.send(client.post(served.url(paths::ENROL)).body(body)).unwrap();
        if answer.status.is_success() {
            let certificate: Certificate = fleet::protocol::read(&answer.body).unwrap();
            self.identity = self.key.serialize_pem() + &certificate.chain;
        }
        answer
    }

    /// A host that came in.
    pub(crate) fn member(served: &Served) -> Self {
        let mut machine = Self::new();
        let token = served.token(1);
        assert!(machine.enrol(served, "127.0.0.8", token).status.is_success());
        machine
    }

    /// Asks something over a connection of its own.
    pub(crate) fn ask(&self, served: &Served, path: &str, body: impl Into<Vec<u8>>) -> Answered {
        let client = served.client("127.0.0.1", Some(&self.identity));
        served.send(client.post(served.url(path)).body(body.into())).unwrap()
    }

    /// Asks something that is a message; the answer that is one.
    pub(crate) fn say<A: Message>(
        &self,
        served: &Served,
        path: &str,
        message: &impl Message,
    ) -> Result<A, (StatusCode, String)> {
        let answer = self.ask(served, path, serde_json::to_vec(message).unwrap());
        match answer.status.is_success() {
            true => Ok(fleet::protocol::read(&answer.body).unwrap()),
            false => Err((answer.status, answer.words())),
        }
    }
}
