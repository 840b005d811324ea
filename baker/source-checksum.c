/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums in the forms that distributions publish them in. A file of sums is a stranger's text: a line that is not understood is passed over.
 */
#include "baker/source-checksum.h"

#include "base/checksum.h"
#include "base/error.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>

static const struct {
    const char *type; /* one of checksum_types */
    size_t digits;
} types[] = {{"md5", 32}, {"sha1", 40}, {"sha256", 64}, {"sha384", 96}, {"sha512", 128}};

static bool is_hex(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!g_ascii_isxdigit(text[i]))
            return false;
    return true;
}

/* @type: the one that was named, or NULL; @length digits at @hex. */
static bool take(const char *type, size_t type_length, const char *hex, size_t length, SourceChecksum *ret)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        bool named = !type || (strlen(types[i].type) == type_length && g_ascii_strncasecmp(type, types[i].type, type_length) == 0);

        if (!named || length != types[i].digits || !is_hex(hex, length))
            continue;
        *ret = (SourceChecksum){.given = true, .type = types[i].type, .is_sha256 = strcmp(types[i].type, "sha256") == 0};
        for (size_t j = 0; j < length; j++)
            ret->hex[j] = g_ascii_tolower(hex[j]);
        return !ret->is_sha256 || digest_parse(ret->hex, &ret->digest);
    }
    return false;
}

bool source_checksum_parse(const char *text, SourceChecksum *ret, GError **error)
{
    const char *colon = strchr(text, ':'), *hex = colon ? colon + 1 : text;

    *ret = (SourceChecksum){0};
    if (strcmp(text, "none") == 0 || take(colon ? text : NULL, colon ? (size_t)(colon - text) : 0, hex, strlen(hex), ret))
        return true;
    return fail_code(error, KILN_ERROR_USAGE,
                     "'%s' is no checksum: it is \"none\", or the hex digits of md5, sha1, sha256, sha384 or sha512, with or without \"sha256:\" before them, or \"file:URL\"", text);
}

/* "NAME", "./NAME", "dir/NAME" of a line of @length bytes. */
static bool is_named(const char *line, size_t length, const char *name)
{
    size_t wanted = strlen(name);

    while (length > 0 && (line[length - 1] == '\r' || line[length - 1] == ' ' || line[length - 1] == '\t'))
        length--;
    return length >= wanted && memcmp(line + length - wanted, name, wanted) == 0 && (length == wanted || line[length - wanted - 1] == '/');
}

/* "SHA256 (NAME) = HEX" */
static bool take_bsd(const char *line, size_t length, const char *name, SourceChecksum *ret)
{
    const char *open = memchr(line, '(', length), *close = NULL, *hex;
    size_t type = open ? (size_t)(open - line) : 0, digits = 0;

    for (const char *at = open; at && at < line + length; at++)
        if (*at == ')')
            close = at;
    if (!close || close < open)
        return false;
    while (type > 0 && line[type - 1] == ' ')
        type--;
    hex = close + 1;
    while (hex < line + length && (*hex == ' ' || *hex == '='))
        hex++;
    while (hex + digits < line + length && g_ascii_isxdigit(hex[digits]))
        digits++;
    return is_named(open + 1, (size_t)(close - open - 1), name) && take(line, type, hex, digits, ret);
}

/* "HEX  NAME", "HEX *NAME", and HEX alone, which *ret_lone gets. */
static bool take_gnu(const char *line, size_t length, const char *name, SourceChecksum *ret, SourceChecksum *ret_lone)
{
    size_t digits = 0, at;

    while (digits < length && g_ascii_isxdigit(line[digits]))
        digits++;
    for (at = digits; at < length && (line[at] == ' ' || line[at] == '\t' || line[at] == '*' || line[at] == '\r');)
        at++;
    if (at == length && digits > 0 && !ret_lone->given)
        (void)take(NULL, 0, line, digits, ret_lone);
    return at > digits && at < length && is_named(line + at, length - at, name) && take(NULL, 0, line, digits, ret);
}

void source_checksum_find(const char *text, size_t size, const char *name, SourceChecksum *ret, bool *ret_found)
{
    const char *end = text + size;
    SourceChecksum lone = {0};

    *ret = (SourceChecksum){0};
    *ret_found = false;
    while (text < end && !*ret_found && *name) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t length = (size_t)((stop ? stop : end) - text);

        *ret_found = take_gnu(text, length, name, ret, &lone) || take_bsd(text, length, name, ret);
        text += length + (stop ? 1 : 0);
    }
    if (!*ret_found && lone.given) {
        *ret = lone;
        *ret_found = true;
    }
}

static bool sum_of_file(const char *path, const char *type, char **ret, GError **error)
{
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return fail_errno(error, "read '%s'", path);
    return checksum_of_fd(fd, type, ret, error) || fail_prefix(error, "'%s'", path);
}

bool source_checksum_matches(const SourceChecksum *wanted, const char *what, const char *path, const Digest *sha256, GError **error)
{
    g_autofree char *found = NULL;
    char hex[DIGEST_HEX_SIZE];

    if (!wanted->given)
        return true;
    if (wanted->is_sha256)
        found = g_strdup(digest_to_hex(sha256, hex));
    else if (!sum_of_file(path, wanted->type, &found, error))
        return false;
    return strcmp(found, wanted->hex) == 0 ||
           fail(error, "checksum of '%s' is wrong: expected %s:%s, found %s:%s", what, wanted->type, wanted->hex, wanted->type, found);
}
