//! What watches over the program, and how it ends.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use embedded_io::Write;
use esp_backtrace::Backtrace;
use esp_hal::delay::Delay;
use esp_hal::peripherals::{GPIO43, GPIO44, LPWR, RTC_TIMER, UART0, USB_DEVICE};
use esp_hal::rtc_cntl::{Rtc, RwdtStage};
use esp_hal::system::software_reset;

use crate::board::PATIENCE;
use crate::console::Console;
use crate::memory;

/// How long what a panic says can be read, and the cable be pulled, before all begins anew.
const PAUSE_MS: u32 = 3000;
/// How long a port needs to send what it holds.
const REST_MS: u32 = 20;

/// Resets the chip when its voltage is too low to compute with, and when nobody has fed the watchdog for long.
pub fn guard(timer: RTC_TIMER<'static>) {
    // Without a wait, and at the threshold that the chip has set itself: 2.7 V or so.
    LPWR::regs().brown_out().modify(|_, w| w.brown_out_ena().set_bit().brown_out_rst_ena().set_bit());
    let mut watchdog = Rtc::new(timer).rwdt;
    watchdog.set_timeout(RwdtStage::Stage0, PATIENCE);
    watchdog.enable();
}

/// Tells the watchdog that all is well.
pub fn feed() {
    // SAFETY: Nobody else has the timer since `guard` took it, and one core alone feeds.
    Rtc::new(unsafe { RTC_TIMER::steal() }).rwdt.feed();
}

/// Ends the program, after the stack's measure has been told: all begins anew.
pub fn end(console: &mut Console) -> ! {
    tell_stack(console);
    Delay::new().delay_millis(REST_MS);
    software_reset()
}

/// Says what happened that must not, where, and restarts.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if PANICKED.swap(true, Ordering::SeqCst) {
        // The other core was first, or a panic panics: the first one restarts, or the watchdog does.
        loop {
            core::hint::spin_loop();
        }
    }
    // What was sent before has time to leave: the ports are opened anew.
    Delay::new().delay_millis(REST_MS);
    // SAFETY: Whoever had the ports will not use them any more: this core never returns, and the other has no ports.
    let mut console = unsafe {
        Console::start(UART0::steal(), USB_DEVICE::steal(), GPIO43::steal(), GPIO44::steal())
    };
    say(&mut console, format_args!("stopped: {info}"));
    for frame in Backtrace::capture().frames() {
        say(&mut console, format_args!("at {:#010x}", frame.program_counter()));
    }
    tell_stack(&mut console);
    say(&mut console, format_args!("restarting"));
    Delay::new().delay_millis(PAUSE_MS);
    software_reset()
}

fn tell_stack(console: &mut Console) {
    let (used, stack) = memory::stack();
    say(console, format_args!("stack: {used} of {stack} bytes used"));
}

fn say(console: &mut Console, words: fmt::Arguments<'_>) {
    // Nobody may be listening.
    let _ = write!(console, "\r\n{words}\r\n");
    console.drain();
}
