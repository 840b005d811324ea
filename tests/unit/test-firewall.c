/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firewalls of groups, in a network name space of this test's own: an allowed port connects, another does not, and a changed rule is seen. Two
 * more name spaces on a bridge stand for instances and their clients.
 */
#include "base/process.h"
#include "base/scope.h"
#include "deploy/firewall.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

static const char *const allow_web[] = {"tcp/8080", "udp/5300-5310", "icmp", NULL};

static GPtrArray *address_list(const char *first, const char *second)
{
    GPtrArray *list = g_ptr_array_new();

    g_ptr_array_add(list, (gpointer)first);
    if (second)
        g_ptr_array_add(list, (gpointer)second);
    return list;
}

static void test_text(void)
{
    g_autoptr(GPtrArray) addresses = address_list("10.0.0.1", "fd00::1"), wrong = address_list("10.0.0", NULL), none = g_ptr_array_new();
    static const char *const bad[] = {"tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/80-70", "tcp/80x", "tcp/ 80", "sctp/1", "tcp/080", "icmp; flush ruleset", NULL};
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(firewall_text("web-a", allow_web, addresses, FIREWALL_BRIDGE_TRACKED, &text, &error));
    g_assert_nonnull(strstr(text, "table inet kiln_web_a {"));
    g_assert_nonnull(strstr(text, "table bridge kiln_web_a {"));
    g_assert_nonnull(strstr(text, "tcp dport { 8080 } accept"));
    for (size_t i = 0; bad[i]; i++) {
        const char *const allow[] = {bad[i], NULL};
        g_autofree char *ignored = NULL;

        g_assert_false(firewall_text("web", allow, addresses, FIREWALL_BRIDGE_NONE, &ignored, &error));
        g_assert_nonnull(error);
        g_clear_error(&error);
    }
    g_clear_pointer(&text, g_free);
    g_assert_false(firewall_text("web", allow_web, wrong, FIREWALL_BRIDGE_NONE, &text, NULL));
    g_assert_false(firewall_text("web", allow_web, none, FIREWALL_BRIDGE_NONE, &text, NULL));
    g_assert_false(firewall_text("web; x", allow_web, addresses, FIREWALL_BRIDGE_NONE, &text, NULL));
}

/* --- real packets ------------------------------------------------------------------------- */

static bool run(const char *line)
{
    g_auto(GStrv) argv = g_strsplit(line, " ", -1);

    return process_capture((const char *const *)argv, 1 << 20, NULL, NULL);
}

/* The test moves into a network of its own: nothing that it does is seen outside. */
static bool enter_network(void)
{
    static int entered = -1;

    if (entered < 0)
        entered = geteuid() == 0 && process_have("nft") && process_have("ip") && unshare(CLONE_NEWNET) == 0 &&
                  run("ip link set lo up") && run("nft list ruleset");
    if (!entered)
        g_test_skip("needs root, nft, ip and network name spaces");
    return entered;
}

static int listener(const char *address, uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    g_assert_cmpint(inet_pton(AF_INET, address, &at.sin_addr), ==, 1);
    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), ==, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&at, sizeof at), ==, 0);
    g_assert_cmpint(listen(fd, 8), ==, 0);
    return fd;
}

static bool connects(const char *address, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    auto_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd wait = {fd, POLLOUT, 0};
    int problem = 0;
    socklen_t size = sizeof problem;

    g_assert_cmpint(inet_pton(AF_INET, address, &to.sin_addr), ==, 1);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return true;
    return poll(&wait, 1, 300) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &size) == 0 && problem == 0;
}

static char *problem_of(const GPtrArray *addresses)
{
    g_autoptr(GError) error = NULL;
    char *problem = NULL;

    (void)firewall_check("web", allow_web, addresses, &problem, &error);
    g_assert_no_error(error);
    return problem;
}

static void apply(const GPtrArray *addresses)
{
    g_autoptr(GError) error = NULL;

    (void)firewall_apply("web", allow_web, addresses, &error);
    g_assert_no_error(error);
}

static void test_ports(void)
{
    g_autoptr(GPtrArray) addresses = address_list("127.5.0.1", "127.5.0.2");
    auto_fd int open_port = -1, closed_port = -1, other = -1;

    if (!enter_network())
        return;
    open_port = listener("127.5.0.1", 8080);
    closed_port = listener("127.5.0.1", 8081);
    other = listener("127.5.0.9", 8081);
    g_assert_true(connects("127.5.0.1", 8081));
    apply(addresses);
    g_assert_true(connects("127.5.0.1", 8080));
    g_assert_false(connects("127.5.0.1", 8081));
    g_assert_true(connects("127.5.0.9", 8081)); /* another's address */
    apply(addresses);
    g_assert_false(connects("127.5.0.1", 8081));
    g_assert_true(firewall_remove("web", NULL));
    g_assert_true(firewall_remove("web", NULL));
    g_assert_true(connects("127.5.0.1", 8081));
}

static void test_changes_are_seen(void)
{
    static const char *const changes[] = {
        "nft add rule inet kiln_web verdict tcp dport 22 accept",
        "nft insert rule inet kiln_web verdict accept",
        "nft add element inet kiln_web four { 10.9.9.9 }",
        "nft delete element inet kiln_web four { 127.5.0.1 }",
        "nft flush chain inet kiln_web at_input",
        "nft delete table inet kiln_web",
        NULL,
    };
    g_autoptr(GPtrArray) addresses = address_list("127.5.0.1", "127.5.0.2"), turned = address_list("127.5.0.2", "127.5.0.1"),
                         fewer = address_list("127.5.0.2", NULL);

    if (!enter_network())
        return;
    for (size_t i = 0; changes[i]; i++) {
        g_autofree char *before = NULL, *same = NULL, *other = NULL, *after = NULL;

        apply(addresses);
        before = problem_of(addresses);
        g_assert_null(before);
        same = problem_of(turned);
        g_assert_null(same);
        other = problem_of(fewer);
        g_assert_nonnull(other);
        g_assert_true(run(changes[i]));
        after = problem_of(addresses);
        g_assert_nonnull(after);
    }
    g_assert_true(firewall_remove("web", NULL));
}

/* Two more networks on a bridge of this one: packets between them pass the bridge and no route. */
static void test_bridge(void)
{
    static const char *const setup[] = {
        "ip link add kbr0 type bridge",
        "ip link set kbr0 up",
        "ip link add va type veth peer name eth0 netns kiln-test-fw-a",
        "ip link add vb type veth peer name eth0 netns kiln-test-fw-b",
        "ip link set va master kbr0 up",
        "ip link set vb master kbr0 up",
        "ip -n kiln-test-fw-a addr add 10.99.0.5/24 dev eth0",
        "ip -n kiln-test-fw-b addr add 10.99.0.6/24 dev eth0",
        "ip -n kiln-test-fw-a link set eth0 up",
        "ip -n kiln-test-fw-b link set eth0 up",
        NULL,
    };
    static const char *const server[] = {"ip", "netns", "exec", "kiln-test-fw-a", "python3", "-c",
                                         "import socket,time\n"
                                         "l=[socket.create_server(('10.99.0.5',p)) for p in (8080,8081)]\n"
                                         "time.sleep(60)",
                                         NULL};
    static const char *const client[] = {"ip", "netns", "exec", "kiln-test-fw-b", "python3", "-c",
                                         "import socket,time\n"
                                         "def go(p):\n"
                                         "  try: socket.create_connection(('10.99.0.5',p),0.4); return 1\n"
                                         "  except OSError: return 0\n"
                                         "for i in range(100):\n"
                                         "  if go(8080): break\n"
                                         "  time.sleep(0.05)\n"
                                         "print(go(8080),go(8081))",
                                         NULL};
    g_autoptr(GPtrArray) addresses = address_list("10.99.0.5", NULL);
    g_autofree char *before = NULL, *after = NULL;
    ProcessSpec spec = {.argv = server};
    bool ready = true;
    pid_t pid = 0;

    if (!enter_network())
        return;
    if (!process_have("python3") || !run("ip netns add kiln-test-fw-a") || !run("ip netns add kiln-test-fw-b")) {
        g_test_skip("needs python3 and named name spaces");
        return;
    }
    for (size_t i = 0; ready && setup[i]; i++)
        ready = run(setup[i]);
    if (ready && process_spawn(&spec, &pid, NULL)) {
        ready = process_capture(client, 1024, &before, NULL);
        apply(addresses);
        ready = ready && process_capture(client, 1024, &after, NULL);
        process_end(pid, 0.1);
        g_assert_true(firewall_remove("web", NULL));
    }
    (void)run("ip netns del kiln-test-fw-a");
    (void)run("ip netns del kiln-test-fw-b");
    g_assert_true(ready);
    g_assert_cmpstr(before, ==, "1 1\n");
    g_assert_cmpstr(after, ==, "1 0\n");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/firewall/text-lets-nothing-else-in", test_text);
    g_test_add_func("/firewall/an-allowed-port-connects-and-another-does-not", test_ports);
    g_test_add_func("/firewall/every-change-is-seen", test_changes_are_seen);
    g_test_add_func("/firewall/bridged-packets-are-filtered", test_bridge);
    return g_test_run();
}
