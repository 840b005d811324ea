/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of HCL2 native syntax, by recursive descent.
 *
 * It goes on after a mistake at the next attribute or block, so that one run
 * tells as much as it can; what it could not read is left out of the tree.
 */
#ifndef KILN_TEMPLATES_LANGUAGE_PARSER_H
#define KILN_TEMPLATES_LANGUAGE_PARSER_H

#include "templates/language/ast.h"

#define SYNTAX_DEPTH_MAX 500

/* Never NULL; look at diagnostics->count to learn whether it is whole. */
Body *parse_body(const Source *source, Diagnostics *diagnostics);

/* Which properties of JSON bodies are blocks; a table ends with type NULL. */
#define BODY_LABELS_MAX 2
typedef struct BodySchema BodySchema;
struct BodySchema {
    const char *type;
    size_t n_labels;
    const BodySchema *inner; /* of the block's body; NULL: arguments only */
};

/* The same from HCL's JSON syntax; with @schema NULL everything is an argument. */
Body *parse_json_body(const Source *source, const BodySchema *schema, Diagnostics *diagnostics);

/* JSON as data, as jsondecode() reads it: literals, tuples and objects of them. NULL after a mistake. */
Expr *parse_json_value(const Source *source, Diagnostics *diagnostics);

/* One expression and nothing after it; NULL after a mistake. */
Expr *parse_expression(const Source *source, Diagnostics *diagnostics);

/* The whole source as a template, as templatefile() reads it; NULL after a mistake. */
Expr *parse_template(const Source *source, Diagnostics *diagnostics);

Attribute *body_attribute(const Body *body, const char *name); /* NULL when absent */

/* The text of a bare identifier (`string`, `web`; in JSON a string of the same text), else NULL. */
const char *expr_keyword(const Expr *expr);

/* Calls @fn for each variable that @expr uses: root.name, or name NULL when the root is used whole. */
typedef void (*ExprReferenceFn)(void *arg, const char *root, const char *name, Range range);
void expr_references(const Expr *expr, ExprReferenceFn fn, void *arg);

#endif
