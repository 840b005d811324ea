/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-512 through OpenSSL's EVP. As in digest.c, a failing EVP call means a broken libcrypto, and ends the program.
 */
#include "base/digest-wide.h"

#include "base/error.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <unistd.h>

#define READ_SIZE (256 * 1024)
#define WIDE_SIZE 64

struct DigestWideStream {
    EVP_MD_CTX *context;
};

DigestWideStream *digest_wide_stream_new(void)
{
    DigestWideStream *stream = g_new0(DigestWideStream, 1);

    stream->context = EVP_MD_CTX_new();
    g_assert_nonnull(stream->context);
    g_assert_true(EVP_DigestInit_ex(stream->context, EVP_sha512(), NULL) == 1);
    return stream;
}

void digest_wide_stream_update(DigestWideStream *stream, const void *data, size_t size)
{
    g_assert_true(EVP_DigestUpdate(stream->context, data, size) == 1);
}

void digest_wide_stream_final(DigestWideStream *stream, char ret[DIGEST_WIDE_HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[WIDE_SIZE];

    g_assert_true(EVP_DigestFinal_ex(stream->context, bytes, NULL) == 1);
    for (size_t i = 0; i < WIDE_SIZE; i++) {
        ret[2 * i] = digits[bytes[i] >> 4];
        ret[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret[2 * WIDE_SIZE] = '\0';
}

void digest_wide_stream_free(DigestWideStream *stream)
{
    if (!stream)
        return;
    EVP_MD_CTX_free(stream->context);
    g_free(stream);
}

bool digest_wide_of_fd(int fd, char ret[DIGEST_WIDE_HEX_SIZE], GError **error)
{
    g_autoptr(DigestWideStream) stream = digest_wide_stream_new();
    g_autofree uint8_t *buffer = g_malloc(READ_SIZE);
    off_t at = 0;
    ssize_t n;

    while ((n = pread(fd, buffer, READ_SIZE, at)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(error, "read a file to hash it");
        digest_wide_stream_update(stream, buffer, (size_t)n);
        at += n;
    }
    digest_wide_stream_final(stream, ret);
    return true;
}
