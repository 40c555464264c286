#define _GNU_SOURCE
#include "transport.h"

#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void tls_connect(struct transport *transport);
static ssize_t tls_send(void *tls, const void *bytes, size_t size);
static ssize_t tls_receive(void *tls, void *bytes, size_t size);
static void tls_free(void *tls);

struct transport connect_to(const struct addrinfo *address)
{
    struct transport transport = {.fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (transport.fd < 0)
        die(EXIT_NO_CONNECTION, "socket: %s", strerror(errno));
    /* socket(7): on Linux the send time-out bounds connect() too. */
    struct timeval limit = {.tv_sec = ONE_CONNECT_SECONDS};
    setsockopt(transport.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(transport.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(transport.fd, address->ai_addr, address->ai_addrlen) < 0)
        die(EXIT_NO_CONNECTION, "cannot connect to %s port %s: %s", options.host, options.port,
            errno == EINPROGRESS ? "timed out" : strerror(errno));
    int on = 1;
    setsockopt(transport.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    tls_connect(&transport);
    fcntl(transport.fd, F_SETFL, fcntl(transport.fd, F_GETFL) | O_NONBLOCK);
    return transport;
}

ssize_t send_bytes(struct transport *transport, const void *bytes, size_t size)
{
    if (transport->tls != NULL)
        return tls_send(transport->tls, bytes, size);
    return send(transport->fd, bytes, size, MSG_NOSIGNAL);
}

ssize_t receive_bytes(struct transport *transport, void *bytes, size_t size)
{
    if (transport->tls != NULL)
        return tls_receive(transport->tls, bytes, size);
    return recv(transport->fd, bytes, size, 0);
}

void close_transport(struct transport *transport)
{
    if (transport->tls != NULL)
        tls_free(transport->tls);
    close(transport->fd);
    transport->tls = NULL;
    transport->fd = -1;
}

#ifdef WITH_TLS

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static SSL_CTX *context; /* NULL: plain */

static const char *tls_error(void)
{
    unsigned long code = ERR_peek_last_error();
    const char *text = code == 0 ? NULL : ERR_reason_error_string(code);
    return text == NULL ? "the connection ended, or took too long" : text;
}

void prepare_tls(const char *ca_file)
{
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || SSL_CTX_load_verify_locations(context, ca_file, NULL) != 1)
        die(EXIT_NO_CONNECTION, "cannot use %s: %s", ca_file, tls_error());
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    /* Without it a write would have to be repeated whole, from the same address. */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* One read of the socket for many records, not two for each. */
    SSL_CTX_set_read_ahead(context, 1);
}

static void tls_connect(struct transport *transport)
{
    if (context == NULL)
        return;
    SSL *tls = SSL_new(context);
    if (tls == NULL || SSL_set_fd(tls, transport->fd) != 1
        || (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), options.host) != 1
            && SSL_set1_host(tls, options.host) != 1))
        die(EXIT_NO_CONNECTION, "TLS: %s", tls_error());
    ERR_clear_error(); /* a host that is a name is no address */
    if (SSL_connect(tls) != 1)
        die(EXIT_NO_CONNECTION, "TLS handshake with %s port %s: %s", options.host, options.port,
            tls_error());
    transport->tls = tls;
}

/* The result of a call that moved nothing, as send(2) and recv(2) would put it. */
static ssize_t tls_failure(SSL *tls, int result)
{
    switch (SSL_get_error(tls, result)) {
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_SYSCALL:
        if (errno == 0)
            errno = ECONNRESET;
        return -1;
    default:
        errno = EPROTO;
        return -1;
    }
}

static ssize_t tls_send(void *tls, const void *bytes, size_t size)
{
    size_t total = 0, sent;
    while (total < size) { /* a call writes one record */
        ERR_clear_error();
        errno = 0;
        int result = SSL_write_ex(tls, (const char *)bytes + total, size - total, &sent);
        if (result != 1)
            return total > 0 ? (ssize_t)total : tls_failure(tls, result);
        total += sent;
    }
    return (ssize_t)total;
}

static ssize_t tls_receive(void *tls, void *bytes, size_t size)
{
    size_t total = 0, received;
    while (total < size) { /* a call reads one record */
        ERR_clear_error();
        errno = 0;
        int result = SSL_read_ex(tls, (char *)bytes + total, size - total, &received);
        if (result != 1)
            return total > 0 ? (ssize_t)total : tls_failure(tls, result);
        total += received;
    }
    return (ssize_t)total;
}

static void tls_free(void *tls)
{
    SSL_free(tls);
}

#else

void prepare_tls(const char *ca_file)
{
    (void)ca_file;
    die(EXIT_NO_CONNECTION, "compiled without TLS");
}

static void tls_connect(struct transport *transport)
{
    (void)transport;
}

static ssize_t tls_send(void *tls, const void *bytes, size_t size)
{
    (void)tls, (void)bytes, (void)size;
    errno = EPROTO;
    return -1;
}

static ssize_t tls_receive(void *tls, void *bytes, size_t size)
{
    (void)tls, (void)bytes, (void)size;
    errno = EPROTO;
    return -1;
}

static void tls_free(void *tls)
{
    (void)tls;
}

#endif
