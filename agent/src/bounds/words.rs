//! Words of others, fit to be repeated in a line of ours.

/// The first `most` characters of a peer's words as one line: control characters are blanks, and `…` stands last where
/// something was cut off.
pub fn bounded_words(text: &str, most: usize) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut words: String = chars.by_ref().take(most).collect();
    if chars.next().is_some() {
        words.pop();
        words.push('…');
    }
    words
}

/// At most `most` characters of a line of ours with a peer's words in it, as one line: `…` stands for what was cut out before
/// its last third, where a remedy is.
pub fn bounded_line(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return bounded_words(text, most);
    }
    let end: String = text.chars().skip(count - most / 3).collect();
    bounded_words(text, most - most / 3) + &bounded_words(&end, most / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_words_are_one_line_and_say_what_was_cut() {
        assert_eq!(bounded_words("a\nb\u{1b}[2J", 9), "a b [2J");
        assert_eq!(bounded_words("ééé", 3), "ééé");
        assert_eq!(bounded_words("éééé", 3), "éé…");
        assert_eq!(bounded_words("", 3), "");
    }

    #[test]
    fn bounded_line_keeps_its_end() {
        assert_eq!(bounded_line("a\nbcdef", 7), "a bcdef");
        assert_eq!(bounded_line("éabcdefg\n", 6), "éab…g ");
    }
}
