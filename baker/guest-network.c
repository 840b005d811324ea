/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP on one side, pcap on the other.
 *
 * The packets are the guest's own and hostile: every length is checked against what is there, names may hold
 * only what names hold, and the list has an end.
 */
#include "baker/guest-network.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/scope.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CARD "kilncard"
#define ANSWER_LIMIT_MS 20000
#define ANSWER_MAX (64 * 1024)
#define PCAP_HEADER 24
#define PACKET_HEADER 16
#define PACKET_KEPT 256
#define PARSE_MAX ((size_t)256 << 20)
#define REACHED_MAX 256
#define NAMES_MAX 4096

struct GuestNetwork {
    char *qmp_path, *record_path;
    int qmp, record;
    GString *pending; /* bytes of QMP that are no whole line yet */
    off_t from;       /* of the record: where this step's packets start */
};

GuestNetwork *guest_network_new(const char *folder)
{
    GuestNetwork *network = g_new0(GuestNetwork, 1);

    network->qmp_path = g_build_filename(folder, "qmp", NULL);
    network->record_path = g_build_filename(folder, "packets", NULL);
    network->qmp = network->record = -1;
    network->pending = g_string_new(NULL);
    return network;
}

void guest_network_free(GuestNetwork *network)
{
    if (!network)
        return;
    scope_close_fd(&network->qmp);
    scope_close_fd(&network->record);
    g_free(network->qmp_path);
    g_free(network->record_path);
    g_string_free(network->pending, TRUE);
    g_free(network);
}

/* A comma in a name would end it; qemu wants it doubled. */
static char *for_qemu(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, ",", -1);

    return g_strjoinv(",,", parts);
}

char **guest_network_arguments(const GuestNetwork *network)
{
    g_autofree char *qmp = for_qemu(network->qmp_path), *record = for_qemu(network->record_path);
    GStrvBuilder *builder = g_strv_builder_new();
    g_autofree char *socket_text = g_strdup_printf("unix:%s,server=on,wait=off", qmp),
                    *dump = g_strdup_printf("filter-dump,id=kilndump,netdev=kilnnet,file=%s,maxlen=%d", record, PACKET_KEPT);
    char **ret;

    g_strv_builder_add_many(builder, "-netdev", "user,id=kilnnet,net=169.254.0.0/16,ipv6=off", "-device",
                            "virtio-net-pci,id=" CARD ",netdev=kilnnet,romfile=", "-object", dump, "-qmp", socket_text, NULL);
    ret = g_strv_builder_end(builder);
    g_strv_builder_unref(builder);
    return ret;
}

/* ---- QMP ---- */

static bool read_line(GuestNetwork *network, char **ret, GError **error)
{
    gint64 until = g_get_monotonic_time() + ANSWER_LIMIT_MS * 1000;
    char *newline;

    while (!(newline = strchr(network->pending->str, '\n'))) {
        struct pollfd poller = {network->qmp, POLLIN, 0};
        char buf[4096];
        ssize_t got;

        if (network->pending->len > ANSWER_MAX || g_get_monotonic_time() > until)
            return fail(error, "qemu does not answer about the network card");
        if (poll(&poller, 1, 1000) <= 0)
            continue;
        got = read(network->qmp, buf, sizeof buf);
        if (got <= 0)
            return fail(error, "qemu closed its control socket");
        g_string_append_len(network->pending, buf, got);
    }
    *ret = g_strndup(network->pending->str, (gsize)(newline - network->pending->str));
    g_string_erase(network->pending, 0, newline - network->pending->str + 1);
    return true;
}

/* Events may come before the answer. */
static bool wait_answer(GuestNetwork *network, GError **error)
{
    for (;;) {
        g_autofree char *line = NULL;
        g_autoptr(json_t) answer = NULL;

        if (!read_line(network, &line, error) || !json_parse(line, strlen(line), ANSWER_MAX, "qemu's answer", &answer, error))
            return false;
        if (json_object_get(answer, "error"))
            return fail(error, "qemu refuses to switch the network card: %s",
                        json_string_value(json_object_get(json_object_get(answer, "error"), "desc")));
        if (json_object_get(answer, "return") || json_object_get(answer, "QMP"))
            return true;
    }
}

static bool ask(GuestNetwork *network, const char *question, GError **error)
{
    if (!file_write_full(network->qmp, question, strlen(question), "qemu's control socket", error))
        return false;
    return wait_answer(network, error);
}

static bool set_link(GuestNetwork *network, bool up, GError **error)
{
    return ask(network, up ? "{\"execute\":\"set_link\",\"arguments\":{\"name\":\"" CARD "\",\"up\":true}}\n"
                           : "{\"execute\":\"set_link\",\"arguments\":{\"name\":\"" CARD "\",\"up\":false}}\n", error);
}

bool guest_network_connect(GuestNetwork *network, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(network->qmp_path) >= sizeof address.sun_path)
        return fail(error, "the name '%s' is too long for a socket", network->qmp_path);
    g_strlcpy(address.sun_path, network->qmp_path, sizeof address.sun_path);
    network->qmp = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (network->qmp < 0 || connect(network->qmp, (struct sockaddr *)&address, sizeof address) < 0)
        return fail_errno(error, "connect to qemu's control socket");
    network->record = open(network->record_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (network->record < 0)
        return fail_errno(error, "open the record of the guest's packets");
    (void)unlink(network->qmp_path); /* nobody else shall connect */
    (void)unlink(network->record_path);
    return wait_answer(network, error) && ask(network, "{\"execute\":\"qmp_capabilities\"}\n", error) && set_link(network, false, error);
}

bool guest_network_up(GuestNetwork *network, GError **error)
{
    struct stat st;

    if (fstat(network->record, &st) < 0)
        return fail_errno(error, "look at the record of the guest's packets");
    network->from = MAX(st.st_size, PCAP_HEADER);
    return set_link(network, true, error);
}

bool guest_network_down(GuestNetwork *network, GPtrArray **ret_reached, GError **error)
{
    g_autofree guint8 *data = NULL;
    struct stat st;
    size_t size;

    if (!set_link(network, false, error))
        return false;
    if (fstat(network->record, &st) < 0)
        return fail_errno(error, "look at the record of the guest's packets");
    size = st.st_size > network->from ? MIN((size_t)(st.st_size - network->from), PARSE_MAX) : 0;
    data = g_malloc(size + 1);
    if (size > 0 && !file_pread_full(network->record, data, size, (uint64_t)network->from, "the record of the guest's packets", error))
        return false;
    *ret_reached = guest_network_parse(data, size);
    /* qemu goes on at its own place, so what was read becomes a hole. */
    (void)fallocate(network->record, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size);
    return true;
}

/* ---- packets ---- */

typedef struct Parse {
    GHashTable *names;   /* address text -> name that was asked for */
    GHashTable *reached; /* set of texts */
} Parse;

static guint16 get16(const guint8 *p)
{
    return (guint16)(p[0] << 8 | p[1]);
}

static char *address_text(const guint8 *p)
{
    return g_strdup_printf("%u.%u.%u.%u", p[0], p[1], p[2], p[3]);
}

/* The name at @at, without compression (a question has none); *ret_end is behind it. NULL: none. */
static char *question_name(const guint8 *dns, size_t size, size_t at, size_t *ret_end)
{
    g_autoptr(GString) name = g_string_new(NULL);

    while (at < size && dns[at] != 0) {
        size_t label = dns[at];

        if (label > 63 || label > size - at - 1 || name->len + label > 253)
            return NULL;
        if (name->len)
            g_string_append_c(name, '.');
        for (size_t i = 0; i < label; i++) {
            char c = (char)dns[at + 1 + i];

            g_string_append_c(name, g_ascii_isalnum(c) || c == '-' || c == '_' ? g_ascii_tolower(c) : '?');
        }
        at += 1 + label;
    }
    if (at >= size)
        return NULL;
    *ret_end = at + 1;
    return name->len ? g_string_free(g_steal_pointer(&name), FALSE) : NULL;
}

/* Behind a name that may be compressed; 0: it does not end. */
static size_t skip_name(const guint8 *dns, size_t size, size_t at)
{
    while (at < size) {
        if ((dns[at] & 0xC0) == 0xC0)
            return at + 2;
        if (dns[at] == 0)
            return at + 1;
        at += 1 + (size_t)dns[at];
    }
    return 0;
}

/* Addresses in an answer are remembered under the name that was asked for, whatever aliases led there. */
static void take_answer(Parse *parse, const guint8 *dns, size_t size)
{
    size_t at = 0;
    g_autofree char *name = size > 12 && get16(dns + 4) == 1 ? question_name(dns, size, 12, &at) : NULL;
    unsigned answers = size > 12 ? get16(dns + 6) : 0;

    at += 4;
    for (unsigned i = 0; name && i < answers; i++) {
        size_t length;

        at = skip_name(dns, size, at);
        if (at == 0 || at + 10 > size)
            return;
        length = get16(dns + at + 8);
        if (get16(dns + at) == 1 && length == 4 && at + 14 <= size && g_hash_table_size(parse->names) < NAMES_MAX)
            g_hash_table_insert(parse->names, address_text(dns + at + 10), g_strdup(name));
        at += 10 + length;
    }
}

/* qemu's router stands for this machine, whose services answer there; the rest of its network is the guest itself. */
static bool is_router(const guint8 *address)
{
    return address[0] == 169 && address[1] == 254 && address[2] == 2 && address[3] == 2;
}

static bool is_outside(const guint8 *address)
{
    return is_router(address) || (address[0] < 224 && !(address[0] == 169 && address[1] == 254));
}

static void add_reached(Parse *parse, const char *prefix, const guint8 *address, unsigned port)
{
    g_autofree char *ip = address_text(address);
    const char *name = is_router(address) ? "host" : g_hash_table_lookup(parse->names, ip);

    if (g_hash_table_size(parse->reached) >= REACHED_MAX)
        return;
    g_hash_table_add(parse->reached, port ? g_strdup_printf("%s%s:%u", prefix, name ? name : ip, port)
                                          : g_strdup_printf("%s%s", prefix, name ? name : ip));
}

/* Questions that no connection follows count, too: their answer may have changed the result. */
static void take_question(Parse *parse, const guint8 *address, const guint8 *dns, size_t size)
{
    size_t end;
    g_autofree char *name = size > 12 ? question_name(dns, size, 12, &end) : NULL;

    if (name && g_hash_table_size(parse->reached) < REACHED_MAX)
        g_hash_table_add(parse->reached, g_strconcat("name ", name, NULL));
    else if (is_outside(address)) /* port 53 and no question: something else that talks there */
        add_reached(parse, "udp ", address, 53);
}

static void take_udp(Parse *parse, const guint8 *ip, const guint8 *udp, size_t size)
{
    unsigned from, to;

    if (size < 8)
        return;
    from = get16(udp);
    to = get16(udp + 2);
    if (from == 53)
        take_answer(parse, udp + 8, size - 8);
    else if (to == 53)
        take_question(parse, ip + 16, udp + 8, size - 8);
    else if (is_outside(ip + 16))
        add_reached(parse, "udp ", ip + 16, to);
}

static void take_packet(Parse *parse, const guint8 *data, size_t size)
{
    const guint8 *ip = data + 14;
    size_t header;

    if (size < 14 + 20 || get16(data + 12) != 0x0800 || ip[0] >> 4 != 4)
        return;
    header = (size_t)(ip[0] & 15) * 4;
    size -= 14;
    if (header < 20 || header > size || (get16(ip + 6) & 0x1FFF))
        return; /* a fragment: its first part was seen */
    if (ip[9] == 17)
        take_udp(parse, ip, ip + header, size - header);
    else if (ip[9] == 6 && size - header >= 14 && (ip[header + 13] & 0x12) == 0x02 && is_outside(ip + 16))
        add_reached(parse, "", ip + 16, get16(ip + header + 2));
    else if (ip[9] != 6 && is_outside(ip + 16))
        add_reached(parse, ip[9] == 1 ? "icmp " : "ip ", ip + 16, 0);
}

static gint compare_texts(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

GPtrArray *guest_network_parse(const guint8 *data, size_t size)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
    Parse parse = {.names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free),
                   .reached = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};
    GHashTableIter iter;
    gpointer text;

    while (size >= PACKET_HEADER) {
        guint32 kept;

        memcpy(&kept, data + 8, sizeof kept); /* the file has the host's byte order */
        if (kept > PACKET_KEPT || kept > size - PACKET_HEADER)
            break;
        take_packet(&parse, data + PACKET_HEADER, kept);
        data += PACKET_HEADER + kept;
        size -= PACKET_HEADER + kept;
    }
    g_hash_table_iter_init(&iter, parse.reached);
    while (g_hash_table_iter_next(&iter, &text, NULL))
        g_ptr_array_add(list, g_strdup(text));
    g_ptr_array_sort(list, compare_texts);
    g_hash_table_unref(parse.names);
    g_hash_table_unref(parse.reached);
    return list;
}
