/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group's network: where instances are plugged in, the list that their addresses are taken from, and what may reach them.
 *
 * Addresses are IPv4, in one network, and never that network's own first or last: a mistake here shows as an instance that nobody
 * reaches, minutes after the command, so all of it is looked at when the file is read.
 */
#include "deploy/group-private.h"

#include "base/error.h"

#include <arpa/inet.h>
#include <string.h>

enum { PREFIX_DEFAULT = 24, PREFIX_MIN = 8, PREFIX_MAX = 30, PORT_MAX = 65535 };

/* --- addresses --- */

typedef struct AddressRange {
    uint32_t first, last;
    unsigned prefix; /* 0: not said */
} AddressRange;

static bool parse_ip(const char *text, uint32_t *ret)
{
    struct in_addr address;

    if (inet_pton(AF_INET, text, &address) != 1)
        return false;
    *ret = ntohl(address.s_addr);
    return *ret != 0;
}

static bool parse_prefix(const char *text, unsigned *ret)
{
    if (!g_ascii_isdigit(text[0]) || strlen(text) > 2 || (text[1] && !g_ascii_isdigit(text[1])))
        return false;
    *ret = (unsigned)g_ascii_strtoull(text, NULL, 10);
    return *ret >= PREFIX_MIN && *ret <= PREFIX_MAX;
}

static bool parse_range(const char *text, AddressRange *ret, GError **error)
{
    g_autofree char *copy = g_strndup(text, 64);
    char *slash = strchr(copy, '/'), *dash;

    *ret = (AddressRange){0};
    if (slash) {
        *slash = '\0';
        if (!parse_prefix(slash + 1, &ret->prefix))
            return fail_code(error, KILN_ERROR_USAGE, "the address '%.64s' ends in a prefix length that is not from %d to %d", text, PREFIX_MIN,
                             PREFIX_MAX);
    }
    dash = strchr(copy, '-');
    if (dash)
        *dash = '\0';
    if (!parse_ip(copy, &ret->first) || !parse_ip(dash ? dash + 1 : copy, &ret->last))
        return fail_code(error, KILN_ERROR_USAGE,
                         "'%.64s' is no address: write \"10.0.0.10\" or \"10.0.0.10-10.0.0.20\", with \"/24\" where the prefix length is another one",
                         text);
    if (ret->last < ret->first)
        return fail_code(error, KILN_ERROR_USAGE, "the range '%.64s' ends before it begins", text);
    if (ret->last - ret->first >= GROUP_ADDRESSES_MAX)
        return fail_code(error, KILN_ERROR_USAGE, "the range '%.64s' holds more than %d addresses", text, GROUP_ADDRESSES_MAX);
    return true;
}

static char *ip_text(uint32_t ip)
{
    return g_strdup_printf("%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

static uint32_t mask_of(unsigned prefix)
{
    return ~(uint32_t)0 << (32 - prefix);
}

/* One prefix length for the list: what the entries say, and they say the same. */
static bool common_prefix(char **list, unsigned *ret, int *ret_bad, GError **error)
{
    unsigned prefix = 0;

    for (int i = 0; list[i]; i++) {
        AddressRange range;

        *ret_bad = i;
        if (!parse_range(list[i], &range, error))
            return false;
        if (range.prefix && prefix && range.prefix != prefix)
            return fail_code(error, KILN_ERROR_USAGE, "'%.64s' has another prefix length than /%u before it", list[i], prefix);
        prefix = range.prefix ? range.prefix : prefix;
    }
    *ret = prefix ? prefix : PREFIX_DEFAULT;
    return true;
}

static bool add_range(const AddressRange *range, const char *text, unsigned prefix, uint32_t network, GHashTable *seen, GPtrArray *addresses,
                      GError **error)
{
    for (uint32_t ip = range->first; ip <= range->last; ip++) {
        g_autofree char *shown = ip_text(ip);

        if ((ip & mask_of(prefix)) != network)
            return fail_code(error, KILN_ERROR_USAGE, "'%.64s' leaves the /%u network of the first address", text, prefix);
        if (ip == network || ip == (network | ~mask_of(prefix)))
            return fail_code(error, KILN_ERROR_USAGE, "%s is the %s address of its /%u network", shown, ip == network ? "first" : "last", prefix);
        if (!g_hash_table_add(seen, GUINT_TO_POINTER(ip)))
            return fail_code(error, KILN_ERROR_USAGE, "the address %s is listed twice", shown);
        if (addresses->len >= GROUP_ADDRESSES_MAX)
            return fail_code(error, KILN_ERROR_USAGE, "there are more than %d addresses", GROUP_ADDRESSES_MAX);
        g_ptr_array_add(addresses, g_steal_pointer(&shown));
    }
    return true;
}

static bool expand(char **list, GPtrArray *addresses, unsigned *ret_prefix, int *ret_bad, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    uint32_t network = 0;

    if (!common_prefix(list, ret_prefix, ret_bad, error))
        return false;
    for (int i = 0; list[i]; i++) {
        AddressRange range;

        *ret_bad = i;
        if (!parse_range(list[i], &range, error))
            return false;
        if (i == 0)
            network = range.first & mask_of(*ret_prefix);
        if (!add_range(&range, list[i], *ret_prefix, network, seen, addresses, error))
            return false;
    }
    return true;
}

bool group_addresses(const InstanceShape *shape, GPtrArray **ret, unsigned *ret_prefix_length, GError **error)
{
    g_autoptr(GPtrArray) addresses = g_ptr_array_new_with_free_func(g_free);
    unsigned prefix = 0;
    int bad;

    if (shape->addresses && !expand(shape->addresses, addresses, &prefix, &bad, error))
        return false;
    *ret = g_steal_pointer(&addresses);
    *ret_prefix_length = prefix;
    return true;
}

/* --- the blocks --- */

static bool is_network_name(const char *name, size_t max)
{
    return strlen(name) <= max && name[0] != '.' && name[0] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == strlen(name);
}

static char *read_network_name(const GroupPart *part, const char *argument, size_t max)
{
    const char *name = part_string(part, argument, NULL);

    if (name && !is_network_name(name, max))
        part_wrong(part, argument, "'%.64s' cannot be a name of a %s", name, max < 16 ? "bridge" : "libvirt network");
    return g_strdup(name);
}

static void check_gateway(const GroupPart *part, GPtrArray *addresses, unsigned prefix)
{
    const InstanceShape *shape = &part->reader->spec->shape;
    uint32_t gateway, first;

    if (!parse_ip(shape->gateway, &gateway))
        part_wrong(part, "gateway", "'%.64s' is no address", shape->gateway);
    else if (!shape->addresses)
        part_wrong(part, "gateway", "a gateway is told to instances with fixed addresses: list `addresses`, or leave it to DHCP");
    else if (g_ptr_array_find_with_equal_func(addresses, shape->gateway, g_str_equal, NULL))
        part_wrong(part, "gateway", "%s is listed as an instance's address, too", shape->gateway);
    else if (addresses->len > 0 && parse_ip(addresses->pdata[0], &first) && (first & mask_of(prefix)) != (gateway & mask_of(prefix)))
        part_wrong(part, "gateway", "%s is not in the /%u network of the addresses", shape->gateway, prefix);
}

void group_read_network(const GroupPart *group)
{
    static const char *const known[] = {"bridge", "libvirt_network", "addresses", "gateway", NULL};
    InstanceShape *shape = &group->reader->spec->shape;
    g_autoptr(GPtrArray) addresses = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) problem = NULL;
    GroupPart part;
    unsigned prefix = PREFIX_DEFAULT;
    int bad = 0;

    part_block(group, "network", false, &part);
    part_only(&part, known);
    shape->bridge = read_network_name(&part, "bridge", 15);
    shape->libvirt_network = read_network_name(&part, "libvirt_network", 64);
    if (shape->bridge && shape->libvirt_network)
        part_wrong(&part, "libvirt_network", "instances are plugged into a bridge or a libvirt network, not both");
    shape->addresses = part_strings(&part, "addresses");
    if (shape->addresses && !shape->addresses[0])
        part_wrong(&part, "addresses", "the list of addresses is empty; without the argument they come from DHCP");
    if (shape->addresses && !expand(shape->addresses, addresses, &prefix, &bad, &problem)) {
        g_autofree char *place = g_strdup_printf("addresses[%d]", bad);

        part_wrong(&part, place, "%s", problem->message);
    }
    shape->gateway = g_strdup(part_string(&part, "gateway", NULL));
    if (shape->gateway)
        check_gateway(&part, addresses, prefix);
}

void group_check_addresses(const GroupPart *group, unsigned ceiling)
{
    const InstanceShape *shape = &group->reader->spec->shape;
    g_autoptr(GPtrArray) addresses = NULL;
    unsigned prefix;
    GroupPart part;

    if (!shape->addresses || !shape->addresses[0] || !group_addresses(shape, &addresses, &prefix, NULL))
        return; /* none, or told already */
    part_block_at(group, "network", 0, &part);
    if (addresses->len < ceiling)
        part_wrong(&part, "addresses", "there are %u addresses, but while this group is rolled out %u instances may exist: list %u more", addresses->len,
                   ceiling, ceiling - addresses->len);
}

/* --- firewall --- */

static bool parse_ports(const char *text, unsigned *ret_first, unsigned *ret_last)
{
    char *end;
    uint64_t first, last;

    if (!g_ascii_isdigit(*text) || strlen(text) > 11)
        return false;
    first = last = g_ascii_strtoull(text, &end, 10);
    if (*end == '-' && g_ascii_isdigit(end[1]))
        last = g_ascii_strtoull(end + 1, &end, 10);
    if (*end || first < 1 || last > PORT_MAX || last < first)
        return false;
    *ret_first = (unsigned)first;
    *ret_last = (unsigned)last;
    return true;
}

bool group_allow_parse(const char *entry, char ret_protocol[5], unsigned *ret_first, unsigned *ret_last)
{
    *ret_first = *ret_last = 0;
    if (strcmp(entry, "icmp") != 0 && !g_str_has_prefix(entry, "tcp/") && !g_str_has_prefix(entry, "udp/"))
        return false;
    (void)g_strlcpy(ret_protocol, entry, entry[3] == '/' ? 4 : 5);
    return entry[3] != '/' || parse_ports(entry + 4, ret_first, ret_last);
}

void group_read_firewall(const GroupPart *group)
{
    static const char *const known[] = {"allow", NULL};
    InstanceShape *shape = &group->reader->spec->shape;
    bool reached = false;
    char protocol[5];
    unsigned first, last;
    GroupPart part;

    part_block(group, "firewall", false, &part);
    part_only(&part, known);
    if (!part.object)
        return;
    shape->allow = part_strings(&part, "allow");
    if (!shape->allow)
        shape->allow = g_new0(char *, 1); /* a firewall that lets nothing in */
    for (unsigned i = 0; shape->allow[i]; i++) {
        g_autofree char *place = g_strdup_printf("allow[%u]", i);

        if (!group_allow_parse(shape->allow[i], protocol, &first, &last))
            part_wrong(&part, place, "'%.64s' is no rule: write \"tcp/80\", \"udp/53\", \"tcp/8000-8100\" or \"icmp\"", shape->allow[i]);
        else
            reached = reached || (strcmp(protocol, "tcp") == 0 && first <= shape->port && shape->port <= last);
    }
    if (shape->port && !reached)
        part_wrong(&part, "allow", "port %u, which health and balancer talk to, is not let in: add \"tcp/%u\"", shape->port, shape->port);
}
