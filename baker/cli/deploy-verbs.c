/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln deploy continue, pause, abort, rollback, resume, scale, destroy: journaled words to a group.
 *
 * Where another process holds the group, the word is left for it as a letter; else this process becomes the controller and
 * carries out what follows from the word.
 */
#include "baker/cli/deploy.h"

#include "base/interrupt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double LETTER_SECONDS = 30;

typedef struct Word {
    CliContext *cli;
    const char *verb, *group;
    const char *reason, *on_behalf_of;
    json_t *arguments;      /* of the verb; may be NULL */
    ControllerUntil until;
    bool only_say;          /* nothing is to be carried out */
} Word;

/* Waits until the controller has taken the letter; one that stays untaken is taken back. */
static bool send_letter(const Word *word, Store *store, GError **error)
{
    g_autoptr(json_t) record = group_verb_record(word->verb, word->arguments, word->reason, word->on_behalf_of);
    gint64 end = g_get_monotonic_time() + (gint64)(LETTER_SECONDS * G_USEC_PER_SEC);
    bool waiting = true;
    int64_t number;

    if (!store_journal_ask(store, word->group, record, &number, error))
        return false;
    while (waiting && g_get_monotonic_time() < end && !interrupt_requested()) {
        g_usleep(20000);
        if (!store_journal_is_waiting(store, number, &waiting, error))
            return false;
    }
    if (!waiting) {
        log_info("%s: the controller was told to %s", word->group, word->verb);
        return true;
    }
    (void)store_journal_take_back(store, number, NULL);
    return interrupt_check(error) && fail(error, "the controller of group '%s' did not answer within %.0f seconds", word->group, LETTER_SECONDS);
}

static int carry_out(const Word *word, Controller *controller)
{
    g_autoptr(GError) error = NULL;
    Wait wait = WAIT_NOTHING;
    int status;

    if (word->only_say) {
        log_info("%s: %s", word->group, word->verb);
        return 0;
    }
    if (!controller_run(controller, word->until, &wait, &error))
        return cli_fail(word->cli, error);
    status = deploy_tell(word->cli, controller, wait);
    return strcmp(word->verb, "continue") == 0 || strcmp(word->verb, "resume") == 0 ? status : 0; /* going back was asked for */
}

static int say(Word *word, Store *store)
{
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Controller) controller = NULL;
    g_autoptr(GError) error = NULL;
    int64_t holder;

    if (!store_why_check(&(StoreWhy){word->reason, word->on_behalf_of}, &error) || !cli_signing_key(NULL, &key, &error) || !store_journal_holder(store, word->group, &holder, &error))
        return cli_fail(word->cli, error);
    if (holder)
        return send_letter(word, store, &error) ? 0 : cli_fail(word->cli, error);
    if (!controller_open(store, word->group, false, &controller, &error) || !group_check_exists(controller->group, &error) ||
        !controller_verb(controller, word->verb, word->arguments, word->reason, word->on_behalf_of, &error))
        return cli_fail(word->cli, error);
    controller->key = key;
    return carry_out(word, controller);
}

/* The group as it is, for checks before a word is said. */
static bool look(Store *store, const char *name, Group **ret, GError **error)
{
    g_autoptr(Group) group = NULL;

    if (!group_read(store, name, &group, error) || !group_check_exists(group, error))
        return false;
    *ret = g_steal_pointer(&group);
    return true;
}

static int say_plain(CliContext *cli, int argc, char **argv, const char *verb, ControllerUntil until, bool only_say, bool needs_rollout)
{
    Word word = {.cli = cli, .verb = verb, .until = until, .only_say = only_say};
    const CliOption options[] = {{"reason", CLI_STRING, &word.reason}, {"on-behalf-of", CLI_STRING, &word.on_behalf_of}, {NULL, CLI_FLAG, NULL}};
    g_autofree char *usage = g_strdup_printf("deploy %s [--reason TEXT] [--on-behalf-of NAME] GROUP", verb);
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(Group) group = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, usage, argc, argv, 1, 1, &arguments, &error) || !cli_open_store(cli, 0, &store, &error) ||
        !look(store, arguments[0], &group, &error))
        return cli_fail(cli, error);
    if (needs_rollout && !group->state->target && !group->state->next) {
        (void)fail(&error, "group '%s' has no rollout that could be told to %s", arguments[0], verb);
        return cli_fail(cli, error);
    }
    word.group = arguments[0];
    return say(&word, store);
}

int deploy_continue(CliContext *cli, int argc, char **argv)
{
    return say_plain(cli, argc, argv, "continue", UNTIL_TRAFFIC, false, false);
}

int deploy_pause(CliContext *cli, int argc, char **argv)
{
    return say_plain(cli, argc, argv, "pause", UNTIL_QUIET, true, false);
}

int deploy_abort(CliContext *cli, int argc, char **argv)
{
    return say_plain(cli, argc, argv, "abort", UNTIL_STABLE, false, true);
}

/* --- resume: no word, only work --- */

int deploy_resume(CliContext *cli, int argc, char **argv)
{
    bool wait_stable = false;
    const CliOption options[] = {{"wait", CLI_FLAG, &wait_stable}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(Controller) controller = NULL;
    g_autoptr(GError) error = NULL;
    Wait wait = WAIT_NOTHING;

    if (!cli_parse(options, "deploy resume [--wait] GROUP", argc, argv, 1, 1, &arguments, &error) || !cli_signing_key(NULL, &key, &error) ||
        !cli_open_store(cli, 0, &store, &error) || !controller_open(store, arguments[0], false, &controller, &error) ||
        !group_check_exists(controller->group, &error))
        return cli_fail(cli, error);
    controller->key = key;
    if (!controller_run(controller, wait_stable ? UNTIL_STABLE : UNTIL_TRAFFIC, &wait, &error))
        return cli_fail(cli, error);
    return deploy_tell(cli, controller, wait);
}

/* --- scale --- */

int deploy_scale(CliContext *cli, int argc, char **argv)
{
    Word word = {.cli = cli, .verb = "scale", .until = UNTIL_TRAFFIC};
    const CliOption options[] = {{"reason", CLI_STRING, &word.reason}, {"on-behalf-of", CLI_STRING, &word.on_behalf_of}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(Group) group = NULL;
    g_autoptr(json_t) size = NULL;
    g_autoptr(GError) error = NULL;
    char *end;
    long number;

    if (!cli_parse(options, "deploy scale [--reason TEXT] [--on-behalf-of NAME] GROUP SIZE", argc, argv, 2, 2, &arguments, &error))
        return cli_fail(cli, error);
    number = strtol(arguments[1], &end, 10);
    if (*end || end == arguments[1] || number < 0 || number > 10000) {
        (void)fail_code(&error, KILN_ERROR_USAGE, "'%s' is no size: a number from 0 to 10000", arguments[1]);
        return cli_fail(cli, error);
    }
    if (!cli_open_store(cli, 0, &store, &error) || !look(store, arguments[0], &group, &error) ||
        !plan_check_size(group, (unsigned)number, &error))
        return cli_fail(cli, error);
    size = json_pack("{s:I}", "size", (json_int_t)number);
    word.group = arguments[0];
    word.arguments = size;
    return say(&word, store);
}

/* --- rollback --- */

/* The last revision before the present one that has held. */
static uint32_t revision_before(const Group *group)
{
    for (guint i = group->state->revisions->len; i-- > 0;) {
        const Revision *revision = &g_array_index(group->state->revisions, Revision, i);

        if (revision->number < group->state->current && revision->stable && !revision->failed)
            return revision->number;
    }
    return 0;
}

static bool roll_to(Word *word, Store *store, uint32_t revision, const char *allow_revoked, Controller **ret, GError **error)
{
    PlanRequest request = {.revision = revision, .retry = true, .allow_revoked = allow_revoked, .without_silent_hosts = true};
    g_autoptr(Controller) controller = NULL;
    g_autoptr(Plan) plan = NULL;
    json_t *want;
    char hash[DIGEST_OCI_SIZE];

    if (!controller_open(store, word->group, false, &controller, error) || !plan_make(store, word->group, &request, &plan, error))
        return false;
    want = json_array_get(plan->records, json_array_size(plan->records) - 1);
    json_object_set_new(want, "plan", json_string(digest_to_oci(&plan->hash, hash)));
    json_object_set_new(want, "steps", json_string(digest_to_oci(&plan->steps_digest, hash)));
    json_object_set_new(want, "reason", json_string_nocheck(word->reason ? word->reason : "rollback"));
    if (word->on_behalf_of)
        json_object_set_new(want, "on_behalf_of", json_string_nocheck(word->on_behalf_of));
    if (!plan->nothing && !controller_want(controller, plan, error))
        return false;
    *ret = g_steal_pointer(&controller);
    return true;
}

static int rollback_idle(Word *word, Store *store, const Group *group, uint32_t to, const char *allow_revoked)
{
    g_autoptr(SignatureKey) key = NULL;
    g_autoptr(Controller) controller = NULL;
    g_autoptr(GError) error = NULL;
    uint32_t revision = to ? to : revision_before(group);

    if (!revision) {
        (void)fail(&error, "group '%s' has no earlier revision that has held; name one with --to", word->group);
        return cli_fail(word->cli, error);
    }
    if (!store_why_check(&(StoreWhy){word->reason, word->on_behalf_of}, &error) || !cli_signing_key(NULL, &key, &error) ||
        !roll_to(word, store, revision, allow_revoked, &controller, &error))
        return cli_fail(word->cli, error);
    controller->key = key;
    return carry_out(word, controller);
}

int deploy_rollback(CliContext *cli, int argc, char **argv)
{
    Word word = {.cli = cli, .verb = "back", .until = UNTIL_TRAFFIC};
    const char *to = NULL, *allow_revoked = NULL;
    const CliOption options[] = {{"reason", CLI_STRING, &word.reason}, {"on-behalf-of", CLI_STRING, &word.on_behalf_of}, {"to", CLI_STRING, &to},
                                 {"allow-revoked", CLI_STRING, &allow_revoked}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(Group) group = NULL;
    g_autoptr(GError) error = NULL;
    uint32_t number = 0;

    if (!cli_parse(options, "deploy rollback [--to REVISION] [--allow-revoked REASON] [--reason TEXT] [--on-behalf-of NAME] GROUP", argc, argv, 1, 1, &arguments, &error) ||
        !cli_open_store(cli, 0, &store, &error) || !look(store, arguments[0], &group, &error))
        return cli_fail(cli, error);
    word.group = arguments[0];
    if (to && (!(number = (uint32_t)strtoul(to, NULL, 10)) || !group_revision_facts(group, number))) {
        (void)fail_code(&error, KILN_ERROR_USAGE, "group '%s' has no revision '%s'; `kiln deploy history` lists them", word.group, to);
        return cli_fail(cli, error);
    }
    if (group->state->target && (!number || number == group->state->current)) { /* a rollout is under way: it goes back */
        word.until = UNTIL_STABLE;
        return say(&word, store);
    }
    return rollback_idle(&word, store, group, number, allow_revoked);
}

/* --- destroy --- */

int deploy_destroy(CliContext *cli, int argc, char **argv)
{
    Word word = {.cli = cli, .verb = "destroy", .until = UNTIL_STABLE};
    bool volumes = false;
    const CliOption options[] = {{"reason", CLI_STRING, &word.reason}, {"on-behalf-of", CLI_STRING, &word.on_behalf_of}, {"volumes", CLI_FLAG, &volumes},
                                 {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(Group) group = NULL;
    g_autoptr(json_t) what = NULL;
    g_autoptr(GError) error = NULL;

    if (!cli_parse(options, "deploy destroy [--volumes] [--reason TEXT] [--on-behalf-of NAME] GROUP", argc, argv, 1, 1, &arguments, &error) ||
        !cli_open_store(cli, 0, &store, &error) || !look(store, arguments[0], &group, &error))
        return cli_fail(cli, error);
    what = json_pack("{s:b}", "volumes", volumes);
    word.group = arguments[0];
    word.arguments = what;
    return say(&word, store);
}
