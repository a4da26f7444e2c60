//! Inputs that are made and not kept: what is binary, and what is signed.

#[expect(dead_code, reason = "memory of a running kernel is not among the inputs")]
#[path = "../../patch-tools/tests/support/kernel.rs"]
mod kernel;

use manifests::log::tree::Frontier;
use manifests::log::{Checkpoint, LogEntry, LogProof, Note, NoteKeyKind, NoteName, NoteSigner};
use manifests::{DocumentKind, Envelope, SecretKey, Sha256};
use object::write::{Object, Relocation, StandardSegment, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

use repository::fuzzing::archive_of;
use repository::log::tiles::write_bundle;
use repository::transport::wire::{self, Frame};

use self::kernel::{Kallsyms, Packing, bzimage, vmlinux};

/// An envelope of every kind of document, with no, one and two signatures.
pub(crate) fn envelopes() -> Vec<Vec<u8>> {
    let mut made = Vec::new();
    for (signatures, kind) in DocumentKind::ALL.into_iter().enumerate() {
        let mut envelope = Envelope::new(kind, b"schema: 1\n".to_vec());
        for seed in 0..signatures % 3 {
            let _ = envelope.sign(&SecretKey::from_seed([seed as u8; 32]));
        }
        made.push(envelope.to_json().into_bytes());
    }
    made
}

/// What an `update-transport` says of a file, of one that is not there, and when it went wrong.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let say = |frames: &[(Frame, &[u8])]| {
        let mut said = Vec::new();
        for (frame, content) in frames {
            wire::write(&mut said, *frame, content).expect("memory");
        }
        said
    };
    vec![
        say(&[(Frame::Begins, &[0; 8]), (Frame::Data, b"content"), (Frame::Ends, b"")]),
        say(&[(Frame::Begins, &[4, 0, 0, 0, 0, 0, 0, 0]), (Frame::Data, b""), (Frame::Failed, b"cut")]),
        say(&[(Frame::Absent, b"")]),
        say(&[(Frame::Elsewhere, b"http://127.0.0.2/")]),
        b"d\xff\xff\xff\xff".to_vec(),
    ]
}

/// A log's key, and a witness's.
fn noted() -> (SecretKey, SecretKey) {
    (SecretKey::from_seed([41; 32]), SecretKey::from_seed([51; 32]))
}

/// The checkpoint of a log of so many entries, cosigned.
fn checkpoint(size: u64) -> Note {
    let (log, witness) = noted();
    let mut frontier = Frontier::default();
    (0..size).for_each(|number| drop(frontier.append(&entry(number))));
    let origin: NoteName = "updates.example.org/log".parse().expect("a name");
    let mut note = Note::unsigned(Checkpoint { origin: origin.clone(), head: frontier.head() }.to_text());
    note.add(NoteSigner::new(origin, &log).sign(note.text()));
    note.add(
        NoteSigner::new("w1.example".parse().expect("a name"), &witness).cosign(note.text(), 1_794_000_000),
    );
    note
}

fn entry(number: u64) -> Vec<u8> {
    let entry = LogEntry {
        document: DocumentKind::Manifest,
        name: "greet".parse().expect("a name"),
        version: number + 1,
        sha256: Sha256::of(&number.to_be_bytes()),
        signers: vec![SecretKey::from_seed([1; 32]).public().id()],
    };
    entry.to_bytes()
}

/// Checkpoints of small logs, an unsigned-looking one, a verifier key.
pub(crate) fn signed_notes() -> Vec<Vec<u8>> {
    let (log, witness) = noted();
    let key = |secret, kind| {
        NoteSigner::new("w1.example".parse().expect("a name"), secret).verifier(kind).to_string()
    };
    let mut made: Vec<Vec<u8>> = [0, 1, 5].map(|size| checkpoint(size).to_string().into_bytes()).to_vec();
    made.push(key(&log, NoteKeyKind::Log).into_bytes());
    made.push(key(&witness, NoteKeyKind::Witness).into_bytes());
    made.push("text\n\nmore\n\n\u{2014} name AAAAAAAA\n".into());
    made
}

/// Proofs of the first and the last entry, and one with extra data.
pub(crate) fn log_proofs() -> Vec<Vec<u8>> {
    let proof = |index, hashes| {
        let note = checkpoint(5);
        let checkpoint = Checkpoint::parse(note.text()).expect("a checkpoint");
        LogProof { index, path: vec![Sha256::of(b"hash"); hashes], checkpoint, note }.to_string()
    };
    let made = [proof(0, 3), proof(4, 1), proof(4, 0), proof(0, 1).replace("\nindex", "\nextra AAAA\nindex")];
    made.map(String::into_bytes).to_vec()
}

/// Policies of a log alone, of one witness, and of groups in groups.
pub(crate) fn log_policies() -> Vec<Vec<u8>> {
    let (log, witness) = noted();
    let key =
        |name: &str, secret, kind| NoteSigner::new(name.parse().expect("a name"), secret).verifier(kind);
    let head = format!("log {}\n", key("updates.example.org/log", &log, NoteKeyKind::Log));
    let one =
        format!("witness w1 {} https://w1.example/\n", key("w1.example", &witness, NoteKeyKind::Witness));
    let made = [
        format!("{head}quorum none\n"),
        format!("# company\n{head}{one}quorum w1\n"),
        format!("{head}{one}group a all w1\ngroup b any a\nquorum b\n"),
    ];
    made.map(String::into_bytes).to_vec()
}

/// Entries, and the same with a space.
pub(crate) fn log_entries() -> Vec<Vec<u8>> {
    let spaced = String::from_utf8_lossy(&entry(0)).replace(':', ": ");
    vec![entry(0), entry(1 << 40), spaced.into_bytes()]
}

/// Tiles of one, two and all hashes.
pub(crate) fn tiles() -> Vec<Vec<u8>> {
    [1, 2, 256, 257].map(|width| vec![0x5a; 32 * width]).to_vec()
}

/// Entry bundles of one, two and all entries.
pub(crate) fn entry_bundles() -> Vec<Vec<u8>> {
    let entries = |count| write_bundle(&(0..count).map(entry).collect::<Vec<_>>());
    vec![entries(1), entries(2), write_bundle(&vec![b"x".to_vec(); 256]), b"\xff\xff".to_vec()]
}

/// Bundles: the smallest, one with members of each kind, and one that is cut short.
pub(crate) fn bundles() -> Vec<Vec<u8>> {
    let digest = Sha256::of(b"payload");
    let targets = format!("targets/{digest}");
    let proof = format!("log/proof/{digest}.tlog-proof");
    let members: [(&str, &[u8]); 7] = [
        ("bundle.json", b"{}"),
        (&targets, b"payload"),
        ("metadata/1.root.json", b"{}"),
        (&proof, b"proof"),
        ("log/tile/0/000.p/1", &[0; 32]),
        ("policy.json", b"{}"),
        ("revocations/0001.json", b"{}"),
    ];
    let mut cut = archive_of(&members);
    cut.truncate(1500);
    vec![archive_of(&members[..1]), archive_of(&members), cut]
}

/// The archive of an image with a plain and a packed layer, each of its documents, and the archive cut short.
pub(crate) fn image_archives() -> Vec<Vec<u8>> {
    const LAYERS: [&[u8]; 2] = [b"lower", b"upper"];
    let digest = |bytes: &[u8]| format!("sha256:{}", Sha256::of(bytes));
    let described = |kind: &str, bytes: &[u8]| {
        let (digest, size) = (digest(bytes), bytes.len());
        format!(
            r#"{{"mediaType": "application/vnd.oci.image.{kind}", "digest": "{digest}", "size": {size}}}"#
        )
    };
    let packed = zstd::encode_all(LAYERS[1], 3).expect("memory");
    let configuration = format!(
        r#"{{"architecture": "amd64", "os": "linux", "rootfs": {{"type": "layers", "diff_ids": ["{}", "{}"]}}}}"#,
        digest(LAYERS[0]),
        digest(LAYERS[1])
    );
    let manifest = format!(
        r#"{{"schemaVersion": 2, "config": {}, "layers": [{}, {}]}}"#,
        described("config.v1+json", configuration.as_bytes()),
        described("layer.v1.tar", LAYERS[0]),
        described("layer.v1.tar+zstd", &packed)
    );
    let index = format!(
        r#"{{"schemaVersion": 2, "manifests": [{}]}}"#,
        described("manifest.v1+json", manifest.as_bytes())
    );
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", Sha256::of(bytes));
    let blobs = [configuration.as_bytes(), manifest.as_bytes(), LAYERS[0], &packed];
    let names = blobs.map(name);
    let mut members: Vec<(&str, &[u8])> =
        vec![("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#), ("index.json", index.as_bytes())];
    members.extend(names.iter().map(String::as_str).zip(blobs));
    let whole = archive_of(&members);
    let cut = whole[..2000].to_vec();
    vec![
        whole,
        cut,
        index.clone().into_bytes(),
        manifest.clone().into_bytes(),
        configuration.clone().into_bytes(),
    ]
}

/// Archives of one entry each, and one of all of them.
pub(crate) fn layers() -> Vec<Vec<u8>> {
    const ENTRIES: [(&str, tar::EntryType, &str, &[u8]); 7] = [
        ("usr/", tar::EntryType::Directory, "", b""),
        ("usr/lib.so", tar::EntryType::Regular, "", b"content"),
        ("usr/again", tar::EntryType::Link, "usr/lib.so", b""),
        ("usr/link", tar::EntryType::Symlink, "lib.so", b""),
        ("usr/.wh.gone", tar::EntryType::Regular, "", b""),
        ("etc/.wh..wh..opq", tar::EntryType::Regular, "", b""),
        ("null", tar::EntryType::Char, "", b""),
    ];
    let extended = (
        "PaxHeaders/x",
        tar::EntryType::XHeader,
        "",
        &b"12 path=usr\n20 mtime=1700000000.5\n25 SCHILY.xattr.user.a=bc\n"[..],
    );
    let long = ("././@LongLink", tar::EntryType::GNULongName, "", &b"usr/a-name-that-is-long\0"[..]);
    let mut made: Vec<Vec<u8>> = ENTRIES.iter().map(|entry| archive(&[*entry])).collect();
    made.push(archive(&ENTRIES[..6]));
    made.push(archive(&[extended, ENTRIES[1]]));
    made.push(archive(&[long, ENTRIES[1]]));
    made
}

fn archive(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).expect("a short name");
        if !link.is_empty() {
            header.set_link_name(link).expect("a short name");
        }
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).expect("memory");
    }
    builder.into_inner().expect("memory")
}

/// The same under zstd.
pub(crate) fn packed_layers() -> Vec<Vec<u8>> {
    layers().iter().map(|layer| zstd::encode_all(&layer[..], 3).expect("memory")).collect()
}

/// Small images of a checkpoint, by their magics (CRIU, `criu/include/magic.h`), with messages as CRIU writes them.
pub(crate) fn checkpoint_images() -> Vec<Vec<u8>> {
    const IMAGE: u32 = 0x5456_4319;
    const SERVICE: u32 = 0x5510_5940;
    let image = |magics: [u32; 2], messages: &[&[u8]]| {
        let mut bytes: Vec<u8> = magics.iter().flat_map(|magic| magic.to_le_bytes()).collect();
        for message in messages {
            bytes.extend((message.len() as u32).to_le_bytes());
            bytes.extend(*message);
        }
        bytes
    };
    // A regular file `/a` of 7 bytes on mount 1, and an established connection 127.0.0.1:80 <- 10.0.0.1:4000.
    let regular = b"\x10\x01\x1a\x08\x32\x02/a\x38\x02\x40\x07";
    let socket = b"\x10\x02\x22\x17\x08\x02\x18\x02\x28\x06\x30\x01\x38\x50\x40\xa0\x1f\x58\xff\x80\x80\x08\x60\x8a\x80\x80\x08";
    vec![
        image([IMAGE, 0x5630_3138], &[regular]),
        image([IMAGE, 0x5630_3138], &[socket]),
        image([IMAGE, 0x5630_3138], &[regular, socket]),
        image(
            [IMAGE, 0x5556_3928],
            &[b"\x08\x11\x10\x01\x3a\x02./\x68\x01", b"\x08\x05\x10\x02\x3a\x05./run"],
        ),
        image([IMAGE, 0x5027_3030], &[b"\x08\x01", b"\x08\x07"]),
        image([IMAGE, 0x5505_3847], &[b"\x1a\x08\x08\x01\x32\x04init"]),
        image([SERVICE, 0x5709_3306], &[b"\x0a\x06\x08\x01\x10\x02\x18\x03"]),
    ]
}

/// Relocatable objects: an empty one, one with code, a relocation and a note, and one that calls itself a livepatch.
pub(crate) fn objects() -> Vec<Vec<u8>> {
    let empty = || Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let mut code = empty();
    let text = code.add_section(
        code.segment_name(StandardSegment::Text).to_vec(),
        b".text".to_vec(),
        SectionKind::Text,
    );
    code.append_section_data(text, b"\xe8\x00\x00\x00\x00\xc3", 16);
    let called = code.add_symbol(symbol(b"printk", SymbolSection::Undefined));
    code.add_symbol(symbol(b"fixed", SymbolSection::Section(text)));
    let flags = RelocationFlags::Elf { r_type: object::elf::R_X86_64_PLT32 };
    code.add_relocation(text, Relocation { offset: 1, symbol: called, addend: -4, flags })
        .expect("a known type");
    let mut note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0".to_vec();
    note.extend([0xab; 20]);
    add(&mut code, b".note.gnu.build-id", SectionKind::Note, &note);
    let mut patch = empty();
    add(
        &mut patch,
        b".modinfo",
        SectionKind::ReadOnlyData,
        b"license=GPL\0livepatch=Y\0name=fix\0vermagic=6.1.0 SMP \0",
    );
    add(&mut patch, b"__versions", SectionKind::ReadOnlyData, &[1; 64]);
    [empty(), code, patch].iter().map(|object| object.write().expect("a whole object")).collect()
}

fn add(object: &mut Object<'_>, name: &[u8], kind: SectionKind, data: &[u8]) {
    let section = object.add_section(Vec::new(), name.to_vec(), kind);
    object.append_section_data(section, data, 8);
}

fn symbol(name: &[u8], section: SymbolSection) -> Symbol {
    Symbol {
        name: name.to_vec(),
        value: 0,
        size: 6,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section,
        flags: SymbolFlags::None,
    }
}

/// A small kernel with its tables in every order, and one of them in every packing.
pub(crate) fn kernels() -> Vec<Vec<u8>> {
    let orders = [Kallsyms::Classic, Kallsyms::WithSequences, Kallsyms::OffsetsLast, Kallsyms::FromPlaces];
    let packings = [Packing::None, Packing::Gzip, Packing::Xz, Packing::Lzma, Packing::Zstd, Packing::Lz4];
    let plain = orders.map(vmlinux);
    let packed = packings.iter().map(|packing| bzimage(&plain[0], *packing));
    packed.chain(plain.iter().cloned()).collect()
}
