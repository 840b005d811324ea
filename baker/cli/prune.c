/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln prune, keep: which images keep their bytes.
 */
#include "baker/cli/cli.h"

#include "base/printable.h"

#include <stdio.h>
#include <string.h>

#define COUNT_MAX 100000

/* --- prune --- */

typedef struct PruneCall {
    const char *last, *daily, *weekly, *monthly;
    bool dry_run;
    StoreRetention rules;
} PruneCall;

static bool parse_count(const char *option, const char *text, int64_t *ret, GError **error)
{
    guint64 count;

    *ret = -1;
    if (!text)
        return true;
    if (!g_ascii_string_to_unsigned(text, 10, 0, COUNT_MAX, &count, NULL))
        return fail_code(error, KILN_ERROR_USAGE, "--%s takes a number of sets, 0 to %d, not '%.40s'", option, COUNT_MAX, text);
    *ret = (int64_t)count;
    return true;
}

static bool parse_rules(PruneCall *call, GError **error)
{
    if (!call->last && !call->daily && !call->weekly && !call->monthly)
        return fail_code(error, KILN_ERROR_USAGE, "prune needs to know what stays: give --keep-last, --keep-daily, --keep-weekly or --keep-monthly");
    return parse_count("keep-last", call->last, &call->rules.last, error) && parse_count("keep-daily", call->daily, &call->rules.daily, error) &&
           parse_count("keep-weekly", call->weekly, &call->rules.weekly, error) &&
           parse_count("keep-monthly", call->monthly, &call->rules.monthly, error);
}

static void take_verdicts(GPtrArray *from, GPtrArray *to)
{
    for (guint i = 0; i < from->len; i++)
        g_ptr_array_add(to, g_steal_pointer(&from->pdata[i]));
}

/* Nothing goes when a name is wrong: all are judged first. */
static bool prune_names(Store *store, const PruneCall *call, char **names, bool dry_run, GPtrArray *verdicts, GError **error)
{
    char *all[] = {NULL};
    char **name = *names ? names : all;

    do {
        g_autoptr(GPtrArray) some = NULL;

        if (!store_prune(store, *name, &call->rules, dry_run, &some, error))
            return false;
        if (dry_run == call->dry_run)
            take_verdicts(some, verdicts);
    } while (*name && *++name);
    return true;
}

static json_t *verdict_json(const StorePruneVerdict *verdict)
{
    g_autofree char *why = g_utf8_make_valid(verdict->why, -1);
    json_t *one = cli_image_json(verdict->image);

    json_object_set_new(one, "stays", json_boolean(verdict->stays));
    json_object_set_new(one, "why", json_string(why));
    return one;
}

static void print_verdict(const StorePruneVerdict *verdict, bool dry_run)
{
    g_autofree char *why = printable_line(verdict->why), *created = cli_time(verdict->image->created);
    char id[DIGEST_OCI_SIZE];

    if (dry_run || !verdict->stays)
        printf("%-5s %-24s %-5s %-71s %s  %s\n", verdict->stays ? "stays" : "goes", verdict->image->name, verdict->image->kind,
               digest_to_oci(&verdict->image->id, id), created, why);
}

static int tell(CliContext *cli, GPtrArray *verdicts, bool dry_run)
{
    json_t *list = cli->json ? json_array() : NULL;
    guint gone = 0;

    for (guint i = 0; i < verdicts->len; i++) {
        const StorePruneVerdict *verdict = verdicts->pdata[i];

        gone += !verdict->stays;
        if (list)
            json_array_append_new(list, verdict_json(verdict));
        else
            print_verdict(verdict, dry_run);
    }
    if (list)
        return cli_print_json(json_pack("{s:b, s:o}", "dry_run", dry_run, "images", list));
    log_info("%s the bytes of %u of %u images%s", dry_run ? "would let go" : "let go", gone, verdicts->len,
             gone && !dry_run ? "; kiln gc frees them" : "");
    return 0;
}

int verb_prune(CliContext *cli, int argc, char **argv)
{
    PruneCall call = {.dry_run = false};
    const CliOption options[] = {{"keep-last", CLI_STRING, &call.last},
                                 {"keep-daily", CLI_STRING, &call.daily},
                                 {"keep-weekly", CLI_STRING, &call.weekly},
                                 {"keep-monthly", CLI_STRING, &call.monthly},
                                 {"dry-run", CLI_FLAG, &call.dry_run},
                                 {NULL, CLI_FLAG, NULL}};
    g_autoptr(GPtrArray) verdicts = NULL;
    g_autoptr(Store) store = NULL;
    g_autofree char **names = NULL;
    g_autoptr(GError) error = NULL;

    verdicts = g_ptr_array_new_with_free_func((GDestroyNotify)store_prune_verdict_free);
    if (!cli_parse(options, "prune [--keep-last N] [--keep-daily N] [--keep-weekly N] [--keep-monthly N] [--dry-run] [NAME]...", argc, argv, 0,
                   -1, &names, &error) ||
        !parse_rules(&call, &error) || !cli_open_store(cli, STORE_OPEN_UPKEEP, &store, &error) ||
        !prune_names(store, &call, names, true, verdicts, &error) ||
        (!call.dry_run && !prune_names(store, &call, names, false, verdicts, &error)))
        return cli_fail(cli, error);
    return tell(cli, verdicts, call.dry_run);
}

/* --- keep --- */

static json_t *keep_json(const StoreChannelEntry *entry)
{
    g_autofree char *who = entry->who ? g_utf8_make_valid(entry->who, -1) : NULL, *note = entry->note ? g_utf8_make_valid(entry->note, -1) : NULL,
                    *other = entry->on_behalf_of ? g_utf8_make_valid(entry->on_behalf_of, -1) : NULL;
    char id[DIGEST_OCI_SIZE];

    return json_pack("{s:s, s:s, s:s, s:I, s:s?, s:s?, s:s?}", "name", entry->name, "kind", entry->kind, "image",
                     digest_to_oci(&entry->image, id), "at", (json_int_t)entry->at, "who", who, "on_behalf_of", other, "reason", note);
}

static void print_keep(const StoreChannelEntry *entry)
{
    g_autofree char *when = cli_time(entry->at), *who = printable_line(entry->who ? entry->who : ""),
                    *note = printable_line(entry->note ? entry->note : "");
    char id[DIGEST_OCI_SIZE];

    printf("%-24s %-5s %-71s %s %s %s\n", entry->name, entry->kind, digest_to_oci(&entry->image, id), when, who, note);
}

static int list_keeps(CliContext *cli, Store *store)
{
    g_autoptr(GPtrArray) entries = NULL;
    g_autoptr(GError) error = NULL;
    json_t *list;

    if (!store_keeps(store, &entries, &error))
        return cli_fail(cli, error);
    list = json_array();
    for (guint i = 0; i < entries->len; i++) {
        if (cli->json)
            json_array_append_new(list, keep_json(entries->pdata[i]));
        else
            print_keep(entries->pdata[i]);
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:o}", "kept", list));
    json_decref(list);
    return 0;
}

/* A release may meet an image whose bytes went all the same, by rm and a new import. */
static bool keep_refs(Store *store, char **refs, const StoreWhy *why, bool release, GError **error)
{
    for (char **ref = refs; *ref; ref++) {
        g_autoptr(GPtrArray) images = NULL;

        if (!(release ? store_resolve_set_record : store_resolve_set)(store, *ref, &images, error) ||
            !store_keep(store, images, why, release, error))
            return false;
        log_info("%s '%s'", release ? "released" : "kept", *ref);
    }
    return true;
}

int verb_keep(CliContext *cli, int argc, char **argv)
{
    StoreWhy why = {NULL, NULL};
    bool release = false;
    const CliOption options[] = {{"reason", CLI_STRING, &why.reason},
                                 {"on-behalf-of", CLI_STRING, &why.on_behalf_of},
                                 {"release", CLI_FLAG, &release},
                                 {NULL, CLI_FLAG, NULL}};
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Store) store = NULL;
    g_autofree char **refs = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "keep [--release] [--reason TEXT] [--on-behalf-of WHO] [REF]...", argc, argv, 0, -1, &refs, &error) ||
        !cli_signing_key(NULL, &key, &error) || !cli_open_store(cli, 0, &store, &error))
        return cli_fail(cli, error);
    if (!*refs && release)
        return cli_fail(cli, (fail_code(&error, KILN_ERROR_USAGE, "keep --release needs to know which image: give its REF"), error));
    if (*refs && (!keep_refs(store, refs, &why, release, &error) || !cli_sign_heads(store, key, &error)))
        return cli_fail(cli, error);
    return *refs && !cli->json ? 0 : list_keeps(cli, store);
}
