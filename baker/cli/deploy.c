/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln deploy plan, apply, approve, balancer-config: from a group file to instances. The other verbs are in deploy-verbs.c, -watch.c and
 * -show.c.
 */
#include "baker/cli/deploy.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    CliVerbFn *run;
} verbs[] = {
    {"plan", deploy_plan},         {"apply", deploy_apply},     {"approve", deploy_approve}, {"watch", deploy_watch},
    {"status", deploy_status},     {"continue", deploy_continue}, {"pause", deploy_pause},   {"abort", deploy_abort},
    {"rollback", deploy_rollback}, {"resume", deploy_resume},   {"scale", deploy_scale},     {"drift", deploy_drift},
    {"history", deploy_history},   {"destroy", deploy_destroy}, {"balancer-config", deploy_balancer_config},
};

int verb_deploy(CliContext *cli, int argc, char **argv)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    const char *near;

    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
        if (argc > 1 && strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(cli, argc - 1, argv + 1);
        g_ptr_array_add(names, (char *)verbs[i].name);
    }
    g_ptr_array_add(names, NULL);
    near = argc > 1 ? units_nearest(argv[1], (const char *const *)names->pdata) : NULL;
    (void)fail_code(&error, KILN_ERROR_USAGE, "deploy needs a verb: plan, apply, approve, watch, status, continue, pause, abort, rollback, resume, scale, drift, "
                    "history, destroy or balancer-config%s%s%s", near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return cli_fail(cli, error);
}

/* --- group files of a command line --- */

typedef struct Call {
    CliContext *cli;
    GPtrArray *vars, *var_files;
    const char *approve, *reason, *on_behalf_of;
    bool retry, without_silent, wait, detailed;
    char **arguments;
    Store *store;
    SignatureKey *key; /* NULL: none is configured */
    GPtrArray *files; /* of GroupFile* */
} Call;

static void call_clear(Call *call)
{
    g_ptr_array_unref(call->vars);
    g_ptr_array_unref(call->var_files);
    g_clear_pointer(&call->files, g_ptr_array_unref);
    g_free(call->arguments);
    signature_key_free(call->key);
    store_close(call->store);
}

static bool call_open(Call *call, CliContext *cli, const char *usage, int argc, char **argv, GError **error)
{
    const CliOption options[] = {{"var", CLI_LIST, call->vars},
                                 {"var-file", CLI_LIST, call->var_files},
                                 {"approve", CLI_STRING, &call->approve},
                                 {"reason", CLI_STRING, &call->reason},
                                 {"on-behalf-of", CLI_STRING, &call->on_behalf_of},
                                 {"retry", CLI_FLAG, &call->retry},
                                 {"without-silent-hosts", CLI_FLAG, &call->without_silent},
                                 {"wait", CLI_FLAG, &call->wait},
                                 {"detailed-exitcode", CLI_FLAG, &call->detailed},
                                 {NULL, CLI_FLAG, NULL}};

    call->cli = cli;
    return cli_parse(options, usage, argc, argv, 1, 1, &call->arguments, error) &&
           store_why_check(&(StoreWhy){call->reason, call->on_behalf_of}, error) && cli_signing_key(NULL, &call->key, error) &&
           group_load(call->arguments[0], cli_strings(call->vars), cli_strings(call->var_files), &call->files, error) &&
           cli_open_store(cli, STORE_OPEN_CREATE, &call->store, error);
}

static void call_init(Call *call)
{
    *call = (Call){.vars = g_ptr_array_new(), .var_files = g_ptr_array_new()};
}

static PlanRequest request_of(const Call *call, const GroupFile *file)
{
    return (PlanRequest){.file = file, .retry = call->retry, .without_silent_hosts = call->without_silent};
}

/* --- plan --- */

static void print_hosts(const Plan *plan)
{
    for (unsigned i = 0; i < plan->host_count; i++) {
        const DriverNeeds *needs = &plan->needs[i];
        g_autofree char *move = units_format_size(needs->bytes_to_move), *disk = units_format_size(needs->disk);
        g_autofree char *memory = units_format_size(needs->memory);

        printf("  host %s: at most %u instances; %s to move, %s more memory, %s more disk\n", plan->hosts[i], plan->counts[i], move, memory, disk);
    }
}

static void print_plan(const Plan *plan)
{
    char id[DIGEST_OCI_SIZE];
    g_autofree char *worst = units_format_duration(plan->worst), *back = units_format_duration(plan->rollback);

    printf("group %s: %s %s as revision %u", plan->group, plan->image->name, digest_to_oci(&plan->image->id, id), plan->revision);
    if (plan->from)
        printf(", from revision %u", plan->from);
    printf("\n");
    if (plan->nothing) {
        printf("  nothing to do\n");
        return;
    }
    printf("  size %u, never fewer than %u serving, never more than %u in all\n", plan->size, plan->floor, plan->ceiling);
    print_hosts(plan);
    printf("  firewall: %s\n", plan->firewall ? plan->firewall : "none");
    for (guint i = 0; i < plan->warnings->len; i++)
        printf("  warning: %s\n", (char *)plan->warnings->pdata[i]);
    for (guint i = 0; i < plan->steps->len; i++) {
        const PlanStep *step = plan->steps->pdata[i];

        printf("  %4u  %-44s serving %u, existing %u\n", i + 1, step->line, step->serving, step->existing);
    }
    printf("  at worst %s%s; going back takes at most %s\n", worst, plan->gates ? " and as long as somebody takes to continue" : "", back);
    printf("  hash %s\n", digest_to_oci(&plan->hash, id));
}

int deploy_plan(CliContext *cli, int argc, char **argv)
{
    __attribute__((cleanup(call_clear))) Call call;
    g_autoptr(GError) error = NULL;
    json_t *plans = json_array();
    bool work = false;

    call_init(&call);
    if (!call_open(&call, cli, "deploy plan [-var K=V] [-var-file F] [--retry] [--without-silent-hosts] [-detailed-exitcode] GROUPFILE|FOLDER", argc, argv, &error))
        goto failed;
    for (guint i = 0; i < call.files->len; i++) {
        const GroupFile *file = call.files->pdata[i];
        PlanRequest request = request_of(&call, file);
        g_autoptr(Plan) plan = NULL;

        if (!plan_make(call.store, file->spec->name, &request, &plan, &error))
            goto failed;
        work = work || !plan->nothing;
        if (cli->json)
            json_array_append_new(plans, plan_json(plan));
        else
            print_plan(plan);
    }
    if (cli->json)
        (void)cli_print_json(json_pack("{s:O}", "plans", plans));
    json_decref(plans);
    return work && call.detailed ? 2 : 0;

failed:
    json_decref(plans);
    return cli_fail(cli, error);
}

/* --- apply --- */

/* Another person's approval of this very plan, as the journal has it. */
static bool find_approval(Store *store, const Plan *plan, char **ret_who, GError **error)
{
    g_autoptr(GPtrArray) records = NULL;
    g_autofree char *me = store_user();
    char hash[DIGEST_OCI_SIZE];

    *ret_who = NULL;
    if (!store_journal_read(store, plan->group, 0, &records, error))
        return false;
    digest_to_oci(&plan->hash, hash);
    for (guint i = records->len; i-- > 0;) {
        const StoreJournalRecord *record = records->pdata[i];
        const char *verb = json_string_value(json_object_get(record->record, "verb"));
        const char *approved = json_string_value(json_object_get(json_object_get(record->record, "arguments"), "plan"));

        if (g_strcmp0(verb, "approve") == 0 && g_strcmp0(approved, hash) == 0 && g_strcmp0(record->who, me) != 0) {
            *ret_who = g_strdup(record->who);
            return true;
        }
    }
    return true;
}

static bool check_approval(const Call *call, const GroupSpec *spec, const Plan *plan, char **ret_approver, GError **error)
{
    char hash[DIGEST_OCI_SIZE];

    *ret_approver = NULL;
    digest_to_oci(&plan->hash, hash);
    if (call->approve && strcmp(call->approve, hash) != 0 && !(strlen(call->approve) >= 12 && g_str_has_prefix(hash + 7, call->approve)))
        return fail(error, "the world of group '%s' has changed since that plan: its hash is now %s; look at `kiln deploy plan` again", plan->group, hash);
    if (!spec || !spec->approval)
        return true;
    if (!find_approval(call->store, plan, ret_approver, error))
        return false;
    return *ret_approver != NULL ||
           fail(error, "group '%s' needs another person's approval of plan %s: `kiln deploy approve %s %s`", plan->group, hash, plan->group, hash);
}

/* The wish, as the audit reads it. */
static void describe_want(const Call *call, const Plan *plan, const char *approver)
{
    json_t *want = json_array_get(plan->records, json_array_size(plan->records) - 1);
    char hash[DIGEST_OCI_SIZE];

    json_object_set_new(want, "plan", json_string(digest_to_oci(&plan->hash, hash)));
    json_object_set_new(want, "steps", json_string(digest_to_oci(&plan->steps_digest, hash)));
    if (call->reason)
        json_object_set_new(want, "reason", json_string_nocheck(call->reason));
    if (call->on_behalf_of)
        json_object_set_new(want, "on_behalf_of", json_string_nocheck(call->on_behalf_of));
    if (approver)
        json_object_set_new(want, "approver", json_string_nocheck(approver));
}

int deploy_tell(CliContext *cli, const Controller *controller, Wait wait)
{
    const Group *group = controller->group;
    const GroupState *state = group->state;
    const RevisionFacts *current = group_revision_facts(group, state->target ? state->target : state->current);
    bool back = g_strcmp0(group->outcome, "rolled back") == 0;
    char id[DIGEST_OCI_SIZE] = "";

    if (current)
        digest_to_oci(&current->image, id);
    if (cli->json)
        (void)cli_print_json(json_pack("{s:s, s:I, s:s, s:s, s:s*, s:s*}", "group", group->name, "revision", (json_int_t)(current ? current->number : 0), "image",
                                       id, "phase", group->destroyed ? "destroyed" : phase_name(state->phase), "outcome", group->outcome, "waits_for",
                                       wait == WAIT_NOTHING ? NULL : wait_sentence(wait)));
    else if (group->destroyed)
        printf("%s destroyed\n", group->name);
    else if (back && !state->target && !state->current)
        printf("%s rolled back: nothing is deployed\n", group->name);
    else if (back && !state->target)
        printf("%s rolled back to revision %u %s\n", group->name, state->current, id);
    else
        printf("%s revision %u %s %s%s%s\n", group->name, current ? current->number : 0, id, state->target ? phase_name(state->phase) : "stable",
               wait == WAIT_NOTHING ? "" : ": ", wait == WAIT_NOTHING ? "" : wait_sentence(wait));
    return back && !state->target && controller->changed ? 1 : 0;
}

static bool apply_file(const Call *call, const GroupFile *file, int *ret_status, GError **error)
{
    PlanRequest request = request_of(call, file);
    g_autoptr(Controller) controller = NULL;
    g_autoptr(StoreLease) lease = NULL;
    g_autoptr(Plan) plan = NULL;
    g_autofree char *approver = NULL;
    Wait wait = WAIT_NOTHING;

    if (!store_lease_take(call->store, "deploy apply", &lease, error) ||
        !controller_open(call->store, file->spec->name, false, &controller, error) ||
        !plan_make(call->store, file->spec->name, &request, &plan, error) || !check_approval(call, file->spec, plan, &approver, error))
        return false;
    controller->key = call->key;
    if (plan->nothing && !controller->group->state->target) {
        *ret_status = deploy_tell(call->cli, controller, WAIT_NOTHING);
        return true;
    }
    if (!plan->nothing) {
        describe_want(call, plan, approver);
        if (!controller_want(controller, plan, error))
            return false;
    }
    if (!controller_run(controller, call->wait ? UNTIL_STABLE : UNTIL_TRAFFIC, &wait, error))
        return false;
    *ret_status = deploy_tell(call->cli, controller, wait);
    return true;
}

int deploy_apply(CliContext *cli, int argc, char **argv)
{
    __attribute__((cleanup(call_clear))) Call call;
    g_autoptr(GError) error = NULL;
    int worst = 0;

    call_init(&call);
    if (!call_open(&call, cli,
                   "deploy apply [-var K=V] [-var-file F] [--approve HASH] [--reason TEXT] [--on-behalf-of NAME] [--retry] [--without-silent-hosts] [--wait] "
                   "GROUPFILE|FOLDER", argc, argv, &error))
        return cli_fail(cli, error);
    if (call.approve && call.files->len > 1) {
        (void)fail_code(&error, KILN_ERROR_USAGE, "--approve is for one group, and '%s' has %u", call.arguments[0], call.files->len);
        return cli_fail(cli, error);
    }
    for (guint i = 0; i < call.files->len; i++) {
        int status = 0;

        if (!apply_file(&call, call.files->pdata[i], &status, &error))
            return cli_fail(cli, error);
        worst = MAX(worst, status);
    }
    return worst;
}

/* --- approve --- */

int deploy_approve(CliContext *cli, int argc, char **argv)
{
    const char *reason = NULL;
    const CliOption options[] = {{"reason", CLI_STRING, &reason}, {NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(Store) store = NULL;
    g_autoptr(Controller) controller = NULL;
    g_autoptr(json_t) what = NULL;
    g_autoptr(GError) error = NULL;
    Digest hash;

    if (!cli_parse(options, "deploy approve [--reason TEXT] GROUP HASH", argc, argv, 2, 2, &arguments, &error))
        return cli_fail(cli, error);
    if (!digest_parse(arguments[1], &hash)) {
        (void)fail_code(&error, KILN_ERROR_USAGE, "'%s' is no plan's hash; `kiln deploy plan` prints it", arguments[1]);
        return cli_fail(cli, error);
    }
    what = json_pack("{s:s}", "plan", arguments[1]);
    if (!cli_open_store(cli, STORE_OPEN_CREATE, &store, &error) || !controller_open(store, arguments[0], false, &controller, &error) ||
        !controller_verb(controller, "approve", what, reason, NULL, &error))
        return cli_fail(cli, error);
    log_info("%s: the plan is approved", arguments[0]);
    return 0;
}

/* --- balancer-config --- */

int deploy_balancer_config(CliContext *cli, int argc, char **argv)
{
    __attribute__((cleanup(call_clear))) Call call;
    g_autoptr(GError) error = NULL;

    call_init(&call);
    if (!call_open(&call, cli, "deploy balancer-config [-var K=V] [-var-file F] GROUPFILE|FOLDER", argc, argv, &error))
        return cli_fail(cli, error);
    for (guint i = 0; i < call.files->len; i++) {
        const GroupFile *file = call.files->pdata[i];
        const BalancerOps *ops = balancer_find(file->spec->balancer, NULL);
        BalancerConfig config;

        if (!ops || !ops->config_lines) {
            log_info("%s: balancer '%s' needs no configuration", file->spec->name, file->spec->balancer);
            continue;
        }
        world_balancer_config(file->spec, file->size, &config);
        g_autofree char *lines = ops->config_lines(&config);
        fputs(lines, stdout);
    }
    return 0;
}
