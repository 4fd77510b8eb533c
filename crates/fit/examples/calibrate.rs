//! Prints `catalog/speed.toml` for the catalog as it stands; `cargo xtask calibrate` writes it.

use brigade_fit::calibrate::{calibrate, to_toml};
use brigade_fit::catalog::Catalog;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let catalog = Catalog::embedded()?;
    print!("{}", to_toml(&calibrate(&catalog))?);
    Ok(())
}
