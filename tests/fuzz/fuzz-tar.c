/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: tars of other people. The walk covers every byte once, in order, whatever they are; the list of members stays inside the file; and
 * the reader that fills trees refuses or takes them without harm.
 */
#include "store/chunker.h"
#include "store/tar-header.h"
#include "store/tar-walk.h"
#include "store/tree.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Covered {
    const uint8_t *data;
    uint64_t at, size;
} Covered;

static void cut(const uint8_t *data, uint64_t size)
{
    for (uint64_t at = 0; at < size;) {
        size_t length = chunker_cut(data + at, (size_t)(size - at));

        if (length == 0 || length > CHUNK_MAX || length > size - at)
            abort();
        at += length;
    }
}

static bool cover(uint64_t literal, uint64_t content, void *arg, GError **error)
{
    Covered *covered = arg;

    if (literal > covered->size - covered->at || content > covered->size - covered->at - literal)
        abort();
    cut(covered->data + covered->at + literal, content);
    covered->at += literal + content;
    return true;
}

static void list_members(int fd, uint64_t size)
{
    g_autoptr(GPtrArray) members = NULL;

    if (!tar_list(fd, 1000, "the archive", &members, NULL))
        return;
    for (guint i = 0; i < members->len; i++) {
        const TarMember *member = g_ptr_array_index(members, i);

        if (member->offset > size || member->size > size - member->offset)
            abort();
    }
}

static void read_tree(int fd)
{
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(Tree) tree = NULL;
    MapWriter *space = NULL;

    if (lseek(fd, 0, SEEK_SET) < 0 || !tree_builder_new(NULL, &builder, NULL) || !tree_read_tar(builder, fd, NULL, NULL, NULL, NULL) ||
        !tree_builder_finish(builder, &tree, &space, NULL))
        return;
    (void)tree_check(tree, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Covered covered = {data, 0, size};
    int fd = memfd_create("tar", MFD_CLOEXEC);

    if (!tar_walk(data, size, cover, &covered, NULL) || covered.at != size)
        abort();
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    list_members(fd, size);
    read_tree(fd);
    (void)close(fd);
    return 0;
}
