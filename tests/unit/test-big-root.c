/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A root as large and odd as they come, through tar, tree, rendered disk and back, held entry by entry against what others read: the kernel by a
 * loop mount and GNU tar, umoci, and podman. Minutes: it skips unless $KILN_TEST_BIG is set (tests/long/22-big-root.sh).
 */
#include "tree-support.h"

#include "baker/render-parts.h"
#include "baker/render.h"
#include "base/process.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

/* 150,000 files, 1,000 names of one inode, 3 GB mostly of holes, each type, long names, capabilities, ACLs. */
#define MAKE_ROOT \
    "set -e; cd %s; rm -rf r; mkdir -p r/many r/hard r/odd r/data; cd r; " \
    "perl -e 'for $d (0..299) { mkdir qq(many/$d); for (0..499) { open F, q(>), qq(many/$d/file-$_); print F qq($d $_\\n) x ($_ %% 40) } }'; " \
    "echo shared > hard/0; for i in $(seq 1 999); do ln hard/0 hard/$i; done; " \
    "perl -e 'open F, q(>), q(data/holes); for (0..999) { seek F, $_ * 3000000, 0; print F qq(piece $_) } truncate F, 3000000000'; " \
    "head -c 100000000 /dev/urandom > data/noise; echo long > odd/$(printf '%%0255d' 7); mkdir odd/d$(printf '%%0254d' 7); " \
    "ln -s $(printf '%%03000d' 1) odd/slow; ln -s ../hard/0 odd/fast; mkfifo odd/pipe; mknod odd/block b 8 1; mknod odd/char c 300 70000; " \
    "printf x > 'odd/a b\nc'; cp /bin/true odd/capable; setcap cap_net_raw+ep odd/capable; cp /bin/true odd/setuid; chmod 4755 odd/setuid; " \
    "echo acl > odd/acl; setfacl -m u:1000:rw odd/acl; mkdir odd/default; setfacl -d -m g:50:rx odd/default; setfattr -n user.key -v value odd/acl; " \
    "chown -h 100000:200000 odd/fast; chmod 1777 odd/default; find . -exec touch -h -d @1600000000 {} +"

static SupportStore *support;

static bool wanted(void)
{
    if (g_getenv("KILN_TEST_BIG") && geteuid() == 0)
        return true;
    g_test_skip("takes minutes and root: KILN_TEST_BIG=1");
    return false;
}

static void take_tar(const char *command, Tree **ret_tree, StoreMap **ret_files)
{
    g_autofree char *path = g_build_filename(support->dir, "root.tar", NULL);
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(GError) error = NULL;
    int fd;

    g_assert_cmpint(support_sh("cd %s && %s", support->dir, command), ==, 0);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_true(store_writer_open(support->store, BLOCK_PUBLIC, &writer, NULL) && tree_builder_new(writer, &builder, NULL));
    (void)tree_read_tar(builder, fd, NULL, NULL, NULL, &error);
    g_assert_no_error(error);
    g_assert_true(tree_builder_finish(builder, ret_tree, &space, NULL));
    *ret_files = support_commit(support->store, writer, space, NULL);
    (void)close(fd);
    (void)unlink(path);
}

static StoreMap *render(Tree *tree, StoreMap *files, MapResult *ret)
{
    RenderSpec spec = {.name = "test", .epoch = 1700000000, .bootable = false};
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) disk = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(store_writer_open(support->store, BLOCK_PUBLIC, &writer, NULL));
    (void)render_disk(support->store, writer, tree, files, &spec, &disk, &error);
    g_assert_no_error(error);
    return support_commit(support->store, writer, disk, ret);
}

static bool print_difference(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    unsigned *count = arg;

    if ((*count)++ < 10)
        g_printerr("%c %s\n", what, a ? a->path : b->path);
    return true;
}

static void assert_equal(Tree *a, Tree *b, const char *who)
{
    unsigned differences = 0;

    tree_remove(b, "lost+found");
    tree_diff(a, b, print_difference, &differences);
    if (differences)
        g_error("%s: %u entries differ", who, differences);
    g_assert_cmpuint(tree_count(a), ==, tree_count(b));
}

static gint64 since(gint64 start)
{
    return (g_get_monotonic_time() - start) / 1000;
}

static void check_disk(Tree *tree, StoreMap *disk)
{
    g_autofree char *image = g_build_filename(support->dir, "root.img", NULL);
    g_autoptr(Tree) ours = NULL, theirs = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GError) error = NULL;
    uint64_t offset, size;
    gint64 start = g_get_monotonic_time();

    render_root_extent(store_map_size(disk), &offset, &size);
    support_export(disk, offset, size, image);
    g_test_message("written out in %d ms", (int)since(start));
    g_assert_cmpint(support_sh("e2fsck -fn %s", image), ==, 0);
    start = g_get_monotonic_time();
    (void)tree_read_ext4(support->store, disk, offset, size, NULL, NULL, &ours, NULL, &error);
    g_assert_no_error(error);
    g_test_message("read back in %d ms", (int)since(start));
    assert_equal(tree, ours, "kiln's own reader");
    take_tar("mkdir -p m && mount -o loop,ro root.img m && { tar -C m --xattrs --xattrs-include='*' --acls --numeric-owner -Scf root.tar .; rc=$?; umount m; exit $rc; }",
             &theirs, &files);
    assert_equal(tree, theirs, "the kernel and tar");
}

/* @own_top: the topmost folder is the unpacker's own, and has its time. */
static void compare_unpacked(Tree *tree, const char *command, const char *who, bool own_top)
{
    g_autoptr(Tree) theirs = NULL;
    g_autoptr(StoreMap) files = NULL;

    take_tar(command, &theirs, &files);
    if (own_top)
        tree_find_mutable(theirs, "")->mtime = tree_find(tree, "")->mtime;
    assert_equal(tree, theirs, who);
}

/* podman takes no runroot of over 50 characters. */
#define PODMAN "run=$(mktemp -d /tmp/kiln-XXXXXX) && p=\"podman --root $PWD/podman --runroot $run --storage-driver=vfs\" && "
#define TAR_OF(folder) "tar -C " folder " --xattrs --xattrs-include='*' --acls --numeric-owner -Scf root.tar . "

static void check_layer(Tree *tree, StoreMap *files)
{
    g_autofree char *path = g_build_filename(support->dir, "layer.tar", NULL);
    g_autoptr(GError) error = NULL;

    (void)tree_export_tar(tree, files, path, &error);
    g_assert_no_error(error);
    if (!process_have("umoci"))
        return;
    g_assert_cmpint(support_sh("cd %s && rm -rf o b && umoci init --layout o && umoci new --image o:t && umoci raw add-layer --image o:t layer.tar && rm layer.tar",
                               support->dir), ==, 0);
    compare_unpacked(tree, "umoci unpack --image o:t b && " TAR_OF("b/rootfs") "&& rm -rf b", "umoci", false);
    if (process_have("podman"))
        compare_unpacked(tree, PODMAN "id=$($p pull -q oci:o:t) && m=$($p image mount $id) && " TAR_OF("$m") "; rc=$?; $p image umount -a; $p rmi -af; "
                               "rm -rf podman $run; exit $rc", "podman", true);
}

static void test_round_trip(void)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL, disk = NULL;
    struct rusage before, after;
    MapResult result;
    gint64 start;

    if (!wanted())
        return;
    g_assert_cmpint(support_sh(MAKE_ROOT, support->dir), ==, 0);
    take_tar("tar -C r --xattrs --xattrs-include='*' --acls --numeric-owner --sort=name -Scf root.tar .", &tree, &files);
    (void)getrusage(RUSAGE_SELF, &before);
    start = g_get_monotonic_time();
    disk = render(tree, files, &result);
    (void)getrusage(RUSAGE_SELF, &after);
    g_test_message("%u entries rendered in %d ms, %d KiB more at the peak", (unsigned)tree_count(tree), (int)since(start),
                   (int)(after.ru_maxrss - before.ru_maxrss));
    check_disk(tree, disk);
    check_layer(tree, files);
}

static void fill_small(TreeBuilder *builder)
{
    support_add(builder, "etc", 'd', 0755);
    for (unsigned i = 0; i < 200; i++) {
        g_autofree char *path = g_strdup_printf("etc/file-%u", i);

        support_add_file(builder, path, path, strlen(path));
    }
}

static void test_thousand(void)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    MapResult first, again;

    if (!wanted())
        return;
    support_tree(support->store, fill_small, &tree, &files);
    store_map_unref(render(tree, files, &first));
    for (unsigned i = 0; i < 1000; i++) {
        store_map_unref(render(tree, files, &again));
        g_assert_true(digest_equal(&first.digest, &again.digest));
        g_assert_true(digest_equal(&first.content, &again.content));
    }
}

int main(int argc, char **argv)
{
    int rc;

    g_test_init(&argc, &argv, NULL);
    support = support_store();
    g_test_add_func("/big-root/1000-renders-are-equal", test_thousand);
    g_test_add_func("/big-root/round-trip", test_round_trip);
    rc = g_test_run();
    support_store_free(support);
    return rc;
}
