/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that a bake leaves beside the store: what Packer's sources put into `output_directory`, and what post-processors make of it.
 *
 * A bake writes them every time, cached or not, so they are written only where that changes something: the store remembers what was
 * written where, with the file's inode, size and times. A file that is not as it was left is made anew beside its place; if its bytes are
 * the same, it stays untouched, else it is replaced, whole and atomically. Missing folders are made.
 *
 *   memo "output:" + absolute path -> { "what", "stat" }
 */
#ifndef KILN_BAKER_OUTPUT_FILES_H
#define KILN_BAKER_OUTPUT_FILES_H

#include "store/store.h"

typedef enum OutputForm {
    OUTPUT_RAW,            /* disk; with holes */
    OUTPUT_QCOW2,          /* disk; zstd-compressed clusters */
    OUTPUT_GCE,            /* disk; .tar.gz as Google imports it */
    OUTPUT_OCI_ARCHIVE,    /* oci */
    OUTPUT_DOCKER_ARCHIVE, /* oci; for `docker load` */
    OUTPUT_TAR,            /* either; the root file system, as `docker export` gives it */
} OutputForm;

typedef struct OutputFile {
    const StoreImage *image;
    OutputForm form;
    const char *path;        /* relative ones from the working directory, as Packer reads them */
    const char *const *tags; /* OUTPUT_DOCKER_ARCHIVE: "repository:tag"; NULL: the image's name with "latest" */
} OutputFile;

/* *ret_written (may be NULL): false where the file was there already. */
bool output_file_write(Store *store, const OutputFile *file, bool *ret_written, GError **error);

/* "qcow2", "raw", ...; false for a word that is none. */
bool output_form_parse(const char *word, OutputForm *ret);

/*
 * The same for other files: @make writes @path, which is a new name in a folder of its own. @what says all that the bytes depend on, in any
 * text: for the same @what the same bytes would come out again.
 */
typedef bool OutputMakeFn(const char *path, void *arg, GError **error);
bool output_make(Store *store, const char *path, const char *what, OutputMakeFn *make, void *arg, bool *ret_written, GError **error);

/* The file's checksum of one of checksum_types (base/checksum.h), in hex; remembered for as long as the file stays as it is. */
bool output_checksum(Store *store, const char *path, const char *type, char **ret_hex, GError **error);

#endif
