//! People on several machines make a repository, and what becomes of it over time.

mod support;

use std::fs;

use manifests::SecretKey;
use repository::authoring::draft::{Holders, Rotation};
use repository::authoring::status::Standing;
use repository::authoring::{AuthoringError, Repository};
use repository::client::ClientError;
use support::{Host, ONLINE, ROOTS, TARGETS, Team, days, founders, key, now};

fn rotation(add: &[u8], remove: &[u8]) -> Rotation {
    Rotation {
        add: add.iter().map(|seed| key(*seed).public()).collect(),
        remove: remove.iter().map(|seed| key(*seed).public().id().to_string()).collect(),
        threshold: None,
    }
}

fn online() -> [SecretKey; 1] {
    [key(ONLINE)]
}

#[test]
fn nothing_is_published_before_everybody_has_signed_on_a_machine_of_their_own() {
    let team = Team { files: tempfile::tempdir().unwrap() };
    Repository::init(&team.path(), &founders(), now()).unwrap();
    let unsigned = team.repository().publish(&online(), now()).unwrap_err();
    assert!(unsigned.to_string().contains("root: 0 of 2"), "{unsigned}");
    assert_eq!(team.names(), [""; 0], "nothing is served");
    for seed in [ROOTS[0], ROOTS[2], TARGETS[0], TARGETS[1]] {
        // The drafts are carried there and back.
        let machine = team.files.path().join(format!("machine-{seed}"));
        support::copy_tree(&team.path(), &machine);
        for directory in ["public/metadata", "public/targets", "staged"] {
            fs::create_dir_all(machine.join(directory)).unwrap();
        }
        let signed = Repository::open(&machine).unwrap().sign(&key(seed)).unwrap();
        let expected: &[&str] = if ROOTS.contains(&seed) { &["root"] } else { &["m1", "targets"] };
        assert_eq!(signed.iter().map(|draft| draft.role.as_str()).collect::<Vec<_>>(), expected);
        let before = team.repository().publish(&online(), now());
        assert!(matches!(before, Err(AuthoringError::Unsigned { .. })), "{seed}");
        let collected = team.repository().collect(&machine.join("staged")).unwrap();
        assert_eq!(collected.iter().map(|(_, count)| count).sum::<usize>(), expected.len());
        // Twice is once.
        let again = team.repository().collect(&machine.join("staged")).unwrap();
        assert_eq!(again.iter().map(|(_, count)| count).sum::<usize>(), 0);
    }
    team.repository().publish(&online(), now()).unwrap();
    Host::new(&team).refresh(&[&team.address()], now()).unwrap();
    assert!(team.repository().status(now()).unwrap().drafts.is_empty());
}

#[test]
fn a_signature_of_another_draft_does_not_come_in_and_a_change_empties_signatures() {
    let team = Team::founded();
    team.add("greet", 1, b"one");
    let elsewhere = team.files.path().join("elsewhere");
    support::copy_tree(&team.path(), &elsewhere);
    Repository::open(&elsewhere).unwrap().sign(&key(TARGETS[0])).unwrap();
    team.repository().sign(&key(TARGETS[1])).unwrap();
    team.add("greet", 2, b"two");
    let error = team.repository().collect(&elsewhere.join("staged")).unwrap_err();
    assert!(matches!(error, AuthoringError::AnotherDraft { .. }), "{error}");
    let status = team.repository().status(now()).unwrap();
    assert!(status.drafts[0].lacks.as_ref().unwrap().contains("0 of 2"), "{status:?}");
}

#[test]
fn who_signs_is_told_what_changes() {
    let team = Team::founded();
    team.add("greet", 1, b"one");
    let signed = team.repository().sign(&key(TARGETS[0])).unwrap();
    assert_eq!(signed[0].changes.len(), 2, "{signed:?}");
    assert!(signed[0].changes[1].starts_with("lists greet/1/manifest.json, sha256 "), "{signed:?}");
    let stranger = team.repository().sign(&key(99)).unwrap_err();
    assert!(matches!(stranger, AuthoringError::NothingToSign { .. }));
}

#[test]
fn a_stolen_online_key_is_rotated_away_and_is_then_worth_nothing() {
    let team = Team::founded();
    let host = Host::new(&team);
    host.refresh(&[&team.address()], now()).unwrap();
    for role in ["snapshot", "timestamp"] {
        team.repository().rotate(role, &rotation(&[22], &[ONLINE]), now()).unwrap();
    }
    team.signed();
    let stolen = team.repository().publish(&online(), now()).unwrap_err();
    assert!(matches!(stolen, AuthoringError::NotOnline { .. }), "{stolen}");
    team.repository().publish(&[key(22)], now()).unwrap();
    host.refresh(&[&team.address()], now()).unwrap();
    assert!(matches!(team.repository().refresh(&online(), now()), Err(AuthoringError::NotOnline { .. })));
    team.repository().refresh(&[key(22)], now()).unwrap();
    host.refresh(&[&team.address()], now()).unwrap();
}

#[test]
fn a_root_is_signed_by_those_before_and_by_those_after() {
    let team = Team::founded();
    team.repository().rotate("root", &rotation(&[4, 5], &[1, 2]), now()).unwrap();
    for (seed, sufficient) in [(4, false), (5, false), (3, false), (1, true)] {
        assert!(team.repository().publish(&online(), now()).is_err(), "before {seed}");
        team.repository().sign(&key(seed)).unwrap();
        assert_eq!(team.repository().status(now()).unwrap().drafts[0].lacks.is_none(), sufficient, "{seed}");
    }
    team.repository().publish(&online(), now()).unwrap();
    let client = Host::new(&team).refresh(&[&team.address()], now()).unwrap();
    assert_eq!(client.trusted().root().version, 2);
}

#[test]
fn a_key_that_would_meet_another_role_and_a_role_that_nobody_fills_are_refused_when_they_are_made() {
    let team = Team::founded();
    let meets = team.repository().rotate("root", &rotation(&[TARGETS[0]], &[]), now()).unwrap_err();
    assert!(matches!(meets, AuthoringError::KeyTwice { .. }), "{meets}");
    let few = team.repository().rotate("targets", &rotation(&[], &[TARGETS[0]]), now()).unwrap_err();
    assert!(matches!(few, AuthoringError::Threshold { .. }), "{few}");
    let unknown = team.repository().rotate("targets", &rotation(&[], &[77]), now()).unwrap_err();
    assert!(matches!(unknown, AuthoringError::Unlisted { .. }), "{unknown}");
    assert!(team.repository().status(now()).unwrap().drafts.is_empty());
}

#[test]
fn a_prefix_is_left_to_others_with_what_is_listed_under_it() {
    let team = Team::founded();
    team.add("kernel-one", 1, b"one");
    team.add("other", 1, b"one");
    team.signed_and_published(now());
    let kernel = Holders { keys: vec![key(61).public(), key(62).public()], threshold: 1 };
    let role = team.repository().delegate("kernel-", &kernel, now()).unwrap();
    team.repository().sign(&key(62)).unwrap();
    team.signed_and_published(now());
    team.add("kernel-two", 1, b"two");
    // The others have nothing to say about it.
    assert!(matches!(team.repository().sign(&key(TARGETS[0])), Err(AuthoringError::NothingToSign { .. })));
    team.repository().sign(&key(61)).unwrap();
    team.repository().publish(&online(), now()).unwrap();
    let mut client = Host::new(&team).refresh(&[&team.address()], now()).unwrap();
    assert_eq!(client.catalogue().unwrap().len(), 3);
    assert_eq!(client.trusted().targets_role(&role).unwrap().targets.len(), 4);
}

#[test]
fn a_version_is_listed_once_and_a_payload_is_the_signed_one() {
    let team = Team::founded();
    team.add("greet", 1, b"one");
    team.signed_and_published(now());
    let again = team.manifest("greet", 1, b"one");
    team.repository().add(std::slice::from_ref(&again), None, now()).unwrap();
    assert!(team.repository().status(now()).unwrap().drafts.is_empty(), "the same is nothing new");
    let other = team.manifest("greet", 1, b"other");
    assert!(matches!(team.repository().add(&[other], None, now()), Err(AuthoringError::VersionTaken { .. })));
    for lie in [&b"tw"[..], b"twoo", b"TWO"] {
        let path = team.manifest("greet", 2, b"two");
        fs::write(path.with_file_name("fix.ko"), lie).unwrap();
        assert!(matches!(team.repository().add(&[path], None, now()), Err(AuthoringError::Payload { .. })));
    }
    assert!(team.repository().status(now()).unwrap().drafts.is_empty());
}

#[test]
fn a_bad_manifest_is_withdrawn_and_hosts_find_it_no_more() {
    let team = Team::founded();
    team.add("greet", 1, b"one");
    team.add("greet", 2, b"two");
    team.signed_and_published(now());
    let gone = team.repository().withdraw("greet", Some(2), now()).unwrap();
    assert_eq!(gone, ["greet/2/fix.ko", "greet/2/manifest.json"]);
    team.signed_and_published(now());
    let mut client = Host::new(&team).refresh(&[&team.address()], now()).unwrap();
    assert_eq!(client.versions(&"greet".parse().unwrap()).unwrap().len(), 1);
    assert!(matches!(client.target("greet/2/manifest.json"), Err(ClientError::NoSuchTarget { .. })));
}

#[test]
fn the_end_is_told_before_it_comes_and_a_renewal_puts_it_off() {
    let team = Team::founded();
    let due = |at| {
        let status = team.repository().status(at).unwrap();
        status.due().map(|role| (role.role.clone(), role.standing)).collect::<Vec<_>>()
    };
    assert_eq!(due(now()), []);
    let online = |standing| vec![("snapshot".to_owned(), standing), ("timestamp".to_owned(), standing)];
    assert_eq!(due(now() + days(4)), online(Standing::EndsSoon));
    assert_eq!(due(now() + days(7)), online(Standing::Expired));
    let spring = now() + days(151);
    team.repository().refresh(&[key(ONLINE)], spring).unwrap();
    assert_eq!(due(spring).into_iter().map(|(role, _)| role).collect::<Vec<_>>(), ["m1", "targets"]);
    assert_eq!(team.repository().renew(days(30), spring).unwrap(), ["m1", "targets"]);
    team.signed_and_published(spring);
    assert_eq!(due(spring), []);
    Host::new(&team).refresh(&[&team.address()], spring + days(6)).unwrap().catalogue().unwrap();
}

#[test]
fn a_publication_that_was_cut_short_is_finished_by_the_next_one() {
    let team = Team::founded();
    let host = Host::new(&team);
    host.refresh(&[&team.address()], now()).unwrap();
    team.repository().rotate("root", &rotation(&[4], &[]), now()).unwrap();
    team.add("greet", 1, b"one");
    team.signed();
    let before = support::tree(&team.path());
    team.repository().publish(&online(), now()).unwrap();
    let after = support::tree(&team.public());
    // In the order in which they are written; the files themselves come first.
    let written = ["2.m1.json", "2.root.json", "2.snapshot.json", "timestamp.json"];
    for cut in 0..=written.len() {
        fs::remove_dir_all(team.path()).unwrap();
        for directory in ["public/metadata", "public/targets", "staged"] {
            fs::create_dir_all(team.path().join(directory)).unwrap();
        }
        for (name, bytes) in &before {
            let moved = name.replace("staged/targets/", "public/targets/");
            let path = team.path().join(moved);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        for name in &written[..cut] {
            fs::write(team.public().join("metadata").join(name), &after[&format!("metadata/{name}")])
                .unwrap();
        }
        // What is served is whole.
        Host::new(&team).refresh(&[&team.address()], now()).unwrap_or_else(|error| panic!("{cut}: {error}"));
        team.repository().publish(&online(), now()).unwrap_or_else(|error| panic!("{cut}: {error}"));
        let mut client = host.refresh(&[&team.address()], now()).unwrap();
        assert_eq!(client.catalogue().unwrap().len(), 1, "{cut}");
        host.kept().keys().for_each(|name| fs::remove_file(host.files.path().join(name)).unwrap());
    }
}

#[test]
fn who_leaves_targets_and_still_signs_below_is_told() {
    let team = Team::founded();
    let leaves = rotation(&[13], &[TARGETS[1]]);
    assert_eq!(team.repository().rotate("targets", &leaves, now()).unwrap(), ["m1"]);
    assert_eq!(team.repository().rotate("m1", &leaves, now()).unwrap(), [""; 0]);
    // And drafts are signed by those whom people know, by the ids that they know.
    let signed = team.repository().sign(&key(ROOTS[0])).unwrap();
    let words = signed[0].changes.join("\n");
    assert!(words.contains(&key(13).public().id().to_string()), "{words}");
    let nothing = team.repository().sign(&key(99)).unwrap_err().to_string();
    assert!(nothing.contains(&key(99).public().id().to_string()), "{nothing}");
}

#[test]
fn a_draft_that_nobody_could_sign_is_refused_where_it_comes_in() {
    let team = Team::founded();
    team.add("greet", 1, b"one");
    let stick = tempfile::tempdir().unwrap();
    support::copy_tree(&team.path(), stick.path());
    fs::create_dir_all(stick.path().join("public/targets")).unwrap();
    let draft = stick.path().join("staged/m1.json");
    let text = fs::read_to_string(&draft).unwrap();
    // A number with a fraction has no canonical form.
    let lie = text.replace("\"severity\":\"high\"", "\"severity\":\"high\",\"share\":0.5");
    assert_ne!(lie, text);
    fs::write(&draft, lie).unwrap();
    let refusals = [
        Repository::open(stick.path()).unwrap().sign(&key(TARGETS[0])).map(drop),
        team.repository().collect(&stick.path().join("staged")).map(drop),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(AuthoringError::Malformed { .. })), "{refusal:?}");
    }
    team.signed_and_published(now());
}
