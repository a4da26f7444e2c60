//! Archives of images: good ones are taken apart and written anew, and each lie has its own words.

use serde_json::{Value, json};
use system::error::with_causes;

use super::specimen::{
    INDEX, LayerSpecimen, MANIFEST, Packed, Specimen, blob, configuration, contents, descriptor, digest,
    file_of, gzip, layer,
};
use super::*;

fn opened(specimen: &Specimen) -> Result<ImageArchive, ImageArchiveError> {
    ImageArchive::open(&specimen.archive(), &specimen.image)
}

/// What an archive is refused with.
fn refusal(specimen: &Specimen) -> String {
    with_causes(&opened(specimen).expect_err("it was taken"))
}

/// What its layers are refused with.
fn refusal_of_layers(specimen: &Specimen, limits: Limits) -> String {
    let archive = ImageArchive::open_within(&specimen.archive(), &specimen.image, limits).unwrap();
    with_causes(&archive.check_layers().expect_err("they were taken"))
}

/// The index with one value changed.
fn with_index(mut specimen: Specimen, change: impl FnOnce(&mut Value)) -> Specimen {
    let file = specimen.file("index.json");
    let mut index: Value = serde_json::from_slice(file).unwrap();
    change(&mut index);
    *file = index.to_string().into_bytes();
    specimen
}

#[test]
fn an_image_is_found_by_its_configuration_and_unpacks_to_what_that_says() {
    let layers = [Packed::Plain, Packed::Gzip, Packed::Zstd].map(|packed| layer(&[7; 70_000], packed));
    let specimen = Specimen::of("web", &layers);
    let archive = opened(&specimen).unwrap();
    assert_eq!((archive.image(), archive.manifest()), (specimen.image, specimen.manifest));
    assert_eq!(archive.diff_ids().collect::<Vec<_>>(), [digest(&[7; 70_000]); 3]);
    assert_eq!(archive.check_layers().unwrap(), 3 * 70_000);
    assert!(archive.platform().is_for("x86_64") && !archive.platform().is_for("aarch64"));
    assert_eq!(archive.platform().to_string(), "linux/amd64");
}

#[test]
fn an_engine_gets_the_image_alone_in_its_own_form_with_the_same_bytes() {
    let mut specimen = Specimen::small("web");
    let other = Specimen::small("other");
    specimen.files.extend(other.files.into_iter().filter(|(name, _)| name.starts_with("blobs/")));
    let mut specimen = with_index(specimen, |index| {
        index["manifests"][0]["annotations"] =
            json!({ "org.opencontainers.image.ref.name": "localhost/evil:1" });
    });
    // One blob is there once, of both.
    specimen.files.sort();
    specimen.files.dedup();
    let archive = opened(&specimen).unwrap();
    let (oci, docker) = (archive.pack(Form::Oci).unwrap(), archive.pack(Form::Docker).unwrap());

    let again = ImageArchive::open(&oci, &specimen.image).unwrap();
    assert_eq!(again.manifest(), specimen.manifest);
    again.check_layers().unwrap();
    let files = contents(&oci);
    assert_eq!(files.len(), 2 + 2 + 2, "{:?}", files.keys());
    let index = String::from_utf8(files["index.json"].clone()).unwrap();
    assert!(!index.contains("evil"), "{index}");

    let files = contents(&docker);
    let [image] = &serde_json::from_slice::<Vec<Value>>(&files["manifest.json"]).unwrap()[..] else {
        panic!()
    };
    assert_eq!(image["RepoTags"], Value::Null);
    let config = &files[image["Config"].as_str().unwrap()];
    assert_eq!(digest(config), specimen.image);
    let layers = image["Layers"].as_array().unwrap();
    assert!(layers.len() == 2 && layers.iter().all(|layer| files.contains_key(layer.as_str().unwrap())));
}

#[test]
fn an_image_may_lie_below_a_second_index_beside_what_is_none() {
    let mut specimen = Specimen::small("web");
    let outer = specimen.file("index.json").clone();
    let attestation = br#"{"predicate": {}}"#;
    let mut inner: Value = serde_json::from_slice(&outer).unwrap();
    let list = inner["manifests"].as_array_mut().unwrap();
    list.push(descriptor("application/vnd.in-toto+json", attestation));
    list.push(list[0].clone());
    let inner = inner.to_string().into_bytes();
    *specimen.file("index.json") =
        json!({ "schemaVersion": 2, "manifests": [descriptor(INDEX, &inner)] }).to_string().into_bytes();
    specimen.files.push(blob(&inner));
    assert_eq!(opened(&specimen).unwrap().manifest(), specimen.manifest);
    // No deeper than engines write.
    let mut deeper = specimen.clone();
    let mut bytes = inner;
    for _ in 0..3 {
        bytes = json!({ "manifests": [descriptor(INDEX, &bytes)] }).to_string().into_bytes();
        deeper.files.push(blob(&bytes));
    }
    *deeper.file("index.json") = bytes;
    assert!(refusal(&deeper).contains("indexes below each other"));
}

#[test]
fn each_lie_about_an_archive_has_its_own_words() {
    let good = Specimen::small("web");
    let config = format!("blobs/sha256/{}", good.image.sha256());
    let manifest = format!("blobs/sha256/{}", good.manifest.sha256());
    let mut changed = good.clone();
    changed.file(&config).push(b' ');
    let mut stray = good.clone();
    stray.files.push(("../etc/passwd".to_owned(), Vec::new()));
    let mut twice = good.clone();
    twice.files.push(good.files[2].clone());
    let mut two_indexes = good.clone();
    two_indexes.files.push(good.files[1].clone());
    let mut layout = good.clone();
    *layout.file("oci-layout") = br#"{"imageLayoutVersion": "2.0.0"}"#.to_vec();
    let mut other_digest = good.clone();
    other_digest.files.push((format!("blobs/sha512/{}", "0".repeat(128)), Vec::new()));
    let mut no_json = good.clone();
    *no_json.file("index.json") = b"{".to_vec();
    let mut large = good.clone();
    *large.file("index.json") = vec![b' '; 5 << 20];
    let foreign = LayerSpecimen {
        media_type: "application/vnd.oci.image.layer.nondistributable.v1.tar",
        ..layer(b"web", Packed::Plain)
    };
    let missing = configuration("web", &[digest(b"one"), digest(b"two")]);
    let not_linux = json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "windows", "diff_ids": [] }
    });
    for (what, specimen, words) in [
        ("a changed blob", changed, "has other bytes"),
        ("a path", stray.clone(), "found \"../etc/passwd\""),
        ("a blob twice", twice, "twice"),
        ("two indexes", two_indexes, "\"index.json\" twice"),
        ("no layout", good.clone().without("oci-layout"), "it has no oci-layout"),
        ("no index", good.clone().without("index.json"), "it has no index.json"),
        ("another layout", layout, "expected version 1.0.0, found \"2.0.0\""),
        ("another digest", other_digest, "no OCI image layout"),
        ("no JSON", no_json, "an index of the image's archive cannot be read"),
        ("a large index", large, "bytes of an index"),
        ("no manifest", good.clone().without(&manifest), "an index names sha256:"),
        ("no configuration", good.clone().without(&config), "a manifest names sha256:"),
        (
            "another size",
            with_index(good.clone(), |index| index["manifests"][0]["size"] = json!(1)),
            "with 1 bytes, and the archive has one of",
        ),
        (
            "no digest",
            with_index(good.clone(), |index| index["manifests"][0]["digest"] = json!("md5:00")),
            "\"md5:00\": expected sha256: and 64 digits",
        ),
        (
            "no image",
            with_index(good.clone(), |index| index["manifests"] = json!([])),
            "no image with the configuration",
        ),
        ("another image", Specimen { image: digest(b"another"), ..good.clone() }, &good.image.to_string()),
        ("a foreign layer", Specimen::of("web", &[foreign]), "nondistributable"),
        (
            "fewer layers than configured",
            Specimen::with(&missing, &[layer(b"one", Packed::Plain)]),
            "names 2 layers, its manifest 1",
        ),
        ("no layers at all", Specimen::with(&not_linux, &[]), "found \"windows\""),
    ] {
        let refusal = refusal(&specimen);
        assert!(refusal.contains(words), "{what}: {refusal}");
    }
}

#[test]
fn links_and_damage_are_refused_wherever_they_stand() {
    let good = Specimen::small("web").bytes();
    let image = Specimen::small("web").image;
    let open = |bytes: &[u8]| ImageArchive::open(&file_of(bytes), &image);
    // Cut at any place before the end marker it is not whole.
    for length in (0..good.len() - 1024).step_by(171) {
        assert!(open(&good[..length]).is_err(), "cut at {length}");
    }
    let mut links = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    links.append_link(&mut header, "index.json", "/etc/shadow").unwrap();
    let error = open(&links.into_inner().unwrap()).unwrap_err();
    assert!(with_causes(&error).contains("found a symbolic link"), "{}", with_causes(&error));
    let error = open(&gzip(&good)).unwrap_err();
    assert!(with_causes(&error).contains("gzip"), "{}", with_causes(&error));
}

#[test]
fn no_byte_of_a_good_archive_can_be_another_unseen() {
    let specimen = Specimen::small("web");
    let good = specimen.bytes();
    let files: Vec<&(String, Vec<u8>)> = specimen.files.iter().collect();
    for (name, content) in files {
        let at = good.windows(content.len()).position(|part| part == &content[..]).unwrap();
        for place in [at, at + content.len() / 2, at + content.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            let taken = ImageArchive::open(&file_of(&bad), &specimen.image)
                .is_ok_and(|archive| archive.check_layers().is_ok());
            assert!(!taken, "byte {place} of {name}");
        }
    }
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_or_no_stream_at_all_is_found() {
    let other = LayerSpecimen { diff_id: digest(b"promised"), ..layer(b"delivered", Packed::Gzip) };
    let refusal = refusal_of_layers(&Specimen::of("web", &[other]), Limits::default());
    assert!(refusal.contains(&format!("its configuration says {}", digest(b"promised"))), "{refusal}");
    for packed in [Packed::Gzip, Packed::Zstd] {
        let mut cut = layer(&[9; 5000], packed);
        cut.packed.truncate(cut.packed.len() - 5);
        let refusal = refusal_of_layers(&Specimen::of("web", &[cut]), Limits::default());
        assert!(refusal.contains("cannot be decompressed"), "{packed:?}: {refusal}");
    }
    let mut trailing = layer(b"whole", Packed::Gzip);
    trailing.packed.extend(b"and something behind it");
    let refusal = refusal_of_layers(&Specimen::of("web", &[trailing]), Limits::default());
    assert!(refusal.contains("cannot be decompressed"), "{refusal}");
}

#[test]
fn a_bomb_is_stopped_long_before_it_is_unpacked() {
    let bomb = |packed| Specimen::of("bomb", &[layer(&vec![0; 8 << 20], packed)]);
    let fair = Limits { ratio: 10, ratio_free: 1 << 20, ..Limits::default() };
    for packed in [Packed::Gzip, Packed::Zstd] {
        let refusal = refusal_of_layers(&bomb(packed), fair);
        assert!(refusal.contains("packed so small"), "{packed:?}: {refusal}");
    }
    let small = Limits { unpacked: 12 << 20, ..Limits::default() };
    let two = [Packed::Gzip, Packed::Zstd].map(|packed| layer(&vec![0; 8 << 20], packed));
    let refusal = refusal_of_layers(&Specimen::of("two", &two), small);
    assert!(refusal.contains("bytes of unpacked layers"), "{refusal}");
    let many = vec![layer(b"one", Packed::Plain); 128];
    let specimen = Specimen::of("many", &many);
    let specimen = Specimen { files: dedup(specimen.files), ..specimen };
    assert!(self::refusal(&specimen).contains("at most 127 layers, found 128"));
}

fn dedup(mut files: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    files.sort();
    files.dedup();
    files
}

#[test]
fn the_documents_of_docker_are_taken_too() {
    let mut specimen = Specimen::small("web");
    let manifest = specimen.files[3].clone();
    let text = String::from_utf8(manifest.1).unwrap();
    let text = text.replace(MANIFEST, "application/vnd.docker.distribution.manifest.v2+json").replace(
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    );
    specimen.files[3] = blob(text.as_bytes());
    let entry = descriptor("application/vnd.docker.distribution.manifest.v2+json", text.as_bytes());
    let specimen = with_index(specimen, |index| index["manifests"] = json!([entry]));
    opened(&specimen).unwrap().check_layers().unwrap();
}
