//! A fleet: how one signed manifest goes through many hosts, in waves that stop themselves.
#![forbid(unsafe_code)]

pub mod assurance;
pub mod host;
pub mod policy;
pub mod rollout;
#[cfg(test)]
mod sample;
pub mod simulate;
pub mod test;
pub mod waves;
