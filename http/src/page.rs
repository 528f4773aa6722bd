use serde::{Deserialize, Serialize};
use turnpike_domain::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use turnpike_domain::problem::Problem;

use crate::Cursor;

/// `limit` and `cursor` of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Rows at the most: 1 to 1,000, 100 unless said.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// `next_cursor` of the page before. Any other text is 422.
    #[param(value_type = Option<String>)]
    pub cursor: Option<Cursor>,
}

impl PageQuery {
    /// The number of rows, within bounds.
    pub fn rows(&self) -> Result<usize, Problem> {
        match self.limit {
            None => Ok(PAGE_ROWS_DEFAULT),
            Some(rows) if (1..=PAGE_ROWS_MAX).contains(&rows) => Ok(rows),
            Some(_) => Err(Problem::invalid(
                "/limit",
                format!("must be 1 to {PAGE_ROWS_MAX}"),
            )),
        }
    }

    /// The place behind which the page begins; `None` for the first.
    pub fn after(&self) -> Option<&str> {
        self.cursor.as_ref().and_then(Cursor::place)
    }
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Send as `cursor` for the next page; null on the last.
    #[schema(value_type = Option<String>)]
    pub next_cursor: Option<Cursor>,
}

impl<T> Page<T> {
    /// Cuts `rows` (one more than asked for, if there are more) to `limit`; the cursor is made from the last row kept.
    pub fn cut(mut rows: Vec<T>, limit: usize, place: impl FnOnce(&T) -> String) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|row| Cursor::new(place(row)));
        Self {
            data: rows,
            next_cursor,
        }
    }
}
