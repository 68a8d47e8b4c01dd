//! What a token costs a slow panel: pixels, and windows to put them in.

use llamita_display::Screen;

use crate::panel::Panel;

const WORDS: [&str; 12] =
    [" there", " was", " a", " little", " ll", "ama", ".", " She", " liked", " to", " play", "\n"];

/// Width and height; most pixels of a token with its status on the average, and of one that turns the page.
const BOUNDS: [(u32, u32, usize, usize); 4] =
    [(128, 64, 300, 7_000), (240, 135, 600, 26_000), (320, 240, 700, 66_000), (480, 320, 900, 150_000)];

#[test]
fn tokens_are_cheap() {
    for (width, height, average, most) in BOUNDS {
        let mut screen = Screen::new(Panel::new(width, height));
        screen.start("stories15M").unwrap();
        let area = screen.text_area();
        let (mut tokens, mut pixels, mut windows, mut turns, mut peak) = (0, 0, 0, 0, 0);
        for token in 0..1200 {
            screen.target().rest();
            screen.push(WORDS[token % WORDS.len()]).unwrap();
            screen.status(12.3 + (token % 5) as f32 / 10.0, token as u32 + 1).unwrap();
            let panel = screen.target();
            if panel.windows.contains(&area) {
                turns += 1;
                peak = peak.max(panel.drawn);
            } else {
                tokens += 1;
                pixels += panel.drawn;
                windows += panel.windows.len();
            }
        }
        let per_token = pixels / tokens;
        println!(
            "{width}x{height}: {per_token} pixels in {} windows a token, {peak} pixels where the page turns, once in {}",
            windows / tokens,
            (tokens + turns) / turns,
        );
        assert!(per_token <= average, "{width}x{height}: {per_token} > {average}");
        assert!(peak <= most, "{width}x{height}: {peak} > {most}");
        // A turn is the area, the line that is carried over and the word that begins the next one.
        assert!(most <= (area.size.width * area.size.height) as usize * 3 / 2);
    }
}

/// However long a word gets: it moves once, and then it breaks.
#[test]
fn long_words_are_bounded() {
    let mut screen = Screen::new(Panel::new(320, 240));
    screen.start("stories15M").unwrap();
    screen.push("It said: a").unwrap();
    screen.target().rest();
    for _ in 0..100 {
        screen.push("a").unwrap();
    }
    let cell = 7 * 14;
    let legs = 24 * 7;
    // The word's 35 first characters are erased and drawn again, at most.
    assert!(screen.target().drawn <= 100 * (cell + legs) + 2 * 35 * cell, "{}", screen.target().drawn);
}

/// The state of a screen beside its target.
#[test]
fn a_screen_is_small() {
    println!("{} bytes", size_of::<Screen<()>>());
    assert!(size_of::<Screen<()>>() <= 400);
}

/// Calling it with every sector costs no more than with every percent.
#[test]
fn progress_is_cheap() {
    let drawn = |steps: u64| {
        let mut screen = Screen::new(Panel::new(320, 240));
        screen.start("stories15M").unwrap();
        screen.progress(0, steps).unwrap();
        screen.target().rest();
        for done in 0..=steps {
            screen.progress(done, steps).unwrap();
        }
        screen.target().drawn
    };
    assert_eq!(drawn(100), drawn(30_000));
    println!("{} pixels a percent", drawn(100) / 100);
    assert!(drawn(100) <= 100 * 900);
    // A leap is the bar, two llamas and three digits.
    let bar = (320 - 2 * 24) * 8;
    assert!(drawn(1) <= bar + 2 * 24 * 24 + 3 * 7 * 14, "{}", drawn(1));
}

/// What stays the same is not drawn again.
#[test]
fn status_draws_what_changes() {
    let mut screen = Screen::new(Panel::new(240, 135));
    screen.start("stories15M").unwrap();
    screen.status(12.3, 118).unwrap();
    screen.target().rest();
    screen.status(12.3, 118).unwrap();
    assert_eq!(screen.target().windows.len(), 0);
    screen.status(12.4, 119).unwrap();
    assert_eq!(screen.target().windows.len(), 2);
}
