/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to libcrypto's signatures.
 */
#include "base/signature.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#define KEY_FILE_MAX 16384

struct SignatureKey {
    EVP_PKEY *pkey;
    bool private;
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC(EVP_PKEY, EVP_PKEY_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EVP_MD_CTX, EVP_MD_CTX_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BIO, BIO_free)

void signature_key_free(SignatureKey *key)
{
    if (!key)
        return;
    EVP_PKEY_free(key->pkey);
    g_free(key);
}

/* --- making --- */

static bool write_bio(const char *path, BIO *bio, mode_t mode, GError **error)
{
    auto_fd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    char *text;
    long size = BIO_get_mem_data(bio, &text);

    if (fd < 0)
        return fail_errno(error, "make '%s'", path);
    if (file_write_full(fd, text, (size_t)size, path, error) && fsync(fd) == 0)
        return true;
    if (error && !*error)
        (void)fail_errno(error, "write '%s'", path);
    (void)unlink(path); /* half a key is none */
    return false;
}

bool signature_generate(const char *path, GError **error)
{
    g_autoptr(EVP_PKEY) pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    g_autoptr(BIO) private = BIO_new(BIO_s_secmem()), public = BIO_new(BIO_s_mem());
    g_autofree char *public_path = g_strconcat(path, ".pub", NULL);

    if (!pkey || !private || !public || PEM_write_bio_PKCS8PrivateKey(private, pkey, NULL, NULL, 0, NULL, NULL) != 1 ||
        PEM_write_bio_PUBKEY(public, pkey) != 1)
        return fail(error, "libcrypto cannot make an Ed25519 key");
    if (!write_bio(path, private, 0600, error))
        return false;
    if (write_bio(public_path, public, 0644, error))
        return true;
    (void)unlink(path); /* a key whose public half nobody has is of no use, and would be in the way of the next try */
    return false;
}

/* --- loading --- */

/* Never asks: kiln also runs where nobody sits. */
static int no_passphrase(char *buffer, int size, int writing, void *arg)
{
    *(bool *)arg = true;
    return -1;
}

static bool read_key_file(const char *path, bool private, GBytes **ret, GError **error)
{
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    g_autofree char *buffer = g_malloc(KEY_FILE_MAX + 1);
    struct stat info;
    size_t size;

    if (fd < 0 || fstat(fd, &info) < 0)
        return fail_errno(error, "open key '%s'", path);
    if (private && (info.st_mode & 077))
        return fail(error, "key '%s' can be read by others than its owner; chmod 600 it, or make another", path);
    if (!file_read_upto(fd, buffer, KEY_FILE_MAX + 1, &size, path, error))
        return false;
    if (size > KEY_FILE_MAX)
        return fail(error, "'%s' is no key: it has more than %d bytes", path, KEY_FILE_MAX);
    *ret = g_bytes_new_take(g_steal_pointer(&buffer), size);
    return true;
}

static bool take_key(const char *path, EVP_PKEY *pkey, bool private, SignatureKey **ret, GError **error)
{
    if (!EVP_PKEY_is_a(pkey, "ED25519")) {
        EVP_PKEY_free(pkey);
        return fail(error, "key '%s' is no Ed25519 key; make one with kiln sign --generate FILE", path);
    }
    *ret = g_new0(SignatureKey, 1);
    (*ret)->pkey = pkey;
    (*ret)->private = private;
    return true;
}

static EVP_PKEY *parse_private(GBytes *bytes, bool *ret_locked)
{
    g_autoptr(BIO) bio = BIO_new_mem_buf(g_bytes_get_data(bytes, NULL), (int)g_bytes_get_size(bytes));

    return bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, ret_locked) : NULL;
}

static EVP_PKEY *parse_public(GBytes *bytes)
{
    g_autoptr(BIO) bio = BIO_new_mem_buf(g_bytes_get_data(bytes, NULL), (int)g_bytes_get_size(bytes));

    return bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
}

bool signature_load(const char *path, SignatureKey **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    bool locked = false;
    EVP_PKEY *pkey;

    if (!read_key_file(path, true, &bytes, error))
        return false;
    pkey = parse_private(bytes, &locked);
    if (locked)
        return fail(error, "key '%s' has a passphrase, and nobody could be asked for it; use one without", path);
    if (!pkey)
        return fail(error, "'%s' is no private key in PEM form; make one with kiln sign --generate FILE", path);
    return take_key(path, pkey, true, ret, error);
}

bool signature_load_public(const char *path, SignatureKey **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    bool locked = false;
    EVP_PKEY *pkey;

    if (!read_key_file(path, false, &bytes, error))
        return false;
    pkey = parse_public(bytes);
    if (!pkey)
        pkey = parse_private(bytes, &locked);
    return pkey ? take_key(path, pkey, false, ret, error) : fail(error, "'%s' is no public key in PEM form", path);
}

/* --- using --- */

void signature_key_id(const SignatureKey *key, Digest *ret)
{
    unsigned char *der = NULL;
    int size = i2d_PUBKEY(key->pkey, &der);

    g_assert_true(size > 0); /* an Ed25519 key always has a public half */
    digest_of(der, (size_t)size, ret);
    OPENSSL_free(der);
}

bool signature_sign(const SignatureKey *key, const void *data, size_t size, uint8_t ret[SIGNATURE_SIZE], GError **error)
{
    g_autoptr(EVP_MD_CTX) context = EVP_MD_CTX_new();
    size_t got = SIGNATURE_SIZE;

    g_assert_true(key->private);
    if (!context || EVP_DigestSignInit(context, NULL, NULL, NULL, key->pkey) != 1 || EVP_DigestSign(context, ret, &got, data, size) != 1 ||
        got != SIGNATURE_SIZE)
        return fail(error, "libcrypto cannot sign with this key");
    return true;
}

bool signature_verify(const SignatureKey *key, const void *data, size_t size, const uint8_t *signature, size_t signature_size)
{
    g_autoptr(EVP_MD_CTX) context = EVP_MD_CTX_new();

    return context && signature_size == SIGNATURE_SIZE && EVP_DigestVerifyInit(context, NULL, NULL, NULL, key->pkey) == 1 &&
           EVP_DigestVerify(context, signature, signature_size, data, size) == 1;
}
