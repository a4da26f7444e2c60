//! The subjects: what is examined, and why not all of it by every run of the tests.

use anyhow::{Result, ensure};

use super::{NOT_NOW, Share, Subject, some_of};
use crate::cuts::{self, Direction};
use crate::demo::{self, Afterwards};
use crate::engines::docker::{
    dockers_container_gets_a_fix_by_a_restart_and_stays_dockers, dockers_container_goes_back_to_its_old_files,
};
use crate::engines::images::{
    dockers_container_is_made_anew_from_a_signed_image,
    podmans_container_comes_back_where_its_new_image_fails,
    podmans_container_is_made_anew_from_a_signed_image, podmans_container_is_one_after_a_power_cut,
};
use crate::engines::podman::{
    podmans_container_comes_back_after_a_power_cut, podmans_container_comes_back_with_memory_and_connection,
    podmans_container_gets_a_fix_and_stays_podmans,
};
use crate::fuzzing;
use crate::lab::Lab;
use crate::lab::distribution::Distribution;
use crate::newcomer::stories;
use crate::page;
use crate::product::{Build, Product};
use crate::prove::{self, Beginning, Change};
use crate::secure_boot::a_locked_down_kernel_takes_what_its_owner_signed;
use crate::series::takes_a_livepatch;
use crate::services::{
    a_bad_library_of_the_host_goes_back, a_dpkg_that_outlives_update_is_waited_for,
    a_library_of_the_host_is_fixed_and_given_back, a_power_cut_in_dpkg_leaves_the_old_package,
};
use crate::soft_reboots::{
    a_soft_reboot_before_the_commit_brings_the_memory_back, soft_reboots_keep_what_is_committed,
};
use crate::stage::Stage;
use crate::trials::TRIALS;
use crate::whole_kernels::a_host_says_what_its_kernels_are_and_whether_it_can_checkpoint;

/// So many files hold more than 150 fixes that count; the whole list is six times as long and of the same kinds.
const FIXES: usize = 280;

const A_BOOT_EACH: &str = "each needs a boot of its own, and there are several hundred";

/// Everything that is examined.
pub const SUBJECTS: &[Subject] = &[
    Subject {
        name: "power-cuts-forward",
        units: "every state of a transaction that commits, at which the power is cut",
        reason: A_BOOT_EACH,
        examine: |lab, share| power_cuts(lab, Direction::Forward, share),
    },
    Subject {
        name: "power-cuts-backward",
        units: "every state of a transaction whose probe fails",
        reason: A_BOOT_EACH,
        examine: |lab, share| power_cuts(lab, Direction::Backward, share),
    },
    Subject {
        name: "power-cuts-rollback",
        units: "every state of `update rollback`",
        reason: A_BOOT_EACH,
        examine: |lab, share| power_cuts(lab, Direction::Rollback, share),
    },
    Subject {
        name: "real-fixes",
        units: "280 files that differ between two versions of Debian 12's kernel, some 160 of them fixes that a \
            livepatch can be asked for",
        reason: "each is compiled, loaded, used and unloaded; all of them take half an hour",
        examine: real_fixes,
    },
    Subject {
        name: "kernel-series",
        units: "a livepatch built, loaded, used and unloaded on 6.12 of Debian 12, 6.12 of Debian 13, and 7.3 of its backports",
        reason: "each series has sources, a compiler and a prepared tree of its own, which take minutes and gigabytes",
        examine: kernel_series,
    },
    Subject {
        name: "secure-boot",
        units: "the stock kernels of Debian 12 and 13 under Secure Boot, locked down: a livepatch unsigned, signed by a \
            stranger, and signed by a machine owner's key",
        reason: "emulated firmware takes minutes to verify what it starts",
        examine: secure_boot,
    },
    Subject {
        name: "debian-13",
        units: "the demo on Debian 13; and there, each of what containers and their peers have to feel, as the tests ask \
            it of Debian 12; and soft reboots, which its systemd can: at the commit and after it, and before it",
        reason: "a second time everything that a machine takes for it",
        examine: debian_13,
    },
    Subject {
        name: "engines",
        units: "a container of podman's on Debian 13, with an open connection: an update and its rollback; a probe that \
            fails; the power cut while its memory is in a checkpoint alone; one of docker's: an update and its rollback; a \
            probe that fails and a power cut; podman's made anew from another image: an update and its rollback; a probe that \
            fails, and a container that podman could not make again; power cuts while the old one is set aside and after the \
            commit; docker's: a power cut, an update and its rollback",
        reason: "every command of an engine takes an emulated machine five to twenty seconds, and each unit needs dozens",
        examine: engines,
    },
    Subject {
        name: "services",
        units: "a library of the host in a package, and services with socket activation and kept descriptors: fixed and \
            rolled back on Debian 12, and on 13; a probe that fails, and a library that does not work; the power cut while \
            dpkg unpacks and configures; `update` killed while dpkg works",
        reason: "dpkg and systemd take an emulated machine many seconds each time, and some units boot it",
        examine: services,
    },
    Subject {
        name: "whole-kernels",
        units: "what `update kernel status` says, and its trial of a checkpoint, on Debian 12 and 13",
        reason: "each needs a machine with the containers of the tests, on another system",
        examine: whole_kernels,
    },
    Subject {
        name: "newcomers",
        units: "a bare Debian 12 with another version of `qemu-utils`; with another version of `qemu-system-x86`; \
            from the clone to the end of the demo; with all tests that need no virtual machine",
        reason: "installing, compiling and making images takes minutes each time",
        examine: newcomers,
    },
    Subject {
        name: "page",
        units: "the controller's page in a headless Chromium, against a real controller: a rollout that halts, seen as it happens; \
            a viewer who may not pause, and a host whose name is markup; every view at 360 pixels, in the dark, by the \
            keyboard, for who does not see it, and without script",
        reason: "a browser is a hundred megabytes to fetch and takes half a minute each time",
        examine: the_page,
    },
    Subject {
        name: "fuzzing",
        units: "every reader of what others wrote, three minutes each under libFuzzer, led by coverage; in the tests \
            blindly, with other inputs for each seed",
        reason: "what is led by coverage needs every crate compiled once more, and each reader takes minutes",
        examine: |_, share| fuzzing::examine(share),
    },
];

fn power_cuts(lab: &Lab, direction: Direction, share: Share) -> Result<String> {
    let directions = Direction::ALL;
    let number = directions.iter().take_while(|other| **other != direction).count();
    let Some(share) = share.of_series(number, directions.len()) else {
        return Ok(NOT_NOW.to_owned());
    };
    let count = cuts::run(lab, &Stage::set(lab)?, direction, share)?;
    Ok(format!("{count} cuts, each ended all old or all new"))
}

fn real_fixes(lab: &Lab, share: Share) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let options = prove::Options {
        kernel: Distribution::default().kernel().to_owned(),
        // A fixed version, so that a number is the same fix on every day.
        later: Some("6.1.192-2".to_owned()),
        limit: usize::MAX,
        files: FIXES,
        only: Vec::new(),
        share,
        change: Change::Fix,
        // As the tests are built: a release would be built for this alone.
        program: Some(Product::build(Build::Tests)?.patch_tools),
        report: dir.path().join("report.md"),
        jobs: 2,
        seed: 1,
        beginning: Beginning::Anew,
    };
    let report = prove::run(lab, &options)?;
    let text = std::fs::read_to_string(&options.report)?;
    ensure!(report.is_good(), "{}\n{text}", report.summary());
    Ok(report.summary())
}

fn kernel_series(lab: &Lab, share: Share) -> Result<String> {
    let takes = |release: &'static str| move || takes_a_livepatch(lab, release);
    some_of(
        &[
            ("6.12 of Debian 12", &takes("6.12.117+deb12-amd64")),
            ("6.12 of Debian 13", &takes("6.12.107+deb13-amd64")),
            ("7.3 of Debian 13's backports", &takes("7.3.4+deb13-amd64")),
        ],
        4,
        share,
    )
}

fn secure_boot(lab: &Lab, share: Share) -> Result<String> {
    let takes = |distribution: Distribution| {
        move || a_locked_down_kernel_takes_what_its_owner_signed(lab, distribution)
    };
    let units: [(&str, &dyn Fn() -> Result<()>); 2] =
        [("Debian 12", &takes(Distribution::Debian12)), ("Debian 13", &takes(Distribution::Debian13))];
    some_of(&units, 3, share)
}

fn debian_13(lab: &Lab, share: Share) -> Result<String> {
    let demo = || demo::run(Distribution::Debian13, Afterwards::Discard);
    let trials: Vec<_> =
        TRIALS.into_iter().map(|(name, trial)| (name, move || trial(lab, Distribution::Debian13))).collect();
    let trials = trials.iter().map(|(name, trial)| (*name, trial as &dyn Fn() -> Result<()>));
    let after_the_commit = || soft_reboots_keep_what_is_committed(lab);
    let before_it = || a_soft_reboot_before_the_commit_brings_the_memory_back(lab);
    let soft_reboots: [(&str, &dyn Fn() -> Result<()>); 2] = [
        ("soft reboots at the commit and after it", &after_the_commit),
        ("a soft reboot before the commit", &before_it),
    ];
    let demo = [("the demo", &demo as &dyn Fn() -> Result<()>)];
    some_of(&demo.into_iter().chain(trials).chain(soft_reboots).collect::<Vec<_>>(), 7, share)
}

fn engines(lab: &Lab, share: Share) -> Result<String> {
    // Not where newcomers and kernel series take their minutes.
    some_of(
        &[
            ("docker: update and rollback", &|| {
                dockers_container_gets_a_fix_by_a_restart_and_stays_dockers(lab)
            }),
            ("docker: a failed probe and a power cut", &|| dockers_container_goes_back_to_its_old_files(lab)),
            ("podman: update and rollback", &|| podmans_container_gets_a_fix_and_stays_podmans(lab)),
            ("podman: a failed probe", &|| podmans_container_comes_back_with_memory_and_connection(lab)),
            ("podman: a power cut", &|| podmans_container_comes_back_after_a_power_cut(lab)),
            ("another image: update and rollback", &|| {
                podmans_container_is_made_anew_from_a_signed_image(lab)
            }),
            ("another image: a failed probe", &|| {
                podmans_container_comes_back_where_its_new_image_fails(lab)
            }),
            ("another image: power cuts", &|| podmans_container_is_one_after_a_power_cut(lab)),
            ("another image: docker", &|| dockers_container_is_made_anew_from_a_signed_image(lab)),
        ],
        8,
        share,
    )
}

fn the_page(lab: &Lab, share: Share) -> Result<String> {
    let cache = lab.cache();
    some_of(
        &[
            ("a rollout that halts", &|| page::a_rollout_that_halts_is_seen_as_it_happens(cache)),
            ("a viewer, and a name", &|| page::a_viewer_may_not_pause_and_a_name_runs_nothing(cache)),
            ("for everybody", &|| page::the_page_is_for_everybody(cache)),
        ],
        7,
        share,
    )
}

fn services(lab: &Lab, share: Share) -> Result<String> {
    use Distribution::{Debian12, Debian13};
    some_of(
        &[
            ("fixed and rolled back", &|| a_library_of_the_host_is_fixed_and_given_back(lab, Debian12)),
            ("a bad library", &|| a_bad_library_of_the_host_goes_back(lab, Debian12)),
            ("a power cut in dpkg", &|| a_power_cut_in_dpkg_leaves_the_old_package(lab, Debian12)),
            ("a dpkg that outlives update", &|| a_dpkg_that_outlives_update_is_waited_for(lab, Debian12)),
            ("on Debian 13", &|| a_library_of_the_host_is_fixed_and_given_back(lab, Debian13)),
        ],
        2,
        share,
    )
}

fn whole_kernels(lab: &Lab, share: Share) -> Result<String> {
    let says = |distribution: Distribution| {
        move || a_host_says_what_its_kernels_are_and_whether_it_can_checkpoint(lab, distribution)
    };
    let units: [(&str, &dyn Fn() -> Result<()>); 2] =
        [("Debian 12", &says(Distribution::Debian12)), ("Debian 13", &says(Distribution::Debian13))];
    some_of(&units, 5, share)
}

fn newcomers(lab: &Lab, share: Share) -> Result<String> {
    let cache = lab.cache();
    let begin = || if share == Share::ALL { stories::Compiled::Anew } else { stories::Compiled::Already };
    // Spread over the seeds; two in one would be too much for a run of the tests.
    some_of(
        &[
            ("qemu-utils of another version", &|| stories::foreign(cache, "qemu-utils")),
            ("qemu-system-x86 of another version", &|| stories::foreign(cache, "qemu-system-x86")),
            ("from the clone to the end of the demo", &|| stories::demo(cache, begin())),
            ("the tests that need no virtual machine", &|| stories::tests(cache)),
        ],
        0,
        share,
    )
}
