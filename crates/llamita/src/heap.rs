//! Tokens in order, as far as they are asked for.
//!
//! A heap in the caller's memory (Williams, 1964). The sorts of the standard library are faster, and each use of them
//! takes 4 KB of a chip's flash; the order is called through a pointer, so that all uses share this one.

/// Whether the first of two tokens comes before the second.
pub(crate) type Before<'f> = &'f dyn Fn(u32, u32) -> bool;

/// Makes a heap of the tokens: the one that comes last of all at the root, the first place.
pub(crate) fn build(tokens: &mut [u32], before: Before<'_>) {
    for root in (0..tokens.len() / 2).rev() {
        sift(tokens, root, before);
    }
}

/// Takes the root to the end of the heap, which is a heap without its end then.
pub(crate) fn pop<'t>(heap: &'t mut [u32], before: Before<'_>) -> Option<(&'t mut [u32], u32)> {
    let last = heap.len().checked_sub(1)?;
    heap.swap(0, last);
    let (rest, root) = heap.split_at_mut(last);
    sift(rest, 0, before);
    Some((rest, root[0]))
}

/// Sorts tokens.
pub(crate) fn sort(tokens: &mut [u32], before: Before<'_>) {
    build(tokens, before);
    let mut heap = tokens;
    while let Some((rest, _)) = pop(heap, before) {
        heap = rest;
    }
}

/// Lets a token down to its place, where both below it are heaps.
#[inline(never)]
fn sift(heap: &mut [u32], mut at: usize, before: Before<'_>) {
    loop {
        let mut child = 2 * at + 1;
        let (Some(&left), right) = (heap.get(child), heap.get(child + 1)) else { return };
        child += usize::from(right.is_some_and(|&right| before(left, right)));
        if !before(heap[at], heap[child]) {
            return;
        }
        heap.swap(at, child);
        at = child;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_are_sorted(tokens in proptest::collection::vec(0..50_u32, 0..200)) {
            let (mut found, mut expected) = (tokens.clone(), tokens);
            sort(&mut found, &|a, b| a < b);
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn the_last_comes_first(mut tokens in proptest::collection::vec(any::<u32>(), 1..50)) {
            let last = tokens.iter().max().copied();
            build(&mut tokens, &|a, b| a < b);
            let (rest, root) = pop(&mut tokens, &|a, b| a < b).unwrap();
            prop_assert_eq!(Some(root), last);
            prop_assert!(rest.iter().all(|&token| token <= root));
        }
    }
}
