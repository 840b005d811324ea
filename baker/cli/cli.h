/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every verb shares: global flags, option parsing, the way errors and results are printed.
 *
 * A verb is `int verb_NAME(CliContext *cli, int argc, char **argv)`: argv[0] is
 * the verb, global flags are already taken out. It returns the exit status; errors go
 * through `return cli_fail(cli, error)`, which prints one sentence (with --json also an object on stdout).
 * Results go to stdout, everything else to stderr.
 */
#ifndef KILN_BAKER_CLI_H
#define KILN_BAKER_CLI_H

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "store/store.h"

typedef struct CliContext {
    const char *store_dir; /* --store, or NULL */
    bool json;
    const char *verb;
} CliContext;

typedef int CliVerbFn(CliContext *cli, int argc, char **argv);

typedef enum CliOptionKind {
    CLI_FLAG,   /* bool *        -name, -name=true|false */
    CLI_STRING, /* const char ** -name VALUE, -name=VALUE; the last one wins */
    CLI_LIST,   /* GPtrArray *   of char *, in order */
} CliOptionKind;

typedef struct CliOption {
    const char *name; /* without dashes; "-name" and "--name" both work */
    CliOptionKind kind;
    void *target;
} CliOption;

/*
 * Takes the options (ended by a NULL name) out of argv and leaves the arguments in @ret_arguments (borrowed, NULL-terminated
 * array to free with g_free). Fewer than @min or more than @max (-1: any) arguments are a usage error naming @usage.
 */
bool cli_parse(const CliOption *options, const char *usage, int argc, char **argv, int min, int max,
               char ***ret_arguments, GError **error);

/* Where the store of this call is; free with g_free. */
char *cli_store_path(const CliContext *cli);

/* The store of this call: --store, $KILN_STORE, kiln.conf's `store = DIR`, or the default place. @flags as store_open. */
bool cli_open_store(CliContext *cli, unsigned flags, Store **ret, GError **error);

/*
 * The key that signs logs: @file when given, else $KILN_SIGNING_KEY, else kiln.conf's `signing_key = FILE`; *ret NULL when there is
 * none. Verbs that write to a log load it before they do, so that a key that is no good stops them, and sign when they have.
 */
bool cli_signing_key(const char *file, SignatureKey **ret, GError **error);
bool cli_sign_heads(Store *store, const SignatureKey *key /* or NULL: nothing is done */, GError **error);

/* Prints the error once and returns its exit status. */
int cli_fail(CliContext *cli, const GError *error);

/* The same without a status and without --json's object. */
void cli_tell_error(const GError *error);

/* Prints a document for --json; 0. Takes @document. */
int cli_print_json(json_t *document);

/* An image as every --json shows it. */
json_t *cli_image_json(const StoreImage *image);

/* -parallel-builds=N; NULL: 0, as many as fit. */
bool cli_parse_parallel(const char *text, unsigned *ret, GError **error);

/*
 * A name of a stranger in a document: bytes that are no UTF-8, and control characters, stand as \xNN. The others are lossless: where
 * the bytes are no UTF-8, KEY_encoded has all of them in the form that trees are written in, with %nn.
 */
json_t *cli_text(const char *name);
void cli_set_bytes(json_t *object, const char *key, const char *bytes);
void cli_set_path(json_t *object, const char *key, const char *path /* gets a slash in front */);

/* A moment for people, in local time; free with g_free. */
char *cli_time(int64_t seconds);

/* A CLI_LIST's values as a NULL-terminated vector that @list owns; NULL when empty. Call once. */
const char *const *cli_strings(GPtrArray *list);

/* Standard input whole, bounded; and what messages call it: the name says HCL or JSON. */
bool cli_read_stdin(GBytes **ret, GError **error);
const char *cli_stdin_name(GBytes *text);

/* One line "UNIXTIME,,TYPE,KIND,TEXT" for -machine-readable. */
void cli_machine_line(const char *type, const char *kind, const char *text);

/* cli_fail() for templates: with --json the diagnostics, in the shape of HCL's tools, instead of one sentence. */
int cli_fail_template(CliContext *cli, bool machine, json_t *diagnostics, const GError *error);

/* A value in one line or JSON's lines (free with g_free), and "PREFIX.NAME: VALUE" lines of template_describe()'s lists. */
char *cli_value_text(const json_t *value);
void cli_values_text(GString *out, const json_t *list, const char *prefix);

CliVerbFn verb_console, verb_fmt, verb_init, verb_inspect, verb_new, verb_template;
CliVerbFn verb_appliance, verb_bake, verb_boot, verb_doctor, verb_export, verb_fsck, verb_gc, verb_images, verb_nbd, verb_nightly, verb_plan, verb_rm, verb_show,
    verb_stats, verb_validate;
CliVerbFn verb_copy, verb_pull, verb_push, verb_serve, verb_tags;
CliVerbFn verb_deploy, verb_import, verb_keep, verb_prune, verb_sync;
CliVerbFn verb_blame, verb_cat, verb_diff, verb_files, verb_find, verb_sbom, verb_verify;
CliVerbFn verb_audit, verb_channels, verb_promote, verb_revoke, verb_sign, verb_tag, verb_verify_signature;

#endif
