/*
 * A load generator for framed echo servers: one thread, epoll, Linux.
 *
 * Owns the command line and the limits of the process; what a load does is said in echo.c and
 * churn.c. It does not: use more than one core, resolve anything but the host it is given.
 *
 * Usage: load [--churn] [--tls CA_FILE] [--cpu N]
 *             HOST PORT CONNECTIONS IN_FLIGHT SIZE SECONDS WARM_UP
 * Prints one line of JSON. Exit status: 0 all was well; 1 a wrong, lost or surplus reply, or a
 * connection lost; 2 wrong usage, or no connection; 3 the hard time limit.
 */
#define _GNU_SOURCE
#include "common.h"
#include "loads.h"
#include "transport.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Beyond what is measured: to connect, to be answered once by all, to drain, and some more. */
enum { SPARE_SECONDS = 80 };

#define USAGE \
    "usage: load [--churn] [--tls CA_FILE] [--cpu N] " \
    "HOST PORT CONNECTIONS IN_FLIGHT SIZE SECONDS WARM_UP"

static void on_time_limit(int signal_number)
{
    static const char text[] = "load: the hard time limit has passed\n";
    (void)signal_number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {
        /* nothing is left to say it with */
    }
    _exit(EXIT_TIME_LIMIT);
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
    static const struct option names[] = {
        {"churn", no_argument, NULL, 'c'},
        {"tls", required_argument, NULL, 't'},
        {"cpu", required_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    options.cpu = -1;
    for (int name; (name = getopt_long(count, arguments, "", names, NULL)) != -1;) {
        if (name == 'c')
            options.churn = true;
        else if (name == 't')
            options.ca_file = optarg;
        else if (name == 'p')
            options.cpu = (int)whole_number(optarg, "cpu", 0, CPU_SETSIZE - 1);
        else
            die(EXIT_NO_CONNECTION, USAGE);
    }
    if (count - optind != 7)
        die(EXIT_NO_CONNECTION, USAGE);
    arguments += optind;
    options.host = arguments[0];
    options.port = arguments[1];
    options.connections = (uint32_t)whole_number(arguments[2], "connections", 1, 1 << 20);
    options.in_flight = (uint32_t)whole_number(arguments[3], "in flight", 1, 1 << 20);
    options.size = (size_t)whole_number(arguments[4], "size", 0, 1 << 28);
    options.frame_size = HEADER_SIZE + options.size;
    options.seconds = duration(arguments[5], "seconds");
    options.warm_up = duration(arguments[6], "warm-up");
    if (options.churn && (options.in_flight != 1 || options.ca_file != NULL))
        die(EXIT_NO_CONNECTION, "churn is one frame for each connection, without TLS");
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
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    signal(SIGALRM, on_time_limit);
    alarm((unsigned)(options.seconds + options.warm_up) + SPARE_SECONDS);
}

int main(int count, char **arguments)
{
    read_options(count, arguments);
    claim_resources();
    if (options.ca_file != NULL)
        prepare_tls(options.ca_file);
    if (options.churn)
        run_churn();
    else
        run_echo();
    return counts.errors > 0 ? EXIT_WRONG_REPLY : EXIT_SUCCESS;
}
