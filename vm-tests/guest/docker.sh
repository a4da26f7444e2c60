# Makes the container `web` of docker's; `image.sh` comes before.

# The machines of other tests do without its daemons.
for unit in containerd.service docker.socket docker.service; do
	rm -f "/etc/systemd/system/$unit"
done
systemctl daemon-reload
systemctl enable --now containerd.service docker.socket docker.service

image | docker import --change 'CMD ["/usr/bin/greetd"]' - greet:1
docker volume create data
docker network create --label com.docker.compose.project=shop shop_default
docker run --detach --name web --label tier=web --label com.docker.compose.project=shop \
	--label com.docker.compose.service=web --network shop_default --restart always --memory 256m --volume data:/data \
	--health-cmd '/usr/bin/greetd --check' --health-interval 10m greet:1
