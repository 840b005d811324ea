/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encodings: base64, gzip (by zlib), CSV, JSON, URL.
 */
#include "templates/language/functions.h"

#include "templates/language/json.h"
#include "templates/language/parser.h"
#include "templates/language/types.h"

#include <string.h>
#include <zlib.h>

static Value *fn_base64encode(Call *call)
{
    const char *string = call->args[0]->string;
    g_autofree char *text = g_base64_encode((const guchar *)string, strlen(string));

    return value_string(call->arena, text);
}

static bool is_base64(const char *text)
{
    size_t length = strlen(text);
    size_t body = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");

    return length % 4 == 0 && length - body <= 2 && strspn(text + body, "=") == length - body;
}

static Value *fn_base64decode(Call *call)
{
    g_autofree guchar *bytes = NULL;
    gsize size;

    if (!is_base64(call->args[0]->string))
        return call_fail(call, 0, "this is not base64");
    bytes = g_base64_decode(call->args[0]->string, &size);
    return call_text(call, 0, (const char *)bytes, size);
}

static Value *fn_textencodebase64(Call *call)
{
    g_autofree char *bytes = NULL;
    g_autofree char *text = NULL;
    gsize size;

    bytes = g_convert(call->args[0]->string, -1, call->args[1]->string, "UTF-8", NULL, &size, NULL);
    if (!bytes)
        return call_fail(call, 1, "the text can't be written in '%s'", call->args[1]->string);
    text = g_base64_encode((const guchar *)bytes, size);
    return value_string(call->arena, text);
}

static Value *fn_textdecodebase64(Call *call)
{
    g_autofree guchar *bytes = NULL;
    g_autofree char *text = NULL;
    gsize size, converted;

    if (!is_base64(call->args[0]->string))
        return call_fail(call, 0, "this is not base64");
    bytes = g_base64_decode(call->args[0]->string, &size);
    text = g_convert((const char *)bytes, (gssize)size, "UTF-8", call->args[1]->string, NULL, &converted, NULL);
    if (!text)
        return call_fail(call, 1, "the bytes are no text in '%s'", call->args[1]->string);
    return call_text(call, 0, text, converted);
}

static Value *fn_jsonencode(Call *call)
{
    g_autofree char *text = value_to_json_text(call->args[0]);

    return value_string(call->arena, text);
}

static Value *fn_jsondecode(Call *call)
{
    EvalContext context = { .arena = call->arena };
    const char *text = call->args[0]->string;
    Diagnostics problems;
    Source *source;
    Expr *expr;
    Value *value;

    diagnostics_init(&problems, call->arena);
    context.diagnostics = &problems;
    source = source_new(&problems, "JSON", text, strlen(text));
    expr = source ? parse_json_value(source, &problems) : NULL;
    value = expr ? eval_expr(&context, expr) : NULL;
    if (problems.count > 0) {
        const Diagnostic *first = problems.list->pdata[0];
        Position place = range_start(first->range);

        value = call_fail(call, 0, "this is not JSON: %s (line %u, column %u)", first->text, place.line, place.column);
    }
    diagnostics_clear(&problems);
    return value;
}

/* As Go's url.QueryEscape: a blank is '+'. */
static Value *fn_urlencode(Call *call)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (const char *p = call->args[0]->string; *p; p++)
        if (g_ascii_isalnum(*p) || strchr("-_.~", *p))
            g_string_append_c(out, *p);
        else if (*p == ' ')
            g_string_append_c(out, '+');
        else
            g_string_append_printf(out, "%%%02X", (unsigned char)*p);
    return value_string(call->arena, out->str);
}

/* gzip with no time in it, so that the same text gives the same bytes. */
static Value *fn_base64gzip(Call *call)
{
    const char *text = call->args[0]->string;
    z_stream stream = { .next_in = (Bytef *)text, .avail_in = (uInt)strlen(text) };
    g_autofree guchar *out = NULL;
    g_autofree char *encoded = NULL;
    gsize room;

    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return call_fail(call, -1, "there is no memory for it");
    room = deflateBound(&stream, stream.avail_in) + 32;
    out = g_malloc(room);
    stream.next_out = out;
    stream.avail_out = (uInt)room;
    (void)deflate(&stream, Z_FINISH); /* the room is enough, so it ends at once */
    encoded = g_base64_encode(out, room - stream.avail_out);
    (void)deflateEnd(&stream);
    return value_string(call->arena, encoded);
}

/* --- CSV, RFC 4180 --- */

/* One field at *p; false after a diagnostic. Leaves *p at the ',' or line end behind it. */
static bool csv_field(Call *call, const char **p, GString *out)
{
    g_string_truncate(out, 0);
    if (**p != '"') {
        size_t length = strcspn(*p, ",\n");

        g_string_append_len(out, *p, (gssize)(length - (length > 0 && (*p)[length] != ',' && (*p)[length - 1] == '\r')));
        *p += length;
        if (!strchr(out->str, '"'))
            return true;
        (void)call_fail(call, 0, "a quote stands in a field that does not begin with one");
        return false;
    }
    for ((*p)++; **p != '"' || (*p)[1] == '"'; (*p)++) {
        if (!**p) {
            (void)call_fail(call, 0, "a quoted field is not closed");
            return false;
        }
        if (!(**p == '\r' && (*p)[1] == '\n'))
            g_string_append_c(out, **p);
        *p += **p == '"';
    }
    (*p)++;
    *p += **p == '\r' && (*p)[1] == '\n';
    if (!**p || **p == ',' || **p == '\n')
        return true;
    (void)call_fail(call, 0, "something stands behind the closing quote of a field");
    return false;
}

/* The next line that is not empty; NULL at the end or after a diagnostic. */
static GPtrArray *csv_line(Call *call, const char **p)
{
    g_autoptr(GPtrArray) fields = g_ptr_array_new();
    g_autoptr(GString) field = g_string_new(NULL);

    while (**p == '\n' || (**p == '\r' && (*p)[1] == '\n'))
        (*p)++;
    if (!**p)
        return NULL;
    for (;;) {
        if (!csv_field(call, p, field))
            return NULL;
        g_ptr_array_add(fields, value_string(call->arena, field->str));
        if (**p != ',')
            break;
        (*p)++;
    }
    *p += **p == '\n';
    return g_steal_pointer(&fields);
}

static Value *csv_row(Call *call, const GPtrArray *header, const GPtrArray *line)
{
    ValueFields fields;

    value_fields_init(&fields);
    for (guint i = 0; i < header->len; i++)
        value_fields_put(&fields, ((Value *)header->pdata[i])->string, line->pdata[i]);
    return value_fields_object(&fields, call->arena);
}

static bool csv_header_is_good(Call *call, const GPtrArray *header)
{
    for (guint i = 0; i < header->len; i++)
        for (guint j = 0; j < i; j++)
            if (strcmp(((Value *)header->pdata[i])->string, ((Value *)header->pdata[j])->string) == 0) {
                (void)call_fail(call, 0, "two columns are named '%s'", ((Value *)header->pdata[i])->string);
                return false;
            }
    return true;
}

static Value *fn_csvdecode(Call *call)
{
    const char *p = call->args[0]->string;
    unsigned before = call->context->diagnostics->count;
    g_autoptr(GPtrArray) header = csv_line(call, &p), rows = g_ptr_array_new();

    if (!header)
        return call->context->diagnostics->count == before ? call_fail(call, 0, "the line with the names of the columns is missing") : NULL;
    if (header->len > 10000 || !csv_header_is_good(call, header))
        return NULL;
    for (;;) {
        g_autoptr(GPtrArray) line = csv_line(call, &p);

        if (!line)
            break;
        if (line->len != header->len)
            return call_fail(call, 0, "row %u has %u fields, but there are %u columns", rows->len + 1, line->len, header->len);
        g_ptr_array_add(rows, csv_row(call, header, line));
    }
    if (call->context->diagnostics->count != before)
        return NULL;
    return value_listed(call->arena, (Value **)rows->pdata, rows->len);
}

const Function functions_encoding[] = {
    { "base64decode", "s", fn_base64decode, 0 },
    { "base64encode", "s", fn_base64encode, 0 },
    { "base64gzip", "s", fn_base64gzip, 0 },
    { "csvdecode", "s", fn_csvdecode, 0 },
    { "jsondecode", "s", fn_jsondecode, 0 },
    { "jsonencode", "A", fn_jsonencode, 0 },
    { "textdecodebase64", "ss", fn_textdecodebase64, 0 },
    { "textencodebase64", "ss", fn_textencodebase64, 0 },
    { "urlencode", "s", fn_urlencode, 0 },
    { 0 },
};
