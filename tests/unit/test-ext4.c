/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store/ext4-read.c and disk-publishable.c on file systems that others made: mke2fs in its several kinds, debugfs.
 */
#include "tree-support.h"

#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>

typedef struct Fixture {
    SupportStore *support;
    Store *store;
    const char *dir;
    char *image;
} Fixture;

/* One store for all tests, and one folder of files that the file systems are made of. */
static Fixture fixture;

static void make_fixture(Fixture *f)
{
    f->support = support_store();
    f->store = f->support->store;
    f->dir = f->support->dir;
    f->image = g_build_filename(f->dir, "fs.img", NULL);
    g_assert_cmpint(support_sh("mkdir -p %s/r/d/e && cd %s/r && printf hello > small && seq 1 100000 > d/large && ln d/large twin && "
                               "head -c 40 /dev/zero > zero && truncate -s 2M d/sparse && printf end >> d/sparse && ln -s ../small d/short && "
                               "ln -s $(head -c 200 /dev/zero | tr '\\0' x) d/long && setfattr -n user.a -v b small && mknod d/c c 300 70000 && "
                               "for i in $(seq 1 300); do echo $i > d/e/file-$i; done && printf n > $'d/a\\nb'", f->dir, f->dir), ==, 0);
}

static Fixture *setup(void)
{
    if (!fixture.store)
        make_fixture(&fixture);
    (void)support_sh("cd %s && rm -f *.img", fixture.dir);
    return &fixture;
}

static void check_file(Tree *tree, StoreMap *files, const char *path, const char *source)
{
    g_autoptr(GBytes) bytes = NULL, expected = NULL;
    g_autoptr(GError) error = NULL;
    size_t size, want;
    const void *data, *want_data;

    (void)tree_read_file(tree, files, path, 1 << 24, &bytes, &error);
    g_assert_no_error(error);
    g_assert_true(file_load(AT_FDCWD, source, 1 << 24, &expected, NULL));
    data = g_bytes_get_data(bytes, &size);
    want_data = g_bytes_get_data(expected, &want);
    g_assert_cmpmem(data, size, want_data, want);
}

static void check_tree(Fixture *f, Tree *tree, StoreMap *files)
{
    static const char *const paths[] = {"small", "zero", "d/large", "twin", "d/sparse", "d/e/file-7", "d/a\nb"};

    for (size_t i = 0; i < G_N_ELEMENTS(paths); i++) {
        g_autofree char *source = g_build_filename(f->dir, "r", paths[i], NULL);

        check_file(tree, files, paths[i], source);
    }
    g_assert_cmpint((int)tree_count(tree), ==, 312);
    g_assert_cmpstr(tree_find(tree, "twin")->target, ==, "d/large");
    g_assert_cmpstr(tree_find(tree, "d/short")->target, ==, "../small");
    g_assert_cmpint((int)strlen(tree_find(tree, "d/long")->target), ==, 200);
    g_assert_nonnull(tree_entry_xattr(tree_find(tree, "small"), "user.a"));
    g_assert_cmpint((int)tree_find(tree, "d/c")->minor, ==, 70000);
    g_assert_null(tree_find(tree, "lost+found"));
}

static Tree *read_image(Fixture *f, StoreMap *disk, StoreMap **ret_files)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(GError) error = NULL;
    Tree *tree = NULL;

    g_assert_true(store_writer_open(f->store, BLOCK_PUBLIC, &writer, NULL));
    (void)tree_read_ext4(f->store, disk, 0, store_map_size(disk), writer, NULL, &tree, &space, &error);
    g_assert_no_error(error);
    *ret_files = support_commit(f->store, writer, space, NULL);
    return tree;
}

static void check_kind(const char *options)
{
    Fixture *f = setup();
    g_autoptr(StoreMap) disk = NULL, files = NULL;
    g_autoptr(Tree) tree = NULL;

    g_assert_cmpint(support_sh("mke2fs -q %s -d %s/r %s 24M", options, f->dir, f->image), ==, 0);
    disk = support_import(f->store, f->image);
    tree = read_image(f, disk, &files);
    check_tree(f, tree, files);
}

static void test_ext4(void)
{
    check_kind("-t ext4 -b 4096");
}

static void test_ext4_small_blocks(void)
{
    check_kind("-t ext4 -b 1024");
}

static void test_ext4_inline_data(void)
{
    check_kind("-t ext4 -b 4096 -O inline_data -I 256");
}

/* fs-verity's hashes lie behind the end of a file, in blocks that were written. */
static void test_ext4_verity(void)
{
    Fixture *f = setup();
    g_autoptr(StoreMap) disk = NULL, files = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autofree char *sealed = g_build_filename(f->dir, "sealed", NULL);

    g_assert_cmpint(support_sh("cd %s && head -c 5000 r/d/large >sealed && mke2fs -q -t ext4 -O verity -d r fs.img 24M && "
                               "printf 'sif /d/large size 5000\nsif /d/large flags 0x180000\n' | debugfs -w -f - fs.img", f->dir), ==, 0);
    disk = support_import(f->store, f->image);
    tree = read_image(f, disk, &files);
    check_file(tree, files, "d/large", sealed);
}

static void test_ext2(void)
{
    check_kind("-t ext2 -b 1024");
}

static void test_ext3_without_csum(void)
{
    check_kind("-t ext3 -b 4096 -I 128");
}

/* Free blocks, freed inodes and file tails hold old bytes; publishing clears the first two, reading never takes the third. */
static void test_publishable(const char *options)
{
    Fixture *f = setup();
    g_autoptr(StoreMap) disk = NULL, published = NULL, files = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) out = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *clean = NULL;

    clean = g_build_filename(f->dir, "clean.img", NULL);
    g_assert_cmpint(support_sh("cd %s && for i in $(seq 1 5000); do echo TOPSECRET; done > r/secret && ln -s SECRETLINK r/slink && "
                               "mke2fs -q %s -d r fs.img 24M && debugfs -w -R 'rm secret' fs.img && debugfs -w -R 'rm slink' fs.img && "
                               "e2fsck -fn fs.img && grep -q TOPSECRET fs.img && grep -q SECRETLINK fs.img && rm r/secret r/slink", f->dir, options),
                    ==, 0);
    disk = support_import(f->store, f->image);
    g_assert_true(store_writer_open(f->store, BLOCK_PUBLIC, &writer, NULL));
    (void)disk_publishable(f->store, writer, disk, &out, &error);
    g_assert_no_error(error);
    published = support_commit(f->store, writer, out, NULL);
    support_export(published, 0, store_map_size(published), clean);
    g_assert_cmpint(support_sh("cd %s && e2fsck -fn clean.img && ! grep -q -e TOPSECRET -e SECRETLINK clean.img", f->dir), ==, 0);
    tree = read_image(f, published, &files);
    check_tree(f, tree, files);
}

static void test_publishable_4k(void)
{
    test_publishable("-t ext4 -b 4096");
}

static void test_publishable_1k(void)
{
    test_publishable("-t ext4 -b 1024");
}

static void expect_refusal(const char *script, const char *words)
{
    Fixture *f = setup();
    g_autoptr(StoreMap) disk = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(support_sh("cd %s && %s", f->dir, script), ==, 0);
    disk = support_import(f->store, f->image);
    g_assert_false(tree_read_ext4(f->store, disk, 0, store_map_size(disk), NULL, NULL, &tree, NULL, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, words))
        g_error("'%s' does not say '%s'", error->message, words);
}

static void test_refusals(void)
{
    expect_refusal("truncate -s 24M fs.img", "no ext4 file system");
    expect_refusal("mke2fs -q -t ext4 -O encrypt fs.img 24M", "encryption");
    expect_refusal("mke2fs -q -t ext4 fs.img 24M && truncate -s 12M fs.img", "larger than its partition");
    expect_refusal("mke2fs -q -t ext4 fs.img 24M && debugfs -w -R 'feature needs_recovery' fs.img", "not unmounted cleanly");
    expect_refusal("mke2fs -q -t ext4 -b 4096 -O ^metadata_csum -d r fs.img 24M && debugfs -w -R 'link d d/e/loop' fs.img", "two names");
}

/* Random damage: any outcome but a crash or an endless walk. */
static void test_damage(void)
{
    Fixture *f = setup();
    g_autoptr(GBytes) bytes = NULL;
    g_autofree uint8_t *data = NULL;
    size_t size;

    g_assert_cmpint(support_sh("mke2fs -q -t ext4 -b 1024 -N 512 -O ^metadata_csum,^has_journal,inline_data -d %s/r %s 4M", f->dir, f->image), ==, 0);
    g_assert_true(file_load(AT_FDCWD, f->image, 1 << 24, &bytes, NULL));
    data = g_memdup2(g_bytes_get_data(bytes, &size), g_bytes_get_size(bytes));
    for (int round = 0; round < (g_test_slow() ? 2000 : 10); round++) {
        g_autofree uint8_t *copy = g_memdup2(data, size);
        g_autoptr(StoreMap) disk = NULL;
        g_autoptr(Tree) tree = NULL;

        for (int i = 0; i < 60; i++)
            copy[g_test_rand_int_range(i % 4 ? 1024 : 0, i % 4 ? 300 * 1024 : (int)size)] = (uint8_t)g_test_rand_int();
        memcpy(copy + 1024, data + 1024, 1024); /* else hardly any would be opened */
        g_assert_true(file_replace(AT_FDCWD, f->image, copy, size, 0600, FILE_SYNC_NO, NULL));
        disk = support_import(f->store, f->image);
        (void)tree_read_ext4(f->store, disk, 0, store_map_size(disk), NULL, NULL, &tree, NULL, NULL);
    }
}

static void check_partitions(const char *script, const char *expected)
{
    Fixture *f = setup();
    g_autoptr(StoreMap) disk = NULL;
    g_autoptr(GArray) parts = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(support_sh("cd %s && mke2fs -q -t ext4 part.img 8M && truncate -s 64M fs.img && %s", f->dir, script), ==, 0);
    disk = support_import(f->store, f->image);
    if (!disk_partitions(disk, &parts, &error))
        g_string_assign(text, "refused");
    for (guint i = 0; parts && i < parts->len; i++) {
        const DiskPartition *p = &g_array_index(parts, DiskPartition, i);

        g_string_append_printf(text, "%u:%d+%d:%s%s ", p->number, (int)(p->offset >> 20), (int)(p->size >> 20), p->fs,
                               p->unclean ? "(unclean)" : "");
    }
    g_assert_cmpstr(text->str, ==, expected);
}

static void test_partitions(void)
{
    check_partitions("true", "");
    check_partitions("cp part.img fs.img", "0:0+8:ext4 ");
    check_partitions("cp part.img fs.img && debugfs -w -R 'feature needs_recovery' fs.img 2>&1", "0:0+8:ext4(unclean) ");
    check_partitions("printf 'label: dos\\nunit: sectors\\n4096,16384\\n24576,81920,E\\n28672,16384\\n49152,16384\\n' | sfdisk -q fs.img && "
                     "dd if=part.img of=fs.img bs=1M seek=14 conv=notrunc status=none", "1:2+8: 5:14+8:ext4 6:24+8: ");
    check_partitions("printf 'label: gpt\\nunit: sectors\\nstart=4096,size=16384\\n' | sfdisk -q fs.img && "
                     "dd if=part.img of=fs.img bs=1M seek=2 conv=notrunc status=none", "1:2+8:ext4 ");
    check_partitions("printf 'label: gpt\\nunit: sectors\\nstart=4096,size=16384\\n' | sfdisk -q fs.img && "
                     "printf x | dd of=fs.img bs=1 seek=1060 conv=notrunc status=none", "refused");
}

int main(int argc, char **argv)
{
    int rc;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ext4/reads-ext4", test_ext4);
    g_test_add_func("/ext4/reads-1k-blocks", test_ext4_small_blocks);
    g_test_add_func("/ext4/reads-inline-data", test_ext4_inline_data);
    g_test_add_func("/ext4/reads-verity", test_ext4_verity);
    g_test_add_func("/ext4/reads-ext2", test_ext2);
    g_test_add_func("/ext4/reads-ext3-with-small-inodes", test_ext3_without_csum);
    g_test_add_func("/ext4/publishable-forgets", test_publishable_4k);
    g_test_add_func("/ext4/publishable-forgets-1k", test_publishable_1k);
    g_test_add_func("/ext4/refusals-say-why", test_refusals);
    g_test_add_func("/ext4/random-damage-is-survived", test_damage);
    g_test_add_func("/ext4/partitions", test_partitions);
    rc = g_test_run();
    support_store_free(fixture.support);
    g_free(fixture.image);
    return rc;
}
