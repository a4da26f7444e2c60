//! C source, line by line: what is code, which function a line is in, and what it calls.
//!
//! No parser: kernel code is written so that braces at the start of a line tell where functions begin and end,
//! and a line that is taken for the wrong function misleads no one about what it does. Comments and
//! literals are blanked; preprocessor lines belong to no function, also where they stand in one.
//!
//! Which lines can matter beyond the function that they stand in ([`Text::outside`]) is more than a hint: where none of
//! them differs, `build` compares no types. There, what is not plainly a statement of a function is outside.

/// A file's lines.
#[derive(Debug, Default)]
pub(super) struct Text {
    lines: Vec<Line>,
}

#[derive(Debug, Default)]
struct Line {
    code: String,
    function: Option<String>,
    /// What of the line matters outside of functions: with its literals, without comments, blanks folded.
    outside: Option<String>,
}

impl Text {
    /// Reads a file.
    pub(super) fn read(content: &[u8]) -> Self {
        let Blanked { code, commentless } = Blanked::of(content);
        let mut functions = Functions::default();
        let raw = content.split(|byte| *byte == b'\n');
        let lines = code.split('\n').zip(commentless.split(|byte| *byte == b'\n')).zip(raw);
        let lines = lines.map(|((code, commentless), raw)| {
            let function = functions.of(code);
            // What a backslash at the end of a line adds to a comment or a literal is not told from code.
            let goes_on = raw.trim_ascii_end().ends_with(b"\\");
            let text = String::from_utf8_lossy(if goes_on { raw } else { commentless });
            let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let is_outside = !folded.is_empty() && (goes_on || !functions.stayed);
            let outside = is_outside.then_some(folded);
            Line { function, outside, code: code.to_owned() }
        });
        Self { lines: lines.collect() }
    }

    /// The function that a line is in, from 0.
    pub(super) fn function(&self, line: usize) -> Option<&str> {
        self.lines.get(line)?.function.as_deref()
    }

    /// The lines that can say something of more than one function, or of what outlives a call: all but the statements
    /// of functions. Of these, those that make a type or a static variable, and preprocessor lines, are outside as well.
    pub(super) fn outside(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| line.outside.as_deref())
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

/// The text with parts of it turned into blanks; lines stay where they are.
struct Blanked {
    /// Without comments and literals; ASCII.
    code: String,
    /// Without comments.
    commentless: Vec<u8>,
}

impl Blanked {
    fn of(content: &[u8]) -> Self {
        #[derive(PartialEq)]
        enum In {
            Code,
            Line,
            Block,
            Literal(u8),
        }
        let mut state = In::Code;
        let mut code = Vec::with_capacity(content.len());
        let mut commentless = Vec::with_capacity(content.len());
        let mut at = 0;
        while let Some(&byte) = content.get(at) {
            let next = content.get(at + 1).copied().unwrap_or_default();
            let mut length = 1;
            let is_literal = matches!(state, In::Literal(_));
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
            code.push(if shown.is_ascii() { shown } else { b' ' });
            match is_literal || matches!(state, In::Literal(_)) {
                true => commentless.extend(content[at..].iter().take(length)),
                false => commentless.push(shown),
            }
            at += length;
        }
        Self { code: String::from_utf8(code).unwrap_or_default(), commentless }
    }
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
    /// Whether what is open is a function's body and nothing else.
    body: bool,
    /// In a body, the statement so far.
    statement: String,
    /// In a body, how deep the braces are in which a type or a static variable is.
    declared: Option<usize>,
    /// Whether the last line began and ended in a body, and declares nothing that outlives a call.
    stayed: bool,
}

impl Functions {
    fn of(&mut self, code: &str) -> Option<String> {
        self.stayed = false;
        if self.directive || code.trim_start().starts_with('#') {
            self.directive = code.ends_with('\\');
            return None;
        }
        // Two alternative heads under #if share one body: a brace at the start of a line ends it for sure.
        if code.starts_with('}') && self.depth > 1 {
            self.depth = 1;
        }
        // So does a declaration at the start of a line.
        let first = identifiers(code).next().filter(|_| !code.starts_with([' ', '\t']));
        if self.depth > 0 && first.is_some_and(|(word, _)| DECLARING.contains(&word)) {
            (self.depth, self.current, self.body) = (0, None, false);
            self.head.clear();
        }
        let began_in_body = self.body;
        let mut declares = self.declared.is_some();
        let mut here = self.current.clone();
        for character in code.chars() {
            match character {
                '{' => {
                    if self.depth == 0 {
                        self.current = named(&self.head);
                        self.body = self.current.is_some() && ends_as_function(&self.head);
                        here = here.or_else(|| self.current.clone());
                        self.head.clear();
                    } else if self.declared.is_none() && declares_in_braces(&self.statement) {
                        self.declared = Some(self.depth);
                        declares = true;
                    }
                    self.statement.clear();
                    self.depth += 1;
                }
                '}' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.declared.is_some_and(|outer| self.depth <= outer) {
                        self.declared = None;
                    }
                    self.statement.clear();
                    if self.depth == 0 {
                        (self.current, self.body) = (None, false);
                    }
                }
                ';' if self.depth == 0 => self.head.clear(),
                ';' => {
                    declares |= is_static(&self.statement);
                    self.statement.clear();
                }
                character if self.depth == 0 => self.head.push(character),
                character => self.statement.push(character),
            }
        }
        declares |= is_static(&self.statement);
        self.statement.push('\n');
        self.stayed = began_in_body && self.body && !declares;
        if self.depth == 0 {
            self.head.push('\n');
            // The head of a function belongs to it.
            here = here.or_else(|| named(&self.head));
        }
        here
    }
}

/// Words that begin no statement.
const DECLARING: [&str; 6] = ["struct", "union", "enum", "typedef", "static", "extern"];

/// Whether the head of a body ends with arguments, and perhaps attributes: the name of a type does not follow.
fn ends_as_function(head: &str) -> bool {
    let tail = head.rsplit(')').next().unwrap_or_default();
    head.contains(')') && identifiers(tail).all(|(word, _)| word.starts_with("__"))
}

fn is_static(statement: &str) -> bool {
    identifiers(statement).any(|(word, _)| matches!(word, "static" | "typedef"))
}

/// Whether the braces after this part of a statement hold a type's members, or the value of a static variable.
fn declares_in_braces(statement: &str) -> bool {
    let after = identifiers(statement)
        .filter(|(word, _)| matches!(*word, "struct" | "union" | "enum"))
        .last()
        .map(|(_, end)| &statement[end..]);
    // `if (a == sizeof(struct b)) {` closes what it has not opened, `struct b c = {` is a value.
    let is_type =
        |after: &str| after.matches('(').count() == after.matches(')').count() && !after.contains('=');
    is_static(statement) || after.is_some_and(is_type)
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
        let outside: Vec<&str> = text.outside().collect();
        assert_eq!(outside.len(), source.lines().count() - 1);
        assert!(!outside.contains(&"x();"), "{outside:?}");
    }

    /// Whether lines outside of functions' statements differ once `from` is `to`.
    fn differs_outside(from: &str, to: &str) -> bool {
        const FILE: &str = "struct a {\n\tint b;\n\tint c;\n};\nenum { E1 = 'x', };\n\nstatic int\nf(struct a *a) \
            __must_hold(a)\n{\n\tstatic int d,\n\t\te;\n\tstatic struct {\n\t\tint g;\n\t} h;\n\tint i = 1;\n\n\
            \tif (a->b == sizeof(struct a)) {\n\t\tx(\"y\");\n\t}\n\treturn i;\n}\n";
        let new = FILE.replacen(from, to, 1);
        assert_ne!(FILE, new);
        Text::read(FILE.as_bytes()).outside().ne(Text::read(new.as_bytes()).outside())
    }

    #[test]
    fn statements_comments_and_blanks_are_not_outside() {
        for (from, to) in [
            ("int i = 1;", "int i = 2, j;"),
            ("x(\"y\");", "x(\"z\", sizeof(*a));\n\t\tx(\"w\");"),
            ("== sizeof", "!= sizeof"),
            ("\tint c;", "\t/* of b */\n\n  int   c; // more"),
            ("\treturn i;\n", "\tgoto out;\nout:\n\treturn i;\n"),
        ] {
            assert!(!differs_outside(from, to), "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn whatever_changes_a_type_or_a_static_variable_is_outside() {
        for (from, to) in [
            ("\tint c;", "\tlong c;"),
            // Lines that change nothing but what the one between them is.
            ("\tint b;", "/*\n\tint b;\n*/"),
            ("\tint b;", "#if 0\n\tint b;\n#endif"),
            ("\tint b;", "// \\\n\tint b;"),
            ("\tint b;", "/\\\n*\n\tint b;\n*/"),
            ("'x'", "'y'"),
            ("f(struct a *a)", "f(struct a *a, int z)"),
            ("static int d,", "static long d,"),
            ("\t\te;", "\t\t*e;"),
            ("int g;", "long g;"),
            ("\tint i = 1;", "\tint i = 1;\n#define Z 1"),
            ("\tint i = 1;", "\tstruct {\n\t\tint z;\n\t} i;"),
            ("\treturn i;\n}", "\treturn i;\n} struct z { int z; };"),
            ("\treturn i;\n", "\treturn i; {\nstruct z {\n\tint z;\n};\n"),
        ] {
            assert!(differs_outside(from, to), "{from:?} -> {to:?}");
        }
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
