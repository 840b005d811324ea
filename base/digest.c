/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to libcrypto's hashes. A failing EVP call would mean a broken
 * libcrypto: nothing kiln could publish would be right, so it aborts.
 */
#include "base/digest.h"

#include "base/error.h"
#include "base/scope.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#define READ_SIZE (256 * 1024)

const Digest digest_none;

struct DigestStream {
    EVP_MD_CTX *context;
};

/* Looked up once: EVP_sha256() is fetched anew at every init otherwise, which costs more than hashing 4 KiB. */
static const EVP_MD *sha256(void)
{
    static gsize once;

    if (g_once_init_enter(&once)) {
        EVP_MD *md = EVP_MD_fetch(NULL, "SHA256", NULL);

        g_assert_nonnull(md);
        g_once_init_leave(&once, (gsize)md);
    }
    return (const EVP_MD *)once;
}

static void thread_context_free(gpointer context)
{
    EVP_MD_CTX_free(context);
}

void digest_of(const void *data, size_t size, Digest *ret)
{
    static GPrivate cached = G_PRIVATE_INIT(thread_context_free);
    EVP_MD_CTX *context = g_private_get(&cached);

    if (!context) {
        context = EVP_MD_CTX_new();
        g_assert_nonnull(context);
        g_private_set(&cached, context);
    }
    g_assert_true(EVP_DigestInit_ex(context, sha256(), NULL) == 1);
    g_assert_true(EVP_DigestUpdate(context, data, size) == 1);
    g_assert_true(EVP_DigestFinal_ex(context, ret->bytes, NULL) == 1);
}

void digest_of_string(const char *text, Digest *ret)
{
    digest_of(text, strlen(text), ret);
}

DigestStream *digest_stream_new(void)
{
    DigestStream *stream = g_new0(DigestStream, 1);

    stream->context = EVP_MD_CTX_new();
    g_assert_nonnull(stream->context);
    g_assert_true(EVP_DigestInit_ex(stream->context, sha256(), NULL) == 1);
    return stream;
}

void digest_stream_update(DigestStream *stream, const void *data, size_t size)
{
    g_assert_true(EVP_DigestUpdate(stream->context, data, size) == 1);
}

void digest_stream_final(DigestStream *stream, Digest *ret)
{
    g_assert_true(EVP_DigestFinal_ex(stream->context, ret->bytes, NULL) == 1);
}

void digest_stream_free(DigestStream *stream)
{
    if (!stream)
        return;
    EVP_MD_CTX_free(stream->context);
    g_free(stream);
}

bool digest_of_fd(int fd, Digest *ret, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    g_autofree uint8_t *buf = g_malloc(READ_SIZE);
    off_t offset = 0;

    for (;;) {
        ssize_t got = pread(fd, buf, READ_SIZE, offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(error, "read a file to hash it");
        if (got == 0)
            break;
        digest_stream_update(stream, buf, (size_t)got);
        offset += got;
    }
    digest_stream_final(stream, ret);
    return true;
}

bool digest_of_file(int dirfd, const char *name, Digest *ret, uint64_t *ret_size, GError **error)
{
    auto_fd int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(error, "read '%s'", name);
    if (!S_ISREG(st.st_mode))
        return fail(error, "'%s' is not a regular file", name);
    if (!digest_of_fd(fd, ret, error))
        return fail_prefix(error, "'%s'", name);
    if (ret_size)
        *ret_size = (uint64_t)st.st_size;
    return true;
}

const char *digest_to_hex(const Digest *digest, char hex[DIGEST_HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < DIGEST_SIZE; i++) {
        hex[2 * i] = digits[digest->bytes[i] >> 4];
        hex[2 * i + 1] = digits[digest->bytes[i] & 15];
    }
    hex[2 * DIGEST_SIZE] = '\0';
    return hex;
}

const char *digest_to_oci(const Digest *digest, char oci[DIGEST_OCI_SIZE])
{
    memcpy(oci, "sha256:", 7);
    (void)digest_to_hex(digest, oci + 7);
    return oci;
}

bool digest_parse(const char *text, Digest *ret)
{
    Digest digest;

    if (g_str_has_prefix(text, "sha256:"))
        text += 7;
    if (strnlen(text, 2 * DIGEST_SIZE + 1) != 2 * DIGEST_SIZE)
        return false;
    for (int i = 0; i < DIGEST_SIZE; i++) {
        int high = g_ascii_xdigit_value(text[2 * i]), low = g_ascii_xdigit_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        digest.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *ret = digest;
    return true;
}

guint digest_hash(gconstpointer digest)
{
    guint hash;

    memcpy(&hash, ((const Digest *)digest)->bytes, sizeof(hash));
    return hash;
}

gboolean digest_equal_gfunc(gconstpointer a, gconstpointer b)
{
    return digest_equal(a, b);
}

void digest_uuid5(const char *name, const char *role, uint8_t ret[16])
{
    /* kiln's name space: a random UUID chosen once, c8d43f0e-5a63-4e0a-9a35-2c3d0d5b61a7. */
    static const uint8_t space[16] = {0xc8, 0xd4, 0x3f, 0x0e, 0x5a, 0x63, 0x4e, 0x0a,
                                      0x9a, 0x35, 0x2c, 0x3d, 0x0d, 0x5b, 0x61, 0xa7};
    g_autofree char *text = g_strconcat(name, "/", role, NULL);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t sha1[EVP_MAX_MD_SIZE];

    g_assert_true(context && EVP_DigestInit_ex(context, EVP_sha1(), NULL) == 1);
    g_assert_true(EVP_DigestUpdate(context, space, sizeof(space)) == 1);
    g_assert_true(EVP_DigestUpdate(context, text, strlen(text)) == 1);
    g_assert_true(EVP_DigestFinal_ex(context, sha1, NULL) == 1);
    EVP_MD_CTX_free(context);
    memcpy(ret, sha1, 16);
    ret[6] = (ret[6] & 0x0f) | 0x50; /* version 5 */
    ret[8] = (ret[8] & 0x3f) | 0x80; /* variant of RFC 4122 */
}

void digest_uuid_text(const uint8_t u[16], char ret[DIGEST_UUID_SIZE])
{
    (void)g_snprintf(ret, DIGEST_UUID_SIZE, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4],
                     u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}
