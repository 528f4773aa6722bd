use turnpike_domain::port::control::PageAfter;

/// Rows of a list that are read at once.
const PAGE_ROWS: usize = 500;

/// A walk through a list of a store, page by page.
#[derive(Debug, Default)]
pub(super) struct Pages {
    after: Option<String>,
    over: bool,
}

impl Pages {
    /// The page to read next; none behind the last.
    pub(super) fn next(&self) -> Option<PageAfter> {
        (!self.over).then(|| PageAfter {
            after: self.after.clone(),
            rows: PAGE_ROWS,
        })
    }

    /// Notes what was read: how many rows, and the id of the last one.
    pub(super) fn turn(&mut self, rows: usize, last: Option<String>) {
        self.over = rows < PAGE_ROWS;
        self.after = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_ends_behind_a_page_that_is_not_full() {
        for rows in [0, 1, PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, 3 * PAGE_ROWS] {
            let (mut pages, mut read) = (Pages::default(), 0);
            while let Some(page) = pages.next() {
                assert_eq!(page.after, (read > 0).then(|| read.to_string()));
                let found = page.rows.min(rows - read);
                read += found;
                pages.turn(found, (found > 0).then(|| read.to_string()));
            }
            assert_eq!(read, rows);
        }
    }
}
