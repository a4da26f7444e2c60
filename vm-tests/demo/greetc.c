/* A client that holds one TCP connection for as long as it lasts.
 *
 * Usage: greetc ADDRESS PORT LOG
 * Sends `hit` five times a second and appends every answer to LOG, each line with the milliseconds since
 * start. Waits for an answer as long as TCP does. When the connection ends, the last line says how. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: greetc ADDRESS PORT LOG\n");
        return 2;
    }
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV }, *to;
    FILE *log = fopen(argv[3], "a");
    if (!log || getaddrinfo(argv[1], argv[2], &hints, &to)) {
        fprintf(stderr, "greetc: cannot use %s %s %s\n", argv[1], argv[2], argv[3]);
        return 1;
    }
    setvbuf(log, NULL, _IOLBF, 0);
    int peer = socket(to->ai_family, SOCK_STREAM, 0);
    if (peer < 0 || connect(peer, to->ai_addr, to->ai_addrlen)) {
        fprintf(log, "0 error connect: %s\n", strerror(errno));
        return 1;
    }
    long long start = now_ms();
    char answer[256];
    for (;;) {
        size_t have = 0;
        if (send(peer, "hit\n", 4, MSG_NOSIGNAL) != 4)
            break;
        while (have < sizeof answer - 1 && (have == 0 || answer[have - 1] != '\n')) {
            ssize_t got = recv(peer, answer + have, sizeof answer - 1 - have, 0);
            if (got == 0)
                errno = 0;
            if (got <= 0)
                goto ended;
            have += got;
        }
        answer[have] = 0;
        fprintf(log, "%lld %s", now_ms() - start, answer);
        usleep(200000);
    }
ended:
    fprintf(log, "%lld error %s\n", now_ms() - start, errno ? strerror(errno) : "closed by the peer");
    return 1;
}
