/*
 * A connection's bytes: plain TCP, or TLS over it where the program is compiled WITH_TLS.
 *
 * Non-blocking once it is connected. Results are those of send(2) and recv(2): -1 with errno
 * EAGAIN when the kernel has to be waited for, 0 from a receive when the peer has closed.
 */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct transport {
    int fd;    /* -1 when it is closed */
    void *tls; /* an SSL, or NULL: plain */
};

/* Read the authority's certificate, for the connections to come; die if it cannot be done. */
void prepare_tls(const char *ca_file);

/* Connect, with the TLS handshake if prepare_tls was called, within some seconds; or die. */
struct transport connect_to(const struct addrinfo *address);

/* As many bytes as there is room for. What was not taken must be given again, unchanged. */
ssize_t send_bytes(struct transport *transport, const void *bytes, size_t size);

/*
 * As many bytes as have come, up to size. TLS may hold more when all of size was filled, and no
 * event will tell: go on until less comes.
 */
ssize_t receive_bytes(struct transport *transport, void *bytes, size_t size);

/* At once, without TLS's closing alert. */
void close_transport(struct transport *transport);

#endif
