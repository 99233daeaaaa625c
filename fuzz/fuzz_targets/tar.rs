#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| towpath_ecr::oci::fuzzing::tar(bytes));
