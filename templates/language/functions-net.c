/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses: cidrhost, cidrnetmask, cidrsubnet, cidrsubnets. Both families are one 128-bit number; IPv4 uses its low half.
 */
#include "templates/language/functions.h"

#include <arpa/inet.h>
#include <string.h>

typedef unsigned __int128 Address;

typedef struct Network {
    int family;
    unsigned bits; /* of an address: 32 or 128 */
    unsigned length;
    Address base;
} Network;

static Address low_bits(unsigned n)
{
    return n >= 128 ? ~(Address)0 : ((Address)1 << n) - 1;
}

static bool parse_network(Call *call, size_t arg, Network *ret)
{
    const char *text = call->args[arg]->string;
    const char *slash = strchr(text, '/');
    g_autofree char *address = slash ? g_strndup(text, (gsize)(slash - text)) : NULL;
    unsigned char bytes[16];
    guint64 length;

    ret->family = address && strchr(address, ':') ? AF_INET6 : AF_INET;
    ret->bits = ret->family == AF_INET6 ? 128 : 32;
    if (!address || inet_pton(ret->family, address, bytes) != 1 || !g_ascii_isdigit(slash[1]) ||
        !g_ascii_string_to_unsigned(slash + 1, 10, 0, ret->bits, &length, NULL)) {
        (void)call_fail(call, (int)arg, "'%s' is no network like 10.1.0.0/16", text);
        return false;
    }
    ret->length = (unsigned)length;
    ret->base = 0;
    for (unsigned i = 0; i < ret->bits / 8; i++)
        ret->base = ret->base << 8 | bytes[i];
    ret->base &= ~low_bits(ret->bits - ret->length);
    return true;
}

static char *address_text(int family, unsigned bits, Address address)
{
    unsigned char bytes[16];
    char text[INET6_ADDRSTRLEN];

    for (unsigned i = bits / 8; i > 0; i--, address >>= 8)
        bytes[i - 1] = (unsigned char)address;
    return g_strdup(inet_ntop(family, bytes, text, sizeof(text)));
}

static Value *network_value(Call *call, const Network *of, Address base, unsigned length)
{
    g_autofree char *text = address_text(of->family, of->bits, base);

    return value_string(call->arena, arena_printf(call->arena, "%s/%u", text, length));
}

static Value *fn_cidrhost(Call *call)
{
    g_autofree char *text = NULL;
    Network network;
    Address most, host;
    int64_t number;

    if (!parse_network(call, 0, &network) || !call_int(call, 1, INT64_MIN, INT64_MAX, &number))
        return NULL;
    most = low_bits(network.bits - network.length);
    if (number >= 0 ? (Address)number > most : (Address)(-(number + 1)) > most)
        return call_fail(call, 1, "this network has no host %" G_GINT64_FORMAT, number);
    host = number >= 0 ? (Address)number : most - (Address)(-(number + 1)); /* -1 is the last one */
    text = address_text(network.family, network.bits, network.base + host);
    return value_string(call->arena, text);
}

static Value *fn_cidrnetmask(Call *call)
{
    g_autofree char *text = NULL;
    Network network;

    if (!parse_network(call, 0, &network))
        return NULL;
    text = address_text(network.family, network.bits, low_bits(network.bits) & ~low_bits(network.bits - network.length));
    return value_string(call->arena, text);
}

static bool new_length(Call *call, size_t arg, const Network *network, int64_t least, unsigned *ret)
{
    int64_t more;

    if (!call_int(call, arg, least, 128, &more))
        return false;
    *ret = network->length + (unsigned)more;
    if (*ret <= network->bits)
        return true;
    (void)call_fail(call, (int)arg, "a prefix of %u bits can't be made %d longer, since an address has %u", network->length, (int)more,
                    network->bits);
    return false;
}

static Value *fn_cidrsubnet(Call *call)
{
    Network network;
    unsigned length;
    int64_t number;

    if (!parse_network(call, 0, &network) || !new_length(call, 1, &network, 0, &length) ||
        !call_int(call, 2, 0, INT64_MAX, &number))
        return NULL;
    if ((Address)number > low_bits(length - network.length))
        return call_fail(call, 2, "%u more bits do not hold the number %" G_GINT64_FORMAT, length - network.length, number);
    return network_value(call, &network, length == 0 ? 0 : network.base + ((Address)number << (network.bits - length)), length);
}

/* Each one is put behind the one before it, at the next place its size allows. */
static Value *fn_cidrsubnets(Call *call)
{
    g_autofree Value **items = g_new0(Value *, call->n);
    Address used = 0; /* addresses from the base on */
    Network network;

    if (!parse_network(call, 0, &network))
        return NULL;
    for (size_t i = 1; i < call->n; i++) {
        unsigned length;
        Address size;

        if (!new_length(call, i, &network, 1, &length))
            return NULL;
        size = (Address)1 << (network.bits - length);
        used = (used + size - 1) & ~(size - 1);
        if (used > low_bits(network.bits - network.length) || low_bits(network.bits - network.length) - used < size - 1)
            return call_fail(call, (int)i, "the network has no room for this subnet behind the others");
        items[i - 1] = network_value(call, &network, network.base + used, length);
        used += size;
    }
    return value_list(call->arena, &type_string, items, call->n - 1);
}

const Function functions_net[] = {
    { "cidrhost", "sn", fn_cidrhost, 0 },
    { "cidrnetmask", "s", fn_cidrnetmask, 0 },
    { "cidrsubnet", "snn", fn_cidrsubnet, 0 },
    { "cidrsubnets", "sn*", fn_cidrsubnets, 0 },
    { 0 },
};
