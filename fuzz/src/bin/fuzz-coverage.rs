//! One target under libFuzzer; which, the environment says. Arguments are libFuzzer's own.

#![no_main]

use std::sync::LazyLock;

use fuzz::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| match std::env::var(fuzz::TARGET_VARIABLE) {
    Ok(name) => Target::named(&name).unwrap_or_else(|error| panic!("{error}")),
    Err(_) => panic!("{} should name a target; `fuzz list` prints them", fuzz::TARGET_VARIABLE),
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.run(data));
