# Makes the container `web` of podman's; `image.sh` comes before.

image | podman --log-level=error import --change 'CMD ["/usr/bin/greetd"]' - localhost/greet:1
podman volume create data
podman run --detach --name web --label tier=web --restart always --memory 256m --volume data:/data \
	--health-cmd '/usr/bin/greetd --check' --health-interval 10m localhost/greet:1
# The containers with a restart policy come up with the host.
systemctl enable podman-restart.service
