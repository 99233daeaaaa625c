#![doc = include_str!("../README.md")]

pub mod contract;
pub mod world;

pub use world::World;
