/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln fsck, gc, stats, rm: the store's upkeep.
 */
#include "baker/cli/cli.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>

static int report_problems(CliContext *cli, Store *store, GPtrArray *problems)
{
    if (cli->json) {
        json_t *list = json_array();

        for (guint i = 0; i < problems->len; i++)
            json_array_append_new(list, json_string(problems->pdata[i]));
        (void)cli_print_json(json_pack("{s:b, s:o}", "clean", problems->len == 0, "problems", list));
    } else {
        for (guint i = 0; i < problems->len; i++)
            printf("%s\n", (char *)problems->pdata[i]);
        if (problems->len == 0)
            printf("%s: clean\n", store_path(store));
        else
            fprintf(stderr, "kiln: store '%s' has %u problem%s\n", store_path(store), problems->len,
                    problems->len == 1 ? "" : "s");
    }
    return problems->len ? 1 : 0;
}

int verb_fsck(CliContext *cli, int argc, char **argv)
{
    bool read_data = false, rebuild = false;
    const CliOption options[] = {
        {"read-data", CLI_FLAG, &read_data}, {"rebuild-index", CLI_FLAG, &rebuild}, {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) problems = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "fsck [--read-data] [--rebuild-index]", argc, argv, 0, 0, &arguments, &error) ||
        !cli_open_store(cli, 0, &store, &error) || (rebuild && !store_rebuild_index(store, &error)) ||
        !store_fsck(store, read_data, &problems, &error))
        return cli_fail(cli, error);
    return report_problems(cli, store, problems);
}

int verb_gc(CliContext *cli, int argc, char **argv)
{
    StoreGcOptions gc = {.grace = -1};
    const char *grace = NULL, *quota = NULL;
    const CliOption options[] = {{"dry-run", CLI_FLAG, &gc.dry_run},
                                 {"drop-states", CLI_FLAG, &gc.drop_states},
                                 {"grace", CLI_STRING, &grace},
                                 {"state-quota", CLI_STRING, &quota},
                                 {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autofree char **arguments = NULL, *freed = NULL;
    g_autoptr(GError) error = NULL;
    StoreGcReport report = {0};

    if (!cli_parse(options, "gc [--dry-run] [--grace T] [--drop-states] [--state-quota SIZE]", argc, argv, 0, 0,
                   &arguments, &error) ||
        (grace && !units_parse_duration(grace, &gc.grace, &error)) ||
        (quota && !units_parse_size(quota, &gc.state_quota, &error)) || !cli_open_store(cli, 0, &store, &error) ||
        !store_gc(store, &gc, &report, &error))
        return cli_fail(cli, error);
    if (cli->json)
        return cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:b}", "segments_removed",
                                        (json_int_t)report.segments_removed, "segments_repacked",
                                        (json_int_t)report.segments_repacked, "blobs_removed",
                                        (json_int_t)report.blobs_removed, "bytes_freed",
                                        (json_int_t)report.bytes_freed, "dry_run", gc.dry_run));
    freed = units_format_size(report.bytes_freed);
    printf("%s %s: %" G_GUINT64_FORMAT " segments, %" G_GUINT64_FORMAT " blobs; %" G_GUINT64_FORMAT
           " segments repacked\n",
           gc.dry_run ? "would free" : "freed", freed, report.segments_removed, report.blobs_removed,
           report.segments_repacked);
    return 0;
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
        !cli_open_store(cli, 0, &store, &error) || !store_stats(store, &stats, &error))
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
        !cli_open_store(cli, 0, &store, &error))
        return cli_fail(cli, error);
    for (char **ref = refs; *ref; ref++) {
        g_autoptr(StoreImage) image = NULL;
        char id[DIGEST_OCI_SIZE];

        if (!store_resolve(store, *ref, NULL, &image, &error) || !store_remove_image(store, image, &error))
            return cli_fail(cli, error);
        log_info("removed %s %s %s; kiln gc frees its bytes", image->name, image->kind,
                 digest_to_oci(&image->id, id));
    }
    return cli->json ? cli_print_json(json_object()) : 0;
}
