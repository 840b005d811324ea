/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Little-endian numbers and varints in byte buffers. Readers are bounded and never allocate.
 */
#ifndef KILN_STORE_BYTES_H
#define KILN_STORE_BYTES_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline void put_le32(uint8_t *to, uint32_t value)
{
    value = GUINT32_TO_LE(value);
    memcpy(to, &value, 4);
}

static inline void put_le64(uint8_t *to, uint64_t value)
{
    value = GUINT64_TO_LE(value);
    memcpy(to, &value, 8);
}

static inline uint32_t get_le32(const uint8_t *from)
{
    uint32_t value;

    memcpy(&value, from, 4);
    return GUINT32_FROM_LE(value);
}

static inline uint64_t get_le64(const uint8_t *from)
{
    uint64_t value;

    memcpy(&value, from, 8);
    return GUINT64_FROM_LE(value);
}

static inline void append_varint(GByteArray *to, uint64_t value)
{
    uint8_t bytes[10];
    guint n = 0;

    do {
        bytes[n] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
        n++;
    } while (value);
    g_byte_array_append(to, bytes, n);
}

/* Moves *at; false at @end or when the number has more than 64 bits. */
static inline bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;

        if (shift == 63 && byte > 1)
            return false;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return true;
        }
    }
    return false;
}

static inline uint64_t zigzag(int64_t value)
{
    return ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
}

static inline int64_t unzigzag(uint64_t value)
{
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

#endif
