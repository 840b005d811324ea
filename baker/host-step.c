/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outputs are hashed each time that somebody asks: they are the user's files, and anybody may have written to them.
 */
#include "baker/host-step.h"

#include "base/error.h"

#include <string.h>

static char **outputs_of(const BakeStep *step)
{
    return step->block && step->ops->outputs ? step->ops->outputs(step->block->args) : NULL;
}

bool host_step_is_declared(const BakeStep *step)
{
    g_auto(GStrv) outputs = outputs_of(step);

    return outputs && *outputs && step->block->inputs;
}

static char *memo_key(const BakeChain *chain, const BakeStep *step)
{
    g_autoptr(json_t) key = json_array();
    json_t *env = json_array();
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    for (char **e = chain->env; *e; e++)
        json_array_append_new(env, json_string_nocheck(*e));
    json_array_append_new(key, json_string(step->block->type));
    json_array_append_new(key, secrets_mask_json(chain->secrets, step->block->args));
    json_array_append_new(key, env);
    json_array_append_new(key, provisioner_inputs_json(step->inputs));
    json_digest(key, &digest);
    return g_strconcat("host-step:", digest_to_hex(&digest, hex), NULL);
}

static bool read_outputs(const BakeChain *chain, const BakeStep *step, char **ret, GError **error)
{
    g_auto(GStrv) outputs = outputs_of(step);
    ProvisionerHost host = bake_host(chain, step);
    g_autoptr(json_t) list = NULL;

    if (!provisioner_declared_json((const char *const *)outputs, &host, &list, error))
        return false;
    *ret = json_canonical(list);
    return true;
}

bool host_step_known(const BakeChain *chain, const BakeStep *step, bool *ret, GError **error)
{
    g_autofree char *key = memo_key(chain, step), *before = NULL, *now = NULL;

    *ret = false;
    if (!store_memo_get(chain->store, key, &before, error))
        return false;
    *ret = before && read_outputs(chain, step, &now, NULL) && strcmp(before, now) == 0;
    return true;
}

bool host_step_remember(const BakeChain *chain, const BakeStep *step, GError **error)
{
    g_autofree char *key = memo_key(chain, step), *now = NULL;
    g_autoptr(GError) problem = NULL;

    if (!read_outputs(chain, step, &now, &problem))
        return fail(error, "'%s' did not make what it declares as 'outputs': %s", step->label, problem->message);
    return chain->options->unpublished || store_memo_put(chain->store, key, now, NULL, NULL, error);
}
