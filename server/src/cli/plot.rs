//! Bars beside a table, as wide as the terminal lets them be.

use super::output::{millionths, terminal_columns};

/// Cells of all bars together at the most.
const CELLS_MAX: usize = 60;
/// With less room there are no bars: they would say nothing.
const CELLS_MIN: usize = 8;
/// Columns where the width cannot be told: a pipe or a file.
const COLUMNS: usize = 100;

/// Eighths of a cell, from the left.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Columns of the terminal that standard output is, else of `COLUMNS`, else 100.
pub(super) fn columns() -> usize {
    let said = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal_columns().or_else(said).unwrap_or(COLUMNS)
}

/// A bar for each of `values`, decimals as they are answered, in `room` cells. What is no number has none. Empty texts
/// where bars say nothing: for a single value, for zeros alone, or without room.
pub(super) fn bars(values: &[String], room: usize) -> Vec<String> {
    let numbers: Vec<i128> = values
        .iter()
        .map(|value| millionths(value).unwrap_or(0))
        .collect();
    let most = numbers.iter().copied().max().unwrap_or(0).max(0);
    let least = numbers.iter().copied().min().unwrap_or(0).min(0);
    let nothing = || vec![String::new(); values.len()];
    let cells = room.min(CELLS_MAX);
    if values.len() < 2 || cells < CELLS_MIN || most == least {
        return nothing();
    }
    if least == 0 {
        return numbers.iter().map(|value| right(*value, most, cells)).collect();
    }
    // One scale for both sides, and a cell for the axis between them.
    let span = most.saturating_sub(least);
    let left_cells = scaled(least.saturating_neg(), span, cells - 1).clamp(1, cells - 2);
    let right_cells = cells - 1 - left_cells;
    numbers
        .iter()
        .map(|value| {
            let left = left(value.saturating_neg(), least.saturating_neg(), left_cells);
            format!("{left}│{}", right(*value, most, right_cells))
        })
        .collect()
}

/// `cells · part / whole`.
fn scaled(part: i128, whole: i128, cells: usize) -> usize {
    usize::try_from(part.saturating_mul(cells as i128) / whole.max(1)).unwrap_or(cells)
}

/// A bar that grows to the right; what is there at all is seen.
fn right(value: i128, most: i128, cells: usize) -> String {
    if value <= 0 {
        return String::new();
    }
    let eighths = scaled(value, most, cells * 8).max(1);
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// A bar that grows to the left, in whole cells.
fn left(value: i128, most: i128, cells: usize) -> String {
    let full = if value <= 0 {
        0
    } else {
        scaled(value, most, cells).max(1)
    };
    format!("{}{}", " ".repeat(cells - full), "█".repeat(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str], room: usize) -> Vec<String> {
        bars(&values.iter().map(ToString::to_string).collect::<Vec<_>>(), room)
    }

    #[test]
    fn bars_are_in_proportion() {
        assert_eq!(of(&["10", "5", "0", "–"], 8), ["████████", "████", "", ""]);
        assert_eq!(of(&["1000000", "0.000001"], 10)[1], "▏", "what is there is seen");
        assert_eq!(of(&["16", "1"], 8)[1], "▌");
    }

    #[test]
    fn negative_values_stand_left_of_an_axis() {
        assert_eq!(
            of(&["30", "-10", "0", "-0.5"], 9),
            ["  │██████", "██│", "  │", " █│"]
        );
        assert_eq!(of(&["-1", "-2"], 9), ["    ███│", "███████│"].map(str::to_owned));
    }

    #[test]
    fn what_says_nothing_is_not_drawn() {
        for (values, room) in [
            (&["5"][..], 40),
            (&["0", "0", "–"], 40),
            (&["1", "2"], 7),
            (&["1", "2"], 0),
            (&[], 40),
        ] {
            assert!(of(values, room).iter().all(String::is_empty), "{values:?} {room}");
        }
    }

    #[test]
    fn no_bar_is_wider_than_its_room() {
        let values = [
            "340282366920938463463374607431",
            "-340282366920938463463374607431",
            "1",
        ];
        for room in 8..120 {
            for bar in of(&values, room) {
                assert!(bar.chars().count() <= room.min(CELLS_MAX), "{room}: {bar}");
            }
        }
    }
}
