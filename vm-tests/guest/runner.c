/*
 * The lab's hands in the guest: runs commands that the host sends over a virtio-serial port.
 *
 * A login by ssh costs seconds of emulated cryptography and dies with the guest's network, which is
 * exactly what the tests disturb. A virtio port costs nothing, needs no network and survives a
 * snapshot.
 *
 * One runner serves one port and one command at a time; the host uses another port for a second one.
 * A frame is: type (1 byte), length (4 bytes, little endian), payload.
 *
 *   host to guest                        guest to host
 *   S token   start over; kill           S token   ready
 *   X argv    run (NUL-ended strings)    1 bytes   from stdout
 *   I bytes   for stdin                  2 bytes   from stderr
 *   E         end of stdin               Q status  exit code, or 128 + signal (4 bytes)
 *                                        F errno   could not run it (4 bytes)
 *
 * When the host goes away the command and all of its process group are killed. A command that ends
 * is reported at once, even when a daemon that it started still holds its stdout.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HEADER 5
#define LARGEST (256 * 1024)
#define MAX_ARGS 512

static int port;
static int signals;           /* SIGCHLD, and SIGIO when the host comes or goes */
static pid_t child;
static int child_in = -1, child_out = -1, child_err = -1;

static unsigned char frame[HEADER + LARGEST + 1];
static size_t have;          /* bytes of the frame being received */
static size_t stdin_sent;    /* bytes of an I frame that the command took already */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint32_t length_of(const unsigned char *f)
{
	return f[1] | f[2] << 8 | f[3] << 16 | (uint32_t)f[4] << 24;
}

/*
 * True when the host has really left. A host that comes back at once lets the port look closed for a
 * moment after its first frame was read, so one look is not enough.
 */
static int host_left(void)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

	for (int looks = 0; looks < 5; looks++) {
		struct pollfd p = { .fd = port };
		if (poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP))
			return 0;
		nanosleep(&pause, NULL);
	}
	return 1;
}

static void write_all(const void *from, size_t count)
{
	const char *at = from;

	while (count) {
		ssize_t n = write(port, at, count);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = port, .events = POLLOUT };
			poll(&p, 1, 1000);
			if ((p.revents & POLLHUP) && host_left())
				return;
			continue;
		}
		if (n <= 0)
			return;
		at += n;
		count -= n;
	}
}

static void send_frame(char type, const void *payload, uint32_t length)
{
	unsigned char out[HEADER + 4096];

	out[0] = type;
	for (int i = 0; i < 4; i++)
		out[1 + i] = length >> (8 * i);
	if (length <= 4096) {
		memcpy(out + HEADER, payload, length);
		write_all(out, HEADER + length);
	} else {
		write_all(out, HEADER);
		write_all(payload, length);
	}
}

static void send_number(char type, uint32_t number)
{
	unsigned char le[4] = { number, number >> 8, number >> 16, number >> 24 };

	send_frame(type, le, sizeof le);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void forget_child(void)
{
	child = 0;
	close_fd(&child_in);
	close_fd(&child_out);
	close_fd(&child_err);
}

static void kill_child(void)
{
	if (child) {
		kill(-child, SIGKILL);
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	forget_child();
}

static void run(unsigned char *payload, uint32_t length)
{
	char *argv[MAX_ARGS + 1];
	int argc = 0, in[2], out[2], err[2], failed[2], error = 0;

	payload[length] = '\0';
	for (uint32_t at = 0; at < length && argc < MAX_ARGS; at += strlen((char *)payload + at) + 1)
		argv[argc++] = (char *)payload + at;
	argv[argc] = NULL;
	kill_child();
	if (!argc || pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) ||
	    pipe2(failed, O_CLOEXEC)) {
		send_number('F', argc ? errno : EINVAL);
		return;
	}
	child = fork();
	if (child == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		signal(SIGPIPE, SIG_DFL);
		setpgid(0, 0);
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		execvp(argv[0], argv);
		error = errno;
		(void)!write(failed[1], &error, sizeof error);
		_exit(127);
	}
	if (child < 0)
		die("fork");
	setpgid(child, child);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	close(failed[1]);
	child_in = in[1];
	child_out = out[0];
	child_err = err[0];
	/* A pipe that takes a whole frame at once saves most of the switches between us and the command. */
	fcntl(child_in, F_SETPIPE_SZ, LARGEST);
	fcntl(child_out, F_SETPIPE_SZ, LARGEST);
	fcntl(child_in, F_SETFL, O_NONBLOCK);
	fcntl(child_out, F_SETFL, O_NONBLOCK);
	fcntl(child_err, F_SETFL, O_NONBLOCK);
	if (read(failed[0], &error, sizeof error) == sizeof error) {
		kill_child();
		send_number('F', error);
	}
	close(failed[0]);
}

/* Passes on what the command has written. False once it has nothing more. */
static int pass_output(int *fd, char type)
{
	static char buffer[32 * 1024];
	ssize_t n = read(*fd, buffer, sizeof buffer);

	if (n > 0) {
		send_frame(type, buffer, n);
		return 1;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_fd(fd);
	return 0;
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != child)
			continue;
		while (child_out >= 0 && pass_output(&child_out, '1'))
			;
		while (child_err >= 0 && pass_output(&child_err, '2'))
			;
		send_number('Q', WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
		forget_child();
	}
}

/* Acts on the complete frame in the buffer. False while the command has not taken all its input. */
static int act(void)
{
	uint32_t length = length_of(frame);
	unsigned char *payload = frame + HEADER;

	switch (frame[0]) {
	case 'S':
		kill_child();
		send_frame('S', payload, length);
		break;
	case 'X':
		run(payload, length);
		break;
	case 'I':
		while (child_in >= 0 && stdin_sent < length) {
			ssize_t n = write(child_in, payload + stdin_sent, length - stdin_sent);
			if (n < 0 && errno == EAGAIN)
				return 0;
			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				close_fd(&child_in);
			else
				stdin_sent += n;
		}
		break;
	case 'E':
		close_fd(&child_in);
		break;
	}
	stdin_sent = 0;
	return 1;
}

static int complete(void)
{
	return have >= HEADER && length_of(frame) <= LARGEST && have == HEADER + length_of(frame);
}

/*
 * Reads what is there of the current frame. One read gives at most a page. False at the end of file,
 * which a port without a host always gives.
 */
static int receive(void)
{
	while (!complete()) {
		size_t want = have < HEADER ? HEADER : HEADER + length_of(frame);

		if (want > HEADER + LARGEST) {
			have = 0;
			return 1;
		}
		ssize_t n = read(port, frame + have, want - have);
		if (n <= 0)
			return n < 0;
		have += n;
	}
	return 1;
}

/*
 * Opens the virtio port of that name. Found in sysfs and not under /dev/virtio-ports, so that it does
 * not need udev.
 */
static int open_port(const char *wanted)
{
	const char *class = "/sys/class/virtio-ports";
	DIR *ports = opendir(class);
	struct dirent *entry;
	char path[512], name[128];

	if (!ports)
		die(class);
	while ((entry = readdir(ports))) {
		snprintf(path, sizeof path, "%s/%s/name", class, entry->d_name);
		FILE *f = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (!f)
			continue;
		char *got = fgets(name, sizeof name, f);
		fclose(f);
		if (!got || strcspn(name, "\n") != strlen(wanted) || strncmp(name, wanted, strlen(wanted)))
			continue;
		snprintf(path, sizeof path, "/dev/%s", entry->d_name);
		closedir(ports);
		return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	closedir(ports);
	errno = ENODEV;
	return -1;
}

int main(int argc, char **argv)
{
	sigset_t set;
	int absent = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: %s PORT\n", argv[0]);
		return 2;
	}
	port = open_port(argv[1]);
	if (port < 0)
		die(argv[1]);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (signals < 0)
		die("signalfd");
	if (fcntl(port, F_SETOWN, getpid()) || fcntl(port, F_SETFL, O_NONBLOCK | O_ASYNC))
		die("asking for SIGIO");
	for (;;) {
		int pending = complete();
		struct pollfd p[] = {
			{ .fd = signals, .events = POLLIN },
			/* Without a host every poll would return at once. */
			{ .fd = absent ? -1 : port, .events = pending ? 0 : POLLIN },
			{ .fd = child_out, .events = POLLIN },
			{ .fd = child_err, .events = POLLIN },
			{ .fd = pending ? child_in : -1, .events = POLLOUT },
		};
		/* Half a frame that is not continued comes from a host that died: forget it. */
		int ready = poll(p, 5, have && !pending ? 2000 : -1);

		if (ready < 0 && errno != EINTR)
			die("poll");
		if (ready == 0) {
			have = 0;
			continue;
		}
		if (p[2].revents && child_out >= 0)
			pass_output(&child_out, '1');
		if (p[3].revents && child_err >= 0)
			pass_output(&child_err, '2');
		if (p[0].revents) {
			struct signalfd_siginfo info;

			while (read(signals, &info, sizeof info) > 0)
				;
			absent = 0;
			reap();
		}
		int ended = (p[1].revents & POLLIN) && !receive();
		if (ended && host_left()) {
			kill_child();
			have = 0;
			stdin_sent = 0;
			absent = 1;
		}
		if (complete() && act())
			have = 0;
	}
}
