/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share: the template while it is read.
 *
 *   template.c   files, top-level blocks, the face
 *   variables.c  variables and where their values come from
 *   locals.c     locals in the order of their dependencies
 *   data.c       data sources
 *   chains.c     who needs a value that is missing
 *   blocks.c     any body -> JSON, dynamic blocks, generic options
 *   builds.c     builds x sources -> TemplateBuild
 *   versions.c   ">= 1.7, < 2"
 *   describe.c   the template and its mistakes as JSON
 */
#ifndef KILN_TEMPLATES_TEMPLATE_PRIVATE_H
#define KILN_TEMPLATES_TEMPLATE_PRIVATE_H

#include "templates/language/eval.h"
#include "templates/language/parser.h"
#include "templates/templates.h"

typedef struct Variable {
    const char *name;
    Block *block;      /* NULL: from the old `variables` block */
    Range range;       /* where it is declared */
    const Type *type;  /* type_any when none was said */
    Value *value;      /* NULL: unset */
    bool sensitive, has_default;
    const char *origin; /* "-var", "PKR_VAR_x", a file; NULL: not from outside */
} Variable;

typedef struct Local {
    const char *name;
    Expr *expr;
    Range range;
    bool sensitive;
    enum { LOCAL_NEW, LOCAL_BUSY, LOCAL_DONE } state;
    Value *value;
} Local;

typedef struct Data {
    const char *type, *name;
    const Block *block;
    int state; /* as Local.state */
    const char *url; /* of http, where it is known; or NULL */
    Value *value;
} Data;

struct Template {
    Arena *arena;
    Diagnostics diagnostics;
    const TemplateOptions *options; /* during the load only */
    char *dir, *place;      /* its folder; what was loaded, absolute */
    GHashTable *files;      /* absolute path -> Digest* */
    GBytes *text;           /* instead of the files of the template; or NULL */
    GPtrArray *bodies;      /* of Body*, one for each file */
    GPtrArray *variables;   /* of Variable* */
    GPtrArray *locals;      /* of Local* */
    GPtrArray *data;        /* of Data* */
    GPtrArray *registries;  /* of Block*, hcp_packer_registry */
    GPtrArray *sources;     /* of Block* */
    GHashTable *named_variables, *named_locals; /* name -> Variable*, Local* */
    GHashTable *named_sources;                  /* "TYPE.NAME" -> Block* */
    GPtrArray *build_blocks; /* of Block* */
    GPtrArray *builds;      /* of TemplateBuild* */
    GPtrArray *list_uses;   /* of Block* of the type that the options ask for */
    GPtrArray *list_blocks; /* of TemplateBlock* */
    Value *var, *local, *path, *packer;
    Value *data_value;      /* `data`; NULL: there is none */
    bool saw_unknown;       /* an argument without value was met */
    json_t *plugins;        /* [{name, version, source}] */
    const char *required_version;
    GPtrArray *rebased;     /* of char *: those of the options that meant a source */
    json_t *sink;           /* TemplateOptions.diagnostics, kept for template_complain() */
};

/* A block of the text, or one that `dynamic` made: then with more names and other labels. */
typedef struct BlockUse {
    const char *type;
    const char *const *labels;
    size_t n_labels;
    Range header;
    const Body *body;
    const Scope *scope;
} BlockUse;

/* A context that knows var, local, path, packer and perhaps @scope's names. */
void template_context(Template *t, const Scope *scope, EvalContext *ret);
Scope *template_root_scope(Template *t);
Scope *scope_with(Arena *arena, const Scope *outer, const char *name, Value *value);

/* Complains about attributes and blocks that are not in the lists (NULL-terminated; NULL: any), with "did you mean". */
void check_body(Template *t, const Body *body, const char *where, const char *const *attributes, const char *const *blocks);
/* False after a diagnostic: a name of a variable, local value or data source is an identifier, or nothing could refer to it. */
bool check_identifier(Template *t, const Block *block, const char *name);
bool check_labels(Template *t, const BlockUse *use, size_t n, const char *const *what);

/* A block hcp_packer_registry, of the template or of a build: that there is one, and what is in it. */
void declare_registry(Template *t, const Block *block);
void check_registry(Template *t, const Block *block);

/* Evaluated attributes; the default when absent or wrong (then a diagnostic says so). */
const char *body_string(Template *t, const Body *body, const char *name, const Scope *scope, const char *otherwise);
bool body_bool(Template *t, const Body *body, const char *name, const Scope *scope, bool otherwise);

/* Variables */
void variables_declare(Template *t, const Block *block);
void variables_declare_old(Template *t, const Block *block);
void variables_assign(Template *t, const char *folder /* NULL: no auto files */);
void variables_finish(Template *t);
/* Reads and parses; NULL after a diagnostic or error text. Records the file. */
Source *template_read(Template *t, const char *path);

/* Locals */
void locals_declare(Template *t, const Block *block);
void locals_evaluate(Template *t);
void locals_need(Template *t, const Expr *expr, unsigned depth); /* evaluates what @expr refers to, and makes it known */

/* Data sources */
void data_declare(Template *t, const Block *block);
void data_evaluate(Template *t, Data *data, unsigned depth);
void data_evaluate_type(Template *t, const char *type /* NULL: all */, unsigned depth);

/* "; local.a needs it, and source.T.N needs that": from ROOT.NAME to who uses it, or "". In the arena. */
const char *chain_of_needs(Template *t, const char *root, const char *name);

/* Blocks */
GPtrArray *blocks_expand(Template *t, const Body *body, const Scope *scope); /* of BlockUse* in the arena */
/* All attributes and nested blocks that are not in @skip, into @object. */
void body_to_json(Template *t, const Body *body, const Scope *scope, const char *const *skip, json_t *object);
TemplateBlock *template_block_new(Template *t, const BlockUse *use, const char *type, const char *name);
void template_block_also(TemplateBlock *block, const Body *body); /* more places for template_complain */
void template_block_free(TemplateBlock *block);
void list_blocks_evaluate(Template *t);

/* Versions: false when @constraints can't be read. */
bool version_meets(const char *version, const char *constraints, bool *ret_met);
/* Does it, or one before it? */
bool version_meets_up_to(const char *version, const char *constraints, bool *ret_met);

/* Describe */
json_t *diagnostic_json(const Diagnostic *diagnostic);
void diagnostics_collect(const Diagnostics *diagnostics, json_t *array /* may be NULL */);

/* Builds */
void builds_evaluate(Template *t);
void template_build_free(TemplateBuild *build);

#endif
