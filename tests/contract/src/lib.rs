//! Holds every implementation of an element to its contract: the World, and our clients at the lab.
//!
//! The tests are in `tests/`, one file for each world.
