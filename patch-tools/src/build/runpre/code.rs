//! One function against the code at one address.

use std::collections::HashMap;

use iced_x86::{
    Code, Decoder, DecoderOptions, Formatter as _, GasFormatter, Instruction, Mnemonic, Register,
};
use object::elf::{
    R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PC64, R_X86_64_PLT32,
};

use super::Difference;
use super::object::{Function, Rebuilt, Target};
use super::shipped::Shipped;
use crate::elf::Relocation;

/// The five-byte no-op that the kernel's build or boot puts over `call __fentry__`.
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// Where the shipped code finds what ours refers to. One target can appear several times.
pub(super) type References<'a> = Vec<(Target<'a>, u64)>;

/// Compares a function with the shipped code at `address`.
pub(super) fn compare<'a>(
    rebuilt: &Rebuilt<'a>,
    function: &Function<'a>,
    shipped: &dyn Shipped,
    address: u64,
) -> Result<References<'a>, Difference> {
    match by_bytes(rebuilt, function, shipped, address) {
        Some(result) => result,
        None => by_instructions(rebuilt, function, shipped, address),
    }
}

/// The common case: same length, differences only in relocated fields. `None` where that is not so.
fn by_bytes<'a>(
    rebuilt: &Rebuilt<'a>,
    function: &Function<'a>,
    shipped: &dyn Shipped,
    address: u64,
) -> Option<Result<References<'a>, Difference>> {
    let theirs = shipped.bytes(address, function.code.len())?;
    let mut references = References::new();
    let mut at = 0;
    for relocation in &function.relocations {
        let start = usize::try_from(relocation.offset).ok()?;
        let size = field_size(relocation.kind)?;
        if is_entry_call(rebuilt, function, relocation) && theirs.starts_with(&NOP5) {
            at = NOP5.len();
            continue;
        }
        if start < at || function.code.get(at..start)? != theirs.get(at..start)? {
            return None;
        }
        let field = theirs.get(start..start + size)?;
        match reference(rebuilt, shipped, relocation, field, address + relocation.offset) {
            Ok(reference) => references.push(reference),
            Err(what) => return Some(Err(wrong_reference(rebuilt, relocation, what))),
        }
        at = start + size;
    }
    (function.code.get(at..)? == theirs.get(at..)?).then_some(Ok(references))
}

/// Instruction by instruction: direct jumps may have another length, and with them the padding before loops.
fn by_instructions<'a>(
    rebuilt: &Rebuilt<'a>,
    function: &Function<'a>,
    shipped: &dyn Shipped,
    address: u64,
) -> Result<References<'a>, Difference> {
    let mut ours = Decoder::with_ip(64, function.code, 0, DecoderOptions::NONE);
    // A short form is shorter, a long one at most four bytes longer for each jump.
    let longest = function.code.len() * 3 + 16;
    let available = (1..=longest).rev().find_map(|size| shipped.bytes(address, size)).unwrap_or_default();
    let mut theirs = Decoder::with_ip(64, available, address, DecoderOptions::NONE);
    let mut references = References::new();
    let mut relocations = function.relocations.iter().peekable();
    let mut places: HashMap<u64, u64> = HashMap::new();
    let mut branches = Vec::new();
    while ours.can_decode() {
        let (our_start, their_start) = (ours.position(), theirs.position());
        places.insert(our_start as u64, their_start as u64);
        let (our, their) = (ours.decode(), theirs.decode());
        let (our_bytes, their_bytes) =
            (&function.code[our_start..ours.position()], &available[their_start..theirs.position()]);
        let differ = || Difference { offset: our_start as u64, rebuilt: shown(&our), shipped: shown(&their) };
        if our.is_invalid() || their.is_invalid() {
            return Err(differ());
        }
        if our_bytes != their_bytes && (is_no_op(&our) || is_no_op(&their)) {
            let passed = [(&mut ours, our_start), (&mut theirs, their_start)]
                .map(|(decoder, start)| pass_padding(decoder, start));
            if passed == [false, false] {
                return Err(differ());
            }
            continue;
        }
        let mut fields = Vec::new();
        while let Some(next) = relocations.peek().filter(|next| next.offset < ours.position() as u64) {
            fields.push(*next);
            relocations.next();
        }
        if let [relocation] = fields[..] {
            if is_entry_call(rebuilt, function, relocation) && their_bytes == NOP5 {
                continue;
            }
            // The one reference whose field may have another width: a jump to another function.
            if our.code() == Code::Jmp_rel32_64 && their.code() == Code::Jmp_rel8_64 {
                let field = (their.near_branch64().wrapping_sub(address + relocation.offset + 4)) as u32;
                let at = address + relocation.offset;
                let found = reference(rebuilt, shipped, relocation, &field.to_le_bytes(), at);
                references.push(found.map_err(|what| wrong_reference(rebuilt, relocation, what))?);
                continue;
            }
        }
        if fields.is_empty() && is_direct_branch(&our) && is_direct_branch(&their) {
            let same = our.mnemonic() == their.mnemonic();
            branches.push((
                our_start as u64,
                our.near_branch64(),
                their.near_branch64().wrapping_sub(address),
            ));
            if same { continue } else { return Err(differ()) }
        }
        if our_bytes.len() != their_bytes.len() {
            return Err(differ());
        }
        let mut at = 0;
        for relocation in fields {
            let size = field_size(relocation.kind).ok_or_else(differ)?;
            let start = (relocation.offset as usize).checked_sub(our_start).ok_or_else(differ)?;
            let field = their_bytes.get(start..start + size).ok_or_else(differ)?;
            if start < at || our_bytes[at..start] != their_bytes[at..start] {
                return Err(differ());
            }
            let found =
                reference(rebuilt, shipped, relocation, field, address + (their_start + start) as u64);
            references.push(found.map_err(|what| wrong_reference(rebuilt, relocation, what))?);
            at = start + size;
        }
        if our_bytes[at..] != their_bytes[at..] {
            return Err(differ());
        }
    }
    for (from, our_target, their_target) in branches {
        // A branch to the end of the function (after a call that does not return) has no instruction there.
        let same = match places.get(&our_target) {
            Some(place) => *place == their_target,
            None => our_target == function.code.len() as u64 && their_target == theirs.position() as u64,
        };
        if !same {
            let rebuilt = format!("branch to +{our_target:#x}");
            return Err(Difference {
                offset: from,
                rebuilt,
                shipped: format!("branch to +{their_target:#x}"),
            });
        }
    }
    Ok(references)
}

fn is_no_op(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Nop)
        || (instruction.code() == Code::Xchg_r16_AX && instruction.op0_register() == Register::AX)
}

/// Goes back to `start` and on over no-ops there that put the next instruction on a multiple of 8 bytes, as
/// `-falign-loops` does; whether there were some. A no-op for a static branch does not do so but by chance; then one
/// side has it and the other has not, and the code behind it differs.
fn pass_padding(decoder: &mut Decoder<'_>, start: usize) -> bool {
    let to = |decoder: &mut Decoder<'_>, position: usize| {
        let ip = decoder.ip().wrapping_sub(decoder.position() as u64).wrapping_add(position as u64);
        // Positions that the decoder has been at.
        let _ = decoder.set_position(position);
        decoder.set_ip(ip);
    };
    to(decoder, start);
    let mut end = start;
    while decoder.can_decode() && is_no_op(&decoder.decode()) {
        end = decoder.position();
    }
    to(decoder, end);
    if end > start && decoder.ip().is_multiple_of(8) {
        return true;
    }
    to(decoder, start);
    false
}

fn is_direct_branch(instruction: &Instruction) -> bool {
    instruction.is_jmp_short_or_near()
        || instruction.is_jcc_short_or_near()
        || instruction.is_jcx_short()
        || instruction.is_loop()
        || instruction.is_loopcc()
}

fn is_entry_call(rebuilt: &Rebuilt<'_>, function: &Function<'_>, relocation: &Relocation) -> bool {
    relocation.offset == 1
        && function.code.first() == Some(&0xe8)
        && rebuilt.target(relocation) == Some(Target::Symbol("__fentry__"))
}

fn field_size(kind: u32) -> Option<usize> {
    Some(match kind {
        R_X86_64_NONE => 0,
        R_X86_64_64 | R_X86_64_PC64 => 8,
        R_X86_64_32 | R_X86_64_32S | R_X86_64_PC32 | R_X86_64_PLT32 => 4,
        _ => return None,
    })
}

/// What the shipped code has in a field at `at`, as the address of the relocation's target.
fn reference<'a>(
    rebuilt: &Rebuilt<'a>,
    shipped: &dyn Shipped,
    relocation: &Relocation,
    field: &[u8],
    at: u64,
) -> Result<(Target<'a>, u64), String> {
    let signed = |field: &[u8]| match field {
        [a, b, c, d] => i64::from(i32::from_le_bytes([*a, *b, *c, *d])) as u64,
        _ => field.try_into().map_or(0, u64::from_le_bytes),
    };
    let value = match relocation.kind {
        R_X86_64_PC32 | R_X86_64_PLT32 | R_X86_64_PC64 => signed(field).wrapping_add(at),
        R_X86_64_32 => signed(field) & 0xffff_ffff,
        _ => signed(field),
    };
    let address = value.wrapping_add_signed(relocation.addend.wrapping_neg());
    let target = rebuilt.target(relocation).ok_or_else(|| format!("{address:#x}"))?;
    let Target::Literal { section, .. } = target else { return Ok((target, address)) };
    // Relative to the next instruction where the addend makes up for its length, which is 4 in code.
    let past = if matches!(relocation.kind, R_X86_64_PC32 | R_X86_64_PLT32) { 4 } else { 0 };
    let offset = relocation.addend.wrapping_add(past) as u64;
    let ours = rebuilt.literal(section, offset).ok_or_else(|| format!("literal at {offset:#x}"))?;
    let there = value.wrapping_add(past as u64);
    match shipped.bytes(there, ours.len()) {
        Some(theirs) if theirs == ours => Ok((Target::Literal { section, offset }, there)),
        theirs => Err(format!("string {:?}", String::from_utf8_lossy(theirs.unwrap_or_default()))),
    }
}

fn wrong_reference(rebuilt: &Rebuilt<'_>, relocation: &Relocation, shipped: String) -> Difference {
    let name = rebuilt.elf.symbols().get(relocation.symbol).map_or("", |symbol| symbol.name);
    let ours = match rebuilt.target(relocation) {
        Some(Target::Literal { section, .. }) => {
            let offset = relocation.addend.wrapping_add(4) as u64;
            let text = rebuilt.literal(section, offset).or_else(|| rebuilt.literal(section, offset - 4));
            format!("string {:?}", String::from_utf8_lossy(text.unwrap_or_default()))
        }
        _ => format!("reference to {name}"),
    };
    Difference { offset: relocation.offset, rebuilt: ours, shipped }
}

fn shown(instruction: &Instruction) -> String {
    let mut text = String::new();
    GasFormatter::new().format(instruction, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_passed_over_where_it_aligns_what_follows() {
        // ret; a no-op of seven bytes; ret
        let aligned = [0xc3, 0x0f, 0x1f, 0x80, 0, 0, 0, 0, 0xc3];
        let mut decoder = Decoder::with_ip(64, &aligned, 0x1000, DecoderOptions::NONE);
        assert!(pass_padding(&mut decoder, 1));
        assert_eq!((decoder.position(), decoder.ip()), (8, 0x1008));
        // The same one byte further is no padding; neither is an instruction with an effect.
        let mut decoder = Decoder::with_ip(64, &aligned, 0x1001, DecoderOptions::NONE);
        assert!(!pass_padding(&mut decoder, 1));
        assert_eq!((decoder.position(), decoder.ip()), (1, 0x1002));
        assert!(!pass_padding(&mut decoder, 8));
    }
}
