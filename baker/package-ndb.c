/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rpm's "ndb" database (SUSE), as far as to hand its packages to an rpm that was built without it, as Debian's is.
 *
 *     0   "RpmP", version 0, generation, pages of slots (of 4 KiB), next number, 12 bytes     all numbers are 32 bits, little-endian
 *     32  slots of 16 bytes to the end of these pages: "Slot", number of the package, place and length in units of 16 bytes; place 0: free
 *     at a slot's place: "BlbS", number, generation, length of the package's header in bytes, the header
 *
 * `rpmdb --importdb` takes headers one after the other, each with the eight bytes in front that a header has in files.
 */
#include "baker/package-parts.h"

#include <string.h>

#define PAGE 4096u
#define SLOT 16u
#define SLOTS_START 32u
#define SLOT_PAGES_MAX 4096u /* a million packages */
#define HEADER_MAX (64u << 20)

static uint32_t number(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* False where the slot leads to no header. */
static bool take_slot(const uint8_t *data, size_t size, const uint8_t *slot, GByteArray *out)
{
    static const uint8_t magic[] = {0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0};
    uint64_t place = (uint64_t)number(slot + 8) * SLOT;
    const uint8_t *blob = data + place;
    uint32_t length;

    if (memcmp(slot, "Slot", 4) != 0)
        return false;
    if (place == 0)
        return true;
    if (place > size || size - place < SLOT || memcmp(blob, "BlbS", 4) != 0 || memcmp(blob + 4, slot + 4, 4) != 0)
        return false;
    length = number(blob + 12);
    if (length > HEADER_MAX || length > size - place - SLOT || out->len > G_MAXUINT - HEADER_MAX - sizeof magic || out->len > size * 2)
        return false; /* slots that share a blob cannot make more of it than there is */
    g_byte_array_append(out, magic, sizeof magic);
    g_byte_array_append(out, blob + SLOT, length);
    return true;
}

bool package_ndb_headers(const void *database, size_t size, GByteArray **ret)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    const uint8_t *data = database;
    uint32_t pages;

    if (size < PAGE || memcmp(data, "RpmP", 4) != 0 || number(data + 4) != 0)
        return false;
    pages = number(data + 12);
    if (pages == 0 || pages > SLOT_PAGES_MAX || pages > size / PAGE)
        return false;
    for (size_t at = SLOTS_START; at < (size_t)pages * PAGE; at += SLOT)
        if (!take_slot(data, size, data + at, out))
            return false;
    *ret = g_steal_pointer(&out);
    return true;
}
