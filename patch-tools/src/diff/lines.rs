//! Differences that are only line numbers.
//!
//! A patch that adds a line moves everything below it, and `__LINE__` is an argument of many reporting
//! functions. Two functions that differ in nothing else are the same. The rule is strict: every byte that
//! differs must be the immediate of an instruction that does nothing but pass it on, and on every path that
//! value must end up as the line argument of a function known to use it for reporting only. For printk, the
//! format must print it as a number right behind a source file's name. The same number may stand in a text
//! already (`FILE_LINE` of the kernel's fortified `memcpy`), in a function that prints.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register};

use super::equality::{Equality, same_kind, string};
use super::names::cold_parent;
use super::unit::code::{Decoded, instructions};
use super::unit::{AtomId, Reference, Target, Unit};

/// Functions that take a line number for reporting, and which argument it is, from 1 (Linux 4.4 to 7.3). Where
/// two are given for one name its arguments have changed, and the other one is no number there.
const HELPERS: &[(&str, u32)] = &[
    ("__might_sleep", 2),
    ("__might_resched", 2),
    ("___might_sleep", 2),
    ("__might_fault", 2),
    ("__cant_sleep", 2),
    ("__cant_migrate", 2),
    ("lockdep_rcu_suspicious", 2),
    ("warn_slowpath_fmt", 2),
    ("warn_slowpath_null", 2),
    ("warn_slowpath_fmt_taint", 2),
    ("acpi_error", 2),
    ("acpi_exception", 2),
    ("acpi_warning", 2),
    ("acpi_bios_error", 2),
    ("acpi_bios_exception", 2),
    ("acpi_bios_warning", 2),
    ("acpi_ut_predefined_warning", 2),
    ("acpi_ut_predefined_info", 2),
    ("acpi_ut_predefined_bios_error", 2),
    ("acpi_debug_print", 2),
    ("acpi_debug_print_raw", 2),
    ("acpi_ut_trace", 1),
    ("acpi_ut_exit", 1),
    ("acpi_ut_status_exit", 1),
    ("__btrfs_std_error", 3),
    ("__ext4_abort", 3),
    ("__ext4_ext_check", 2),
    ("__ext4_ext_dirty", 2),
    ("__ext4_handle_dirty_super", 2),
    ("__ext4_read_dirblock", 5),
    ("ext4_check_blockref", 2),
    ("__validate_creds", 3),
    ("__validate_process_creds", 3),
    ("xdp_warn", 3),
    ("__jbd2_debug", 4),
    ("jbd2__journal_start", 7),
    ("jbd2_journal_start_reserved", 3),
    ("__btrfs_abort_transaction", 3),
    ("__btrfs_handle_fs_error", 3),
    ("__btrfs_panic", 3),
    ("btrfs_assertfail", 3),
    ("__ext4_error", 3),
    ("__ext4_error_inode", 3),
    ("__ext4_error_file", 3),
    ("__ext4_std_error", 3),
    ("__ext4_warning", 3),
    ("__ext4_warning_inode", 3),
    ("__ext4_grp_locked_error", 2),
    ("__dump_mmp_msg", 4),
    ("__ext4_check_dir_entry", 2),
    ("__ext4_iget", 5),
    ("__ext4_journal_start_sb", 2),
    ("__ext4_journal_stop", 2),
    ("__ext4_journal_start_reserved", 2),
    ("__ext4_journal_get_write_access", 2),
    ("__ext4_journal_get_create_access", 2),
    ("__ext4_handle_dirty_metadata", 2),
    ("__ext4_forget", 2),
    ("__ext4_mark_inode_dirty", 4),
    ("xfs_error_report", 5),
    ("xfs_corruption_error", 7),
    ("xfs_errortag_test", 4),
    ("xfs_do_force_shutdown", 4),
    ("assfail", 3),
    ("assfail", 4),
    ("asswarn", 3),
    ("asswarn", 4),
    ("gfs2_assert_withdraw_i", 5),
    ("gfs2_assert_warn_i", 5),
    ("gfs2_consist_i", 4),
    ("gfs2_consist_inode_i", 4),
    ("gfs2_consist_rgrpd_i", 4),
    ("gfs2_meta_check_ii", 6),
    ("gfs2_metatype_check_ii", 7),
    ("gfs2_io_error_i", 4),
    ("gfs2_io_error_bh_i", 5),
    ("ubifs_assert_failed", 4),
    ("__mlog_printk", 3),
    ("__snd_printk", 3),
    ("__ntfs_debug", 2),
];

/// Functions that take a format as their first argument and only print.
const PRINTERS: &[&str] = &["_printk", "printk", "_printk_deferred", "__warn_printk", "panic"];

/// Argument registers of the x86-64 calling convention.
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// No source file is longer.
const MAX_LINE: u64 = 1 << 20;

/// Instructions that are followed from one immediate; more than any argument list needs.
const MAX_STEPS: usize = 96;

/// The reporting function, if two functions of equal size differ in nothing but line numbers passed to it.
pub(crate) fn only_line_numbers(
    equality: &Equality<'_, '_>,
    orig: AtomId,
    patched: AtomId,
) -> Option<String> {
    let (left, right) = (equality.orig.bytes(orig), equality.patched.bytes(patched));
    if left.len() != right.len() {
        return None;
    }
    let flow = Flow::new(equality.patched);
    let part = flow.part(patched);
    let references = equality.orig.references(orig);
    if references.len() != part.references.len() {
        return None;
    }
    let mut helper = None;
    for (a, b) in references.iter().zip(&part.references) {
        let at = (equality.orig.atom(orig).start, equality.patched.atom(patched).start);
        if a.reloc.offset - at.0 != b.reloc.offset - at.1 || !same_kind(a.reloc.kind, b.reloc.kind) {
            return None;
        }
        if !equality.same_target(a.target, b.target, 0) {
            let printer = same_but_line_in_text(equality, a.target, b.target).then(|| part.printer());
            helper = Some(printer.flatten()?.to_owned());
        }
    }
    let before = instructions(left, equality.orig.atom(orig).start);
    for (index, old) in before.enumerate() {
        let new = part.code.get(index)?;
        let (from, to) = (bytes_of(equality.orig, orig, &old), bytes_of(equality.patched, patched, new));
        if old.end - old.start != new.end - new.start {
            return None;
        }
        if from == to || part.differs_in_field_only(new, from, to) {
            continue;
        }
        if !is_line(&old) || !is_line(new) || old.instruction.code() != new.instruction.code() {
            return None;
        }
        if !same_but_immediate(new, from, to) {
            return None;
        }
        helper = Some(flow.consumer(&part, index)?);
    }
    helper
}

/// Whether both are texts, the same but for a line number behind a source file's name.
fn same_but_line_in_text(equality: &Equality<'_, '_>, orig: Target<'_>, patched: Target<'_>) -> bool {
    let text = |unit, target| match target {
        Target::Atom { atom, offset } => string(unit, (atom, offset)).filter(|(width, _)| *width == 1),
        _ => None,
    };
    match (text(equality.orig, orig), text(equality.patched, patched)) {
        (Some((_, a)), Some((_, b))) => same_but_line(a, b),
        _ => false,
    }
}

/// `at file.c:12` and `at file.c:14`.
fn same_but_line(a: &[u8], b: &[u8]) -> bool {
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let start = common - a[..common].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (from, to) = (digits(&a[start..]), digits(&b[start..]));
    let is_line = |text: &[u8]| {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        number.is_some_and(|number: u64| (1..MAX_LINE).contains(&number))
    };
    let of_a_source = [".c:", ".h:"].iter().any(|end| a[..start].ends_with(end.as_bytes()));
    of_a_source
        && is_line(&a[start..start + from])
        && is_line(&b[start..start + to])
        && a[start + from..] == b[start + to..]
}

fn bytes_of<'d>(unit: &Unit<'d>, atom: AtomId, decoded: &Decoded) -> &'d [u8] {
    let start = unit.atom(atom).start;
    unit.bytes(atom).get((decoded.start - start) as usize..(decoded.end - start) as usize).unwrap_or_default()
}

/// Whether the instruction passes on an immediate that can be a line number.
fn is_line(decoded: &Decoded) -> bool {
    let instruction = &decoded.instruction;
    let value = match instruction.code() {
        Code::Mov_r32_imm32 | Code::Mov_rm32_imm32 | Code::Pushd_imm32 | Code::Pushq_imm32 => {
            u64::from(instruction.immediate32())
        }
        Code::Pushq_imm8 => instruction.immediate8to64() as u64,
        _ => return false,
    };
    (1..MAX_LINE).contains(&value)
}

fn same_but_immediate(new: &Decoded, from: &[u8], to: &[u8]) -> bool {
    let Some((start, end)) = new.immediate else { return false };
    let field = (start - new.start) as usize..(end - new.start) as usize;
    from.iter().zip(to).enumerate().all(|(at, (a, b))| a == b || field.contains(&at))
}

/// Follows a value through a function and its cold part.
struct Flow<'u, 'd> {
    unit: &'u Unit<'d>,
    parts: RefCell<HashMap<AtomId, Rc<Part<'d>>>>,
}

/// The instructions and references of one atom.
struct Part<'d> {
    code: Vec<Decoded>,
    by_offset: HashMap<u64, usize>,
    references: Vec<Reference<'d>>,
}

/// Where a line number is kept on its way to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Register(Register),
    /// In the stack's argument area, with this many pushes after it.
    Stack(u32),
}

/// What an instruction does to a carried value.
enum Effect {
    Keeps(Carrier),
    Overwrites,
}

impl<'d> Part<'d> {
    fn reference_in(&self, decoded: &Decoded) -> Option<&Reference<'d>> {
        let at = self.references.partition_point(|reference| reference.reloc.offset < decoded.start);
        self.references.get(at).filter(|reference| reference.reloc.offset < decoded.end)
    }

    /// A function that only prints, if one is called.
    fn printer(&self) -> Option<&'d str> {
        self.references.iter().find_map(|reference| match reference.target {
            Target::Undefined { name, .. } => PRINTERS.contains(&name).then_some(name),
            _ => None,
        })
    }

    /// Whether the bytes differ only where a relocation fills them in.
    fn differs_in_field_only(&self, decoded: &Decoded, from: &[u8], to: &[u8]) -> bool {
        let Some(reference) = self.reference_in(decoded) else { return false };
        let start = (reference.reloc.offset - decoded.start) as usize;
        let end = start + super::unit::width(reference.reloc.kind).unwrap_or(0) as usize;
        from.iter().zip(to).enumerate().all(|(at, (a, b))| a == b || (start..end).contains(&at))
    }
}

impl Carrier {
    fn of(instruction: &Instruction) -> Option<Self> {
        match instruction.code() {
            Code::Mov_r32_imm32 => Some(Self::Register(instruction.op0_register().full_register())),
            Code::Mov_rm32_imm32
                if instruction.memory_base() == Register::RSP
                    && instruction.memory_index() == Register::None
                    && instruction.memory_displacement64() == 0 =>
            {
                Some(Self::Stack(0))
            }
            Code::Pushq_imm32 | Code::Pushq_imm8 => Some(Self::Stack(0)),
            _ => None,
        }
    }

    /// What an instruction that does not branch does to the value; `None` if it uses it.
    fn after(self, info: &mut InstructionInfoFactory, instruction: &Instruction) -> Option<Effect> {
        match self {
            Self::Register(register) => {
                let mut effect = Effect::Keeps(self);
                for used in info.info(instruction).used_registers() {
                    if used.register().full_register() == register {
                        if used.access() != OpAccess::Write {
                            return None;
                        }
                        effect = Effect::Overwrites;
                    }
                }
                Some(effect)
            }
            Self::Stack(pushes) if instruction.is_stack_instruction() => {
                let is_push = instruction.stack_pointer_increment() == -8;
                is_push.then_some(Effect::Keeps(Self::Stack(pushes + 1)))
            }
            Self::Stack(_) => (!touches_stack(info, instruction)).then_some(Effect::Keeps(self)),
        }
    }

    /// The argument that it is at a call, from 1.
    fn argument(self) -> Option<u32> {
        match self {
            Self::Register(register) => {
                Some(ARGUMENTS.iter().position(|argument| *argument == register)? as u32 + 1)
            }
            Self::Stack(pushes) => Some(7 + pushes),
        }
    }
}

impl<'u, 'd> Flow<'u, 'd> {
    fn new(unit: &'u Unit<'d>) -> Self {
        Self { unit, parts: RefCell::default() }
    }

    fn part(&self, atom: AtomId) -> Rc<Part<'d>> {
        let mut parts = self.parts.borrow_mut();
        let part = parts.entry(atom).or_insert_with(|| {
            let start = self.unit.atom(atom).start;
            let code: Vec<Decoded> = instructions(self.unit.bytes(atom), start).collect();
            let by_offset = code.iter().enumerate().map(|(index, decoded)| (decoded.start, index)).collect();
            Rc::new(Part { code, by_offset, references: self.unit.references(atom) })
        });
        Rc::clone(part)
    }

    /// The reporting function that the immediate of instruction `index` reaches on every path.
    fn consumer(&self, part: &Rc<Part<'d>>, index: usize) -> Option<String> {
        let carrier = Carrier::of(&part.code[index].instruction)?;
        let mut info = InstructionInfoFactory::new();
        let mut open = vec![(Rc::clone(part), index + 1, carrier)];
        let mut found = None;
        let mut steps = 0;
        while let Some((at_part, at, carrier)) = open.pop() {
            steps += 1;
            if steps > MAX_STEPS {
                return None;
            }
            let decoded = at_part.code.get(at)?;
            let instruction = &decoded.instruction;
            // Where the value was loaded, if it is in this part: its other arguments are looked for from there.
            let from = if Rc::ptr_eq(part, &at_part) { index } else { 0 };
            match instruction.flow_control() {
                FlowControl::Call => found = Some(self.reports(&at_part, at, from, carrier)?),
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                    let conditional = instruction.flow_control() == FlowControl::ConditionalBranch;
                    match self.branch(&at_part, decoded) {
                        Some((to_part, to)) => open.push((to_part, to, carrier)),
                        // A tail call is a call.
                        None if !conditional => found = Some(self.reports(&at_part, at, from, carrier)?),
                        None => return None,
                    }
                    if conditional {
                        open.push((at_part, at + 1, carrier));
                    }
                }
                FlowControl::Next => match carrier.after(&mut info, instruction)? {
                    Effect::Keeps(carrier) => open.push((at_part, at + 1, carrier)),
                    Effect::Overwrites => {}
                },
                _ => return None,
            }
        }
        found
    }

    /// Where a branch goes if it stays in the function: in the same part, or to or from the cold part.
    fn branch(&self, part: &Rc<Part<'d>>, decoded: &Decoded) -> Option<(Rc<Part<'d>>, usize)> {
        let Some(reference) = part.reference_in(decoded) else {
            let to = *part.by_offset.get(&decoded.instruction.near_branch_target())?;
            return Some((Rc::clone(part), to));
        };
        let Target::Atom { atom, offset } = reference.target else { return None };
        let entry = self.unit.entry(atom) as i64 - self.unit.atom(atom).start as i64;
        if !self.unit.is_function(atom) || (offset == entry && cold_parent(self.unit.name(atom)).is_none()) {
            return None;
        }
        let to = self.part(atom);
        let offset = self.unit.atom(atom).start.checked_add_signed(offset)?;
        let index = *to.by_offset.get(&offset)?;
        Some((to, index))
    }

    /// The name of the function called at `call`, if the carried value is a line number to it.
    fn reports(&self, part: &Part<'d>, call: usize, from: usize, carrier: Carrier) -> Option<String> {
        let reference = part.reference_in(&part.code[call])?;
        let name = match reference.target {
            Target::Undefined { name, .. } => name,
            Target::Atom { atom, .. } => self.unit.name(atom),
            _ => return None,
        };
        let position = carrier.argument()?;
        if HELPERS.contains(&(name, position)) {
            return Some(name.to_owned());
        }
        if PRINTERS.contains(&name) && self.prints_line(part, call, from, position) {
            return Some(name.to_owned());
        }
        None
    }

    /// Whether the format makes argument `position` the number behind a source file's name.
    fn prints_line(&self, part: &Part<'d>, call: usize, from: usize, position: u32) -> bool {
        let window = part.code.get(from.saturating_sub(8)..call).unwrap_or_default();
        let text = |position: u32| {
            let register = *ARGUMENTS.get(position as usize - 1)?;
            window.iter().rev().find_map(|decoded| {
                let loads = decoded.instruction.op0_register().full_register() == register;
                let reference = part.reference_in(decoded).filter(|_| loads)?;
                let Target::Atom { atom, offset } = reference.target else { return None };
                let bytes = self.unit.bytes(atom).get(usize::try_from(offset).ok()?..)?;
                bytes.split(|&byte| byte == 0).next()
            })
        };
        let (Some(format), Some(file)) = (text(1), position.checked_sub(1).and_then(text)) else {
            return false;
        };
        let is_file = file.ends_with(b".c") || file.ends_with(b".h");
        let verbs = verbs(format);
        let at = |position: u32| position.checked_sub(2).and_then(|index| verbs.get(index as usize));
        is_file
            && position >= 3
            && at(position - 1) == Some(&b's')
            && matches!(at(position), Some(b'd' | b'u' | b'i'))
    }
}

/// The conversion letters of a format; `*` widths, which take an argument too, count as one.
fn verbs(format: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut rest = format.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            continue;
        }
        for byte in rest.by_ref() {
            match byte {
                b'%' => break,
                b'*' => found.push(b'*'),
                byte if byte.is_ascii_alphabetic() && !b"hlLzjtq".contains(&byte) => {
                    found.push(byte);
                    break;
                }
                _ => {}
            }
        }
    }
    found
}

fn touches_stack(info: &mut InstructionInfoFactory, instruction: &Instruction) -> bool {
    let memory = info.info(instruction).used_memory();
    memory.iter().any(|memory| memory.base() == Register::RSP && memory.displacement() == 0)
}

#[cfg(test)]
mod tests {
    use super::{same_but_line, verbs};

    #[test]
    fn texts_differ_in_a_line_only_where_a_number_stands_behind_a_source_file() {
        let same = |a: &str, b: &str| same_but_line(a.as_bytes(), b.as_bytes());
        assert!(same("field at fs/a.c:99", "field at fs/a.c:101"));
        assert!(same("a.h:1129 is late", "a.h:1131 is late"));
        for (a, b) in [
            ("limit:10", "limit:12"),
            ("a.c:10", "a.c:12 more"),
            ("a.c:10 of 3", "a.c:12 of 4"),
            ("a.c:10", "a.c:1x"),
            ("a.c:0", "a.c:2"),
            ("a.c:2000000", "a.c:2000001"),
            ("b.c:10", "a.c:10"),
            ("a.c:10", ""),
        ] {
            assert!(!same(a, b) && !same(b, a), "{a} {b}");
        }
    }

    #[test]
    fn conversions_of_a_format_are_told_in_order() {
        assert_eq!(verbs(b"\x013%s:%d: bad %% of %-*.*lx %pS\n"), b"sd**xp");
    }
}
