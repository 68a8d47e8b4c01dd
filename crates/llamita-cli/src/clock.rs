//! The time, for whoever measures it.

use std::sync::{LazyLock, OnceLock};
use std::time::Instant;

use llamita_storage::simulate::Clock;

/// Nanoseconds since the first call.
pub fn nanoseconds() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

static BOARD: OnceLock<Clock> = OnceLock::new();

/// The clock of the board that is imitated, of which there is one in a process; the first call says whether it shows
/// the world's time.
pub fn of_board(real: bool) -> &'static Clock {
    BOARD.get_or_init(|| if real { Clock::real() } else { Clock::virtual_time() })
}

/// Nanoseconds by that clock.
pub fn board_nanoseconds() -> u64 {
    BOARD.get().map_or(0, Clock::now)
}
