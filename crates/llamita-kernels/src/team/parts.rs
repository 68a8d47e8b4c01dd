//! A step's parts, and who takes which.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Up to `ROOM` parts of a step, shared out among up to `MEMBERS` members of a team.
pub(super) struct Parts<'f, P, F, const MEMBERS: usize, const ROOM: usize> {
    parts: [UnsafeCell<MaybeUninit<P>>; ROOM],
    count: usize,
    members: usize,
    shares: [Share; MEMBERS],
    work: &'f F,
}

/// The next part of a member's share, in a cache line of its own where there are caches between cores.
///
/// Not on Xtensa, whose compiler (LLVM of 2026) loses a function's arguments on the stack where it aligns the stack to more
/// than 16 bytes.
#[cfg_attr(not(target_arch = "xtensa"), repr(align(64)))]
struct Share(AtomicUsize);

/// A step's work, with its type forgotten.
#[derive(Clone, Copy)]
pub(super) struct Job {
    work: unsafe fn(*const (), usize),
    data: *const (),
}

impl Job {
    /// No work.
    pub const NOTHING: Self = Self { work: |_, _| (), data: core::ptr::null() };

    /// Does a member's share, and what others leave.
    ///
    /// # Safety
    /// The parts of which this was made are still there, and what they hold may be used on this thread.
    pub unsafe fn work_from(self, member: usize) {
        // SAFETY: The caller says so.
        unsafe { (self.work)(self.data, member) }
    }
}

impl<'f, P: Send, F: Fn(P) + Sync, const MEMBERS: usize, const ROOM: usize> Parts<'f, P, F, MEMBERS, ROOM> {
    /// No parts yet.
    // Not filled here: what is returned may be copied, and with it the room of parts that are not there.
    #[inline(always)]
    pub const fn new(members: usize, work: &'f F) -> Self {
        Self {
            parts: [const { UnsafeCell::new(MaybeUninit::uninit()) }; ROOM],
            count: 0,
            members: if members < MEMBERS { members } else { MEMBERS },
            shares: [const { Share(AtomicUsize::new(0)) }; MEMBERS],
            work,
        }
    }

    /// Takes as many parts as there is room for.
    #[inline(always)]
    pub fn take(&mut self, parts: &mut impl Iterator<Item = P>) {
        for (slot, part) in self.parts[self.count..].iter_mut().zip(parts) {
            slot.get_mut().write(part);
            self.count += 1;
        }
    }

    /// Number of parts.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The work on these parts, for members that know nothing of their type.
    pub const fn job(&self) -> Job {
        Job { work: Self::work_erased, data: core::ptr::from_ref(self).cast() }
    }

    /// # Safety
    /// `data` points to a live `Parts` of these types.
    unsafe fn work_erased(data: *const (), member: usize) {
        // SAFETY: The caller says so.
        unsafe { &*data.cast::<Self>() }.work_from(member);
    }

    /// Does parts until none is left, beginning with the member's own share.
    pub fn work_from(&self, member: usize) {
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
