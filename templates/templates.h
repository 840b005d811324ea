/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The face of the templates: text in, checked structs out.
 *
 *   template_load -> every value known, as JSON -> template_free
 *
 * The language (HCL2 native syntax) lives in templates/language/ and knows nothing of baking; this file knows
 * Packer's schema with kiln's additions (kiln-template(5)). Arguments of sources, provisioners,
 * outputs and post-processors are evaluated per (build, source) and handed on as JSON objects; whoever owns a block type checks its
 * arguments and reports a mistake with template_complain(), which knows the place in the file.
 */
#ifndef KILN_TEMPLATES_TEMPLATES_H
#define KILN_TEMPLATES_TEMPLATES_H

#include "base/json.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Template Template;

typedef struct TemplateOptions {
    const char *const *vars;      /* "name=value", in order; may be NULL */
    const char *const *var_files; /* may be NULL */
    const char *const *only;      /* globs on BUILD.TYPE.NAME / TYPE.NAME; may be NULL */
    const char *const *except;
    const char *const *rebase;    /* "TYPE.NAME=BASE": that source is BASE instead, see TemplateBuild.rebase; may be NULL */
    const char *list_block;       /* top-level blocks of this type, with one label, are read too, see template_list_blocks(); may be NULL */
    const char *const *list_labels; /* types of blocks inside of those that have one label: it comes as TEMPLATE_LABEL in their object; may be NULL */
    const char *list_suffix;      /* it is no template, but a file whose name ends so, or all of a folder; nothing of a bake may stand in it; may be NULL */
    bool look_only;               /* no bake follows: data sources are not asked, and -only may leave nothing */
    bool ask_data;                /* look_only: data sources are asked all the same */
    bool allow_unset;             /* variables without value become unknown instead of an error (inspect, console) */
    GBytes *input;                /* the template's text, where it is not in the file (an editor's); may be NULL */
    json_t *diagnostics;          /* an array: mistakes are also put here, in the shape of HCL's tools; may be NULL */
} TemplateOptions;

/* The key of a nested block's label; no argument can have this name. */
#define TEMPLATE_LABEL "."

/* Any block with a type and arguments: source, provisioner, output, post-processor. */
typedef struct TemplateBlock {
    char *type;     /* "shell" */
    char *name;     /* source name, or provisioner's `name`, may be NULL */
    json_t *args;   /* evaluated; nested blocks are arrays of objects under their type */
    bool unknown;   /* some argument has no value yet, "<unknown>" stands there (look_only, allow_unset) */
    void *place;    /* opaque: for template_complain */
    /* generic options already taken out of args (provisioners and post-processors): */
    double pause_before, timeout;
    int max_retries;
    bool continue_on_error;
    int network;           /* -1 not said, 0, 1 */
    char *refresh;         /* NULL not said */
    char **inputs;         /* NULL not said */
    char **only_output;    /* NULL: all */
} TemplateBlock;

/* A value that steps may read while they run, and that no image keeps. One of env and file is set. */
typedef struct TemplateSecret {
    char *name, *env, *file;
} TemplateSecret;

/* One (build, source) pair: what one bake makes. */
typedef struct TemplateBuild {
    char *name;                 /* set name: build's name, BUILD.SOURCE with several sources, else the source's name; made a name of images, and told apart */
    char *build_name;           /* PACKER_BUILD_NAME: the source's own name */
    char *rebase;               /* what it is baked on instead of its source, as given; NULL: on its source */
    TemplateBlock *source;
    GPtrArray *provisioners;    /* TemplateBlock*, in order, only/except/override already applied */
    GPtrArray *outputs;         /* TemplateBlock*; empty when none was declared */
    GPtrArray *post_processors; /* of GPtrArray* chains of TemplateBlock* */
    TemplateBlock *error_cleanup; /* error-cleanup-provisioner, or NULL */
    GPtrArray *secrets;         /* of TemplateSecret* */
    int64_t source_date_epoch;  /* -1 when not given */
    char **volatile_paths;      /* may be NULL */
} TemplateBuild;

/*
 * Loads a file (.pkr.hcl, .pkr.json) or a folder of them. All mistakes found are in the error's
 * message, each as "FILE:LINE:COLUMN: sentence", the line, and a caret; code KILN_ERROR_USAGE.
 */
bool template_load(const char *path, const TemplateOptions *options, Template **ret, GError **error);
void template_free(Template *template);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Template, template_free)

GPtrArray *template_builds(Template *template);          /* of TemplateBuild*, borrowed */
/* The blocks that TemplateOptions.list_block asked for: TemplateBlock*, name = the label, in order. Borrowed. */
GPtrArray *template_list_blocks(Template *template);
const char *template_dir(const Template *template);      /* path.root */
/* Files that were read: template and var files, file(), templatefile(): absolute path -> Digest*. Borrowed. */
GHashTable *template_files(Template *template);

/* The text that it was loaded from instead of its file (TemplateOptions.input); NULL: there was none. Borrowed. */
GBytes *template_given_text(const Template *template);

/*
 * What gives the same builds again: {"template": absolute path, "dir": its folder, "variables": {NAME: value}, "sensitive": [NAME]}. Values of
 * sensitive variables are not in it: those that came from outside the template are listed; and "rebase": [as TemplateOptions], where any was. New reference.
 */
json_t *template_given(Template *template);

/* Every string in the values of variables and locals that are marked sensitive; char*, to free. */
GPtrArray *template_sensitive(Template *template);

/*
 * Sets KILN_ERROR_USAGE with place, line and caret for @argument of @block (NULL or unknown: its header). Returns false.
 * @argument may lead into nested blocks and lists, "health.interval", "volume[1].size", "steps[2]"; what is not there is told at the last part that is.
 */
bool template_complain(const TemplateBlock *block, const char *argument, GError **error, const char *format, ...)
    G_GNUC_PRINTF(4, 5);

/* The source, "HOST/OWNER/NAME", of the plugin in required_plugins whose name begins the type of @block; NULL: there is none. Borrowed. */
const char *template_plugin_of(const TemplateBlock *block);

/* What the template declares: variables, locals, data sources, sources, files, required_plugins, required_version. New reference. */
json_t *template_describe(Template *template);

/*
 * Only the syntax of one text, HCL or (where @name ends in .json) its JSON form: no schema, no names, no environment.
 * Files of values are fine too. @diagnostics as in TemplateOptions, may be NULL.
 */
bool template_check_syntax(const char *name, GBytes *text, json_t *diagnostics, GError **error);

/* Only the plugins that `packer` blocks require, [{name, version, source}]; the rest need not make sense. New reference. */
bool template_plugins(const char *path, const TemplateOptions *options, json_t **ret, GError **error);

/* The text in HCL's canonical layout (free with g_free); a mistake in its syntax is an error. */
bool template_format(const char *name, GBytes *text, json_t *diagnostics, char **ret_text, GError **error);

/* Names of the templates (and, with @values, files of values) that @path means: itself, or those in the folder, sorted. */
bool template_list(const char *path, bool values, GPtrArray *ret_names /* of char *, to free */, GError **error);

/*
 * Evaluates one expression and gives its value as JSON (new reference). With @template its variables, locals
 * and path are known in it; @template may be NULL. A sensitive value comes as "<sensitive>". For a console and for tests.
 */
bool template_evaluate(Template *template, const char *expression, json_t **ret, GError **error);

#endif
