/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln fsck: is the store whole, what does it mean where it is not, and can it be made good?
 */
#include "baker/cli/cli.h"

#include "baker/repair-from.h"
#include "base/printable.h"
#include "base/units.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct FsckCall {
    StoreFsckOptions options;
    const char *rate, *subset, *from_text;
    bool index, rebuild, plain_http;
    RepairFrom fetched;
    Store *store, *from;
    StoreFsckReport report;
} FsckCall;

static void call_clear(FsckCall *call)
{
    store_fsck_report_clear(&call->report);
    store_close(call->from);
    repair_from_clear(&call->fetched);
    store_close(call->store);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(FsckCall, call_clear)

/* --- arguments --- */

/* "2/7": the second of seven shares. */
static bool parse_subset(const char *text, StoreFsckOptions *options, GError **error)
{
    char *end;
    unsigned long part = strtoul(text, &end, 10), parts = 0;

    if (g_ascii_isdigit(*text) && *end == '/' && g_ascii_isdigit(end[1]))
        parts = strtoul(end + 1, &end, 10);
    if (*end || part < 1 || part > parts || parts > 100000)
        return fail_code(error, KILN_ERROR_USAGE, "--subset takes a share like 2/7, from 1/7 to 7/7, not '%s'", text);
    options->part = (unsigned)part;
    options->parts = (unsigned)parts;
    return true;
}

static bool check_options(FsckCall *call, GError **error)
{
    StoreFsckOptions *options = &call->options;

    if ((call->rate || call->subset) && !options->read_data)
        return fail_code(error, KILN_ERROR_USAGE, "--rate and --subset are for --read-data");
    if (call->from_text && !options->repair)
        return fail_code(error, KILN_ERROR_USAGE, "--from is for --repair");
    if (call->plain_http && !call->from_text)
        return fail_code(error, KILN_ERROR_USAGE, "--plain-http is for --from");
    if (call->rate && !units_parse_size(call->rate, &options->rate, error))
        return false;
    if (call->rate && options->rate == 0)
        return fail_code(error, KILN_ERROR_USAGE, "--rate takes bytes per second, like 50M");
    options->progress = true;
    return !call->subset || parse_subset(call->subset, options, error);
}

static bool parse(FsckCall *call, int argc, char **argv, GError **error)
{
    const CliOption options[] = {{"read-data", CLI_FLAG, &call->options.read_data},
                                 {"rate", CLI_STRING, &call->rate},
                                 {"subset", CLI_STRING, &call->subset},
                                 {"repair", CLI_FLAG, &call->options.repair},
                                 {"from", CLI_STRING, &call->from_text},
                                 {"plain-http", CLI_FLAG, &call->plain_http},
                                 {"rebuild-index", CLI_FLAG, &call->index},
                                 {"rebuild", CLI_FLAG, &call->rebuild},
                                 {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;

    return cli_parse(options, "fsck [--read-data [--rate SIZE] [--subset N/T]] [--repair [--from DIR|REMOTE|docker://HOST/REPOSITORY:TAG [--plain-http]]] [--rebuild-index] [--rebuild]", argc, argv, 0, 0,
                     &arguments, error) &&
           check_options(call, error);
}

/* --- work --- */

/* The index comes last: it is made from the segments that the catalog lists. */
static bool rebuild_store(CliContext *cli, GError **error)
{
    g_autofree char *dir = cli_store_path(cli);
    g_autoptr(GPtrArray) notes = NULL;

    if (!store_rebuild(dir, &notes, error))
        return false;
    for (guint i = 0; i < notes->len; i++)
        log_info("%s", (char *)notes->pdata[i]);
    if (notes->len == 0)
        log_info("both databases are whole: nothing to rebuild");
    return true;
}

static bool open_stores(CliContext *cli, FsckCall *call, GError **error)
{
    bool changes = call->index || call->rebuild || call->options.repair;

    if (!cli_open_store(cli, STORE_OPEN_UPKEEP | (changes ? 0 : STORE_OPEN_ANYWAY), &call->store, error))
        return false;
    return !call->from_text || remote_is_location(call->from_text) || store_open(call->from_text, STORE_OPEN_READONLY, &call->from, error) || fail_prefix(error, "--from");
}

/* First what is lost: nothing is fetched for a store that is whole. */
static bool fsck_by_network(FsckCall *call, GError **error)
{
    StoreFsckOptions look = call->options;

    look.repair = false;
    if (!store_fsck_with(call->store, &look, &call->report, error))
        return false;
    if (json_array_size(call->report.damage) == 0)
        return true;
    if (!repair_from_open(call->store, call->from_text, call->report.damage, call->plain_http, &call->fetched, error))
        return fail_prefix(error, "--from");
    store_fsck_report_clear(&call->report);
    call->options.from = call->fetched.store;
    return store_fsck_with(call->store, &call->options, &call->report, error);
}

static bool run(CliContext *cli, FsckCall *call, GError **error)
{
    if ((call->rebuild && !rebuild_store(cli, error)) || !open_stores(cli, call, error))
        return false;
    call->options.from = call->from;
    if ((call->index || call->rebuild) && !store_rebuild_index(call->store, error))
        return false;
    return call->from_text && !call->from ? fsck_by_network(call, error) : store_fsck_with(call->store, &call->options, &call->report, error);
}

/* --- telling --- */

static json_t *sentences_json(const GPtrArray *list)
{
    json_t *array = json_array();

    for (guint i = 0; i < list->len; i++) {
        g_autofree char *valid = g_utf8_make_valid(list->pdata[i], -1); /* it may quote what somebody wrote into a database */

        json_array_append_new(array, json_string(valid));
    }
    return array;
}

static json_t *read_json(const StoreFsckReport *report)
{
    json_t *read = json_pack("{s:I, s:I, s:I, s:I, s:b}", "files", (json_int_t)report->files, "bytes", (json_int_t)report->bytes, "earlier_files",
                             (json_int_t)report->earlier_files, "earlier_bytes", (json_int_t)report->earlier_bytes, "noted", report->noted);

    if (report->begun)
        json_object_set_new(read, "goes_on_from", json_integer(report->begun));
    if (report->oldest)
        json_object_set_new(read, "oldest", json_integer(report->oldest));
    return read;
}

static void tell_read(const StoreFsckReport *report)
{
    g_autofree char *bytes = units_format_size(report->bytes), *earlier = units_format_size(report->earlier_bytes);
    g_autofree char *begun = cli_time(report->begun), *oldest = cli_time(report->oldest);

    log_info("read %s of %" G_GUINT64_FORMAT " files", bytes, report->files);
    if (report->begun)
        log_info("this went on with the run that began at %s and was cut: that one had verified %" G_GUINT64_FORMAT " files, %s", begun,
                 report->earlier_files, earlier);
    if (report->oldest && report->problems->len == 0)
        log_info("every file of the store was verified at %s or later", oldest);
    if (!report->noted)
        log_info("the store is open for reading only: that they were verified is not noted");
}

/* It may name files of guests, and quote what somebody wrote into a database. */
static void print_sentence(const char *before, const char *sentence)
{
    g_autofree char *shown = printable_line(sentence);

    printf("%s%s\n", before, shown);
}

static int report(CliContext *cli, const FsckCall *call)
{
    const StoreFsckReport *r = &call->report;
    int status = r->problems->len ? 1 : 0;

    if (cli->json) {
        json_t *document = json_pack("{s:b, s:o, s:o, s:O}", "clean", r->problems->len == 0, "problems", sentences_json(r->problems), "repairs",
                                     sentences_json(r->repairs), "damage", r->damage);

        if (call->options.read_data)
            json_object_set_new(document, "read", read_json(r));
        return cli_print_json(document) ? 1 : status;
    }
    if (call->options.read_data)
        tell_read(r);
    for (guint i = 0; i < r->repairs->len; i++)
        print_sentence("repaired: ", r->repairs->pdata[i]);
    for (guint i = 0; i < r->problems->len; i++)
        print_sentence("", r->problems->pdata[i]);
    if (r->problems->len == 0)
        printf("%s: clean\n", store_path(call->store));
    else
        fprintf(stderr, "kiln: store '%s' has %u problem%s\n", store_path(call->store), r->problems->len, r->problems->len == 1 ? "" : "s");
    return status;
}

int verb_fsck(CliContext *cli, int argc, char **argv)
{
    g_auto(FsckCall) call = {0};
    g_autoptr(GError) error = NULL;

    if (!parse(&call, argc, argv, &error) || !run(cli, &call, &error))
        return cli_fail(cli, error);
    return report(cli, &call);
}
