/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version constraints as `packer` blocks write them: ">= 1.7.0, < 2.0.0", "~> 1.8", "!= 1.9.1".
 *
 * A version has up to eight numbers and perhaps "-prerelease"; missing numbers are 0. "~> 1.8" lets the last written
 * number grow and nothing before it. A prerelease only matches a constraint that names one of the same version.
 */
#include "templates/template-private.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS_MAX = 8 };

typedef struct Version {
    uint64_t parts[PARTS_MAX];
    size_t n;
    char prerelease[64];
} Version;

static bool parse_version(const char *text, Version *ret)
{
    *ret = (Version){ 0 };
    if (*text == 'v')
        text++;
    do {
        size_t digits = strspn(text, "0123456789");

        if (digits == 0 || digits > 18 || ret->n == PARTS_MAX)
            return false;
        ret->parts[ret->n++] = strtoull(text, NULL, 10);
        text += digits;
    } while (*text == '.' && text++);
    if (*text == '-') {
        size_t length = strspn(++text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-~");

        if (length == 0 || length >= sizeof(ret->prerelease))
            return false;
        memcpy(ret->prerelease, text, length);
        text += length;
    }
    if (*text == '+')
        text += strlen(text);
    return *text == '\0';
}

static int compare_parts(const Version *a, const Version *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a->parts[i] != b->parts[i])
            return a->parts[i] < b->parts[i] ? -1 : 1;
    return 0;
}

static int compare_versions(const Version *a, const Version *b)
{
    int order = compare_parts(a, b, PARTS_MAX);

    if (order != 0)
        return order;
    if (!*a->prerelease || !*b->prerelease)
        return (*a->prerelease == '\0') - (*b->prerelease == '\0');
    return strcmp(a->prerelease, b->prerelease);
}

static bool pessimistic(const Version *version, const Version *wanted)
{
    return compare_versions(version, wanted) >= 0 && compare_parts(version, wanted, wanted->n > 1 ? wanted->n - 1 : 1) == 0;
}

static bool satisfies(const Version *version, const char *operator, const Version *wanted)
{
    int order = compare_versions(version, wanted);

    if (*version->prerelease && (!*wanted->prerelease || compare_parts(version, wanted, PARTS_MAX) != 0))
        return strcmp(operator, "!=") == 0;
    if (strcmp(operator, "~>") == 0)
        return pessimistic(version, wanted);
    if (strcmp(operator, "!=") == 0)
        return order != 0;
    if (strcmp(operator, ">=") == 0)
        return order >= 0;
    if (strcmp(operator, "<=") == 0)
        return order <= 0;
    if (strcmp(operator, ">") == 0)
        return order > 0;
    return strcmp(operator, "<") == 0 ? order < 0 : order == 0;
}

static bool check_one(const Version *version, char *text, bool *ret_met)
{
    static const char *const operators[] = { "~>", "!=", ">=", "<=", ">", "<", "=", "" };
    const char *operator= "";
    Version wanted;

    g_strstrip(text);
    for (size_t i = 0; i < G_N_ELEMENTS(operators); i++)
        if (g_str_has_prefix(text, operators[i])) {
            operator= operators[i];
            break;
        }
    if (!parse_version(g_strstrip(text + strlen(operator)), &wanted))
        return false;
    *ret_met = *ret_met && satisfies(version, operator, &wanted);
    return true;
}

bool version_meets(const char *version, const char *constraints, bool *ret_met)
{
    g_auto(GStrv) parts = g_strsplit(constraints, ",", 64);
    Version own;
    bool met = true;

    if (!parse_version(version, &own) || !parts[0])
        return false;
    for (char **part = parts; *part; part++)
        if (!check_one(&own, *part, &met))
            return false;
    *ret_met = met;
    return true;
}

/* The versions at which an answer can change: those that @constraints name, the ones right above them, and the first of all. */
static void add_candidates(const char *constraints, GPtrArray *texts)
{
    g_auto(GStrv) parts = g_strsplit(constraints, ",", 64);

    g_ptr_array_add(texts, g_strdup("0"));
    for (char **part = parts; *part; part++) {
        Version wanted;
        GString *next;

        if (!parse_version(*part + strspn(*part, " ~!<>="), &wanted))
            continue;
        g_ptr_array_add(texts, g_strdup(*part + strspn(*part, " ~!<>=")));
        next = g_string_new(NULL);
        for (size_t i = 0; i < 3; i++)
            g_string_append_printf(next, "%s%" G_GUINT64_FORMAT, i ? "." : "", (guint64)wanted.parts[i] + (i == 2));
        g_ptr_array_add(texts, g_string_free(next, FALSE));
    }
}

bool version_meets_up_to(const char *version, const char *constraints, bool *ret_met)
{
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
    Version own, earlier;

    if (!parse_version(version, &own) || !version_meets(version, constraints, ret_met))
        return false;
    add_candidates(constraints, texts);
    for (guint i = 0; i < texts->len && !*ret_met; i++) {
        const char *text = g_strstrip(texts->pdata[i]);

        if (parse_version(text, &earlier) && compare_versions(&earlier, &own) < 0)
            (void)version_meets(text, constraints, ret_met); /* readable, as it was above */
    }
    return true;
}
