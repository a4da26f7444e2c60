//! `update-controller serve`.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifests::{DocumentKind, KeyName, LedgerHead, Policy, PublicKey, SecretKey, Sha256, UtcTime};
use system::clock::{Clock as _, SystemClock};
use system::durable;
use system::exit::{Exit, Failure};
use system::output::{line, object};
use tokio::signal::unix::{SignalKind, signal};

use super::store::{StoreArgs, failed};
use super::{Global, first_start};
use crate::access::{self, Person, Role};
use crate::authority::{Authority, Denied};
use crate::certificates::CertificateAuthority;
use crate::client::Account;
use crate::content::Content;
use crate::identity::Identity;
use crate::ledger::{Finding, Origin, audit, checkpoint};
use crate::prometheus::{Asking, PATIENCE, Prometheus};
use crate::server::limits::{ADDRESS_RATE, Limits, Rate};
use crate::server::repository::Repository;
use crate::server::{self, Controller, Listening, ServeError, Settings};
use crate::store::Store;

/// Serve hosts and people
///
/// The first start makes everything in the directory: the store, the fleet's certificate authority, the key that signs
/// grants, the account of an administrator, and with --operator a policy; at a terminal it says how the first hosts come in. Of several controllers on one database one leads; the others wait, and say who does.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update-controller serve --name fleet.example.org --operator operator.pub\n  update-controller serve --directory /var/lib/update-controller --name fleet.example.org --policy policy.yaml\n  \
                  update-controller serve --database postgres://update@db.example.org/fleet --database-password /etc/update/database \
                  --name two.example.org --policy policy.yaml"
)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Listen here
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7443")]
    listen: SocketAddr,
    /// A name or an address by which hosts reach this controller (may be repeated)
    #[arg(long = "name", value_name = "NAME", default_value = "localhost")]
    names: Vec<String>,
    /// The policy that hosts have: by it, too, rollouts and orders are verified
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Without a policy: make one (policy.yaml in the directory) in which this public key signs all that changes hosts
    #[arg(long, value_name = "FILE", conflicts_with = "policy")]
    operator: Option<PathBuf>,
    /// Hosts with nothing to do ask again after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    poll: u32,
    /// Serve the repository that `update repo publish` writes into this directory: https://NAME:PORT/repository/
    #[arg(long, value_name = "DIRECTORY")]
    repository: Option<PathBuf>,
    #[command(flatten)]
    metrics: Metrics,
    /// So many requests a second are answered that come from one address; hosts behind one gateway share it
    #[arg(long, value_name = "N", default_value_t = ADDRESS_RATE)]
    address_rate: NonZeroU32,
}

/// Who answers the health queries of policies
#[derive(Debug, clap::Args)]
struct Metrics {
    /// Ask this Prometheus what policies' health queries want to know: https, or http on this machine
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// Show it the token in this file, which is read anew for each question
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    prometheus_token: Option<PathBuf>,
    /// Believe the authorities of this file (PEM) that it is the one, and no others; without, those of the system
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    prometheus_authorities: Option<PathBuf>,
    /// The label of its series that names a host: by its name, with or without a port, or by its id
    #[arg(long, value_name = "LABEL", default_value = "instance", requires = "prometheus")]
    prometheus_label: String,
}

impl Metrics {
    fn open(&self) -> Result<Option<Prometheus>, Failure> {
        let Some(address) = &self.prometheus else { return Ok(None) };
        let asking = Asking {
            address: address.clone(),
            token: self.prometheus_token.clone(),
            authorities: self.prometheus_authorities.clone(),
            label: self.prometheus_label.clone(),
            patience: PATIENCE,
        };
        let prometheus = Prometheus::new(&asking).map_err(|error| {
            Failure::new(Exit::Usage, error).next("see docs/controller.md, \"Health queries\"")
        })?;
        Ok(Some(prometheus))
    }
}

/// The controller's directory.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::new(Exit::Refused, unusable(path, error));
        durable::make_directory(path).map_err(failed)?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.join("controller.sqlite")
    }

    /// The key that signs grants and checkpoints, made if there is none.
    pub(super) fn key(&self) -> Result<SecretKey, Failure> {
        let path = self.0.join("grant.key");
        let failed = |error| Failure::new(Exit::Refused, unusable(&path, error));
        match std::fs::read_to_string(&path) {
            Ok(text) => SecretKey::from_pem(&text).map_err(|error| Failure::new(Exit::Refused, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = SecretKey::generate().map_err(|error| failed(std::io::Error::other(error)))?;
                durable::replace(&path, key.to_pem().as_bytes()).map_err(failed)?;
                Ok(key)
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn origin(&self) -> Result<Origin, Failure> {
        let path = self.0.join("ledger.name");
        let failed = |error| Failure::new(Exit::Refused, unusable(&path, error));
        let name = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Its own for each fleet, so that no two ledgers are taken for one another.
                let name = format!("update/{}", self.key()?.public().id());
                durable::replace(&path, format!("{name}\n").as_bytes()).map_err(failed)?;
                name
            }
            Err(error) => return Err(failed(error)),
        };
        Origin::new(&name).map_err(|error| Failure::new(Exit::Refused, error))
    }

    /// The ledger's newest signed head that a controller kept here, beside the store.
    pub(super) fn checkpoint(&self) -> PathBuf {
        self.0.join("ledger.checkpoint")
    }

    /// That head; nothing before the first.
    pub(super) fn head(&self) -> Result<Option<LedgerHead>, Failure> {
        let path = self.checkpoint();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(Exit::Refused, unusable(&path, error))),
        };
        let opened = checkpoint::open(&text, &self.origin()?, &self.key()?.public());
        opened.map(Some).map_err(|error| Failure::new(Exit::NotAuthentic, error))
    }

    /// Refuses a store whose ledger is not what its entries make, or not what was signed.
    pub(super) fn refuse_edited(&self, store: &dyn Store) -> Result<(), Failure> {
        let kept: Vec<LedgerHead> = self.head()?.into_iter().collect();
        let audited = audit(store, &kept).map_err(failed)?;
        let Err(finding) = audited else { return Ok(()) };
        let restore = "keep the store as it is for whoever looks into it, and restore a backup: update-controller restore";
        let next = match finding {
            Finding::Short { .. } => format!(
                "{restore}; or, if an older store was put there on purpose, remove {}",
                self.checkpoint().display()
            ),
            _ => restore.to_owned(),
        };
        Err(Failure::new(Exit::NotAuthentic, finding)
            .because("the ledger that was written here", "one that was edited in the store")
            .next(next))
    }

    pub(super) fn account(&self) -> PathBuf {
        self.0.join("admin.yaml")
    }

    /// Refuses to make an authority, a key and a ledger's name of its own beside those that a fleet has.
    fn refuse_stranger(&self) -> Result<(), Failure> {
        let missing: Vec<&str> = COMMON.into_iter().filter(|name| !self.0.join(name).exists()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Refused,
            "the database is of a fleet that this controller does not belong to yet",
        )
        .because(
            format_args!("{} in {}", COMMON.join(", "), self.0.display()),
            format_args!("no {}", missing.join(", ")),
        )
        .next("copy them from the directory of another controller of the fleet; then again"))
    }
}

/// What all controllers of a fleet have in their directories.
const COMMON: [&str; 4] = ["ca.key", "ca.pem", "grant.key", "ledger.name"];

pub(super) fn unusable(path: &Path, error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let refuse = |error: Box<dyn std::error::Error + Send + Sync>| Failure::new(Exit::Refused, error);
    // Before anything is made.
    args.policy.as_deref().map(read_policy).transpose()?;
    let prometheus = args.metrics.open()?;
    let repository = args.repository.as_deref().map(Repository::open).transpose().map_err(|error| {
        Failure::new(Exit::Usage, error).next("see docs/repository.md, \"For whoever makes one\"")
    })?;
    let directory = Directory::open(&args.store.directory)?;
    let clock = Arc::new(SystemClock);
    let kept = args.store.open()?;
    let store = kept.store();
    let fleet = Identity::of(&*store).map_err(failed)?;
    if fleet.is_some() && kept.shared().is_some() {
        directory.refuse_stranger()?;
    }
    let key = directory.key()?;
    let public = key.public();
    directory.refuse_edited(&*store)?;
    let own_policy = first_start::policy_in(&directory.0);
    let made = match &args.operator {
        Some(operator) => first_start::policy(&own_policy, operator, &public)?,
        None => false,
    };
    let policy_file = args.policy.clone().or_else(|| own_policy.exists().then_some(own_policy));
    let policy = policy_file.as_deref().map(read_policy).transpose()?;
    let certificates = CertificateAuthority::open(&directory.0, UtcTime::floor(clock.now()))
        .map_err(|error| refuse(error.into()))?;
    let origin = directory.origin()?;
    let own = Identity { authority: certificates.fingerprint(), ledger: origin.as_str().to_owned() };
    let content =
        Content::open(directory.0.join("content"), kept.shared()).map_err(|error| refuse(error.into()))?;
    // Before the lease: its holder says where it is.
    let listener = server::listen(args.listen).map_err(not_served)?;
    let port = listener.local_addr().map_err(|error| refuse(error.into()))?.port();
    let run = getrandom::u64().map_err(|error| refuse(std::io::Error::from(error).into()))?;
    let holder = server::holder(&args.address(port), run);
    let authority = Authority::take_or_wait(store, clock.clone(), key, origin, holder).map_err(denied)?;
    join(&authority, fleet.as_ref(), &own)?;
    let limits = Limits { address: Rate::of_addresses(args.address_rate), ..Limits::default() };
    let settings = Settings {
        names: args.names.clone(),
        poll: args.poll,
        limits,
        checkpoint: Some(directory.checkpoint()),
        repository,
        prometheus,
    };
    let fingerprint = certificates.fingerprint();
    let repository_at = args.repository.as_ref().map(|_| format!("{}/repository/", args.address(port)));
    let leads = authority.leads();
    let first = leads && access::nobody_yet(&authority).map_err(failed)?;
    let controller = Arc::new(Controller::new(authority, certificates, content, policy, settings, clock));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| refuse(error.into()))?;
    let served = runtime.block_on(async {
        let listening = Listening::by(controller.clone(), listener).map_err(not_served)?;
        let address = listening.address;
        let admin = if first { Some(admit_first(&controller, &directory, args, port)?) } else { None };
        // Whoever reads a log is not shown a way in.
        let shown = first && !global.json && std::io::stdout().is_terminal();
        let way_in = if shown { Some(first_start::way_in(&controller.authority, &admin_name()?)?) } else { None };
        if global.json {
            object(&serde_json::json!({
                "repository": repository_at, "policy": policy_file, "listening": address, "ca_fingerprint": fingerprint, "grant_key": public, "admin": admin, "leads": leads,
            }));
        } else {
            greet(address, fingerprint, &public, admin.as_deref());
            if !leads {
                line("another controller leads: this one waits");
            }
            match &policy_file {
                Some(path) if made => line(&format!("a policy was made, for every host as /etc/update/policy.yaml: {}", path.display())),
                Some(_) => {}
                None => line("without --policy or --operator nobody can hand in a rollout"),
            }
            if let Some(place) = &repository_at {
                line(&format!("a repository is served, for update.yaml of hosts: {place}"));
            }
            if let Some((token, until)) = way_in {
                line(&format!(
                    "until {until} for {} host(s) of the group `{}`, on each as root:",
                    first_start::HOSTS,
                    first_start::GROUP
                ));
                line(&format!("  update enrol {} --token {token} --ca-fingerprint {fingerprint}", args.address(port)));
            }
        }
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| refuse(error.into()))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| refuse(error.into()))?;
        listening
            .serve(async move {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            })
            .await;
        Ok(())
    });
    drop(runtime);
    // Nobody uses it any more: the next one need not wait for the lease to run out.
    if let Ok(controller) = Arc::try_unwrap(controller).map_err(drop) {
        let _ = controller.authority.release();
    }
    served
}

impl Args {
    /// Where hosts and people reach this controller.
    fn address(&self, port: u16) -> String {
        format!("https://{}:{port}", self.names.first().map_or("localhost", String::as_str))
    }
}

/// Holds the store's fleet against this controller's; whoever leads the first time says which it is.
fn join(authority: &Authority, fleet: Option<&Identity>, own: &Identity) -> Result<(), Failure> {
    match fleet {
        Some(fleet) if fleet == own => Ok(()),
        Some(fleet) => Err(Failure::new(Exit::Refused, "the store is of another fleet")
            .because(
                format_args!("the authority {} and the ledger {}", fleet.authority, fleet.ledger),
                format_args!("{} and {}", own.authority, own.ledger),
            )
            .next(format_args!(
                "copy {} from a controller of that fleet; or name another store",
                COMMON.join(", ")
            ))),
        None if authority.leads() => own.keep(authority).map_err(denied),
        None => Err(Failure::new(Exit::Busy, "another controller is only just beginning on this store")
            .next("when it has begun, copy what its fleet has in common from its directory; then again")),
    }
}

fn not_served(error: ServeError) -> Failure {
    Failure::new(Exit::Refused, error)
        .next("nothing of the fleet was changed; choose another --listen or --name")
}

fn greet(address: SocketAddr, fingerprint: Sha256, public: &PublicKey, admin: Option<&Path>) {
    line(&format!("listening on {address}"));
    line(&format!("hosts believe the authority with the fingerprint {fingerprint}"));
    line(&format!("their policy lets this key sign grants: {} \"{public}\"", public.id()));
    if let Some(admin) = admin {
        line(&format!("an administrator's account was made: {}", admin.display()));
        line(&format!("let hosts in: update-controller token --group GROUP --as {}", admin.display()));
    }
}

fn denied(denied: Denied) -> Failure {
    match denied {
        Denied::Store(error) => failed((*error).clone()),
        other => Failure::new(Exit::Refused, other),
    }
}

fn admin_name() -> Result<KeyName, Failure> {
    "admin".parse().map_err(|error| Failure::new(Exit::Bug, error))
}

fn admit_first(
    controller: &Controller,
    directory: &Directory,
    args: &Args,
    port: u16,
) -> Result<PathBuf, Failure> {
    let person = Person { name: admin_name()?, role: Role::Admin };
    let token = access::admit(&controller.authority, &person, None).map_err(denied)?;
    let account =
        Account { controller: args.address(port), token, authority: controller.certificates.pem.clone() };
    let path = directory.account();
    let text = serde_yaml::to_string(&account).map_err(|error| Failure::new(Exit::Bug, error))?;
    durable::replace(&path, text.as_bytes())
        .map_err(|error| Failure::new(Exit::Refused, unusable(&path, error)))?;
    Ok(path)
}

pub(super) fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let limit = DocumentKind::Policy.max_bytes();
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Exit::Refused, error).next(format!("update policy check {}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| failed(unusable(path, error).into()))?;
    let bytes = manifests::bounded::read(file, 2 * limit).map_err(|error| failed(error.into()))?;
    // As it was written, or in the envelope in which it was signed.
    match manifests::Envelope::parse(&bytes) {
        Ok(envelope) => Policy::parse(envelope.unverified_payload()),
        Err(_) => Policy::parse(&bytes),
    }
    .map_err(|error| failed(error.into()))
}
