/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashes and name-based UUIDs, over the UTF-8 bytes of a text.
 */
#include "templates/language/functions.h"

#include <string.h>

static Value *hashed(Call *call, GChecksumType type)
{
    g_autofree char *hex = g_compute_checksum_for_string(type, call->args[0]->string, -1);

    return value_string(call->arena, hex);
}

static Value *fn_md5(Call *call)
{
    return hashed(call, G_CHECKSUM_MD5);
}

static Value *fn_sha1(Call *call)
{
    return hashed(call, G_CHECKSUM_SHA1);
}

static Value *fn_sha256(Call *call)
{
    return hashed(call, G_CHECKSUM_SHA256);
}

static Value *fn_sha512(Call *call)
{
    return hashed(call, G_CHECKSUM_SHA512);
}

/* The four well-known name spaces of RFC 4122 differ in one byte. */
static bool name_space(const char *text, guint8 ret[16])
{
    static const guint8 base[16] = { 0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1,
                                     0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8 };
    static const struct {
        const char *name;
        guint8 byte;
    } known[] = { { "dns", 0x10 }, { "url", 0x11 }, { "oid", 0x12 }, { "x500", 0x14 } };
    unsigned n = 0;

    memcpy(ret, base, 16);
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++)
        if (strcmp(text, known[i].name) == 0) {
            ret[3] = known[i].byte;
            return true;
        }
    if (!g_uuid_string_is_valid(text))
        return false;
    for (const char *p = text; *p; p++)
        if (*p != '-') {
            int digit = g_ascii_xdigit_value(*p);

            ret[n / 2] = (guint8)(n % 2 ? ret[n / 2] | digit : digit << 4);
            n++;
        }
    return true;
}

static Value *fn_uuidv5(Call *call)
{
    g_autoptr(GChecksum) checksum = g_checksum_new(G_CHECKSUM_SHA1);
    guint8 space[16], b[20];
    gsize size = sizeof(b);

    if (!name_space(call->args[0]->string, space))
        return call_fail(call, 0, "a name space is dns, url, oid, x500 or a UUID");
    g_checksum_update(checksum, space, sizeof(space));
    g_checksum_update(checksum, (const guchar *)call->args[1]->string, -1);
    g_checksum_get_digest(checksum, b, &size);
    b[6] = (guint8)((b[6] & 0x0f) | 0x50);
    b[8] = (guint8)((b[8] & 0x3f) | 0x80);
    return value_string(call->arena,
                        arena_printf(call->arena, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                                     b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
                                     b[14], b[15]));
}

const Function functions_hash[] = {
    { "md5", "s", fn_md5, 0 },       { "sha1", "s", fn_sha1, 0 },      { "sha256", "s", fn_sha256, 0 },
    { "sha512", "s", fn_sha512, 0 }, { "uuidv5", "ss", fn_uuidv5, 0 }, { 0 },
};
