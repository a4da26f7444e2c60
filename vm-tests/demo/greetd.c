/* A small TCP server with state: a counter in memory, a log in its root file system, and a greeting from a
 * shared library.
 *
 * Listens on port 7000, IPv4 and IPv6. For each line `hit` it answers `count=N greeting=WORD` and appends the
 * same to /var/lib/greetd/log. `greetd MIB` also keeps that much memory and goes on dirtying it.
 * `greetd --probe` exits with 0 unless its library is the broken one. */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEERS 256

const char *greet(void);

static unsigned long count;

static void note(const char *line, size_t length)
{
    int log = open("/var/lib/greetd/log", O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (log < 0)
        return;
    if (write(log, line, length) < 0)
        perror("greetd: log");
    close(log);
}

/* Answer what has come; 0 when the peer is gone. */
static int answer(int peer)
{
    char asked[512], line[128];
    ssize_t got = recv(peer, asked, sizeof asked - 1, 0);
    if (got <= 0)
        return 0;
    asked[got] = 0;
    for (char *hit = asked; (hit = strstr(hit, "hit\n")); hit += 4) {
        int length = snprintf(line, sizeof line, "count=%lu greeting=%s\n", ++count, greet());
        note(line, length);
        if (send(peer, line, length, MSG_NOSIGNAL) != length)
            return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--probe"))
        return strcmp(greet(), "broken") == 0;
    size_t heap = argc > 1 ? strtoul(argv[1], NULL, 10) << 20 : 0, at = 0;
    char *memory = heap ? malloc(heap) : NULL;
    if (memory)
        memset(memory, 1, heap);

    struct pollfd fds[PEERS] = { 0 };
    int one = 1, used = 1, listener = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 here = { .sin6_family = AF_INET6, .sin6_port = htons(7000) };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 64)) {
        perror("greetd");
        return 1;
    }
    fds[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
    for (;;) {
        if (poll(fds, used, memory ? 100 : -1) < 0)
            continue;
        /* 8 MiB a second, like a service at work. */
        for (size_t page = 0; memory && page < 205; page++, at = (at + 4096) % heap)
            memory[at]++;
        for (int i = used - 1; i > 0; i--) {
            if (fds[i].revents && !answer(fds[i].fd)) {
                close(fds[i].fd);
                fds[i] = fds[--used];
            }
        }
        if (fds[0].revents && used < PEERS) {
            int peer = accept(listener, NULL, NULL);
            if (peer >= 0)
                fds[used++] = (struct pollfd){ .fd = peer, .events = POLLIN };
        }
    }
}
