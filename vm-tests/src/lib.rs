//! Tests, demo and benchmarks of `update` on real kernels, in virtual machines.
//!
//! | module | what |
//! |---|---|
//! | [`lab`] | makes and runs machines: stock Debian kernels under QEMU, power cuts, snapshots |
//! | [`fixtures`] | what is updated: server and library in runc containers, livepatch modules |
//! | [`scene`] | a machine with the fixtures in it, ready in about a second |
//! | [`product`] | the built programs, and their installation in a guest |
//! | [`packages`] | the product as Debian packages, and Debian systems that judge them |
//! | [`publisher`] | keys, policy, signed manifests |
//! | [`stage`] | a scene in which `update` is installed and releases can be published |
//! | [`stepped`] | a run of `update` that stands still at each of its step boundaries |
//! | [`demo`] | one host taken through the whole story |
//! | [`cuts`] | the power fails at every step boundary |
//! | [`prove`] | real fixes as livepatches: built, loaded, used, unloaded |
//! | [`engines`] | containers of an engine, and what the engine says of them |
//! | [`exam`] | what is too much for every run of the tests, and a rotating share of it that is not |
//! | [`fuzzing`] | the readers of what others wrote, under a fuzzer |
//! | [`page`] | the controller's page in a browser |
//! | [`newcomer`] | a machine on which the lab has never run |
//! | [`bench`] | what `update` costs beside the commands by hand |
//! | [`series`] | a livepatch for a kernel of each series that people run |
//! | [`services`] | packages of the host, and the services that run what they bring |
//! | [`soft_reboots`] | userspace is started anew on the running kernel, in the middle of an update and after it |
//! | [`trials`] | what containers and their peers feel, on any Debian |
//! | [`whole_kernels`] | what a host says of its kernels, and whether it can checkpoint |
//! | [`suite`] | the README's test command |
//! | [`cli`] | the `vm-tests` program, for people |
//!
//! # By hand
//!
//! ```text
//! vm-tests up --name a --scene             a machine with the containers `web` and `other`
//! vm-tests exec a -- runc list
//! vm-tests push a target/debug/update /usr/bin/update
//! vm-tests shell a                         ssh
//! vm-tests cut a                           cut the power and boot the same disk
//! vm-tests down a
//! vm-tests run -- uname -r                 a fresh machine for one command
//! ```
//!
//! # In a test
//!
//! ```no_run
//! use std::time::Duration;
//! use vm_tests::{lab::Lab, scene::Scene};
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut scene = Scene::open(&Lab::open()?)?;
//! let client = scene.client("web", "held")?;
//! assert!(client.ask("hit", Duration::from_secs(10))?.contains("version=1"));
//!
//! scene.machine.sh("echo kept >/root/file && sync")?;
//! // A guest program that wants to be cut at this instant writes `cut 7` to the signal port:
//! // scene.machine.wait_signal("cut 7", Duration::from_secs(60))?;
//! scene.machine.cut_power()?;
//! scene.machine.boot_again()?;
//! assert_eq!(scene.machine.sh("cat /root/file")?, "kept");
//! assert!(scene.machine.splats()?.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Environment
//!
//! `UPDATE_LAB_CACHE` moves the cache (`~/.cache/update-lab`); `LAB_ACCEL` replaces QEMU's accelerator
//! (`tcg,thread=multi`).

pub mod bench;
pub mod cli;
pub mod cuts;
pub mod demo;
pub mod engines;
pub mod exam;
pub mod fixtures;
pub mod fuzzing;
pub mod lab;
pub mod newcomer;
pub mod packages;
pub mod page;
pub mod product;
pub mod prove;
pub mod publisher;
pub mod scene;
pub mod secure_boot;
pub mod series;
pub mod services;
pub mod soft_reboots;
pub mod stage;
pub mod stepped;
pub mod suite;
pub mod trials;
pub mod whole_kernels;
