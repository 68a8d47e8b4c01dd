//! How many threads a model is worth.

use std::collections::HashSet;
use std::fs;
use std::num::NonZero;
use std::path::Path;

/// Below this many bytes of weights per token, waiting for a second thread costs more than it saves.
const WORTH_A_TEAM: u64 = 4 << 20;

/// As many threads as were asked for, or else as suit a model that reads this many bytes per token: one for
/// a tiny model, one for each core for others.
pub fn count(asked: Option<usize>, bytes_per_token: u64) -> usize {
    asked.unwrap_or_else(|| if bytes_per_token < WORTH_A_TEAM { 1 } else { cores() })
}

/// Cores that this process may use. Hardware threads of one core share its arithmetic: they are one.
fn cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, NonZero::get);
    allowed.min(physical_cores(Path::new("/sys/devices/system/cpu")).unwrap_or(allowed))
}

/// The number of cores, where the system shows them as Linux does.
fn physical_cores(folder: &Path) -> Option<usize> {
    let mut cores = HashSet::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let fact = |name| fs::read_to_string(entry.path().join("topology").join(name)).ok();
        // What is no CPU has no topology.
        if let (Some(package), Some(core)) = (fact("physical_package_id"), fact("core_id")) {
            cores.insert((package, core));
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiny_models_get_one_thread() {
        assert_eq!(count(None, 1 << 20), 1);
        assert_eq!(count(Some(3), 1 << 20), 3);
        assert!((1..=std::thread::available_parallelism().unwrap().get()).contains(&count(None, 60 << 20)));
    }

    #[test]
    fn hardware_threads_of_a_core_count_once() {
        let folder = std::env::temp_dir().join(format!("llamita-cores-{}", std::process::id()));
        for (cpu, core) in [(0, "0"), (1, "1"), (2, "0"), (3, "1")] {
            let topology = folder.join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("physical_package_id"), "0\n").unwrap();
            fs::write(topology.join("core_id"), core).unwrap();
        }
        fs::create_dir_all(folder.join("cpufreq")).unwrap();
        assert_eq!(physical_cores(&folder), Some(2));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(physical_cores(&folder), None);
    }
}
