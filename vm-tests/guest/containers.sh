#!/bin/sh
# Brings up the containers listed in /srv/containers ("ID NUMBER" a line): network namespace, root
# file system, container. Leaves alone what is there already.
#
#   lab-containers            bring up
#   lab-containers networks   only the network namespaces
#   lab-containers enable     bring up, now and at every boot: the networks before update-resume.service,
#                             which may restore containers, and the containers after it
set -eu

network() {
	id=$1 n=$2
	# After a soft reboot the name is there and the namespace is not.
	[ "$(stat -f -c %T "/run/netns/$id" 2>/dev/null)" = nsfs ] && return
	rm -f "/run/netns/$id"
	ip netns add "$id"
	ip link add "veth-$id" type veth peer name eth0 netns "$id"
	ip addr add "10.77.$n.1/24" dev "veth-$id"
	ip addr add "fd77:$(printf %x "$n")::1/64" dev "veth-$id" nodad
	ip link set "veth-$id" up
	ip -n "$id" link set lo up
	ip -n "$id" addr add "10.77.$n.2/24" dev eth0
	ip -n "$id" addr add "fd77:$(printf %x "$n")::2/64" dev eth0 nodad
	ip -n "$id" link set eth0 up
	ip -n "$id" route add default via "10.77.$n.1"
}

rootfs() {
	bundle=/srv/$1
	[ -d "$bundle/lower" ] || return 0
	mountpoint -q "$bundle/rootfs" && return
	mount -t overlay overlay -o "lowerdir=$bundle/lower,upperdir=$bundle/upper,workdir=$bundle/work" \
		"$bundle/rootfs"
}

container() {
	state=$(runc state "$1" 2>/dev/null) || state=
	case $state in
	# What a soft reboot ended is known to runc all the same.
	*'"status": "stopped"'*) runc delete "$1" ;;
	?*) return ;;
	esac
	runc run --detach --bundle "/srv/$1" "$1" </dev/null >/dev/null 2>&1
}

# Reads the list on stdin.
networks() {
	while read -r id n; do
		network "$id" "$n"
	done
}

enable() {
	cat >/etc/systemd/system/lab-container-networks.service <<-'EOF'
		[Unit]
		Description=Networks of the lab's containers
		Before=update-resume.service

		[Service]
		Type=oneshot
		RemainAfterExit=yes
		ExecStart=/usr/local/sbin/lab-containers networks

		[Install]
		WantedBy=multi-user.target
	EOF
	cat >/etc/systemd/system/lab-containers.service <<-'EOF'
		[Unit]
		Description=Containers of the lab
		After=update-resume.service lab-container-networks.service

		[Service]
		Type=oneshot
		RemainAfterExit=yes
		ExecStart=/usr/local/sbin/lab-containers

		[Install]
		WantedBy=multi-user.target
	EOF
	systemctl daemon-reload
	systemctl enable --now lab-container-networks.service lab-containers.service
}

case "${1-}" in
enable)
	enable
	;;
networks)
	networks </srv/containers
	;;
*)
	networks </srv/containers
	while read -r id _; do
		rootfs "$id"
		container "$id"
	done </srv/containers
	;;
esac
