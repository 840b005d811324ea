/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of OpenSSL's EVP. A build of it may lack old algorithms (FIPS): that is an error that names the type.
 */
#include "base/checksum.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <openssl/evp.h>

#define PIECE (1u << 20)

const char *const checksum_types[] = {"md5", "sha1", "sha224", "sha256", "sha384", "sha512", NULL};

struct ChecksumStream {
    EVP_MD_CTX *context;
};

static bool not_computed(GError **error)
{
    return fail(error, "OpenSSL does not compute a checksum");
}

bool checksum_stream_new(const char *type, ChecksumStream **ret, GError **error)
{
    const EVP_MD *algorithm = EVP_get_digestbyname(type);
    g_autoptr(ChecksumStream) stream = g_new0(ChecksumStream, 1);

    stream->context = EVP_MD_CTX_new();
    g_assert(stream->context);
    if (!algorithm || !EVP_DigestInit_ex(stream->context, algorithm, NULL))
        return fail(error, "this machine's OpenSSL has no %s", type);
    *ret = g_steal_pointer(&stream);
    return true;
}

bool checksum_stream_update(ChecksumStream *stream, const void *data, size_t size, GError **error)
{
    return EVP_DigestUpdate(stream->context, data, size) || not_computed(error);
}

static char *hex_of(const uint8_t *bytes, unsigned size)
{
    GString *hex = g_string_sized_new(2 * size + 1);

    for (unsigned i = 0; i < size; i++)
        g_string_append_printf(hex, "%02x", bytes[i]);
    return g_string_free(hex, FALSE);
}

bool checksum_stream_final(ChecksumStream *stream, char **ret_hex, GError **error)
{
    uint8_t bytes[EVP_MAX_MD_SIZE];
    unsigned size = 0;

    if (!EVP_DigestFinal_ex(stream->context, bytes, &size))
        return not_computed(error);
    *ret_hex = hex_of(bytes, size);
    return true;
}

void checksum_stream_free(ChecksumStream *stream)
{
    if (!stream)
        return;
    EVP_MD_CTX_free(stream->context);
    g_free(stream);
}

bool checksum_of_fd(int fd, const char *type, char **ret_hex, GError **error)
{
    g_autoptr(ChecksumStream) stream = NULL;
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    size_t n;

    if (!checksum_stream_new(type, &stream, error))
        return false;
    do {
        if (!interrupt_check(error) || !file_read_upto(fd, buffer, PIECE, &n, "file", error) || !checksum_stream_update(stream, buffer, n, error))
            return false;
    } while (n > 0);
    return checksum_stream_final(stream, ret_hex, error);
}
