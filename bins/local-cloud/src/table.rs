//! Tables for a terminal: columns as wide as their widest cell, nothing in them that a terminal would act on.

use deploy_cli::actions::text::line;

/// A table; the first row is its head.
pub(crate) fn render(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        rows.iter()
            .filter_map(|row: &Vec<String>| {
                row.get(column).map(|cell: &String| cell.chars().count())
            })
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_reaches_the_terminal() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["NAME", "STATE", "ADDRESS"]), row(["a\u{1b}[31m-1", "running", "-"])];
        let expected = "NAME           STATE    ADDRESS\na\\u{1b}[31m-1  running  -\n";
        assert_eq!(render(&rows), expected);
        assert_eq!(render(&[]), "");
    }
}
