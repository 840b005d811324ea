/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths are taken apart from their end, because a repository's name may have components such as "blobs". An escape that stands for a slash
 * or for anything that is not printable ASCII is refused: no name, tag or digest has any, so who sends one means something else.
 */
#include "store/serve-target.h"

#include <string.h>

#define TARGET_MAX 65536

/* --- escapes ------------------------------------------------------------------------- */

/* NULL for a malformed escape, NUL and other control characters; in paths also for an escaped slash and all beyond ASCII. */
static char *unescape(const char *text, size_t size, bool query)
{
    g_autoptr(GString) out = g_string_sized_new(size);

    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '+' && query) {
            c = ' ';
        } else if (c == '%') {
            if (i + 2 >= size || !g_ascii_isxdigit(text[i + 1]) || !g_ascii_isxdigit(text[i + 2]))
                return NULL;
            c = (unsigned char)(g_ascii_xdigit_value(text[i + 1]) << 4 | g_ascii_xdigit_value(text[i + 2]));
            i += 2;
            if (c == '/' && !query)
                return NULL;
        }
        if (c < 0x20 || c == 0x7f || (c >= 0x80 && !query))
            return NULL;
        g_string_append_c(out, (char)c);
    }
    return query && !g_utf8_validate(out->str, (gssize)out->len, NULL) ? NULL : g_string_free(g_steal_pointer(&out), FALSE);
}

char *serve_escape(const char *text)
{
    GString *out = g_string_new(NULL);

    for (const char *at = text; *at; at++)
        if (g_ascii_isalnum(*at) || strchr("-._~", *at))
            g_string_append_c(out, *at);
        else
            g_string_append_printf(out, "%%%02X", (unsigned char)*at);
    return g_string_free(out, FALSE);
}

/* --- names, tags, digests -------------------------------------------------------------- */

static bool is_word(char c)
{
    return g_ascii_islower(c) || g_ascii_isdigit(c);
}

/* What may stand between two words of a component: one '.', one or two '_', any number of '-'. */
static size_t separator(const char *at)
{
    if (*at == '.')
        return 1;
    if (*at == '_')
        return at[1] == '_' ? 2 : 1;
    return strspn(at, "-");
}

/* [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/...)* */
bool serve_name_is_valid(const char *name)
{
    const char *at = name;

    if (strlen(name) > SERVE_NAME_MAX)
        return false;
    for (;;) {
        if (!is_word(*at))
            return false;
        while (is_word(*at))
            at++;
        if (!*at)
            return true;
        if (*at == '/') {
            at++;
            continue;
        }
        if (separator(at) == 0)
            return false;
        at += separator(at);
    }
}

/* [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127} */
bool serve_tag_is_valid(const char *tag)
{
    size_t size = strlen(tag);

    if (size == 0 || size > SERVE_TAG_MAX || !(g_ascii_isalnum(*tag) || *tag == '_'))
        return false;
    for (const char *at = tag; *at; at++)
        if (!g_ascii_isalnum(*at) && !strchr("._-", *at))
            return false;
    return true;
}

static bool is_hex(const char *text, size_t size)
{
    return strlen(text) == size && strspn(text, "0123456789abcdef") == size;
}

bool serve_digest_parse(const char *text, ServeDigest *ret)
{
    bool wide = g_str_has_prefix(text, "sha512:");

    if (!(wide ? is_hex(text + 7, 128) : g_str_has_prefix(text, "sha256:") && is_hex(text + 7, 64)))
        return false;
    *ret = (ServeDigest){.wide = wide};
    (void)g_strlcpy(ret->text, text, sizeof ret->text);
    return wide || digest_parse(text, &ret->narrow);
}

/* --- paths --------------------------------------------------------------------------------- */

static void refuse(ServeTarget *target, const char *code, const char *why)
{
    if (!target->code) {
        target->code = code;
        target->why = why;
    }
}

/* The repository's name is parts[1 .. end). */
static void take_name(ServeTarget *target, char **parts, guint end)
{
    g_autoptr(GString) name = g_string_new(NULL);

    for (guint i = 1; i < end; i++)
        g_string_append_printf(name, "%s%s", i > 1 ? "/" : "", parts[i]);
    if (end < 2 || !serve_name_is_valid(name->str))
        refuse(target, "NAME_INVALID", "this is no name that a repository can have");
    else
        target->name = g_string_free(g_steal_pointer(&name), FALSE);
}

static void take_digest(ServeTarget *target, const char *text)
{
    ServeDigest digest;

    target->reference = g_strdup(text);
    if (!serve_digest_parse(text, &digest))
        refuse(target, "DIGEST_INVALID", "a digest is sha256: with 64 or sha512: with 128 lower-case hex digits");
}

static void take_reference(ServeTarget *target, const char *text)
{
    if (strchr(text, ':')) {
        take_digest(target, text);
        return;
    }
    target->reference = g_strdup(text);
    if (!serve_tag_is_valid(text))
        refuse(target, "MANIFEST_INVALID", "a tag has up to 128 letters, digits, '.', '_' and '-', and starts with none of '.' and '-'");
}

static bool is_session(const char *text)
{
    return is_hex(text, 32);
}

/* @parts: "v2", NAME's components, the rest. */
static void take_parts(ServeTarget *target, char **parts, guint count)
{
    const char *last = parts[count - 1], *before = count >= 3 ? parts[count - 2] : "", *third = count >= 4 ? parts[count - 3] : "";

    if (count == 1 || (count == 2 && !*last)) {
        target->endpoint = SERVE_BASE;
    } else if (count == 2 && strcmp(last, "_catalog") == 0) {
        target->endpoint = SERVE_CATALOG;
    } else if (strcmp(before, "tags") == 0 && strcmp(last, "list") == 0) {
        target->endpoint = SERVE_TAGS;
        take_name(target, parts, count - 2);
    } else if (strcmp(third, "blobs") == 0 && strcmp(before, "uploads") == 0) {
        target->endpoint = *last ? SERVE_UPLOAD : SERVE_UPLOADS;
        take_name(target, parts, count - 3);
        target->reference = g_strdup(last);
        if (*last && !is_session(last))
            refuse(target, "BLOB_UPLOAD_UNKNOWN", "there is no such upload");
    } else if (strcmp(before, "blobs") == 0 && strcmp(last, "uploads") == 0) {
        target->endpoint = SERVE_UPLOADS;
        take_name(target, parts, count - 2);
    } else if (strcmp(before, "blobs") == 0) {
        target->endpoint = SERVE_BLOB;
        take_name(target, parts, count - 2);
        take_digest(target, last);
    } else if (strcmp(before, "manifests") == 0) {
        target->endpoint = SERVE_MANIFEST;
        take_name(target, parts, count - 2);
        take_reference(target, last);
    } else if (strcmp(before, "referrers") == 0) {
        target->endpoint = SERVE_REFERRERS;
        take_name(target, parts, count - 2);
        take_digest(target, last);
    }
}

static void take_path(ServeTarget *target, const char *path)
{
    g_auto(GStrv) parts = NULL;
    guint count;

    if (strcmp(path, "/metrics") == 0)
        target->endpoint = SERVE_METRICS;
    else if (strcmp(path, "/healthz") == 0)
        target->endpoint = SERVE_HEALTH;
    else if (strcmp(path, "/readyz") == 0)
        target->endpoint = SERVE_READY;
    if (target->endpoint != SERVE_NOWHERE || *path != '/')
        return;
    parts = g_strsplit(path + 1, "/", -1);
    count = g_strv_length(parts);
    if (count > 0 && strcmp(parts[0], "v2") == 0)
        take_parts(target, parts, count);
}

/* --- queries --------------------------------------------------------------------------------- */

static bool take_pair(ServeTarget *target, const char *pair, size_t size)
{
    const char *equals = memchr(pair, '=', size);
    size_t key_size = equals ? (size_t)(equals - pair) : size;
    g_autofree char *key = unescape(pair, key_size, true);
    g_autofree char *value = equals ? unescape(equals + 1, size - key_size - 1, true) : g_strdup("");

    if (!key || !value || target->query->len >= 2 * SERVE_QUERY_MAX)
        return false;
    g_ptr_array_add(target->query, g_steal_pointer(&key));
    g_ptr_array_add(target->query, g_steal_pointer(&value));
    return true;
}

static void take_query(ServeTarget *target, const char *query)
{
    while (*query) {
        size_t size = strcspn(query, "&");

        if (size && !take_pair(target, query, size)) {
            refuse(target, "UNSUPPORTED", "the query is malformed or too long");
            return;
        }
        query += size;
        query += *query == '&';
    }
}

const char *serve_target_query(const ServeTarget *target, const char *key)
{
    for (guint i = 0; i + 1 < target->query->len; i += 2)
        if (strcmp(target->query->pdata[i], key) == 0)
            return target->query->pdata[i + 1];
    return NULL;
}

/* Clients of proxies, and those who can, say the whole URL. */
static const char *without_authority(const char *raw)
{
    const char *host = g_ascii_strncasecmp(raw, "http://", 7) == 0 ? raw + 7 : g_ascii_strncasecmp(raw, "https://", 8) == 0 ? raw + 8 : NULL;

    return host ? host + strcspn(host, "/?") : raw;
}

void serve_target_parse(const char *raw, ServeTarget *ret)
{
    const char *text = without_authority(raw);
    size_t size = strcspn(text, "?");
    g_autofree char *path = strlen(raw) <= TARGET_MAX ? unescape(text, size, false) : NULL;

    *ret = (ServeTarget){.query = g_ptr_array_new_with_free_func(g_free)};
    if (!path) {
        refuse(ret, "NAME_INVALID", "the path has an escape or a character that no name has");
        return;
    }
    take_path(ret, path);
    if (text[size])
        take_query(ret, text + size + 1);
}

void serve_target_clear(ServeTarget *target)
{
    g_free(target->name);
    g_free(target->reference);
    if (target->query)
        g_ptr_array_unref(target->query);
    *target = (ServeTarget){.endpoint = SERVE_NOWHERE};
}

/* --- headers ---------------------------------------------------------------------------------- */

/* Digits only, as many as there are, at most nineteen; moves @at. */
static bool take_number(const char **at, uint64_t *ret)
{
    uint64_t value = 0;
    const char *p = *at;

    if (!g_ascii_isdigit(*p))
        return false;
    for (; g_ascii_isdigit(*p); p++) {
        if (p - *at >= 19)
            return false;
        value = value * 10 + (uint64_t)(*p - '0');
    }
    *ret = value;
    *at = p;
    return true;
}

static ServeRangeKind suffix_range(const char *at, uint64_t size, uint64_t *ret_first, uint64_t *ret_last)
{
    uint64_t length;

    if (!take_number(&at, &length) || *at)
        return SERVE_RANGE_ALL;
    if (length == 0 || size == 0)
        return SERVE_RANGE_BAD;
    *ret_first = length < size ? size - length : 0;
    *ret_last = size - 1;
    return SERVE_RANGE_PART;
}

ServeRangeKind serve_range_parse(const char *text, uint64_t size, uint64_t *ret_first, uint64_t *ret_last)
{
    uint64_t first, last = UINT64_MAX;
    const char *at = text;

    if (g_ascii_strncasecmp(at, "bytes=", 6) != 0)
        return SERVE_RANGE_ALL;
    at += 6;
    if (*at == '-')
        return suffix_range(at + 1, size, ret_first, ret_last);
    if (!take_number(&at, &first) || *at++ != '-')
        return SERVE_RANGE_ALL;
    if (*at && (!take_number(&at, &last) || *at))
        return SERVE_RANGE_ALL;
    if (last < first || first >= size)
        return SERVE_RANGE_BAD;
    *ret_first = first;
    *ret_last = MIN(last, size - 1);
    return SERVE_RANGE_PART;
}

bool serve_chunk_range_parse(const char *text, uint64_t *ret_first, uint64_t *ret_last)
{
    const char *at = text;
    uint64_t first, last, size;

    if (g_ascii_strncasecmp(at, "bytes ", 6) == 0 || g_ascii_strncasecmp(at, "bytes=", 6) == 0)
        at += 6;
    if (!take_number(&at, &first) || *at++ != '-' || !take_number(&at, &last) || last < first)
        return false;
    if (*at == '/') {
        at++;
        if (strcmp(at, "*") != 0 && (!take_number(&at, &size) || *at || last >= size))
            return false;
    } else if (*at) {
        return false;
    }
    *ret_first = first;
    *ret_last = last;
    return true;
}

static bool is_clean(const char *text, size_t size)
{
    if (!g_utf8_validate(text, (gssize)size, NULL))
        return false;
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return true;
}

bool serve_basic_parse(const char *text, char **ret_user, char **ret_password)
{
    g_autofree guchar *plain = NULL;
    const char *colon;
    gsize size;

    if (g_ascii_strncasecmp(text, "Basic ", 6) != 0)
        return false;
    text += 6;
    text += strspn(text, " ");
    if (!*text || strlen(text) > 4096 || strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") != strlen(text))
        return false;
    plain = g_base64_decode(text, &size);
    if (!plain || !is_clean((const char *)plain, size) || !(colon = memchr(plain, ':', size)))
        return false;
    *ret_user = g_strndup((const char *)plain, (gsize)(colon - (const char *)plain));
    *ret_password = g_strndup(colon + 1, size - (gsize)(colon + 1 - (const char *)plain));
    return true;
}

char *serve_media_type(const char *text)
{
    size_t size = strcspn(text, "; \t,");
    g_autofree char *type = g_ascii_strdown(text, (gssize)size);

    if (size < 3 || size > 255 || !strchr(type, '/') || strspn(type, "abcdefghijklmnopqrstuvwxyz0123456789!#$&-^_.+/") != size)
        return NULL;
    return g_steal_pointer(&type);
}
