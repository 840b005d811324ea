/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Go templates, as much as options of templates use.
 *
 * One pass over the text: plain text is copied, an action {{ ... }} is cut out (knowing its string literals,
 * which may hold
 * "}}"), and evaluated by a small recursive parser. Conditionals keep a stack of {this branch is on, some
 * branch was taken}; text and actions of branches that are off are skipped but their blocks are still
 * counted. Every value is text; "" and "false" are false, as the only values that options can have are text.
 */
#include "base/gotemplate.h"

#include "base/error.h"

#include <ctype.h>
#include <string.h>
#include <time.h>

#define NESTING_MAX 32
#define OUTPUT_MAX (16u << 20) /* a template that grows past this is a mistake */
#define WORDS_MAX 16

typedef struct Branch {
    bool on;      /* this branch's text counts (and all outer ones do) */
    bool taken;   /* some branch of this block was on */
    bool outer;   /* the block itself stands where text counts */
    bool is_last; /* {{else}} was seen */
} Branch;

typedef struct Parser {
    const char *p, *end; /* inside one action */
    GHashTable *values;
    unsigned depth;
    GError **error;
} Parser;

static bool pipeline(Parser *ps, char **ret);

static void skip_space(Parser *ps)
{
    while (ps->p < ps->end && isspace((unsigned char)*ps->p))
        ps->p++;
}

static bool is_word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '.';
}

/* The next word without taking it. */
static bool peek_word(Parser *ps, const char *word)
{
    size_t n = strlen(word);

    skip_space(ps);
    return (size_t)(ps->end - ps->p) >= n && memcmp(ps->p, word, n) == 0 &&
           (ps->p + n == ps->end || !is_word_char(ps->p[n]));
}

static bool take_word(Parser *ps, const char *word)
{
    if (!peek_word(ps, word))
        return false;
    ps->p += strlen(word);
    return true;
}

static bool quoted(Parser *ps, char **ret)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (ps->p++; ps->p < ps->end && *ps->p != '"'; ps->p++) {
        char c = *ps->p;
        if (c == '\\' && ps->p + 1 < ps->end) {
            c = *++ps->p;
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
        }
        g_string_append_c(out, c);
    }
    if (ps->p == ps->end)
        return fail(ps->error, "a string in {{ }} has no closing quote");
    ps->p++;
    *ret = g_string_free(g_steal_pointer(&out), FALSE);
    return true;
}

static bool raw_string(Parser *ps, char **ret)
{
    const char *close = memchr(ps->p + 1, '`', (size_t)(ps->end - ps->p - 1));

    if (!close)
        return fail(ps->error, "a string in {{ }} has no closing backtick");
    *ret = g_strndup(ps->p + 1, (gsize)(close - ps->p - 1));
    ps->p = close + 1;
    return true;
}

/* ---- functions ---- */

/* Go writes times by example: the layout is the reference time 2006-01-02 15:04:05 -0700. */
static void append_time(GString *out, const char *layout, const struct tm *tm)
{
    static const struct {
        const char *go, *strftime;
    } words[] = {
        {"January", "%B"}, {"Jan", "%b"},   {"Monday", "%A"},     {"Mon", "%a"},      {"MST", "UTC"},
        {"2006", "%Y"},    {"Z07:00", "Z"}, {"-07:00", "+00:00"}, {"-0700", "+0000"}, {"002", "%j"},
        {"01", "%m"},      {"02", "%d"},    {"03", "%I"},         {"04", "%M"},       {"05", "%S"},
        {"06", "%y"},      {"15", "%H"},    {"_2", "%e"},         {"PM", "%p"},       {"pm", "%P"},
        {"1", "%-m"},      {"2", "%-d"},    {"3", "%-I"},         {"4", "%-M"},       {"5", "%-S"},
    };

    while (*layout) {
        size_t i;
        for (i = 0; i < G_N_ELEMENTS(words) && !g_str_has_prefix(layout, words[i].go); i++)
            ;
        if (i == G_N_ELEMENTS(words)) {
            g_string_append_c(out, *layout++);
            continue;
        }
        char piece[32];
        /* the formats come from the table above, all short */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        piece[strftime(piece, sizeof piece, words[i].strftime, tm)] = '\0';
#pragma GCC diagnostic pop
        g_string_append(out, piece);
        layout += strlen(words[i].go);
    }
}

static bool call_isotime(Parser *ps, const char *layout, char **ret)
{
    const char *stamp = g_hash_table_lookup(ps->values, "timestamp");
    time_t when = stamp ? (time_t)g_ascii_strtoll(stamp, NULL, 10) : 0;
    g_autoptr(GString) out = g_string_new(NULL);
    struct tm tm;

    if (!stamp)
        return fail(ps->error, "{{ isotime }} is not known here");
    if (!gmtime_r(&when, &tm))
        return fail(ps->error, "{{ isotime }} cannot write the time %s", stamp);
    append_time(out, layout, &tm);
    *ret = g_string_free(g_steal_pointer(&out), FALSE);
    return true;
}

static char *replace_text(const char *from, const char *to, long limit, const char *text)
{
    GString *out = g_string_new(text);
    g_string_replace(out, from, to, limit < 0 ? 0 : (guint)limit);
    return g_string_free(out, FALSE);
}

static char *clean_resource_name(const char *text)
{
    char *out = g_strdup(text);
    for (char *c = out; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_')
            *c = '-';
    return out;
}

static bool truth(const char *value)
{
    return *value && strcmp(value, "false") != 0;
}

static bool call_split(Parser *ps, char **argv, char **ret)
{
    g_auto(GStrv) parts = g_strsplit(argv[1], argv[2], -1);
    guint64 index = g_ascii_strtoull(argv[3], NULL, 10);

    if (index >= g_strv_length(parts))
        return fail(ps->error, "{{ split }}: \"%s\" has no part number %s", argv[1], argv[3]);
    *ret = g_strdup(parts[index]);
    return true;
}

/* and, or, eq, ne over one or more arguments; eq is true when the first equals any other one, as in Go */
static bool call_logic(char **argv, unsigned n, char **ret)
{
    bool is_and = strcmp(argv[0], "and") == 0;

    if (is_and || strcmp(argv[0], "or") == 0) {
        unsigned i = 1;
        while (i + 1 < n && truth(argv[i]) == is_and)
            i++;
        *ret = g_strdup(argv[i]);
        return true;
    }
    bool equal = false;
    for (unsigned i = 2; i < n; i++)
        equal = equal || strcmp(argv[1], argv[i]) == 0;
    *ret = g_strdup((strcmp(argv[0], "eq") == 0) == equal ? "true" : "false");
    return true;
}

static bool call(Parser *ps, char **argv, unsigned n, char **ret)
{
    const char *f = argv[0];
    unsigned given = n - 1;
    static const struct {
        const char *name;
        unsigned min, max;
    } known[] = {
        {"upper", 1, 1}, {"lower", 1, 1},       {"clean_resource_name", 1, 1},
        {"not", 1, 1},   {"build", 1, 1},       {"replace", 4, 4},
        {"split", 3, 3}, {"replace_all", 3, 3}, {"isotime", 0, 1},
        {"eq", 2, 15},   {"ne", 2, 2},          {"and", 1, 15},
        {"or", 1, 15},
    };
    size_t i;

    for (i = 0; i < G_N_ELEMENTS(known) && strcmp(known[i].name, f) != 0; i++)
        ;
    if (i < G_N_ELEMENTS(known) && (given < known[i].min || given > known[i].max))
        return fail(ps->error, "{{ %s }} takes %u argument%s, not %u", f, known[i].min,
                    known[i].min == 1 ? "" : "s", given);
    if (i == G_N_ELEMENTS(known)) {
        const char *value = g_hash_table_lookup(ps->values, f);
        if (!value || given)
            return fail(ps->error,
                        "{{ %s }} is not a function kiln knows here; a literal {{ is written {{`{{`}}", f);
        *ret = g_strdup(value);
        return true;
    }
    if (strcmp(f, "isotime") == 0)
        return call_isotime(ps, given ? argv[1] : "2006-01-02T15:04:05Z07:00", ret);
    if (strcmp(f, "split") == 0)
        return call_split(ps, argv, ret);
    if (strcmp(f, "build") == 0) {
        g_autofree char *key = g_strconcat("build.", argv[1], NULL);
        const char *value = g_hash_table_lookup(ps->values, key);
        if (!value)
            return fail(ps->error,
                        "{{ build \"%s\" }} is not known here: kiln never boots or connects to a machine",
                        argv[1]);
        *ret = g_strdup(value);
        return true;
    }
    if (strcmp(f, "eq") == 0 || strcmp(f, "ne") == 0 || strcmp(f, "and") == 0 || strcmp(f, "or") == 0)
        return call_logic(argv, n, ret);
    *ret = strcmp(f, "upper") == 0                 ? g_utf8_strup(argv[1], -1)
           : strcmp(f, "lower") == 0               ? g_utf8_strdown(argv[1], -1)
           : strcmp(f, "clean_resource_name") == 0 ? clean_resource_name(argv[1])
           : strcmp(f, "not") == 0                 ? g_strdup(truth(argv[1]) ? "false" : "true")
           : strcmp(f, "replace_all") == 0
               ? replace_text(argv[1], argv[2], -1, argv[3])
               : replace_text(argv[1], argv[2], strtol(argv[3], NULL, 10), argv[4]);
    return true;
}

/* ---- the grammar: pipeline = command { "|" command }; command = operand { operand } ---- */

static bool field(Parser *ps, const char *name, char **ret)
{
    const char *value = g_hash_table_lookup(ps->values, name);

    if (!value) {
        g_autoptr(GString) known = g_string_new(NULL);
        GHashTableIter iter;
        gpointer key;
        g_hash_table_iter_init(&iter, ps->values);
        while (g_hash_table_iter_next(&iter, &key, NULL))
            if (isupper(*(const unsigned char *)key)) /* fields are upper case, functions are not */
                g_string_append_printf(known, "%s.%s", known->len ? ", " : "; known: ", (const char *)key);
        return fail(ps->error, "{{ .%s }} is not known here%s; a literal {{ is written {{`{{`}}", name,
                    known->str);
    }
    *ret = g_strdup(value);
    return true;
}

/* @ret_is_name: a bare word, which is a function when it comes first */
static bool operand(Parser *ps, char **ret, bool *ret_is_name)
{
    *ret_is_name = false;
    skip_space(ps);
    if (*ps->p == '"')
        return quoted(ps, ret);
    if (*ps->p == '`')
        return raw_string(ps, ret);
    if (*ps->p == '(') {
        if (++ps->depth > NESTING_MAX)
            return fail(ps->error, "{{ }} is nested too deeply");
        ps->p++;
        if (!pipeline(ps, ret))
            return false;
        skip_space(ps);
        if (ps->p == ps->end || *ps->p != ')') {
            g_clear_pointer(ret, g_free);
            return fail(ps->error, "a bracket in {{ }} is not closed");
        }
        ps->p++;
        ps->depth--;
        return true;
    }

    const char *start = ps->p;
    if (ps->p < ps->end && (*ps->p == '-' || *ps->p == '+'))
        ps->p++;
    while (ps->p < ps->end && is_word_char(*ps->p))
        ps->p++;
    if (ps->p == start)
        return fail(ps->error, "'%c' is not understood in {{ }}", *start);
    g_autofree char *word = g_strndup(start, (gsize)(ps->p - start));
    if (word[0] == '.')
        return field(ps, word + 1, ret);
    *ret_is_name = isalpha((unsigned char)word[0]) && strcmp(word, "true") != 0 && strcmp(word, "false") != 0;
    *ret = g_steal_pointer(&word);
    return true;
}

/* @piped: the value before "|", which becomes the last argument; NULL for the first command */
static bool command(Parser *ps, const char *piped, char **ret)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
    bool is_call = false;

    for (skip_space(ps); ps->p < ps->end && *ps->p != '|' && *ps->p != ')'; skip_space(ps)) {
        char *word = NULL;
        bool is_name;
        if (words->len == WORDS_MAX - 2)
            return fail(ps->error, "{{ }} has too many arguments");
        if (!operand(ps, &word, &is_name))
            return false;
        if (is_name && words->len > 0) { /* a function without arguments as an argument */
            char *argv[] = {word, NULL};
            char *value = NULL;
            bool ok = call(ps, argv, 1, &value);
            g_free(word);
            if (!ok)
                return false;
            word = value;
        }
        is_call = is_call || (is_name && words->len == 0);
        g_ptr_array_add(words, word);
    }
    if (words->len == 0)
        return fail(ps->error, "{{ }} is empty");
    if (piped)
        g_ptr_array_add(words, g_strdup(piped));
    if (is_call)
        return call(ps, (char **)words->pdata, words->len, ret);
    if (words->len > 1)
        return fail(ps->error, "'%s' in {{ }} is not a function", (char *)words->pdata[0]);
    *ret = g_strdup(words->pdata[0]);
    return true;
}

static bool pipeline(Parser *ps, char **ret)
{
    g_autofree char *value = NULL;

    for (;;) {
        char *next = NULL;
        if (!command(ps, value, &next))
            return false;
        g_free(value);
        value = next;
        if (ps->p == ps->end || *ps->p != '|')
            break;
        ps->p++;
    }
    *ret = g_steal_pointer(&value);
    return true;
}

static bool whole_pipeline(Parser *ps, char **ret)
{
    if (!pipeline(ps, ret))
        return false;
    skip_space(ps);
    if (ps->p < ps->end) {
        g_clear_pointer(ret, g_free);
        return fail(ps->error, "'%c' is not understood in {{ }}", *ps->p);
    }
    return true;
}

/* ---- blocks ---- */

static bool condition(Parser *ps, bool evaluate, bool *ret)
{
    g_autofree char *value = NULL;

    *ret = false;
    if (!evaluate)
        return true;
    if (!whole_pipeline(ps, &value))
        return false;
    *ret = truth(value);
    return true;
}

static bool else_branch(Parser *ps, GArray *stack)
{
    Branch *b = stack->len ? &g_array_index(stack, Branch, stack->len - 1) : NULL;

    if (!b || b->is_last)
        return fail(ps->error, "{{ else }} stands outside of {{ if }}");
    bool open = b->outer && !b->taken;
    if (take_word(ps, "if")) {
        if (!condition(ps, open, &b->on))
            return false;
    } else {
        b->is_last = true;
        b->on = open;
    }
    b->taken = b->taken || b->on;
    return true;
}

static bool action(Parser *ps, GArray *stack, bool on, GString *out)
{
    if (take_word(ps, "if")) {
        Branch b = {.outer = on};
        if (stack->len == NESTING_MAX)
            return fail(ps->error, "{{ if }} is nested too deeply");
        if (!condition(ps, on, &b.on))
            return false;
        b.taken = b.on;
        g_array_append_val(stack, b);
        return true;
    }
    if (take_word(ps, "else"))
        return else_branch(ps, stack);
    if (take_word(ps, "end")) {
        if (!stack->len)
            return fail(ps->error, "{{ end }} stands without {{ if }}");
        g_array_set_size(stack, stack->len - 1);
        return true;
    }
    if (peek_word(ps, "range") || peek_word(ps, "with") || peek_word(ps, "define") ||
        peek_word(ps, "template") || *ps->p == '$')
        return fail(ps->error, "range, with, define, template and variables in {{ }} are not supported");
    if (!on)
        return true;

    g_autofree char *value = NULL;
    if (!whole_pipeline(ps, &value))
        return false;
    g_string_append(out, value);
    return true;
}

/* The "}}" that ends the action which starts at @p; strings and comments may hold another one. */
static const char *action_end(const char *p)
{
    if (g_str_has_prefix(p, "/*") || g_str_has_prefix(p, "- /*")) {
        const char *close = strstr(p, "*/");
        return close ? strstr(close, "}}") : NULL;
    }
    for (; *p; p++) {
        if (p[0] == '}' && p[1] == '}')
            return p;
        if (*p == '`') {
            p = strchr(p + 1, '`');
            if (!p)
                return NULL;
        } else if (*p == '"') {
            for (p++; *p && *p != '"'; p++)
                if (*p == '\\' && p[1])
                    p++;
            if (!*p)
                return NULL;
        }
    }
    return NULL;
}

static void append_text(GString *out, const char *text, size_t size, bool trim_left, bool trim_right)
{
    while (trim_left && size && isspace((unsigned char)*text)) {
        text++;
        size--;
    }
    while (trim_right && size && isspace((unsigned char)text[size - 1]))
        size--;
    g_string_append_len(out, text, (gssize)size);
}

static bool expand(const char *text, GHashTable *values, GArray *stack, GString *out, GError **error)
{
    bool trim_left = false;

    for (;;) {
        const char *open = strstr(text, "{{");
        bool on = !stack->len || g_array_index(stack, Branch, stack->len - 1).on;
        bool trim_right = open && open[2] == '-' && isspace((unsigned char)open[3]);

        if (on)
            append_text(out, text, open ? (size_t)(open - text) : strlen(text), trim_left, trim_right);
        if (!open)
            return true;
        const char *start = open + 2 + (trim_right ? 1 : 0), *close = action_end(open + 2);
        if (!close)
            return fail(error, "'{{' without '}}' in \"%.40s\"", open);

        Parser ps = {.p = start, .end = close, .values = values, .error = error};
        trim_left = close - start >= 2 && close[-1] == '-' && isspace((unsigned char)close[-2]);
        if (trim_left)
            ps.end--;
        skip_space(&ps);
        if (!g_str_has_prefix(ps.p, "/*") && !action(&ps, stack, on, out))
            return false;
        if (out->len > OUTPUT_MAX)
            return fail(error, "a template in {{ }} grows too large");
        text = close + 2;
    }
}

bool gotemplate_expand(const char *text, GHashTable *values, char **ret, GError **error)
{
    g_autoptr(GArray) stack = g_array_new(FALSE, TRUE, sizeof(Branch));
    g_autoptr(GString) out = g_string_new(NULL);

    if (!expand(text, values, stack, out, error))
        return false;
    if (stack->len)
        return fail(error, "{{ if }} without {{ end }}");
    *ret = g_string_free(g_steal_pointer(&out), FALSE);
    return true;
}
