/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Versions are text of strangers: whatever they are, there is an order, and no more is looked at than there is.
 */
#include "baker/package-version.h"

#include "base/debian-version.h"

#include <glib.h>
#include <stdbool.h>
#include <string.h>

/* Two runs of digits of any length, as numbers. */
static int compare_digits(const char *a, size_t a_size, const char *b, size_t b_size)
{
    for (; a_size && *a == '0'; a_size--)
        a++;
    for (; b_size && *b == '0'; b_size--)
        b++;
    if (a_size != b_size)
        return a_size < b_size ? -1 : 1;
    return strncmp(a, b, a_size);
}

static size_t digits_of(const char *text)
{
    return strspn(text, "0123456789");
}

static size_t letters_of(const char *text)
{
    return strspn(text, G_CSET_A_2_Z G_CSET_a_2_z);
}

/* --- rpm ------------------------------------------------------------------------------------------- */

/* A mark that only one side has decides: '~' sorts before the end, '^' behind the end and before all else. 0: go on. */
static int compare_mark(const char **a, const char **b, char mark, bool before_end, bool *ret_found)
{
    *ret_found = **a == mark || **b == mark;
    if (!*ret_found)
        return 0;
    if (**a == mark && **b == mark) {
        ++*a;
        ++*b;
        return 0;
    }
    if (before_end)
        return **a == mark ? -1 : 1;
    return **a == mark ? (**b ? -1 : 1) : (**a ? 1 : -1);
}

/* Runs of digits and runs of letters; all else only parts them. */
static int rpm_compare(const char *a, const char *b)
{
    while (*a || *b) {
        bool marked, digits;
        size_t a_size, b_size;
        int order;

        while (*a && !g_ascii_isalnum(*a) && *a != '~' && *a != '^')
            a++;
        while (*b && !g_ascii_isalnum(*b) && *b != '~' && *b != '^')
            b++;
        order = compare_mark(&a, &b, '~', true, &marked);
        if (!marked)
            order = compare_mark(&a, &b, '^', false, &marked);
        if (order)
            return order;
        if (marked)
            continue;
        if (!*a || !*b)
            break;
        digits = g_ascii_isdigit(*a);
        a_size = digits ? digits_of(a) : letters_of(a);
        b_size = digits ? digits_of(b) : letters_of(b);
        if (b_size == 0) /* a number is newer than letters */
            return digits ? 1 : -1;
        order = digits ? compare_digits(a, a_size, b, b_size) : strncmp(a, b, MIN(a_size, b_size));
        if (order || (!digits && a_size != b_size))
            return order ? order : a_size < b_size ? -1 : 1;
        a += a_size;
        b += b_size;
    }
    return !*a && !*b ? 0 : *a ? 1 : -1;
}

/* [EPOCH:]VERSION[-RELEASE]; *ret_release is NULL where there is none. */
static char *rpm_split(const char *text, const char **ret_epoch, size_t *ret_epoch_size, const char **ret_release)
{
    size_t size = digits_of(text);
    const char *version = text[size] == ':' ? text + size + 1 : text, *dash = strrchr(version, '-');

    *ret_epoch = text;
    *ret_epoch_size = text[size] == ':' ? size : 0;
    *ret_release = dash ? dash + 1 : NULL;
    return dash ? g_strndup(version, (gsize)(dash - version)) : g_strdup(version);
}

static int compare_rpm(const char *a, const char *b)
{
    const char *epoch_a, *epoch_b, *release_a, *release_b;
    size_t size_a, size_b;
    g_autofree char *version_a = rpm_split(a, &epoch_a, &size_a, &release_a), *version_b = rpm_split(b, &epoch_b, &size_b, &release_b);
    int order = compare_digits(epoch_a, size_a, epoch_b, size_b);

    if (order == 0)
        order = rpm_compare(version_a, version_b);
    return order || !release_a || !release_b ? order : rpm_compare(release_a, release_b);
}

/* --- apk: 1.2.3a_rc1-r4 -------------------------------------------------------------------------------- */

typedef enum ApkKind { APK_BEFORE = -1, APK_END, APK_REVISION, APK_OTHER, APK_AFTER, APK_LETTER, APK_DIGITS } ApkKind;

typedef struct ApkPart {
    ApkKind kind; /* where two versions part, the greater kind is the newer one */
    int suffix;
    const char *text;
    size_t size;
} ApkPart;

static bool apk_suffix(const char **at, ApkPart *part)
{
    static const char *const suffixes[] = {"alpha", "beta", "pre", "rc", "cvs", "svn", "git", "hg", "p"};
    size_t size = **at == '_' ? letters_of(*at + 1) : 0;

    for (size_t i = 0; size && i < G_N_ELEMENTS(suffixes); i++)
        if (strlen(suffixes[i]) == size && strncmp(*at + 1, suffixes[i], size) == 0) {
            part->kind = i < 4 ? APK_BEFORE : APK_AFTER;
            part->suffix = (int)i;
            part->text = *at + 1 + size;
            part->size = digits_of(part->text);
            *at = part->text + part->size;
            return true;
        }
    return false;
}

static ApkPart apk_next(const char **at)
{
    const char *from = *at;
    ApkPart part = {.kind = APK_OTHER, .text = from, .size = strlen(from)};

    if (!*from)
        part.kind = APK_END;
    else if (apk_suffix(at, &part))
        return part;
    else if (g_ascii_isdigit(*from) || (*from == '.' && g_ascii_isdigit(from[1]))) {
        part.text += *from == '.';
        part.kind = APK_DIGITS;
        part.size = digits_of(part.text);
    } else if (g_ascii_islower(*from)) {
        part.kind = APK_LETTER;
        part.size = 1;
    } else if (from[0] == '-' && from[1] == 'r' && g_ascii_isdigit(from[2])) {
        part.kind = APK_REVISION;
        part.text += 2;
        part.size = digits_of(part.text);
    }
    *at = part.text + part.size;
    return part;
}

static int compare_apk_parts(const ApkPart *a, const ApkPart *b, bool first)
{
    int order;

    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->suffix != b->suffix)
        return a->suffix < b->suffix ? -1 : 1;
    if (a->kind == APK_LETTER || a->kind == APK_OTHER || (a->kind == APK_DIGITS && !first && (*a->text == '0' || *b->text == '0'))) {
        order = strncmp(a->text, b->text, MIN(a->size, b->size)); /* behind a dot "01" is less than "1" */
        return order || a->size == b->size ? order : a->size < b->size ? -1 : 1;
    }
    return compare_digits(a->text, a->size, b->text, b->size);
}

/* A version without its -rN is that of every package made from it. */
static int compare_apk(const char *a, const char *b)
{
    for (bool first = true;; first = false) {
        ApkPart x = apk_next(&a), y = apk_next(&b);
        int order = compare_apk_parts(&x, &y, first);

        if ((x.kind == APK_END && (y.kind == APK_END || y.kind == APK_REVISION)) || (y.kind == APK_END && x.kind == APK_REVISION))
            return 0;
        if (order)
            return order;
    }
}

/* --- npm and Go: [v]1.2.3[-PRE.RELEASE][+BUILD] ------------------------------------------------------- */

static int compare_dotted(const char *a, const char *b)
{
    while (*a || *b) {
        size_t x = strcspn(a, "."), y = strcspn(b, ".");
        bool a_digits = x && digits_of(a) >= x, b_digits = y && digits_of(b) >= y;
        int order = 0;

        if (!*a || !*b)
            return *a ? 1 : -1;
        if (a_digits && b_digits)
            order = compare_digits(a, x, b, y);
        else if (a_digits || b_digits)
            return a_digits ? -1 : 1;
        else
            order = strncmp(a, b, MIN(x, y));
        if (order || (!a_digits && x != y))
            return order ? order : x < y ? -1 : 1;
        a += x + (a[x] == '.');
        b += y + (b[y] == '.');
    }
    return 0;
}

static int compare_semantic(const char *a, const char *b)
{
    g_autofree char *x = g_strndup(a + (*a == 'v'), strcspn(a + (*a == 'v'), "+")), *y = g_strndup(b + (*b == 'v'), strcspn(b + (*b == 'v'), "+"));
    char *pre_a = strchr(x, '-'), *pre_b = strchr(y, '-');
    int order;

    if (pre_a)
        *pre_a++ = '\0';
    if (pre_b)
        *pre_b++ = '\0';
    order = debian_version_compare(x, y);
    if (order || !pre_a || !pre_b)
        return order ? order : !pre_a - !pre_b;
    return compare_dotted(pre_a, pre_b);
}

/* --- Python: [EPOCH!]1.2.3[{a|b|rc}N][.postN][.devN][+LOCAL] -------------------------------------------- */

/* "+abc.5": behind the version and before "post"; numbers behind words. */
static void add_local(GString *out, const char *local)
{
    while (*local) {
        size_t size = strcspn(local + 1, ".-_");

        g_string_append(out, g_ascii_isdigit(local[1]) ? "lz" : "l");
        g_string_append_len(out, local + 1, (gssize)size);
        local += 1 + size;
    }
}

/* "2.0.0rc1" is "2~rc1" where Debian's order is that of PEP 440: letters come behind the end and before a dot. */
static char *python_as_debian(const char *text)
{
    static const char *const words[][2] = {{"alpha", "~a"}, {"beta", "~b"}, {"preview", "~rc"}, {"pre", "~rc"}, {"post", "post"}, {"rev", "post"},
                                           {"dev", "~~dev"}, {"rc", "~rc"}, {"a", "~a"}, {"b", "~b"}, {"c", "~rc"}, {"r", "post"}};
    g_autofree char *lower = g_ascii_strdown(text, -1);
    const char *at = lower + (*lower == 'v'), *mark = strchr(at, '!');
    GString *out = g_string_new(NULL);
    size_t release;

    if (mark) {
        g_string_append_len(out, at, mark - at);
        g_string_append_c(out, ':');
        at = mark + 1;
    }
    release = strspn(at, "0123456789.");
    g_string_append_len(out, at, (gssize)release);
    while (out->len && out->str[out->len - 1] == '.')
        g_string_truncate(out, out->len - 1);
    while (g_str_has_suffix(out->str, ".0"))
        g_string_truncate(out, out->len - 2);
    for (at += release; *at && *at != '+';) {
        size_t i = 0;

        at += strspn(at, ".-_");
        while (i < G_N_ELEMENTS(words) && !g_str_has_prefix(at, words[i][0]))
            i++;
        g_string_append(out, i < G_N_ELEMENTS(words) ? words[i][1] : g_ascii_isdigit(*at) ? "post" : "");
        at += i < G_N_ELEMENTS(words) ? strlen(words[i][0]) : 0;
        at += strspn(at, ".-_");
        if (*at && *at != '+' && (g_ascii_isdigit(*at) || i == G_N_ELEMENTS(words)))
            g_string_append_c(out, *at++);
        for (; g_ascii_isdigit(*at); at++)
            g_string_append_c(out, *at);
    }
    add_local(out, at);
    return g_string_free(out, FALSE);
}

static int compare_python(const char *a, const char *b)
{
    g_autofree char *x = python_as_debian(a), *y = python_as_debian(b);

    return debian_version_compare_whole(x, y);
}

int package_version_compare(const char *type, const char *a, const char *b)
{
    static const struct {
        const char *type;
        int (*compare)(const char *a, const char *b);
    } orders[] = {{"rpm", compare_rpm}, {"apk", compare_apk}, {"pypi", compare_python}, {"npm", compare_semantic}, {"golang", compare_semantic}};

    for (size_t i = 0; i < G_N_ELEMENTS(orders); i++)
        if (strcmp(type, orders[i].type) == 0)
            return orders[i].compare(a, b);
    return debian_version_compare_whole(a, b);
}
