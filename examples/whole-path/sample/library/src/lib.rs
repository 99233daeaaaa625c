//! A library to send along the path: it says hello through another package, which comes from the package repository.

/// Greets somebody.
pub fn greet(name: &str) -> String {
    towpath_greeting::greet(name)
}
