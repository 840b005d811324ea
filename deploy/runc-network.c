/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks through iproute2: the pair's outer end is named by a hash of the label (15 bytes is all that Linux gives), the inner one is
 * eth0 with a hardware address made of the IP address, so that the next instance with this address is the same to everybody's ARP tables.
 */
#include "deploy/runc-network.h"

#include "base/digest.h"
#include "base/error.h"
#include "base/process.h"

#include <arpa/inet.h>
#include <net/if.h>

#define NETNS_DIR "/run/netns"

static void outer_name(const char *label, char ret[16])
{
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    digest_of_string(label, &digest);
    (void)g_snprintf(ret, 16, "kiln%.11s", digest_to_hex(&digest, hex));
}

static bool inner_mac(const char *address, char ret[18], GError **error)
{
    struct in_addr v4;
    struct in6_addr v6;
    uint8_t b[4];

    if (inet_pton(AF_INET, address, &v4) == 1)
        memcpy(b, &v4.s_addr, 4);
    else if (inet_pton(AF_INET6, address, &v6) == 1)
        memcpy(b, v6.s6_addr + 12, 4);
    else
        return fail(error, "'%s' is no IP address", address);
    (void)g_snprintf(ret, 18, "02:6b:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3]);
    return true;
}

static bool ip(GError **error, const char *first, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    va_list args;

    g_ptr_array_add(argv, (gpointer) "ip");
    va_start(args, first);
    for (const char *word = first; word; word = va_arg(args, const char *))
        g_ptr_array_add(argv, (gpointer)word);
    va_end(args);
    g_ptr_array_add(argv, NULL);
    return process_capture((const char *const *)argv->pdata, 65536, NULL, error);
}

static char *netns_name(const char *label)
{
    return g_strconcat("kiln-", label, NULL);
}

bool runc_network_remove(const char *label, GError **error)
{
    g_autofree char *netns = netns_name(label), *path = g_build_filename(NETNS_DIR, netns, NULL);
    char outer[16];

    /* The pair goes with the inner end's name space, too, but some time later, and its name may be wanted again at once. */
    outer_name(label, outer);
    if (if_nametoindex(outer) > 0)
        (void)ip(NULL, "link", "del", outer, NULL);
    return access(path, F_OK) < 0 || ip(error, "netns", "del", netns, NULL);
}

static bool fill(const DriverCreate *create, const char *label, const char *netns, GError **error)
{
    const InstanceShape *shape = create->shape;
    g_autofree char *address = g_strdup_printf("%s/%u", create->address, create->prefix_length);
    bool six = strchr(create->address, ':') != NULL;
    char outer[16], mac[18];

    outer_name(label, outer);
    if (!inner_mac(create->address, mac, error) ||
        !ip(error, "link", "add", outer, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", netns, NULL) ||
        !ip(error, "link", "set", outer, "master", shape->bridge, NULL) || !ip(error, "link", "set", outer, "up", NULL) ||
        !ip(error, "-n", netns, "link", "set", "lo", "up", NULL) ||
        !(six ? ip(error, "-n", netns, "addr", "add", address, "dev", "eth0", "nodad", NULL)
              : ip(error, "-n", netns, "addr", "add", address, "dev", "eth0", NULL)) ||
        !ip(error, "-n", netns, "link", "set", "eth0", "up", NULL))
        return false;
    return !shape->gateway || ip(error, "-n", netns, "route", "add", "default", "via", shape->gateway, NULL);
}

bool runc_network_make(const DriverCreate *create, const char *label, char **ret_path, GError **error)
{
    g_autofree char *netns = netns_name(label);

    if (!runc_network_remove(label, error) || !ip(error, "netns", "add", netns, NULL))
        return fail_prefix(error, "network of '%s'", label);
    if (!fill(create, label, netns, error)) {
        (void)runc_network_remove(label, NULL); /* the first error is the one to tell */
        return fail_prefix(error, "network of '%s' on bridge '%s'", label, create->shape->bridge);
    }
    *ret_path = g_build_filename(NETNS_DIR, netns, NULL);
    return true;
}
