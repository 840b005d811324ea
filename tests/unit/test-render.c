/* SPDX-License-Identifier: Apache-2.0 */
/*
 * baker/render*.c, checked by others: e2fsck, fsck.vfat, sgdisk; and by our own ext4 reader.
 */
#include "tree-support.h"

#include "baker/render-parts.h"
#include "base/debian-version.h"
#include "baker/render.h"
#include "base/file.h"
#include "base/process.h"

#include <fcntl.h>
#include <string.h>

static const uint8_t capability[20] = {1, 0, 0, 2, 0, 0x20};
static const uint8_t acl[] = {2, 0, 0, 0,  1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
                              16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};

static void add_special(TreeBuilder *builder, const char *path, char type, uint32_t major, uint32_t minor)
{
    TreeEntry *entry = tree_entry_new(path, type);

    entry->mode = 0600;
    entry->mtime = -1;
    entry->major = major;
    entry->minor = minor;
    entry->uid = 100000;
    g_assert_true(tree_builder_add(builder, entry, NULL));
}

static void add_with_target(TreeBuilder *builder, const char *path, char type, const char *target)
{
    TreeEntry *entry = tree_entry_new(path, type);

    entry->mode = 0777;
    entry->mtime = (int64_t)1 << 33; /* beyond 2106: needs the inode's extra bits */
    entry->target = g_strdup(target);
    g_assert_true(tree_builder_add(builder, entry, NULL));
}

static void add_xattr_file(TreeBuilder *builder)
{
    static char big[3000];
    TreeEntry *entry = tree_entry_new("odd/xattrs", 'f');

    memset(big, 'q', sizeof big);
    entry->mode = 0755;
    tree_entry_set_xattr(entry, "security.capability", capability, sizeof capability);
    tree_entry_set_xattr(entry, "system.posix_acl_access", acl, sizeof acl);
    tree_entry_set_xattr(entry, "user.big", big, sizeof big);
    tree_entry_set_xattr(entry, "user.empty", "", 0);
    g_assert_true(tree_builder_begin(builder, entry, NULL));
    g_assert_true(tree_builder_data(builder, "x", 1, NULL));
    g_assert_true(tree_builder_end(builder, NULL));
}

static void fill_odd(TreeBuilder *builder)
{
    g_autofree char *long_name = g_strnfill(255, 'n'), *long_path = g_strconcat("odd/", long_name, NULL);
    g_autofree char *long_target = g_strnfill(3000, 't'), *target_59 = g_strnfill(59, 'a'), *target_60 = g_strnfill(60, 'b');
    g_autofree uint8_t *holes = g_malloc0(1000 * 8192);

    support_add(builder, "odd", 'd', 0755);
    support_add_file(builder, long_path, "data", 4);
    support_add_file(builder, "odd/a b\n\xc3\xa9", "data", 4);
    add_with_target(builder, "odd/slow", 'l', long_target);
    add_with_target(builder, "odd/59", 'l', target_59);
    add_with_target(builder, "odd/60", 'l', target_60);
    add_with_target(builder, "another name", 'h', long_path);
    add_special(builder, "odd/old", 'b', 8, 1);
    add_special(builder, "odd/new", 'c', 300, 70000);
    add_special(builder, "odd/white", 'c', 0, 0);
    add_special(builder, "odd/pipe", 'p', 0, 0);
    add_special(builder, "odd/sock", 's', 0, 0);
    add_xattr_file(builder);
    for (unsigned i = 0; i < 1000; i++)
        holes[i * 8192] = (uint8_t)(i % 255 + 1);
    support_add_file(builder, "odd/holes", holes, 1000 * 8192); /* 1000 extents */
    support_add_file(builder, "empty", "", 0);
}

static void fill_many(TreeBuilder *builder)
{
    for (unsigned i = 0; i < 20000; i++) {
        g_autofree char *path = g_strdup_printf("many/file-%u", i);

        support_add_file(builder, path, path, i % 3 ? strlen(path) : 0);
    }
}

static void fill_machine(TreeBuilder *builder)
{
    g_autofree char *kernel = g_malloc0(100000);

    memcpy(kernel + 0x202, "HdrS", 4);
    support_add_file(builder, "boot/vmlinuz-6.1.0-9-amd64", kernel, 100000);
    support_add_file(builder, "boot/vmlinuz-6.1.0-10-amd64", kernel, 100000);
    support_add_file(builder, "boot/initrd.img-6.1.0-10-amd64", "i", 1);
}

static void fill_bad_kernel(TreeBuilder *builder)
{
    g_autofree char *kernel = g_malloc0(100000);

    support_add_file(builder, "boot/vmlinuz-6.1", kernel, 100000);
}

static StoreMap *render(Store *store, Tree *tree, StoreMap *files, bool bootable, uint64_t size, MapResult *ret, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) disk = NULL;
    RenderSpec spec = {.name = "test", .size = size, .epoch = 1700000000, .bootable = bootable};

    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, NULL));
    if (!render_disk(store, writer, tree, files, &spec, &disk, error))
        return NULL;
    return support_commit(store, writer, disk, ret);
}

/* Everybody agrees that the disk is sound. */
static void check_disk(StoreMap *disk, const char *dir)
{
    uint64_t offset, size;
    g_autofree char *root = g_build_filename(dir, "root.img", NULL), *esp = g_build_filename(dir, "esp.img", NULL);
    g_autofree char *raw = g_build_filename(dir, "disk.raw", NULL);

    render_root_extent(store_map_size(disk), &offset, &size);
    support_export(disk, offset, size, root);
    support_export(disk, ESP_OFFSET, ESP_SIZE, esp);
    support_export(disk, 0, store_map_size(disk), raw);
    g_assert_cmpint(support_sh("e2fsck -fn %s", root), ==, 0);
    if (process_have("fsck.vfat"))
        g_assert_cmpint(support_sh("fsck.vfat -n %s", esp), ==, 0);
    if (process_have("sgdisk"))
        g_assert_cmpint(support_sh("sgdisk -v %s | grep -q 'No problems found'", raw), ==, 0);
}

static bool print_difference(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    unsigned *count = arg;

    if ((*count)++ < 10)
        g_printerr("%c %s\n", what, a ? a->path : b->path);
    return true;
}

/* What GRUB gives the kernel is what the table has. */
static void check_partition_uuid(const char *text, const char *before, const char *dir)
{
    const char *at = strstr(text, before);
    g_autofree char *uuid = NULL;

    g_assert_nonnull(at);
    uuid = g_strndup(at + strlen(before), 36);
    if (process_have("sgdisk"))
        g_assert_cmpint(support_sh("sgdisk -i 1 %s/disk.raw | grep -qi 'unique GUID: %s'", dir, uuid), ==, 0);
}

static void check_round_trip(SupportFillFn *fill, bool bootable)
{
    g_autoptr(SupportStore) support = support_store(); /* first, so it goes last */
    g_autoptr(Tree) tree = NULL, back = NULL;
    g_autoptr(StoreMap) files = NULL, disk = NULL, again = NULL, files_back = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(GError) error = NULL;
    MapResult first, second;
    uint64_t offset, size;
    unsigned differences = 0;
    Store *store = support->store;
    const char *dir = support->dir;

    support_tree(store, fill, &tree, &files);
    disk = render(store, tree, files, bootable, 0, &first, &error);
    g_assert_no_error(error);
    again = render(store, tree, files, bootable, 0, &second, &error);
    g_assert_no_error(error);
    g_assert_true(digest_equal(&first.digest, &second.digest));
    g_assert_true(digest_equal(&first.content, &second.content));
    check_disk(disk, dir);
    render_root_extent(store_map_size(disk), &offset, &size);
    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, NULL));
    (void)tree_read_ext4(store, disk, offset, size, writer, NULL, &back, &space, &error);
    g_assert_no_error(error);
    files_back = support_commit(store, writer, space, &second);
    if (bootable) {
        g_autoptr(GBytes) config = NULL;
        const char *text;

        g_assert_true(tree_read_file(back, files_back, "boot/grub/grub.cfg", 65536, &config, NULL));
        text = g_bytes_get_data(config, NULL);
        g_assert_nonnull(strstr(text, "vmlinuz-6.1.0-10-amd64 root=UUID="));
        g_assert_true(strstr(text, "vmlinuz-6.1.0-10") < strstr(text, "vmlinuz-6.1.0-9"));
        check_partition_uuid(text, "vmlinuz-6.1.0-9-amd64 root=PARTUUID=", dir); /* it has no initrd */
        tree_remove(back, "boot/grub");
    }
    tree_diff(tree, back, print_difference, &differences);
    g_assert_cmpuint(differences, ==, 0);
    if (!bootable) { /* equal trees have equal file spaces */
        MapResult stored;
        g_autoptr(StoreWriter) w = NULL;
        g_autoptr(MapWriter) m = NULL;
        g_autoptr(StoreMap) opened = NULL;

        g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &w, NULL));
        g_assert_true(tree_store(store, w, tree, files, &m, NULL));
        opened = support_commit(store, w, m, &stored);
        g_assert_true(digest_equal(&stored.content, &second.content));
    }
}

static void test_odd_entries(void)
{
    check_round_trip(fill_odd, false);
}

static void test_many_entries(void)
{
    check_round_trip(fill_many, false);
}

static void test_bootable(void)
{
    if (!process_have("grub-mkimage") || !g_file_test("/usr/lib/grub/i386-pc/boot.img", G_FILE_TEST_EXISTS)) {
        g_test_skip("GRUB for BIOS is not installed");
        return;
    }
    check_round_trip(fill_machine, true);
}

static void expect_error(SupportFillFn *fill, bool bootable, uint64_t size, const char *words)
{
    g_autoptr(SupportStore) support = support_store(); /* first, so it goes last */
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GError) error = NULL;
    Store *store = support->store;

    support_tree(store, fill, &tree, &files);
    g_assert_null(render(store, tree, files, bootable, size, NULL, &error));
    g_assert_nonnull(strstr(error->message, words));
}

static void fill_large(TreeBuilder *builder)
{
    g_autofree uint8_t *data = g_malloc(32 << 20);

    for (size_t i = 0; i < 32 << 20; i++)
        data[i] = (uint8_t)(i >> 12 | 1);
    support_add_file(builder, "large", data, 32 << 20);
}

static void test_errors(void)
{
    expect_error(fill_odd, true, 0, "no kernel in /boot");
    expect_error(fill_bad_kernel, true, 0, "is not a bootable Linux kernel");
    expect_error(fill_large, false, 96 * MIB, "would be enough");
    expect_error(fill_odd, false, 12345678, "multiple of 1M");
}

static const char *cmdline_text;

static void fill_machine_with_cmdline(TreeBuilder *builder)
{
    fill_machine(builder);
    support_add_file(builder, "etc/kernel/cmdline", cmdline_text, strlen(cmdline_text));
}

/* @expected: behind "root=UUID=... ro ", or NULL: words of the error in @text. */
static void check_cmdline(const char *text, const char *expected, const char *problem)
{
    g_autoptr(SupportStore) support = support_store();
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *config = NULL, *line = NULL;
    const uint8_t uuid[16] = {0}, partition[16] = {1};

    cmdline_text = text;
    support_tree(support->store, text ? fill_machine_with_cmdline : fill_machine, &tree, &files);
    if (!render_grub_config(tree, files, uuid, partition, NULL, &config, &error)) {
        g_assert_nonnull(problem);
        g_assert_nonnull(strstr(error->message, problem));
        return;
    }
    line = g_strdup_printf("root=UUID=00000000-0000-0000-0000-000000000000 ro %s\n", expected);
    g_assert_nonnull(strstr(config, line));
}

static void test_cmdline(void)
{
    check_cmdline(NULL, "console=tty0 console=ttyS0,115200", NULL);
    check_cmdline("quiet  net.ifnames=0\n", "quiet net.ifnames=0", NULL);
    check_cmdline("root=UUID=1 ro a=b rw initrd=/x BOOT_IMAGE=/y\n", "a=b", NULL); /* as /proc/cmdline of another machine has them */
    check_cmdline("a=$x", NULL, "cannot carry");
    check_cmdline("a=1;reboot", NULL, "'/etc/kernel/cmdline'");
}

static void test_versions(void)
{
    static const char *ascending[] = {"1.0~rc1", "1.0", "1.0+b", "1.0-1", "1.0-1a", "1.0-2", "1.0-10", "1.0.1", "1.09", "1.10", "2"};

    for (size_t i = 0; i + 1 < G_N_ELEMENTS(ascending); i++) {
        g_assert_cmpint(debian_version_compare(ascending[i], ascending[i + 1]), <, 0);
        g_assert_cmpint(debian_version_compare(ascending[i + 1], ascending[i]), >, 0);
    }
    g_assert_cmpint(debian_version_compare("6.1.0-010", "6.1.0-10"), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/render/odd-entries-come-back", test_odd_entries);
    g_test_add_func("/render/20000-entries-come-back", test_many_entries);
    g_test_add_func("/render/bootable-disk-is-sound", test_bootable);
    g_test_add_func("/render/errors-say-what-to-do", test_errors);
    g_test_add_func("/render/kernel-arguments-of-the-root", test_cmdline);
    g_test_add_func("/render/versions-in-debian-order", test_versions);
    return g_test_run();
}
