//! Columns of text, as wide as they need to be.

/// Between two columns.
const GAP: &str = "  ";

/// A heading for each column, and rows.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// From the left, columns that begin at their left edge: words. The others are numbers, but for the last one.
    words: usize,
}

impl Table {
    pub(super) fn new(words: usize, headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()], words }
    }

    /// A row; it has as many cells as there are headings.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// There are headings alone.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The lines. `last_is_words`: the last column is not aligned to its right edge.
    pub(super) fn lines(&self, last_is_words: bool) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let is_words = column < self.words || (last_is_words && column + 1 == columns);
                let cell = if is_words { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
                if column > 0 {
                    line += GAP;
                }
                line += &cell;
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(1, &["type", "keys", "key"]);
        assert!(table.is_empty());
        table.row(["string".to_owned(), "7".to_owned(), "ä".to_owned()]);
        table.row(["set".to_owned(), "12345".to_owned(), "user:1".to_owned()]);
        assert_eq!(table.lines(true), "type     keys  key\nstring      7  ä\nset     12345  user:1\n");
        assert_eq!(table.lines(false), "type     keys     key\nstring      7       ä\nset     12345  user:1\n");
    }
}
