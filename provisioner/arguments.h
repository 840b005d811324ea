/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arguments of provisioners: one table per provisioner says names and types; checking, reading and expanding
 * are shared.
 *
 *     #define SLEEP_ARGUMENTS(X) X(duration, DURATION) X(note, TEXT)
 *     ARGUMENTS_DEFINE(SLEEP_ARGUMENTS);        defines argument_names[] and argument_specs[]
 *
 * After arguments_check() the readers cannot fail. JSON null counts as absent, and numbers and booleans are
 * taken as text where text is wanted, as HCL converts them.
 */
#ifndef KILN_PROVISIONER_ARGUMENTS_H
#define KILN_PROVISIONER_ARGUMENTS_H

#include "base/json.h"
#include "provisioner/host.h"

#include <glib.h>
#include <stdbool.h>

typedef enum ArgumentType {
    ARGUMENT_TEXT,
    ARGUMENT_TEXTS, /* list of text; a lone text is a list of one */
    ARGUMENT_BOOL,
    ARGUMENT_CODES,    /* list of exit codes, 0 to 255 */
    ARGUMENT_DURATION, /* "5m" */
    ARGUMENT_MAP,      /* object of texts */
} ArgumentType;

typedef struct ArgumentSpec {
    const char *name;
    ArgumentType type;
} ArgumentSpec;

#define ARGUMENT_NAME_(name, type) #name,
#define ARGUMENT_SPEC_(name, type) {#name, ARGUMENT_##type},
#define ARGUMENTS_DEFINE(LIST)                                                                               \
    static const char *const argument_names[] = {LIST(ARGUMENT_NAME_) NULL};                                 \
    static const ArgumentSpec argument_specs[] = {LIST(ARGUMENT_SPEC_){0}}

/* Types of all given arguments; KILN_ERROR_USAGE. Unknown names are the caller's to refuse. */
bool arguments_check(const json_t *args, const ArgumentSpec *specs, const char **ret_argument,
                     GError **error);

/* Exactly one of @names (NULL-terminated) must be given. */
bool arguments_exactly_one(const json_t *args, const char *const *names, const char **ret_argument,
                           GError **error);

bool argument_given(const json_t *args, const char *name);
char *argument_text(const json_t *args, const char *name,
                    const char *otherwise);                  /* NULL when absent and @otherwise is NULL */
char **argument_texts(const json_t *args, const char *name); /* never NULL */
bool argument_bool(const json_t *args, const char *name, bool otherwise);

/* Whether @code is among the exit codes of argument @name; without the argument: whether it is 0. @ret_list:
 * "0, 2". */
bool argument_code_is_valid(const json_t *args, const char *name, int code, char **ret_list);

/*
 * `environment_vars` (list of "K=V") and `env` (object) as one map, name -> value, sorted; the object wins.
 * Checked by arguments_check_environment() (NAME must be an identifier of the shell).
 */
bool arguments_check_environment(const json_t *args, const char **ret_argument, GError **error);
GTree *arguments_environment(const json_t *args); /* free with g_tree_unref */

/* Go template in @text, see base/gotemplate.h. @fields: name, value, ..., NULL, beside what every option
 * knows (build_name ...). */
bool argument_expand(const char *text, const ProvisionerHost *host, const char *const *fields, char **ret,
                     GError **error);

/* argument_text(), expanded; the error names the argument. */
bool argument_expanded(const json_t *args, const char *name, const char *otherwise,
                       const ProvisionerHost *host, const char *const *fields, char **ret, GError **error);

/* argument_texts(), each expanded. */
bool argument_expanded_list(const json_t *args, const char *name, const ProvisionerHost *host, char ***ret,
                            GError **error);

#endif
