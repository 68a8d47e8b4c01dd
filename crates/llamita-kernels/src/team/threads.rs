//! A team of operating-system threads.
//!
//! Members spin briefly for the next step and then sleep, so a busy machine pays little. A step is open to
//! whoever is awake: each member begins with its own share of the parts, which stays the same from token to
//! token and so in its caches, and then helps the others. A member that the system puts aside before it begins
//! costs its help, not the step. If it is put aside in the middle of a part, the others wait; where such waits
//! take more time than the team saves, as on a busy machine, the caller works alone for a while.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::vec::Vec;

use super::Team;

/// Looks at the gate before a member sleeps: some tens of microseconds, longer than the steps of a forward
/// pass are apart, shorter than a time slice.
const SPINS: usize = 2000;
/// Time of steps after which it is judged whether the team pays.
const WINDOW: Duration = Duration::from_millis(20);
/// How long the caller works alone if it does not, at first and at most; it doubles from time to time.
const ALONE: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(1000)];
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

/// Whether the team pays.
#[derive(Clone, Copy)]
struct Judgement {
    /// Time of the steps of this window, and of the waits at their ends.
    steps: Duration,
    waits: Duration,
    /// The caller works alone until then, and how long that is.
    alone_until: Option<Instant>,
    alone: Duration,
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

/// A step's work, with its type forgotten.
#[derive(Clone, Copy)]
struct Job {
    work: unsafe fn(*const (), usize),
    data: *const (),
}

/// A step's parts and who has taken which.
struct Parts<'f, P, F> {
    parts: [UnsafeCell<MaybeUninit<P>>; MAX_PARTS],
    count: usize,
    members: usize,
    shares: [Share; MAX_MEMBERS],
    work: &'f F,
}

/// The next part of a member's share, in a cache line of its own.
#[repr(align(64))]
struct Share(AtomicUsize);

impl Threads {
    /// A team of `members` threads, the caller's included; at least one, at most 16.
    ///
    /// # Errors
    /// If the system starts no further thread.
    pub fn new(members: usize) -> std::io::Result<Self> {
        unsafe fn nothing(_: *const (), _: usize) {}
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(Job { work: nothing, data: core::ptr::null() }),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            caller_waits: AtomicBool::new(false),
            lock: Mutex::new(()),
            opened: Condvar::new(),
            left: Condvar::new(),
        });
        let judgement =
            Judgement { steps: Duration::ZERO, waits: Duration::ZERO, alone_until: None, alone: ALONE[0] };
        let mut team = Self { shared, workers: Vec::new(), waited: 0, judgement };
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

    /// Whether the caller has to do without the others for now.
    fn is_alone(&mut self) -> bool {
        let judgement = &mut self.judgement;
        if judgement.alone_until.is_some_and(|until| Instant::now() >= until) {
            judgement.alone_until = None;
        }
        judgement.alone_until.is_some()
    }

    /// Judges by the time of a step, and of the wait at its end, whether the caller is better off alone.
    fn judge(&mut self, step: Duration, wait: Duration) {
        self.waited += wait.as_nanos() as u64;
        let others = self.workers.len() as u32;
        let judgement = &mut self.judgement;
        judgement.steps += step;
        judgement.waits += wait;
        if judgement.steps < WINDOW {
            return;
        }
        // Alone, the steps would have taken as many times their time without waits as there are members.
        if judgement.waits > (judgement.steps - judgement.waits) * others {
            judgement.alone_until = Some(Instant::now() + judgement.alone);
            judgement.alone = (2 * judgement.alone).min(ALONE[1]);
        } else {
            judgement.alone = (judgement.alone / 2).max(ALONE[0]);
        }
        judgement.steps = Duration::ZERO;
        judgement.waits = Duration::ZERO;
    }

    /// Does up to [`MAX_PARTS`] parts.
    fn step<P: Send, F: Fn(P) + Sync>(&mut self, parts: &mut impl Iterator<Item = P>, work: &F) -> bool {
        let mut step = Parts {
            parts: [const { UnsafeCell::new(MaybeUninit::uninit()) }; MAX_PARTS],
            count: 0,
            members: self.members(),
            shares: [const { Share(AtomicUsize::new(0)) }; MAX_MEMBERS],
            work,
        };
        for (slot, part) in step.parts.iter_mut().zip(parts) {
            slot.get_mut().write(part);
            step.count += 1;
        }
        if step.count < 2 {
            step.work_from(0);
            return step.count > 0;
        }
        let data = core::ptr::from_ref(&step).cast();
        // SAFETY: The gate is closed and nobody is inside, so nobody reads the job.
        unsafe { *self.shared.job.get() = Job { work: Parts::<P, F>::work_erased, data } };
        self.shared.panicked.store(false, SeqCst);
        let start = Instant::now();
        self.shared.open();
        // Closes the gate also when `work` panics here: members may not outlive the step.
        let mut waited = Duration::ZERO;
        let close = Close { shared: &self.shared, waited: &mut waited };
        step.work_from(0);
        drop(close);
        self.judge(start.elapsed(), waited);
        assert!(!self.shared.panicked.load(SeqCst), "a member of the team panicked");
        true
    }
}

impl Team for Threads {
    fn parts(&self) -> usize {
        if self.workers.is_empty() { 1 } else { self.members() * PARTS_EACH }
    }

    fn run<P: Send>(&mut self, parts: impl Iterator<Item = P>, work: impl Fn(P) + Sync) {
        if self.workers.is_empty() || self.is_alone() {
            return parts.for_each(work);
        }
        let mut parts = parts;
        while self.step(&mut parts, &work) {}
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

impl<P: Send, F: Fn(P) + Sync> Parts<'_, P, F> {
    /// # Safety
    /// `data` points to a live `Parts` of these types.
    unsafe fn work_erased(data: *const (), member: usize) {
        // SAFETY: The caller says so.
        unsafe { &*data.cast::<Self>() }.work_from(member);
    }

    /// Does parts until none is left, beginning with the member's own share.
    fn work_from(&self, member: usize) {
        for turn in 0..self.members {
            let owner = (member + turn) % self.members;
            let start = owner * self.count / self.members;
            let end = (owner + 1) * self.count / self.members;
            loop {
                let part = start + self.shares[owner].0.fetch_add(1, SeqCst);
                if part >= end {
                    break;
                }
                // SAFETY: The first `count` parts were written before the step opened, and `fetch_add` gives
                // each of them to one member, once.
                let part = unsafe { (*self.parts[part].get()).assume_init_read() };
                (self.work)(part);
            }
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
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (job.work)(job.data, member) }));
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
    fn a_team_that_does_not_pay_rests() {
        let mut team = Threads::new(2).unwrap();
        let [short, long] = [1, 30].map(Duration::from_millis);
        team.judge(long, short);
        assert!(!team.is_alone(), "a wait that is less than what the team saves");
        team.judge(short, Duration::ZERO);
        team.judge(long, long);
        assert!(team.is_alone());
        let first = team.judgement.alone;
        team.judge(long, long);
        assert!(team.judgement.alone > first, "longer each time");
        team.judgement.alone_until = Some(Instant::now());
        assert!(!team.is_alone(), "and then another try");
        let caller = std::thread::current().id();
        team.judgement.alone_until = Some(Instant::now() + Duration::from_secs(60));
        team.run(0..40, |_| assert_eq!(std::thread::current().id(), caller));
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
