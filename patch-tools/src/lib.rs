//! Reading, checking, comparing and building kernel livepatch modules.
//!
//! Every module takes bytes and returns values; only `build` runs a compiler. One line per module here:
//!
