/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln's own health checks, against a service on loopback that does what the test says at the moment.
 */
#include "base/scope.h"
#include "deploy/health.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define INTERVAL 0.02

typedef enum Mood { MOOD_GOOD, MOOD_REDIRECT, MOOD_SICK, MOOD_SILENT, MOOD_ENDLESS, MOOD_HANGUP } Mood;

typedef struct Service {
    int listener;
    unsigned port;
    GThread *thread;
    gint mood, asked, stopping;
} Service;

static void answer(Service *s, int fd)
{
    static const char *const words[] = {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
                                        "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"};
    char ask[4096], junk[65536];
    Mood mood = (Mood)g_atomic_int_get(&s->mood);

    g_atomic_int_inc(&s->asked);
    if (mood == MOOD_SILENT) {
        g_usleep(150 * 1000);
        return;
    }
    if (mood == MOOD_HANGUP || recv(fd, ask, sizeof(ask), 0) <= 0)
        return;
    if (mood != MOOD_ENDLESS) {
        (void)send(fd, words[mood], strlen(words[mood]), MSG_NOSIGNAL);
        return;
    }
    memset(junk, 'x', sizeof(junk));
    (void)send(fd, "HTTP/1.1 200 OK\r\n\r\n", 19, MSG_NOSIGNAL);
    while (send(fd, junk, sizeof(junk), MSG_NOSIGNAL) > 0)
        ;
}

static gpointer serve(gpointer arg)
{
    Service *s = arg;

    while (!g_atomic_int_get(&s->stopping)) {
        struct pollfd waited = {.fd = s->listener, .events = POLLIN};
        int fd = poll(&waited, 1, 20) > 0 ? accept(s->listener, NULL, NULL) : -1;

        if (fd < 0)
            continue;
        answer(s, fd);
        close(fd);
    }
    return NULL;
}

static void start(Service *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    *s = (Service){.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    g_assert_cmpint(bind(s->listener, (struct sockaddr *)&address, size), ==, 0);
    g_assert_cmpint(listen(s->listener, 1024), ==, 0);
    g_assert_cmpint(getsockname(s->listener, (struct sockaddr *)&address, &size), ==, 0);
    s->port = ntohs(address.sin_port);
    s->thread = g_thread_new("service", serve, s);
}

static void stop(Service *s)
{
    g_atomic_int_set(&s->stopping, 1);
    g_thread_join(s->thread);
    close(s->listener);
}

static bool becomes(HealthMonitor *monitor, const char *key, Health wanted)
{
    for (int64_t end = g_get_monotonic_time() + 10 * G_USEC_PER_SEC; g_get_monotonic_time() < end; (void)health_wait(monitor, 0.05))
        if (health_state(monitor, key) == wanted)
            return true;
    return false;
}

static void assert_reason(HealthMonitor *monitor, const char *key, const char *wanted)
{
    g_autofree char *reason = health_reason(monitor, key);

    g_assert_cmpstr(reason, ==, wanted);
}

static void test_rise_and_fall(void)
{
    Service s;
    HealthSpec spec = {.http = "/health", .interval = INTERVAL, .rise = 3, .fall = 2, .timeout = 0.5};
    g_autoptr(HealthMonitor) monitor = NULL;
    int asked;

    start(&s);
    spec.port = s.port;
    monitor = health_new(&spec);
    g_assert_cmpint(health_state(monitor, "a"), ==, HEALTH_UNKNOWN);
    assert_reason(monitor, "a", "not watched");
    health_watch(monitor, "a", "127.0.0.1");
    g_assert_true(becomes(monitor, "a", HEALTH_GOOD));
    g_assert_cmpint(g_atomic_int_get(&s.asked), >=, 3);
    assert_reason(monitor, "a", "HTTP 200");

    asked = g_atomic_int_get(&s.asked);
    g_atomic_int_set(&s.mood, MOOD_SICK);
    g_assert_true(becomes(monitor, "a", HEALTH_BAD));
    g_assert_cmpint(g_atomic_int_get(&s.asked), >=, asked + 2);
    assert_reason(monitor, "a", "HTTP 503");
    g_atomic_int_set(&s.mood, MOOD_REDIRECT);
    g_assert_true(becomes(monitor, "a", HEALTH_GOOD));

    health_watch(monitor, "a", "127.0.0.1"); /* the same: nothing is forgotten */
    g_assert_cmpint(health_state(monitor, "a"), ==, HEALTH_GOOD);
    health_watch(monitor, "a", "127.0.0.2"); /* another tenant begins anew */
    g_assert_cmpint(health_state(monitor, "a"), ==, HEALTH_UNKNOWN);
    health_forget(monitor, "a");
    health_forget(monitor, "a");
    g_assert_cmpint(health_state(monitor, "a"), ==, HEALTH_UNKNOWN);
    stop(&s);
}

static void expect_bad(Service *s, Mood mood, const char *reason)
{
    HealthSpec spec = {.http = "/", .port = s->port, .interval = INTERVAL, .rise = 1, .fall = 2, .timeout = 0.05};
    g_autoptr(HealthMonitor) monitor = health_new(&spec);

    g_atomic_int_set(&s->mood, (gint)mood);
    health_watch(monitor, "x", "127.0.0.1");
    g_assert_true(becomes(monitor, "x", HEALTH_BAD));
    if (reason)
        assert_reason(monitor, "x", reason);
}

static void test_reasons(void)
{
    HealthSpec refused = {.http = "/", .port = 1, .interval = INTERVAL};
    g_autoptr(HealthMonitor) monitor = health_new(&refused);
    Service s;

    start(&s);
    expect_bad(&s, MOOD_SICK, "HTTP 503");
    expect_bad(&s, MOOD_SILENT, "no answer in time");
    expect_bad(&s, MOOD_HANGUP, NULL);
    health_watch(monitor, "r", "127.0.0.1");
    g_assert_true(becomes(monitor, "r", HEALTH_BAD));
    assert_reason(monitor, "r", "connection refused");
    health_watch(monitor, "n", "no address");
    g_assert_true(becomes(monitor, "n", HEALTH_BAD));
    stop(&s);
}

static void test_endless_body(void)
{
    Service s;
    HealthSpec spec = {.http = "/", .interval = INTERVAL, .rise = 1, .fall = 1, .timeout = 1};
    g_autoptr(HealthMonitor) monitor = NULL;

    start(&s);
    s.mood = MOOD_ENDLESS;
    spec.port = s.port;
    monitor = health_new(&spec);
    health_watch(monitor, "e", "127.0.0.1");
    g_assert_true(becomes(monitor, "e", HEALTH_GOOD));
    health_forget(monitor, "e");
    stop(&s);
}

static void test_tcp(void)
{
    Service s;
    HealthSpec spec = {.tcp = true, .interval = INTERVAL, .rise = 2, .fall = 2, .timeout = 0.5};
    g_autoptr(HealthMonitor) monitor = health_new(&spec);
    g_autofree char *address = NULL;

    start(&s);
    s.mood = MOOD_SICK; /* what it would say over HTTP is not asked */
    address = g_strdup_printf("127.0.0.1:%u", s.port);
    health_watch(monitor, "t", address);
    g_assert_true(becomes(monitor, "t", HEALTH_GOOD));
    assert_reason(monitor, "t", "connected");
    stop(&s);
    g_assert_true(becomes(monitor, "t", HEALTH_BAD));
    assert_reason(monitor, "t", "connection refused");
}

static void test_running_is_enough(void)
{
    HealthSpec spec = {.port = 1};
    g_autoptr(HealthMonitor) monitor = health_new(&spec);

    health_watch(monitor, "a", "127.0.0.1");
    g_assert_cmpint(health_state(monitor, "a"), ==, HEALTH_GOOD);
    g_assert_true(health_wait(monitor, 0));
    g_assert_false(health_wait(monitor, 0));
}

static long peak_kib(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

/* A thousand at once, one of them hanging all the time, within a few seconds and little memory. */
static void test_thousand(void)
{
    Service s, silent;
    HealthSpec spec = {.http = "/", .interval = 0.2, .rise = 2, .fall = 2, .timeout = 1};
    g_autoptr(HealthMonitor) monitor = NULL;
    g_autofree char *hanging = NULL;
    int64_t begin = g_get_monotonic_time();
    long before = peak_kib();

    start(&s);
    start(&silent);
    silent.mood = MOOD_SILENT;
    hanging = g_strdup_printf("127.0.0.1:%u", silent.port);
    spec.port = s.port;
    monitor = health_new(&spec);
    health_watch(monitor, "hanging", hanging);
    for (int i = 0; i < 1000; i++) {
        g_autofree char *key = g_strdup_printf("i%d", i);

        health_watch(monitor, key, "127.0.0.1");
    }
    for (int i = 0; i < 1000; i++) {
        g_autofree char *key = g_strdup_printf("i%d", i);

        g_assert_true(becomes(monitor, key, HEALTH_GOOD));
    }
    g_assert_cmpint(health_state(monitor, "hanging"), !=, HEALTH_GOOD);
    g_test_message("1000 instances good after %.2f s, %ld KiB more", (double)(g_get_monotonic_time() - begin) / G_USEC_PER_SEC, peak_kib() - before);
#ifndef __SANITIZE_ADDRESS__ /* which has a memory of its own */
    g_assert_cmpint(peak_kib() - before, <, 48 * 1024);
#endif
    g_clear_pointer(&monitor, health_free); /* with checks under way */
    stop(&s);
    stop(&silent);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/health/rise-and-fall", test_rise_and_fall);
    g_test_add_func("/health/reasons-are-told", test_reasons);
    g_test_add_func("/health/endless-body-is-cut", test_endless_body);
    g_test_add_func("/health/tcp-connects-only", test_tcp);
    g_test_add_func("/health/running-is-enough", test_running_is_enough);
    g_test_add_func("/health/thousand-instances", test_thousand);
    return g_test_run();
}
