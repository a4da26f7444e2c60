//! Playing.
pub mod inventory;
pub mod random;
