/* Sends its stdin to ADDRESS PORT line by line and prints the answer to each. Exits with 1 if there is none. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV }, *to;
    if (argc != 3 || getaddrinfo(argv[1], argv[2], &hints, &to)) {
        fprintf(stderr, "usage: greet-once ADDRESS PORT\n");
        return 2;
    }
    int peer = socket(to->ai_family, SOCK_STREAM, 0);
    if (peer < 0 || connect(peer, to->ai_addr, to->ai_addrlen)) {
        perror("greet-once");
        return 1;
    }
    FILE *stream = fdopen(peer, "r+");
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        fputs(line, stream);
        fflush(stream);
        if (!fgets(line, sizeof line, stream))
            return 1;
        fputs(line, stdout);
    }
    return 0;
}
