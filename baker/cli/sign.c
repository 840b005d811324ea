/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln sign and verify-signature: Ed25519 signatures of images and of the logs' newest records.
 */
#include "baker/cli/cli.h"

#include "base/printable.h"

#include <stdio.h>

static json_t *signature_json(const StoreSignature *s)
{
    char digest[DIGEST_OCI_SIZE], key[DIGEST_OCI_SIZE];

    return json_pack("{s:s, s:I, s:s, s:s, s:s, s:I, s:s?}", "log", s->log, "number", (json_int_t)s->entry, "digest",
                     digest_to_oci(&s->digest, digest), "key", digest_to_oci(&s->key, key), "signature", s->signature, "at",
                     (json_int_t)s->at, "who", s->who);
}

/* --- sign --- */

static int generate(CliContext *cli, const char *path, GError **error)
{
    g_autoptr(SignatureKey) key = NULL;
    char oci[DIGEST_OCI_SIZE];
    Digest id;

    if (!signature_generate(path, error) || !signature_load(path, &key, error))
        return cli_fail(cli, *error);
    signature_key_id(key, &id);
    digest_to_oci(&id, oci);
    if (cli->json)
        return cli_print_json(json_pack("{s:o, s:s}", "file", cli_text(path), "key", oci));
    printf("%s %s\n", path, oci);
    return 0;
}

static int sign_heads(CliContext *cli, Store *store, const SignatureKey *key, GError **error)
{
    g_autoptr(GPtrArray) heads = NULL;
    json_t *list;

    if (!store_sign_heads(store, key, &heads, error))
        return cli_fail(cli, *error);
    list = json_array();
    for (guint i = 0; i < heads->len; i++) {
        const StoreSignature *s = heads->pdata[i];
        char oci[DIGEST_OCI_SIZE];

        json_array_append_new(list, signature_json(s));
        if (!cli->json)
            printf("%s %" G_GINT64_FORMAT " %s %s\n", s->log, s->entry, digest_to_oci(&s->digest, oci), s->signature);
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:o}", "heads", list));
    json_decref(list);
    return 0;
}

static int sign_images(CliContext *cli, Store *store, const char *ref, const SignatureKey *key, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    char oci[DIGEST_OCI_SIZE], key_oci[DIGEST_OCI_SIZE];
    json_t *list;
    Digest id;

    if (!store_resolve_set_record(store, ref, &images, error) || !store_sign_images(store, images, key, error))
        return cli_fail(cli, *error);
    signature_key_id(key, &id);
    digest_to_oci(&id, key_oci);
    list = json_array();
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];

        json_array_append_new(list, cli_image_json(image));
        if (!cli->json)
            printf("%s %s %s signed by %s\n", image->name, image->kind, digest_to_oci(&image->id, oci), key_oci);
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:s, s:o}", "key", key_oci, "images", list));
    json_decref(list);
    return 0;
}

int verb_sign(CliContext *cli, int argc, char **argv)
{
    const char *file = NULL, *new_key = NULL;
    bool heads = false;
    const CliOption options[] = {
        {"key", CLI_STRING, &file}, {"generate", CLI_STRING, &new_key}, {"heads", CLI_FLAG, &heads}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Store) store = NULL;
    g_autofree char **refs = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "sign [--key FILE] REF|--heads, or sign --generate FILE", argc, argv, 0, 1, &refs, &error))
        return cli_fail(cli, error);
    if ((new_key != NULL) + heads + (refs[0] != NULL) != 1)
        (void)fail_code(&error, KILN_ERROR_USAGE, "say what to sign: an image, or --heads for the logs; --generate FILE makes a key");
    if (error)
        return cli_fail(cli, error);
    if (new_key)
        return generate(cli, new_key, &error);
    if (!cli_signing_key(file, &key, &error))
        return cli_fail(cli, error);
    if (!key)
        (void)fail_code(&error, KILN_ERROR_USAGE, "there is no key: give --key FILE, or set $KILN_SIGNING_KEY or kiln.conf's signing_key");
    if (error || !cli_open_store(cli, 0, &store, &error))
        return cli_fail(cli, error);
    return heads ? sign_heads(cli, store, key, &error) : sign_images(cli, store, refs[0], key, &error);
}

/* --- verify-signature --- */

/* One good signature is enough; others may be by other keys. *ret is NULL when there is none. */
static bool find_good(GPtrArray *signatures, const SignatureKey *key, const StoreSignature **ret, const StoreImage *image, GError **error)
{
    bool ours = false;
    Digest id;

    signature_key_id(key, &id);
    for (guint i = 0; i < signatures->len; i++) {
        const StoreSignature *s = signatures->pdata[i];

        ours |= digest_equal(&s->key, &id);
        if (store_signature_check(s, key)) {
            *ret = s;
            return true;
        }
    }
    if (ours)
        return fail(error, "the signature of the %s of '%s' is not valid", image->kind, image->name);
    return fail(error, "the %s of '%s' is not signed by this key", image->kind, image->name);
}

static bool verify_image(CliContext *cli, Store *store, const StoreImage *image, const SignatureKey *key, json_t *list, GError **error)
{
    g_autoptr(GPtrArray) signatures = NULL;
    const StoreSignature *good = NULL;
    char oci[DIGEST_OCI_SIZE];

    if (!store_signatures(store, &image->id, &signatures, error) || !find_good(signatures, key, &good, image, error))
        return false;
    json_array_append_new(list, signature_json(good));
    if (!cli->json) {
        g_autofree char *when = cli_time(good->at), *who = printable_line(good->who ? good->who : "somebody");

        printf("%s %s %s signed by %s on %s\n", image->name, image->kind, digest_to_oci(&image->id, oci), who, when);
    }
    return true;
}

int verb_verify_signature(CliContext *cli, int argc, char **argv)
{
    const char *file = NULL;
    const CliOption options[] = {{"key", CLI_STRING, &file}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(json_t) list = json_array();
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(Store) store = NULL;
    g_autofree char **refs = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "verify-signature --key FILE.pub REF", argc, argv, 1, 1, &refs, &error))
        return cli_fail(cli, error);
    if (!file)
        (void)fail_code(&error, KILN_ERROR_USAGE, "verify-signature needs the public key: give --key FILE.pub");
    if (error || !signature_load_public(file, &key, &error) || !cli_open_store(cli, STORE_OPEN_ANYWAY, &store, &error) ||
        !store_resolve_set_record(store, refs[0], &images, &error))
        return cli_fail(cli, error);
    for (guint i = 0; i < images->len; i++)
        if (!verify_image(cli, store, images->pdata[i], key, list, &error))
            return cli_fail(cli, error);
    return cli->json ? cli_print_json(json_pack("{s:O}", "signatures", list)) : 0;
}
