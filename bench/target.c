/* The service behind the forwarder: target ADDRESS PORT. See wire.h for what it understands. */
#define _GNU_SOURCE
#include "wire.h"

static void take(int fd) {
    char *block = new_block();
    uint64_t bytes = 0;
    do {
        if (read_all(fd, block, BLOCK))
            goto end;
        bytes += BLOCK;
    } while (!block[0]);
    write_all(fd, &bytes, sizeof bytes);
end:
    free(block);
}

static void give(int fd, uint64_t size) {
    char *block = new_block(), byte;
    uint64_t bytes = 0;
    do {
        /* The client's byte, or its end, stops it. */
        int stopped = recv(fd, &byte, 1, MSG_DONTWAIT) >= 0;
        bytes += BLOCK;
        block[0] = stopped || bytes >= size;
        if (write_all(fd, block, BLOCK))
            goto end;
    } while (!block[0]);
    write_all(fd, &bytes, sizeof bytes);
end:
    free(block);
}

static void echo(int fd) {
    char message[MESSAGE];
    while (!read_all(fd, message, MESSAGE) && !write_all(fd, message, MESSAGE))
        ;
}

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument;
    char header[HEADER], rest[256];
    uint64_t size;
    no_delay(fd);
    if (!read_all(fd, header, HEADER)) {
        memcpy(&size, header + 1, sizeof size);
        if (header[0] == 'u')
            take(fd);
        else if (header[0] == 'd')
            give(fd, size);
        else if (header[0] == 'e')
            echo(fd);
        /* The client closes first. */
        while (recv(fd, rest, sizeof rest, 0) > 0)
            ;
    }
    close(fd);
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 3)
        die("usage: target ADDRESS PORT");
    struct sockaddr_in address = address_of(arguments[1], arguments[2]);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        die("cannot listen on %s:%s: %s", arguments[1], arguments[2], strerror(errno));
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd >= 0)
            start_thread(&thread, serve, (void *)(intptr_t)fd, 1);
        else if (errno != ECONNABORTED && errno != EINTR)
            die("cannot accept: %s", strerror(errno));
    }
}
