/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees: the canonical list of a root file system's entries.
 *
 * Entries are sorted by path bytes; "" is the root folder itself, other paths
 * have no leading or trailing slash. Contents of regular files live in the *file space*: one Map in which
 * every distinct file of the tree starts on a 4 KiB boundary (data_offset), zero-padded. So a
 * file's blocks are the very blocks a disk uses for it.
 *
 * The tree's identity is the SHA-256 of its canonical text; the text says nothing of
 * where the bytes are stored. Text form, one line per entry, fields separated
 * by one space, paths and targets percent-encoded (bytes <= 0x20, '%', >= 0x7f); the root itself is written "/":
 *
 *   kiln-tree 1
 *   d 0755 0 0 1700000000 etc
 *   f 0644 0 0 1700000000 etc/hostname size=5 sha256=<hex> x:security.capability=<hex>
 *   l 0777 0 0 1700000000 bin target=usr/bin
 *   h etc/b leader=etc/a          (further name of a hard-link group; leader = first path)
 *   b|c 0660 0 6 1700000000 dev/sda major=8 minor=0
 *   p 0600 ... fifo               s 0600 ... socket
 */
#ifndef KILN_STORE_TREE_H
#define KILN_STORE_TREE_H

#include "store/map.h"
#include "store/tree-acl.h"

#define TREE_XATTRS_MAX 4096 /* of one entry */

typedef struct TreeXattr {
    char *name; /* "user.x", "security.capability", "system.posix_acl_access" (Linux xattr bytes, not ext4's) */
    GBytes *value;
} TreeXattr;

typedef struct TreeEntry {
    char *path;
    char type;           /* 'f' 'd' 'l' 'h' 'b' 'c' 'p' 's' */
    uint16_t mode;       /* 12 bits */
    uint32_t uid, gid;
    int64_t mtime;       /* seconds */
    char *target;        /* 'l': link text; 'h': path of the leader */
    uint32_t major, minor;
    uint64_t size;       /* 'f' */
    Digest sha256;       /* 'f' */
    uint64_t data_offset; /* 'f': start in the file space; not part of the identity */
    GPtrArray *xattrs;   /* of TreeXattr*, sorted by name; NULL for none */
} TreeEntry;

typedef struct Tree Tree; /* entries are owned by the tree */

Tree *tree_new(void);
void tree_free(Tree *tree);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Tree, tree_free)

TreeEntry *tree_entry_new(const char *path, char type);
TreeEntry *tree_entry_copy(const TreeEntry *entry);
void tree_entry_free(TreeEntry *entry);
void tree_entry_set_xattr(TreeEntry *entry, const char *name, const void *value, size_t size);
const GBytes *tree_entry_xattr(const TreeEntry *entry, const char *name);
void tree_entry_remove_xattr(TreeEntry *entry, const char *name);
#define TREE_LABEL "security.selinux" /* what a policy, and not who made a file, gives it */
bool tree_entry_equal(const TreeEntry *a, const TreeEntry *b); /* all that the identity covers */
bool tree_xattrs_equal(const GPtrArray *a, const GPtrArray *b); /* lists as in TreeEntry, either may be NULL */

/* Adds or replaces; takes the entry. Order of adding is free. */
void tree_put(Tree *tree, TreeEntry *entry);
/* Removes the entry and, if a folder, everything below. A removed hard-link leader hands over to the next name. */
void tree_remove(Tree *tree, const char *path);
const TreeEntry *tree_find(const Tree *tree, const char *path); /* NULL when absent */
TreeEntry *tree_find_mutable(Tree *tree, const char *path);
size_t tree_count(Tree *tree);
const TreeEntry *tree_nth(Tree *tree, size_t index); /* sorted order */
/* Entry that holds the content of @entry: itself, or its leader for 'h'. */
const TreeEntry *tree_content_entry(const Tree *tree, const TreeEntry *entry);

/* Can an entry other than the root have this path? No ".", "..", empty or over-long part. */
bool tree_path_is_sound(const char *path);
/* Whether @path is somewhere in @folder; the root "" has every other path below it. */
bool tree_path_is_below(const char *path, const char *folder);

/* Settles hard links after free adding: every name of a group points at its first path, which holds the entry. Missing leaders stay. */
void tree_normalise_links(Tree *tree);

/* Checks what readers may rely on: parents exist and are folders, no "." or "..", leaders exist, xattrs are not too many. Error names the path. */
bool tree_check(Tree *tree, GError **error);

char *tree_to_text(Tree *tree, size_t *ret_size);
void tree_digest(Tree *tree, Digest *ret);
bool tree_from_text(const char *text, size_t size, Tree **ret, GError **error); /* recomputes data_offset, in entry order */

/*
 * Reads and writes trees in the store. tree_store lays out the file space in entry order (content of
 * equal sha256 once), taking bytes from @files (the file space that the entries' data_offset refer to), into @writer
 * as one map; afterwards entries refer to the new space. After the writer's commit use tree_stored_result.
 */
typedef struct TreeStored {
    Digest tree;  /* blob of the canonical text */
    Digest files; /* map of the file space */
} TreeStored;
bool tree_store(Store *store, StoreWriter *writer, Tree *tree, StoreMap *files, MapWriter **ret_space, GError **error);
/* After the commit of what @space was written with: keeps the canonical text as a blob and names both parts. */
bool tree_stored_result(Store *store, Tree *tree, const MapWriter *space, TreeStored *ret, GError **error);
bool tree_load(Store *store, const TreeStored *stored, Tree **ret_tree, StoreMap **ret_files, GError **error);

/* Whole content of a file of at most @max bytes; a NUL follows it. */
bool tree_read_file(const Tree *tree, StoreMap *files, const char *path, size_t max, GBytes **ret, GError **error);

/*
 * Collects a tree while contents stream in: for tar readers and tests. The file space is written to @writer; without one there is none.
 *   b = tree_builder_new(writer); tree_builder_begin(b, entry); tree_builder_data(...)*; tree_builder_end(b); ...
 *   tree_builder_finish(b, &tree, &space); store_writer_commit(writer); tree_stored_result(store, tree, space, ...)
 * The contents wait in an unnamed temporary file until finish lays out the file space exactly as tree_store does, so equal trees
 * give equal maps. Parents that were never added become root's 0755 folders. Hard links may come before their leader; a link whose
 * leader never comes stays in the tree for tree_check to name, as container layers may link into layers below.
 */
typedef struct TreeBuilder TreeBuilder;
bool tree_builder_new(StoreWriter *writer, TreeBuilder **ret, GError **error);
bool tree_builder_add(TreeBuilder *builder, TreeEntry *entry /* taken */, GError **error); /* no content */
bool tree_builder_begin(TreeBuilder *builder, TreeEntry *entry /* taken; type 'f' */, GError **error);
bool tree_builder_data(TreeBuilder *builder, const void *data, size_t size, GError **error);
bool tree_builder_end(TreeBuilder *builder, GError **error);
/* What was collected so far; the caller may remove from it between entries (whiteouts of layers applied in order). */
Tree *tree_builder_tree(TreeBuilder *builder);
bool tree_builder_finish(TreeBuilder *builder, Tree **ret_tree, MapWriter **ret_space, GError **error);
void tree_builder_free(TreeBuilder *builder);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TreeBuilder, tree_builder_free)

/*
 * Reads a tar stream (any format libarchive reads, also compressed) from @fd into @builder. @skip may be NULL; true leaves the path out.
 * @whiteouts: OCI layer semantics; ".wh.x" and ".wh..wh..opq" are reported through @on_whiteout (path to delete; opaque: delete below) and not added.
 * Hostile archives: absolute and ".." paths, sockets, over-long names and sizes are bounded or refused.
 */
typedef bool TreeSkipFn(const char *path, void *arg);
typedef void TreeWhiteoutFn(const char *path, bool opaque, void *arg);
bool tree_read_tar(TreeBuilder *builder, int fd, TreeSkipFn *skip, TreeWhiteoutFn *on_whiteout, void *arg, GError **error);

/* Writes a tree's entries, sockets left out, as one deterministic tar (store/tar-header.h); @fd may be a pipe. By path: see export-path.h. */
bool tree_write_tar(Tree *tree, StoreMap *files, int fd, GError **error);
bool tree_export_tar(Tree *tree, StoreMap *files, const char *path, GError **error);

/* Hands the uncompressed bytes of such a stream, from its current offset, to @fn; false from it ends the work. */
typedef bool TreeBytesFn(const void *data, size_t size, void *arg, GError **error);
bool tree_tar_unpack(int fd, TreeBytesFn *fn, void *arg, GError **error);

/* SHA-256 of the uncompressed bytes of such a stream from its current offset: a layer's diff ID. */
bool tree_tar_digest(int fd, Digest *ret, GError **error);

/*
 * Reads the ext4 file system at [@offset, @offset+@size) of @disk in user space (libext2fs, read-only), without a mount.
 * With @writer the contents become a file space in it (blocks taken over from the disk's map, copied only where the class or the grid demands);
 * with @writer NULL only the tree with its digests is made. Contents beyond the end of a file are never taken over.
 * @known may be NULL; else contents in it are not read again, and new ones are added.
 */
typedef struct TreeKnown TreeKnown;
bool tree_read_ext4(Store *store, StoreMap *disk, uint64_t offset, uint64_t size, StoreWriter *writer, TreeKnown *known, Tree **ret_tree,
                    MapWriter **ret_space, GError **error);

/* Contents and the hashes of their blocks, for one thread; tree_known_add() takes in a stored tree without reading contents. */
TreeKnown *tree_known_new(void);
void tree_known_free(TreeKnown *known);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TreeKnown, tree_known_free)
bool tree_known_add(TreeKnown *known, Tree *tree, StoreMap *files, GError **error);

/*
 * The same file system twice: what differs between @a and @b as tree_diff() tells it, but for times of change and for content that was
 * written again as it was. @b may be a disk that is in use (disk_overlay_map() of a paused guest): what its journal has committed counts;
 * *ret_left is the number of blocks of fast commits, which are not applied. Reads tables and folders of both, and of contents only
 * those of files whose blocks differ. A regular file's sha256 says which content it is, by an outline's own count: compare it, don't keep it.
 */
typedef bool TreeDiffFn(char what, const TreeEntry *a, const TreeEntry *b, void *arg);
bool tree_diff_ext4(StoreMap *a, uint64_t a_offset, uint64_t a_size, StoreMap *b, uint64_t b_offset, uint64_t b_size, TreeDiffFn *fn, void *arg,
                    uint64_t *ret_left, GError **error);

/*
 * Single files of such a file system, without reading the rest. Paths are absolute; links are followed inside of it.
 * Not thread-safe; several may be open at a time.
 */
typedef struct Ext4Root Ext4Root;
bool ext4_root_open(StoreMap *disk, uint64_t offset, uint64_t size, Ext4Root **ret, GError **error);
void ext4_root_close(Ext4Root *root);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ext4Root, ext4_root_close)
/* A regular file of at most @max bytes, followed by a NUL; *ret is NULL when there is none. */
bool ext4_root_read(Ext4Root *root, const char *path, size_t max, GBytes **ret, GError **error);
/* Names in a folder, sorted; empty when there is none. Free with g_strfreev. */
bool ext4_root_list(Ext4Root *root, const char *path, char ***ret, GError **error);

/* What differs, in path order: '+' only in @b, '-' only in @a, '~' in both and different. Walk stops when fn returns false. */
void tree_diff(Tree *a, Tree *b, TreeDiffFn *fn, void *arg);

#endif
