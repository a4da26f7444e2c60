//! The readers, and where their first inputs come from.

use crate::{Target, seeds};

/// A text that a person or a program writes.
const TEXT: usize = 8 << 10;

/// Nothing besides what is kept in files.
fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

/// Every reader of what others wrote.
pub const TARGETS: &[Target] = &[
    Target {
        name: "envelope",
        run: manifests::fuzzing::envelope,
        folders: &[],
        made: seeds::envelopes,
        longest: TEXT,
    },
    Target {
        name: "manifest",
        run: manifests::fuzzing::manifest,
        folders: &["manifests/examples", "manifests/tests/truth.yaml", "manifests/tests/lies"],
        made: none,
        longest: TEXT,
    },
    Target {
        name: "policy",
        run: manifests::fuzzing::policy,
        folders: &["manifests/examples/policy", "manifests/tests/policies"],
        made: none,
        longest: TEXT,
    },
    Target {
        name: "revocation",
        run: manifests::fuzzing::revocation,
        folders: &["manifests/tests/revocations"],
        made: none,
        longest: TEXT,
    },
    Target { name: "rollout", run: manifests::fuzzing::rollout, folders: &[], made: none, longest: TEXT },
    Target { name: "grant", run: manifests::fuzzing::grant, folders: &[], made: none, longest: TEXT },
    Target {
        name: "public-key",
        run: manifests::fuzzing::public_key,
        folders: &[],
        made: none,
        longest: TEXT,
    },
    Target { name: "evidence", run: manifests::fuzzing::evidence, folders: &[], made: none, longest: TEXT },
    Target { name: "origin", run: manifests::fuzzing::origin, folders: &[], made: none, longest: TEXT },
    Target { name: "journal", run: manifests::fuzzing::journal, folders: &[], made: none, longest: TEXT },
    Target { name: "tuf-draft", run: repository::fuzzing::draft, folders: &[], made: none, longest: TEXT },
    Target {
        name: "tuf-metadata",
        run: repository::fuzzing::metadata,
        folders: &["fuzz/corpus/tuf-draft"],
        made: none,
        longest: TEXT,
    },
    Target {
        name: "transport-frames",
        run: repository::fuzzing::frames,
        folders: &[],
        made: seeds::frames,
        longest: TEXT,
    },
    Target {
        name: "repository-place",
        run: repository::fuzzing::place,
        folders: &[],
        made: none,
        longest: 1 << 10,
    },
    Target {
        name: "signed-note",
        run: manifests::fuzzing::signed_note,
        folders: &[],
        made: seeds::signed_notes,
        longest: TEXT,
    },
    Target {
        name: "checkpoint",
        run: manifests::fuzzing::checkpoint,
        folders: &[],
        made: seeds::signed_notes,
        longest: TEXT,
    },
    Target {
        name: "log-proof",
        run: manifests::fuzzing::log_proof,
        folders: &[],
        made: seeds::log_proofs,
        longest: TEXT,
    },
    Target {
        name: "log-policy",
        run: manifests::fuzzing::log_policy,
        folders: &[],
        made: seeds::log_policies,
        longest: TEXT,
    },
    Target {
        name: "log-entry",
        run: manifests::fuzzing::log_entry,
        folders: &[],
        made: seeds::log_entries,
        longest: TEXT,
    },
    Target {
        name: "log-tile",
        run: repository::fuzzing::tile,
        folders: &[],
        made: seeds::tiles,
        longest: TEXT,
    },
    Target {
        name: "entry-bundle",
        run: repository::fuzzing::entry_bundle,
        folders: &[],
        made: seeds::entry_bundles,
        longest: TEXT,
    },
    Target {
        name: "bundle",
        run: repository::fuzzing::bundle,
        folders: &[],
        made: seeds::bundles,
        longest: 16 << 10,
    },
    Target {
        name: "layer",
        run: workloads::fuzzing::layer,
        folders: &[],
        made: seeds::layers,
        longest: 16 << 10,
    },
    Target {
        name: "layer-zstd",
        run: workloads::fuzzing::layer_zstd,
        folders: &[],
        made: seeds::packed_layers,
        longest: TEXT,
    },
    Target {
        name: "image-archive",
        run: workloads::fuzzing::image_archive,
        folders: &[],
        made: seeds::image_archives,
        longest: 16 << 10,
    },
    Target { name: "pax", run: workloads::fuzzing::pax, folders: &[], made: none, longest: TEXT },
    Target {
        name: "checkpoint-image",
        run: workloads::fuzzing::checkpoint_image,
        folders: &[],
        made: seeds::checkpoint_images,
        longest: TEXT,
    },
    Target { name: "maps", run: workloads::fuzzing::maps, folders: &[], made: none, longest: TEXT },
    Target { name: "mountinfo", run: workloads::fuzzing::mountinfo, folders: &[], made: none, longest: TEXT },
    Target { name: "ruleset", run: workloads::fuzzing::ruleset, folders: &[], made: none, longest: TEXT },
    Target { name: "comm", run: workloads::fuzzing::comm, folders: &[], made: none, longest: 64 },
    Target {
        name: "build-id",
        run: workloads::fuzzing::build_id,
        folders: &[],
        made: seeds::objects,
        longest: 16 << 10,
    },
    Target {
        name: "elf",
        run: patch_tools::fuzzing::elf,
        folders: &[],
        made: seeds::objects,
        longest: 16 << 10,
    },
    Target {
        name: "module",
        run: patch_tools::fuzzing::module,
        folders: &[],
        made: seeds::objects,
        longest: 16 << 10,
    },
    Target {
        name: "image",
        run: patch_tools::fuzzing::image,
        folders: &[],
        made: seeds::kernels,
        longest: 128 << 10,
    },
    Target { name: "patch", run: patch_tools::fuzzing::patch, folders: &[], made: none, longest: TEXT },
];
