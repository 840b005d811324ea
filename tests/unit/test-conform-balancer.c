/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The promises of deploy/balancer.h, over every member of the table. A member is tried in a world of its own: for "haproxy" that is a real
 * HAProxy with the very lines that the member prints, where one is installed; its instances are two small services here, one of them sick.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "deploy/balancer.h"
#include "deploy/haproxy-socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define INTERVAL 0.25 /* also how long HAProxy waits for a check */
#define PLACES 4

/* --- services --- */

typedef struct Service {
    int listener;
    bool sick;
    gint stopping;
    GThread *thread;
    char *address;
} Service;

static gpointer serve(gpointer arg)
{
    static const char good[] = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", bad[] = "HTTP/1.0 503 No\r\nContent-Length: 0\r\n\r\n";
    Service *s = arg;
    char ask[4096];

    while (!g_atomic_int_get(&s->stopping)) {
        struct pollfd waited = {.fd = s->listener, .events = POLLIN};
        int fd = poll(&waited, 1, 20) > 0 ? accept(s->listener, NULL, NULL) : -1;

        if (fd < 0)
            continue;
        (void)recv(fd, ask, sizeof(ask), 0);
        (void)send(fd, s->sick ? bad : good, s->sick ? sizeof(bad) - 1 : sizeof(good) - 1, MSG_NOSIGNAL);
        (void)close(fd);
    }
    return NULL;
}

static unsigned listen_somewhere(int *ret_fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(*ret_fd, (struct sockaddr *)&address, size), ==, 0);
    g_assert_cmpint(listen(*ret_fd, 64), ==, 0);
    g_assert_cmpint(getsockname(*ret_fd, (struct sockaddr *)&address, &size), ==, 0);
    return ntohs(address.sin_port);
}

static void service_start(Service *s, bool sick)
{
    *s = (Service){.sick = sick};
    s->address = g_strdup_printf("127.0.0.1:%u", listen_somewhere(&s->listener));
    s->thread = g_thread_new("service", serve, s);
}

static void service_stop(Service *s)
{
    g_atomic_int_set(&s->stopping, 1);
    g_thread_join(s->thread);
    (void)close(s->listener);
    g_free(s->address);
}

/* --- worlds --- */

typedef struct World {
    const BalancerOps *ops;
    BalancerConfig config;
    json_t *arguments;
    char *dir;
    pid_t haproxy;
    Service good, other, sick;
} World;

static char *in(const World *w, const char *name)
{
    return g_build_filename(w->dir, name, NULL);
}

static void write_text(const World *w, const char *name, const char *text)
{
    g_autofree char *path = in(w, name);
    GError *error = NULL;

    (void)file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, &error);
    g_assert_no_error(error);
}

/* The member's own lines; only defaults and an address are put to them. */
static void start_haproxy(World *w)
{
    g_autofree char *lines = w->ops->config_lines(&w->config), *config = in(w, "haproxy.cfg"), *socket_path = in(w, "a.sock"), *bind = NULL;
    g_autoptr(GString) text = g_string_new(lines);
    const char *argv[] = {"haproxy", "-db", "-q", "-f", config, NULL};
    ProcessSpec spec = {.argv = argv};
    GError *error = NULL;
    int fd;

    bind = g_strdup_printf("bind 127.0.0.1:%u", listen_somewhere(&fd));
    (void)close(fd);
    g_assert_cmpuint(g_string_replace(text, "bind :80", bind, 0), ==, 1);
    g_assert_cmpuint(g_string_replace(text, "\nfrontend ", "\ndefaults\n    mode http\n    timeout connect 1s\n    timeout client 5s\n    timeout server 5s\n\nfrontend ", 0),
                     ==, 1);
    write_text(w, "haproxy.cfg", text->str);
    write_text(w, "web.map", "");
    (void)process_spawn(&spec, &w->haproxy, &error);
    g_assert_no_error(error);
    for (int i = 0; i < 200; i++) {
        g_autofree char *answer = NULL;

        if (haproxy_ask(socket_path, "show info", &answer, NULL))
            return;
        g_usleep(50 * 1000);
    }
    g_error("HAProxy does not come up");
}

static void world_open(World *w, const BalancerOps *ops)
{
    *w = (World){.ops = ops};
    w->dir = g_dir_make_tmp("conform-XXXXXX", NULL);
    service_start(&w->good, false);
    service_start(&w->other, false);
    service_start(&w->sick, true);
    if (strcmp(ops->name, "haproxy") == 0) {
        g_autofree char *sock = in(w, "a.sock"), *state = in(w, "web.state"), *map = in(w, "web.map"), *config = in(w, "haproxy.cfg");

        w->arguments = json_pack("{s:[s], s:s, s:s, s:s, s:s, s:s}", "sockets", sock, "backend", "web", "state_file", state, "map", map, "config", config,
                                 "reload_grace", "1s");
    } else if (strcmp(ops->name, "fake") == 0) {
        w->arguments = json_pack("{s:s, s:i}", "dir", w->dir, "places", PLACES);
        write_text(w, "sick", w->sick.address);
    } else {
        w->arguments = json_object();
    }
    w->config = (BalancerConfig){.group = "web", .arguments = w->arguments, .strategy = ops->switch_color ? STRATEGY_BLUEGREEN : STRATEGY_ROLLING,
                                 .places = PLACES, .port = 80, .health_http = "/", .health_interval = INTERVAL, .rise = 2, .fall = 2};
    if (strcmp(ops->name, "haproxy") == 0)
        start_haproxy(w);
}

static void world_close(World *w)
{
    if (w->haproxy > 0)
        process_end(w->haproxy, 1);
    service_stop(&w->good);
    service_stop(&w->other);
    service_stop(&w->sick);
    json_decref(w->arguments);
    (void)file_remove_tree(AT_FDCWD, w->dir, NULL);
    g_free(w->dir);
}

/* The balancer stops answering, and answers again. */
static void set_lost(const World *w, bool lost)
{
    g_autofree char *here = in(w, strcmp(w->ops->name, "fake") == 0 ? "lost" : "a.sock"), *away = in(w, "away.sock");

    if (strcmp(w->ops->name, "fake") == 0 && lost)
        write_text(w, "lost", "");
    else if (strcmp(w->ops->name, "fake") == 0)
        g_assert_cmpint(unlink(here), ==, 0);
    else
        g_assert_cmpint(rename(lost ? here : away, lost ? away : here), ==, 0);
}

static Balancer *open_balancer(const World *w)
{
    Balancer *balancer = NULL;
    GError *error = NULL;

    (void)w->ops->open(&w->config, &balancer, &error);
    g_assert_no_error(error);
    g_assert_true(balancer->ops == w->ops);
    return balancer;
}

/* A copy of the place's entry; route OUT where there is none. */
static BalancerEntry look(Balancer *balancer, uint32_t color, uint32_t place, char **ret_address)
{
    BalancerEntry found = {.route = ROUTE_OUT};
    BalancerView view = {0};
    GError *error = NULL;

    g_free(*ret_address);
    *ret_address = NULL;
    (void)balancer->ops->observe(balancer, &view, &error);
    g_assert_no_error(error);
    g_assert_null(view.problem);
    g_assert_true(view.answers && view.reached);
    for (guint i = 0; i < view.entries->len; i++) {
        const BalancerEntry *entry = view.entries->pdata[i];

        if (entry->color == color && entry->place == place) {
            found = *entry;
            *ret_address = g_strdup(entry->address);
            found.address = NULL;
        }
    }
    balancer_view_clear(&view);
    return found;
}

static bool gets_up(Balancer *balancer, uint32_t color, uint32_t place, double seconds)
{
    g_autofree char *address = NULL;

    for (int64_t end = g_get_monotonic_time() + (int64_t)(seconds * G_USEC_PER_SEC); g_get_monotonic_time() < end; g_usleep(20 * 1000))
        if (look(balancer, color, place, &address).up)
            return true;
    return false;
}

#define GOOD(call)                 \
    do {                           \
        GError *problem = NULL;    \
        bool is_good = (call);     \
        g_assert_no_error(problem); \
        g_assert_true(is_good);    \
    } while (0)

#define BAD(call)                          \
    do {                                   \
        g_autoptr(GError) problem = NULL;  \
        g_assert_false(call);              \
        g_assert_nonnull(problem);         \
        g_assert_cmpuint(strlen(problem->message), >, 10); \
    } while (0)

/* --- the promises --- */

static void promise_arguments(const World *w)
{
    g_autoptr(json_t) wrong = json_pack("{s:i}", "no-such-argument", 1);
    g_autofree char *lines = w->ops->config_lines(&w->config);
    const char *culprit = NULL;

    BAD(w->ops->check(wrong, STRATEGY_ROLLING, &culprit, &problem));
    g_assert_cmpstr(culprit, ==, "no-such-argument");
    GOOD(w->ops->check(w->arguments, w->config.strategy, &culprit, &problem));
    g_assert_nonnull(lines);
    g_assert_true(balancer_find(w->ops->name, NULL) == w->ops);
}

static void promise_empty(const World *w, Balancer *b)
{
    BalancerView view = {0};

    GOOD(w->ops->verify(b, &problem));
    GOOD(w->ops->observe(b, &view, &problem));
    g_assert_true(view.answers && view.reached);
    g_assert_null(view.problem);
    g_assert_cmpuint(view.entries->len, ==, 0);
    g_assert_cmpint(view.color, ==, -1);
    g_assert_cmpuint(view.places, >=, PLACES);
    balancer_view_clear(&view);
    BAD(w->ops->route(b, 0, 0, 1, &problem)); /* nobody is there */
    BAD(w->ops->enter(b, 0, view.places + 100000, w->good.address, &problem));
    BAD(w->ops->enter(b, 7, 0, w->good.address, &problem));
}

static void promise_life(const World *w, Balancer *b)
{
    g_autofree char *address = NULL;
    BalancerEntry entry;
    uint64_t cut = 99;

    GOOD(w->ops->enter(b, 0, 1, w->good.address, &problem));
    entry = look(b, 0, 1, &address);
    g_assert_cmpint(entry.route, ==, ROUTE_DRAINED);
    g_assert_cmpstr(address, ==, w->good.address);
    g_assert_true(gets_up(b, 0, 1, 10));
    GOOD(w->ops->enter(b, 0, 1, w->good.address, &problem)); /* again */
    g_assert_true(look(b, 0, 1, &address).up);             /* and its checks still count */
    BAD(w->ops->enter(b, 0, 1, w->other.address, &problem)); /* taken */

    GOOD(w->ops->route(b, 0, 1, 100, &problem));
    GOOD(w->ops->route(b, 0, 1, 100, &problem));
    entry = look(b, 0, 1, &address);
    g_assert_cmpint(entry.route, ==, ROUTE_IN);
    g_assert_true(!w->ops->weighs || entry.weight == 100);
    GOOD(w->ops->route(b, 0, 1, WEIGHT_MAX, &problem));
    g_assert_true(!w->ops->weighs || look(b, 0, 1, &address).weight == WEIGHT_MAX);

    GOOD(w->ops->drain(b, 0, 1, &problem));
    GOOD(w->ops->drain(b, 0, 1, &problem));
    entry = look(b, 0, 1, &address);
    g_assert_cmpint(entry.route, ==, ROUTE_DRAINED);
    g_assert_cmpuint(entry.sessions, ==, 0);
    GOOD(w->ops->leave(b, 0, 1, &cut, &problem));
    g_assert_cmpuint(cut, ==, 0);
    GOOD(w->ops->leave(b, 0, 1, &cut, &problem));
    g_assert_cmpint(look(b, 0, 1, &address).route, ==, ROUTE_OUT);
}

/* The place of a healthy instance gets a sick tenant: what was before does not count. */
static void promise_sick_successor(const World *w, Balancer *b)
{
    uint64_t cut;

    GOOD(w->ops->enter(b, 0, 2, w->good.address, &problem));
    g_assert_true(gets_up(b, 0, 2, 10));
    GOOD(w->ops->leave(b, 0, 2, &cut, &problem));
    GOOD(w->ops->enter(b, 0, 2, w->sick.address, &problem));
    g_assert_false(gets_up(b, 0, 2, 1.0));
    GOOD(w->ops->leave(b, 0, 2, &cut, &problem));
    GOOD(w->ops->enter(b, 0, 2, w->other.address, &problem));
    g_assert_true(gets_up(b, 0, 2, 10));
    GOOD(w->ops->leave(b, 0, 2, &cut, &problem));
}

static void promise_colors(const World *w, Balancer *b)
{
    g_autofree char *address = NULL;
    BalancerView view = {0};
    uint64_t cut;

    GOOD(w->ops->enter(b, 0, 0, w->good.address, &problem));
    GOOD(w->ops->enter(b, 1, 0, w->other.address, &problem));
    (void)look(b, 1, 0, &address);
    g_assert_cmpstr(address, ==, w->other.address);
    for (uint32_t color = 0; color < 4; color++) {
        GOOD(w->ops->switch_color(b, color / 2, &problem)); /* each twice */
        GOOD(w->ops->observe(b, &view, &problem));
        g_assert_cmpint(view.color, ==, (int32_t)color / 2);
        balancer_view_clear(&view);
    }
    GOOD(w->ops->leave(b, 0, 0, &cut, &problem));
    g_assert_cmpint(look(b, 1, 0, &address).route, ==, ROUTE_DRAINED); /* the other pool's place is another one */
    GOOD(w->ops->leave(b, 1, 0, &cut, &problem));
    BAD(w->ops->switch_color(b, 2, &problem));
}

static void promise_no_state_of_its_own(const World *w, Balancer *b)
{
    g_autofree char *address = NULL;
    Balancer *second = NULL;
    BalancerCounters counters = {0};
    uint64_t cut;

    GOOD(w->ops->enter(b, 0, 3, w->good.address, &problem));
    g_assert_true(gets_up(b, 0, 3, 10));
    GOOD(w->ops->route(b, 0, 3, 7, &problem));
    second = open_balancer(w);
    g_assert_cmpint(look(second, 0, 3, &address).route, ==, ROUTE_IN);
    g_assert_true(look(second, 0, 3, &address).up);
    g_assert_cmpstr(address, ==, w->good.address);
    if (w->ops->counters) {
        GOOD(w->ops->counters(second, 0, 3, &counters, &problem));
        g_assert_cmpuint(counters.errors, ==, 0);
    }
    GOOD(w->ops->drain(second, 0, 3, &problem));
    GOOD(w->ops->leave(second, 0, 3, &cut, &problem));
    w->ops->close(second);
    g_assert_cmpint(look(b, 0, 3, &address).route, ==, ROUTE_OUT);
}

static void promise_lost(const World *w, Balancer *b)
{
    g_autofree char *address = NULL;
    BalancerView view = {0};
    int64_t begin = g_get_monotonic_time();
    uint64_t cut;

    GOOD(w->ops->enter(b, 0, 0, w->good.address, &problem));
    set_lost(w, true);
    GOOD(w->ops->observe(b, &view, &problem)); /* no error of the call, but told */
    g_assert_false(view.answers);
    g_assert_false(view.reached);
    g_assert_nonnull(view.problem);
    balancer_view_clear(&view);
    BAD(w->ops->enter(b, 0, 1, w->good.address, &problem));
    BAD(w->ops->route(b, 0, 0, 1, &problem));
    BAD(w->ops->drain(b, 0, 0, &problem));
    BAD(w->ops->leave(b, 0, 0, &cut, &problem));
    BAD(w->ops->verify(b, &problem));
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 15 * G_USEC_PER_SEC);
    set_lost(w, false);
    g_assert_cmpint(look(b, 0, 0, &address).route, ==, ROUTE_DRAINED);
    GOOD(w->ops->leave(b, 0, 0, &cut, &problem));
}

/* The one that has no places: everything is done already. */
static void promise_nothing(const World *w, Balancer *b)
{
    BalancerView view = {0};
    uint64_t cut = 1;

    GOOD(w->ops->verify(b, &problem));
    GOOD(w->ops->enter(b, 0, 0, w->good.address, &problem));
    GOOD(w->ops->route(b, 0, 0, 1, &problem));
    GOOD(w->ops->observe(b, &view, &problem));
    g_assert_true(view.answers && view.reached && view.entries->len == 0 && view.places == 0 && view.color == -1);
    balancer_view_clear(&view);
    GOOD(w->ops->drain(b, 0, 0, &problem));
    GOOD(w->ops->leave(b, 0, 0, &cut, &problem));
    g_assert_cmpuint(cut, ==, 0);
}

static void test_member(gconstpointer data)
{
    const BalancerOps *ops = data;
    Balancer *balancer;
    World world;

    if (strcmp(ops->name, "haproxy") == 0 && !process_have("haproxy")) {
        g_test_skip("haproxy is not installed");
        return;
    }
    world_open(&world, ops);
    promise_arguments(&world);
    balancer = open_balancer(&world);
    if (strcmp(ops->name, "none") == 0) {
        promise_nothing(&world, balancer);
    } else {
        promise_empty(&world, balancer);
        promise_life(&world, balancer);
        promise_sick_successor(&world, balancer);
        if (ops->switch_color)
            promise_colors(&world, balancer);
        promise_no_state_of_its_own(&world, balancer);
        promise_lost(&world, balancer);
    }
    ops->close(balancer);
    world_close(&world);
}

int main(int argc, char **argv)
{
    g_autofree char *names = NULL;
    g_auto(GStrv) list = NULL;

    g_test_init(&argc, &argv, NULL);
    g_assert_null(balancer_find("", &names));
    list = g_strsplit(names, ", ", -1);
    for (char **name = list; *name; name++) {
        g_autofree char *path = g_strdup_printf("/conform-balancer/%s", *name);

        g_test_add_data_func(path, balancer_find(*name, NULL), test_member);
    }
    return g_test_run();
}
