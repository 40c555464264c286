#define _GNU_SOURCE
#include "common.h"

#include <endian.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { CONNECTION_SHIFT = 40 }; /* the connection's index sits above the frame's number */

/* Equal sub-buckets per power of two: at most 1/64 off, over the whole range of the clock. */
enum { SUB_BITS = 6, SUB_BUCKETS = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB_BUCKETS };

struct options options;
struct counts counts;

static uint64_t histogram[BUCKETS];

void die(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(status);
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        die(EXIT_NO_CONNECTION, "out of memory");
    return memory;
}

/* --- time --- */

uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * NANOSECONDS + (uint64_t)time.tv_nsec;
}

double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
         + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int milliseconds_until(uint64_t when, uint64_t at)
{
    return when <= at ? 0 : (int)((when - at + 999999) / 1000000);
}

/* --- frames --- */

void fill_frame(unsigned char *frame)
{
    uint32_t type = htole32(FRAME_TYPE), length = htole32((uint32_t)options.size);
    memcpy(frame, &type, sizeof type);
    memcpy(frame + sizeof type, &length, sizeof length);
    for (size_t i = 0; i < options.size; i++)
        frame[HEADER_SIZE + i] = (unsigned char)(i * 31 + 7);
}

void number_frame(unsigned char *frame, uint64_t index, uint64_t sequence)
{
    if (options.size < SEQUENCE_SIZE)
        return;
    uint64_t number = htole64(index << CONNECTION_SHIFT | sequence);
    memcpy(frame + HEADER_SIZE, &number, SEQUENCE_SIZE);
}

/* --- counts --- */

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
    uint64_t rank = (uint64_t)ceil(fraction * (double)counts.messages), seen = 0;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram[bucket];
        if (histogram[bucket] != 0 && seen >= rank)
            return fmin(middle_of(bucket), (double)counts.slowest) / 1e3;
    }
    return 0;
}

void complain(uint64_t index, uint64_t sequence, const char *text)
{
    if (counts.errors++ < ERRORS_SHOWN)
        fprintf(stderr, "load: connection %llu, reply %llu: %s\n", (unsigned long long)index,
                (unsigned long long)sequence, text);
}

void begin_measuring(void)
{
    counts.measure_from = now() + (uint64_t)(options.warm_up * 1e9);
    counts.measure_until = counts.measure_from + (uint64_t)(options.seconds * 1e9);
}

void count_reply(uint64_t at, uint64_t due_at)
{
    counts.messages_total++;
    if (at < counts.measure_from || at >= counts.measure_until)
        return;
    uint64_t latency = at - due_at;
    counts.messages++;
    histogram[bucket_of(latency)]++;
    if (latency > counts.slowest)
        counts.slowest = latency;
}

void report(double cpu)
{
    printf("{\"connections\": %u, \"in_flight\": %u, \"size\": %zu, ", options.connections,
           options.in_flight, options.size);
    printf("\"messages\": %llu, \"messages_total\": %llu, \"errors\": %llu, ",
           (unsigned long long)counts.messages, (unsigned long long)counts.messages_total,
           (unsigned long long)counts.errors);
    printf("\"seconds\": %.6f, \"cpu_seconds\": %.6f, ", options.seconds, cpu);
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, ", percentile_us(0.5),
           percentile_us(0.9), percentile_us(0.99));
    printf("\"p99_9_us\": %.1f, \"max_us\": %.1f}\n", percentile_us(0.999),
           (double)counts.slowest / 1e3);
}
