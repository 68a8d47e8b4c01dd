//! Runs the suite that every kernel passes: `cargo run --package llamita-conformance --example conformance`.
//!
//! Compiled to WebAssembly, without the standard library, it is a module with two functions instead:
//! `conformance` runs the suite and `message_byte` reads what it has to say.

#![cfg_attr(target_family = "wasm", no_std, no_main)]

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    let kernels = llamita_kernels::Kernels::detect();
    match llamita_conformance::check(kernels) {
        Ok(compared) => {
            println!("{}: {compared} results compared", kernels.name());
            std::process::ExitCode::SUCCESS
        }
        Err(mismatch) => {
            eprintln!("{}: {mismatch}", kernels.name());
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(target_family = "wasm")]
mod module {
    use core::fmt::Write;
    use core::panic::PanicInfo;
    use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

    use llamita_kernels::Kernels;

    // Atomics instead of pointers: nobody outside needs to know where the text lies, and nothing is unsafe.
    static TEXT: [AtomicU8; 512] = [const { AtomicU8::new(0) }; 512];
    static LENGTH: AtomicUsize = AtomicUsize::new(0);

    /// What the module has to say; text that does not fit is dropped.
    struct Message;

    impl Write for Message {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            for byte in text.bytes() {
                let end = LENGTH.load(Ordering::Relaxed);
                let Some(place) = TEXT.get(end) else { break };
                place.store(byte, Ordering::Relaxed);
                LENGTH.store(end + 1, Ordering::Relaxed);
            }
            Ok(())
        }
    }

    /// Run the suite: the number of results compared, or -1 and the message says what went wrong.
    #[unsafe(no_mangle)]
    extern "C" fn conformance() -> i32 {
        let kernels = Kernels::detect();
        LENGTH.store(0, Ordering::Relaxed);
        // Writing to the message cannot fail.
        let _ = Message.write_str(kernels.name());
        match llamita_conformance::check(kernels) {
            Ok(compared) => i32::try_from(compared).unwrap_or(i32::MAX),
            Err(mismatch) => {
                let _ = write!(Message, ": {mismatch}");
                -1
            }
        }
    }

    /// A byte of the message, or -1 behind its end.
    #[unsafe(no_mangle)]
    extern "C" fn message_byte(index: usize) -> i32 {
        let byte = TEXT.get(index).filter(|_| index < LENGTH.load(Ordering::Relaxed));
        byte.map_or(-1, |byte| i32::from(byte.load(Ordering::Relaxed)))
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        let _ = write!(Message, ": {info}");
        core::arch::wasm32::unreachable()
    }
}
