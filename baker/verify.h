/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a bake reproducible? The same build, twice, from nothing, under other circumstances; then compared.
 *
 * The second bake has another file-creation mask, host name, time zone and load, folders that hand out their entries in another order, and
 * in steps with network a clock that is a day ahead. It installs the very packages that the first one did. Neither is published or remembered.
 *
 * Rendered disks and containers must have equal image IDs. A disk that keeps its own partitions is changed by the guest's kernel, which writes
 * the same files to other blocks each time: there the trees, the partition tables and what no file system covers are compared.
 */
#ifndef KILN_BAKER_VERIFY_H
#define KILN_BAKER_VERIFY_H

#include "baker/bake.h"

typedef enum VerifyVerdict {
    VERIFY_EQUAL,      /* the same image ID */
    VERIFY_EQUAL_TREE, /* an in-place disk: other blocks, the same files, tables and boot areas */
    VERIFY_DIFFERENT,
} VerifyVerdict;

typedef struct VerifyDifference {
    char *path; /* "/etc/x"; or what of the disk: "bytes 512 to 1023 of the disk" */
    char *what; /* "content, mode" */
    char *step; /* "2 packages", "the source" */
    char *bytes;/* the first that differ, on both sides; NULL where that says nothing */
} VerifyDifference;

typedef struct VerifyImage {
    char *kind;
    Digest a, b; /* image IDs */
    VerifyVerdict verdict;
    GPtrArray *differences; /* of VerifyDifference*, at most VERIFY_LISTED */
    size_t count;           /* of them all */
} VerifyImage;
#define VERIFY_LISTED 200u

/* *ret: one VerifyImage* for each kind; free with g_ptr_array_unref. Takes two cold bakes. */
bool verify_build(Store *store, Template *template, const TemplateBuild *build, const BakeOptions *options, GPtrArray **ret, GError **error);

/*
 * The same of a stored image: rebuilt once, from nothing, from the inputs that its set recorded, and compared with what is stored. @vars: "NAME=VALUE"
 * of its template's sensitive variables, which are not kept; may be NULL. *ret_name: the set's, free with g_free.
 */
bool verify_image(Store *store, const char *ref, const char *const *vars, const BakeOptions *options, char **ret_name, GPtrArray **ret, GError **error);

#endif
