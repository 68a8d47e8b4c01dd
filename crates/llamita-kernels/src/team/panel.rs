//! Columns of a matrix, to be written by one member of a team while others write the rest.

use core::fmt;
use core::marker::PhantomData;

/// Some columns of a row-major matrix of activations: (batch, width), a row for each token.
///
/// Panels come from splitting the whole matrix, so no two of them share an element.
pub struct Panel<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: A panel is the only way to its elements for as long as it lives, like the `&mut [f32]` that it
// was made of, so it may move to another thread as that may.
unsafe impl Send for Panel<'_> {}
// SAFETY: A shared panel gives no access to its elements: `row_mut` takes it by `&mut`.
unsafe impl Sync for Panel<'_> {}

impl<'a> Panel<'a> {
    /// All columns of a matrix of this many rows.
    ///
    /// # Panics
    /// If the length is not a multiple of `rows`.
    pub fn new(matrix: &'a mut [f32], rows: usize) -> Self {
        let width = matrix.len().checked_div(rows).unwrap_or(0);
        assert_eq!(width * rows, matrix.len(), "a matrix of {rows} rows of one length");
        Self { start: matrix.as_mut_ptr(), rows, width, stride: width, matrix: PhantomData }
    }

    /// Number of rows: tokens of the batch.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns in this panel.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// One row of the panel: (width,).
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: Row `row` of the matrix begins `row * stride` elements after the panel's start and has at
        // least `width` elements left, all inside the slice that `new` was given. Panels are disjoint and
        // the result borrows this one mutably, so nobody else reaches these elements.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.width) }
    }

    /// The same columns for a shorter use, after which this panel can be used again.
    pub fn reborrow(&mut self) -> Panel<'_> {
        Panel { matrix: PhantomData, ..*self }
    }

    /// Parts the panel in two: columns before `column`, and the rest.
    ///
    /// # Panics
    /// If there are fewer columns.
    pub fn split_at(self, column: usize) -> (Self, Self) {
        assert!(column <= self.width, "column {column} of {}", self.width);
        // `wrapping_add` because the matrix may end at a panel of no columns.
        let start = self.start.wrapping_add(column);
        (Self { width: column, ..self }, Self { start, width: self.width - column, ..self })
    }

    /// Takes the first columns off the panel.
    ///
    /// # Panics
    /// If there are fewer columns.
    pub fn take(&mut self, columns: usize) -> Self {
        let whole = Self { matrix: PhantomData, ..*self };
        let (head, rest) = whole.split_at(columns);
        *self = rest;
        head
    }
}

impl fmt::Debug for Panel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Panel({} x {})", self.rows, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_a_matrix_and_share_nothing() {
        let mut matrix = [0.0; 15];
        let mut rest = Panel::new(&mut matrix, 3);
        let mut panels = [rest.take(2), rest.take(0), rest];
        for (value, panel) in panels.iter_mut().enumerate() {
            for row in 0..panel.rows() {
                for x in panel.row_mut(row) {
                    *x += 1.0 + value as f32;
                }
            }
        }
        assert_eq!(matrix, [1.0, 1.0, 3.0, 3.0, 3.0, 1.0, 1.0, 3.0, 3.0, 3.0, 1.0, 1.0, 3.0, 3.0, 3.0]);
    }

    #[test]
    #[should_panic = "row 3 of 3"]
    fn there_is_no_row_past_the_last() {
        Panel::new(&mut [0.0; 6], 3).row_mut(3);
    }

    #[test]
    #[should_panic = "column 3 of 2"]
    fn there_is_no_column_past_the_last() {
        let _ = Panel::new(&mut [0.0; 6], 3).split_at(3);
    }
}
