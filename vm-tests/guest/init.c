/*
 * First program of a lab machine: loads the few modules that the root disk needs, mounts the root
 * and the kernel's modules, and hands over to systemd.
 *
 * It replaces Debian's initramfs because that one spends seconds of emulated time on questions
 * (which disk, which encryption, which RAID) whose answers are fixed here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "lab-init: %s: %s\n", what, strerror(errno));
	reboot(RB_POWER_OFF);
	_exit(1);
}

/* Loads the modules named in /modules.list, one file name a line, in order. */
static void load_modules(void)
{
	char line[256];
	FILE *list = fopen("/modules.list", "re");

	if (!list)
		die("/modules.list");
	while (fgets(line, sizeof line, list)) {
		line[strcspn(line, "\n")] = '\0';
		int fd = open(line, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			die(line);
		if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
			die(line);
		close(fd);
	}
	fclose(list);
}

/* Mounts a disk as soon as the kernel has found it (at most ten seconds). */
static void mount_disk(const char *disk, const char *where, unsigned long flags)
{
	const struct timespec pause = { .tv_nsec = 5 * 1000 * 1000 };

	for (int tries = 0; tries < 2000; tries++) {
		if (mount(disk, where, "ext4", flags, NULL) == 0)
			return;
		if (errno != ENOENT && errno != ENXIO)
			break;
		nanosleep(&pause, NULL);
	}
	die(disk);
}

int main(void)
{
	struct utsname kernel;
	char modules[512];
	char *const argv[] = { "/sbin/init", NULL };
	char *const envp[] = { "HOME=/", "TERM=linux", NULL };

	if (mount("devtmpfs", "/dev", "devtmpfs", 0, "mode=0755") && errno != EBUSY)
		die("devtmpfs");
	int console = open("/dev/console", O_RDWR);
	if (console >= 0) {
		dup2(console, 0);
		dup2(console, 1);
		dup2(console, 2);
	}
	/* The lab waits for this line: whatever holds the machine up after it is no fault of the emulator. */
	puts("lab-init: started");
	fflush(stdout);
	load_modules();
	mount_disk("/dev/vda", "/root", MS_NOATIME);
	if (uname(&kernel))
		die("uname");
	snprintf(modules, sizeof modules, "/root/usr/lib/modules/%s", kernel.release);
	if (mkdir(modules, 0755) && errno != EEXIST)
		die(modules);
	mount_disk("/dev/vdb", modules, MS_RDONLY | MS_NOATIME);
	if (mount("/dev", "/root/dev", NULL, MS_MOVE, NULL))
		die("/root/dev");
	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		die("switching to the root disk");
	execve(argv[0], argv, envp);
	die(argv[0]);
}
