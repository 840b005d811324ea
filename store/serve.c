/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of `kiln serve`: the door to libmicrohttpd. A thread each, so that what a request waits for (the disk, a layer that is being made)
 * holds up nobody else; limits on how many, on how long nothing may move, and on what is read that nobody wants.
 *
 *   request line -> Call -> serve_request_begin -> body... -> serve_request_end -> reply -> completed: access log, numbers
 *
 * A reply that is known before the body has come waits for the body where that is short, because a client that is still sending does not read.
 */
#include "store/serve-private.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/scope.h"
#include "store/serve-listen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define MEMORY_PER_CONNECTION (128u << 10) /* request line and headers, and the buffer of the body */
#define STACK_SIZE (1u << 20)
#define PIECE (256u << 10)
#define UNWANTED_MAX (16u << 20) /* of a body whose reply is known */
#define SLOW_WINDOW 30           /* seconds */
#define SLOW_RATE 512            /* bytes in a second: less is no transfer */
#define PEM_MAX (1u << 20)

typedef struct Run {
    Server server;
    GMutex lock;
    GHashTable *connections; /* Connection* */
    unsigned running;
    gint stopping;
    int log_fd;
    GPtrArray *daemons; /* struct MHD_Daemon * */
    GPtrArray *sockets;
    char *key, *certificate;
} Run;

typedef struct Connection {
    int fd;
    gint begun;   /* a request has come */
    gint working; /* we keep it waiting, not it us */
    int64_t since, looked; /* monotonic seconds; under the lock */
    uint64_t moved;
} Connection;

typedef struct Call {
    Run *run;
    Connection *connection;
    char *uri;
    int64_t began; /* monotonic */
    bool begun, counted, waits, last; /* waits: the reply is sent after the body; last: of its connection */
    uint64_t unwanted;
    ServeRequest request;
    ServeReply reply;
    char address[INET6_ADDRSTRLEN];
    char *method, *version, *agent;
} Call;

static int64_t now_seconds(void)
{
    return g_get_monotonic_time() / G_USEC_PER_SEC;
}

/* --- connections ------------------------------------------------------------------------- */

static void on_connection(void *cls, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode code)
{
    Run *run = cls;
    Connection *c = *context;

    AUTO_LOCK(&run->lock);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        c = g_new0(Connection, 1);
        c->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        c->since = c->looked = now_seconds();
        g_hash_table_add(run->connections, c);
        *context = c;
    } else if (c) {
        (void)g_hash_table_remove(run->connections, c);
        *context = NULL;
    }
}

static uint64_t bytes_moved(int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_bytes_acked + info.tcpi_bytes_received : UINT64_MAX;
}

/* Who takes too long over a request's head, or over a body: in one window less than a modem would. */
static bool is_slow(const Run *run, Connection *c, int64_t now)
{
    uint64_t moved, before = c->moved;

    if (!g_atomic_int_get(&c->begun))
        return now - c->since > (int64_t)run->server.options->idle;
    if (now - c->looked < SLOW_WINDOW)
        return false;
    c->looked = now;
    moved = bytes_moved(c->fd);
    c->moved = moved;
    return !g_atomic_int_get(&c->working) && moved != UINT64_MAX && moved - before < SLOW_WINDOW * SLOW_RATE;
}

/* Its thread sees the end, and closes it. What waits in the kernel to be taken at that pace goes too. */
static void cut(const Connection *c)
{
    const struct linger now = {.l_onoff = 1};

    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    (void)shutdown(c->fd, SHUT_RDWR);
}

static void end_slow(Run *run)
{
    int64_t now = now_seconds();
    GHashTableIter iter;
    gpointer key;

    AUTO_LOCK(&run->lock);
    g_hash_table_iter_init(&iter, run->connections);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        Connection *c = key;

        if (!is_slow(run, c, now))
            continue;
        serve_metrics_count(run->server.metrics, SERVE_COUNT_SLOW);
        cut(c);
        c->since = c->looked = now;
    }
}

static void gauges(Server *server, ServeGauges *ret)
{
    Run *run = (Run *)server;

    AUTO_LOCK(&run->lock);
    ret->connections = g_hash_table_size(run->connections);
    ret->requests = run->running;
}

static bool is_ready(Server *server)
{
    return !g_atomic_int_get(&((Run *)server)->stopping);
}

/* --- the access log ------------------------------------------------------------------------- */

/* Nothing that could end a line or drive a terminal; quotes would end a field. */
static char *clean(const char *text)
{
    char *printable = text && *text ? printable_line(text) : g_strdup("-");

    g_strdelimit(printable, "\"", '\'');
    if (strlen(printable) > 1024)
        printable[1024] = '\0';
    return printable;
}

static void write_log(const Call *call, const char *how)
{
    g_autofree char *uri = clean(call->uri), *user = clean(call->request.user), *agent = clean(call->agent), *line = NULL;
    time_t now = time(NULL);
    struct tm tm;
    char when[64];
    ssize_t n;

    g_strdelimit(user, " ", '_');
    (void)gmtime_r(&now, &tm);
    (void)strftime(when, sizeof when, "%d/%b/%Y:%H:%M:%S +0000", &tm);
    line = g_strdup_printf("%s - %s [%s] \"%s %s %s\" %u %" G_GUINT64_FORMAT " \"-\" \"%s\" in=%" G_GUINT64_FORMAT " time=%.3f digest=%s%s\n",
                           *call->address ? call->address : "-", user, when, call->method ? call->method : "-", uri, call->version ? call->version : "-",
                           call->reply.status, call->reply.length, agent, call->request.received,
                           (double)(g_get_monotonic_time() - call->began) / G_USEC_PER_SEC, *call->reply.digest ? call->reply.digest : "-", how);
    n = write(call->run->log_fd, line, strlen(line));
    (void)n; /* a full disk must not stop who serves */
}

static bool open_log(Run *run, GError **error)
{
    const char *file = run->server.options->access_log;

    if (file && strcmp(file, "-") == 0)
        return true;
    run->log_fd = file ? open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640) : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    return run->log_fd >= 0 || fail_errno(error, "write the access log '%s'", file ? file : "stderr");
}

/* Another file of that name, after a rotation. */
static void reopen_log(Run *run)
{
    const char *file = run->server.options->access_log;
    int fd = file && run->log_fd >= 0 ? open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640) : -1;

    if (fd < 0)
        return;
    (void)dup3(fd, run->log_fd, O_CLOEXEC);
    (void)close(fd);
}

/* --- calls --------------------------------------------------------------------------------------- */

/* The request line has come; what this returns is the call's context from here on. */
static void *on_line(void *cls, const char *uri, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    Call *call = g_new0(Call, 1);

    call->run = cls;
    call->connection = info ? info->socket_context : NULL;
    call->uri = g_strdup(uri);
    call->began = g_get_monotonic_time();
    call->request.length = -1;
    return call;
}

static void call_free(Call *call)
{
    if (call->counted) {
        AUTO_LOCK(&call->run->lock);
        call->run->running--;
    }
    serve_request_clear(&call->request);
    serve_reply_clear(&call->reply);
    g_free(call->uri);
    g_free(call->method);
    g_free(call->version);
    g_free(call->agent);
    g_free(call);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code)
{
    Call *call = *context;
    Connection *c;

    if (!call)
        return;
    *context = NULL;
    c = call->connection;
    if (call->begun) {
        uint64_t sent = call->request.head ? 0 : call->reply.length;

        if (call->run->log_fd >= 0)
            write_log(call, code == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "" : " cut");
        serve_metrics_request(call->run->server.metrics, call->method, call->reply.status, (double)(g_get_monotonic_time() - call->began) / G_USEC_PER_SEC,
                              call->request.received, sent);
    }
    if (c) {
        AUTO_LOCK(&call->run->lock);
        g_atomic_int_set(&c->begun, 0);
        c->since = c->looked = now_seconds();
    }
    call_free(call);
}

static void working(Call *call, bool on)
{
    if (call->connection)
        g_atomic_int_set(&call->connection->working, on);
}

static void note_address(Call *call, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *address = info ? info->client_addr : NULL;

    if (address && address->sa_family == AF_INET)
        (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, call->address, sizeof call->address);
    else if (address && address->sa_family == AF_INET6)
        (void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, call->address, sizeof call->address);
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static void fill_request(Call *call, struct MHD_Connection *connection)
{
    ServeRequest *request = &call->request;
    const char *length = header(connection, "Content-Length");
    guint64 number;

    request->server = &call->run->server;
    request->method = call->method;
    request->head = strcmp(call->method, "HEAD") == 0;
    request->range = header(connection, "Range");
    request->content_range = header(connection, "Content-Range");
    request->content_type = header(connection, "Content-Type");
    request->if_range = header(connection, "If-Range");
    request->if_none_match = header(connection, "If-None-Match");
    if (length && g_ascii_string_to_unsigned(length, 10, 0, G_MAXINT64, &number, NULL))
        request->length = (int64_t)number;
    serve_target_parse(call->uri, &request->target);
}

/* --- sending ----------------------------------------------------------------------------------------- */

typedef struct Sending {
    ServeBytes *bytes;
    uint64_t offset;
    Connection *connection;
} Sending;

static ssize_t send_piece(void *cls, uint64_t at, char *buffer, size_t size)
{
    Sending *sending = cls;
    ssize_t n;

    if (sending->connection)
        g_atomic_int_set(&sending->connection->working, 1);
    n = serve_bytes_read(sending->bytes, sending->offset + at, buffer, size);
    if (sending->connection)
        g_atomic_int_set(&sending->connection->working, 0);
    if (n > 0)
        return n;
    return n == 0 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void sending_free(void *cls)
{
    Sending *sending = cls;

    serve_bytes_free(sending->bytes);
    g_free(sending);
}

static ssize_t send_nothing(void *cls, uint64_t at, char *buffer, size_t size)
{
    return MHD_CONTENT_READER_END_WITH_ERROR; /* the answer to HEAD has a length and no body */
}

static struct MHD_Response *bytes_response(Call *call)
{
    ServeReply *reply = &call->reply;
    struct MHD_Response *response;
    Sending *sending;
    int fd = serve_bytes_fd(reply->bytes);

    if (fd >= 0) { /* sent by the kernel, and closed by the library */
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        response = fd < 0 ? NULL : MHD_create_response_from_fd_at_offset64(reply->length, fd, reply->offset);
        if (fd >= 0 && !response)
            (void)close(fd);
        return response;
    }
    sending = g_new0(Sending, 1);
    *sending = (Sending){g_steal_pointer(&reply->bytes), reply->offset, call->connection};
    response = MHD_create_response_from_callback(reply->length, PIECE, send_piece, sending, sending_free);
    if (!response)
        sending_free(sending);
    return response;
}

static struct MHD_Response *make_response(Call *call)
{
    ServeReply *reply = &call->reply;
    gsize size = 0;
    const void *data = reply->body ? g_bytes_get_data(reply->body, &size) : NULL;

    if (reply->bytes && reply->length)
        return bytes_response(call);
    if (call->request.head && !reply->body && reply->length)
        return MHD_create_response_from_callback(reply->length, 4096, send_nothing, NULL, NULL);
    reply->length = size;
    return MHD_create_response_from_buffer(size, (void *)data, MHD_RESPMEM_PERSISTENT); /* the call outlives it */
}

static enum MHD_Result send_reply(Call *call, struct MHD_Connection *connection)
{
    const GPtrArray *headers = call->reply.headers;
    struct MHD_Response *response = make_response(call);
    enum MHD_Result result;

    serve_request_settle(&call->request);
    if (!response)
        return MHD_NO;
    for (guint i = 0; headers && i + 1 < headers->len; i += 2)
        (void)MHD_add_response_header(response, headers->pdata[i], headers->pdata[i + 1]);
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (call->last || g_atomic_int_get(&call->run->stopping))
        (void)MHD_add_response_header(response, "Connection", "close");
    result = MHD_queue_response(connection, call->reply.status, response);
    MHD_destroy_response(response);
    return result;
}

/* --- one request ------------------------------------------------------------------------------------------ */

/*
 * The library closes a connection whose reply comes before the end of its request. So it waits for that, but where the client asked whether to go
 * on and has sent nothing yet, or has too much to say.
 */
static bool reply_can_wait(const Call *call, struct MHD_Connection *connection)
{
    if (call->request.length > 0 || header(connection, "Transfer-Encoding"))
        return !header(connection, "Expect") && call->request.length <= (int64_t)UNWANTED_MAX;
    return true;
}

typedef struct Framing {
    unsigned lengths, encodings;
    bool other; /* than chunked */
} Framing;

static enum MHD_Result see_header(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    Framing *framing = cls;

    (void)kind;
    framing->lengths += g_ascii_strcasecmp(key, "Content-Length") == 0;
    if (g_ascii_strcasecmp(key, "Transfer-Encoding") == 0) {
        framing->encodings++;
        framing->other = framing->other || !value || g_ascii_strcasecmp(value, "chunked") != 0;
    }
    return MHD_YES;
}

/* A proxy before us and we must not see two ends of one body. */
static bool framing_is_plain(struct MHD_Connection *connection)
{
    Framing framing = {0};

    (void)MHD_get_connection_values(connection, MHD_HEADER_KIND, see_header, &framing);
    return framing.lengths + framing.encodings <= 1 && !framing.other;
}

static enum MHD_Result begin(Call *call, struct MHD_Connection *connection, const char *method, const char *version)
{
    Run *run = call->run;

    call->begun = call->counted = true;
    call->method = g_strdup(method);
    call->version = g_strdup(version);
    call->agent = g_strdup(header(connection, "User-Agent"));
    g_mutex_lock(&run->lock);
    run->running++;
    if (call->connection) {
        g_atomic_int_set(&call->connection->begun, 1);
        call->connection->looked = now_seconds();
        call->connection->moved = bytes_moved(call->connection->fd);
    }
    g_mutex_unlock(&run->lock);
    note_address(call, connection);
    fill_request(call, connection);
    if (!framing_is_plain(connection)) {
        call->last = true;
        serve_reply_error(&call->reply, 400, "UNSUPPORTED", "a request has one Content-Length, or comes in chunks");
        return send_reply(call, connection);
    }
    working(call, true);
    serve_request_begin(&call->request, header(connection, "Authorization"), &call->reply);
    working(call, false);
    call->waits = call->reply.status && reply_can_wait(call, connection);
    return call->reply.status && !call->waits ? send_reply(call, connection) : MHD_YES;
}

static enum MHD_Result take_body(Call *call, const char *data, size_t size)
{
    if (call->reply.status) {
        call->unwanted += size;
        call->request.received += size;
        return call->unwanted > UNWANTED_MAX ? MHD_NO : MHD_YES;
    }
    working(call, true);
    (void)serve_request_body(&call->request, data, size, &call->reply);
    working(call, false);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method, const char *version, const char *data,
                                  size_t *size, void **context)
{
    Call *call = *context;

    if (!call->begun)
        return begin(call, connection, method, version);
    if (*size) {
        enum MHD_Result result = take_body(call, data, *size);

        *size = 0;
        return result;
    }
    working(call, true);
    serve_request_end(&call->request, &call->reply);
    working(call, false);
    return send_reply(call, connection);
}

/* --- the library ------------------------------------------------------------------------------------------- */

static void on_log(void *cls, const char *format, va_list args)
{
    g_autofree char *text = NULL;

    if (!trace_enabled("store.serve"))
        return;
    text = g_strdup_vprintf(format, args);
    trace("store.serve", "%s", g_strchomp(text));
}

static bool load_pem(const char *file, char **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;

    if (!file_load(AT_FDCWD, file, PEM_MAX, &bytes, error))
        return false;
    *ret = g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
    return true;
}

static struct MHD_Daemon *start_daemon(Run *run, int fd)
{
    const ServeOptions *options = run->server.options;
    const struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_KEY, 0, run->key},
        {MHD_OPTION_HTTPS_MEM_CERT, 0, run->certificate},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)"NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"},
        {MHD_OPTION_END, 0, NULL},
    };
    const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG |
                     (run->certificate ? (unsigned)MHD_USE_TLS : 0);

    return MHD_start_daemon(flags, 0, NULL, NULL, on_request, run, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
                            MHD_OPTION_CONNECTION_LIMIT, options->connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT, options->connections_per_address,
                            MHD_OPTION_CONNECTION_TIMEOUT, options->idle, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_PER_CONNECTION,
                            MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_SIZE, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_STRICT_FOR_CLIENT, 1,
                            MHD_OPTION_URI_LOG_CALLBACK, on_line, run, MHD_OPTION_NOTIFY_COMPLETED, on_completed, run, MHD_OPTION_NOTIFY_CONNECTION,
                            on_connection, run, MHD_OPTION_ARRAY, run->certificate ? tls : none, MHD_OPTION_END);
}

/* The library owns a socket from here on. */
static bool start_daemons(Run *run, GError **error)
{
    for (guint i = 0; i < run->sockets->len; i++) {
        ServeSocket *socket = run->sockets->pdata[i];
        struct MHD_Daemon *daemon = start_daemon(run, socket->fd);

        if (!daemon)
            return fail(error, "cannot serve on %s%s", socket->url, run->certificate ? ": are certificate and key good, and of one another?" : "");
        socket->fd = -1;
        g_ptr_array_add(run->daemons, daemon);
    }
    return true;
}

/* --- from start to stop ---------------------------------------------------------------------------------------- */

static void tidy(Run *run)
{
    serve_uploads_tidy(run->server.uploads);
    serve_shelf_tidy(run->server.shelf);
    end_slow(run);
}

static unsigned running(Run *run)
{
    AUTO_LOCK(&run->lock);
    return run->running;
}

/* Nobody new; who is here may end, for a while. Then, or when asked again, the store's loops are told to stop. */
static void stop(Run *run, int signals)
{
    int64_t end = now_seconds() + (int64_t)run->server.options->stop;
    struct signalfd_siginfo info;

    serve_notify("STOPPING=1");
    g_atomic_int_set(&run->stopping, 1);
    for (guint i = 0; i < run->daemons->len; i++) {
        int fd = MHD_quiesce_daemon(run->daemons->pdata[i]);

        scope_close_fd(&fd);
    }
    while (running(run) && now_seconds() < end && read(signals, &info, sizeof info) < 0) {
        g_usleep(20000);
        end_slow(run);
    }
    if (running(run)) {
        sigset_t set;

        log_warning("requests that did not end in time are cut");
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        (void)raise(SIGTERM); /* the flag of base/interrupt.h */
    }
    for (guint i = 0; i < run->daemons->len; i++)
        MHD_stop_daemon(run->daemons->pdata[i]);
}

static void loop(Run *run, int signals)
{
    struct signalfd_siginfo info;

    for (;;) {
        struct pollfd fds = {.fd = signals, .events = POLLIN};

        if (poll(&fds, 1, 1000) > 0 && read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
            if (info.ssi_signo != SIGHUP)
                return;
            reopen_log(run);
        }
        tidy(run);
    }
}

/* Before the first thread, so that all of them have it so. */
static int take_signals(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void raise_limits(const ServeOptions *options)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = MIN(limit.rlim_max, MAX(limit.rlim_cur, 4u * options->connections + 1024u));
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static bool check_options(const ServeOptions *options, GError **error)
{
    if (!options->certificate != !options->key)
        return fail_code(error, KILN_ERROR_USAGE, "--tls-cert and --tls-key go together");
    if (!options->htpasswd && (options->writers || options->anonymous_read))
        return fail_code(error, KILN_ERROR_USAGE, "--write-users and --anonymous-read need users: give --htpasswd FILE");
    return true;
}

static void run_clear(Run *run)
{
    serve_uploads_free(run->server.uploads);
    serve_shelf_free(run->server.shelf);
    serve_auth_free(run->server.auth);
    serve_metrics_free(run->server.metrics);
    g_mutex_clear(&run->server.manifests);
    g_clear_pointer(&run->connections, g_hash_table_unref);
    g_clear_pointer(&run->daemons, g_ptr_array_unref);
    g_clear_pointer(&run->sockets, g_ptr_array_unref);
    g_mutex_clear(&run->lock);
    scope_close_fd(&run->log_fd);
    g_free(run->certificate);
    if (run->key)
        explicit_bzero(run->key, strlen(run->key));
    g_free(run->key);
}

static bool prepare(Run *run, Store *store, const ServeOptions *options, GError **error)
{
    Server *server = &run->server;

    g_mutex_init(&run->lock);
    g_mutex_init(&server->manifests);
    run->connections = g_hash_table_new_full(NULL, NULL, g_free, NULL);
    run->daemons = g_ptr_array_new();
    server->store = store;
    server->options = options;
    server->ready = is_ready;
    server->gauges = gauges;
    server->metrics = serve_metrics_new();
    server->shelf = serve_shelf_new(store, server->metrics);
    server->uploads = serve_uploads_new(server);
    return check_options(options, error) && serve_auth_new(options->htpasswd, options->writers, options->anonymous_read, &server->auth, error) &&
           (!options->certificate || (load_pem(options->certificate, &run->certificate, error) && load_pem(options->key, &run->key, error))) &&
           open_log(run, error) && serve_listen(options, &run->sockets, error);
}

static void say_ready(const Run *run, ServeReadyFn *ready, void *arg)
{
    g_autoptr(GPtrArray) urls = g_ptr_array_new();

    for (guint i = 0; i < run->sockets->len; i++)
        g_ptr_array_add(urls, ((ServeSocket *)run->sockets->pdata[i])->url);
    g_ptr_array_add(urls, NULL);
    serve_notify("READY=1");
    ready((const char *const *)urls->pdata, arg);
}

bool serve_run(Store *store, const ServeOptions *options, ServeReadyFn *ready, void *arg, GError **error)
{
    Run run = {.log_fd = -1};
    auto_fd int signals = -1;
    bool ok = prepare(&run, store, options, error);

    if (ok) {
        signals = take_signals();
        raise_limits(options);
        ok = start_daemons(&run, error);
        if (ok) {
            say_ready(&run, ready, arg);
            loop(&run, signals);
        }
        stop(&run, signals);
    }
    run_clear(&run);
    return ok;
}

void serve_options_default(ServeOptions *ret)
{
    *ret = (ServeOptions){
        .blob_max = 256ull << 30,
        .uploads_max = 512ull << 30,
        .uploads_per_user = 512ull << 30,
        .upload_idle = 3600,
        .connections = 1000,
        .connections_per_address = 500,
        .idle = 60,
        .stop = 30,
    };
}
