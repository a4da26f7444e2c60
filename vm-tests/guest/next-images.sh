#!/bin/sh
# Archives of other images for the container `web`, without leaving the images with the engine: greet-2 works, greet-3 does not.
set -eu

for version in 2 3; do
	work=$(mktemp -d)
	for part in rootfs "layer-$version"; do
		zstd -dcq "/srv/.fixture/$part.tar.zst" | tar -x -C "$work"
	done
	cp /bin/busybox "$work/usr/bin/busybox"
	for name in sh true false cat ls sleep; do
		ln -sf busybox "$work/usr/bin/$name"
	done
	tar -c -C "$work" . | podman --log-level=error import --change 'CMD ["/usr/bin/greetd"]' - "localhost/greet:$version"
	rm -rf "$work"
	podman save --quiet --format oci-archive --output "/root/greet-$version.oci.tar" "localhost/greet:$version"
	podman image inspect --format '{{.Id}}' "localhost/greet:$version" >"/root/greet-$version.id"
	podman image rm "localhost/greet:$version"
done
