/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln promote, channels, tag: which image a name and a channel shall mean.
 */
#include "baker/cli/cli.h"

#include "base/printable.h"

#include <stdio.h>
#include <string.h>

/* --- channels --- */

static void set_text(json_t *object, const char *key, const char *text)
{
    g_autofree char *valid = text ? g_utf8_make_valid(text, -1) : NULL;

    if (valid)
        json_object_set_new(object, key, json_string(valid));
}

static json_t *entry_json(const StoreChannelEntry *entry)
{
    char oci[DIGEST_OCI_SIZE];
    json_t *one = json_pack("{s:I, s:I, s:s}", "number", (json_int_t)entry->number, "at", (json_int_t)entry->at, "hash",
                            digest_to_oci(&entry->hash, oci));

    set_text(one, "action", entry->action);
    set_text(one, "name", entry->name);
    set_text(one, "kind", entry->kind);
    set_text(one, "channel", entry->channel);
    if (!digest_is_none(&entry->image))
        json_object_set_new(one, "image", json_string(digest_to_oci(&entry->image, oci)));
    if (!digest_is_none(&entry->from))
        json_object_set_new(one, "from", json_string(digest_to_oci(&entry->from, oci)));
    set_text(one, "who", entry->who);
    set_text(one, "on_behalf_of", entry->on_behalf_of);
    set_text(one, "reason", entry->note);
    set_text(one, "note", entry->note); /* its name before there were reasons */
    if (entry->stop)
        json_object_set_new(one, "stop", json_true());
    if (entry->rules)
        json_object_set(one, "rules", (json_t *)entry->rules);
    return one;
}

/* "a reason, a passed test, what was in 'staging'"; free with g_free. */
static char *rules_text(const json_t *rules)
{
    GString *text = g_string_new(NULL);
    StoreChannelRules asked;

    store_channel_rules_read(rules, &asked);
    if (asked.reason)
        g_string_append(text, "a reason");
    if (asked.test)
        g_string_append_printf(text, "%sa passed test", text->len ? ", " : "");
    if (asked.from)
        g_string_append_printf(text, "%swhat was in '%s'", text->len ? ", " : "", asked.from);
    return g_string_free(text->len ? text : g_string_append(text, "nothing"), FALSE);
}

/* What comes from a log may have been written there by anybody: it does not drive the terminal. */
static void print_text(const char *label, const char *text)
{
    g_autofree char *printable = text ? printable_line(text) : NULL;

    if (printable)
        printf("%s%s", label, printable);
}

static void print_why(const StoreChannelEntry *entry)
{
    char oci[DIGEST_OCI_SIZE];

    print_text(" ", entry->who);
    print_text(" for ", entry->on_behalf_of);
    print_text(entry->stop ? " (stop) " : " ", entry->note);
    if (!digest_is_none(&entry->from))
        printf(" (before: %s)", digest_to_oci(&entry->from, oci));
}

static void print_entry(const StoreChannelEntry *entry, bool history)
{
    g_autofree char *when = cli_time(entry->at), *asks = entry->rules ? rules_text(entry->rules) : NULL,
                    *what = asks ? g_strdup_printf("asks for %s", asks) : NULL;
    const char *channel = *entry->channel ? entry->channel : strcmp(entry->action, "keep") == 0 ? "(kept)"
                          : strcmp(entry->action, "release") == 0                             ? "(released)"
                                                                                              : "(revoked)";
    char id[DIGEST_OCI_SIZE];

    printf("%-24s %-5s %-16s %-71s %s", entry->name, entry->kind, channel, what ? what : digest_to_oci(&entry->image, id), when);
    if (history)
        print_why(entry);
    putchar('\n');
}

static void print_entries(GPtrArray *entries, bool history)
{
    printf("%-24s %-5s %-16s %-71s %-16s%s\n", "NAME", "KIND", "CHANNEL", "IMAGE ID", "SINCE", history ? " WHO AND WHY" : "");
    for (guint i = 0; i < entries->len; i++)
        print_entry(entries->pdata[i], history);
}

static void print_rules(GPtrArray *rules)
{
    for (guint i = 0; i < rules->len; i++) {
        const StoreChannelEntry *entry = rules->pdata[i];
        g_autofree char *text = rules_text(entry->rules);

        printf("%s:%s asks for %s\n", entry->name, entry->channel, text);
    }
}

static json_t *entries_json(GPtrArray *entries)
{
    json_t *list = json_array();

    for (guint i = 0; i < entries->len; i++)
        json_array_append_new(list, entry_json(entries->pdata[i]));
    return list;
}

static int tell_channels(CliContext *cli, GPtrArray *entries, GPtrArray *rules, bool history)
{
    if (cli->json)
        return cli_print_json(json_pack("{s:o, s:o}", "channels", entries_json(entries), "rules", entries_json(rules)));
    print_entries(entries, history);
    if (!history)
        print_rules(rules);
    return 0;
}

/* --- channels set --- */

typedef struct RulesCall {
    StoreChannelRules rules;
    StoreWhy why;
    bool none;
} RulesCall;

static bool is_given(const RulesCall *call)
{
    return call->none || call->rules.reason || call->rules.test || call->rules.from;
}

static bool set_rules(CliContext *cli, const RulesCall *call, char *place, GError **error)
{
    char *colon = strchr(place, ':');
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Store) store = NULL;

    if (!colon)
        return fail_code(error, KILN_ERROR_USAGE, "'%s' names no channel: write NAME:CHANNEL", place);
    if (!is_given(call) || (call->none && (call->rules.reason || call->rules.test || call->rules.from)))
        return fail_code(error, KILN_ERROR_USAGE,
                         "say what '%s' shall ask for: --require-reason, --require-test, --require-from CHANNEL, or --require-none alone", place);
    *colon = '\0';
    return cli_signing_key(NULL, &key, error) && cli_open_store(cli, STORE_OPEN_CREATE, &store, error) &&
           store_channel_set_rules(store, place, colon + 1, &call->rules, &call->why, error) && cli_sign_heads(store, key, error);
}

static int tell_rules(CliContext *cli, const RulesCall *call, const char *name, const char *channel)
{
    g_autoptr(json_t) rules = json_pack("{s:b, s:b, s:s?}", "reason", call->rules.reason, "test", call->rules.test, "from", call->rules.from);
    g_autofree char *text = rules_text(rules);

    if (cli->json)
        return cli_print_json(json_pack("{s:s, s:s, s:O}", "name", name, "channel", channel, "rules", rules));
    printf("%s:%s asks for %s\n", name, channel, text);
    return 0;
}

int verb_channels(CliContext *cli, int argc, char **argv)
{
    bool history = false;
    RulesCall call = {.none = false};
    const CliOption options[] = {{"history", CLI_FLAG, &history},
                                 {"require-reason", CLI_FLAG, &call.rules.reason},
                                 {"require-test", CLI_FLAG, &call.rules.test},
                                 {"require-from", CLI_STRING, &call.rules.from},
                                 {"require-none", CLI_FLAG, &call.none},
                                 {"reason", CLI_STRING, &call.why.reason},
                                 {"on-behalf-of", CLI_STRING, &call.why.on_behalf_of},
                                 {NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) entries = NULL, rules = NULL;
    g_autofree char **names = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "channels [--history] [NAME], or channels set --require-... NAME:CHANNEL", argc, argv, 0, 2, &names, &error))
        return cli_fail(cli, error);
    /* "set" alone is a name like others. */
    if (names[0] && names[1]) {
        if (strcmp(names[0], "set") != 0)
            (void)fail_code(&error, KILN_ERROR_USAGE, "too many arguments; usage: kiln channels [--history] [NAME]");
        if (error || !set_rules(cli, &call, names[1], &error))
            return cli_fail(cli, error);
        return tell_rules(cli, &call, names[1], names[1] + strlen(names[1]) + 1);
    }
    if (is_given(&call))
        (void)fail_code(&error, KILN_ERROR_USAGE, "--require-... belongs to: kiln channels set NAME:CHANNEL");
    if (error || !cli_open_store(cli, STORE_OPEN_CREATE | STORE_OPEN_ANYWAY, &store, &error) || !store_channels(store, names[0], history, &entries, &error) ||
        !store_channel_rules(store, names[0], &rules, &error))
        return cli_fail(cli, error);
    return tell_channels(cli, entries, rules, history);
}

/* --- promote and tag --- */

static int tell_images(CliContext *cli, GPtrArray *images, const char *name, const char *channel, bool moved)
{
    json_t *list = json_array();

    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        char id[DIGEST_OCI_SIZE];

        json_array_append_new(list, cli_image_json(image));
        if (!cli->json)
            printf("%s%s%s %s %s\n", name, channel ? ":" : "", channel ? channel : "", image->kind, digest_to_oci(&image->id, id));
    }
    if (!moved)
        log_info("it pointed there already");
    if (cli->json)
        return cli_print_json(json_pack("{s:b, s:o}", "moved", moved, "images", list));
    json_decref(list);
    return 0;
}

/* NAME[/KIND]: which of the channel's kinds goes back. */
static bool previous_images(Store *store, const char *text, const char *channel, GPtrArray **ret, GError **error)
{
    g_autofree char *name = g_strdup(text);
    char *slash = strchr(name, '/');

    if (slash)
        *slash = '\0';
    if (slash && strcmp(slash + 1, "disk") != 0 && strcmp(slash + 1, "oci") != 0)
        return fail_code(error, KILN_ERROR_USAGE, "'%s': the kind after '/' must be disk or oci", text);
    return store_channel_previous(store, name, slash ? slash + 1 : NULL, channel, ret, error);
}

static bool promote(CliContext *cli, StorePromotion *promotion, const char *ref, bool *ret_moved, GError **error)
{
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Store) store = NULL;

    if (!store_channel_check(promotion->channel, error) || !cli_signing_key(NULL, &key, error) || !cli_open_store(cli, 0, &store, error) ||
        !(promotion->back ? previous_images(store, ref, promotion->channel, &promotion->images, error)
                          : store_resolve_set(store, ref, &promotion->images, error)))
        return false;
    promotion->name = ((StoreImage *)promotion->images->pdata[0])->name;
    return store_promote(store, promotion, ret_moved, error) && (!*ret_moved || cli_sign_heads(store, key, error));
}

int verb_promote(CliContext *cli, int argc, char **argv)
{
    StorePromotion promotion = {.name = NULL};
    const CliOption options[] = {{"reason", CLI_STRING, &promotion.why.reason},
                                 {"note", CLI_STRING, &promotion.why.reason},
                                 {"on-behalf-of", CLI_STRING, &promotion.why.on_behalf_of},
                                 {"expect", CLI_STRING, &promotion.expect},
                                 {"previous", CLI_FLAG, &promotion.back},
                                 {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    bool moved = false;
    int status;

    if (!cli_parse(options, "promote [--previous] [--reason TEXT] [--on-behalf-of WHO] [--expect ID|none] REF CHANNEL", argc, argv, 2, 2,
                   &arguments, &error))
        return cli_fail(cli, error);
    promotion.channel = arguments[1];
    status = promote(cli, &promotion, arguments[0], &moved, &error)
                 ? tell_images(cli, promotion.images, promotion.name, promotion.channel, moved)
                 : cli_fail(cli, error);
    g_clear_pointer(&promotion.images, g_ptr_array_unref);
    return status;
}

/* The same images under one more name. */
int verb_tag(CliContext *cli, int argc, char **argv)
{
    const CliOption options[] = {{NULL, CLI_FLAG, NULL}};
    g_autoptr(Store) store = NULL;
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(json_t) provenance = NULL;
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    StoreSet set = {0};

    if (!cli_parse(options, "tag REF NAME", argc, argv, 2, 2, &arguments, &error) || !cli_open_store(cli, 0, &store, &error) ||
        !store_name_check(arguments[1], &error) || !store_resolve_set(store, arguments[0], &images, &error))
        return cli_fail(cli, error);
    (void)store_image_provenance(store, images->pdata[0], &provenance, NULL); /* an image without one can be tagged too */
    for (guint i = 0; i < images->len; i++) {
        StoreImage *image = images->pdata[i];

        g_free(image->name);
        image->name = g_strdup(arguments[1]);
        image->new_bytes = 0;
    }
    set = (StoreSet){.name = arguments[1], .images = images, .provenance = provenance};
    if (!store_publish(store, &set, &error))
        return cli_fail(cli, error);
    return tell_images(cli, images, arguments[1], NULL, true);
}
