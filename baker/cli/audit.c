/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln audit: who did what to channels and groups, when and why, and whether the logs that say so are whole.
 */
#include "baker/cli/cli.h"

#include "base/printable.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>

/* --- --since --- */

static bool parse_since(const char *text, int64_t *ret, GError **error)
{
    g_autofree char *midnight = strlen(text) == 10 && text[4] == '-' ? g_strconcat(text, "T00:00:00", NULL) : NULL;
    g_autoptr(GTimeZone) local = g_time_zone_new_local();
    g_autoptr(GDateTime) time = strlen(text) >= 10 ? g_date_time_new_from_iso8601(midnight ? midnight : text, local) : NULL;
    double seconds;

    if (time) {
        *ret = g_date_time_to_unix(time);
        return true;
    }
    if (!units_parse_duration(text, &seconds, NULL) || seconds < 0 || seconds > 1e10)
        return fail_code(error, KILN_ERROR_USAGE, "--since takes a day (2024-05-01), a time (2024-05-01T12:00:00Z) or how long ago (7d, 12h), not '%s'",
                         text);
    *ret = g_get_real_time() / G_USEC_PER_SEC - (int64_t)seconds;
    return true;
}

/* --- text --- */

static const char *field(const json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

/* What comes from a log may have been written there by anybody: it does not drive the terminal. */
static void print_text(const char *text)
{
    g_autofree char *printable = printable_line(text);

    fputs(printable, stdout);
}

static void print_field(const json_t *row, const char *key, const char *label)
{
    const json_t *value = json_object_get(row, key);
    g_autofree char *text = NULL;

    if (!value || json_is_null(value))
        return;
    text = json_is_string(value) ? g_strdup(json_string_value(value)) : json_canonical(value);
    fputs(label, stdout);
    print_text(text);
}

static void print_rollout(const json_t *row)
{
    print_field(row, "group", "rollout of ");
    print_field(row, "revision", " to revision ");
    print_field(row, "image", " ");
    print_field(row, "from_revision", "; before: revision ");
    print_field(row, "from_image", " ");
    print_field(row, "outcome", "; ");
    print_field(row, "cause", ": ");
    print_field(row, "plan", "; plan ");
    print_field(row, "approver", "; approved by ");
}

static void print_channel(const json_t *row)
{
    print_field(row, "what", "");
    print_field(row, "name", " ");
    print_field(row, "kind", "/");
    print_field(row, "channel", ":");
    print_field(row, "image", " ");
    print_field(row, "from_image", "; before: ");
    print_field(row, "rules", " ");
    if (json_is_true(json_object_get(row, "back")))
        printf("; back");
    if (json_is_true(json_object_get(row, "stop")))
        printf("; stop");
}

static void print_row(const json_t *row)
{
    const char *what = field(row, "what"), *to = field(row, "to");
    size_t tests = json_array_size(json_object_get(row, "tests"));

    printf("%s  %-20s  ", field(row, "from"), to ? to : "");
    print_field(row, "who", "");
    print_field(row, "on_behalf_of", " for ");
    printf("  ");
    if (g_strcmp0(what, "rollout") == 0) {
        print_rollout(row);
    } else if (g_strcmp0(what, "verb") == 0) {
        print_field(row, "verb", "");
        print_field(row, "group", " ");
        print_field(row, "arguments", " ");
    } else {
        print_channel(row);
    }
    if (tests > 0)
        printf("; %zu passed test%s", tests, tests == 1 ? "" : "s");
    print_field(row, "reason", "; reason: ");
    putchar('\n');
}

/* --- the verb --- */

typedef struct AuditCall {
    const char *since, *group, *image, *key;
} AuditCall;

static bool make_filter(Store *store, const AuditCall *call, GArray *images, StoreAuditFilter *ret, GError **error)
{
    g_autoptr(GPtrArray) set = NULL;

    *ret = (StoreAuditFilter){.group = call->group, .images = call->image ? images : NULL};
    if (call->since && !parse_since(call->since, &ret->since, error))
        return false;
    if (call->image && !store_resolve_set_record(store, call->image, &set, error))
        return false;
    for (guint i = 0; set && i < set->len; i++)
        g_array_append_val(images, ((StoreImage *)set->pdata[i])->id);
    return true;
}

/* The key that checks heads: the one given, else the public half of the one that signs. */
static bool load_key(const char *file, SignatureKey **ret, GError **error)
{
    return file ? signature_load_public(file, ret, error) : cli_signing_key(NULL, ret, error);
}

static int tell(CliContext *cli, json_t *rows, GPtrArray *problems, unsigned heads)
{
    json_t *list = json_array(), *row;
    size_t i;

    for (guint j = 0; j < problems->len; j++) {
        g_autofree char *valid = g_utf8_make_valid(problems->pdata[j], -1); /* it may quote what somebody wrote into a database */

        json_array_append_new(list, json_string(valid));
    }
    if (cli->json) {
        (void)cli_print_json(json_pack("{s:O, s:b, s:o, s:I}", "rows", rows, "clean", problems->len == 0, "problems", list, "heads_checked",
                                       (json_int_t)heads));
        return problems->len ? 1 : 0;
    }
    json_decref(list);
    json_array_foreach (rows, i, row)
        print_row(row);
    for (guint j = 0; j < problems->len; j++) {
        print_text(problems->pdata[j]);
        putchar('\n');
    }
    if (problems->len)
        fprintf(stderr, "kiln: the logs do not verify: %u problem%s\n", problems->len, problems->len == 1 ? "" : "s");
    else
        log_info("the logs are whole; %u signed head%s checked", heads, heads == 1 ? "" : "s");
    return problems->len ? 1 : 0;
}

int verb_audit(CliContext *cli, int argc, char **argv)
{
    AuditCall call = {.since = NULL};
    const CliOption options[] = {{"since", CLI_STRING, &call.since},
                                 {"group", CLI_STRING, &call.group},
                                 {"image", CLI_STRING, &call.image},
                                 {"key", CLI_STRING, &call.key},
                                 {NULL, CLI_FLAG, NULL}};
    g_autoptr(GPtrArray) problems = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GArray) images = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(json_t) rows = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    StoreAuditFilter filter;
    unsigned heads = 0;

    if (!cli_parse(options, "audit [--since T] [--group G] [--image REF] [--key FILE.pub]", argc, argv, 0, 0, &arguments, &error) ||
        !load_key(call.key, &key, &error) || !cli_open_store(cli, STORE_OPEN_ANYWAY, &store, &error) || !make_filter(store, &call, images, &filter, &error) ||
        !store_audit_verify(store, key, problems, &heads, &error))
        return cli_fail(cli, error);
    /* A record that is no text any more is among the problems, and then they are all that can be told. */
    if (!store_audit(store, &filter, &rows, &error)) {
        if (problems->len == 0)
            return cli_fail(cli, error);
        log_warning("%s", error->message);
        rows = json_array();
    }
    return tell(cli, rows, problems, heads);
}
