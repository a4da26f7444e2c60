//! The commands that kbuild prints, as argument lists.

/// Splits a line of shell into commands (at `;`) and words. Knows quotes and backslashes, which is all that
/// kbuild's compile commands use; anything that would need a shell (`$`, pipes, redirections) gives `None`.
pub(super) fn commands(line: &str) -> Option<Vec<Vec<String>>> {
    let mut commands = Vec::new();
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '"' => break,
                        '\\' => word.push(characters.next()?),
                        '$' | '`' => return None,
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            ' ' | '\t' | '\n' => words.extend(word.take()),
            ';' => {
                words.extend(word.take());
                if !words.is_empty() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            '$' | '`' | '|' | '&' | '<' | '>' | '(' | ')' | '*' | '?' | '#' => return None,
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    if !words.is_empty() {
        commands.push(words);
    }
    Some(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_definitions_reach_the_compiler_as_the_shell_would_pass_them() {
        let line = r#"gcc-12 -DNAME='"ext4"' -DX=\"y\" "-DZ=a b" -c -o a.o a.c  ; ./objtool --orc  a.o"#;
        let expected: [&[&str]; 2] = [
            &["gcc-12", r#"-DNAME="ext4""#, r#"-DX="y""#, "-DZ=a b", "-c", "-o", "a.o", "a.c"],
            &["./objtool", "--orc", "a.o"],
        ];
        assert_eq!(commands(line).unwrap(), expected);
    }

    #[test]
    fn what_needs_a_shell_is_not_guessed_at() {
        for line in ["a | b", "a > b", "a $(b)", "a `b`", "a \"$b\"", "'open", "a &", "a *"] {
            assert_eq!(commands(line), None, "{line}");
        }
    }
}
