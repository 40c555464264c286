/*
 * A load generator for framed echo servers: one thread, epoll, Linux.
 *
 * Every connection keeps a fixed number of frames outstanding. When a read completes k replies,
 * the k frames that replace them leave in one send, as a pipelining client's would. Every reply
 * is compared with what was sent, byte for byte; the first eight bytes of a value (if it has that
 * many) number the frame and name its connection, so a reply that is lost, repeated, reordered or
 * sent to another connection is seen.
 *
 * A frame is never stored per connection: what was sent and what must come back follows from two
 * positions in a stream that is known beforehand. Memory therefore does not grow with connections
 * times value size.
 *
 * The load is a closed loop: a slow server is asked less. Latencies are those of a saturated
 * server, not of one that is offered a given rate.
 *
 * It does not: speak TLS, use more than one core, resolve anything but the host it is given.
 *
 * Usage: load HOST PORT CONNECTIONS IN_FLIGHT SIZE SECONDS WARM_UP [CPU]
 * Prints one line of JSON. Exit status: 0 all was well; 1 a wrong, lost or surplus reply, or a
 * connection lost; 2 wrong usage, or no connection; 3 the hard time limit.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_WRONG_REPLY = 1, EXIT_NO_CONNECTION = 2, EXIT_TIME_LIMIT = 3 };
enum { HEADER_SIZE = 8, SEQUENCE_SIZE = 8, FRAME_TYPE = 1 };
enum { CONNECT_SECONDS = 30, ONE_CONNECT_SECONDS = 5, SETTLE_SECONDS = 30 };
enum { DRAIN_SECONDS = 10, SPARE_SECONDS = 10 };
enum { RECEIVE_SIZE = 256 * 1024, EVENTS_PER_PASS = 512 };
enum { CONNECTION_SHIFT = 40 }; /* the connection's index sits above the frame's number */
enum { ERRORS_SHOWN = 3 };

#define NANOSECONDS 1000000000ull
#define LARGEST_PIPELINE (1ull << 30)

/* Equal sub-buckets per power of two: at most 1/64 off, over the whole range of the clock. */
enum { SUB_BITS = 6, SUB_BUCKETS = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB_BUCKETS };

struct connection {
    int fd;                    /* -1 once it was lost */
    bool waits_for_space;      /* EPOLLOUT is asked for; until it comes nothing is sent */
    uint32_t owed;             /* frames not yet wholly sent, the first from send_offset on */
    uint64_t send_sequence;    /* number of the first owed frame */
    size_t send_offset;
    uint64_t receive_sequence; /* number of the frame whose reply is being received */
    size_t receive_offset;
    uint64_t *due_at;          /* ring of in_flight times: when each unanswered frame fell due */
};

static struct {
    const char *host, *port;
    uint32_t connections, in_flight;
    size_t size, frame_size;
    double seconds, warm_up;
    int cpu;
} options;

static struct connection *connections;
static int epoll_fd;
static unsigned char *pipeline; /* in_flight frames back to back, numbered before each send */
static unsigned char *expected; /* one frame, numbered before each comparison */
static unsigned char received[RECEIVE_SIZE];

static uint64_t measure_from, measure_until; /* before the load starts, as after it: in the past */
static uint64_t outstanding;    /* frames whose reply has not come, of all living connections */
static uint32_t living;
static uint64_t errors, messages, messages_total, histogram[BUCKETS], slowest;

static void die(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(status);
}

static void on_time_limit(int signal_number)
{
    static const char text[] = "load: the hard time limit has passed\n";
    (void)signal_number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {
        /* nothing is left to say it with */
    }
    _exit(EXIT_TIME_LIMIT);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * NANOSECONDS + (uint64_t)time.tv_nsec;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
         + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* --- histogram --- */

static size_t bucket_of(uint64_t value)
{
    if (value < SUB_BUCKETS)
        return (size_t)value;
    int exponent = 63 - __builtin_clzll(value);
    uint64_t sub = (value >> (exponent - SUB_BITS)) & (SUB_BUCKETS - 1);
    return (size_t)(exponent - SUB_BITS + 1) * SUB_BUCKETS + (size_t)sub;
}

static double middle_of(size_t bucket)
{
    if (bucket < SUB_BUCKETS)
        return (double)bucket;
    int shift = (int)(bucket / SUB_BUCKETS) - 1;
    uint64_t low = (uint64_t)(SUB_BUCKETS + bucket % SUB_BUCKETS) << shift;
    return (double)low + (double)((1ull << shift) - 1) / 2;
}

static double percentile_us(double fraction)
{
    uint64_t rank = (uint64_t)ceil(fraction * (double)messages), seen = 0;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram[bucket];
        if (histogram[bucket] != 0 && seen >= rank)
            return fmin(middle_of(bucket), (double)slowest) / 1e3;
    }
    return 0;
}

static void count_reply(uint64_t at, uint64_t due_at)
{
    messages_total++;
    outstanding--;
    if (at < measure_from || at >= measure_until)
        return;
    uint64_t latency = at - due_at;
    messages++;
    histogram[bucket_of(latency)]++;
    if (latency > slowest)
        slowest = latency;
}

/* --- frames --- */

static void number_frame(unsigned char *frame, const struct connection *connection,
                         uint64_t sequence)
{
    if (options.size < SEQUENCE_SIZE)
        return;
    uint64_t index = (uint64_t)(connection - connections);
    uint64_t number = htole64(index << CONNECTION_SHIFT | sequence);
    memcpy(frame + HEADER_SIZE, &number, SEQUENCE_SIZE);
}

static void fill_frame(unsigned char *frame)
{
    uint32_t type = htole32(FRAME_TYPE), length = htole32((uint32_t)options.size);
    memcpy(frame, &type, sizeof type);
    memcpy(frame + sizeof type, &length, sizeof length);
    for (size_t i = 0; i < options.size; i++)
        frame[HEADER_SIZE + i] = (unsigned char)(i * 31 + 7);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        die(EXIT_NO_CONNECTION, "out of memory");
    return memory;
}

static void prepare_frames(void)
{
    if ((uint64_t)options.frame_size * options.in_flight > LARGEST_PIPELINE)
        die(EXIT_NO_CONNECTION, "in flight times frame size is over %llu", LARGEST_PIPELINE);
    expected = allocate(1, options.frame_size);
    fill_frame(expected);
    pipeline = allocate(options.in_flight, options.frame_size);
    for (uint32_t i = 0; i < options.in_flight; i++)
        memcpy(pipeline + i * options.frame_size, expected, options.frame_size);
}

/* --- one connection --- */

static uint64_t unanswered(const struct connection *connection)
{
    return connection->send_sequence + connection->owed - connection->receive_sequence;
}

static void lose(struct connection *connection, const char *format, ...)
{
    if (errors++ < ERRORS_SHOWN) {
        va_list arguments;
        va_start(arguments, format);
        fprintf(stderr, "load: connection %ld, reply %llu: ", (long)(connection - connections),
                (unsigned long long)connection->receive_sequence);
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
        va_end(arguments);
    }
    outstanding -= unanswered(connection);
    close(connection->fd);
    connection->fd = -1;
    living--;
}

static void watch(struct connection *connection, int operation, bool for_space)
{
    struct epoll_event event = {
        .events = for_space ? EPOLLIN | EPOLLOUT : EPOLLIN,
        .data.ptr = connection,
    };
    if (epoll_ctl(epoll_fd, operation, connection->fd, &event) < 0)
        die(EXIT_NO_CONNECTION, "epoll_ctl: %s", strerror(errno));
    connection->waits_for_space = for_space;
}

/* Send all owed frames in one call; what the kernel does not take waits for EPOLLOUT. */
static void send_owed(struct connection *connection)
{
    for (uint32_t i = 0; i < connection->owed; i++)
        number_frame(pipeline + i * options.frame_size, connection, connection->send_sequence + i);
    size_t size = connection->owed * options.frame_size - connection->send_offset;
    ssize_t sent = send(connection->fd, pipeline + connection->send_offset, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        lose(connection, "send: %s", strerror(errno));
        return;
    }
    if (sent > 0) {
        size_t position = connection->send_offset + (size_t)sent;
        uint32_t whole = (uint32_t)(position / options.frame_size);
        connection->send_sequence += whole;
        connection->owed -= whole;
        connection->send_offset = position % options.frame_size;
    }
    bool for_space = connection->owed > 0;
    if (for_space != connection->waits_for_space)
        watch(connection, EPOLL_CTL_MOD, for_space);
}

static void owe(struct connection *connection, uint32_t count, uint64_t at)
{
    uint64_t next = connection->send_sequence + connection->owed;
    for (uint32_t i = 0; i < count; i++)
        connection->due_at[(next + i) % options.in_flight] = at;
    connection->owed += count;
    outstanding += count;
    if (!connection->waits_for_space)
        send_owed(connection);
}

/* Compare bytes with the replies due next: the number completed, or -1 when a byte was wrong. */
static int64_t check_replies(struct connection *connection, const unsigned char *bytes, size_t size,
                             uint64_t at)
{
    int64_t completed = 0;
    while (size > 0) {
        size_t part = options.frame_size - connection->receive_offset;
        if (part > size)
            part = size;
        number_frame(expected, connection, connection->receive_sequence);
        if (memcmp(expected + connection->receive_offset, bytes, part) != 0)
            return -1;
        bytes += part;
        size -= part;
        connection->receive_offset += part;
        if (connection->receive_offset == options.frame_size) {
            uint64_t sequence = connection->receive_sequence;
            count_reply(at, connection->due_at[sequence % options.in_flight]);
            connection->receive_sequence++;
            connection->receive_offset = 0;
            completed++;
        }
    }
    return completed;
}

static void receive(struct connection *connection)
{
    ssize_t size = recv(connection->fd, received, sizeof received, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size < 0) {
        lose(connection, "recv: %s", strerror(errno));
        return;
    }
    if (size == 0) {
        lose(connection, "the server closed the connection");
        return;
    }
    uint64_t at = now();
    uint64_t frames = connection->send_sequence - connection->receive_sequence;
    uint64_t awaited = frames * options.frame_size + connection->send_offset
                     - connection->receive_offset;
    if ((uint64_t)size > awaited) {
        lose(connection, "more bytes came back than were sent");
        return;
    }
    int64_t completed = check_replies(connection, received, (size_t)size, at);
    if (completed < 0)
        lose(connection, "wrong reply: differs from what was sent");
    else if (completed > 0 && at < measure_until)
        owe(connection, (uint32_t)completed, at);
}

/* --- the run --- */

static int connect_one(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die(EXIT_NO_CONNECTION, "socket: %s", strerror(errno));
    /* socket(7): on Linux the send time-out bounds connect() too. */
    struct timeval limit = {.tv_sec = ONE_CONNECT_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, address->ai_addr, address->ai_addrlen) < 0)
        die(EXIT_NO_CONNECTION, "cannot connect to %s port %s: %s", options.host, options.port,
            errno == EINPROGRESS ? "timed out" : strerror(errno));
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

static void connect_all(void)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *address;
    int error = getaddrinfo(options.host, options.port, &hints, &address);
    if (error != 0)
        die(EXIT_NO_CONNECTION, "%s port %s: %s", options.host, options.port, gai_strerror(error));
    uint64_t limit = now() + CONNECT_SECONDS * NANOSECONDS;
    connections = allocate(options.connections, sizeof *connections);
    for (uint32_t i = 0; i < options.connections; i++) {
        if (now() > limit)
            die(EXIT_NO_CONNECTION, "only %u connections after %d seconds", i, CONNECT_SECONDS);
        connections[i].due_at = allocate(options.in_flight, sizeof *connections[i].due_at);
        connections[i].fd = connect_one(address);
        watch(&connections[i], EPOLL_CTL_ADD, false);
    }
    living = options.connections;
    freeaddrinfo(address);
}

static int milliseconds_until(uint64_t when, uint64_t at)
{
    return when <= at ? 0 : (int)((when - at + 999999) / 1000000);
}

static void run_pass(uint64_t wake_at)
{
    struct epoll_event events[EVENTS_PER_PASS];
    int count = epoll_wait(epoll_fd, events, EVENTS_PER_PASS, milliseconds_until(wake_at, now()));
    if (count < 0 && errno != EINTR)
        die(EXIT_NO_CONNECTION, "epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (events[i].events & EPOLLOUT)
            send_owed(connection);
        if (connection->fd >= 0 && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            receive(connection);
    }
}

static void owe_all(uint32_t count)
{
    for (uint32_t i = 0; i < options.connections; i++)
        if (connections[i].fd >= 0)
            owe(&connections[i], count, now());
}

/*
 * One frame on each connection, and no more until all are answered: connect() succeeds before the
 * server has accepted, and a server under full load may accept the rest slowly or never.
 */
static void settle(void)
{
    owe_all(1);
    uint64_t limit = now() + SETTLE_SECONDS * NANOSECONDS;
    while (outstanding > 0 && now() < limit)
        run_pass(limit);
    if (outstanding > 0)
        die(EXIT_NO_CONNECTION, "%llu of %u connections had no reply within %d seconds",
            (unsigned long long)outstanding, options.connections, SETTLE_SECONDS);
}

static void run_until(uint64_t when)
{
    while (living > 0 && now() < when)
        run_pass(when);
}

/* Replies still on their way after the last measured moment must come as well, and be right. */
static void drain(void)
{
    uint64_t limit = now() + DRAIN_SECONDS * NANOSECONDS;
    while (outstanding > 0 && now() < limit)
        run_pass(limit);
    if (outstanding > 0) {
        fprintf(stderr, "load: %llu replies never came\n", (unsigned long long)outstanding);
        errors += outstanding;
    }
}

static uint64_t whole_number(const char *text, const char *name, uint64_t low, uint64_t high)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || *text == '-' || value < low || value > high)
        die(EXIT_NO_CONNECTION, "%s: %s is not a whole number from %llu to %llu", name, text,
            (unsigned long long)low, (unsigned long long)high);
    return value;
}

static double duration(const char *text, const char *name)
{
    char *end;
    double value = strtod(text, &end);
    if (*end != '\0' || end == text || !(value >= 0 && value <= 3600))
        die(EXIT_NO_CONNECTION, "%s: %s is not a number of seconds up to an hour", name, text);
    return value;
}

static void read_options(int count, char **arguments)
{
    if (count != 8 && count != 9)
        die(EXIT_NO_CONNECTION,
            "usage: load HOST PORT CONNECTIONS IN_FLIGHT SIZE SECONDS WARM_UP [CPU]");
    options.host = arguments[1];
    options.port = arguments[2];
    options.connections = (uint32_t)whole_number(arguments[3], "connections", 1, 1 << 20);
    options.in_flight = (uint32_t)whole_number(arguments[4], "in flight", 1, 1 << 20);
    options.size = (size_t)whole_number(arguments[5], "size", 0, 1 << 28);
    options.frame_size = HEADER_SIZE + options.size;
    options.seconds = duration(arguments[6], "seconds");
    options.warm_up = duration(arguments[7], "warm-up");
    options.cpu = count == 9 ? (int)whole_number(arguments[8], "cpu", 0, CPU_SETSIZE - 1) : -1;
}

static void claim_resources(void)
{
    if (options.cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(options.cpu, &cpus);
        if (sched_setaffinity(0, sizeof cpus, &cpus) < 0)
            die(EXIT_NO_CONNECTION, "cannot use cpu %d: %s", options.cpu, strerror(errno));
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die(EXIT_NO_CONNECTION, "epoll_create1: %s", strerror(errno));
    signal(SIGALRM, on_time_limit);
    unsigned planned = (unsigned)(options.seconds + options.warm_up);
    alarm(planned + CONNECT_SECONDS + SETTLE_SECONDS + DRAIN_SECONDS + SPARE_SECONDS);
}

static void report(double cpu)
{
    printf("{\"connections\": %u, \"in_flight\": %u, \"size\": %zu, ", options.connections,
           options.in_flight, options.size);
    printf("\"messages\": %llu, \"messages_total\": %llu, \"errors\": %llu, ",
           (unsigned long long)messages, (unsigned long long)messages_total,
           (unsigned long long)errors);
    printf("\"seconds\": %.6f, \"cpu_seconds\": %.6f, ", options.seconds, cpu);
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, ", percentile_us(0.5),
           percentile_us(0.9), percentile_us(0.99));
    printf("\"p99_9_us\": %.1f, \"max_us\": %.1f}\n", percentile_us(0.999), (double)slowest / 1e3);
}

int main(int count, char **arguments)
{
    read_options(count, arguments);
    claim_resources();
    prepare_frames();
    connect_all();
    settle();

    measure_from = now() + (uint64_t)(options.warm_up * 1e9);
    measure_until = measure_from + (uint64_t)(options.seconds * 1e9);
    owe_all(options.in_flight);
    run_until(measure_from);
    double cpu_before = cpu_seconds();
    run_until(measure_until);
    double cpu = cpu_seconds() - cpu_before;
    drain();
    report(cpu);
    return errors > 0 ? EXIT_WRONG_REPLY : EXIT_SUCCESS;
}
