/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changed between two images: packages first, since they are why most files changed, then files, each with the package it belongs to.
 */
#ifndef KILN_BAKER_IMAGE_DIFF_H
#define KILN_BAKER_IMAGE_DIFF_H

#include "baker/image-root.h"
#include "baker/package-db.h"

typedef struct PackageChange {
    const Package *from, *to; /* one is NULL where a package came or went; of the lists in ImageDiff */
} PackageChange;

typedef enum FilePart {
    FILE_PART_TYPE = 1,
    FILE_PART_CONTENT = 2, /* of a file; where a link points; which device */
    FILE_PART_MODE = 4,
    FILE_PART_OWNER = 8,
    FILE_PART_XATTRS = 16,
    FILE_PART_TIME = 32,
    FILE_PART_LINKS = 64, /* which names are one file */
} FilePart;
#define FILE_PARTS 7
extern const char *const file_part_names[FILE_PARTS]; /* of 1u << index */

typedef struct FileChange {
    const TreeEntry *a, *b; /* NULL: it came or went; borrowed from the roots */
    unsigned parts;         /* of FilePart, for a change */
    const char *package;    /* NULL: no package has the path; borrowed from ImageDiff */
} FileChange;

typedef struct ImageDiff {
    PackageList *packages_a, *packages_b;
    GArray *packages;                     /* of PackageChange, by type and name */
    GArray *files;                        /* of FileChange, in path order */
    GHashTable *owners_a, *owners_b;
} ImageDiff;

/* Both roots must outlive the result. */
bool image_diff(const ImageRoot *a, const ImageRoot *b, ImageDiff **ret, GError **error);
void image_diff_free(ImageDiff *diff);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageDiff, image_diff_free)

/* How a text file changed, as diff -u writes it; *ret is NULL where it is no text on both sides, or larger than a megabyte. */
bool image_diff_patch(const ImageRoot *a, const ImageRoot *b, const FileChange *change, char **ret, GError **error);

#endif
