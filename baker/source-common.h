/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What several sources need: checked arguments, trees put into the store, small files added to a tree, the first
 * working disk. For the source-*.c files only; the face is baker/source.h.
 */
#ifndef KILN_BAKER_SOURCE_COMMON_H
#define KILN_BAKER_SOURCE_COMMON_H

#include "baker/render.h"
#include "baker/source-checksum.h"
#include "baker/source.h"

/* Every string argument in @names (NULL-terminated) is a string, where given. */
bool source_check_strings(const json_t *args, const char *const *names, const char **ret_argument, GError **error);
/* `size` as bytes; absent gives @otherwise. Whole mebibytes from 80 MiB to 16 TiB. */
bool source_size_argument(const json_t *args, const char *otherwise, uint64_t *ret, const char **ret_argument,
                          GError **error);

/* NULL, or the option by which nothing is to be asked of what may have changed elsewhere. */
const char *source_keeps_still(const SourceContext *context);

/* A path as templates mean it: absolute, or below the template's folder, or else below the working directory. */
char *source_find_file(const SourceContext *context, const char *path);

/* SHA-256 of a regular file; remembered in the store for as long as the file's inode, size and times stay the same. */
bool source_file_digest(const SourceContext *context, const char *path, Digest *ret, GError **error);

/* Memos that are JSON objects. *ret is NULL when absent or unreadable. */
bool source_memo_get(Store *store, const char *key, json_t **ret, GError **error);
bool source_memo_put(Store *store, const char *key, const json_t *value, const TreeStored *keeps, GError **error);

/* Lays @tree out anew as public blocks and stores its text; @tree refers to the new file space afterwards. */
bool source_store_tree(Store *store, Tree *tree, StoreMap *files, TreeStored *ret, StoreMap **ret_files, GError **error);

/* A file, link or folder that kiln adds to a tree, owned by root. */
typedef struct SourceAddition {
    const char *path;
    char type;        /* 'f', 'l' or 'd' */
    const char *text; /* content, or link target */
} SourceAddition;
/* Adds (or replaces) @count entries with their parent folders; *ret_files holds the old contents and the new ones. */
bool source_add_files(Store *store, Tree *tree, StoreMap *files, const SourceAddition *additions, size_t count,
                      int64_t epoch, StoreMap **ret_files, GError **error);

/* Renders @state->tree as the first working disk and fills map, size, content and layout. Without a size it gets room for steps. */
bool source_render(const SourceContext *context, const RenderSpec *spec, SourceState *state, GError **error);

/* source-disk.c: the first state of a disk that keeps its layout, grown to @size (0: as it is); @state has layout and epoch. */
bool source_disk_first_state(const SourceContext *context, const Digest *map, uint64_t size, SourceState *state, GError **error);

/* source-disk.c, for sources that are a disk image in a file or behind a URL: what it is, ... */
bool source_disk_identify(const SourceContext *context, const char *from, const SourceChecksum *wanted, Digest *ret, GError **error);
/* ... as an identity, on a disk of @size bytes (0: as it is), ... */
json_t *source_disk_identity(const char *type, const Digest *file, uint64_t size);
/* ... in the store, whatever it came from, ... */
bool source_disk_import(const SourceContext *context, const char *from, const Digest *file, GError **error);
/* ... how large it is (0: it was not imported), ... */
bool source_disk_size(const SourceContext *context, const Digest *file, uint64_t *ret, GError **error);
/* ... and its first state. */
bool source_disk_prepare(const SourceContext *context, const char *from, const json_t *identity, SourceState *ret, GError **error);

/*
 * source-oci.c, the same for a container image: "docker://...", "oci:DIR", "oci-archive:FILE" or "scratch". @remembered: a registry is not asked
 * what a tag stands for as long as the store knows what it stood for.
 */
bool source_oci_identify(const SourceContext *context, const char *from, uint64_t size, bool remembered, json_t **ret_identity, GError **error);
bool source_oci_prepare(const SourceContext *context, const char *from, const json_t *identity, SourceState *ret, GError **error);

/* "2024-05-01T10:00:00Z" as seconds; -1 when it is no such text. */
int64_t source_parse_time(const char *text);

extern const SourceOps source_bootstrap_ops;
extern const SourceOps source_disk_ops;
extern const SourceOps source_oci_ops;
extern const SourceOps source_qemu_ops;
extern const SourceOps source_docker_ops;
extern const SourceOps source_null_ops;
extern const SourceOps source_file_ops;

#endif
