//! A medium that fails at any read.

use std::cell::Cell;
use std::rc::Rc;

use llamita_storage::{Cause, Error, Finished, Home, InMemory, Patience, Portions, Sector, Source, Verify};

use crate::common::{File, Places, STREAMED, Told, engine, expected, placed, reader, story};

/// What a read does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Error,
    Short,
    Corrupt,
    Stall,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the card does not answer")
    }
}

impl std::error::Error for Broken {}

/// Which reads fail, and how; reads are counted from 0.
#[derive(Clone, Copy, Debug)]
struct Plan {
    fault: Fault,
    first: u64,
    count: u64,
}

/// A file in memory whose reads fail as planned.
struct Faulty {
    file: InMemory<'static, Vec<Sector>>,
    plan: Rc<Cell<Option<Plan>>>,
    finished: Rc<Cell<u64>>,
    stalled: u64,
}

impl Source for Faulty {
    type Error = Broken;
    type Buffer = Vec<Sector>;

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn start(&mut self, first: u64, count: usize, buffer: Vec<Sector>) {
        self.file.start(first, count, buffer);
    }

    fn finish(&mut self) -> Option<Finished<Vec<Sector>, Broken>> {
        let index = self.finished.get();
        let fault = self.plan.get().filter(|plan| (plan.first..plan.first + plan.count).contains(&index));
        if let Some(Plan { fault: Fault::Stall, count, .. }) = fault
            && self.stalled < count
        {
            self.stalled += 1;
            return None;
        }
        self.stalled = 0;
        self.finished.set(index + 1);
        let Finished { mut buffer, outcome: Ok(len) } = self.file.finish()?;
        let outcome = match fault.map(|plan| plan.fault) {
            Some(Fault::Error) => Err(Broken),
            Some(Fault::Short) => Ok(len.saturating_sub(1 + index as usize % 700)),
            Some(Fault::Corrupt) => {
                // Anywhere but in what is read beyond the portion.
                let sectors = buffer.len();
                for sector in 0..sectors {
                    buffer[sector].0[(index as usize * 31 + sector * 7) % 512] ^= 1 << (index % 8);
                }
                Ok(len)
            }
            Some(Fault::Stall) | None => Ok(len),
        };
        Some(Finished { buffer, outcome })
    }
}

/// A file whose reads fail as planned, the plan, which can be changed, and the count of reads.
type Medium = (Faulty, Rc<Cell<Option<Plan>>>, Rc<Cell<u64>>);

fn medium(file: &'static File, plan: Option<Plan>) -> Medium {
    let (plan, finished) = (Rc::new(Cell::new(plan)), Rc::new(Cell::new(0)));
    let source = Faulty {
        file: InMemory::new(file.bytes()),
        plan: Rc::clone(&plan),
        finished: Rc::clone(&finished),
        stalled: 0,
    };
    (source, plan, finished)
}

type Outcome = Result<Told, llamita::Error<Error<Broken>>>;

/// Tells a short story over a faulty medium; `Err` holds an error of loading as well. Returns the reads.
fn tell(file: &'static File, places: Places, plan: Option<Plan>) -> (Outcome, u64) {
    tell_tokens(file, places, plan, 2)
}

fn tell_tokens(file: &'static File, places: Places, plan: Option<Plan>, count: usize) -> (Outcome, u64) {
    let (source, _, finished) = medium(file, plan);
    let reader = reader(source, &file.tape(), places).with_patience(Patience { tries: 3, stalls: 3 });
    let told = match placed(file.tape(), Home::Streamed(reader), places) {
        Ok(weights) => story(&mut engine(weights), count),
        Err(error) => Err(llamita::Error::Weights(error)),
    };
    (told, finished.get())
}

const MIXED: Places =
    Places { pinned: [60_000, 40_000], buffer: 24 << 10, buffers: 2, verify: Verify::Always };

#[test]
fn a_fault_at_any_read_ends_well_or_in_the_right_error() {
    let file: &'static File = Box::leak(Box::new(File::nano()));
    let expected = expected(file, 2);
    for places in [MIXED, Places { verify: Verify::Always, ..STREAMED }] {
        let (told, reads) = tell(file, places, None);
        assert!(told.unwrap() == expected);
        assert!(reads > 30, "{reads}");
        for first in 0..reads {
            for fault in [Fault::Error, Fault::Short, Fault::Corrupt, Fault::Stall] {
                // Once or twice in a row it is overcome.
                for count in [1, 2] {
                    let (told, _) = tell(file, places, Some(Plan { fault, first, count }));
                    match told {
                        Ok(told) => {
                            assert!(told == expected, "a wrong story, {fault:?} at {first}, {count} times")
                        }
                        Err(error) => panic!("{fault:?} at {first}, {count} times: {error}"),
                    }
                }
                // For good it is not.
                let (told, _) = tell(file, places, Some(Plan { fault, first, count: u64::MAX - first }));
                let Err(llamita::Error::Weights(error)) = told else {
                    panic!("a story without its weights, {fault:?} at {first}");
                };
                let right = match (&error, fault) {
                    (Error::Read(_, error), Fault::Error) => {
                        error.cause == Cause::Source(Broken) && error.tries == 3
                    }
                    (Error::Read(_, error), Fault::Short) => {
                        matches!(error.cause, Cause::Short(found, expected) if found < expected)
                    }
                    (Error::Read(_, error), Fault::Stall) => error.cause == Cause::Stalled,
                    (Error::Checksum(_), Fault::Corrupt) => true,
                    _ => false,
                };
                assert!(right, "{fault:?} at {first}: {error}");
                assert!(error.to_string().contains("copy the file anew"), "{error}");
            }
        }
    }
}

/// Damages each of the reads up to the end of the first pass, in which all is read for the first time.
fn verify_first(places: Places) {
    let file: &'static File = Box::leak(Box::new(File::nano()));
    let expected = expected(file, 2);
    // What is read ahead at the end is not of that pass.
    let (_, reads) = tell_tokens(file, places, None, 0);
    for first in 0..reads - 2 {
        let (told, _) = tell(file, places, Some(Plan { fault: Fault::Corrupt, first, count: 1 }));
        assert!(told.unwrap() == expected, "{places:?}, {first}");
    }
}

#[test]
fn what_is_read_for_the_first_time_is_verified_by_default() {
    verify_first(Places { verify: Verify::First, ..MIXED });
}

/// A pinned row of the embedding is used before its tensor has been read as the classifier.
#[test]
fn a_pinned_embedding_is_verified_before_it_is_used() {
    for pinned in [[120_000, 80_000], [400_000, 0]] {
        verify_first(Places { pinned, verify: Verify::First, ..MIXED });
    }
}

/// A file that is damaged for good is refused, wherever the damage is: in an embedding that is no classifier, too.
#[test]
fn damaged_files_tell_nothing() {
    for shared in [true, false] {
        let bytes = crate::common::shape_of_tiny_with(Some(8), shared);
        let tape = File::new(&bytes).tape();
        let len = llamita::Tape::len(tape.config());
        for index in (0..len).step_by(7).chain([1, len - 1]) {
            let tensor = llamita::Tape::tensor(tape.config(), index);
            let mut bytes = bytes.clone();
            // Of the last rows, which no token of the text has.
            bytes[(tape.entry(tensor).offset + tape.bytes(tensor) - 1) as usize] ^= 4;
            let file: &'static File = Box::leak(Box::new(File::new(&bytes)));
            for pinned in [[0, 0], [3_000_000, 0]] {
                let places = Places { pinned, verify: Verify::First, ..MIXED };
                let (told, _) = tell(file, places, None);
                let Err(llamita::Error::Weights(Error::Checksum(_))) = told else {
                    panic!("a damaged {tensor:?} was used, {shared} {pinned:?}");
                };
                let tape = file.tape();
                for portion in [Portions::mapped_buffer(&tape), Portions::whole(&tape)] {
                    let mapped = placed::<Faulty>(tape, Home::Mapped(file.bytes(), portion), places);
                    let told = mapped.map_err(llamita::Error::Weights).and_then(|w| story(&mut engine(w), 1));
                    assert!(matches!(told, Err(llamita::Error::Weights(Error::Checksum(_)))), "{tensor:?}");
                }
            }
        }
    }
}

/// However many places of a medium fail, a pass is not repeated for ever.
#[test]
fn passes_are_repeated_a_few_times() {
    let file: &'static File = Box::leak(Box::new(File::nano()));
    let places = Places { verify: Verify::Always, pinned: [0, 0], ..MIXED };
    let (told, all) = tell(file, places, None);
    told.unwrap();
    let (source, plan, finished) = medium(file, None);
    let home = Home::Streamed(reader(source, &file.tape(), places));
    let mut engine = engine(placed(file.tape(), home, places).unwrap());
    // From some read on all are damaged, each in another way.
    plan.set(Some(Plan { fault: Fault::Corrupt, first: finished.get() + 7, count: 1 << 40 }));
    let before = finished.get();
    let error = engine.forward(&[1, 2, 3], 0, 1).unwrap_err();
    assert!(matches!(error, llamita::Error::Weights(Error::Checksum(_))), "{error}");
    assert!(finished.get() - before < 4 * all, "{} reads", finished.get() - before);
}

#[test]
fn a_text_goes_on_after_the_medium_came_back() {
    let file: &'static File = Box::leak(Box::new(File::nano()));
    let expected = expected(file, 2);
    for fault in [Fault::Error, Fault::Stall] {
        let (source, plan, finished) = medium(file, None);
        let home = Home::Streamed(reader(source, &file.tape(), MIXED));
        let mut engine = engine(placed(file.tape(), home, MIXED).unwrap());
        engine.forward(&expected.0[..12], 0, 0).unwrap();
        let text = &expected.0[..17];
        engine.forward(&text[12..], 12, 1).unwrap();
        // The card is pulled, in the midst of a pass, and comes back.
        for later in [0, 3, 5] {
            plan.set(Some(Plan { fault, first: finished.get() + later, count: 1 << 40 }));
            engine.forward(&expected.0[17..18], 17, 1).unwrap_err();
            engine.forward(&expected.0[17..18], 17, 1).unwrap_err();
            plan.set(None);
            let logits = engine.forward(&expected.0[17..18], 17, 1).unwrap();
            let bits: Vec<u32> = logits.iter().map(|logit| logit.to_bits()).collect();
            assert!(bits == expected.1[bits.len()..], "{fault:?}, {later}");
        }
    }
}
