/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets as a guest sends them, whole and broken, and what is said of them.
 */
#include "baker/guest-network.h"

#include <string.h>

static void put16(GByteArray *a, unsigned v)
{
    const guint8 bytes[] = {(guint8)(v >> 8), (guint8)v};

    g_byte_array_append(a, bytes, 2);
}

static void put_packet(GByteArray *file, const GByteArray *packet)
{
    guint32 header[4] = {0, 0, packet->len, packet->len};

    g_byte_array_append(file, (const guint8 *)header, sizeof header);
    g_byte_array_append(file, packet->data, packet->len);
}

static GByteArray *ip_packet(unsigned protocol, const guint8 *from, const guint8 *to)
{
    GByteArray *p = g_byte_array_new();
    const guint8 ethernet[12] = {0}, version[] = {0x45, 0}, ttl[] = {64, (guint8)protocol};

    g_byte_array_append(p, ethernet, 12);
    put16(p, 0x0800);
    g_byte_array_append(p, version, 2);
    put16(p, 40);
    put16(p, 1);
    put16(p, 0x4000);
    g_byte_array_append(p, ttl, 2);
    put16(p, 0);
    g_byte_array_append(p, from, 4);
    g_byte_array_append(p, to, 4);
    return p;
}

static const guint8 guest_address[] = {169, 254, 2, 15}, resolver[] = {169, 254, 2, 3}, outside[] = {192, 0, 2, 7};

static void add_tcp(GByteArray *file, const guint8 *to, unsigned port, unsigned flags)
{
    g_autoptr(GByteArray) p = ip_packet(6, guest_address, to);
    const guint8 rest[8] = {0}, bits[] = {0x50, (guint8)flags, 0, 0, 0, 0, 0, 0};

    put16(p, 40000);
    put16(p, port);
    g_byte_array_append(p, rest, 8);
    g_byte_array_append(p, bits, 8);
    put_packet(file, p);
}

static void add_dns(GByteArray *file, bool answer)
{
    g_autoptr(GByteArray) p = ip_packet(17, answer ? resolver : guest_address, answer ? guest_address : resolver);
    static const guint8 name[] = "\3deb\6debian\3org";
    const guint8 record[] = {0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7};

    put16(p, answer ? 53 : 5353);
    put16(p, answer ? 5353 : 53);
    put16(p, 0);
    put16(p, 0);
    put16(p, 7);
    put16(p, answer ? 0x8180 : 0x0100);
    put16(p, 1);
    put16(p, answer);
    put16(p, 0);
    put16(p, 0);
    g_byte_array_append(p, name, sizeof name);
    put16(p, 1);
    put16(p, 1);
    if (answer)
        g_byte_array_append(p, record, sizeof record);
    put_packet(file, p);
}

static void assert_reached(GByteArray *file, const char *expected)
{
    g_autoptr(GPtrArray) list = guest_network_parse(file->data, file->len);
    g_autoptr(GString) text = g_string_new(NULL);

    for (guint i = 0; i < list->len; i++)
        g_string_append_printf(text, "%s%s", i ? "; " : "", (char *)list->pdata[i]);
    g_assert_cmpstr(text->str, ==, expected);
}

static void test_names_and_ports(void)
{
    g_autoptr(GByteArray) file = g_byte_array_new();

    add_dns(file, false);
    add_dns(file, true);
    add_tcp(file, outside, 80, 0x02);
    add_tcp(file, outside, 80, 0x10);
    assert_reached(file, "deb.debian.org:80; name deb.debian.org");
}

static void test_an_address_without_a_name(void)
{
    g_autoptr(GByteArray) file = g_byte_array_new();

    add_tcp(file, outside, 443, 0x02);
    assert_reached(file, "192.0.2.7:443");
}

static void test_nothing_inside_counts(void)
{
    g_autoptr(GByteArray) file = g_byte_array_new();

    add_tcp(file, resolver, 9, 0x02);
    add_tcp(file, outside, 80, 0x12); /* an answer, not a question */
    assert_reached(file, "");
}

/* Services of this machine answer at qemu's router. */
static void test_the_host(void)
{
    static const guint8 router[] = {169, 254, 2, 2};
    g_autoptr(GByteArray) file = g_byte_array_new();

    add_tcp(file, router, 8080, 0x02);
    assert_reached(file, "host:8080");
}

/* Each length of each packet, cut anywhere: no byte behind the end is looked at (valgrind and ASan watch). */
static void test_cut_packets(void)
{
    g_autoptr(GByteArray) file = g_byte_array_new();

    add_dns(file, true);
    for (guint size = 0; size <= file->len; size++) {
        g_autofree guint8 *copy = g_memdup2(file->data, size);
        g_autoptr(GPtrArray) list = guest_network_parse(copy, size);

        g_assert_cmpuint(list->len, ==, 0);
        if (size > 16) { /* the same with a length that fits */
            guint32 kept = size - 16;

            memcpy(copy + 8, &kept, sizeof kept);
            g_ptr_array_unref(guest_network_parse(copy, size));
        }
    }
}

static void test_noise(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    guint8 data[600];

    for (unsigned round = 0; round < 20000; round++) {
        guint32 kept = (guint32)g_rand_int_range(rand, 0, 257);

        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (guint8)g_rand_int(rand);
        memcpy(data + 8, &kept, sizeof kept);
        memcpy(data + 16 + 12, "\x08\x00\x45", 3);
        g_ptr_array_unref(guest_network_parse(data, (size_t)g_rand_int_range(rand, 0, sizeof data)));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-network/names-and-ports", test_names_and_ports);
    g_test_add_func("/guest-network/an-address-without-a-name", test_an_address_without_a_name);
    g_test_add_func("/guest-network/nothing-inside-counts", test_nothing_inside_counts);
    g_test_add_func("/guest-network/services-of-the-host-count", test_the_host);
    g_test_add_func("/guest-network/cut-packets", test_cut_packets);
    g_test_add_func("/guest-network/noise", test_noise);
    return g_test_run();
}
