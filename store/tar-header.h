/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tar headers, written and read: the deterministic PAX form that our layers and
 * archives have, and the little of other people's tars that finding files in an OCI archive needs.
 *
 * Written: ustar, with a pax 'x' header in front only when ustar cannot say it (long or non-ASCII
 * names, large numbers, xattrs as SCHILY.xattr.*). No names of owners, no atime, no ctime.
 * What is written here decides layer digests of new bakes; stored layers keep their headers verbatim.
 */
#ifndef KILN_STORE_TAR_HEADER_H
#define KILN_STORE_TAR_HEADER_H

#include "store/tree.h"

#define TAR_BLOCK 512
#define TAR_END_SIZE (2 * TAR_BLOCK)

static inline uint64_t tar_padding(uint64_t size)
{
    return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
}

typedef struct TarUstar {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, linkname[100];
    char magic[6], version[2], uname[32], gname[32], devmajor[8], devminor[8], prefix[155], unused[12];
} TarUstar;
G_STATIC_ASSERT(sizeof(TarUstar) == TAR_BLOCK);

/* Octal digits with spaces around, or GNU's base-256 form. */
bool tar_get_number(const char *field, size_t size, uint64_t *ret);
bool tar_checksum_fits(const TarUstar *header);

/*
 * @entry with what its header shall say: a further name of a file says the file's mode, owner and time. Those who unpack set them by each
 * name's header (podman's and Docker's library do), and would take them from the file. Shallow: texts stay @entry's.
 */
TreeEntry tar_header_entry(const Tree *tree, const TreeEntry *entry);

/* Appends the header blocks of @entry; content and padding are the caller's. Sockets are an error. "" is
 * written as "./". */
bool tar_header_append(GByteArray *out, const TreeEntry *entry, GError **error);

/* A regular file in a tar, by where its bytes are. */
typedef struct TarMember {
    char *name; /* without leading "./" */
    uint64_t offset, size;
} TarMember;

/*
 * Lists the regular files of the uncompressed tar in @fd (seekable); names and sizes from ustar, pax and GNU
 * headers. At most @max members and names of 4096 bytes. Array of TarMember*.
 */
bool tar_list(int fd, size_t max, const char *what, GPtrArray **ret, GError **error);

#endif
