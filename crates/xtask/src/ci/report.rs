//! How each step went, as a table.

use std::fmt;
use std::time::Duration;

/// How one step ended.
pub enum Outcome {
    /// Everything was as it should be.
    Passed,
    /// There was nothing to check; holds why.
    Skipped(String),
    /// A tool is not installed; holds what to install.
    Missing(String),
    /// The check found a fault, or could not run; holds what went wrong.
    Failed(String),
}

/// The steps so far.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

struct Row {
    step: &'static str,
    outcome: Option<Outcome>,
    time: Duration,
}

impl Report {
    /// Note a step that ran, or was skipped.
    pub fn ran(&mut self, step: &'static str, outcome: Outcome, time: Duration) {
        self.rows.push(Row { step, outcome: Some(outcome), time });
    }

    /// Note a step that an earlier failure kept from running.
    pub fn not_run(&mut self, step: &'static str) {
        self.rows.push(Row { step, outcome: None, time: Duration::ZERO });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<16} {:<8} {:>7}", "step", "outcome", "seconds")?;
        for row in &self.rows {
            let (outcome, note) = match &row.outcome {
                Some(Outcome::Passed) => ("ok", ""),
                Some(Outcome::Skipped(reason) | Outcome::Missing(reason)) => ("skipped", reason.as_str()),
                // What went wrong is the last line of the output; here it would only blur the table.
                Some(Outcome::Failed(_)) => ("failed", ""),
                None => ("not run", ""),
            };
            let line = format!("{:<16} {outcome:<8} {:>7.1}  {note}", row.step, row.time.as_secs_f64());
            writeln!(out, "{}", line.trim_end())?;
        }
        let total: Duration = self.rows.iter().map(|row| row.time).sum();
        write!(out, "{:<16} {:<8} {:>7.1}", "total", "", total.as_secs_f64())
    }
}
