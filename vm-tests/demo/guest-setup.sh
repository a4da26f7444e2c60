#!/bin/sh
# Brings a lab guest to a running container `web-1` that serves TCP through libgreet, and `other-1`, which does
# not. Units bring both up at every boot, after update-resume.service has had its turn.
set -eu
mkdir -p /srv/web-1/lower /srv/web-1/upper /srv/web-1/work /srv/web-1/rootfs /srv/other-1/rootfs
tar -C /srv/web-1/lower -xf /root/rootfs.tar
tar -C /srv/other-1/rootfs -xf /root/rootfs.tar
rm /srv/other-1/rootfs/usr/bin/greetd /root/rootfs.tar

bundle() { # name, arguments, network namespace
cat >"/srv/$1/config.json" <<EOF
{ "ociVersion": "1.0.2",
  "process": { "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": $2, "env": ["PATH=/usr/bin"],
    "cwd": "/", "capabilities": {}, "noNewPrivileges": true },
  "root": { "path": "rootfs" }, "hostname": "$1", "annotations": { "tier": "$4" },
  "mounts": [
    { "destination": "/proc", "type": "proc", "source": "proc" },
    { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=1m"] } ],
  "linux": { "cgroupsPath": "/$1", "resources": { "memory": { "limit": 536870912 } },
    "namespaces": [ { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, $3 ] } }
EOF
}
bundle web-1 '["/usr/bin/greetd"]' '{ "type": "network", "path": "/run/netns/web" }' web
bundle other-1 '["/usr/bin/busybox", "sleep", "1000000"]' '{ "type": "network" }' batch

cat >/etc/systemd/system/lab-netns.service <<'EOF'
[Unit]
Description=Network namespace of web-1
Before=update-resume.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip netns add web && ip link add web-out type veth peer name web-in && ip link set web-in netns web && ip addr add 10.77.0.1/24 dev web-out && ip addr add fd77::1/64 dev web-out nodad && ip link set web-out up && ip -n web addr add 10.77.0.2/24 dev web-in && ip -n web addr add fd77::2/64 dev web-in nodad && ip -n web link set web-in up && ip -n web link set lo up'

[Install]
WantedBy=multi-user.target
EOF
# A container that is there already was brought back from a checkpoint; a root file system that is mounted
# already was committed by an update.
cat >/etc/systemd/system/lab-web-1.service <<'EOF'
[Unit]
Description=Container web-1
After=lab-netns.service update-resume.service
Requires=lab-netns.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecCondition=/bin/sh -c '! runc state web-1 >/dev/null 2>&1'
ExecStart=/bin/sh -c 'mountpoint -q /srv/web-1/rootfs || mount -t overlay overlay -o lowerdir=/srv/web-1/lower,upperdir=/srv/web-1/upper,workdir=/srv/web-1/work /srv/web-1/rootfs'
ExecStart=/bin/sh -c 'exec runc run --detach --bundle /srv/web-1 web-1 </dev/null >/dev/null 2>&1'
KillMode=none

[Install]
WantedBy=multi-user.target
EOF
cat >/etc/systemd/system/lab-other-1.service <<'EOF'
[Unit]
Description=Container other-1
After=update-resume.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'exec runc run --detach --bundle /srv/other-1 other-1 </dev/null >/dev/null 2>&1'
KillMode=none

[Install]
WantedBy=multi-user.target
EOF
systemctl daemon-reload
systemctl enable --now lab-netns.service lab-web-1.service lab-other-1.service
sync
