//! Manifest schema, signatures and trust policy: bytes in, values out.
