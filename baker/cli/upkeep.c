/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln gc, stats, rm: the store's upkeep.
 */
#include "baker/cli/cli.h"

#include "baker/memos.h"
#include "baker/resolve.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>

typedef struct GcCall {
    StoreGcOptions options;
    StoreMemoRule rules[MEMO_RULES];
    const char *grace, *state_quota, *package_quota, *rewrite;
    StoreGcReport report;
    uint64_t indexes; /* of package sources */
} GcCall;

/* A quota of nothing leaves nothing; only 0 in the options means that none was given. */
static bool parse_quota(const char *text, uint64_t otherwise, uint64_t *ret, GError **error)
{
    *ret = otherwise;
    if (!text)
        return true;
    if (!units_parse_size(text, ret, error))
        return false;
    *ret = MAX(*ret, 1);
    return true;
}

static bool prepare_gc(GcCall *call, GError **error)
{
    uint64_t packages;

    if ((call->grace && !units_parse_duration(call->grace, &call->options.grace, error)) ||
        !parse_quota(call->state_quota, 0, &call->options.state_quota, error) ||
        !parse_quota(call->rewrite, 0, &call->options.rewrite_budget, error) ||
        !parse_quota(call->package_quota, MEMO_PACKAGE_QUOTA, &packages, error))
        return false;
    memo_rules(packages, call->rules);
    call->options.memo_rules = call->rules;
    call->options.memo_rule_count = MEMO_RULES;
    return true;
}

static int report_gc(CliContext *cli, const GcCall *call)
{
    const StoreGcReport *report = &call->report;
    g_autofree char *freed = units_format_size(report->bytes_freed);

    if (cli->json)
        return cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "segments_removed", (json_int_t)report->segments_removed,
                                        "segments_repacked", (json_int_t)report->segments_repacked, "blobs_removed",
                                        (json_int_t)report->blobs_removed, "memos_removed", (json_int_t)report->memos_removed,
                                        "indexes_removed", (json_int_t)call->indexes, "bytes_freed",
                                        (json_int_t)report->bytes_freed, "repack_failed", report->repack_failed, "dry_run",
                                        call->options.dry_run));
    printf("%s %s: %" G_GUINT64_FORMAT " segments, %" G_GUINT64_FORMAT " blobs; %" G_GUINT64_FORMAT " segments repacked; %" G_GUINT64_FORMAT
           " memos and %" G_GUINT64_FORMAT " package indexes forgotten\n",
           call->options.dry_run ? "would free" : "freed", freed, report->segments_removed, report->blobs_removed,
           report->segments_repacked, report->memos_removed, call->indexes);
    return 0;
}

int verb_gc(CliContext *cli, int argc, char **argv)
{
    GcCall call = {.options.grace = -1};
    const CliOption options[] = {{"dry-run", CLI_FLAG, &call.options.dry_run},
                                 {"drop-states", CLI_FLAG, &call.options.drop_states},
                                 {"grace", CLI_STRING, &call.grace},
                                 {"state-quota", CLI_STRING, &call.state_quota},
                                 {"package-quota", CLI_STRING, &call.package_quota},
                                 {"rewrite", CLI_STRING, &call.rewrite},
                                 {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "gc [--dry-run] [--grace T] [--drop-states] [--state-quota SIZE] [--package-quota SIZE] [--rewrite SIZE]", argc, argv, 0, 0,
                   &arguments, &error) ||
        !prepare_gc(&call, &error) || !cli_open_store(cli, STORE_OPEN_UPKEEP, &store, &error) ||
        !store_gc(store, &call.options, &call.report, &error) ||
        !resolve_cache_trim(MEMO_AGE_MAX, call.options.dry_run, &call.indexes, &error))
        return cli_fail(cli, error);
    return report_gc(cli, &call);
}

/* Fetched packages are a cache with a quota of its own, so they are counted apart. */
static bool add_packages(Store *store, json_t *stats, GError **error)
{
    uint64_t count, bytes;

    if (!store_memo_usage(store, MEMO_PACKAGE, &count, &bytes, error))
        return false;
    json_object_set_new(stats, "packages", json_pack("{s:I, s:I}", "count", (json_int_t)count, "bytes", (json_int_t)bytes));
    return true;
}

static void print_stats(const json_t *stats, const char *prefix)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)stats, key, value) {
        g_autofree char *name = *prefix ? g_strdup_printf("%s.%s", prefix, key) : g_strdup(key);

        if (json_is_object(value))
            print_stats(value, name);
        else if (json_is_string(value))
            printf("%-24s %s\n", name, json_string_value(value));
        else if (json_is_integer(value) && strstr(name, "bytes")) {
            g_autofree char *size = units_format_size((uint64_t)json_integer_value(value));

            printf("%-24s %s\n", name, size);
        } else
            printf("%-24s %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(value));
    }
}

int verb_stats(CliContext *cli, int argc, char **argv)
{
    const CliOption options[] = {{NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(json_t) stats = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "stats", argc, argv, 0, 0, &arguments, &error) ||
        !cli_open_store(cli, STORE_OPEN_ANYWAY, &store, &error) || !store_stats(store, &stats, &error) ||
        !add_packages(store, stats, &error))
        return cli_fail(cli, error);
    if (cli->json)
        return cli_print_json(g_steal_pointer(&stats));
    print_stats(stats, "");
    return 0;
}

int verb_rm(CliContext *cli, int argc, char **argv)
{
    const CliOption options[] = {{NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autofree char **refs = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "rm REF...", argc, argv, 1, -1, &refs, &error) ||
        !cli_open_store(cli, STORE_OPEN_UPKEEP, &store, &error))
        return cli_fail(cli, error);
    for (char **ref = refs; *ref; ref++) {
        g_autoptr(StoreImage) image = NULL;
        char id[DIGEST_OCI_SIZE];

        if (!store_resolve_record(store, *ref, NULL, &image, &error) || !store_remove_image(store, image, &error))
            return cli_fail(cli, error);
        log_info("removed %s %s %s; kiln gc frees its bytes", image->name, image->kind,
                 digest_to_oci(&image->id, id));
    }
    return cli->json ? cli_print_json(json_object()) : 0;
}
