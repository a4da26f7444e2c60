#!/bin/sh
# Turns a directory with a bare Debian into a system of its own and runs a command in it. Called in mount and process
# namespaces of its own, with the directory and the command, which may begin with what its environment is; BINDS names
# directories of this host, one a line, that are seen there under the same names.
set -eu
root=$1
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
printf '%s\n' "$BINDS" | sed '/^$/d' | while IFS= read -r dir; do
	mkdir -p "$root$dir"
	mount --bind "$dir" "$root$dir"
done
# It has this host's network, so it needs this host's ways to names and servers.
for file in /etc/resolv.conf /etc/hosts ${PIP_CERT:+"$PIP_CERT"}; do
	[ ! -f "$file" ] || { mkdir -p "$root$(dirname "$file")" && cat "$file" >"$root$file"; }
done
mkdir -p "$root/var/cache/apt/archives/partial"
mount --bind "$ARCHIVES" "$root/var/cache/apt/archives"
# Its root is the root of this namespace, as on a machine: below a mere chroot nobody may make user namespaces. What was
# the root goes, by a program that needs nothing of it.
mkdir -p "$root/host"
mount --rbind "$root" "$root"
cd "$root"
pivot_root . host
/host/bin/busybox umount -l /host
exec /usr/bin/env -i HOME=/root LANG=C.UTF-8 ${PIP_CERT:+"PIP_CERT=$PIP_CERT"} "$@"
