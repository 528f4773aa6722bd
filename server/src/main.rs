//! The `turnpike` binary.

fn main() {}
