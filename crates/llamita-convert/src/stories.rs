//! Texts of many stories, which models are trained, calibrated and measured with.

/// What is between two stories of a text.
pub const SEPARATOR: &str = "<|endoftext|>";

/// The stories of a text, without white space around them; those that are empty do not count.
pub fn split(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split(SEPARATOR).map(str::trim).filter(|story| !story.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_are_stripped_and_never_empty() {
        let stories: Vec<_> = split("\n a b\n<|endoftext|>  <|endoftext|>c").collect();
        assert_eq!(stories, ["a b", "c"]);
    }
}
