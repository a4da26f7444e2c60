//! patch-tools
