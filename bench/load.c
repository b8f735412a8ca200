/* The load generator. It prints one JSON object, and fails when a count or a reply is not what it should be.
 *
 *   load up|down ADDRESS PORT CONNECTIONS BYTES         BYTES in all, over CONNECTIONS at once
 *   load echo ADDRESS PORT COUNT SECONDS                64 bytes there and back, COUNT times at most
 *   load beside-up|beside-down ADDRESS PORT COUNT SECONDS CONNECTIONS   the same beside bulk transfers
 *   load connect ADDRESS PORT COUNT SECONDS AT_ONCE     connect, 64 bytes there and back, close
 *   load idle ADDRESS PORT COUNT                        hold COUNT connections; asks all again at a line on stdin
 */
#define _GNU_SOURCE
#include "wire.h"
#include <sys/time.h>
#include <time.h>

#define WARM_SECONDS 0.4 /* of bulk before the first echo beside it */
#define DRAIN_SECONDS 3 /* for bulk to end after the last */
#define STALL_SECONDS 20 /* without a byte: it is not coming */
#define MOST 256

static struct sockaddr_in forwarder;
static volatile int stop;
static uint64_t moved, made;
static double until;
static uint64_t wanted;

struct bulk {
    char kind;
    uint64_t size;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int open_to(char kind, uint64_t size, const char *message) {
    char first[HEADER + MESSAGE];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval stall = {STALL_SECONDS, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &stall, sizeof stall);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &stall, sizeof stall);
    if (fd < 0 || connect(fd, (struct sockaddr *)&forwarder, sizeof forwarder))
        die("cannot connect: %s", strerror(errno));
    no_delay(fd);
    first[0] = kind;
    memcpy(first + 1, &size, sizeof size);
    if (message)
        memcpy(first + HEADER, message, MESSAGE);
    if (write_all(fd, first, message ? sizeof first : HEADER))
        die("cannot write the first bytes: %s", strerror(errno));
    return fd;
}

/* A message that no other resembles, so that a stray reply is found. */
static void number(char *message, uint64_t n) {
    for (size_t i = 0; i < MESSAGE; i += sizeof n, n = n * 6364136223846793005u + 1442695040888963407u)
        memcpy(message + i, &n, sizeof n);
}

static void *transfer(void *argument) {
    struct bulk *bulk = argument;
    char *block = new_block();
    uint64_t bytes = 0, counted;
    int fd = open_to(bulk->kind, bulk->size, NULL), told = 0;
    do {
        if (bulk->kind == 'u') {
            block[0] = stop || bytes + BLOCK >= bulk->size;
            if (write_all(fd, block, BLOCK))
                die("an upload broke after %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
        } else {
            if (stop && !told++)
                write_all(fd, "s", 1);
            if (read_all(fd, block, BLOCK))
                die("a download broke after %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
        }
        bytes += BLOCK;
        __atomic_fetch_add(&moved, BLOCK, __ATOMIC_RELAXED);
    } while (!block[0]);
    if (read_all(fd, &counted, sizeof counted) || counted != bytes || (!stop && bytes < bulk->size))
        die("of %llu bytes %llu arrived", (unsigned long long)bytes, (unsigned long long)counted);
    close(fd);
    free(block);
    return NULL;
}

static void start_bulk(struct bulk *bulk, int connections, pthread_t *threads) {
    for (int i = 0; i < connections; i++)
        start_thread(threads + i, transfer, bulk, 0);
}

static void run_bulk(char kind, int connections, uint64_t bytes) {
    pthread_t threads[MOST];
    struct bulk bulk = {kind, bytes / (uint64_t)connections};
    double begin = now();
    start_bulk(&bulk, connections, threads);
    for (int i = 0; i < connections; i++)
        pthread_join(threads[i], NULL);
    double seconds = now() - begin;
    printf("{\"bytes\": %llu, \"seconds\": %.6f, \"mb_s\": %.3f}\n", (unsigned long long)moved, seconds,
           (double)moved / 1e6 / seconds);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Echoes on one connection; one that is not back when the time is over counts with the time it had. */
static void run_echo(uint64_t count, double seconds, char kind, int connections) {
    double *took = calloc(count, sizeof *took), begin, end;
    char message[MESSAGE], reply[MESSAGE];
    struct bulk bulk = {kind, UINT64_MAX - BLOCK};
    pthread_t threads[MOST];
    uint64_t done = 0, before;
    int late = 0, drained = 1;
    if (!took)
        die("out of memory");
    int fd = open_to('e', 0, NULL);
    /* One beforehand: the connection is there all the way to the target. */
    number(message, 0);
    if (write_all(fd, message, MESSAGE) || read_all(fd, reply, MESSAGE))
        die("the first echo did not come");
    start_bulk(&bulk, connections, threads);
    if (connections)
        usleep((useconds_t)(WARM_SECONDS * 1e6));
    before = __atomic_load_n(&moved, __ATOMIC_RELAXED);
    begin = now();
    for (end = begin; done < count && end < begin + seconds && !late; done++) {
        double sent = end, left = begin + seconds - sent;
        struct timeval limit = {(time_t)left, (suseconds_t)((left - (double)(time_t)left) * 1e6) + 1};
        if (connections || done % 64 == 0)
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        number(message, done + 1);
        if (write_all(fd, message, MESSAGE))
            die("an echo could not be sent: %s", strerror(errno));
        if (read_all(fd, reply, MESSAGE)) {
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                die("echo %llu did not come: %s", (unsigned long long)done, strerror(errno));
            late = 1;
        } else if (memcmp(message, reply, MESSAGE))
            die("echo %llu came back as something else", (unsigned long long)done);
        end = now();
        took[done] = (end - sent) * 1e6;
    }
    double rate = (double)(__atomic_load_n(&moved, __ATOMIC_RELAXED) - before) / 1e6 / (end - begin);
    stop = 1;
    struct timespec patience;
    clock_gettime(CLOCK_REALTIME, &patience);
    patience.tv_sec += DRAIN_SECONDS;
    for (int i = 0; i < connections && drained; i++)
        drained = !pthread_timedjoin_np(threads[i], NULL, &patience);
    qsort(took, done, sizeof *took, by_size);
    printf("{\"echoes\": %llu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f, \"late\": %d, "
           "\"bulk_mb_s\": %.3f, \"drained\": %d}\n",
           (unsigned long long)done, took[done / 2], took[done * 99 / 100], took[done - 1], late, rate, drained);
    fflush(stdout);
    _exit(0); /* bulk that did not end in time is cut here */
}

static void *come_and_go(void *argument) {
    char message[MESSAGE], reply[MESSAGE];
    (void)argument;
    for (;;) {
        uint64_t n = __atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
        if (n > wanted || now() >= until) {
            __atomic_fetch_sub(&made, 1, __ATOMIC_RELAXED);
            return NULL;
        }
        number(message, n);
        int fd = open_to('e', 0, message);
        if (read_all(fd, reply, MESSAGE) || memcmp(message, reply, MESSAGE))
            die("connection %llu got no right answer", (unsigned long long)n);
        close(fd);
    }
}

static void run_connect(uint64_t count, double seconds, int at_once) {
    pthread_t threads[MOST];
    double begin = now();
    wanted = count;
    until = begin + seconds;
    for (int i = 0; i < at_once; i++)
        start_thread(threads + i, come_and_go, NULL, 0);
    for (int i = 0; i < at_once; i++)
        pthread_join(threads[i], NULL);
    double took = now() - begin;
    printf("{\"connections\": %llu, \"seconds\": %.6f, \"a_second\": %.3f}\n", (unsigned long long)made, took,
           (double)made / took);
}

static void run_idle(int count) {
    int *fds = calloc((size_t)count, sizeof *fds);
    char message[MESSAGE], reply[MESSAGE];
    if (!fds)
        die("out of memory");
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < count; i++) {
            number(message, (uint64_t)(round * count + i));
            if (!round)
                fds[i] = open_to('e', 0, message);
            else if (write_all(fds[i], message, MESSAGE))
                die("idle connection %d is gone: %s", i, strerror(errno));
            if (read_all(fds[i], reply, MESSAGE) || memcmp(message, reply, MESSAGE))
                die("with %d of %d idle connections held, the next got no right answer", i, count);
        }
        printf(round ? "{\"connections\": %d}\n" : "held\n", count);
        fflush(stdout);
        if (!round && getchar() == EOF)
            die("nobody waits for this");
    }
}

int main(int count, char **arguments) {
    if (count < 5)
        die("usage: see load.c");
    const char *test = arguments[1];
    forwarder = address_of(arguments[2], arguments[3]);
    uint64_t number_of = strtoull(arguments[4], NULL, 10);
    double seconds = count > 5 ? strtod(arguments[5], NULL) : 0;
    int connections = count > 6 ? atoi(arguments[6]) : 0;
    int bulk = !strcmp(test, "up") || !strcmp(test, "down");
    if (number_of < 1 || connections > MOST || (bulk && number_of > MOST))
        die("a number is out of range");
    if (bulk && count == 6)
        run_bulk(test[0], (int)number_of, strtoull(arguments[5], NULL, 10));
    else if (!strcmp(test, "echo") && count == 6)
        run_echo(number_of, seconds, 'u', 0);
    else if (!strncmp(test, "beside-", 7) && count == 7)
        run_echo(number_of, seconds, test[7], connections);
    else if (!strcmp(test, "connect") && count == 7)
        run_connect(number_of, seconds, connections);
    else if (!strcmp(test, "idle"))
        run_idle((int)number_of);
    else
        die("usage: see load.c");
    return 0;
}
