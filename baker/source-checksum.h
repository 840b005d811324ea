/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file from outside must be: Packer's iso_checksum, "sha256:..." and its like, and files of such sums.
 */
#ifndef KILN_BAKER_SOURCE_CHECKSUM_H
#define KILN_BAKER_SOURCE_CHECKSUM_H

#include "base/digest.h"

#include <glib.h>
#include <stdbool.h>

typedef struct SourceChecksum {
    bool given;   /* else anything will do */
    bool is_sha256;
    Digest digest; /* of SHA-256 */
    const char *type; /* "md5", "sha1", "sha256", "sha384", "sha512"; static */
    char hex[129];
} SourceChecksum;

/* "none", "TYPE:HEX", or HEX alone, whose length tells the type. Not "file:...". */
bool source_checksum_parse(const char *text, SourceChecksum *ret, GError **error);

/*
 * The sum of the file @name (the last part of its URL) in @text: lines "HEX  NAME", "HEX *NAME", "SHA256 (NAME) = HEX" between others (a signature's, comments);
 * or one lone HEX. *ret_found is false where there is none.
 */
void source_checksum_find(const char *text, size_t size, const char *name, SourceChecksum *ret, bool *ret_found);

/* Is the file what @wanted says? @sha256: its digest, known already. An error names @what. */
bool source_checksum_matches(const SourceChecksum *wanted, const char *what, const char *path, const Digest *sha256, GError **error);

#endif
