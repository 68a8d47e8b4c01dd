//! A team of two cores without an operating system.
//!
//! The second core has nothing else to do, so it waits for steps with its eyes open: a load a turn, from memory that has
//! to be inside the chip where atomic operations work in no other. A step is open to it, not assigned: both take parts
//! until none is left. So the caller never waits for a helper that has not come, and no longer than a part takes for one
//! that has.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use super::Team;
use super::parts::{Job, Parts};

/// Members, the caller and the helper.
const MEMBERS: usize = 2;
/// Parts that a step has at most. Work that can be cut is cut in one for each member: the cores are alike, and with small
/// models to cut a step takes as long as to do it.
const ROOM: usize = 8;

/// In the gate: a step is open, and the helper is inside. Above them the number of the step.
const OPEN: u32 = 1;
const INSIDE: u32 = 2;
const STEP: u32 = 4;

/// Where two cores meet: one of them [`help`](Self::help)s, the other is the caller of the [`Pair`].
#[derive(Debug)]
pub struct Meeting {
    gate: AtomicU32,
    /// Written by the caller while the gate is closed and nobody inside, read by the helper while it is inside.
    job: UnsafeCell<Job>,
    /// There is a helper.
    helped: AtomicBool,
    /// The helper is to go.
    dismissed: AtomicBool,
    /// There is a caller.
    called: AtomicBool,
    panicked: AtomicBool,
}

// SAFETY: `job` is the only part that is not `Sync`; the gate orders its one writer before its one reader, and what it
// points to may be shared between threads, as `Pair::run` requires.
unsafe impl Sync for Meeting {}
// SAFETY: As above; nothing in it belongs to one thread.
unsafe impl Send for Meeting {}

impl Default for Meeting {
    fn default() -> Self {
        Self::new()
    }
}

impl Meeting {
    /// A place where nobody is yet.
    pub const fn new() -> Self {
        Self {
            gate: AtomicU32::new(0),
            job: UnsafeCell::new(Job::NOTHING),
            helped: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            called: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        }
    }

    /// Helps the caller until [`dismiss`](Self::dismiss)ed, never sleeping. One core can do this at a time; others return
    /// at once.
    // Not a part of its caller, so that a linker can put it into memory that no cache is before.
    #[inline(never)]
    pub fn help(&self) {
        if self.helped.swap(true, SeqCst) {
            return;
        }
        let mut last = 0;
        while !self.dismissed.load(SeqCst) {
            let gate = self.gate.load(SeqCst);
            let is_new = gate & OPEN != 0 && gate / STEP != last;
            if is_new && self.gate.compare_exchange(gate, gate | INSIDE, SeqCst, SeqCst).is_ok() {
                last = gate / STEP;
                let mut inside = Inside { meeting: self, done: false };
                // SAFETY: We are inside, so the caller changes nothing.
                let job = unsafe { *self.job.get() };
                // SAFETY: The caller keeps the parts as long as we are inside.
                unsafe { job.work_from(1) };
                inside.done = true;
            }
            spin_loop();
        }
        self.dismissed.store(false, SeqCst);
        self.helped.store(false, SeqCst);
    }

    /// Sends the helper away, after the step that it helps with.
    pub fn dismiss(&self) {
        if self.helped.load(SeqCst) {
            self.dismissed.store(true, SeqCst);
        }
    }

    /// The team of whoever asks and the helper. While there is another, whoever asks works alone.
    pub fn team(&self) -> Pair<'_> {
        Pair { meeting: (!self.called.swap(true, SeqCst)).then_some(self) }
    }
}

/// A helper's stay in a step.
struct Inside<'m> {
    meeting: &'m Meeting,
    done: bool,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.meeting.panicked.store(true, SeqCst);
        }
        self.meeting.gate.fetch_and(!INSIDE, SeqCst);
    }
}

/// Closes the gate when dropped, and waits for the helper if it is inside: it may not outlive the step.
struct Close<'m>(&'m Meeting);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, SeqCst);
        while self.0.gate.load(SeqCst) & INSIDE != 0 {
            spin_loop();
        }
    }
}

/// A team of two: the caller's core and the one that helps at a [`Meeting`]; of one, while nobody does.
#[derive(Debug)]
pub struct Pair<'m> {
    meeting: Option<&'m Meeting>,
}

impl Pair<'_> {
    /// The meeting, if somebody helps there.
    fn helped(&self) -> Option<&Meeting> {
        self.meeting.filter(|meeting| meeting.helped.load(SeqCst))
    }
}

impl Team for Pair<'_> {
    fn parts(&self) -> usize {
        if self.helped().is_some() { MEMBERS } else { 1 }
    }

    fn run<P: Send>(&mut self, mut parts: impl Iterator<Item = P>, work: impl Fn(P) + Sync) {
        let Some(meeting) = self.helped() else { return parts.for_each(work) };
        loop {
            let mut step = Parts::<P, _, MEMBERS, ROOM>::new(MEMBERS, &work);
            step.take(&mut parts);
            if step.count() < 2 {
                return step.work_from(0);
            }
            // SAFETY: The gate is closed and the helper not inside, so it does not read the job.
            unsafe { *meeting.job.get() = step.job() };
            let gate = meeting.gate.load(SeqCst);
            meeting.gate.store(gate.wrapping_add(STEP) | OPEN, SeqCst);
            let close = Close(meeting);
            step.work_from(0);
            drop(close);
            assert!(!meeting.panicked.swap(false, SeqCst), "the helper panicked");
            if step.count() < ROOM {
                return;
            }
        }
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        if let Some(meeting) = self.meeting {
            meeting.called.store(false, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;
    use std::vec::Vec;

    /// Runs a test beside a helper, which is sent away also when the test fails.
    fn with_helper(test: impl FnOnce(&Meeting)) {
        struct Dismiss<'m>(&'m Meeting);
        impl Drop for Dismiss<'_> {
            fn drop(&mut self) {
                self.0.dismiss();
            }
        }
        let meeting = Meeting::new();
        thread::scope(|scope| {
            scope.spawn(|| meeting.help());
            while !meeting.helped.load(SeqCst) {
                thread::yield_now();
            }
            let _dismiss = Dismiss(&meeting);
            test(&meeting);
        });
    }

    #[test]
    fn every_part_is_done_once() {
        with_helper(|meeting| {
            let mut team = meeting.team();
            for count in [0, 1, 2, 3, ROOM, ROOM + 1, 2 * ROOM, 5 * ROOM + 3] {
                let mut numbers: Vec<u32> = (0..count as u32).collect();
                for _ in 0..20 {
                    team.run(numbers.iter_mut(), |n| *n = n.wrapping_mul(2).wrapping_add(1));
                }
                let expected = |n: u32| (0..20).fold(n, |n, _| n.wrapping_mul(2).wrapping_add(1));
                assert!(numbers.iter().enumerate().all(|(i, &n)| n == expected(i as u32)), "{count}");
            }
        });
    }

    #[test]
    fn both_work_at_the_same_time() {
        with_helper(|meeting| {
            let mut team = meeting.team();
            assert_eq!(team.parts(), MEMBERS);
            for _ in 0..3 {
                let both = Barrier::new(2);
                // Each part waits for the other.
                team.run(0..2, |_| {
                    both.wait();
                });
            }
        });
    }

    #[test]
    fn a_caller_without_a_helper_does_all() {
        let meeting = Meeting::new();
        let mut team = meeting.team();
        assert_eq!(team.parts(), 1);
        let caller = thread::current().id();
        let mut numbers = [0; 9];
        team.run(numbers.iter_mut(), |n| {
            assert_eq!(thread::current().id(), caller);
            *n += 1;
        });
        assert_eq!(numbers, [1; 9]);
    }

    #[test]
    fn there_is_one_helper_and_one_caller() {
        with_helper(|meeting| {
            // Returns, since there is one.
            meeting.help();
            let team = meeting.team();
            assert_eq!(meeting.team().parts(), 1);
            drop(team);
            assert_eq!(meeting.team().parts(), MEMBERS);
        });
    }

    #[test]
    fn a_panic_of_the_caller_waits_for_the_helper() {
        with_helper(|meeting| {
            let finished = AtomicBool::new(false);
            let both = Barrier::new(2);
            let caller = thread::current().id();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                meeting.team().run(0..2, |_| {
                    both.wait();
                    assert_ne!(thread::current().id(), caller);
                    thread::sleep(std::time::Duration::from_millis(20));
                    finished.store(true, SeqCst);
                });
            }));
            assert!(result.is_err() && finished.load(SeqCst));
            meeting.team().run(0..8, |_| ());
        });
    }

    #[test]
    fn a_panic_of_the_helper_reaches_the_caller() {
        let meeting = Meeting::new();
        let both = Barrier::new(2);
        let result = thread::scope(|scope| {
            let helper = scope.spawn(|| meeting.help());
            while !meeting.helped.load(SeqCst) {
                thread::yield_now();
            }
            let caller = thread::current().id();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                meeting.team().run(0..2, |_| {
                    both.wait();
                    assert_eq!(thread::current().id(), caller, "the helper's part");
                });
            }));
            assert!(helper.join().is_err());
            result
        });
        assert!(result.is_err());
    }
}
