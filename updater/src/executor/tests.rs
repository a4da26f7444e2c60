//! The executor of a simulated host, and everything that a stolen controller or a lying agent could ask of it.

use std::sync::Mutex as StdMutex;

use fleet::facts::{ChangeOutcome, HostFacts, Standing};
use fleet::rollout::Fault;
use manifests::{DocumentKind, Envelope, HostId, SecretKey, UtcTime};
use system::clock::Clock as _;

use super::*;
use crate::operations::hold;
use crate::operations::tests::bench::{Bench, MANIFEST, livepatch_only};

fn secret(name: &str) -> SecretKey {
    SecretKey::from_seed(*Sha256::of(name.as_bytes()).as_bytes())
}

fn host() -> HostId {
    HostId::new(Sha256::of(b"this host"))
}

/// A simulated host in a fleet.
struct Scene {
    bench: Arc<Bench>,
    executor: Executor,
    /// How many rollouts were signed.
    rollouts: StdMutex<u32>,
}

fn policy() -> String {
    let entry = |name: &str| {
        let public = secret(name).public();
        format!("  - {{name: {name}, id: {}, public: \"{public}\"}}\n", public.id())
    };
    let keys: String = ["owner", "anna", "controller", "forge"].map(entry).concat();
    format!(
        "schema: 2\nversion: 1\nissued: 2026-10-01T00:00:00Z\nkeys:\n{keys}roles:\n\
         - {{name: owners, keys: [owner], threshold: 1}}\n- {{name: ops, keys: [anna], threshold: 1}}\n\
         - {{name: controller, keys: [controller], threshold: 1}}\n- {{name: build, keys: [forge], threshold: 1}}\nrules:\n\
         - {{document: policy, any_of: [[owners]]}}\n- {{document: manifest, any_of: [[build]]}}\n\
         - {{document: rollout, any_of: [[ops]]}}\n- {{document: grant, any_of: [[controller]]}}\n"
    )
}

fn sign(kind: DocumentKind, text: String, key: &str) -> String {
    let mut envelope = Envelope::new(kind, text.into_bytes());
    envelope.sign(&secret(key)).unwrap();
    envelope.to_json()
}

fn digest(envelope: &str) -> Sha256 {
    Envelope::parse(envelope.as_bytes()).unwrap().payload_digest()
}

/// What a controller says, before somebody changes it.
#[derive(Clone)]
struct Word {
    id: &'static str,
    host: HostId,
    action: &'static str,
    epoch: u64,
    ledger: (u64, &'static [u8]),
    key: &'static str,
}

impl Default for Word {
    fn default() -> Self {
        Self { id: "one", host: host(), action: "apply", epoch: 3, ledger: (10, b"root"), key: "controller" }
    }
}

impl Scene {
    fn new() -> Self {
        let bench = Arc::new(Bench::new());
        bench.write("policy.yaml", policy().as_bytes());
        let membership = format!("host: {}\ngroups: [web]\ncontrollers: [\"https://localhost\"]\n", host());
        bench.write("fleet.yaml", membership.as_bytes());
        Self { executor: executor_of(&bench), bench, rollouts: StdMutex::default() }
    }

    fn manifest(&self, version: u32) -> String {
        self.signed(&livepatch_only(MANIFEST).replace("version: 3", &format!("version: {version}")))
    }

    /// Keeps manifests as an agent does, and nothing else there.
    fn known(&self, manifests: &[&String]) -> PathBuf {
        let directory = self.bench.payloads().join("manifests");
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        for manifest in manifests {
            std::fs::write(directory.join(digest(manifest).to_string()), manifest).unwrap();
        }
        directory
    }

    fn facts(&self, manifests: Option<PathBuf>) -> HostFacts {
        match self.executor.answer(Question::Look { manifests }) {
            Answer::Host(look) => look.facts,
            other => panic!("{other:?}"),
        }
    }

    /// A signed manifest, with its payloads in the spool.
    fn signed(&self, text: &str) -> String {
        let text = self.bench.text(text);
        for payload in manifests::Manifest::parse(text.as_bytes()).unwrap().payloads() {
            let from = self.bench.payloads().join(payload.file.to_string());
            std::fs::copy(from, self.bench.payloads().join(payload.sha256.to_string())).unwrap();
        }
        sign(DocumentKind::Manifest, text, "forge")
    }

    /// A rollout of that manifest which lets this host begin now.
    fn papers(&self, manifest: &str, change: impl Fn(String) -> String) -> Papers {
        *self.rollouts.lock().unwrap() += 1;
        let now = UtcTime::floor(self.bench.machine.now());
        let later = now.timestamp().saturating_add(jiff::SignedDuration::from_hours(24)).unwrap();
        let text = format!(
            "schema: 1\nname: greet\nmanifest: {}\npolicy: {}\nissued: {now}\nexpires: {}\nsummary: Number {}\n\
             groups: [web]\nschedule: {{not_before: {now}, first: [{}]}}\nrollback: {{within: 1h}}\n",
            digest(manifest),
            Sha256::of(b"policy"),
            UtcTime::floor(later),
            self.rollouts.lock().unwrap(),
            host()
        );
        let rollout = sign(DocumentKind::Rollout, change(text), "anna");
        Papers { rollout, manifest: manifest.to_owned(), spool: self.bench.payloads() }
    }

    fn attempt(&self, papers: &Papers, action: Action) -> Nonce {
        // Transactions are named by their time.
        self.bench.machine.sleep(Duration::from_millis(1));
        let rollout = digest(&papers.rollout);
        match self.executor.answer(Question::Attempt { rollout, action }) {
            Answer::Nonce { nonce } => nonce,
            other => panic!("{other:?}"),
        }
    }

    fn grant(&self, papers: &Papers, nonce: Nonce, word: &Word) -> String {
        let now = UtcTime::floor(self.bench.machine.now());
        let expires =
            UtcTime::floor(now.timestamp().saturating_add(jiff::SignedDuration::from_hours(1)).unwrap());
        let grant = serde_json::json!({
            "schema": 1, "id": Sha256::of(word.id.as_bytes()), "rollout": digest(&papers.rollout),
            "host": word.host, "action": word.action, "manifest": digest(&papers.manifest), "wave": 0,
            "epoch": word.epoch, "nonce": nonce, "issued": now, "expires": expires,
            "ledger": {"size": word.ledger.0, "root": Sha256::of(word.ledger.1)},
        });
        sign(DocumentKind::Grant, grant.to_string(), word.key)
    }

    fn begin(&self, papers: &Papers, grant: String) -> Answer {
        self.executor.answer(Question::Begin { grant, what: papers.clone() })
    }

    /// Everything as it should be, but for this word.
    fn apply(&self, papers: &Papers, word: &Word) -> Answer {
        let nonce = self.attempt(papers, Action::Apply);
        self.begin(papers, self.grant(papers, nonce, word))
    }

    fn outcome(&self, papers: &Papers, nonce: Nonce) -> Answer {
        self.executor.answer(Question::Outcome { rollout: digest(&papers.rollout), nonce })
    }
}

fn said(answer: &Answer) -> Said {
    match answer {
        Answer::Said(verdict) => verdict.said,
        other => panic!("{other:?}"),
    }
}

fn declined(answer: &Answer, outcome: Outcome, words: &str) {
    let Answer::Said(verdict) = answer else { panic!("{answer:?}") };
    assert_eq!(verdict.said, Said::Declined { outcome }, "{}", verdict.why);
    assert!(verdict.why.contains(words), "expected {words:?} in {:?}", verdict.why);
}

#[test]
fn a_granted_manifest_is_applied_once_and_taken_back_once() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    let ready = scene.executor.answer(Question::Preflight { what: papers.clone() });
    assert_eq!(said(&ready), Said::Ready, "{ready:?}");
    let nonce = scene.attempt(&papers, Action::Apply);
    let grant = scene.grant(&papers, nonce, &Word::default());
    let applied = scene.begin(&papers, grant.clone());
    assert_eq!(said(&applied), Said::Applied, "{applied:?}");
    assert_eq!(scene.bench.machine.modules(), ["one_function"]);
    let stored = scene.bench.engine().journal().last().unwrap().unwrap();
    assert!(stored.by.is_some_and(|by| by.grant.is_some()), "the journal says by whose word");
    let records = scene.bench.engine().journal().records(0, usize::MAX).unwrap();
    let event = records.iter().rfind(|exported| exported.record.kind == "event").unwrap();
    assert!(event.record.by.contains("\"grant\":\""), "{event:?}");
    assert_eq!(said(&scene.outcome(&papers, nonce)), Said::Applied);
    assert_eq!(
        said(&scene.begin(&papers, grant)),
        Said::Applied,
        "what was begun is told, and not begun again"
    );
    assert_eq!(scene.bench.engine().journal().all().unwrap().len(), 1);
    // There is nothing more to do; that, too, takes its grant.
    let again = scene.apply(&papers, &Word { id: "two", ..Word::default() });
    declined(&again, Outcome::NotNeeded, "");
    let back = scene.attempt(&papers, Action::Rollback);
    let word = Word { id: "three", action: "rollback", ..Word::default() };
    let rolled = scene.begin(&papers, scene.grant(&papers, back, &word));
    assert_eq!(said(&rolled), Said::RolledBack, "{rolled:?}");
    assert_eq!(scene.bench.machine.modules(), <[String; 0]>::default());
    assert_eq!(said(&scene.outcome(&papers, back)), Said::RolledBack);
    assert_eq!(said(&scene.outcome(&papers, nonce)), Said::Hurt { fault: Fault::Restored });
}

#[test]
fn a_grant_that_is_not_for_this_attempt_of_this_host_begins_nothing() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    let authentic = Outcome::NotAuthentic;
    let other = HostId::new(Sha256::of(b"another host"));
    declined(&scene.apply(&papers, &Word { host: other, ..Word::default() }), authentic, "another host");
    declined(&scene.apply(&papers, &Word { key: "anna", ..Word::default() }), authentic, "the grant is not");
    declined(
        &scene.apply(&papers, &Word { action: "rollback", ..Word::default() }),
        authentic,
        "another attempt",
    );
    // Of another rollout, with this one's papers.
    let elsewhere = scene.papers(&scene.manifest(3), |text| text.replace("Number", "Another"));
    let nonce = scene.attempt(&papers, Action::Apply);
    let answer = scene.begin(&papers, scene.grant(&elsewhere, nonce, &Word::default()));
    declined(&answer, authentic, "another rollout");
    // A nonce that was not made here.
    let guessed = scene.grant(&papers, Nonce::from_bytes([7; 16]), &Word::default());
    assert_eq!(scene.begin(&papers, guessed), Answer::NeverBegan);
    // Too late, by the clock that does not jump.
    let nonce = scene.attempt(&papers, Action::Apply);
    let grant = scene.grant(&papers, nonce, &Word::default());
    scene.bench.machine.sleep(Duration::from_secs(121));
    declined(&scene.begin(&papers, grant), Outcome::Busy, "expected at most 120 s");
    // What is no grant at all.
    for garbage in ["", "{}", &papers.rollout, &papers.manifest] {
        assert!(matches!(scene.begin(&papers, garbage.to_owned()), Answer::Failed { .. }), "{garbage}");
    }
    assert_eq!(scene.bench.machine.modules(), <[String; 0]>::default());
    assert_eq!(scene.bench.engine().journal().all().unwrap().len(), 0);
}

#[test]
fn what_people_did_not_sign_for_this_host_is_refused_whatever_a_controller_grants() {
    let scene = Scene::new();
    let manifest = scene.manifest(3);
    let refused = |change: &dyn Fn(String) -> String, outcome, words| {
        let papers = scene.papers(&manifest, change);
        declined(&scene.apply(&papers, &Word::default()), outcome, words);
    };
    let another = Sha256::of(b"another manifest").to_string();
    refused(&|text| text.replace("groups: [web]", "groups: [db]"), Outcome::Refused, "not for this host");
    refused(
        &|text| text.replace(&digest(&manifest).to_string(), &another),
        Outcome::NotAuthentic,
        "another manifest",
    );
    let now = UtcTime::floor(scene.bench.machine.now()).to_string();
    refused(
        &|text| text.replace(&format!("not_before: {now}"), "not_before: 2026-11-20T20:00:00Z"),
        Outcome::Refused,
        "20:00:00Z",
    );
    refused(
        &|text| text.replace(&host().to_string(), &Sha256::of(b"somebody").to_string()),
        Outcome::Refused,
        "no place for this host",
    );
    // Signed by somebody who may not.
    let mut papers = scene.papers(&manifest, |text| text);
    let text = Envelope::parse(papers.rollout.as_bytes()).unwrap().unverified_payload().to_vec();
    papers.rollout = sign(DocumentKind::Rollout, String::from_utf8(text).unwrap(), "controller");
    declined(&scene.apply(&papers, &Word::default()), Outcome::NotAuthentic, "the rollout is not");
    assert_eq!(scene.bench.machine.modules(), <[String; 0]>::default());
}

#[test]
fn an_old_lease_and_a_rewritten_ledger_are_noticed() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    let five = Word { epoch: 5, ledger: (20, b"root"), ..Word::default() };
    assert_eq!(said(&scene.apply(&papers, &five)), Said::Applied);
    let next = scene.papers(&scene.manifest(4), |text| text);
    let word = Word { id: "two", ..five.clone() };
    let old = Word { epoch: 4, ..word.clone() };
    declined(&scene.apply(&next, &old), Outcome::NotAuthentic, "old lease");
    let fork = Word { ledger: (20, b"another root"), ..word.clone() };
    declined(&scene.apply(&next, &fork), Outcome::NotAuthentic, "was rewritten");
    let replayed = Word { id: "one", ..word };
    declined(&scene.apply(&next, &replayed), Outcome::NotAuthentic, "taken before");
    let Answer::Host(look) = scene.executor.answer(Question::Look { manifests: None }) else { panic!() };
    assert_eq!((look.epoch, look.host), (5, Some(host())));
    assert_eq!(look.groups, ["web".parse().unwrap()]);
}

#[test]
fn a_way_back_is_only_of_what_its_rollout_began_and_only_in_time() {
    let scene = Scene::new();
    let first = scene.papers(&scene.manifest(3), |text| text);
    assert_eq!(said(&scene.apply(&first, &Word::default())), Said::Applied);
    let back = Word { id: "two", action: "rollback", ..Word::default() };
    let go_back = |papers: &Papers| {
        let nonce = scene.attempt(papers, Action::Rollback);
        scene.begin(papers, scene.grant(papers, nonce, &back))
    };
    // A stolen controller with another rollout that people signed for the same manifest.
    let other = scene.papers(&scene.manifest(3), |text| text.replace("Number", "Another"));
    let answer = go_back(&other);
    assert_eq!(said(&answer), Said::NotRolledBack, "{answer:?}");
    scene.bench.machine.step_wall_clock(Duration::from_secs(3601));
    let late = go_back(&first);
    assert_eq!(said(&late), Said::NotRolledBack, "{late:?}");
    assert_eq!(scene.bench.machine.modules(), ["one_function"], "what is closed stays closed");
}

#[test]
fn who_holds_back_and_who_is_busy_say_so() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    scene.bench.write("hold", b"");
    declined(&scene.executor.answer(Question::Preflight { what: papers.clone() }), Outcome::Held, "hold");
    declined(&scene.apply(&papers, &Word::default()), Outcome::Held, "hold");
    std::fs::remove_file(scene.bench.payloads().join("hold")).unwrap();
    let until = hold::Until::For(Duration::from_secs(3600));
    scene.bench.engine().put_hold(until, &"the fair".parse().unwrap()).unwrap();
    declined(&scene.executor.answer(Question::Preflight { what: papers.clone() }), Outcome::Held, "the fair");
    declined(&scene.apply(&papers, &Word::default()), Outcome::Held, "the fair");
    scene.bench.engine().take_hold_off().unwrap();
    let held = scene.bench.hold("apply something else");
    declined(&scene.apply(&papers, &Word::default()), Outcome::Busy, "something else");
    drop(held);
    // A payload that is not there, or is another.
    let spool = scene.bench.payloads().join("empty");
    std::fs::create_dir(&spool).unwrap();
    let lacking = Papers { spool, ..papers.clone() };
    declined(&scene.executor.answer(Question::Preflight { what: lacking }), Outcome::Refused, "missing");
    assert_eq!(said(&scene.apply(&papers, &Word::default())), Said::Applied);
    // In no fleet.
    std::fs::remove_file(scene.bench.payloads().join("fleet.yaml")).unwrap();
    let answer = scene.executor.answer(Question::Preflight { what: papers });
    assert!(matches!(&answer, Answer::Failed { error } if error.contains("update enrol")), "{answer:?}");
}

#[test]
fn the_power_fails_and_the_journal_knows_what_became_of_the_attempt() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    let nonce = scene.attempt(&papers, Action::Apply);
    let grant = scene.grant(&papers, nonce, &Word::default());
    scene.bench.machine.stop_before(scene.bench.machine.requests() + 3);
    let died = scene.bench.died(|| drop(scene.begin(&papers, grant)));
    assert!(died);
    scene.bench.reboot();
    // Another executor, which knows nothing but the journal.
    let after = Scene { executor: executor_of(&scene.bench), ..scene };
    let answer = after.outcome(&papers, nonce);
    assert_eq!(said(&answer), Said::Hurt { fault: Fault::Unrestored }, "{answer:?}");
    after.bench.resume();
    let answer = after.outcome(&papers, nonce);
    assert_eq!(said(&answer), Said::Hurt { fault: Fault::Restored }, "{answer:?}");
    assert_eq!(after.outcome(&papers, Nonce::from_bytes([1; 16])), Answer::NeverBegan);
}

fn executor_of(bench: &Arc<Bench>) -> Executor {
    let engine = {
        let bench = bench.clone();
        move |groups: &[GroupName]| {
            bench.set(Config { groups: groups.to_vec(), ..Config::default() });
            bench.try_engine()
        }
    };
    let around = Surroundings {
        engine: Box::new(engine),
        membership: bench.payloads().join("fleet.yaml"),
        clock: bench.machine.clone(),
    };
    Executor::new(around, Arc::default())
}

#[test]
fn a_kernel_that_complains_after_the_change_is_told() {
    let scene = Scene::new();
    scene.bench.write("proc/sys/kernel/tainted", b"32768\n");
    let papers = scene.papers(&scene.manifest(3), |text| text);
    let nonce = scene.attempt(&papers, Action::Apply);
    let grant = scene.grant(&papers, nonce, &Word::default());
    assert_eq!(said(&scene.begin(&papers, grant)), Said::Applied);
    assert_eq!(said(&scene.outcome(&papers, nonce)), Said::Applied);
    // A warning: 512. A livepatch is loaded: 32768, which is none.
    scene.bench.write("proc/sys/kernel/tainted", b"33280\n");
    assert_eq!(said(&scene.outcome(&papers, nonce)), Said::Hurt { fault: Fault::Splat });
    scene.bench.write("proc/sys/kernel/tainted", b"32768\n");
    scene.bench.rollback().unwrap();
    assert_eq!(said(&scene.outcome(&papers, nonce)), Said::Hurt { fault: Fault::Restored });
}

/// Begins, and while something waits on the way has the executor hear this.
fn begin_hearing(scene: &Scene, papers: &Papers, question: Question) -> (Nonce, Answer) {
    let nonce = scene.attempt(papers, Action::Apply);
    let grant = scene.grant(papers, nonce, &Word::default());
    let answer = std::thread::scope(|scope| {
        let begins = scope.spawn(|| scene.begin(papers, grant));
        // The settle time is a wait of the simulated clock: the question comes before or in it.
        while !begins.is_finished() {
            if scene.executor.attempts().running.contains_key(&nonce) {
                scene.executor.answer(question.clone());
            }
            std::thread::yield_now();
        }
        begins.join().unwrap()
    });
    (nonce, answer)
}

#[test]
fn what_the_fleet_stops_turns_back_and_nothing_else_does() {
    let scene = Scene::new();
    let stopped = scene.papers(&scene.manifest(3), |text| text);
    let (nonce, answer) =
        begin_hearing(&scene, &stopped, Question::Stop { rollout: digest(&stopped.rollout) });
    declined(&answer, Outcome::Busy, "");
    assert_eq!(scene.bench.machine.modules(), <[String; 0]>::default());
    let again = scene.outcome(&stopped, nonce);
    assert!(
        again == answer || again == Answer::NeverBegan,
        "it was stopped before it began, or after: {again:?}"
    );
    let papers = scene.papers(&scene.manifest(4), |text| text.replace("Number", "Another"));
    let word = Word { id: "two", ..Word::default() };
    // An attempt that waits is stopped, too; a way back is not.
    let [waiting, back] = [Action::Apply, Action::Rollback].map(|action| scene.attempt(&papers, action));
    scene.executor.answer(Question::Stop { rollout: digest(&stopped.rollout) });
    assert_eq!(scene.executor.attempts().waiting.len(), 2, "of another rollout");
    scene.executor.answer(Question::Stop { rollout: digest(&papers.rollout) });
    let answer = scene.begin(&papers, scene.grant(&papers, waiting, &word));
    assert_eq!(answer, Answer::NeverBegan);
    assert!(scene.executor.attempts().waiting.contains_key(&back));
    let answer = scene.apply(&papers, &word);
    assert_eq!(said(&answer), Said::Applied, "a new attempt is another matter: {answer:?}");
    let back = scene.attempt(&papers, Action::Rollback);
    let word = Word { id: "three", action: "rollback", ..Word::default() };
    let run = scene.executor.run(back).unwrap();
    scene.executor.answer(Question::Stop { rollout: digest(&papers.rollout) });
    assert!(!run.turn_back.load(Ordering::Relaxed));
    drop(run);
    // Whoever ends the program does not turn it back either: it is walked to its end.
    scene.executor.ending.store(true, Ordering::Relaxed);
    let back = scene.attempt(&papers, Action::Rollback);
    assert_eq!(said(&scene.begin(&papers, scene.grant(&papers, back, &word))), Said::RolledBack);
}

#[test]
fn whoever_ends_the_program_turns_it_back_and_the_host_is_not_hurt() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    scene.executor.ending.store(true, Ordering::Relaxed);
    let nonce = scene.attempt(&papers, Action::Apply);
    let answer = scene.begin(&papers, scene.grant(&papers, nonce, &Word::default()));
    declined(&answer, Outcome::Busy, "");
    assert_eq!(scene.bench.machine.modules(), <[String; 0]>::default());
}

#[test]
fn an_attempt_that_somebody_asks_about_is_never_begun() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    let nonce = scene.attempt(&papers, Action::Apply);
    let grant = scene.grant(&papers, nonce, &Word::default());
    assert_eq!(scene.outcome(&papers, nonce), Answer::NeverBegan);
    assert_eq!(
        scene.begin(&papers, grant),
        Answer::NeverBegan,
        "the grant was late, and what was said stays true"
    );
    assert_eq!(scene.bench.machine.modules(), <[String; 0]>::default());
}

#[test]
fn attempts_that_no_grant_comes_for_are_forgotten() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    let first = scene.attempt(&papers, Action::Apply);
    for _ in 0..ATTEMPTS {
        scene.attempt(&papers, Action::Apply);
    }
    assert_eq!(scene.executor.attempts().waiting.len(), ATTEMPTS);
    assert!(!scene.executor.attempts().waiting.contains_key(&first), "the oldest");
    scene.bench.machine.sleep(Duration::from_secs(121));
    scene.attempt(&papers, Action::Apply);
    assert_eq!(scene.executor.attempts().waiting.len(), 1);
}

#[test]
fn what_an_executor_was_killed_over_the_next_one_ends() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    let nonce = scene.attempt(&papers, Action::Apply);
    let grant = scene.grant(&papers, nonce, &Word::default());
    scene.bench.machine.stop_before(scene.bench.machine.requests() + 3);
    assert!(scene.bench.died(|| drop(scene.begin(&papers, grant))));
    scene.bench.machine.revive();
    let after = Scene { executor: executor_of(&scene.bench), ..scene };
    let other = after.papers(&after.manifest(4), |text| text.replace("Number", "Another"));
    declined(&after.apply(&other, &Word { id: "two", ..Word::default() }), Outcome::Busy, "unfinished");
    after.executor.take_up().unwrap();
    assert_eq!(said(&after.outcome(&papers, nonce)), Said::Hurt { fault: Fault::Restored });
    let answer = after.apply(&other, &Word { id: "two", ..Word::default() });
    assert_eq!(said(&answer), Said::Applied, "{answer:?}");
    // What an operator left open is the operator's.
    assert!(after.executor.take_up().is_ok());
    assert_eq!(after.bench.machine.modules(), ["one_function"]);
}

#[test]
fn what_was_revoked_can_still_be_taken_back() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    assert_eq!(said(&scene.apply(&papers, &Word::default())), Said::Applied);
    let revoked = manifests::revocation::Revoked {
        manifests: [(digest(&papers.manifest), UtcTime::floor(scene.bench.machine.now()))].into(),
        ..Default::default()
    };
    let memory = serde_json::json!({ "policy": null, "revoked": revoked }).to_string();
    scene
        .bench
        .engine()
        .journal()
        .write("revoke", |db, _| db.execute("INSERT OR REPLACE INTO trust_memory VALUES (1, ?1)", [memory]))
        .unwrap();
    let word = Word { id: "two", ..Word::default() };
    declined(&scene.apply(&papers, &word), Outcome::NotAuthentic, "revoked");
    let back = scene.attempt(&papers, Action::Rollback);
    let word = Word { action: "rollback", ..word };
    let answer = scene.begin(&papers, scene.grant(&papers, back, &word));
    assert_eq!(said(&answer), Said::RolledBack, "{answer:?}");
}

#[test]
fn the_groups_of_a_token_are_the_hosts_for_manifests_too() {
    let scene = Scene::new();
    let manifest = |group: &str| {
        let text = livepatch_only(MANIFEST).replace("targets: {", &format!("targets: {{groups: [{group}], "));
        sign(DocumentKind::Manifest, scene.bench.text(&text), "forge")
    };
    scene.manifest(3);
    let look = |manifest: &str| {
        let what = scene.papers(manifest, |text| text);
        scene.executor.answer(Question::Preflight { what })
    };
    declined(&look(&manifest("db")), Outcome::Refused, "groups");
    assert_eq!(said(&look(&manifest("web"))), Said::Ready);
}

#[test]
fn a_socket_answers_a_question_a_line_and_garbage_in_words() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    let scene = Scene::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("below").join("executor.sock");
    let listener = Listener::open(&path).unwrap();
    let executor = Arc::new(executor_of(&scene.bench));
    let (wake, mut waker) = UnixStream::pair().unwrap();
    let serving = {
        let executor = executor.clone();
        std::thread::spawn(move || serve(&executor, &listener, &wake))
    };
    let ask = |question: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(question).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str::<Answer>(&answer).unwrap()
    };
    assert!(matches!(ask(b"{\"ask\":\"look\"}\n"), Answer::Host(look) if look.host == Some(host())));
    for bad in [&b"\n"[..], b"{\"ask\":\"stop\"}\n", b"{\"ask\":\"shell\"}\n"] {
        assert!(matches!(ask(bad), Answer::Failed { .. }), "{bad:?}");
    }
    executor.ending.store(true, Ordering::Relaxed);
    waker.write_all(b"x").unwrap();
    serving.join().unwrap().unwrap();
}

/// A manifest that fixes a vulnerability of the kernel and one of a library, or this part of it.
fn fixing(text: &str) -> String {
    text.replace("severity: critical", "severity: critical\nfixes: [CVE-2026-0001]")
}

#[test]
fn exposure_is_told_by_what_is_mapped_and_patched_and_ends_with_the_fix() {
    let scene = Scene::new();
    let standing = |manifest: &String| {
        let facts = scene.facts(Some(scene.known(&[manifest])));
        assert_eq!(facts.exposures.iter().map(|one| one.cve.as_str()).collect::<Vec<_>>(), ["CVE-2026-0001"]);
        facts.exposures[0].standing
    };
    let kernel = scene.signed(&fixing(&livepatch_only(MANIFEST)));
    assert_eq!(standing(&kernel), Standing::Exposed);
    assert_eq!(said(&scene.apply(&scene.papers(&kernel, |text| text), &Word::default())), Said::Applied);
    assert_eq!(standing(&kernel), Standing::Fixed);
    // The container maps the library that is at fault, whatever the kernel has.
    let both = scene.signed(&fixing(MANIFEST).replace("version: 3", "version: 4"));
    assert_eq!(standing(&both), Standing::Exposed);
    // Of a kernel that the manifest says nothing about nothing follows.
    let other =
        fixing(&livepatch_only(MANIFEST)).replace("6.1.0-50", "6.12.0-1").replace("version: 3", "version: 5");
    assert_eq!(standing(&scene.signed(&other)), Standing::Unknown);
}

#[test]
fn only_manifests_that_this_host_believes_count_and_of_each_name_the_latest() {
    let scene = Scene::new();
    let old = scene.signed(&fixing(&livepatch_only(MANIFEST)));
    let new = scene.signed(&fixing(&livepatch_only(MANIFEST)).replace("version: 3", "version: 4"));
    let exposures = |directory| scene.facts(Some(directory)).exposures;
    let found = exposures(scene.known(&[&old, &new]));
    assert_eq!(found.iter().map(|one| one.version).collect::<Vec<_>>(), [4]);
    let text = Envelope::parse(new.as_bytes()).unwrap().unverified_payload().to_vec();
    let forged = sign(DocumentKind::Manifest, String::from_utf8(text).unwrap(), "anna");
    assert_eq!(exposures(scene.known(&[&forged])), []);
    // A lying agent's directory: no file, a pipe, a link to elsewhere, another name.
    let directory = scene.known(&[]);
    let name = |number: u8| directory.join(Sha256::of(&[number]).to_string());
    std::fs::create_dir(name(1)).unwrap();
    nix::unistd::mkfifo(&name(2), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(directory.join("elsewhere"), &new).unwrap();
    std::os::unix::fs::symlink(directory.join("elsewhere"), name(3)).unwrap();
    std::fs::write(name(4), b"no envelope").unwrap();
    assert_eq!(exposures(directory), []);
    assert_eq!(scene.facts(Some(PathBuf::from("/nowhere"))).exposures, []);
}

#[test]
fn what_the_fleet_changed_and_how_the_host_has_been_since_is_told_and_does_not_move_by_itself() {
    let scene = Scene::new();
    let before = scene.facts(None);
    assert_eq!((before.changes.len(), before.livepatches.len()), (0, 0));
    assert_eq!(before.workloads, ["web".parse().unwrap()]);
    let papers = scene.papers(&scene.manifest(3), |text| text);
    assert_eq!(said(&scene.apply(&papers, &Word::default())), Said::Applied);
    let facts = scene.facts(None);
    assert_eq!(facts.livepatches[0].module.as_str(), "one_function");
    let change = &facts.changes[0];
    assert_eq!((change.outcome, change.action), (ChangeOutcome::Committed, Action::Apply));
    assert_eq!(change.rollout, digest(&papers.rollout));
    assert!(change.transition_ms.is_some() && change.probes.failed == 0, "{change:?}");
    assert_eq!((change.taints, change.splats, change.restarted.len()), (0, 0, 0));
    scene.bench.machine.sleep(Duration::from_secs(3600));
    assert_eq!(scene.facts(None).digest(), facts.digest(), "nothing in it moves by itself");
    // The kernel complains: a warning, and its taint flag.
    scene.bench.write("proc/sys/kernel/tainted", b"512\n");
    assert_eq!(scene.facts(None).changes[0].taints, 512);
    scene.bench.write("proc/sys/kernel/tainted", b"0\n");
    let back = scene.attempt(&papers, Action::Rollback);
    let word = Word { id: "two", action: "rollback", ..Word::default() };
    assert_eq!(said(&scene.begin(&papers, scene.grant(&papers, back, &word))), Said::RolledBack);
    let facts = scene.facts(None);
    let told: Vec<_> = facts.changes.iter().map(|change| (change.action, change.outcome)).collect();
    assert_eq!(told, [(Action::Rollback, ChangeOutcome::Committed), (Action::Apply, ChangeOutcome::Undone)]);
    assert_eq!(facts.livepatches, []);
}

#[test]
fn a_way_back_of_the_fleet_waits_for_an_operator_too_while_the_host_is_held() {
    let scene = Scene::new();
    let papers = scene.papers(&scene.manifest(3), |text| text);
    assert_eq!(said(&scene.apply(&papers, &Word::default())), Said::Applied);
    let until = hold::Until::For(Duration::from_secs(3600));
    scene.bench.engine().put_hold(until, &"the fair".parse().unwrap()).unwrap();
    let go_back = |id| {
        let nonce = scene.attempt(&papers, Action::Rollback);
        let back = Word { id, action: "rollback", ..Word::default() };
        scene.begin(&papers, scene.grant(&papers, nonce, &back))
    };
    let answer = go_back("two");
    let Answer::Said(Verdict { said: Said::NotRolledBack, why, .. }) = &answer else { panic!("{answer:?}") };
    assert!(why.contains("the fair"), "{why}");
    assert_eq!(scene.bench.machine.modules(), ["one_function"]);
    scene.bench.engine().take_hold_off().unwrap();
    assert_eq!(said(&go_back("three")), Said::RolledBack);
}
