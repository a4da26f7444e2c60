//! C source, line by line: what is code, which function a line is in, and what it calls.
//!
//! No parser: kernel code is written so that braces at the start of a line tell where functions begin and end,
//! and a line that is taken for the wrong function misleads no one about what it does. Comments and
//! literals are blanked; preprocessor lines belong to no function, also where they stand in one.

/// A file's lines.
#[derive(Debug, Default)]
pub(super) struct Text {
    lines: Vec<Line>,
}

#[derive(Debug, Default)]
struct Line {
    code: String,
    function: Option<String>,
    in_body: bool,
}

impl Text {
    /// Reads a file.
    pub(super) fn read(content: &[u8]) -> Self {
        let blanked = blanked(content);
        let mut functions = Functions::default();
        let lines = blanked.lines().map(|code| {
            let inside = functions.current.is_some();
            let function = functions.of(code);
            Line { in_body: inside && function.is_some(), function, code: code.to_owned() }
        });
        Self { lines: lines.collect() }
    }

    /// The function that a line is in, from 0.
    pub(super) fn function(&self, line: usize) -> Option<&str> {
        self.lines.get(line)?.function.as_deref()
    }

    /// Whether a line is in the body of a function and nowhere else: what it says matters to no other function.
    pub(super) fn is_in_body(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(|line| line.in_body)
    }

    /// The words of a line that are called, functions and macros alike.
    pub(super) fn calls(&self, line: usize) -> Vec<&str> {
        let Some(line) = self.lines.get(line) else { return Vec::new() };
        let code = line.code.as_str();
        identifiers(code)
            .filter(|(_, end)| code[*end..].trim_start().starts_with('('))
            .map(|(word, _)| word)
            .collect()
    }

    /// Whether a line has anything but blanks.
    pub(super) fn is_code(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(|line| !line.code.trim().is_empty())
    }
}

/// Identifiers with where they end.
fn identifiers(code: &str) -> impl Iterator<Item = (&str, usize)> {
    let part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + code[at..].find(part)?;
            at = code[start..].find(|character| !part(character)).map_or(code.len(), |length| start + length);
            if !code.as_bytes()[start].is_ascii_digit() {
                return Some((&code[start..at], at));
            }
        }
    })
}

/// The text with comments and literals turned into blanks; lines stay where they are.
fn blanked(content: &[u8]) -> String {
    #[derive(PartialEq)]
    enum In {
        Code,
        Line,
        Block,
        Literal(u8),
    }
    let mut state = In::Code;
    let mut text = Vec::with_capacity(content.len());
    let mut at = 0;
    while let Some(&byte) = content.get(at) {
        let next = content.get(at + 1).copied().unwrap_or_default();
        let mut length = 1;
        let shown = match (&state, byte) {
            (In::Code, b'/') if next == b'/' => {
                state = In::Line;
                b' '
            }
            (In::Code, b'/') if next == b'*' => {
                (state, length) = (In::Block, 2);
                b' '
            }
            (In::Code, b'"' | b'\'') => {
                state = In::Literal(byte);
                b' '
            }
            (In::Code, byte) => byte,
            (In::Line | In::Literal(_), b'\n') => {
                state = In::Code;
                b'\n'
            }
            (In::Block, b'*') if next == b'/' => {
                (state, length) = (In::Code, 2);
                b' '
            }
            (In::Block, b'\n') => b'\n',
            (In::Literal(_), b'\\') if next != b'\n' => {
                length = 2;
                b' '
            }
            (In::Literal(end), byte) if byte == *end => {
                state = In::Code;
                b' '
            }
            _ => b' ',
        };
        text.push(if shown.is_ascii() { shown } else { b' ' });
        at += length;
    }
    String::from_utf8(text).unwrap_or_default()
}

/// Follows which function the lines are in.
#[derive(Default)]
struct Functions {
    depth: usize,
    /// What stands before an opening brace at the top level.
    head: String,
    current: Option<String>,
    /// A preprocessor line that goes on.
    directive: bool,
}

impl Functions {
    fn of(&mut self, code: &str) -> Option<String> {
        if self.directive || code.trim_start().starts_with('#') {
            self.directive = code.ends_with('\\');
            return None;
        }
        // Two alternative heads under #if share one body: a brace at the start of a line ends it for sure.
        if code.starts_with('}') && self.depth > 1 {
            self.depth = 1;
        }
        let mut here = self.current.clone();
        for character in code.chars() {
            match character {
                '{' => {
                    if self.depth == 0 {
                        self.current = named(&self.head);
                        here = here.or_else(|| self.current.clone());
                        self.head.clear();
                    }
                    self.depth += 1;
                }
                '}' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        self.current = None;
                    }
                }
                ';' if self.depth == 0 => self.head.clear(),
                character if self.depth == 0 => self.head.push(character),
                _ => {}
            }
        }
        if self.depth == 0 {
            self.head.push('\n');
            // The head of a function belongs to it.
            here = here.or_else(|| named(&self.head));
        }
        here
    }
}

/// The function that a head declares: `static int f(struct x *y) __must_hold(z)`, `SYSCALL_DEFINE1(f, int, a)`.
fn named(head: &str) -> Option<String> {
    const ATTRIBUTES: [&str; 10] = [
        "__attribute__",
        "__printf",
        "__scanf",
        "__section",
        "__aligned",
        "__must_hold",
        "__acquires",
        "__releases",
        "__acquire",
        "__alloc_size",
    ];
    // After the arguments of a function there is no type: `initcall(f)` stands before one without a semicolon.
    let last = head.rsplit(')').next().filter(|last| !last.contains('(')).unwrap_or_default();
    let is_type = identifiers(last).any(|(word, _)| matches!(word, "struct" | "union" | "enum" | "typedef"));
    if head.contains('=') || is_type {
        return None;
    }
    let mut opened = 0usize;
    let mut end_of_group = 0;
    for (word, end) in identifiers(head) {
        for character in head[end_of_group..end].chars() {
            match character {
                '(' => opened += 1,
                ')' => opened = opened.saturating_sub(1),
                _ => {}
            }
        }
        end_of_group = end;
        let called = head[end..].trim_start().strip_prefix('(');
        let Some(arguments) = called.filter(|_| opened == 0 && !ATTRIBUTES.contains(&word)) else { continue };
        let is_macro = word.chars().all(|character| !character.is_ascii_lowercase());
        return match is_macro {
            true => identifiers(arguments).next().map(|(first, _)| first.to_owned()),
            false => Some(word.to_owned()),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"/* mutex_lock(a) */
static int limit = f(3);
static __printf(1, 2) int
first(struct a *a,
      int b)
	__must_hold(a)
{
	char *text = "spin_lock(x) \" {";
	if (b) {	// unlock()
		mutex_lock(&a->lock);
	}
	return limit;
}

#define TWICE(x) do { \
	get(x); } while (0)

SYSCALL_DEFINE2(open, const char __user *, name, int, flags)
{
	return do_open (name, flags);
}
struct b { int c; };
"#;

    #[test]
    fn lines_belong_to_functions() {
        let text = Text::read(SOURCE.as_bytes());
        let functions: Vec<&str> = (0..22).map(|line| text.function(line).unwrap_or("-")).collect();
        assert_eq!(
            functions.join(" "),
            "- - - first first first first first first first first first first - - - - open open open open -"
        );
    }

    #[test]
    fn only_the_lines_between_the_braces_of_a_function_are_its_body() {
        let source = "late_initcall(setup)\nstruct a {\n\tint b;\n};\nint f(int a)\n{\n#define X 1\n\tx();\n}\nint y;\n\
            static inline int g(void) { return 0; }\nenum e {\n\tE1,\n};\nint table[] = {\n\t1,\n};\n";
        let text = Text::read(source.as_bytes());
        let body: Vec<usize> = (0..source.lines().count()).filter(|line| text.is_in_body(*line)).collect();
        assert_eq!(body, [7, 8]);
    }

    #[test]
    fn only_code_calls() {
        let text = Text::read(SOURCE.as_bytes());
        assert_eq!(text.calls(0), [""; 0]);
        assert_eq!(text.calls(7), [""; 0]);
        assert_eq!(text.calls(8), ["if"]);
        assert_eq!(text.calls(9), ["mutex_lock"]);
        assert_eq!(text.calls(19), ["do_open"]);
        assert!(!text.is_code(0));
    }

    #[test]
    fn heads_under_two_conditions_do_not_swallow_the_rest() {
        let text = Text::read(b"#ifdef A\nint f(int a)\n{\n#else\nint f(void)\n{\n#endif\n\tx();\n}\nint g(void)\n{\n\ty();\n}\n");
        assert_eq!(text.function(7), Some("f"));
        assert_eq!(text.function(11), Some("g"));
    }
}
