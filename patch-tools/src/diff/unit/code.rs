//! Instructions of a function, as far as relocations need them.
//!
//! A PC-relative relocation counts from its own place, the processor from the end of the instruction. The
//! difference is 4 bytes, and more when an immediate follows; only decoding tells.

use iced_x86::{Decoder, DecoderOptions, Instruction};

/// Iterates over the instructions of `bytes`; `base` is the offset of the first byte.
///
/// After bytes that are no instruction it goes on at the next byte, so that the offsets still cover
/// everything.
pub(crate) fn instructions(bytes: &[u8], base: u64) -> impl Iterator<Item = Decoded> + '_ {
    let mut decoder = Decoder::with_ip(64, bytes, base, DecoderOptions::NONE);
    std::iter::from_fn(move || {
        if !decoder.can_decode() {
            return None;
        }
        let position = decoder.position();
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            let next = position + 1;
            decoder.set_position(next).ok()?;
            decoder.set_ip(base + next as u64);
        }
        let constants = decoder.get_constant_offsets(&instruction);
        Some(Decoded {
            start: instruction.ip(),
            end: decoder.ip(),
            displacement: constants
                .has_displacement()
                .then(|| instruction.ip() + constants.displacement_offset() as u64),
            immediate: constants.has_immediate().then(|| {
                let start = instruction.ip() + constants.immediate_offset() as u64;
                (start, start + constants.immediate_size() as u64)
            }),
            instruction,
        })
    })
}

/// One instruction and where its fields are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoded {
    /// Offset of the first byte.
    pub(crate) start: u64,
    /// Offset behind the last byte.
    pub(crate) end: u64,
    /// Offset of the displacement.
    pub(crate) displacement: Option<u64>,
    /// Offsets of the immediate or branch offset.
    pub(crate) immediate: Option<(u64, u64)>,
    /// The instruction.
    pub(crate) instruction: Instruction,
}

impl Decoded {
    /// Whether it goes to a fixed place: a direct call, jump or conditional jump.
    pub(crate) fn is_direct_branch(&self) -> bool {
        let instruction = &self.instruction;
        instruction.is_call_near() || instruction.is_jmp_short_or_near() || instruction.is_jcc_short_or_near()
    }

    /// The place that it refers to relative to itself, and where the 4-byte field for it is.
    pub(crate) fn relative_target(&self) -> Option<(u64, u64)> {
        if self.is_direct_branch() {
            let (start, end) = self.immediate?;
            return (end - start == 4).then(|| (self.instruction.near_branch_target(), start));
        }
        if self.instruction.is_ip_rel_memory_operand() {
            return Some((self.instruction.ip_rel_memory_address(), self.displacement?));
        }
        None
    }
}
