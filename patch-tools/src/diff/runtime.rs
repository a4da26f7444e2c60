//! Constants that the kernel writes into its own code when it boots (`arch/x86/include/asm/runtime-const.h`).
//!
//! An address, such as that of a hash table, is the operand of an instruction, and `runtime_ptr_NAME` lists where. The
//! kernel does this once, for itself, and for no module. So the code of a livepatch reads the variable instead: both
//! instructions write the same register and touch no flags, and the second is the shorter one.
//!
//! A shift by such a constant (`runtime_shift_NAME`) has no room for that, and is refused.

/// `movabs $CONSTANT, %register`: ten bytes, of which the constant is the last eight.
pub(crate) const LENGTH: usize = 10;

/// Where the constant stands in it.
pub(crate) const CONSTANT: u64 = 2;

/// An instruction that reads a variable, and a no-op behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// The bytes.
    pub(crate) code: [u8; LENGTH],
    /// Where in them the variable's distance goes, which counts from the end of the instruction, four bytes behind.
    pub(crate) field: u64,
}

/// The instruction that reads from memory what `code` has in itself; nothing if that is another instruction.
pub(crate) fn load_instead(code: &[u8]) -> Option<Load> {
    let &[prefix @ (0x48 | 0x49), opcode @ 0xb8..=0xbf, ..] = code.get(..LENGTH)? else { return None };
    // REX.B of the one is REX.R of the other.
    let rex = 0x48 | (prefix & 1) << 2;
    let operand = (opcode & 7) << 3 | 5;
    Some(Load { code: [rex, 0x8b, operand, 0, 0, 0, 0, 0x0f, 0x1f, 0x00], field: 3 })
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    use super::*;

    #[test]
    fn the_register_and_the_length_stay_and_the_operand_is_relative() {
        for (prefix, register) in [0x48, 0x49].iter().flat_map(|prefix| (0..8).map(move |one| (*prefix, one)))
        {
            let before = [prefix, 0xb8 + register, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01];
            let load = load_instead(&before).unwrap();
            let decode = |code: &[u8]| {
                let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
                let first = decoder.decode();
                // Of the instruction that was decoded last.
                let at = decoder.get_constant_offsets(&first).displacement_offset();
                let rest = decoder.can_decode().then(|| decoder.decode());
                (first, rest, at)
            };
            let ((old, none, _), (new, no_op, at)) = (decode(&before), decode(&load.code));
            assert!(none.is_none());
            assert_eq!(new.mnemonic(), Mnemonic::Mov);
            assert_eq!(new.op0_register(), old.op0_register());
            assert!(new.is_ip_rel_memory_operand() && at as u64 == load.field && new.len() == 7);
            assert!(no_op.is_some_and(|one| one.mnemonic() == Mnemonic::Nop && one.len() == 3));
        }
        assert_eq!(load_instead(&[0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0x90, 0x90, 0x90]), None);
        assert_eq!(load_instead(&[0x48, 0xb8]), None);
    }
}
