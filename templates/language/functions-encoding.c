/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encodings: base64, JSON, URL.
 */
#include "templates/language/functions.h"

#include "templates/language/json.h"

#include <string.h>

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
    g_autoptr(GError) error = NULL;
    Value *value = value_from_json_text(call->arena, call->args[0]->string, &error);

    return value ? value : call_fail(call, 0, "%s", error->message);
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

const Function functions_encoding[] = {
    { "base64decode", "s", fn_base64decode, 0 },
    { "base64encode", "s", fn_base64encode, 0 },
    { "jsondecode", "s", fn_jsondecode, 0 },
    { "jsonencode", "A", fn_jsonencode, 0 },
    { "textdecodebase64", "ss", fn_textdecodebase64, 0 },
    { "textencodebase64", "ss", fn_textencodebase64, 0 },
    { "urlencode", "s", fn_urlencode, 0 },
    { 0 },
};
