//! A fleet that came in by tokens, and a rollout that people signed.

use std::sync::Arc;

use controller::authority::{Authority, Denied};
use controller::enrolment::{self, Newcomer, Terms};
use controller::ledger::Origin;
use controller::store::{Memory, Store};
use fleet::host::Host;
use fleet::protocol::{AttemptReport, BeginRequest, Version};
use fleet::rollout::{Action, Author, Event, Proof, Said};
use manifests::{
    DocumentKind, Envelope, Grant, HostId, Nonce, Policy, Rollout, SecretKey, Sha256, TrustFloor, UtcTime,
    Verified, VerifyAt,
};

use super::Hand;

pub(crate) fn secret(name: &str) -> SecretKey {
    SecretKey::from_seed(*Sha256::of(name.as_bytes()).as_bytes())
}

pub(crate) fn origin() -> Origin {
    Origin::new("fleet.example.org/update").unwrap()
}

pub(crate) fn person(name: &str, proof: Proof) -> Author {
    Author { name: name.parse().unwrap(), proof }
}

/// What hosts believe: people sign rollouts, the controller grants.
pub(crate) fn trust() -> Policy {
    let entry = |name: &str| {
        let public = secret(name).public();
        format!("  - {{name: {name}, id: {}, public: \"{public}\"}}\n", public.id())
    };
    let keys: String = ["root", "anna", "controller"].into_iter().map(entry).collect();
    let text = format!(
        "schema: 2\nversion: 1\nissued: 2026-10-01T00:00:00Z\nkeys:\n{keys}roles:\n\
         - {{name: owners, keys: [root], threshold: 1}}\n- {{name: ops, keys: [anna], threshold: 1}}\n\
         - {{name: controller, keys: [controller], threshold: 1}}\n\
         rules:\n- {{document: policy, any_of: [[owners]]}}\n- {{document: rollout, any_of: [[ops]]}}\n\
         - {{document: grant, any_of: [[controller]]}}\n"
    );
    Policy::parse(text.as_bytes()).unwrap()
}

pub(crate) fn host(number: usize) -> HostId {
    HostId::new(Sha256::of(&number.to_be_bytes()))
}

pub(crate) fn nonce(number: usize) -> Nonce {
    Nonce::from_bytes((number as u128).to_be_bytes())
}

pub(crate) const POLICY: &str = "schema: 1\nselector: {groups: [fleet]}\nwaves: {start_over: 0s, bake: 1h}\n\
                                 caps: {fleet: 3, domain: 100%}\n";

/// A signed rollout of `manifest` for hosts `0..hosts`, which all may begin at once.
pub(crate) fn document(manifest: &str, policy: &str, hosts: usize) -> (Envelope, Verified<Rollout>) {
    issued("2026-11-01T00:00:00Z", "fix", manifest, policy, hosts)
}

/// The same, of a manifest with this name, issued at that time.
pub(crate) fn issued(
    at: &str,
    name: &str,
    manifest: &str,
    policy: &str,
    hosts: usize,
) -> (Envelope, Verified<Rollout>) {
    let first: Vec<String> = (0..hosts).map(|number| host(number).to_string()).collect();
    let text = format!(
        "schema: 1\nname: {name}\nmanifest: {}\npolicy: {}\nissued: {at}\n\
         expires: 2027-10-31T00:00:00Z\nsummary: A fix\ngroups: [fleet]\nschedule:\n  \
         not_before: 2026-11-02T00:00:00Z\n  first: [{}]\n  then: [{{millionths: 1000000, not_before: 2026-11-05T00:00:00Z}}]\n\
         rollback: {{within: 7d}}\n",
        Sha256::of(manifest.as_bytes()),
        Sha256::of(policy.as_bytes()),
        first.join(", ")
    );
    let mut envelope = Envelope::new(DocumentKind::Rollout, text.into_bytes());
    envelope.sign(&secret("anna")).unwrap();
    let at = VerifyAt { now: "2026-11-02T00:00:00Z".parse().unwrap(), floor: &TrustFloor::default() };
    let document = trust().verify(&envelope, at).unwrap();
    (envelope, document)
}

pub(crate) struct Scene {
    pub(crate) authority: Authority,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<Hand>,
    pub(crate) rollout: Sha256,
    pub(crate) hosts: usize,
}

pub(crate) fn take(store: &Arc<dyn Store>, clock: &Arc<Hand>, holder: &str) -> Result<Authority, Denied> {
    Authority::take(store.clone(), clock.clone(), secret("controller"), origin(), holder.to_owned(), 0)
}

pub(crate) fn enrol(authority: &Authority, number: usize) -> Result<Host, Denied> {
    let terms = Terms {
        groups: vec!["fleet".parse().unwrap()],
        domain: format!("rack-{}", number % 5).parse().unwrap(),
        role: "db".parse().unwrap(),
        hosts: 1,
        expires: "2126-12-01T00:00:00Z".parse().unwrap(),
    };
    let token = enrolment::make(authority, &terms, &"anna".parse().unwrap()).unwrap();
    enrolment::enrol(authority, &token, &newcomer(number))
}

pub(crate) fn newcomer(number: usize) -> Newcomer {
    Newcomer {
        id: host(number),
        kernel: "6.1.0".parse().unwrap(),
        kernel_build_id: None,
        cpu: "epyc".parse().unwrap(),
        services: Vec::new(),
    }
}

impl Scene {
    /// In memory, with 80 hosts.
    pub(crate) fn new() -> Self {
        let clock = Arc::new(Hand::new());
        Self::over(Arc::new(Memory::new(clock.clone())), clock, POLICY, 80)
    }

    /// A rollout that runs over a store, with its first wave ready.
    pub(crate) fn over(store: Arc<dyn Store>, clock: Arc<Hand>, policy: &str, hosts: usize) -> Self {
        let authority = take(&store, &clock, "one").unwrap();
        for number in 0..hosts {
            enrol(&authority, number).unwrap();
        }
        let mut scene = Self { authority, store, clock, rollout: Sha256::of(b""), hosts };
        scene.rollout = scene.submit("manifest", policy);
        scene.make_ready(scene.rollout);
        scene
    }

    pub(crate) fn submit(&self, manifest: &str, policy: &str) -> Sha256 {
        let digest = self.hand_in("fix", manifest, 1, policy).unwrap();
        self.tick();
        digest
    }

    /// Hands in a rollout of the manifest with this name and version.
    pub(crate) fn hand_in(
        &self,
        name: &str,
        manifest: &str,
        version: u64,
        policy: &str,
    ) -> Result<Sha256, Denied> {
        let (envelope, document) = issued("2026-11-01T00:00:00Z", name, manifest, policy, self.hosts);
        self.authority.submit(&envelope, &document, policy, version)?;
        Ok(document.digest())
    }

    /// All that were offered the manifest say that they could.
    pub(crate) fn make_ready(&self, rollout: Sha256) {
        for number in 0..self.hosts {
            let _ = self.say(rollout, number, None, Said::Ready);
        }
    }

    /// Everybody was heard of just now.
    pub(crate) fn tick(&self) -> usize {
        let now = UtcTime::floor(self.store.now());
        let around = controller::authority::Surroundings {
            last_seen: &|_| Some(now),
            listening_since: "2026-11-02T00:00:00Z".parse().unwrap(),
            readings: &Default::default(),
        };
        self.authority.tick(&around).unwrap()
    }

    pub(crate) fn say(
        &self,
        rollout: Sha256,
        number: usize,
        nonce: Option<Nonce>,
        said: Said,
    ) -> Result<Event, Denied> {
        let report = AttemptReport { rollout, nonce, said, transaction: None, fingerprint: None };
        self.authority.report(host(number), report)
    }

    pub(crate) fn begin(&self, number: usize, nonce: Nonce) -> Result<String, Denied> {
        begin(&self.authority, self.rollout, number, nonce)
    }

    /// Hosts that are ready now.
    pub(crate) fn ready(&self) -> Vec<usize> {
        let state = |number: &usize| self.authority.host_state(self.rollout, host(*number)).unwrap();
        (0..self.hosts).filter(|number| state(number) == Some(fleet::rollout::HostState::Ready)).collect()
    }
}

pub(crate) fn begin(
    authority: &Authority,
    rollout: Sha256,
    number: usize,
    nonce: Nonce,
) -> Result<String, Denied> {
    let (action, epoch) = (Action::Apply, 0);
    authority.begin(host(number), BeginRequest { version: Version, rollout, action, nonce, epoch })
}

/// The grant in an envelope, as a host that believes the controller reads it.
pub(crate) fn opened(envelope: &str, now: jiff::Timestamp) -> Verified<Grant> {
    let envelope = Envelope::parse(envelope.as_bytes()).unwrap();
    trust().verify(&envelope, VerifyAt { now, floor: &TrustFloor::default() }).unwrap()
}
