/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds: every (build, source) pair becomes one TemplateBuild, with all its arguments evaluated for it.
 *
 * What -only and -except leave out is not evaluated at all, so that a broken source does not stop the others.
 */
#include "base/units.h"
#include "templates/language/lexer.h"
#include "templates/language/types.h"
#include "templates/template-private.h"

#include <fnmatch.h>
#include <string.h>

enum { NAME_LENGTH_MAX = 100 };

typedef struct Ref {
    const Block *source;
    const char *type, *name; /* the alias where one is given */
    const char *image;       /* the name of what is baked */
    Range range;
    const BlockUse *completion; /* build's own source block, or NULL */
} Ref;

/* A build block and the sources that it names. */
typedef struct Plan {
    const Block *block;
    const char *name; /* or NULL */
    GPtrArray *refs;  /* of Ref* in the arena */
} Plan;

/* What is being evaluated: one build block with one source. */
typedef struct Pair {
    Template *t;
    const Block *block;
    const Ref *ref;
    const Scope *scope;
    const char *build_name; /* of the build block, or NULL */
    TemplateBuild *out;
} Pair;

static const char *const provisioner_generic[] = { "name", "only", "except", "override", "pause_before", "timeout",
                                                   "max_retries", "continue_on_error", "network", "refresh",
                                                   "inputs", "only_output", NULL };
static const char *const post_generic[] = { "name", "only", "except", NULL };
static const char *const output_generic[] = { "only", "except", NULL };

/* --- sources --- */

static const Block *find_source(Template *t, const char *type, const char *name)
{
    g_autofree char *whole = g_strdup_printf("%s.%s", type, name);

    return g_hash_table_lookup(t->named_sources, whole);
}

static const char *near_source(Template *t, const char *wanted)
{
    const char **names = arena_new0(t->arena, const char *, t->sources->len + 1);

    for (guint i = 0; i < t->sources->len; i++) {
        const Block *block = t->sources->pdata[i];

        names[i] = arena_printf(t->arena, "%s.%s", block->labels[0], block->labels[1]);
    }
    return did_you_mean(t->arena, wanted, names);
}

/* "T.N", "source.T.N", "sources.T.N": of three parts the first is not looked at, as in Packer. */
static void add_ref(Template *t, GPtrArray *refs, const char *text, Range range, const BlockUse *completion)
{
    g_auto(GStrv) parts = g_strsplit(text, ".", -1);
    guint n = g_strv_length(parts);
    guint first = n > 2 ? 1 : 0;
    g_autofree char *wanted = n >= 2 ? g_strconcat(parts[first], ".", parts[first + 1], NULL) : NULL;
    const Block *source = wanted ? find_source(t, parts[first], parts[first + 1]) : NULL;
    Ref *ref;

    if (!wanted || !*parts[first] || !*parts[first + 1]) {
        diagnose(&t->diagnostics, range, "'%s' names no source; it is written source.TYPE.NAME", text);
        return;
    }
    if (source && !completion && (!lex_is_ident(parts[first]) || !lex_is_ident(parts[first + 1]))) {
        diagnose(&t->diagnostics, range, "'%s' can't be named here: a source's type and name begin with a letter and go on with letters, digits, '_' and '-'", wanted);
        return;
    }
    if (!source) {
        diagnose(&t->diagnostics, range, "there is no source '%s'%s", wanted, near_source(t, wanted));
        return;
    }
    ref = arena_new0(t->arena, Ref, 1);
    *ref = (Ref){ .source = source, .type = source->labels[0], .name = source->labels[1], .range = range, .completion = completion };
    g_ptr_array_add(refs, ref);
}

/* sources = [source.qemu.x] without quotes reads as a reference to what is no value; say what to write. */
static bool is_bare_reference(const Expr *expr)
{
    while (expr->kind == EXPR_ATTRIBUTE)
        expr = expr->left;
    return expr->kind == EXPR_VARIABLE && (strcmp(expr->name, "source") == 0 || strcmp(expr->name, "sources") == 0);
}

static void refs_from_list(Template *t, const Attribute *sources, GPtrArray *refs)
{
    const Expr *expr = sources->expr;
    EvalContext context;
    Value *list;

    for (size_t i = 0; expr->kind == EXPR_TUPLE && i < expr->n_items; i++)
        if (is_bare_reference(expr->items[i])) {
            diagnose(&t->diagnostics, expr->items[i]->range, "a source is named in quotes here, as in \"source.TYPE.NAME\"");
            return;
        }
    template_context(t, NULL, &context);
    list = eval_as(&context, expr, type_list_of(t->arena, &type_string), "'sources'");
    if (!list)
        return;
    if (!value_is_wholly_known(list) || value_is_null(list)) {
        if (t->diagnostics.count == 0 && !t->options->allow_unset)
            diagnose(&t->diagnostics, expr->range, "'sources' must be known");
        return;
    }
    for (size_t i = 0; i < list->n; i++)
        if (!value_is_null(list->items[i]))
            add_ref(t, refs, list->items[i]->string,
                    expr->kind == EXPR_TUPLE && expr->n_items == list->n ? expr->items[i]->range : expr->range, NULL);
}

static void ref_from_block(Template *t, const BlockUse *use, GPtrArray *refs)
{
    static const char *const what[] = { "source.TYPE.NAME" };
    guint before = refs->len;
    const char *alias;

    if (!check_labels(t, use, 1, what))
        return;
    add_ref(t, refs, use->labels[0], use->header, use);
    alias = body_string(t, use->body, "name", use->scope, NULL);
    if (refs->len > before && alias)
        ((Ref *)refs->pdata[before])->name = alias;
}

/* --- names --- */

/*
 * Any text as a name of an image. Packer lets builds and sources be called anything, and two of them the same; what is baked has a name
 * of lower-case letters, digits, '.', '_' and '-', which is not just 12 or more hexadecimal digits: that would be an image ID.
 */
static char *image_name(const char *text)
{
    g_autofree char *name = g_ascii_strdown(text, NAME_LENGTH_MAX);
    const char *start;

    for (char *letter = name; *letter; letter++)
        if (!g_ascii_isalnum(*letter) && !strchr("._-", *letter))
            *letter = '-';
    start = name + strspn(name, "._-");
    if (!*start)
        return g_strdup("image");
    if (strlen(start) >= 12 && start[strspn(start, "0123456789abcdef")] == '\0')
        return g_strconcat(start, "-image", NULL);
    return g_strdup(start);
}

/* What a build's image is called: short where that tells it apart from the template's other builds, else with the source's type. */
static char *pair_name(const Plan *plan, const Ref *ref, bool with_type)
{
    g_autofree char *source = with_type ? g_strconcat(ref->type, ".", ref->name, NULL) : g_strdup(ref->name);
    g_autofree char *whole = plan->name ? g_strconcat(plan->name, ".", source, NULL) : g_strdup(source);

    return image_name(plan->name && plan->refs->len == 1 && !with_type ? plan->name : whole);
}

static void count_names(GHashTable *counts, const Plan *plan)
{
    for (guint i = 0; i < plan->refs->len; i++) {
        char *name = pair_name(plan, plan->refs->pdata[i], false);

        g_hash_table_replace(counts, name, GUINT_TO_POINTER(GPOINTER_TO_UINT(g_hash_table_lookup(counts, name)) + 1));
    }
}

static const char *unused_name(Template *t, GHashTable *taken, const char *name)
{
    char *next = arena_printf(t->arena, "%s", name);

    for (unsigned i = 2; g_hash_table_contains(taken, next); i++)
        next = arena_printf(t->arena, "%s-%u", name, i);
    g_hash_table_add(taken, next);
    return next;
}

/* Of all builds, whatever -only and -except leave out, so that a name does not depend on them. */
static void name_refs(Template *t, GPtrArray *plans)
{
    g_autoptr(GHashTable) counts = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GHashTable) taken = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < plans->len; i++)
        count_names(counts, plans->pdata[i]);
    for (guint i = 0; i < plans->len; i++) {
        const Plan *plan = plans->pdata[i];

        for (guint j = 0; j < plan->refs->len; j++) {
            Ref *ref = plan->refs->pdata[j];
            g_autofree char *brief = pair_name(plan, ref, false);
            bool shared = GPOINTER_TO_UINT(g_hash_table_lookup(counts, brief)) > 1;
            g_autofree char *whole = shared ? pair_name(plan, ref, true) : NULL;

            ref->image = unused_name(t, taken, shared ? whole : brief);
        }
    }
}

/* --- -only and -except --- */

static bool matches(const char *const *globs, const Pair *pair)
{
    g_autofree char *plain = g_strdup_printf("%s.%s", pair->ref->type, pair->ref->name);
    g_autofree char *full = pair->build_name ? g_strdup_printf("%s.%s", pair->build_name, plain) : g_strdup(plain);

    for (size_t i = 0; globs && globs[i]; i++)
        if (fnmatch(globs[i], full, 0) == 0 || fnmatch(globs[i], pair->out->name, 0) == 0)
            return true;
    return false;
}

static bool is_selected(const Pair *pair)
{
    const TemplateOptions *options = pair->t->options;

    if (options->only && options->only[0] && !matches(options->only, pair))
        return false;
    return !matches(options->except, pair);
}

/* -rebase "TYPE.NAME=BASE": the last one for this source. */
static void take_rebase(const Pair *pair)
{
    const char *const *rebase = pair->t->options->rebase;
    g_autofree char *alias = g_strdup_printf("%s.%s=", pair->ref->type, pair->ref->name);
    g_autofree char *own = g_strdup_printf("%s.%s=", pair->ref->type, pair->ref->source->labels[1]);

    for (size_t i = 0; rebase && rebase[i]; i++) {
        const char *name = g_str_has_prefix(rebase[i], "source.") ? rebase[i] + strlen("source.") : rebase[i];

        if (!g_str_has_prefix(name, alias) && !g_str_has_prefix(name, own))
            continue;
        g_free(pair->out->rebase);
        pair->out->rebase = g_strdup(strchr(name, '=') + 1);
        g_ptr_array_add(pair->t->rebased, g_strdup(rebase[i]));
    }
}

/* A mistyped name must not bake on the template's own source. */
static void check_rebase(Template *t)
{
    const char *const *rebase = t->options->rebase;

    for (size_t i = 0; rebase && rebase[i]; i++) {
        const char *equals = strchr(rebase[i], '=');

        if (!equals || equals == rebase[i] || !equals[1] || !memchr(rebase[i], '.', (size_t)(equals - rebase[i])))
            diagnose(&t->diagnostics, (Range){ 0 }, "-rebase is written 'TYPE.NAME=image:REF' or 'TYPE.NAME=FILE', not '%s'", rebase[i]);
        else if (!g_ptr_array_find_with_equal_func(t->rebased, rebase[i], g_str_equal, NULL) && t->diagnostics.count == 0)
            diagnose(&t->diagnostics, (Range){ 0 }, "-rebase '%s': no source of that name is baked here%s", rebase[i],
                     near_source(t, arena_printf(t->arena, "%.*s", (int)(equals - rebase[i]), rebase[i])));
    }
}

/* --- generic options --- */

static char **string_list(const Pair *pair, const BlockUse *use, const char *name)
{
    const Attribute *attribute = body_attribute(use->body, name);
    g_autofree char *what = g_strdup_printf("'%s'", name);
    g_autoptr(GPtrArray) out = g_ptr_array_new();
    EvalContext context;
    Value *list;

    if (!attribute)
        return NULL;
    template_context(pair->t, use->scope, &context);
    list = eval_as(&context, attribute->expr, type_list_of(pair->t->arena, &type_string), what);
    if (!list || list->state != VALUE_KNOWN)
        return NULL;
    for (size_t i = 0; i < list->n; i++)
        if (list->items[i]->state == VALUE_KNOWN)
            g_ptr_array_add(out, g_strdup(list->items[i]->string));
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&out), FALSE);
}

/* only and except of a component hold exact names, TYPE.NAME; an empty list says nothing. */
static bool applies_here(const Pair *pair, const BlockUse *use)
{
    g_auto(GStrv) only = string_list(pair, use, "only");
    g_auto(GStrv) except = string_list(pair, use, "except");
    g_autofree char *name = g_strdup_printf("%s.%s", pair->ref->type, pair->ref->name);

    if (only && only[0] && except && except[0]) {
        diagnose(&pair->t->diagnostics, use->header, "a block has 'only' or 'except', not both");
        return false;
    }
    if (only && only[0])
        return g_strv_contains((const char *const *)only, name);
    return !except || !g_strv_contains((const char *const *)except, name);
}

static double duration(const Pair *pair, const BlockUse *use, const char *name)
{
    const char *text = body_string(pair->t, use->body, name, use->scope, NULL);
    g_autoptr(GError) error = NULL;
    double seconds = 0;

    if (!text || !*text)
        return 0;
    if (!units_parse_duration(text, &seconds, &error))
        diagnose(&pair->t->diagnostics, body_attribute(use->body, name)->expr->range, "%s", error->message);
    else if (seconds > 0 && !g_ascii_isalpha(text[strlen(text) - 1])) /* as in Packer, which takes no more than "0" without one */
        diagnose(&pair->t->diagnostics, body_attribute(use->body, name)->expr->range, "'%s' has no unit: write for example 90s or 1h30m", text);
    return seconds;
}

static int whole_number(const Pair *pair, const BlockUse *use, const char *name, int most)
{
    const Attribute *attribute = body_attribute(use->body, name);
    g_autofree char *what = g_strdup_printf("'%s'", name);
    EvalContext context;
    int64_t number = 0;
    Value *value;

    if (!attribute)
        return 0;
    template_context(pair->t, use->scope, &context);
    value = eval_as(&context, attribute->expr, &type_number, what);
    if (value && value->state == VALUE_KNOWN &&
        (!number_to_int(value->number, &number) || number < 0 || number > most)) {
        diagnose(&pair->t->diagnostics, attribute->expr->range, "'%s' is a whole number from 0 to %d", name, most);
        return 0;
    }
    return (int)number;
}

static void check_outputs(const Pair *pair, const BlockUse *use, char **outputs)
{
    for (size_t i = 0; outputs && outputs[i]; i++)
        if (strcmp(outputs[i], "disk") != 0 && strcmp(outputs[i], "oci") != 0)
            diagnose(&pair->t->diagnostics, body_attribute(use->body, "only_output")->expr->range,
                     "'only_output' holds \"disk\" or \"oci\", not \"%s\"", outputs[i]);
}

static void take_generic(const Pair *pair, const BlockUse *use, TemplateBlock *block)
{
    block->pause_before = duration(pair, use, "pause_before");
    block->timeout = duration(pair, use, "timeout");
    block->max_retries = whole_number(pair, use, "max_retries", 1000);
    block->continue_on_error = body_bool(pair->t, use->body, "continue_on_error", use->scope, false);
    if (body_attribute(use->body, "network"))
        block->network = body_bool(pair->t, use->body, "network", use->scope, false);
    block->refresh = g_strdup(body_string(pair->t, use->body, "refresh", use->scope, NULL));
    block->inputs = string_list(pair, use, "inputs");
    block->only_output = string_list(pair, use, "only_output");
    check_outputs(pair, use, block->only_output);
}

/* override = { NAME = { argument = value } }, for the source of that name. */
static void take_override(const Pair *pair, const BlockUse *use, TemplateBlock *block)
{
    const Attribute *attribute = body_attribute(use->body, "override");
    g_autoptr(json_t) all = NULL;
    static const char *const skip[] = { NULL };
    Body one = { 0 };
    Attribute *attributes[1] = { (Attribute *)attribute };
    json_t *mine;

    if (!attribute)
        return;
    one.attributes = attributes;
    one.n_attributes = 1;
    all = json_object();
    body_to_json(pair->t, &one, use->scope, skip, all);
    mine = json_object_get(json_object_get(all, "override"), pair->ref->name);
    block->unknown = block->unknown || pair->t->saw_unknown;
    if (mine && json_is_object(mine))
        (void)json_object_update(block->args, mine);
    else if (mine || (json_object_get(all, "override") && !json_is_object(json_object_get(all, "override"))))
        diagnose(&pair->t->diagnostics, attribute->expr->range, "'override' is written { NAME = { argument = value } }");
}

/* --- components --- */

static TemplateBlock *component(const Pair *pair, const BlockUse *use, const char *const *generic)
{
    static const char *const what[] = { "TYPE" };
    TemplateBlock *block;

    if (!check_labels(pair->t, use, 1, what) || !applies_here(pair, use))
        return NULL;
    block = template_block_new(pair->t, use, use->labels[0], body_string(pair->t, use->body, "name", use->scope, NULL));
    pair->t->saw_unknown = false;
    body_to_json(pair->t, use->body, use->scope, generic, block->args);
    block->unknown = pair->t->saw_unknown;
    return block;
}

static void add_provisioner(const Pair *pair, const BlockUse *use)
{
    TemplateBlock *block = component(pair, use, provisioner_generic);

    if (!block)
        return;
    take_generic(pair, use, block);
    take_override(pair, use, block);
    g_ptr_array_add(pair->out->provisioners, block);
}

static void add_output(const Pair *pair, const BlockUse *use)
{
    TemplateBlock *block = component(pair, use, output_generic);

    for (guint i = 0; block && i < pair->out->outputs->len; i++)
        if (strcmp(((TemplateBlock *)pair->out->outputs->pdata[i])->type, block->type) == 0) {
            diagnose(&pair->t->diagnostics, use->header, "the output '%s' is declared twice", block->type);
            template_block_free(block);
            return;
        }
    if (block && strcmp(block->type, "disk") != 0 && strcmp(block->type, "oci") != 0)
        diagnose(&pair->t->diagnostics, use->header, "there is no output '%s'; outputs are \"disk\" and \"oci\"", block->type);
    if (block)
        g_ptr_array_add(pair->out->outputs, block);
}

/* -except also drops a post-processor by its name, or by its type where it has none, with the rest of its chain. */
static bool is_dropped(const Pair *pair, const TemplateBlock *block)
{
    const char *const *except = pair->t->options->except;

    for (size_t i = 0; except && except[i]; i++)
        if (fnmatch(except[i], block->name && *block->name ? block->name : block->type, 0) == 0)
            return true;
    return false;
}

static void end_chain(const Pair *pair, GPtrArray *chain)
{
    if (chain->len > 0)
        g_ptr_array_add(pair->out->post_processors, chain);
    else
        g_ptr_array_unref(chain);
}

static bool add_to_chain(const Pair *pair, const BlockUse *use, GPtrArray *chain)
{
    TemplateBlock *block = component(pair, use, post_generic);

    if (block && is_dropped(pair, block)) {
        template_block_free(block);
        return false;
    }
    if (block)
        g_ptr_array_add(chain, block);
    return true;
}

static void add_post_processor(const Pair *pair, const BlockUse *use)
{
    GPtrArray *chain = g_ptr_array_new_with_free_func((GDestroyNotify)template_block_free);

    (void)add_to_chain(pair, use, chain);
    end_chain(pair, chain);
}

static void add_chain(const Pair *pair, const BlockUse *use)
{
    static const char *const attributes[] = { NULL };
    static const char *const blocks[] = { "post-processor", "dynamic", NULL };
    GPtrArray *chain = g_ptr_array_new_with_free_func((GDestroyNotify)template_block_free);
    g_autoptr(GPtrArray) uses = blocks_expand(pair->t, use->body, use->scope);

    check_body(pair->t, use->body, "'post-processors'", attributes, blocks);
    for (guint i = 0; i < uses->len; i++)
        if (strcmp(((BlockUse *)uses->pdata[i])->type, "post-processor") == 0 && !add_to_chain(pair, uses->pdata[i], chain))
            break;
    end_chain(pair, chain);
}

static void add_secret(const Pair *pair, const BlockUse *use)
{
    static const char *const what[] = { "NAME" };
    static const char *const attributes[] = { "env", "file", NULL };
    static const char *const blocks[] = { NULL };
    TemplateSecret *secret;

    if (!check_labels(pair->t, use, 1, what))
        return;
    check_body(pair->t, use->body, "'secret'", attributes, blocks);
    if (use->body->n_attributes != 1) {
        diagnose(&pair->t->diagnostics, use->header, "'secret' needs one of the arguments 'env' and 'file'");
        return;
    }
    secret = g_new0(TemplateSecret, 1);
    secret->name = g_strdup(use->labels[0]);
    secret->env = g_strdup(body_string(pair->t, use->body, "env", use->scope, NULL));
    secret->file = g_strdup(body_string(pair->t, use->body, "file", use->scope, NULL));
    g_ptr_array_add(pair->out->secrets, secret);
}

static void secret_free(TemplateSecret *secret)
{
    g_free(secret->name);
    g_free(secret->env);
    g_free(secret->file);
    g_free(secret);
}

static void add_error_cleanup(const Pair *pair, const BlockUse *use)
{
    TemplateBlock *block;

    if (pair->out->error_cleanup) {
        diagnose(&pair->t->diagnostics, use->header, "a build has one error-cleanup-provisioner at most");
        return;
    }
    block = component(pair, use, provisioner_generic);
    if (!block)
        return;
    take_generic(pair, use, block);
    take_override(pair, use, block);
    pair->out->error_cleanup = block;
}

static void add_component(const Pair *pair, const BlockUse *use)
{
    if (strcmp(use->type, "provisioner") == 0)
        add_provisioner(pair, use);
    else if (strcmp(use->type, "output") == 0)
        add_output(pair, use);
    else if (strcmp(use->type, "post-processor") == 0)
        add_post_processor(pair, use);
    else if (strcmp(use->type, "post-processors") == 0)
        add_chain(pair, use);
    else if (strcmp(use->type, "secret") == 0)
        add_secret(pair, use);
    else if (strcmp(use->type, "error-cleanup-provisioner") == 0)
        add_error_cleanup(pair, use);
}

/* --- one pair --- */

static Value *strings_object(Template *t, const char *const *pairs)
{
    ValueFields fields;

    value_fields_init(&fields);
    for (; *pairs; pairs += 2)
        value_fields_put(&fields, pairs[0], value_string(t->arena, pairs[1]));
    return value_fields_object(&fields, t->arena);
}

/*
 * build.name and source.* are known. The rest of Packer's build.* speaks of a booted machine and its
 * connection, which a bake does not have: they are there, so that templates which print them work.
 */
static const Scope *pair_scope(Template *t, const Ref *ref, const char *build_name)
{
    const char *const source[] = { "type", ref->type, "name", ref->name, NULL };
    const char *const build[] = { "name", build_name, "ID", build_name, "Host", "localhost", "Port", "0", "User", "root",
                                  "Password", "", "ConnType", "guest", "PackerRunUUID", "", "PackerHTTPIP", "",
                                  "PackerHTTPPort", "", "PackerHTTPAddr", "", "SSHPublicKey", "", "SSHPrivateKey", "",
                                  "WinRMPassword", "", "ImageSha256", "", "SourceImageDigest", "", NULL };
    const Scope *scope = scope_with(t->arena, template_root_scope(t), "source", strings_object(t, source));

    return scope_with(t->arena, scope, "build", strings_object(t, build));
}

static void evaluate_source(Pair *pair)
{
    static const char *const none[] = { NULL };
    static const char *const skip[] = { "name", NULL };
    const Ref *ref = pair->ref;
    BlockUse use = { .type = "source", .header = ref->source->header, .body = ref->source->body, .scope = pair->scope };
    TemplateBlock *block = template_block_new(pair->t, &use, ref->type, ref->name);

    pair->t->saw_unknown = false;
    body_to_json(pair->t, ref->source->body, pair->scope, none, block->args);
    if (ref->completion) {
        const Scope *own = ref->completion->scope; /* of dynamic "source": the iterator lies over source.* and build.* */
        const Scope *scope = own ? scope_with(pair->t->arena, pair->scope, own->names[0], own->values[0]) : pair->scope;

        body_to_json(pair->t, ref->completion->body, scope, skip, block->args);
        template_block_also(block, ref->completion->body);
    }
    block->unknown = pair->t->saw_unknown;
    pair->out->source = block;
    take_rebase(pair);
}

static void evaluate_build_options(Pair *pair)
{
    const Attribute *epoch = body_attribute(pair->block->body, "source_date_epoch");
    BlockUse use = { .body = pair->block->body, .scope = pair->scope };
    EvalContext context;
    Value *value;

    pair->out->source_date_epoch = -1;
    if (epoch) {
        template_context(pair->t, pair->scope, &context);
        value = eval_as(&context, epoch->expr, &type_number, "'source_date_epoch'");
        if (value && value->state == VALUE_KNOWN &&
            (!number_to_int(value->number, &pair->out->source_date_epoch) || pair->out->source_date_epoch < 0))
            diagnose(&pair->t->diagnostics, epoch->expr->range, "'source_date_epoch' is a number of seconds since 1970");
    }
    pair->out->volatile_paths = string_list(pair, &use, "volatile_paths");
}

static void evaluate_pair(Pair *pair)
{
    g_autoptr(GPtrArray) uses = NULL;

    pair->scope = pair_scope(pair->t, pair->ref, pair->build_name ? pair->build_name : pair->ref->name);
    evaluate_source(pair);
    evaluate_build_options(pair);
    uses = blocks_expand(pair->t, pair->block->body, pair->scope);
    for (guint i = 0; i < uses->len; i++)
        add_component(pair, uses->pdata[i]);
}

static TemplateBuild *build_new(void)
{
    TemplateBuild *build = g_new0(TemplateBuild, 1);

    build->provisioners = g_ptr_array_new_with_free_func((GDestroyNotify)template_block_free);
    build->outputs = g_ptr_array_new_with_free_func((GDestroyNotify)template_block_free);
    build->post_processors = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref);
    build->secrets = g_ptr_array_new_with_free_func((GDestroyNotify)secret_free);
    build->source_date_epoch = -1;
    return build;
}

void template_build_free(TemplateBuild *build)
{
    if (!build)
        return;
    template_block_free(build->source);
    g_ptr_array_unref(build->provisioners);
    g_ptr_array_unref(build->outputs);
    g_ptr_array_unref(build->post_processors);
    g_ptr_array_unref(build->secrets);
    template_block_free(build->error_cleanup);
    g_strfreev(build->volatile_paths);
    g_free(build->name);
    g_free(build->build_name);
    g_free(build->rebase);
    g_free(build);
}

/* --- build blocks --- */

static const char *const build_attributes[] = { "name", "description", "sources", "source_date_epoch", "volatile_paths", NULL };
static const char *const build_blocks[] = { "source", "provisioner", "output", "post-processor", "post-processors", "secret",
                                            "error-cleanup-provisioner", "dynamic", "hcp_packer_registry", NULL };

static void collect_refs(Template *t, const Block *block, GPtrArray *refs)
{
    const Attribute *sources = body_attribute(block->body, "sources");
    unsigned before = t->diagnostics.count;

    if (sources)
        refs_from_list(t, sources, refs);
    for (size_t i = 0; i < block->body->n_blocks; i++) {
        const Block *inner = block->body->blocks[i];

        if (strcmp(inner->type, "source") == 0) {
            BlockUse *use = arena_new0(t->arena, BlockUse, 1);

            *use = (BlockUse){ .type = inner->type, .labels = inner->labels, .n_labels = inner->n_labels,
                               .header = inner->header, .body = inner->body };
            ref_from_block(t, use, refs);
        } else if (strcmp(inner->type, "dynamic") == 0 && inner->n_labels == 1 && strcmp(inner->labels[0], "source") == 0) {
            Block *one[1] = { (Block *)inner };
            Body body = { .blocks = one, .n_blocks = 1 };
            g_autoptr(GPtrArray) uses = blocks_expand(t, &body, NULL);

            for (guint j = 0; j < uses->len; j++)
                ref_from_block(t, uses->pdata[j], refs);
        }
    }
    if (refs->len == 0 && t->diagnostics.count == before && !t->options->allow_unset)
        diagnose(&t->diagnostics, block->header, "this build has no source; write sources = [\"source.TYPE.NAME\"]");
}

/* One of its sources, unless -only and -except leave it out. */
static void evaluate_ref(Template *t, const Plan *plan, const Ref *ref)
{
    Pair pair = { .t = t, .block = plan->block, .ref = ref, .build_name = plan->name, .out = build_new() };

    pair.out->build_name = g_strdup(ref->source->labels[1]);
    pair.out->name = g_strdup(ref->image);
    if (!is_selected(&pair)) {
        template_build_free(pair.out);
        return;
    }
    evaluate_pair(&pair);
    g_ptr_array_add(t->builds, pair.out);
}

static Plan *plan_new(Template *t, const Block *block)
{
    Plan *plan = arena_new0(t->arena, Plan, 1);

    *plan = (Plan){ .block = block, .name = body_string(t, block->body, "name", NULL, NULL), .refs = g_ptr_array_new() };
    if (plan->name && !*plan->name)
        plan->name = NULL;
    if (block->n_labels > 0)
        diagnose(&t->diagnostics, block->header, "a build has no label; its name is set by name = \"%s\"", block->labels[0]);
    check_body(t, block->body, "a build", build_attributes, build_blocks);
    (void)body_string(t, block->body, "description", NULL, NULL);
    for (size_t i = 0; i < block->body->n_blocks; i++)
        if (strcmp(block->body->blocks[i]->type, "hcp_packer_registry") == 0) {
            declare_registry(t, block->body->blocks[i]);
            check_registry(t, block->body->blocks[i]);
        }
    collect_refs(t, block, plan->refs);
    return plan;
}

static void plan_clear(gpointer plan)
{
    g_ptr_array_unref(((Plan *)plan)->refs);
}

static void check_selection(Template *t, unsigned before)
{
    const TemplateOptions *options = t->options;
    bool selected = (options->only && options->only[0]) || (options->except && options->except[0]);

    if (t->builds->len > 0 || t->diagnostics.count != before || options->allow_unset || options->list_block)
        return;
    if (t->build_blocks->len == 0)
        diagnose(&t->diagnostics, (Range){ 0 }, "this template has no build block, so there is nothing to bake");
    else if (!options->look_only && selected)
        diagnose(&t->diagnostics, (Range){ 0 }, "-only and -except leave nothing of this template");
}

void builds_evaluate(Template *t)
{
    g_autoptr(GPtrArray) plans = g_ptr_array_new_with_free_func(plan_clear);
    unsigned before = t->diagnostics.count;

    for (guint i = 0; i < t->build_blocks->len; i++)
        g_ptr_array_add(plans, plan_new(t, t->build_blocks->pdata[i]));
    name_refs(t, plans);
    for (guint i = 0; i < plans->len; i++) {
        const Plan *plan = plans->pdata[i];

        for (guint j = 0; j < plan->refs->len; j++)
            evaluate_ref(t, plan, plan->refs->pdata[j]);
    }
    check_selection(t, before);
    check_rebase(t);
}
