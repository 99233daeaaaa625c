//! Renders a stored run record: `cargo run -p towpath-flow --example page -- record.json page.html` writes the page and
//! prints the table.

use std::error::Error;
use towpath_flow::{page, table};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(record), Some(html)) = (arguments.next(), arguments.next()) else {
        return Err("give two files: a run record (JSON) and the page to write (HTML)".into());
    };
    let text = std::fs::read_to_string(&record).map_err(|error| format!("cannot read {record}: {error}"))?;
    let record =
        serde_json::from_str(&text).map_err(|error| format!("{record} is no run record: {error}"))?;
    std::fs::write(&html, page(&record)).map_err(|error| format!("cannot write {html}: {error}"))?;
    #[expect(
        clippy::print_stdout,
        reason = "printing the table is what the program is for"
    )]
    {
        print!("{}", table(&record));
    }
    Ok(())
}
