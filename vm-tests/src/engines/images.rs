//! A container that is made anew from another image: what its engine says of it before and after, what its peers feel,
//! and what is left of it after a power cut.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::podman::{ASKED_TO_START, AWAY, address, client, expect_supervised, peek};
use super::{PATIENCE, expect_nothing_left, expect_same, shell, update, view};
use crate::lab::Lab;
use crate::lab::cache::Recipe;
use crate::lab::machine::Machine;
use crate::publisher::{Draft, SIGNERS, place};
use crate::stage::Stage;
use crate::stepped::Stepped;
use crate::trials::{index_of, recorded};

const NEXT_IMAGES: &str = include_str!("../../guest/next-images.sh");
const NEXT_IMAGES_OF_DOCKER: &str = include_str!("../../guest/next-images-docker.sh");

/// What podman must say otherwise of a container that was made anew from another image: what it is, and when; where its files
/// lie; and where it is, since podman gives another address at every start.
const REMADE: &[&str] = &[
    "Id",
    "Created",
    "Image",
    "ImageDigest",
    "ImageName",
    "Config.Image",
    "Config.CreateCommand",
    "Config.Hostname",
    "Config.Env",
    "State.CgroupPath",
    "ResolvConfPath",
    "HostnamePath",
    "HostsPath",
    "StaticDir",
    "OCIConfigPath",
    "ConmonPidFile",
    "PidFile",
    "lockNumber",
    "GraphDriver.Data",
    "NetworkSettings.IPAddress",
    "NetworkSettings.MacAddress",
    "NetworkSettings.Networks.podman.IPAddress",
    "NetworkSettings.Networks.podman.MacAddress",
    "NetworkSettings.Networks.podman.Aliases",
];

/// A host with an engine's container `web`, and archives of images beside.
fn with_images(lab: &Lab, stage: Stage, kind: &str, script: &str) -> Result<Stage> {
    stage.after(lab, kind, Recipe::of([script]), |machine| {
        machine.guest().write_file("/root/next-images.sh", script.as_bytes(), 0o755)?;
        machine.command(["sh", "-e", "/root/next-images.sh"]).timeout(PATIENCE).check().map(drop)
    })
}

fn stage(lab: &Lab) -> Result<Stage> {
    with_images(lab, super::podman::stage(lab)?, "podman-images", NEXT_IMAGES)
}

/// What docker must say otherwise of a container that was made anew from another image.
const REMADE_BY_DOCKER: &[&str] = &[
    "Id",
    "Created",
    "Image",
    "Config.Image",
    "Config.Hostname",
    "ResolvConfPath",
    "HostnamePath",
    "HostsPath",
    "LogPath",
    "GraphDriver.Data",
    "NetworkSettings.Networks.shop_default.DNSNames",
    "NetworkSettings.Networks.shop_default.IPAddress",
];

/// One of docker's, of a compose project: no memory of it is kept, and all else stays as it was; and a power cut when the old
/// one is set aside ends with the old one, which runs.
///
/// # Errors
/// If it is not so.
pub fn dockers_container_is_made_anew_from_a_signed_image(lab: &Lab) -> Result<()> {
    let stage = with_images(lab, super::docker::stage(lab)?, "docker-images", NEXT_IMAGES_OF_DOCKER)?;
    let mut scene = stage.open(lab)?;
    let machine = &mut scene.machine;
    let restart = "\n    without_checkpoint: restart";
    let manifest = publish(&stage, machine, "docker", 2, restart)?;
    shell(machine, "docker exec web sh -c 'echo kept >/data/kept'")?;
    let before = view(machine, "docker")?;
    let old = made_from(machine, "docker")?;

    let exchanged = index_of(machine, &manifest, "exchange-containers", "docker:web")?;
    let run = Stepped::start(machine, &format!("update apply {manifest}"))?;
    run.wait_for(machine, recorded(exchanged))?;
    let names = shell(machine, "docker ps --all --format '{{.Names}}'")?;
    ensure!(names.lines().count() == 2 && names.contains("-old"), "not exchanged: {names}");
    machine.cut_power()?;
    machine.boot_again()?;
    shell(
        machine,
        "systemctl start docker.service && for i in $(seq 120); do
            systemctl is-active --quiet update-resume-docker.service || \
                [ $(systemctl show -p SubState --value update-resume-docker.service) = dead ] && exit 0
            sleep 1
        done; exit 1",
    )?;
    update(machine, &["resume"], 0)?;
    expect_web_alone(machine, "docker")?;
    ensure!(made_from(machine, "docker")? == old, "it is not made from its old image");
    ensure!(super::docker::peek(machine)?.contains("version=1"), "{}", super::docker::peek(machine)?);
    expect_same(&before, &view(machine, "docker")?, &[super::docker::ANEW, REMADE_BY_DOCKER])?;

    update(machine, &["apply", &manifest], 0)?;
    expect_image(machine, "docker", 2)?;
    ensure!(super::docker::peek(machine)?.contains("version=2"), "{}", super::docker::peek(machine)?);
    expect_same(&before, &view(machine, "docker")?, &[super::docker::ANEW, REMADE_BY_DOCKER])?;
    ensure!(shell(machine, "docker exec web cat /data/kept")? == "kept");
    super::expect_supervised(machine, "docker")?;
    update(machine, &["status"], 0)?;

    update(machine, &["rollback"], 0)?;
    ensure!(made_from(machine, "docker")? == old, "it is not made from its old image");
    ensure!(super::docker::peek(machine)?.contains("version=1"), "{}", super::docker::peek(machine)?);
    ensure!(shell(machine, "docker exec web cat /data/kept")? == "kept");
    expect_web_alone(machine, "docker")
}

/// Signs a manifest that brings `web` this image, with these words beside; its path in the machine.
fn publish(stage: &Stage, machine: &Machine, engine: &str, version: u32, more: &str) -> Result<String> {
    let archive = format!("/root/greet-{version}.oci.tar");
    let sha256 = shell(machine, &format!("sha256sum {archive} | cut -d' ' -f1"))?;
    let size = shell(machine, &format!("stat -c %s {archive}"))?;
    let draft = Draft {
        name: format!("greet-image-{version}"),
        livepatch: None,
        library: None,
        settle: "1s".to_owned(),
        ..Draft::fix()
    };
    let component = format!(
        "components:
  - kind: image
    payload: {{file: greet-{version}.oci.tar, sha256: {sha256}, size: {size}}}
    image: \"{image}\"
    instead_of: [\"{old}\"]
    containers: {{ids: [\"{engine}:web\"]}}
    probes:{probes}{more}\n",
        image = wanted(machine, version)?,
        old = made_from(machine, engine)?,
        probes = draft.probes
    );
    let yaml = draft.yaml(&stage.props, &machine.spec().kernel)?.replace("components:\n", &component);
    let envelope = stage.publisher.sign(&yaml, &SIGNERS)?;
    let path = place(machine.guest(), &draft.name, &[], &envelope)?;
    shell(machine, &format!("cp {archive} $(dirname {path})"))?;
    Ok(path)
}

/// The id of an image, with its algorithm, which podman leaves out.
fn digest(text: &str) -> String {
    format!("sha256:{}", text.trim_start_matches("sha256:"))
}

fn wanted(machine: &Machine, version: u32) -> Result<String> {
    Ok(digest(&shell(machine, &format!("cat /root/greet-{version}.id"))?))
}

fn made_from(machine: &Machine, engine: &str) -> Result<String> {
    Ok(digest(&shell(machine, &format!("{engine} inspect -f '{{{{.Image}}}}' web"))?))
}

fn expect_image(machine: &Machine, engine: &str, version: u32) -> Result<()> {
    let (found, expected) = (made_from(machine, engine)?, wanted(machine, version)?);
    ensure!(found == expected, "web is made from {found}, expected {expected}");
    Ok(())
}

/// Nothing is left of the exchange.
fn expect_web_alone(machine: &Machine, engine: &str) -> Result<()> {
    let names = shell(machine, &format!("{engine} ps --all --format '{{{{.Names}}}}'"))?;
    ensure!(names == "web", "there are others: {names}");
    let volumes = shell(machine, &format!("{engine} volume ls --quiet"))?;
    ensure!(volumes == "data", "there are other volumes: {volumes}");
    expect_nothing_left(machine)
}

/// A good image, with everything else that podman says of the container kept; its data in a volume; its peers told; podman
/// looks after it; and the rollback to the old image.
///
/// # Errors
/// If it is not so.
pub fn podmans_container_is_made_anew_from_a_signed_image(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    let manifest = publish(&stage, machine, "podman", 2, "")?;
    shell(machine, "podman exec web sh -c 'echo kept >/data/kept'")?;
    let client = client(machine)?;
    let before = view(machine, "podman")?;
    let old = made_from(machine, "podman")?;

    let plan = update(machine, &["plan", &manifest], 0)?;
    ensure!(
        plan.contains("container podman:web: is made anew from another image"),
        "it does not say what web feels"
    );
    ensure!(plan.contains("what it wrote outside of its volumes"), "it does not say what is not kept");
    update(machine, &["apply", &manifest], 0)?;
    expect_image(machine, "podman", 2)?;
    ensure!(peek(machine)?.contains("version=2"), "{}", peek(machine)?);
    let end = client.wait_for_end(Duration::from_secs(10))?;
    ensure!(end.what == "reset", "expected a reset, found {}", end.what);
    expect_same(&before, &view(machine, "podman")?, &[AWAY, REMADE])?;
    ensure!(shell(machine, "podman exec web cat /data/kept")? == "kept");
    expect_supervised(machine)?;
    update(machine, &["status"], 0)?;
    ensure!(update(machine, &["plan", &manifest], 0)?.contains("nothing to do"));

    update(machine, &["rollback"], 0)?;
    ensure!(made_from(machine, "podman")? == old, "it is not made from its old image");
    ensure!(peek(machine)?.contains("version=1"), "{}", peek(machine)?);
    expect_same(&before, &view(machine, "podman")?, &[AWAY, REMADE])?;
    ensure!(shell(machine, "podman exec web cat /data/kept")? == "kept");
    expect_web_alone(machine, "podman")
}

/// An image that fails its probe brings the old container back, with memory, connection and address; one that podman could
/// not make again as it is, is not touched.
///
/// # Errors
/// If it is not so.
pub fn podmans_container_comes_back_where_its_new_image_fails(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let scene = stage.open(lab)?;
    let machine = &scene.machine;
    let manifest = publish(&stage, machine, "podman", 3, "")?;
    let client = client(machine)?;
    let (before, instance) = (view(machine, "podman")?, peek(machine)?);

    update(machine, &["apply", &manifest], 1)?;
    client.wait_for_replies(2, PATIENCE)?;
    let counts = client.counts()?;
    ensure!(counts.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a reply was lost: {counts:?}");
    let word = |text: &str| text.split(' ').find(|word| word.starts_with("instance=")).map(str::to_owned);
    ensure!(word(&instance) == word(&peek(machine)?), "it is another process: {instance}");
    expect_same(&before, &view(machine, "podman")?, &[AWAY])?;
    expect_web_alone(machine, "podman")?;

    // Its memory limit is not the one any more that it was made with.
    shell(machine, "podman update --memory 200m web")?;
    let said = update(machine, &["apply", &manifest], 1)?;
    ensure!(said.contains("HostConfig.Memory"), "the field is not named: {said}");
    client.wait_for_replies(2, PATIENCE)?;
    client.stop()?;
    ensure!(word(&instance) == word(&peek(machine)?), "it was touched: {instance}");
    expect_web_alone(machine, "podman")?;
    expect_supervised(machine)
}

/// The power fails when the old one is set aside and the new one has its name: the old one comes back at boot, with its
/// memory; and when it fails after the commit, the new one stays, and nothing of the old one.
///
/// # Errors
/// If it is not so.
pub fn podmans_container_is_one_after_a_power_cut(lab: &Lab) -> Result<()> {
    let stage = stage(lab)?;
    let mut scene = stage.open(lab)?;
    let machine = &mut scene.machine;
    let manifest = publish(&stage, machine, "podman", 2, "")?;
    client(machine)?.stop()?;
    let before = view(machine, "podman")?;

    let exchanged = index_of(machine, &manifest, "exchange-containers", "podman:web")?;
    let run = Stepped::start(machine, &format!("update apply {manifest}"))?;
    run.wait_for(machine, recorded(exchanged))?;
    let names = shell(machine, "podman ps --all --format '{{.Names}}'")?;
    ensure!(names.lines().count() == 2 && names.contains("-old"), "not exchanged: {names}");
    machine.cut_power()?;
    machine.boot_again()?;
    update(machine, &["resume"], 0)?;
    let at_boot = shell(machine, "systemctl show -p Result --value update-resume.service")?;
    ensure!(at_boot == "success", "update-resume.service ended as {at_boot}");
    let reply = peek(machine)?;
    ensure!(reply.contains("version=1") && !reply.contains("count=0 "), "its memory is lost: {reply}");
    expect_same(&before, &view(machine, "podman")?, &[AWAY, ASKED_TO_START])?;
    update(machine, &["status"], 0)?;
    expect_web_alone(machine, "podman")?;

    let run = Stepped::start(machine, &format!("update apply {manifest}"))?;
    // The first step after the commit.
    run.wait_for(machine, |line| line.contains(" after ") && line.contains("\"reset\""))?;
    machine.cut_power()?;
    machine.boot_again()?;
    update(machine, &["resume"], 0)?;
    expect_image(machine, "podman", 2)?;
    ensure!(address(machine)?.starts_with("10.88."), "it was not started at boot");
    ensure!(peek(machine)?.contains("version=2"), "{}", peek(machine)?);
    update(machine, &["status"], 0)?;
    expect_web_alone(machine, "podman")
}
