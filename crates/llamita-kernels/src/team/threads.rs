//! A team of operating-system threads.
//!
//! Members spin briefly for the next step and then sleep, so a busy machine pays little. A step is open to
//! whoever is awake: each member begins with its own share of the parts, which stays the same from token to
//! token and so in its caches, and then helps the others. A member that the system puts aside before it begins
//! costs its help, not the step. If it is put aside in the middle of a part, the others wait; on a busy machine
//! such waits may take more time than the team saves. Therefore the caller works alone from time to time, and goes
//! on so where that is no slower.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::vec::Vec;

use super::Team;
use super::parts::{Job, Parts};

/// Looks at the gate before a member sleeps: some tens of microseconds, longer than the steps of a forward
/// pass are apart, shorter than a time slice.
const SPINS: usize = 2000;
/// Steps that a pace is taken of: as many as need this time, and no fewer than these, since some are longer than
/// others. It is some passes of a model.
const WINDOW: (Duration, u32) = (Duration::from_millis(5), 128);
/// How long it is worked in the better way before the other is tried, at first and at most; it doubles with each
/// trial in vain.
const PATIENCE: [Duration; 2] = [Duration::from_millis(80), Duration::from_millis(1000)];
/// Parts for each member: enough to share out what an absent member leaves.
const PARTS_EACH: usize = 4;
/// More members than this gain nothing on models of this size.
const MAX_MEMBERS: usize = 16;
/// Parts in the hands of the team at once; more are done in turns.
const MAX_PARTS: usize = MAX_MEMBERS * PARTS_EACH;

/// In the gate: a step is open. Below it the number of members inside, above it the number of the step.
const OPEN: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;
const STEP: u64 = OPEN << 1;

/// A team of threads: the caller's own and those that [`Threads::new`] started.
pub struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    waited: u64,
    judgement: Judgement,
}

/// Whether the caller works alone, by what was faster last.
///
/// How busy a machine is cannot be asked, and waits do not tell: a caller that is put aside itself waits for
/// nobody. So both ways are measured.
#[derive(Clone, Copy)]
struct Judgement {
    alone: bool,
    /// Whether this is the other way than the better one, tried for one window.
    trial: bool,
    /// Steps of this window, and their time.
    steps: u32,
    time: Duration,
    /// The time of a step in the last window of the better way.
    pace: Duration,
    /// Time that is left until the next trial, and how long that was in the beginning.
    left: Duration,
    patience: Duration,
}

impl Judgement {
    const NEW: Self = Self {
        alone: false,
        trial: false,
        steps: 0,
        time: Duration::ZERO,
        pace: Duration::MAX,
        left: PATIENCE[0],
        patience: PATIENCE[0],
    };

    /// Judges by the time of one more step.
    fn step(&mut self, time: Duration) {
        self.steps += 1;
        self.time += time;
        if self.time < WINDOW.0 || self.steps < WINDOW.1 {
            return;
        }
        let pace = self.time / self.steps;
        if !self.trial {
            self.pace = pace;
            self.left = self.left.saturating_sub(self.time);
            if self.left.is_zero() {
                self.trial = true;
                self.alone = !self.alone;
            }
        } else {
            self.trial = false;
            if pace < self.pace {
                self.pace = pace;
                self.patience = PATIENCE[0];
            } else {
                self.alone = !self.alone;
                self.patience = (2 * self.patience).min(PATIENCE[1]);
            }
            self.left = self.patience;
        }
        (self.steps, self.time) = (0, Duration::ZERO);
    }
}

struct Shared {
    gate: AtomicU64,
    /// Written by the caller while the gate is closed and nobody inside, read by members that are inside.
    job: UnsafeCell<Job>,
    stop: AtomicBool,
    panicked: AtomicBool,
    sleepers: AtomicUsize,
    caller_waits: AtomicBool,
    lock: Mutex<()>,
    opened: Condvar,
    left: Condvar,
}

// SAFETY: `job` is the only part that is not `Sync`; the gate orders its one writer before its readers, and
// what it points to may be shared between threads, as `Threads::run` requires.
unsafe impl Sync for Shared {}
// SAFETY: As above; nothing in it belongs to one thread.
unsafe impl Send for Shared {}

impl Threads {
    /// A team of `members` threads, the caller's included; at least one, at most 16.
    ///
    /// # Errors
    /// If the system starts no further thread.
    pub fn new(members: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(Job::NOTHING),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            caller_waits: AtomicBool::new(false),
            lock: Mutex::new(()),
            opened: Condvar::new(),
            left: Condvar::new(),
        });
        let mut team = Self { shared, workers: Vec::new(), waited: 0, judgement: Judgement::NEW };
        for member in 1..members.clamp(1, MAX_MEMBERS) {
            let shared = Arc::clone(&team.shared);
            let builder = std::thread::Builder::new().name(std::format!("llamita-{member}"));
            team.workers.push(builder.spawn(move || shared.member(member))?);
        }
        Ok(team)
    }

    /// Number of threads, the caller's included.
    pub fn members(&self) -> usize {
        self.workers.len() + 1
    }

    /// Does up to [`MAX_PARTS`] parts.
    fn step<P: Send, F: Fn(P) + Sync>(&mut self, parts: &mut impl Iterator<Item = P>, work: &F) -> bool {
        let mut step = Parts::<P, F, MAX_MEMBERS, MAX_PARTS>::new(self.members(), work);
        step.take(parts);
        if step.count() < 2 {
            step.work_from(0);
            return step.count() > 0;
        }
        // SAFETY: The gate is closed and nobody is inside, so nobody reads the job.
        unsafe { *self.shared.job.get() = step.job() };
        self.shared.panicked.store(false, SeqCst);
        self.shared.open();
        // Closes the gate also when `work` panics here: members may not outlive the step.
        let mut waited = Duration::ZERO;
        let close = Close { shared: &self.shared, waited: &mut waited };
        step.work_from(0);
        drop(close);
        self.waited += waited.as_nanos() as u64;
        assert!(!self.shared.panicked.load(SeqCst), "a member of the team panicked");
        true
    }
}

impl Team for Threads {
    fn parts(&self) -> usize {
        if self.workers.is_empty() { 1 } else { self.members() * PARTS_EACH }
    }

    fn run<P: Send>(&mut self, parts: impl Iterator<Item = P>, work: impl Fn(P) + Sync) {
        if self.workers.is_empty() {
            return parts.for_each(work);
        }
        let start = Instant::now();
        if self.judgement.alone {
            parts.for_each(work);
        } else {
            let mut parts = parts;
            while self.step(&mut parts, &work) {}
        }
        self.judgement.step(start.elapsed());
    }

    fn waited(&self) -> u64 {
        self.waited
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        drop(self.shared.locked());
        self.shared.opened.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has been reported by the step in which it did.
            let _ = worker.join();
        }
    }
}

/// Closes the gate when dropped, and waits for those inside.
struct Close<'a> {
    shared: &'a Shared,
    waited: &'a mut Duration,
}

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let gate = self.shared.gate.fetch_and(!OPEN, SeqCst);
        if gate & INSIDE == 0 {
            return;
        }
        let start = Instant::now();
        self.shared.wait_until_left();
        *self.waited = start.elapsed();
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the gate for the next step and wakes who sleeps.
    fn open(&self) {
        self.gate.fetch_add(STEP | OPEN, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            // A member counts itself as a sleeper under the lock and looks at the gate once more, so it
            // either sees the gate open or is waiting by the time the lock is ours.
            drop(self.locked());
            self.opened.notify_all();
        }
    }

    /// The caller's wait for the last member inside.
    fn wait_until_left(&self) {
        let left = || self.gate.load(SeqCst) & INSIDE == 0;
        for _ in 0..SPINS {
            if left() {
                return;
            }
            spin_loop();
        }
        let mut guard = self.locked();
        // A swap rather than a store: it orders the look at the gate after it on emulators too.
        self.caller_waits.swap(true, SeqCst);
        while !left() {
            guard = self.left.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_waits.store(false, SeqCst);
    }

    /// A worker's life.
    fn member(&self, member: usize) {
        let mut last = 0;
        while let Some(step) = self.enter(last) {
            last = step;
            // SAFETY: We are inside, so the caller waits for us before it changes the job or ends the step.
            let job = unsafe { *self.job.get() };
            // SAFETY: The job's data lives as long as somebody is inside.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { job.work_from(member) }));
            if result.is_err() {
                self.panicked.store(true, SeqCst);
            }
            self.leave();
        }
    }

    /// Waits for a step other than the last and goes in; `None` when the team ends.
    fn enter(&self, last: u64) -> Option<u64> {
        loop {
            let mut found = None;
            for _ in 0..SPINS {
                let gate = self.gate.load(SeqCst);
                if gate & OPEN != 0 && gate / STEP != last {
                    found = Some(gate);
                    break;
                }
                if self.stop.load(SeqCst) {
                    return None;
                }
                spin_loop();
            }
            match found {
                Some(gate) => {
                    if self.gate.compare_exchange(gate, gate + 1, SeqCst, SeqCst).is_ok() {
                        return Some(gate / STEP);
                    }
                }
                None => self.sleep(last),
            }
        }
    }

    fn sleep(&self, last: u64) {
        let mut guard = self.locked();
        self.sleepers.fetch_add(1, SeqCst);
        loop {
            let gate = self.gate.load(SeqCst);
            if (gate & OPEN != 0 && gate / STEP != last) || self.stop.load(SeqCst) {
                break;
            }
            guard = self.opened.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }

    fn leave(&self) {
        let gate = self.gate.fetch_sub(1, SeqCst);
        if gate & OPEN == 0 && gate & INSIDE == 1 && self.caller_waits.load(SeqCst) {
            drop(self.locked());
            self.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn double(members: usize, count: usize, rounds: usize) {
        let mut team = Threads::new(members).unwrap();
        let mut numbers: Vec<u32> = (0..count as u32).collect();
        for _ in 0..rounds {
            team.run(numbers.iter_mut(), |n| *n = n.wrapping_mul(2).wrapping_add(1));
        }
        let expected = |n: u32| (0..rounds).fold(n, |n, _| n.wrapping_mul(2).wrapping_add(1));
        assert!(numbers.iter().enumerate().all(|(i, &n)| n == expected(i as u32)), "{members} {count}");
    }

    #[test]
    fn every_part_is_done_once() {
        for members in [1, 2, 3, 5] {
            for count in [0, 1, 2, 3, 7, MAX_PARTS, MAX_PARTS + 1, 3 * MAX_PARTS + 5] {
                double(members, count, 20);
            }
        }
    }

    #[test]
    fn steps_follow_one_another_after_sleep() {
        double(3, 9, 10_000);
        let mut team = Threads::new(3).unwrap();
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let mut numbers = vec![0; 12];
            team.run(numbers.iter_mut(), |n| *n += 1);
            assert_eq!(numbers, vec![1; 12]);
        }
    }

    #[test]
    fn members_work_at_the_same_time_also_after_sleep() {
        let mut team = Threads::new(3).unwrap();
        for pause in [0, 0, 30, 0, 30] {
            std::thread::sleep(Duration::from_millis(pause));
            let meeting = std::sync::Barrier::new(3);
            // Each part waits for the others, so three threads have to do one each.
            team.run(0..3, |_| {
                meeting.wait();
            });
        }
    }

    #[test]
    fn what_is_faster_is_done_and_the_other_tried() {
        let run = |judgement: &mut Judgement, time: Duration, [team, alone]: [u64; 2]| {
            let (mut total, mut times) = (Duration::ZERO, [Duration::ZERO; 2]);
            while total < time {
                let is_alone = judgement.alone;
                let step = Duration::from_micros(if is_alone { alone } else { team });
                judgement.step(step);
                total += step;
                times[usize::from(is_alone)] += step;
            }
            times.map(|time| time.as_secs_f64() / total.as_secs_f64())
        };
        let second = Duration::from_secs(1);
        let mut judgement = Judgement::NEW;
        assert!(run(&mut judgement, 10 * second, [50, 90])[0] > 0.97, "an idle machine");
        run(&mut judgement, 2 * second, [150, 90]);
        assert!(run(&mut judgement, 10 * second, [150, 90])[1] > 0.97, "a busy one");
        run(&mut judgement, 2 * second, [50, 90]);
        assert!(run(&mut judgement, 10 * second, [50, 90])[0] > 0.97, "and idle again");
        let mut judgement = Judgement::NEW;
        let first = run(&mut judgement, second, [50, 90]);
        assert!(first[0] > 0.94, "trials are short from the beginning: {first:?}");
    }

    #[test]
    fn a_caller_alone_does_all_parts() {
        let mut team = Threads::new(2).unwrap();
        team.judgement.alone = true;
        let caller = std::thread::current().id();
        team.run(0..200, |_| assert_eq!(std::thread::current().id(), caller));
    }

    #[test]
    fn parts_that_own_memory_are_freed() {
        let mut team = Threads::new(2).unwrap();
        let marker = Arc::new(());
        team.run((0..40).map(|_| Arc::clone(&marker)), drop);
        assert_eq!(Arc::strong_count(&marker), 1);
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let mut team = Threads::new(2).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.run(0..8, |part| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                assert!(part < 4, "part {part}");
            });
        }));
        assert!(result.is_err());
        for _ in 0..3 {
            team.run(0..8, |_| ());
        }
    }
}
