/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rulesets as text for `nft -f`, which applies a file in one transaction.
 *
 * Whether what is loaded is what should be is answered by nft itself: the same text is loaded into an empty network name space that ends
 * with the command, and both are compared as nft lists them. So no spelling of some version of nft has to be known here.
 */
#include "deploy/firewall.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/process.h"
#include "base/scope.h"

#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>

#define LIST_MAX ((size_t)64 << 20)
#define ADDRESSES_MAX 8192u
#define ALLOW_MAX 256u
#define MESSAGE_MAX 4u /* lines of nft's complaint that are told */

/* --- text --------------------------------------------------------------------------------- */

static bool table_name(const char *group, char **ret, GError **error)
{
    size_t length = strlen(group);

    if (length == 0 || length > 48 || strspn(group, "abcdefghijklmnopqrstuvwxyz0123456789-") != length)
        return fail(error, "'%s' is no group's name", group);
    *ret = g_strconcat("kiln_", group, NULL);
    g_strdelimit(*ret, "-", '_');
    return true;
}

static bool split_addresses(const GPtrArray *addresses, GString *four, GString *six, GError **error)
{
    uint8_t raw[16];
    char text[INET6_ADDRSTRLEN];

    if (addresses->len == 0 || addresses->len > ADDRESSES_MAX)
        return fail(error, "a firewall needs from 1 to %u addresses", ADDRESSES_MAX);
    for (guint i = 0; i < addresses->len; i++) {
        const char *address = g_ptr_array_index(addresses, i);
        bool is_four = inet_pton(AF_INET, address, raw) == 1;
        GString *into = is_four ? four : six;

        if (!is_four && inet_pton(AF_INET6, address, raw) != 1)
            return fail(error, "'%s' is no IP address", address);
        g_string_append_printf(into, "%s%s", into->len ? ", " : "", inet_ntop(is_four ? AF_INET : AF_INET6, raw, text, sizeof text));
    }
    return true;
}

typedef struct Allowed {
    GString *tcp, *udp;
    bool icmp;
} Allowed;

static void allowed_clear(Allowed *allowed)
{
    g_string_free(allowed->tcp, TRUE);
    g_string_free(allowed->udp, TRUE);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Allowed, allowed_clear)

static bool add_ports(GString *into, const char *word, GError **error)
{
    unsigned first, last;
    const char *text = strchr(word, '/') + 1;
    g_autofree char *single = NULL, *range = NULL;

    if (sscanf(text, "%5u-%5u", &first, &last) != 2) {
        if (sscanf(text, "%5u", &first) != 1)
            first = 0;
        last = first;
    }
    single = g_strdup_printf("%u", first);
    range = g_strdup_printf("%u-%u", first, last);
    if (first < 1 || last > 65535 || first > last || (strcmp(text, single) != 0 && strcmp(text, range) != 0))
        return fail(error, "'%s' allows nothing: it reads tcp/80, udp/6000-6010 or icmp", word);
    g_string_append_printf(into, "%s%s", into->len ? ", " : "", text);
    return true;
}

static bool read_allow(const char *const *allow, Allowed *ret, GError **error)
{
    for (unsigned i = 0; allow && allow[i]; i++) {
        if (i >= ALLOW_MAX)
            return fail(error, "a firewall may have %u rules at most", ALLOW_MAX);
        if (strcmp(allow[i], "icmp") == 0)
            ret->icmp = true;
        else if (!g_str_has_prefix(allow[i], "tcp/") && !g_str_has_prefix(allow[i], "udp/"))
            return fail(error, "'%s' allows nothing: it reads tcp/80, udp/6000-6010 or icmp", allow[i]);
        else if (!add_ports(*allow[i] == 't' ? ret->tcp : ret->udp, allow[i], error))
            return false;
    }
    return true;
}

static void add_set(GString *text, const char *name, const char *type, const GString *elements)
{
    if (elements->len)
        g_string_append_printf(text, "    set %s {\n        type %s\n        elements = { %s }\n    }\n", name, type,
                               elements->str);
}

/* Neighbour discovery is what ARP is to IPv4: without it nobody finds the address. */
static void add_verdicts(GString *text, const Allowed *allowed, FirewallBridge tracking)
{
    g_string_append(text, "    chain verdict {\n");
    if (tracking == FIREWALL_BRIDGE_TRACKED)
        g_string_append(text, "        ct state established,related accept\n");
    g_string_append(text, "        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept\n");
    if (allowed->tcp->len)
        g_string_append_printf(text, "        tcp dport { %s } accept\n", allowed->tcp->str);
    if (allowed->udp->len)
        g_string_append_printf(text, "        udp dport { %s } accept\n", allowed->udp->str);
    if (allowed->icmp)
        g_string_append(text, "        meta l4proto { icmp, ipv6-icmp } accept\n");
    if (tracking == FIREWALL_BRIDGE_STATELESS)
        g_string_append(text, "        tcp flags & (syn | ack) != syn accept\n"
                              "        udp sport { 53, 123 } udp dport 1024-65535 accept\n"
                              "        icmp type { echo-reply, destination-unreachable, time-exceeded } accept\n");
    g_string_append(text, "        drop\n    }\n");
}

static void add_hook(GString *text, const char *hook, const GString *four, const GString *six)
{
    g_string_append_printf(text, "    chain at_%s {\n        type filter hook %s priority -10; policy accept;\n", hook, hook);
    if (four->len)
        g_string_append(text, "        ip daddr @four jump verdict\n");
    if (six->len)
        g_string_append(text, "        ip6 daddr @six jump verdict\n");
    g_string_append(text, "    }\n");
}

static void add_table(GString *text, const char *family, const char *table, const char *const *hooks, const GString *four, const GString *six,
                      const Allowed *allowed, FirewallBridge tracking)
{
    g_string_append_printf(text, "add table %s %s\ndelete table %s %s\ntable %s %s {\n", family, table, family, table, family, table);
    add_set(text, "four", "ipv4_addr", four);
    add_set(text, "six", "ipv6_addr", six);
    add_verdicts(text, allowed, tracking);
    for (; *hooks; hooks++)
        add_hook(text, *hooks, four, six);
    g_string_append(text, "}\n");
}

bool firewall_text(const char *group, const char *const *allow, const GPtrArray *addresses, FirewallBridge bridge, char **ret, GError **error)
{
    static const char *const host_hooks[] = {"input", "forward", "output", NULL}, *const bridge_hooks[] = {"forward", NULL};
    g_auto(Allowed) allowed = {g_string_new(NULL), g_string_new(NULL), false};
    g_autoptr(GString) four = g_string_new(NULL), six = g_string_new(NULL), text = g_string_new(NULL);
    g_autofree char *table = NULL;

    if (!table_name(group, &table, error) || !split_addresses(addresses, four, six, error) || !read_allow(allow, &allowed, error))
        return false;
    add_table(text, "inet", table, host_hooks, four, six, &allowed, FIREWALL_BRIDGE_TRACKED);
    if (bridge != FIREWALL_BRIDGE_NONE)
        add_table(text, "bridge", table, bridge_hooks, four, six, &allowed, bridge);
    *ret = g_string_free(g_steal_pointer(&text), FALSE);
    return true;
}

/* --- nft ---------------------------------------------------------------------------------- */

typedef struct Answer {
    GString *out, *complaint;
    unsigned lines;
} Answer;

static void take_line(const char *line, bool is_stderr, void *arg)
{
    Answer *answer = arg;

    if (!is_stderr) {
        if (answer->out->len <= LIST_MAX)
            g_string_append_printf(answer->out, "%s\n", line);
    } else if (answer->lines++ < MESSAGE_MAX && strlen(line) < 400) {
        g_string_append_printf(answer->complaint, "%s%s", answer->complaint->len ? "; " : "", line);
    }
}

static bool text_fd(const char *text, int *ret, GError **error)
{
    auto_fd int fd = memfd_create("nft", MFD_CLOEXEC);

    if (fd < 0 || !file_write_full(fd, text, strlen(text), "a ruleset", error))
        return fd < 0 ? fail_errno(error, "make a file in memory") : false;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return fail_errno(error, "rewind a file in memory");
    *ret = g_steal_fd(&fd);
    return true;
}

/* @argv's program reads @text; *ret_exit is its exit status. @ret_out may be NULL. */
static bool run(const char *const *argv, const char *text, char **ret_out, char **ret_complaint, int *ret_exit, GError **error)
{
    Answer answer = {g_string_new(NULL), g_string_new(NULL), 0};
    auto_fd int in = -1;
    ProcessSpec spec = {.argv = argv, .on_line = take_line, .arg = &answer, .timeout = 30};
    bool ok = text_fd(text, &in, error);

    spec.stdin_fd = in;
    ok = ok && process_run(&spec, ret_exit, error);
    if (ok && ret_out)
        *ret_out = g_strdup(answer.out->str);
    if (ok)
        *ret_complaint = g_strdup(answer.complaint->str);
    g_string_free(answer.out, TRUE);
    g_string_free(answer.complaint, TRUE);
    return ok;
}

static bool nft(const char *text, const char *what, GError **error)
{
    static const char *const argv[] = {"nft", "-f", "-", NULL};
    g_autofree char *complaint = NULL;
    int status;

    if (!run(argv, text, NULL, &complaint, &status, error))
        return false;
    return status == 0 || fail(error, "cannot %s: nft says: %s", what, complaint);
}

static bool kernel_takes(const char *text, bool *ret, GError **error)
{
    static const char *const argv[] = {"nft", "-c", "-f", "-", NULL};
    g_autofree char *complaint = NULL;
    int status;

    if (!run(argv, text, NULL, &complaint, &status, error))
        return false;
    *ret = status == 0;
    return true;
}

/* Asked of the kernel each time: a module may come or go, and check must come to the answer that apply came to. */
static bool bridge_support(FirewallBridge *ret, GError **error)
{
    bool tracked, plain;

    if (!kernel_takes("table bridge kiln_probe {\n chain c {\n ct state established accept\n }\n}\n", &tracked, error) ||
        !kernel_takes("table bridge kiln_probe {\n chain c {\n type filter hook forward priority -10; policy accept;\n tcp dport 1 accept\n }\n}\n", &plain,
                      error))
        return false;
    *ret = tracked ? FIREWALL_BRIDGE_TRACKED : plain ? FIREWALL_BRIDGE_STATELESS : FIREWALL_BRIDGE_NONE;
    return true;
}

bool firewall_apply(const char *group, const char *const *allow, const GPtrArray *addresses, GError **error)
{
    g_autofree char *text = NULL, *what = g_strdup_printf("set up the firewall of group '%s'", group);
    FirewallBridge bridge;

    return bridge_support(&bridge, error) && firewall_text(group, allow, addresses, bridge, &text, error) && nft(text, what, error);
}

bool firewall_remove(const char *group, GError **error)
{
    g_autofree char *table = NULL, *inet = NULL, *bridge = NULL, *what = g_strdup_printf("remove the firewall of group '%s'", group);
    bool has_bridge;

    if (!table_name(group, &table, error))
        return false;
    /* "add" first, so that deleting finds something. */
    inet = g_strdup_printf("add table inet %s\ndelete table inet %s\n", table, table);
    bridge = g_strdup_printf("add table bridge %s\ndelete table bridge %s\n", table, table);
    return nft(inet, what, error) && kernel_takes(bridge, &has_bridge, error) && (!has_bridge || nft(bridge, what, error));
}

/* --- comparing ---------------------------------------------------------------------------- */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* One object of a listing as text, without the numbers that the kernel gives; elements of a set in an order of ours. */
static char *object_text(json_t *object)
{
    const char *kind;
    json_t *body;

    json_object_foreach (object, kind, body) {
        json_t *elements = json_object_get(body, "elem"), *element;
        g_autoptr(GPtrArray) sorted = g_ptr_array_new_with_free_func(g_free);
        size_t i;

        (void)json_object_del(body, "handle");
        if (!json_is_array(elements))
            continue;
        json_array_foreach (elements, i, element)
            g_ptr_array_add(sorted, json_canonical(element));
        g_ptr_array_sort(sorted, compare_texts);
        json_object_set_new(body, "elem", json_array());
        for (guint n = 0; n < sorted->len; n++)
            json_array_append_new(json_object_get(body, "elem"), json_string(g_ptr_array_index(sorted, n)));
    }
    return json_canonical(object);
}

/* One line per object, in the order of the listing, which is the order in which rules are tried. */
static bool listing_text(const char *listing, GString *text, GError **error)
{
    g_autoptr(json_t) document = NULL;
    json_t *object;
    size_t i;

    if (!json_parse(listing, strlen(listing), LIST_MAX, "nft's list", &document, error))
        return false;
    json_array_foreach (json_object_get(document, "nftables"), i, object) {
        g_autofree char *line = json_object_get(object, "metainfo") ? NULL : object_text(object);

        if (line)
            g_string_append_printf(text, "%s\n", line);
    }
    return true;
}

/* *ret is NULL where a table is not there. */
static bool list_tables(const char *table, FirewallBridge bridge, char **ret, GError **error)
{
    static const char *const families[] = {"inet", "bridge"};
    g_autoptr(GString) text = g_string_new(NULL);

    *ret = NULL;
    for (size_t i = 0; i < (bridge == FIREWALL_BRIDGE_NONE ? 1 : 2); i++) {
        const char *const argv[] = {"nft", "-j", "list", "table", families[i], table, NULL};
        g_autofree char *out = NULL, *complaint = NULL;
        int status;

        if (!run(argv, "", &out, &complaint, &status, error))
            return false;
        if (status != 0)
            return true;
        if (!listing_text(out, text, error))
            return false;
    }
    *ret = g_string_free(g_steal_pointer(&text), FALSE);
    return true;
}

typedef struct Apart {
    const char *table, *text;
    FirewallBridge bridge;
    char *expected;
    GError *error;
} Apart;

/* A network name space belongs to a thread: this one's goes with it, and what it starts begins there. */
static gpointer load_apart(gpointer data)
{
    Apart *apart = data;

    if (unshare(CLONE_NEWNET) < 0)
        fail_errno(&apart->error, "make a network name space");
    else if (nft(apart->text, "load the firewall into an empty network", &apart->error))
        (void)list_tables(apart->table, apart->bridge, &apart->expected, &apart->error);
    return NULL;
}

static bool expected_tables(const char *table, const char *text, FirewallBridge bridge, char **ret, GError **error)
{
    Apart apart = {.table = table, .text = text, .bridge = bridge};

    (void)g_thread_join(g_thread_new("firewall", load_apart, &apart));
    if (apart.error) {
        g_propagate_error(error, apart.error);
        return false;
    }
    *ret = apart.expected;
    return *ret || fail(error, "nft does not list what it loaded");
}

bool firewall_check(const char *group, const char *const *allow, const GPtrArray *addresses, char **ret_problem, GError **error)
{
    g_autofree char *text = NULL, *expected = NULL, *found = NULL, *table = NULL;
    FirewallBridge bridge;

    if (!bridge_support(&bridge, error) || !table_name(group, &table, error) || !firewall_text(group, allow, addresses, bridge, &text, error) ||
        !expected_tables(table, text, bridge, &expected, error) || !list_tables(table, bridge, &found, error))
        return false;
    *ret_problem = NULL;
    if (!found)
        *ret_problem = g_strdup_printf("the firewall of group '%s' is not loaded", group);
    else if (strcmp(expected, found) != 0)
        *ret_problem = g_strdup_printf("the firewall of group '%s' was changed", group);
    return true;
}
