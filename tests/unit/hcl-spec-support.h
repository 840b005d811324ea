/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A body decoded by a specification, as HCL's own `hcldec` tool does it: the language's own judge.
 *
 *     spec = hcl_spec_load("case.hcldec", ...) -> hcl_spec_parse() -> hcl_spec_decode()
 *
 * A specification is HCL too. It has one block of these, which may hold more of them, and perhaps `variables { NAME = VALUE }`:
 *
 *     object { ... }  array { ... }  literal { value = EXPR }
 *     attr { name = "a"  type = TYPE  required = BOOL }
 *     block, block_list, block_set { block_type = "b"  required = BOOL  min_items, max_items = N  one block for what is in it }
 *     block_map { block_type = "b"  labels = [...]  one block for what is in it }
 *     block_attrs { block_type = "b"  element_type = TYPE  required = BOOL }
 *     default { two blocks: the second counts where the first is null }
 *     transform { result = EXPR over `nested`  one block }
 *
 * A label of such a block is the name of the attribute in `object`, and of what is decoded where no other is said.
 */
#ifndef KILN_TESTS_HCL_SPEC_SUPPORT_H
#define KILN_TESTS_HCL_SPEC_SUPPORT_H

#include "templates/language/eval.h"
#include "templates/language/parser.h"
#include "templates/language/types.h"

#include <jansson.h>

typedef struct HclSpec HclSpec;

/* NULL after diagnostics. @scope gets the specification's variables. */
HclSpec *hcl_spec_load(const Source *source, Diagnostics *diagnostics, Scope **ret_scope);

/* HCL, or JSON by the source's name. */
Body *hcl_spec_parse(const HclSpec *spec, const Source *source, Diagnostics *diagnostics);

Value *hcl_spec_decode(const HclSpec *spec, const Body *body, const Scope *scope, Diagnostics *diagnostics);

/* {"value": ..., "type": ...} or the value alone; nulls of objects are left out unless @keep_nulls. Text, to free. */
char *hcl_value_text(const Value *value, bool with_type, bool keep_nulls);

/* The variables that the body's expressions name, in hcldec's JSON form. New reference. */
json_t *hcl_spec_variables(const HclSpec *spec, const Body *body);

#endif
