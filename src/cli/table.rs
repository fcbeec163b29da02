//! Aligned columns for people.

use std::io::{self, Write};

/// Writes `rows` below `head`; every column as wide as its widest cell, two spaces between.
pub(super) fn write<const N: usize>(
    out: &mut impl Write,
    head: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let mut widths = head.map(width);
    for row in rows {
        for (most, cell) in widths.iter_mut().zip(row) {
            *most = width(cell).max(*most);
        }
    }
    line(out, &head.map(str::to_owned), &widths)?;
    rows.iter().try_for_each(|row| line(out, row, &widths))
}

fn line<const N: usize>(out: &mut impl Write, cells: &[String; N], widths: &[usize; N]) -> io::Result<()> {
    let mut text = String::new();
    for (cell, most) in cells.iter().zip(widths) {
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', most + 2 - width(cell)));
    }
    writeln!(out, "{}", text.trim_end())
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}
