/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bcrypt(), rsadecrypt(), uuidv4(): the doors to libcrypt and, for RSA, to libcrypto.
 *
 * In Packer bcrypt's salt and uuidv4 are random. Here the same template must give the same bytes, so the salt comes from the
 * password and the UUID from the place of the call and SOURCE_DATE_EPOCH. Who needs real chance passes it in as a variable.
 */
#include "templates/language/functions.h"

#include <crypt.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

enum { SEED_SIZE = 32, KEY_MAX = 65536 };

static void seed_of(const char *purpose, const char *text, guint8 ret[SEED_SIZE])
{
    g_autoptr(GChecksum) checksum = g_checksum_new(G_CHECKSUM_SHA256);
    gsize size = SEED_SIZE;

    g_checksum_update(checksum, (const guchar *)purpose, (gssize)strlen(purpose) + 1);
    g_checksum_update(checksum, (const guchar *)text, -1);
    g_checksum_get_digest(checksum, ret, &size);
}

static Value *fn_bcrypt(Call *call)
{
    g_autofree struct crypt_data *data = g_new0(struct crypt_data, 1);
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    guint8 seed[SEED_SIZE];
    int64_t cost = 10;
    const char *hash;

    if (call->n > 1 && !call_int(call, 1, 4, 16, &cost))
        return NULL;
    if (strlen(call->args[0]->string) > 72)
        return call_fail(call, 0, "bcrypt takes 72 bytes at most");
    seed_of("bcrypt", call->args[0]->string, seed);
    if (!crypt_gensalt_rn("$2a$", (unsigned long)cost, (const char *)seed, 16, setting, sizeof(setting)))
        return call_fail(call, -1, "this machine's libcrypt has no bcrypt");
    hash = crypt_r(call->args[0]->string, setting, data);
    if (!hash || hash[0] == '*')
        return call_fail(call, -1, "this machine's libcrypt has no bcrypt");
    return value_string(call->arena, hash);
}

static Value *fn_uuidv4(Call *call)
{
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    Range range = call->expr->range;
    const char *place = arena_printf(call->arena, "%s:%u:%s", range.source ? range.source->name : "", range.start, epoch ? epoch : "");
    guint8 b[SEED_SIZE];

    seed_of("uuidv4", place, b);
    b[6] = (guint8)((b[6] & 0x0f) | 0x40);
    b[8] = (guint8)((b[8] & 0x3f) | 0x80);
    return value_string(call->arena,
                        arena_printf(call->arena, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2],
                                     b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]));
}

static EVP_PKEY *read_key(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)strlen(pem));
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;

    BIO_free(bio);
    return key;
}

/* PKCS #1 v1.5. NULL when it does not decrypt. */
static guchar *decrypt(EVP_PKEY *key, const guchar *bytes, size_t size, size_t *ret_size)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
    guchar *plain = g_malloc0(KEY_MAX);
    bool ok;

    *ret_size = KEY_MAX - 1;
    ok = context && EVP_PKEY_decrypt_init(context) > 0 && EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) > 0 &&
         EVP_PKEY_decrypt(context, plain, ret_size, bytes, size) > 0;
    EVP_PKEY_CTX_free(context);
    if (!ok)
        g_clear_pointer(&plain, g_free);
    return plain;
}

static Value *fn_rsadecrypt(Call *call)
{
    g_autofree guchar *bytes = NULL, *plain = NULL;
    gsize size;
    size_t plain_size;
    EVP_PKEY *key;

    if (strlen(call->args[1]->string) > KEY_MAX || !(key = read_key(call->args[1]->string)))
        return call_fail(call, 1, "this is no RSA private key in PEM without a passphrase");
    bytes = g_base64_decode(call->args[0]->string, &size);
    if (EVP_PKEY_base_id(key) == EVP_PKEY_RSA && size > 0)
        plain = decrypt(key, bytes, size, &plain_size);
    EVP_PKEY_free(key);
    return plain ? call_text(call, 0, (const char *)plain, plain_size) : call_fail(call, 0, "the text does not decrypt with this key");
}

const Function functions_secret[] = {
    { "bcrypt", "s|n", fn_bcrypt, 0 },
    { "rsadecrypt", "ss", fn_rsadecrypt, 0 },
    { "uuidv4", "", fn_uuidv4, 0 },
    { 0 },
};
