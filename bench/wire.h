/* What the load generator and its target say to each other, and the sockets of both.
 *
 * A connection begins with 9 bytes: what is wanted, then a size (little endian).
 *   'u' the client sends blocks, the target answers with how many bytes came, in 8 bytes
 *   'd' the target sends blocks, until a byte from the client says stop, then how many bytes it sent
 *   'e' the target sends back what comes, 64 bytes at a time
 * A block is BLOCK bytes; its first byte is 1 in the last one. So no end of a stream is needed to know that
 * all has come: not every forwarder passes half-closes on.
 */
#ifndef HIVE_BENCH_WIRE_H
#define HIVE_BENCH_WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK (128 * 1024)
#define MESSAGE 64
#define HEADER 9
#define STACK (64 * 1024)

/* Print why, and end the process. */
static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

static struct sockaddr_in address_of(const char *host, const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die("%s is no IPv4 address", host);
    return address;
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* All of it or -1: the connection ended, broke, or its time (SO_RCVTIMEO) is over. */
static int read_all(int fd, void *into, size_t size) {
    char *at = into;
    while (size) {
        ssize_t got = recv(fd, at, size, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = ECONNABORTED;
        if (got <= 0)
            return -1;
        at += got;
        size -= (size_t)got;
    }
    return 0;
}

static int write_all(int fd, const void *from, size_t size) {
    const char *at = from;
    while (size) {
        ssize_t put = send(fd, at, size, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return -1;
        at += put;
        size -= (size_t)put;
    }
    return 0;
}

static char *new_block(void) {
    char *block = malloc(BLOCK);
    if (!block)
        die("out of memory");
    memset(block, 0x5a, BLOCK);
    block[0] = 0;
    return block;
}

static void start_thread(pthread_t *thread, void *(*body)(void *), void *argument, int detached) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    if (detached)
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(thread, &attributes, body, argument))
        die("no more threads");
    pthread_attr_destroy(&attributes);
}

#endif
