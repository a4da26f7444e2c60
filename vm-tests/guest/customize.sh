#!/bin/sh
# Turns a fresh Debian root into a lab machine. Run with the root directory as $1, before it is
# made a disk image. RUNNER and KEYS name the compiled runner and the directory with the lab's ssh keys.
#
# What a stock Debian would do at boot and no test looks at is masked: under emulation every process
# that systemd starts costs tens of milliseconds.
set -eu
root=$1

echo lab >"$root/etc/hostname"
printf '127.0.0.1 localhost lab\n::1 localhost\n' >"$root/etc/hosts"
install -d "$root/usr/lib/modules" # where the first program mounts those of the kernel that runs
: >"$root/etc/fstab"
echo 6c61620000000000000000000000001b >"$root/etc/machine-id" # empty would mean a first boot, with all presets
printf 'nameserver 10.0.2.3\n' >"$root/etc/resolv.conf"
sed -i "s|^root:[^:]*:|root::|" "$root/etc/shadow"

# The control ports and, for people, ssh.
install -m 0755 "$RUNNER" "$root/usr/sbin/lab-runner"
install -d -m 0700 "$root/root/.ssh"
install -m 0600 "$KEYS/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
rm -f "$root"/etc/ssh/ssh_host_*
install -m 0600 "$KEYS/host_ed25519" "$root/etc/ssh/ssh_host_ed25519_key"
install -m 0644 "$KEYS/host_ed25519.pub" "$root/etc/ssh/ssh_host_ed25519_key.pub"
cat >"$root/etc/ssh/sshd_config.d/lab.conf" <<'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
UseDNS no
UsePAM no
PrintMotd no
AcceptEnv LANG
EOF

cat >"$root/etc/systemd/system/lab-runner@.service" <<'EOF'
[Unit]
Description=Lab control port %i
DefaultDependencies=no

[Service]
ExecStart=/usr/sbin/lab-runner lab.control.%i
Environment=HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WorkingDirectory=/root
Restart=always
RestartSec=100ms
KillMode=process
OOMScoreAdjust=-900
LimitCORE=0

[Install]
WantedBy=sysinit.target
EOF
cat >"$root/etc/systemd/system/lab-network.service" <<'EOF'
[Unit]
Description=Lab network
DefaultDependencies=no
Before=network.target
Wants=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2'

[Install]
WantedBy=sysinit.target
EOF

enable() {
	install -d "$root/etc/systemd/system/$2.wants"
	ln -sf "/etc/systemd/system/$1" "$root/etc/systemd/system/$2.wants/$3"
}
for port in 1 2 3 4; do
	enable lab-runner@.service sysinit.target "lab-runner@$port.service"
done
enable lab-network.service sysinit.target lab-network.service
# A login is rare: the listener costs nothing, a daemon seconds of start-up.
install -d "$root/etc/systemd/system/sockets.target.wants"
ln -sf /lib/systemd/system/ssh.socket "$root/etc/systemd/system/sockets.target.wants/ssh.socket"
rm -f "$root/etc/systemd/system/sshd.service" "$root/etc/systemd/system/multi-user.target.wants/ssh.service"
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"

for unit in \
	systemd-journal-flush systemd-random-seed systemd-update-utmp systemd-update-utmp-runlevel \
	systemd-machine-id-commit systemd-firstboot systemd-boot-system-token systemd-pcrphase \
	systemd-pcrphase-sysinit systemd-update-done systemd-sysusers systemd-binfmt systemd-hwdb-update \
	systemd-user-sessions systemd-logind systemd-ask-password-console systemd-fsck-root \
	systemd-remount-fs systemd-journal-catalog-update systemd-tmpfiles-setup-dev-early systemd-udev-load-credentials \
	ldconfig kmod-static-nodes modprobe@configfs modprobe@drm modprobe@fuse \
	modprobe@efi_pstore systemd-pstore systemd-quotacheck systemd-repart \
	e2scrub_reap getty@tty1 serial-getty@ttyS0 console-getty keyboard-setup nftables \
	containerd docker apparmor; do
	case $unit in *.*) ;; *) unit=$unit.service ;; esac
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
for unit in getty.target proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount \
	dev-hugepages.mount sys-kernel-config.mount systemd-ask-password-console.path \
	systemd-ask-password-wall.path remote-fs.target e2scrub_all.timer fstrim.timer \
	systemd-tmpfiles-clean.timer dpkg-db-backup.timer xfs_scrub_all.timer podman-auto-update.timer docker.socket; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
install -d "$root/etc/systemd/system-generators"
# But for the one that makes services of podman's quadlets.
for generator in "$root"/lib/systemd/system-generators/[!p]*; do
	ln -sf /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
done

install -d "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system.conf.d"
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\n' >"$root/etc/systemd/journald.conf.d/lab.conf"
printf '[Manager]\nDefaultTimeoutStopSec=10s\nShowStatus=no\n' >"$root/etc/systemd/system.conf.d/lab.conf"

# Devices are announced again after boot so that udev loads their drivers. The drivers are loaded by
# now; only the names of disks and ports are wanted, not 20 modules for a chipset.
install -d "$root/etc/systemd/system/systemd-udev-trigger.service.d"
cat >"$root/etc/systemd/system/systemd-udev-trigger.service.d/lab.conf" <<'EOF'
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=block --subsystem-match=virtio-ports --subsystem-match=net
EOF

# CRIU asks the kernel for sockets through these; each is loaded on demand only by a full login.
cat >"$root/etc/modules-load.d/lab.conf" <<'EOF'
overlay
veth
inet_diag
tcp_diag
udp_diag
unix_diag
netlink_diag
af_packet_diag
nf_tables
EOF
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/man \
	"$root"/usr/share/locale "$root"/var/log/*.log
