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

static bool add_file(EVP_MD_CTX *context, int fd, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    size_t n;

    do {
        if (!interrupt_check(error) || !file_read_upto(fd, buffer, PIECE, &n, "file", error))
            return false;
        if (!EVP_DigestUpdate(context, buffer, n))
            return fail(error, "OpenSSL does not compute a checksum");
    } while (n > 0);
    return true;
}

static char *hex_of(const uint8_t *bytes, unsigned size)
{
    GString *hex = g_string_sized_new(2 * size + 1);

    for (unsigned i = 0; i < size; i++)
        g_string_append_printf(hex, "%02x", bytes[i]);
    return g_string_free(hex, FALSE);
}

bool checksum_of_fd(int fd, const char *type, char **ret_hex, GError **error)
{
    const EVP_MD *algorithm = EVP_get_digestbyname(type);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t bytes[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    bool ok;

    g_assert(context);
    if (!algorithm || !EVP_DigestInit_ex(context, algorithm, NULL))
        ok = fail(error, "this machine's OpenSSL has no %s", type);
    else
        ok = add_file(context, fd, error) &&
             (EVP_DigestFinal_ex(context, bytes, &size) || fail(error, "OpenSSL does not compute a checksum"));
    EVP_MD_CTX_free(context);
    if (ok)
        *ret_hex = hex_of(bytes, size);
    return ok;
}
