/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: what strangers send to `kiln serve` before it knows them. The first byte says which text it is; what is taken keeps the rules of a
 * repository's name, a tag, a digest or a range.
 */
#include "store/serve-auth.h"
#include "store/serve-target.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void target(const char *text)
{
    g_auto(ServeTarget) target = {.endpoint = SERVE_NOWHERE};
    ServeDigest digest;

    serve_target_parse(text, &target);
    if (target.name)
        must(serve_name_is_valid(target.name) && !strstr(target.name, "..") && *target.name != '/' && !strchr(target.name, '%'));
    if (target.code)
        return;
    if (target.endpoint == SERVE_BLOB || target.endpoint == SERVE_REFERRERS)
        must(target.name && serve_digest_parse(target.reference, &digest));
    if (target.endpoint == SERVE_MANIFEST)
        must(target.name && (serve_tag_is_valid(target.reference) || serve_digest_parse(target.reference, &digest)));
    if (target.endpoint == SERVE_UPLOAD)
        must(target.name && strlen(target.reference) == 32);
    must(target.query->len % 2 == 0 && target.query->len <= 2 * SERVE_QUERY_MAX);
}

static void ranges(const char *text)
{
    static const uint64_t sizes[] = {0, 1, 4096, UINT64_MAX};
    uint64_t first, last;

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++)
        if (serve_range_parse(text, sizes[i], &first, &last) == SERVE_RANGE_PART)
            must(first <= last && last < sizes[i]);
    if (serve_chunk_range_parse(text, &first, &last))
        must(first <= last);
}

static void users(const char *text)
{
    g_autofree char *user = NULL, *password = NULL;
    g_autoptr(GHashTable) table = NULL;

    if (serve_basic_parse(text, &user, &password))
        must(g_utf8_validate(user, -1, NULL) && g_utf8_validate(password, -1, NULL) && !strchr(user, ':'));
    (void)serve_htpasswd_parse(text, "users", &table, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = size ? g_strndup((const char *)data + 1, size - 1) : NULL, *type = NULL, *escaped = NULL;

    if (!size)
        return 0;
    switch (data[0] & 3) {
    case 0:
        target(text);
        break;
    case 1:
        ranges(text);
        break;
    case 2:
        users(text);
        break;
    default:
        type = serve_media_type(text);
        escaped = serve_escape(text);
        must(!strpbrk(escaped, "<>\r\n\" "));
    }
    return 0;
}
