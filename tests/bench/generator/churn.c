/*
 * The load that connects: one message on each connection, then it is closed.
 *
 * So many slots, each with one connection at a time: connect, send a frame, compare the reply,
 * send FIN, wait for the server's FIN, close. What is counted, and timed, is the whole of it, so a
 * server that leaves the end for later gains nothing. No connection ends by RST.
 *
 * This end closes first, so the ports that rest in TIME_WAIT (RFC 9293, 3.3.2) are this end's: more
 * in a minute than an address has. To a loopback address it therefore connects from many.
 */
#define _GNU_SOURCE
#include "common.h"
#include "loads.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECEIVE_SIZE = 64 * 1024 };
enum { SOURCE_ADDRESSES = 200 }; /* 127.0.0.1 and those after it */

struct slot {
    int fd;               /* -1 between two connections */
    uint64_t sequence;    /* number of the connection */
    uint64_t begun_at;
    size_t sent, received; /* bytes of the frame; received == frame_size: FIN was sent */
};

static struct slot *slots;
static struct addrinfo *address;
static int epoll_fd;
static uint32_t living; /* slots with a connection */
static uint64_t opened; /* connections */
static bool ended;      /* no connection follows those that there are */
static unsigned char *frame;
static unsigned char received[RECEIVE_SIZE];

static void begin(struct slot *slot);
static bool send_frame(struct slot *slot);
static void watch(struct slot *slot, int operation);

static uint64_t index_of(const struct slot *slot)
{
    return (uint64_t)(slot - slots);
}

/* Whatever the reason, the slot goes on with a connection of its own. */
static void finish(struct slot *slot)
{
    close(slot->fd);
    slot->fd = -1;
    slot->sequence++;
    living--;
    if (!ended)
        begin(slot);
}

static void fail(struct slot *slot, const char *text)
{
    complain(index_of(slot), slot->sequence, text);
    ended = true; /* a server that fails would be asked again as fast as can be */
    finish(slot);
}

static void choose_source(int fd)
{
    if (address->ai_family != AF_INET)
        return;
    struct sockaddr_in target, source = {.sin_family = AF_INET};
    memcpy(&target, address->ai_addr, sizeof target);
    if (ntohl(target.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET)
        return;
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(opened % SOURCE_ADDRESSES));
    int on = 1; /* ip(7): the port is chosen by connect(), which knows that pairs must differ */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
        die(EXIT_NO_CONNECTION, "bind: %s", strerror(errno));
}

static void begin(struct slot *slot)
{
    slot->begun_at = now();
    slot->sent = slot->received = 0;
    slot->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (slot->fd < 0)
        die(EXIT_NO_CONNECTION, "socket: %s", strerror(errno));
    choose_source(slot->fd);
    if (connect(slot->fd, address->ai_addr, address->ai_addrlen) < 0 && errno != EINPROGRESS)
        die(EXIT_NO_CONNECTION, "cannot connect to %s port %s: %s", options.host, options.port,
            strerror(errno));
    opened++;
    living++;
    /* On loopback it is connected by now: to send at once spares a wait and an event. */
    if (!send_frame(slot))
        return;
    watch(slot, EPOLL_CTL_ADD);
}

/* Wait for what comes; and for room, as long as the frame is not sent. */
static void watch(struct slot *slot, int operation)
{
    bool whole = slot->sent == options.frame_size;
    int on = 1;
    if (!whole) /* else there is no second segment that could be held back */
        setsockopt(slot->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = whole ? EPOLLIN : EPOLLIN | EPOLLOUT, .data.ptr = slot};
    if (epoll_ctl(epoll_fd, operation, slot->fd, &event) < 0)
        die(EXIT_NO_CONNECTION, "epoll_ctl: %s", strerror(errno));
}

/* False when the connection was lost. */
static bool send_frame(struct slot *slot)
{
    number_frame(frame, index_of(slot), slot->sequence);
    while (slot->sent < options.frame_size) {
        ssize_t sent = send(slot->fd, frame + slot->sent, options.frame_size - slot->sent,
                            MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            return true;
        if (sent < 0) {
            fail(slot, strerror(errno));
            return false;
        }
        slot->sent += (size_t)sent;
    }
    return true;
}

/* What is wrong with bytes that came, or NULL. */
static const char *check(struct slot *slot, size_t size)
{
    if (size > slot->sent - slot->received)
        return "more bytes came back than were sent";
    number_frame(frame, index_of(slot), slot->sequence);
    if (memcmp(frame + slot->received, received, size) != 0)
        return "wrong reply: differs from what was sent";
    slot->received += size;
    if (slot->received == options.frame_size && shutdown(slot->fd, SHUT_WR) < 0)
        return strerror(errno);
    return NULL;
}

static void receive(struct slot *slot)
{
    ssize_t size = recv(slot->fd, received, sizeof received, 0);
    if (size < 0 && errno == EAGAIN)
        return;
    const char *wrong = NULL;
    if (size < 0) {
        wrong = strerror(errno);
    } else if (size > 0) {
        wrong = check(slot, (size_t)size);
    } else if (slot->received == options.frame_size) {
        count_reply(now(), slot->begun_at);
        finish(slot);
        return;
    } else {
        wrong = "the server closed the connection before it had replied";
    }
    if (wrong != NULL)
        fail(slot, wrong);
}

static void run_until(uint64_t when)
{
    struct epoll_event events[EVENTS_PER_PASS];
    while (living > 0 && now() < when) {
        int count = epoll_wait(epoll_fd, events, EVENTS_PER_PASS, milliseconds_until(when, now()));
        if (count < 0 && errno != EINTR)
            die(EXIT_NO_CONNECTION, "epoll_wait: %s", strerror(errno));
        for (int i = 0; i < count; i++) {
            struct slot *slot = events[i].data.ptr;
            if (slot->sent < options.frame_size) {
                if (!send_frame(slot))
                    continue;
                if (slot->sent == options.frame_size)
                    watch(slot, EPOLL_CTL_MOD);
            }
            if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                receive(slot);
        }
    }
}

static void prepare(void)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int error = getaddrinfo(options.host, options.port, &hints, &address);
    if (error != 0)
        die(EXIT_NO_CONNECTION, "%s port %s: %s", options.host, options.port, gai_strerror(error));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die(EXIT_NO_CONNECTION, "epoll_create1: %s", strerror(errno));
    frame = allocate(1, options.frame_size);
    fill_frame(frame);
    slots = allocate(options.connections, sizeof *slots);
}

/* The connections that are there after the last measured moment must end well, too. */
static void drain(void)
{
    ended = true;
    run_until(now() + DRAIN_SECONDS * NANOSECONDS);
    if (living > 0) {
        fprintf(stderr, "load: %u connections were never answered and closed\n", living);
        counts.errors += living;
    }
}

void run_churn(void)
{
    prepare();
    begin_measuring();
    for (uint32_t i = 0; i < options.connections; i++)
        begin(&slots[i]);
    run_until(counts.measure_from);
    double cpu_before = cpu_seconds();
    run_until(counts.measure_until);
    double cpu = cpu_seconds() - cpu_before;
    drain();
    freeaddrinfo(address);
    report(cpu);
}
