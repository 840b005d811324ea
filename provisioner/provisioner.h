/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The face of the provisioners: what can be done to a guest, one file each, listed in provisioner-table.c.
 *
 * Life of a step: check (arguments only, at plan time; no guest) -> inputs
 * (every file of the host it reads, with digests, for the step's key) -> run.
 */
#ifndef KILN_PROVISIONER_PROVISIONER_H
#define KILN_PROVISIONER_PROVISIONER_H

#include "base/digest.h"
#include "base/json.h"
#include "provisioner/guest.h"
#include "provisioner/host.h"

/* One thing a step depends on. */
typedef struct ProvisionerInput {
    char *name;    /* as the user wrote it, e.g. "files/app.conf" */
    char *path;    /* where it was found on this host */
    uint32_t mode; /* st_mode of the file */
    Digest digest; /* of the content, or of the link text */
} ProvisionerInput;
void provisioner_input_free(ProvisionerInput *input);

typedef struct ProvisionerOps {
    const char *type;                          /* "shell" */
    const char *const *arguments;              /* every argument it takes, NULL-terminated */
    bool needs_guest;                          /* false: runs on the host only (shell-local) */
    bool (*wants_network)(const json_t *args); /* default when the template does not say; NULL: no */
    /* Types, required and exclusive arguments. *ret_argument: the argument at fault (borrowed, may be NULL).
     */
    bool (*check)(const json_t *args, const char **ret_argument, GError **error);
    /* Appends ProvisionerInput*; a missing file is an error naming it. NULL: no inputs. */
    bool (*inputs)(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error);
    /* Runs between guest begin and end. @guest is NULL for host-only ones. */
    bool (*run)(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error);
    bool always_runs; /* shell-local: never taken from the cache, unless inputs and outputs are declared */
    /* Names and globs of the host's files that run() makes, by these arguments; free with g_strfreev. NULL: it makes none. */
    char **(*outputs)(const json_t *args);
    /* True when these arguments change something outside of the guest (file with direction = "download");
     * NULL: never. */
    bool (*has_effects)(const json_t *args);
    /*
     * Not NULL: no step of the image but a place where a bake may stop for somebody to look. Nothing of it is kept and no key
     * knows of it. True when these arguments stop it; run() gets a guest only where somebody is there.
     */
    bool (*stops)(const json_t *args);
    /* Whether what stands in @inputs makes the step ask more of the host than them; NULL: never. */
    bool (*reaches_outside)(const json_t *args, const GPtrArray *inputs);
    bool volatile_with_network; /* result depends on the outside when it has network (shell, packages) */
} ProvisionerOps;

/* NULL when unknown. */
const ProvisionerOps *provisioner_find(const char *type);
const char *const *provisioner_types(void); /* NULL-terminated, for "did you mean" */

/*
 * What a machine's first boot would have done, done in the guest before the template's steps: no provisioner of a template, but the step that
 * sources put before those (baker/source.h). Arguments: first-boot.c.
 */
const ProvisionerOps *provisioner_first_boot(void);

/* Why a type of Packer's is none here; NULL: it is not known at all. */
const char *provisioner_refusal(const char *type);

/*
 * Appends ProvisionerInput* for every file that the template's `inputs` declare: names, or globs with * ? [] and ** for any number of folders, relative to the
 * template's folder. A folder stands for all that is in it; what matches nothing is an error, as a mistyped name would be.
 */
bool provisioner_declared_inputs(const char *const *globs, const ProvisionerHost *host, GPtrArray *inputs, GError **error);

/* [[name, mode, SHA-256], ...] of ProvisionerInput*, to be remembered and compared. New reference. */
json_t *provisioner_inputs_json(const GPtrArray *inputs);
/* The same of what provisioner_declared_inputs() finds. */
bool provisioner_declared_json(const char *const *globs, const ProvisionerHost *host, json_t **ret, GError **error);

/* The step must run even if its result is known: always_runs, or has_effects() of @args. */
bool provisioner_always_runs(const ProvisionerOps *ops, const json_t *args);

/* The seal's cleaning, in the guest: nothing is running any more. Knows the lists of facts of cloud images:
 * machine-id, host keys, seeds, logs, caches. @more: a template's volatile_paths; may be NULL. */
bool provisioner_sysprep(const ProvisionerHost *host, const char *const *more, Guest *guest, GError **error);

/*
 * Is this a pattern for @more? An absolute path whose components may hold * ? []; "/a/" and two stars is all below /a, and two stars and
 * "/NAME" all of that name below it. What fits goes, folders with all that is in them.
 */
bool provisioner_sysprep_check(const char *pattern, GError **error);

/* Does this /etc/selinux/config want the seal to label the guest's files? *ret_policy: by the policy of that name; NULL for none; free with g_free. */
bool provisioner_wants_labels(const char *config, char **ret_policy);

/*
 * The same knowledge for trees read on the host: what a path of a sealed root becomes.
 * KEEP as it is; DROP the entry (folders: with everything below); EMPTY: a regular file of size 0; EMPTY_DIR:
 * the folder stays, its contents go.
 */
typedef enum SysprepVerdict { SYSPREP_KEEP, SYSPREP_DROP, SYSPREP_EMPTY, SYSPREP_EMPTY_DIR } SysprepVerdict;
SysprepVerdict provisioner_sysprep_verdict(const char *path /* no leading slash */,
                                           char type /* as in GuestOps.stat, 'l' for links */, const char *const *more);

/*
 * What a sealed root gains: each entry is added when all of @needs are there and nothing stands at @path.
 * Root's, 0644, time SOURCE_DATE_EPOCH; parents are made. Ends with path NULL.
 */
typedef struct SysprepExtra {
    const char *path; /* no leading slash */
    char type;        /* 'f': @text is the content; 'l': the link's target */
    const char *text;
    const char *needs[3]; /* paths, NULL-terminated; an item "a|b" is met by either */
} SysprepExtra;
const SysprepExtra *provisioner_sysprep_extras(void);

#endif
