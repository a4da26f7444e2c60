#!/bin/sh
# What the engines' containers are made of; each engine's own script follows.
set -eu

# The files of `greet:1`, which the lab has brought: no registry is asked.
image() {
	work=$(mktemp -d)
	for part in rootfs layer-1; do
		zstd -dcq "/srv/.fixture/$part.tar.zst" | tar -x -C "$work"
	done
	cp /bin/busybox "$work/usr/bin/busybox"
	for name in sh true false cat ls sleep; do
		ln -sf busybox "$work/usr/bin/$name"
	done
	tar -c -C "$work" .
	rm -rf "$work"
}
