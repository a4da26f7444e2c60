//! What the image reader makes of small kernels in every order and packing, and of broken ones.

mod support;

use patch_tools::elf::Rule;
use patch_tools::image::{ImageError, KernelImage};
use patch_tools::module::Layout;
use support::kernel::{self, Kallsyms, Packing, RELEASE, TEXT, TRACEABLE, bzimage, vmlinux};

const PACKINGS: [Packing; 6] =
    [Packing::None, Packing::Gzip, Packing::Xz, Packing::Lzma, Packing::Zstd, Packing::Lz4];

#[test]
fn every_compression_gives_the_same_kernel() {
    let plain = vmlinux(Kallsyms::WithSequences);
    for packing in PACKINGS {
        let image = KernelImage::parse(&bzimage(&plain, packing))
            .unwrap_or_else(|error| panic!("{packing:?}: {error}"));
        assert_eq!(image.section(".text"), Some(&kernel_text(&plain)[..]), "{packing:?}");
        assert_eq!(image.release(), RELEASE);
    }
}

/// The text section as an independent reader finds it.
fn kernel_text(file: &[u8]) -> Vec<u8> {
    use object::{Object as _, ObjectSection as _};
    let file = object::File::parse(file).unwrap();
    file.section_by_name(".text").unwrap().data().unwrap().to_vec()
}

#[test]
fn kallsyms_is_decoded_in_every_order_of_its_tables() {
    for order in [Kallsyms::Classic, Kallsyms::WithSequences, Kallsyms::OffsetsLast, Kallsyms::FromPlaces] {
        let image = KernelImage::parse(&vmlinux(order)).unwrap_or_else(|error| panic!("{order:?}: {error}"));
        let found: Vec<_> = image
            .kallsyms()
            .iter()
            .map(|symbol| (char::from(symbol.letter), symbol.name.to_owned(), symbol.address - TEXT))
            .collect();
        assert_eq!(found, kernel::symbols(), "{order:?}");
    }
}

#[test]
fn symbols_of_one_name_are_counted_by_address_and_sized_by_the_next() {
    let image = KernelImage::parse(&vmlinux(Kallsyms::Classic)).unwrap();
    let twins: Vec<_> = image.kallsyms().named("twin").map(|twin| (twin.address - TEXT, twin.size)).collect();
    assert_eq!(twins, [(0x300, Some(0x100)), (0x400, Some(0x6c00))]);
}

#[test]
fn identity_exports_and_ftrace_sites_are_read() {
    let image = KernelImage::parse(&vmlinux(Kallsyms::WithSequences)).unwrap();
    assert_eq!(image.vermagic(), Some("6.1.0-50-amd64 SMP preempt mod_unload modversions "));
    assert!(image.banner().starts_with("Linux version 6.1.0-50-amd64 (builder@example)"));
    assert_eq!(image.build_id(), Some("ab".repeat(20).as_str()));
    assert_eq!(image.ftrace_sites(), TRACEABLE.map(|distance| TEXT + distance));
    let export = &image.exports()["klp_enable_patch"];
    assert_eq!((export.crc, export.namespace.as_deref()), (Some(0xb27d_e5fe), Some("SPACE")));
    let export = &image.exports()["helper"];
    assert_eq!((export.crc, export.namespace.as_deref()), (Some(0x1111_2222), None));
}

#[test]
fn the_livepatch_layout_comes_from_the_types() {
    let image = KernelImage::parse(&vmlinux(Kallsyms::WithSequences)).unwrap();
    let layout = image.livepatch_layout().unwrap();
    assert_eq!(layout, Some(Layout { object: 176, function: 160, state: 24 }));
    let btf = image.btf().unwrap().unwrap();
    let object = btf.structure("klp_object").unwrap();
    let members: Vec<_> =
        object.members.iter().map(|member| (member.name, member.offset, member.type_name.as_str())).collect();
    assert_eq!(members, [("first", 0, "void *"), ("second", 64, "long unsigned int")]);
}

#[test]
fn bytes_are_found_by_address_and_never_beyond_a_section() {
    let image = KernelImage::parse(&vmlinux(Kallsyms::Classic)).unwrap();
    assert_eq!(image.bytes(TEXT + 0x100, 5), Some(&[0xe8, 0, 0, 0, 0][..]));
    assert_eq!(image.bytes(TEXT + 0x4fc, 5), None);
    assert_eq!(image.bytes(TEXT + 0x80000, 1), None, "a section without bytes");
    assert_eq!(image.bytes(0, 1), None);
}

fn rule(data: &[u8]) -> Rule {
    match KernelImage::parse(data).expect_err("a broken image") {
        ImageError::Malformed(error) => error.rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_kernel_image_is_refused_by_rule() {
    assert_eq!(rule(b""), Rule::ImageSetup);
    assert_eq!(rule(&[0; 4096]), Rule::ImageSetup);
    let image = bzimage(&vmlinux(Kallsyms::Classic), Packing::Zstd);
    assert_eq!(rule(&image[..2000]), Rule::ImageSetup, "the payload is cut");
    let mut old = image.clone();
    old[0x206] = 0x07;
    assert_eq!(rule(&old), Rule::ImageSetup);
}

#[test]
fn a_payload_that_is_damaged_or_unknown_is_named_with_its_offset() {
    let kernel = vmlinux(Kallsyms::Classic);
    for packing in [Packing::Gzip, Packing::Xz, Packing::Zstd, Packing::Lz4] {
        let mut image = bzimage(&kernel, packing);
        let middle = 1056 + (image.len() - 1056) / 2;
        image[middle..middle + 64].fill(0x5a);
        let error = KernelImage::parse(&image).expect_err("a damaged image");
        assert!(
            matches!(error, ImageError::Decompress { offset: 1056, .. } | ImageError::Malformed(_)),
            "{error:?}"
        );
    }
    let mut image = bzimage(&kernel, Packing::Xz);
    image[1056..1060].copy_from_slice(b"LZO!");
    let error = KernelImage::parse(&image).expect_err("an unknown compression");
    assert!(matches!(error, ImageError::Compression { offset: 1056, .. }), "{error:?}");
}

#[test]
fn a_kernel_without_kallsyms_or_banner_is_refused_by_rule() {
    let kernel = vmlinux(Kallsyms::WithSequences);
    let without = |text: &[u8]| {
        let mut kernel = kernel.clone();
        let at = kernel.windows(text.len()).rposition(|window| window == text).unwrap();
        kernel[at] ^= 0xff;
        rule(&kernel)
    };
    assert_eq!(without(b"0\x001\x002\x003\x004\x005"), Rule::KallsymsTokens);
    assert_eq!(without(b"Linux version 6.1"), Rule::ImageIdentity);
    assert_eq!(without(b"\x0atfiller_17"), Rule::KallsymsNames, "a length that leads astray");
}
