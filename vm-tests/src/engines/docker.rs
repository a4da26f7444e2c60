//! A container of docker's, as `docker compose` makes them: no memory of it is kept, and docker goes on looking after it.

use anyhow::{Result, ensure};

use super::{expect_nothing_left, expect_same, expect_supervised, shell, update, view};
use crate::lab::Lab;
use crate::lab::machine::Machine;
use crate::publisher::Draft;
use crate::stage::Stage;
use crate::stepped::Stepped;
use crate::trials::{index_of, recorded};

const DOCKER: &str = include_str!("../../guest/docker.sh");

/// What docker must say otherwise of a container that it stopped and started: times and numbers, where its names lead, and
/// which directories its files are in.
pub(super) const ANEW: &[&str] = &[
    "State.Pid",
    "State.StartedAt",
    "State.FinishedAt",
    "State.ExitCode",
    "State.Health",
    "ExecIDs",
    "GraphDriver.Data.LowerDir",
    "NetworkSettings.Ports",
    "NetworkSettings.SandboxID",
    "NetworkSettings.SandboxKey",
    "NetworkSettings.Networks.shop_default.EndpointID",
    "NetworkSettings.Networks.shop_default.MacAddress",
];

/// A host with the container `web` of a compose project, vulnerable, which restarts always, has a volume and a health
/// check.
pub(super) fn stage(lab: &Lab) -> Result<Stage> {
    super::stage(lab, "docker", DOCKER)
}

/// For `web` alone, by its name, with this word on what cannot be checkpointed.
fn for_web(draft: Draft, without_checkpoint: &str) -> Draft {
    let containers = "\n    containers: {ids: [\"docker:web\"]}".to_owned();
    Draft { containers, livepatch: None, without_checkpoint: without_checkpoint.to_owned(), ..draft }
}

pub(super) fn peek(machine: &Machine) -> Result<String> {
    let address = "docker inspect -f '{{.NetworkSettings.Networks.shop_default.IPAddress}}' web";
    shell(machine, &format!("echo peek | timeout 60 greetc $({address}) 7000 | tail -n 1"))
}

/// A manifest that insists on a way back to the memory is refused; one that does without gets its fix in by a restart, told
/// beforehand; docker's own view stays, its restart keeps the fix, and the rollback brings the old files back.
///
/// # Errors
/// If it is not so.
pub fn dockers_container_gets_a_fix_by_a_restart_and_stays_dockers(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    let strict = stage.publish(machine, &for_web(Draft::fix(), "fail"))?;
    let before = view(machine, "docker")?;

    let said = update(machine, &["apply", &strict], 3)?;
    ensure!(said.contains("`docker checkpoint` is an experiment"), "it does not say why: {said}");
    let manifest = stage.publish(machine, &for_web(Draft::fix(), "restart"))?;
    // containerd's own, beside docker's.
    shell(
        machine,
        "docker save greet:1 | ctr --namespace shop images import - && ctr --namespace shop run --detach \
        $(ctr --namespace shop images list --quiet) its-own",
    )?;
    let plan = update(machine, &["plan", &manifest], 0)?;
    ensure!(plan.contains("containerd:shop/its-own"), "the plan does not tell of containerd's container");
    ensure!(plan.contains("container docker:web: is restarted"), "the plan does not say what web feels");
    update(machine, &["apply", &manifest], 0)?;
    ensure!(peek(machine)?.contains("version=2"), "{}", peek(machine)?);
    expect_same(&before, &view(machine, "docker")?, &[ANEW])?;
    expect_supervised(machine, "docker")?;
    update(machine, &["status"], 0)?;
    shell(machine, "docker restart --time 0 web && docker exec web sh -c 'echo kept >/var/lib/greetd/kept'")?;
    ensure!(peek(machine)?.contains("version=2"), "{}", peek(machine)?);

    update(machine, &["rollback"], 0)?;
    ensure!(peek(machine)?.contains("version=1"), "{}", peek(machine)?);
    ensure!(shell(machine, "docker exec web cat /var/lib/greetd/kept")? == "kept");
    expect_same(&before, &view(machine, "docker")?, &[ANEW, &["RestartCount"]])?;
    expect_nothing_left(machine)
}

/// A probe that fails brings the old files back; and so does a boot after the power failed while the container was down,
/// before docker starts it.
///
/// # Errors
/// If it is not so.
pub fn dockers_container_goes_back_to_its_old_files(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let mut scene = stage.open(lab)?;
    let machine = &mut scene.machine;
    let broken = stage.publish(machine, &for_web(Draft::broken(), "restart"))?;
    let before = view(machine, "docker")?;
    update(machine, &["apply", &broken], 1)?;
    ensure!(peek(machine)?.contains("version=1"), "{}", peek(machine)?);
    expect_same(&before, &view(machine, "docker")?, &[ANEW])?;

    let manifest = stage.publish(machine, &for_web(Draft::fix(), "restart"))?;
    let switched = index_of(machine, &manifest, "switch-rootfs", "docker:web")?;
    let run = Stepped::start(machine, &format!("update apply {manifest}"))?;
    run.wait_for(machine, recorded(switched))?;
    machine.cut_power()?;
    machine.boot_again()?;
    update(machine, &["resume"], 0)?;
    let at_boot = shell(machine, "systemctl show -p Result --value update-resume.service")?;
    ensure!(at_boot == "success", "update-resume.service ended as {at_boot}");
    shell(machine, "systemctl is-active --wait docker.service || systemctl start docker.service")?;
    let reply = peek(machine)?;
    ensure!(reply.contains("version=1"), "{reply}");
    expect_same(&before, &view(machine, "docker")?, &[ANEW])?;
    update(machine, &["status"], 0)?;
    expect_nothing_left(machine)
}
