/* SPDX-License-Identifier: Apache-2.0 */
/*
 * S3's XML: a few texts by the names of their elements. Name spaces and what we do not know are passed over.
 */
#include "store/s3-answer.h"

#include "base/error.h"

#include <expat.h>
#include <string.h>

#define TEXT_MAX 4096
#define DEPTH_MAX 8
#define ENTRIES_MAX 10000

typedef struct Parse {
    XML_Parser parser;
    S3Answer *answer;
    char *names[DEPTH_MAX];
    int depth;
    GString *text;
    RemoteEntry *entry; /* the one that is open */
    const char *problem;
} Parse;

void s3_answer_clear(S3Answer *answer)
{
    g_free(answer->root);
    g_free(answer->code);
    g_free(answer->message);
    g_free(answer->upload_id);
    g_free(answer->etag);
    if (answer->entries)
        g_ptr_array_unref(answer->entries);
    *answer = (S3Answer){0};
}

static void stop(Parse *p, const char *problem)
{
    p->problem = problem;
    (void)XML_StopParser(p->parser, XML_FALSE);
}

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
    Parse *p = arg;

    if (p->problem)
        return;
    if (p->depth == DEPTH_MAX) {
        stop(p, "is nested too deeply");
        return;
    }
    if (p->depth == 0)
        p->answer->root = g_strdup(name);
    if (p->depth == 1 && strcmp(name, "Contents") == 0) {
        remote_entry_free(p->entry);
        p->entry = remote_entry_new("", 0, 0);
    }
    p->names[p->depth++] = g_strdup(name);
    g_string_truncate(p->text, 0);
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int length)
{
    Parse *p = arg;

    if (p->text->len + (size_t)length > TEXT_MAX)
        stop(p, "has a text that is too long");
    else
        g_string_append_len(p->text, text, length);
}

static void replace(char **to, const char *text)
{
    g_free(*to);
    *to = g_strdup(text);
}

static int64_t read_time(const char *text)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_iso8601(text, NULL);

    return time ? g_date_time_to_unix(time) : 0;
}

static void end_of_entry(Parse *p, const char *name)
{
    guint64 size;

    if (!p->entry)
        return;
    if (strcmp(name, "Key") == 0)
        replace(&p->entry->key, p->text->str);
    else if (strcmp(name, "LastModified") == 0)
        p->entry->changed = read_time(p->text->str);
    else if (strcmp(name, "Size") == 0 && g_ascii_string_to_unsigned(p->text->str, 10, 0, G_MAXINT64, &size, NULL))
        p->entry->size = size;
}

static void close_entry(Parse *p)
{
    if (p->answer->entries->len == ENTRIES_MAX)
        stop(p, "lists too much at once");
    else if (p->entry)
        g_ptr_array_add(p->answer->entries, g_steal_pointer(&p->entry));
}

static void end_of_answer(Parse *p, const char *name)
{
    S3Answer *a = p->answer;

    if (strcmp(name, "Code") == 0)
        replace(&a->code, p->text->str);
    else if (strcmp(name, "Message") == 0)
        replace(&a->message, p->text->str);
    else if (strcmp(name, "UploadId") == 0)
        replace(&a->upload_id, p->text->str);
    else if (strcmp(name, "ETag") == 0)
        replace(&a->etag, p->text->str);
    else if (strcmp(name, "IsTruncated") == 0)
        a->truncated = strcmp(p->text->str, "true") == 0;
    else if (strcmp(name, "Contents") == 0)
        close_entry(p);
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
    Parse *p = arg;

    if (p->problem) /* the end of an empty element comes after stopping, too */
        return;
    g_free(p->names[--p->depth]);
    if (p->depth == 1)
        end_of_answer(p, name);
    else if (p->depth == 2 && strcmp(p->names[1], "Contents") == 0)
        end_of_entry(p, name);
    g_string_truncate(p->text, 0);
}

static void XMLCALL on_doctype(void *arg, const XML_Char *name, const XML_Char *system_id, const XML_Char *public_id, int has_subset)
{
    stop(arg, "has a document type");
}

bool s3_answer_parse(const void *data, size_t size, S3Answer *ret, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    Parse p = {.parser = XML_ParserCreate(NULL), .answer = ret, .text = text};
    bool ok;

    *ret = (S3Answer){.entries = g_ptr_array_new_with_free_func((GDestroyNotify)remote_entry_free)};
    if (!p.parser)
        g_error("out of memory"); /* as GLib itself says it */
    XML_SetUserData(p.parser, &p);
    XML_SetElementHandler(p.parser, on_start, on_end);
    XML_SetCharacterDataHandler(p.parser, on_text);
    XML_SetStartDoctypeDeclHandler(p.parser, on_doctype);
    ok = size <= INT_MAX && XML_Parse(p.parser, data, (int)size, XML_TRUE) == XML_STATUS_OK;
    if (!ok)
        (void)fail(error, "the answer %s", p.problem ? p.problem : "is no XML");
    while (p.depth > 0)
        g_free(p.names[--p.depth]);
    remote_entry_free(p.entry);
    XML_ParserFree(p.parser);
    return ok;
}
