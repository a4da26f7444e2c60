#!/bin/sh
# Makes the container `web` of docker's, from the files that the lab has brought: no registry is asked.
set -eu

# The machines of other tests do without its daemons.
for unit in containerd.service docker.socket docker.service; do
	rm -f "/etc/systemd/system/$unit"
done
systemctl daemon-reload
systemctl enable --now containerd.service docker.socket docker.service

work=$(mktemp -d)
for part in rootfs layer-1; do
	zstd -dcq "/srv/.fixture/$part.tar.zst" | tar -x -C "$work"
done
cp /bin/busybox "$work/usr/bin/busybox"
for name in sh true false cat ls sleep; do
	ln -sf busybox "$work/usr/bin/$name"
done
tar -c -C "$work" . | docker import --change 'CMD ["/usr/bin/greetd"]' - greet:1
rm -rf "$work"
docker volume create data
docker network create --label com.docker.compose.project=shop shop_default
docker run --detach --name web --label tier=web --label com.docker.compose.project=shop \
	--label com.docker.compose.service=web --network shop_default --restart always --memory 256m --volume data:/data \
	--health-cmd '/usr/bin/greetd --check' --health-interval 10m greet:1
