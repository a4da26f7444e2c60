//! The lab itself: what every other test relies on.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vm_tests::lab::Lab;
use vm_tests::lab::spec::MachineSpec;

const SHORT: Duration = Duration::from_secs(60);

#[test]
fn a_command_has_its_own_stdout_stderr_status_and_stdin() -> Result<()> {
    let machine = Lab::for_test()?.ready(&MachineSpec::default())?;
    let guest = machine.guest();

    let output = guest.script("cat; echo bad >&2; exit 3").stdin(b"from stdin").output()?;
    assert_eq!(
        (output.status, output.text().as_str(), output.complaint().as_str()),
        (3, "from stdin", "bad\n")
    );

    let killed = guest.script("kill -KILL $$").output()?;
    assert_eq!(killed.status, 128 + 9);

    let missing = guest.command(["/no/such/program"]).output().unwrap_err();
    assert!(format!("{missing:#}").contains("No such file"), "{missing:#}");

    // Arguments arrive as they are.
    assert_eq!(guest.command(["printf", "%s|", "a b", "", "$HOME"]).check()?, "a b||$HOME|");
    Ok(())
}

#[test]
fn large_files_go_in_and_out_unchanged() -> Result<()> {
    let machine = Lab::for_test()?.ready(&MachineSpec::default())?;
    let mut bytes = vec![0u8; 3 * 1024 * 1024 + 17];
    let mut state = 1u32;
    for byte in &mut bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    machine.guest().write_file("/root/sub/large", &bytes, 0o640)?;
    assert_eq!(machine.guest().read_file("/root/sub/large")?, bytes);
    assert_eq!(machine.sh("stat -c '%a %s' /root/sub/large")?, format!("640 {}", bytes.len()));
    Ok(())
}

#[test]
fn a_command_that_takes_too_long_is_killed_in_the_guest() -> Result<()> {
    let machine = Lab::for_test()?.ready(&MachineSpec::default())?;
    let late = machine.command(["sleep", "4711"]).timeout(Duration::from_secs(3)).output().unwrap_err();
    assert!(format!("{late:#}").contains("time ran out"), "{late:#}");
    // The next command on that port is answered only after the one before has been killed.
    assert_eq!(machine.guest().script("pgrep -f '^sleep 4711'").output()?.status, 1);
    Ok(())
}

#[test]
fn several_commands_run_at_once() -> Result<()> {
    let machine = Lab::for_test()?.ready(&MachineSpec::default())?;
    machine.sh("mkfifo /root/one /root/two")?;
    let guest = machine.guest().clone();
    // Each side needs the other to be there.
    let other = std::thread::spawn(move || guest.sh("echo ping >/root/one; cat /root/two"));
    assert_eq!(machine.sh("cat /root/one; echo pong >/root/two")?, "ping");
    assert_eq!(other.join().expect("the thread does not panic")?, "pong");
    Ok(())
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_boots_again() -> Result<()> {
    let mut machine = Lab::for_test()?.boot(&MachineSpec::default())?;
    let before = machine.sh("cat /proc/sys/kernel/random/boot_id")?;
    machine.sh("echo kept >/root/kept; sync")?;
    machine.cut_power()?;
    assert!(!machine.is_running());
    machine.boot_again()?;

    assert_eq!(machine.sh("cat /root/kept")?, "kept");
    assert_ne!(machine.sh("cat /proc/sys/kernel/random/boot_id")?, before);
    assert_eq!(machine.sh("uname -r")?, MachineSpec::default().kernel);
    assert_eq!(machine.splats()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn machines_from_one_snapshot_do_not_see_each_other() -> Result<()> {
    let lab = Lab::for_test()?;
    let first = lab.ready(&MachineSpec::default())?;
    first.sh("echo first >/root/who")?;
    let second = lab.ready(&MachineSpec::default())?;
    assert_eq!(second.sh("ls /root")?, "");
    assert_eq!(first.sh("cat /root/who")?, "first");

    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_secs();
    let guest: u64 = second.sh("date +%s")?.parse()?;
    assert!(now.abs_diff(guest) < 60, "the guest's clock says {guest}, the host's {now}");
    Ok(())
}

#[test]
fn a_guest_program_can_wait_to_be_cut_at_an_exact_step() -> Result<()> {
    let mut machine = Lab::for_test()?.ready(&MachineSpec::default())?;
    let program = "exec 3<>/dev/virtio-ports/lab.signal
        echo step 1 >&3; read -r answer <&3; echo $answer >/root/one; sync
        echo step 2 >&3; read -r answer <&3; echo $answer >/root/two; sync";
    machine.guest().write_file("/root/steps", program.as_bytes(), 0o755)?;
    machine.sh("setsid sh /root/steps >/dev/null 2>&1 &")?;

    assert_eq!(machine.wait_signal("step", SHORT)?, "step 1");
    machine.signals()?.answer("go on")?;
    assert_eq!(machine.wait_signal("step", SHORT)?, "step 2");
    machine.cut_power()?;
    machine.boot_again()?;
    assert_eq!(machine.sh("cat /root/one; ls /root/two 2>/dev/null || echo absent")?, "go on\nabsent");
    Ok(())
}

#[test]
fn qemu_ends_with_the_process_that_started_it() -> Result<()> {
    let lab = Lab::for_test()?;
    lab.ready(&MachineSpec::default())?.discard()?;
    let mut owner = Command::new(env!("CARGO_BIN_EXE_vm-tests"))
        .args(["run", "--", "sh", "-c", "echo up; sleep 4711"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = owner.stdout.take().expect("stdout is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    assert_eq!(line, "up\n");
    let machines: Vec<String> = std::fs::read_dir(format!("/proc/{}/task", owner.id()))?
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|ids| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    ensure!(!machines.is_empty(), "the process should have started QEMU");

    owner.kill()?;
    owner.wait()?;
    let deadline = Instant::now() + SHORT;
    let runs = |id: &String| {
        // A zombie has no command line.
        std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty())
    };
    while machines.iter().any(runs) {
        ensure!(Instant::now() < deadline, "QEMU outlives its owner: {machines:?}");
        std::thread::yield_now();
    }
    Ok(())
}
