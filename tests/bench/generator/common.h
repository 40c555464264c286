/*
 * What the loads of this program share: options, frames, the clock, counts and their report.
 *
 * One thread, so the state is static. Linux only.
 */
#ifndef COMMON_H
#define COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXIT_WRONG_REPLY = 1, EXIT_NO_CONNECTION = 2, EXIT_TIME_LIMIT = 3 };
enum { HEADER_SIZE = 8, SEQUENCE_SIZE = 8, FRAME_TYPE = 1 };
enum { ONE_CONNECT_SECONDS = 5, DRAIN_SECONDS = 10 };
enum { EVENTS_PER_PASS = 512 };
enum { ERRORS_SHOWN = 3 };

#define NANOSECONDS 1000000000ull

struct options {
    const char *host, *port, *ca_file; /* ca_file: NULL without TLS */
    uint32_t connections, in_flight;
    size_t size, frame_size;
    double seconds, warm_up;
    int cpu;
    bool churn;
};

/* messages were answered between the two times of begin_measuring, messages_total ever. */
struct counts {
    uint64_t measure_from, measure_until; /* until they are set, nothing is measured */
    uint64_t errors, messages, messages_total, slowest;
};

extern struct options options;
extern struct counts counts;

/* Says why on standard error, and exits with status. */
void die(int status, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

/* Zeroed memory, or die. */
void *allocate(size_t count, size_t size);

/* Nanoseconds on the monotonic clock. */
uint64_t now(void);

/* Of this process. */
double cpu_seconds(void);

/* For epoll_wait: rounded up, so that it does not return before its time. */
int milliseconds_until(uint64_t when, uint64_t at);

/* A frame of options.size bytes, but for its number. */
void fill_frame(unsigned char *frame);

/* Write the connection's index and the frame's number into the value, if it has room for them. */
void number_frame(unsigned char *frame, uint64_t index, uint64_t sequence);

/* Count an error; the first few are told on standard error. */
void complain(uint64_t index, uint64_t sequence, const char *text);

/* The measured time begins after the warm-up, and lasts options.seconds. */
void begin_measuring(void);

/* Count a reply that came now, and its latency if now is within the measured time. */
void count_reply(uint64_t at, uint64_t due_at);

/* One line of JSON; cpu is the processor time of the measured time, in seconds. */
void report(double cpu);

#endif
