//! The rules of the architecture, as tests: see `tests/rules`.
