/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: ext4 file systems as a vendor, or a guest, may hand them over. The input's first byte chooses one of the file systems made here by mke2fs
 * (without checksums, which would hide everything behind them), the rest changes bytes of it, or with 0xff is the file system itself. Read as a tree, by path, against
 * the unchanged one, and cleaned for publishing.
 */
#include "tests/fuzz/fuzz-store.h"

#include "store/ext4-serve.h"
#include "store/ext4-session.h"
#include "store/map-patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SIZE (4u << 20)
#define KINDS 3

static Store *store;
static StoreMap *nothing;
static uint8_t *bases[KINDS];
static StoreMap *unchanged[KINDS];

static void fill_folder(void)
{
    g_autofree char *text = g_strnfill(9000, 'x'), *link = fuzz_path("root/link"), *hard = fuzz_path("root/etc/hard"), *file = fuzz_path("root/etc/file");

    fuzz_write("root/etc/hostname", "kiln\n", 5);
    fuzz_write("root/etc/file", text, 9000);
    fuzz_write("root/usr/lib/os-release", "ID=debian\n", 10);
    if (symlink("usr/lib/os-release", link) < 0 || linkat(AT_FDCWD, file, AT_FDCWD, hard, 0) < 0)
        abort();
}

static uint8_t *make_base(unsigned number)
{
    static const char *const features[KINDS] = {
        "^metadata_csum,^has_journal,^resize_inode,inline_data",
        "^metadata_csum,^resize_inode,^64bit",
        "^metadata_csum,^has_journal,^extent,^64bit,^resize_inode",
    };
    g_autofree char *path = g_strdup_printf("%s/base-%u", fuzz_dir(), number), *root = fuzz_path("root");
    const char *argv[] = {"mke2fs", "-q",  "-F", "-t", "ext4", "-b", number == 1 ? "1024" : "4096", "-I", "256",
                          "-O",     features[number], "-d", root, number == 1 ? "-J" : "-q", number == 1 ? "size=1" : "-q", path, "4096k", NULL};
    g_autoptr(GBytes) bytes = NULL;
    gsize size;

    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL, NULL,
                      NULL, NULL) ||
        !file_load(AT_FDCWD, path, SIZE, &bytes, NULL) || g_bytes_get_size(bytes) != SIZE)
        g_error("mke2fs made no file system");
    return g_bytes_unref_to_data(g_steal_pointer(&bytes), &size);
}

static StoreMap *map_of(const uint8_t *bytes)
{
    MapPatch *patch = map_patch_new(SIZE, fuzz_memory_file(bytes, SIZE));

    map_patch_add(patch, 0, SIZE / STORE_BLOCK_SIZE, 0);
    return store_map_patched(nothing, patch);
}

static void make_bases(void)
{
    Digest digest;

    (void)g_setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", TRUE);
    ext4_session_serve_here(ext4_serve); /* not a process of its own: its crashes are what is looked for */
    store = fuzz_open("store", STORE_OPEN_CREATE);
    digest = fuzz_map(store, 1, 0);
    if (!store_map_open(store, &digest, &nothing, NULL))
        abort();
    fill_folder();
    for (unsigned i = 0; i < KINDS; i++) {
        bases[i] = make_base(i);
        unchanged[i] = map_of(bases[i]);
    }
}

static bool go_on(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    return true;
}

static void read_tree(StoreMap *disk)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autofree char *text = NULL;

    if (tree_read_ext4(store, disk, 0, SIZE, NULL, NULL, &tree, &space, NULL) && !(text = tree_to_text(tree, NULL)))
        abort();
}

static void read_paths(StoreMap *disk)
{
    g_autoptr(Ext4Root) root = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_auto(GStrv) names = NULL;

    if (!ext4_root_open(disk, 0, SIZE, &root, NULL))
        return;
    (void)ext4_root_read(root, "/link", 65536, &bytes, NULL);
    (void)ext4_root_list(root, "/etc", &names, NULL);
}

static void compare(StoreMap *before, StoreMap *disk)
{
    uint64_t left;

    (void)tree_diff_ext4(before, 0, SIZE, disk, 0, SIZE, go_on, NULL, &left, NULL);
}

/* In a store of its own, which goes again: a disk that is cleaned has been stored. */
static void clean(const uint8_t *bytes)
{
    g_autoptr(Store) other = fuzz_open("other", STORE_OPEN_CREATE);
    g_autoptr(StoreWriter) writer = NULL, second = NULL;
    g_autoptr(MapWriter) writing = NULL, cleaned = NULL;
    g_autoptr(StoreMap) disk = NULL;
    g_autofree char *path = fuzz_path("other");
    MapResult result;

    if (!store_writer_open(other, BLOCK_PRIVATE, &writer, NULL) || !map_writer_new(writer, SIZE, NULL, &writing, NULL) ||
        !map_writer_write(writing, 0, bytes, SIZE, NULL) || !map_writer_finish(writing, NULL) || !store_writer_commit(writer, NULL))
        abort();
    map_writer_result(writing, &result);
    if (!store_map_open(other, &result.digest, &disk, NULL) || !store_writer_open(other, BLOCK_PUBLIC, &second, NULL))
        abort();
    (void)disk_publishable(other, second, disk, &cleaned, NULL);
    (void)file_remove_tree(AT_FDCWD, path, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(StoreMap) disk = NULL;
    g_autofree uint8_t *bytes = NULL;
    unsigned kind;

    if (!store)
        make_bases();
    if (size < 2)
        return 0;
    kind = data[0] % KINDS;
    bytes = g_memdup2(bases[kind], SIZE);
    if (data[0] == 0xff)
        memcpy(bytes, data + 1, MIN(size - 1, SIZE));
    else
        fuzz_patch(bytes, SIZE, data + 1, size - 1);
    disk = map_of(bytes);
    read_tree(disk);
    read_paths(disk);
    compare(unchanged[kind], disk);
    if (data[1] % 16 == 0)
        clean(bytes);
    return 0;
}
