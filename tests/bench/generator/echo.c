/*
 * The load that echoes: a fixed number of frames outstanding on each connection.
 *
 * When a read completes k replies, the k frames that replace them leave in one send, as a
 * pipelining client's would. Every reply is compared with what was sent, byte for byte; the first
 * eight bytes of a value (if it has that many) number the frame and name its connection, so a reply
 * that is lost, repeated, reordered or sent to another connection is seen.
 *
 * A frame is never stored per connection: what was sent and what must come back follows from two
 * positions in a stream that is known beforehand. Memory therefore does not grow with connections
 * times value size.
 *
 * The load is a closed loop: a slow server is asked less. Latencies are those of a saturated
 * server, not of one that is offered a given rate.
 */
#define _GNU_SOURCE
#include "common.h"
#include "loads.h"
#include "transport.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

enum { CONNECT_SECONDS = 30, SETTLE_SECONDS = 30 };
enum { RECEIVE_SIZE = 256 * 1024 };

#define LARGEST_PIPELINE (1ull << 30)

struct connection {
    struct transport transport; /* closed once it was lost */
    bool waits_for_space;       /* EPOLLOUT is asked for; until it comes nothing is sent */
    uint32_t owed;              /* frames not yet wholly sent, the first from send_offset on */
    uint64_t send_sequence;     /* number of the first owed frame */
    size_t send_offset;
    uint64_t receive_sequence;  /* number of the frame whose reply is being received */
    size_t receive_offset;
    uint64_t *due_at;           /* ring of in_flight times: when each unanswered frame fell due */
};

static struct connection *connections;
static int epoll_fd;
static unsigned char *pipeline; /* in_flight frames back to back, numbered before each send */
static unsigned char *expected; /* one frame, numbered before each comparison */
static unsigned char received[RECEIVE_SIZE];

static uint64_t outstanding; /* frames whose reply has not come, of all living connections */
static uint32_t living;

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

static void lose(struct connection *connection, const char *text)
{
    complain((uint64_t)(connection - connections), connection->receive_sequence, text);
    outstanding -= unanswered(connection);
    close_transport(&connection->transport);
    living--;
}

static void number(unsigned char *frame, const struct connection *connection, uint64_t sequence)
{
    number_frame(frame, (uint64_t)(connection - connections), sequence);
}

static void watch(struct connection *connection, int operation, bool for_space)
{
    struct epoll_event event = {
        .events = for_space ? EPOLLIN | EPOLLOUT : EPOLLIN,
        .data.ptr = connection,
    };
    if (epoll_ctl(epoll_fd, operation, connection->transport.fd, &event) < 0)
        die(EXIT_NO_CONNECTION, "epoll_ctl: %s", strerror(errno));
    connection->waits_for_space = for_space;
}

/* Send all owed frames in one call; what the kernel does not take waits for EPOLLOUT. */
static void send_owed(struct connection *connection)
{
    for (uint32_t i = 0; i < connection->owed; i++)
        number(pipeline + i * options.frame_size, connection, connection->send_sequence + i);
    size_t size = connection->owed * options.frame_size - connection->send_offset;
    ssize_t sent = send_bytes(&connection->transport, pipeline + connection->send_offset, size);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        lose(connection, strerror(errno));
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
        number(expected, connection, connection->receive_sequence);
        if (memcmp(expected + connection->receive_offset, bytes, part) != 0)
            return -1;
        bytes += part;
        size -= part;
        connection->receive_offset += part;
        if (connection->receive_offset == options.frame_size) {
            uint64_t sequence = connection->receive_sequence;
            count_reply(at, connection->due_at[sequence % options.in_flight]);
            outstanding--;
            connection->receive_sequence++;
            connection->receive_offset = 0;
            completed++;
        }
    }
    return completed;
}

/* One read: true if it was a full one, so that more may be there. */
static bool receive(struct connection *connection)
{
    ssize_t size = receive_bytes(&connection->transport, received, sizeof received);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (size < 0) {
        lose(connection, strerror(errno));
        return false;
    }
    if (size == 0) {
        lose(connection, "the server closed the connection");
        return false;
    }
    uint64_t at = now();
    uint64_t frames = connection->send_sequence - connection->receive_sequence;
    uint64_t awaited = frames * options.frame_size + connection->send_offset
                     - connection->receive_offset;
    if ((uint64_t)size > awaited) {
        lose(connection, "more bytes came back than were sent");
        return false;
    }
    int64_t completed = check_replies(connection, received, (size_t)size, at);
    if (completed < 0)
        lose(connection, "wrong reply: differs from what was sent");
    else if (completed > 0 && at < counts.measure_until)
        owe(connection, (uint32_t)completed, at);
    return size == sizeof received;
}

/* --- the run --- */

static void connect_all(void)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *address;
    int error = getaddrinfo(options.host, options.port, &hints, &address);
    if (error != 0)
        die(EXIT_NO_CONNECTION, "%s port %s: %s", options.host, options.port, gai_strerror(error));
    uint64_t limit = now() + CONNECT_SECONDS * NANOSECONDS;
    connections = allocate(options.connections, sizeof *connections);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die(EXIT_NO_CONNECTION, "epoll_create1: %s", strerror(errno));
    for (uint32_t i = 0; i < options.connections; i++) {
        if (now() > limit)
            die(EXIT_NO_CONNECTION, "only %u connections after %d seconds", i, CONNECT_SECONDS);
        connections[i].due_at = allocate(options.in_flight, sizeof *connections[i].due_at);
        connections[i].transport = connect_to(address);
        watch(&connections[i], EPOLL_CTL_ADD, false);
    }
    living = options.connections;
    freeaddrinfo(address);
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
        if (connection->transport.fd < 0 || !(events[i].events & ~(uint32_t)EPOLLOUT))
            continue;
        /* Only of what TLS holds no event tells; a full socket shall wait for its next turn. */
        while (receive(connection) && connection->transport.tls != NULL)
            ;
    }
}

static void owe_all(uint32_t count)
{
    for (uint32_t i = 0; i < options.connections; i++)
        if (connections[i].transport.fd >= 0)
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
        counts.errors += outstanding;
    }
}

void run_echo(void)
{
    prepare_frames();
    connect_all();
    settle();

    begin_measuring();
    owe_all(options.in_flight);
    run_until(counts.measure_from);
    double cpu_before = cpu_seconds();
    run_until(counts.measure_until);
    double cpu = cpu_seconds() - cpu_before;
    drain();
    report(cpu);
}
