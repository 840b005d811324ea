/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store/tree*.c: the canonical text, hard-link groups, tar archives in.
 */
#include "tree-support.h"

#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

static TreeEntry *put(Tree *tree, const char *path, char type)
{
    TreeEntry *entry = tree_entry_new(path, type);

    entry->mode = type == 'd' ? 0755 : 0644;
    tree_put(tree, entry);
    return entry;
}

static void put_link(Tree *tree, const char *path, const char *leader)
{
    put(tree, path, 'h')->target = g_strdup(leader);
}

static Tree *small_tree(void)
{
    Tree *tree = tree_new();
    TreeEntry *file;

    put(tree, "", 'd');
    put(tree, "a", 'd');
    put(tree, "a-b", 'd');
    file = put(tree, "a/x y\n\xc3\xa9%", 'f');
    file->size = 5000;
    digest_of("x", 1, &file->sha256);
    tree_entry_set_xattr(file, "user.b=c", "\0\1", 2);
    tree_entry_set_xattr(file, "security.capability", "q", 1);
    put(tree, "a/l", 'l')->target = g_strdup("../ t");
    put(tree, "dev", 'c')->minor = 70000;
    put(tree, "neg", 'p')->mtime = -5;
    put_link(tree, "b", "a/x y\n\xc3\xa9%");
    return tree;
}

static void test_text_round_trip(void)
{
    g_autoptr(Tree) tree = small_tree(), again = NULL;
    g_autoptr(GError) error = NULL;
    size_t size, size_again;
    g_autofree char *text = tree_to_text(tree, &size), *text_again = NULL;

    (void)tree_from_text(text, size, &again, &error);
    g_assert_no_error(error);
    text_again = tree_to_text(again, &size_again);
    g_assert_cmpmem(text, size, text_again, size_again);
    g_assert_nonnull(strstr(text, "d 0755 0 0 0 /\nd 0755 0 0 0 a\nd 0755 0 0 0 a-b\n"));
    g_assert_nonnull(strstr(text, "a/x%20y%0a%c3%a9%25 size=5000 "));
    g_assert_nonnull(strstr(text, " x:security.capability=71 x:user.b%3dc=0001\n"));
    g_assert_nonnull(strstr(text, "\nh b leader=a/x%20y%0a%c3%a9%25\n"));
}

static void refuse(const char *text)
{
    g_autoptr(Tree) tree = NULL;

    g_assert_false(tree_from_text(text, strlen(text), &tree, NULL));
}

static void test_text_refuses_what_it_would_not_write(void)
{
    refuse("kiln-tree 2\n");
    refuse("kiln-tree 1\n");                                            /* no root */
    refuse("kiln-tree 1\nd 0755 0 0 0 /\nd 0755 0 0 0 a/b\n");           /* no parent */
    refuse("kiln-tree 1\nd 0755 0 0 0 /\nd 755 0 0 0 a\n");              /* not canonical */
    refuse("kiln-tree 1\nd 0755 0 0 0 /\nd 0755 0 0 0 b\nd 0755 0 0 0 a\n"); /* order */
    refuse("kiln-tree 1\nd 0755 0 0 0 /\nd 0755 0 0 0 a");               /* cut off */
    refuse("kiln-tree 1\nd 0755 0 0 0 /\nd 0755 0 0 0 ..\n");
    refuse("kiln-tree 1\nd 0755 0 0 0 /\nh b leader=a\n");
    refuse("kiln-tree 1\nd 0755 0 0 0 /\nl 0777 0 0 0 b target=%00\n");
    refuse("kiln-tree 1\nd 0755 0 0 99999999999999999999 /\n");
    refuse("kiln-tree 1\nd 0755 0 0 0 /\nf 0644 0 0 0 a size=-1 sha256=00\n");
}

static void test_removed_leader_hands_over(void)
{
    g_autoptr(Tree) tree = tree_new();

    put(tree, "", 'd');
    put(tree, "d", 'd');
    put(tree, "d/a", 'f')->size = 7;
    put_link(tree, "e", "d/a");
    put_link(tree, "f", "d/a");
    tree_remove(tree, "d");
    g_assert_cmpint((int)tree_count(tree), ==, 3);
    g_assert_cmpint(tree_find(tree, "e")->type, ==, 'f');
    g_assert_cmpint((int)tree_find(tree, "e")->size, ==, 7);
    g_assert_cmpstr(tree_find(tree, "f")->target, ==, "e");
    put(tree, "e", 'p'); /* replaces the leader */
    g_assert_cmpint(tree_find(tree, "f")->type, ==, 'f');
    g_assert_true(tree_check(tree, NULL));
}

static void test_remove_takes_only_what_is_below(void)
{
    g_autoptr(Tree) tree = tree_new();
    const char *paths[] = {"a", "a-", "a-/x", "a/x", "a/x/y", "a0", "ab"};

    put(tree, "", 'd');
    for (size_t i = 0; i < G_N_ELEMENTS(paths); i++)
        put(tree, paths[i], 'd');
    tree_remove(tree, "a");
    g_assert_cmpint((int)tree_count(tree), ==, 5);
    g_assert_cmpstr(tree_nth(tree, 1)->path, ==, "a-");
    g_assert_cmpstr(tree_nth(tree, 4)->path, ==, "ab");
}

static void test_links_settle_on_first_path(void)
{
    g_autoptr(Tree) tree = tree_new();

    put(tree, "", 'd');
    put(tree, "m", 'f')->size = 3;
    put_link(tree, "z", "m");
    put_link(tree, "b", "z"); /* a chain */
    put_link(tree, "c", "m");
    put_link(tree, "lost", "nowhere");
    tree_normalise_links(tree);
    g_assert_cmpint(tree_find(tree, "b")->type, ==, 'f');
    g_assert_cmpint((int)tree_find(tree, "b")->size, ==, 3);
    g_assert_cmpstr(tree_find(tree, "m")->target, ==, "b");
    g_assert_cmpstr(tree_find(tree, "z")->target, ==, "b");
    g_assert_cmpstr(tree_find(tree, "c")->target, ==, "b");
    g_assert_false(tree_check(tree, NULL)); /* names "lost" */
    tree_remove(tree, "lost");
    g_assert_true(tree_check(tree, NULL));
}

/* What is checked can be written and read again. */
static void test_many_xattrs_are_refused(void)
{
    g_autoptr(Tree) tree = tree_new();
    TreeEntry *file;
    g_autoptr(GError) error = NULL;

    put(tree, "", 'd');
    file = put(tree, "f", 'f');
    for (int i = 0; i < TREE_XATTRS_MAX; i++) {
        g_autofree char *name = g_strdup_printf("user.%d", i);

        tree_entry_set_xattr(file, name, "v", 1);
    }
    g_assert_true(tree_check(tree, NULL));
    tree_entry_set_xattr(file, "user.more", "v", 1);
    g_assert_false(tree_check(tree, &error));
    g_assert_cmpstr(error->message, ==, "'/f' has more than 4096 extended attributes");
}

static bool collect(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    g_string_append_printf(arg, "%c%s ", what, a ? a->path : b->path);
    return true;
}

static void test_diff(void)
{
    g_autoptr(Tree) a = small_tree(), b = small_tree();
    g_autoptr(GString) out = g_string_new(NULL);

    tree_remove(b, "a-b");
    put(b, "new", 'd');
    tree_find_mutable(b, "dev")->minor++;
    tree_diff(a, b, collect, out);
    g_assert_cmpstr(out->str, ==, "-a-b ~dev +new ");
}

static bool skip_it(const char *path, void *arg)
{
    (void)arg;
    return strcmp(path, "skip") == 0;
}

static void note_whiteout(const char *path, bool opaque, void *arg)
{
    g_string_append_printf(arg, "%s%s ", path, opaque ? "/*" : "");
}

static const char *tar_dir;
static GString *whiteouts;

static void fill_from_tar(TreeBuilder *builder)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(tar_dir, "t.tar", NULL);
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

    (void)tree_read_tar(builder, fd, skip_it, note_whiteout, whiteouts, &error);
    g_assert_no_error(error);
}

static void test_tar(void)
{
    g_autoptr(SupportStore) support = support_store(); /* first, so it goes last */
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autofree char *work = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    Store *store = support->store;
    size_t size;

    g_assert_cmpint(support_sh("cd %s && mkdir -p r/d && cd r && printf hello > z && ln z d/first && mknod c c 5 1 && touch skip && "
                               "ln -s ../x d/sym && : > d/.wh.gone && : > d/.wh..wh..opq && chown 70000:5 d && chmod 4755 z && "
                               "truncate -s 3M hole && printf end >> hole && touch -d @1234567890.5 $'n\\nl \\303\\251' && mkfifo p && "
                               "setfattr -n user.k -v v z && tar --sparse --format=pax --xattrs --zstd -cf ../t.tar .", work), ==, 0);
    tar_dir = work;
    whiteouts = g_string_new(NULL);
    support_tree(store, fill_from_tar, &tree, &files);
    g_assert_true(tree_check(tree, NULL));
    g_assert_null(tree_find(tree, "skip"));
    g_assert_cmpint((int)tree_find(tree, "d")->uid, ==, 70000);
    g_assert_cmpint(tree_find(tree, "d/first")->type, ==, 'f');
    g_assert_cmpint(tree_find(tree, "d/first")->mode, ==, 04755);
    g_assert_cmpstr(tree_find(tree, "z")->target, ==, "d/first");
    g_assert_nonnull(tree_entry_xattr(tree_find(tree, "d/first"), "user.k"));
    g_assert_cmpstr(tree_find(tree, "d/sym")->target, ==, "../x");
    g_assert_cmpint((int)tree_find(tree, "c")->major, ==, 5);
    g_assert_cmpint((int)tree_find(tree, "n\nl \xc3\xa9")->mtime, ==, 1234567890);
    g_assert_cmpint((int)tree_find(tree, "hole")->size, ==, 3 * 1024 * 1024 + 3);
    g_assert_true(tree_read_file(tree, files, "hole", 1 << 23, &bytes, NULL));
    g_assert_cmpstr((const char *)g_bytes_get_data(bytes, &size) + 3 * 1024 * 1024, ==, "end");
    g_assert_nonnull(strstr(whiteouts->str, "d/gone "));
    g_assert_nonnull(strstr(whiteouts->str, "d/* "));
    g_string_free(whiteouts, TRUE);
    (void)file_remove_tree(AT_FDCWD, work, NULL);
}

/* One header of a tar file, checksum and all, and @data in a block of its own. */
static void add_member(GString *tar, const char *name, char type, const char *data)
{
    char block[512] = {0};
    unsigned sum = 0;

    g_snprintf(block, 100, "%s", name);
    memcpy(block + 100, "0000644\0000000000\0000000000", 24);
    g_snprintf(block + 124, 12, "%011o", (unsigned)strlen(data));
    memcpy(block + 136, "00000000000", 12);
    memset(block + 148, ' ', 8);
    block[156] = type;
    memcpy(block + 257, "ustar\00000", 8);
    for (size_t i = 0; i < sizeof block; i++)
        sum += (unsigned char)block[i];
    g_snprintf(block + 148, 8, "%06o", sum);
    g_string_append_len(tar, block, sizeof block);
    if (*data) {
        char content[512] = {0};

        memcpy(content, data, strlen(data));
        g_string_append_len(tar, content, sizeof content);
    }
}

/* Go's tar writes such a name into a pax header as it is. */
static void test_tar_name_that_is_no_utf8(void)
{
    g_autoptr(SupportStore) support = support_store(); /* first, so it goes last */
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GString) tar = g_string_new(NULL);
    g_autofree char *work = g_dir_make_tmp("kiln-test-XXXXXX", NULL), *path = g_build_filename(work, "t.tar", NULL);
    static const char end[1024];

    add_member(tar, "PaxHeaders", 'x', "13 path=\xff\xfe d\n");
    add_member(tar, "short", '0', "");
    g_string_append_len(tar, end, sizeof end);
    g_assert_true(g_file_set_contents(path, tar->str, (gssize)tar->len, NULL));
    tar_dir = work;
    whiteouts = g_string_new(NULL);
    support_tree(support->store, fill_from_tar, &tree, &files);
    g_assert_nonnull(tree_find(tree, "\xff\xfe d"));
    g_string_free(whiteouts, TRUE);
    (void)file_remove_tree(AT_FDCWD, work, NULL);
}

/* umoci insert writes such: its tar ends with its last file's last byte. Less than that is damage. */
static void test_tar_without_its_padding(void)
{
    g_autoptr(SupportStore) support = support_store(); /* first, so it goes last */
    static const char *const data = "all of it";
    static const struct {
        size_t less;
        bool good;
    } cuts[] = {{512 - 9, true}, {1, true}, {511 - 9, true}, {512 - 8, false}, {512 + 100, false}};

    for (size_t i = 0; i < G_N_ELEMENTS(cuts); i++) {
        g_autoptr(GString) tar = g_string_new(NULL);
        g_autoptr(StoreWriter) writer = NULL;
        g_autoptr(TreeBuilder) builder = NULL;
        g_autoptr(GError) error = NULL;
        auto_fd int fd = memfd_create("tar", MFD_CLOEXEC);

        add_member(tar, "one", '0', data);
        add_member(tar, "two", '0', data);
        g_string_truncate(tar, tar->len - cuts[i].less);
        g_assert_cmpint(pwrite(fd, tar->str, tar->len, 0), ==, (ssize_t)tar->len);
        g_assert_true(store_writer_open(support->store, BLOCK_PUBLIC, &writer, NULL) && tree_builder_new(writer, &builder, NULL));
        g_assert_true(tree_read_tar(builder, fd, NULL, NULL, NULL, &error) == cuts[i].good);
        g_assert_true(cuts[i].good == (error == NULL));
        if (cuts[i].good)
            g_assert_cmpuint(tree_find(tree_builder_tree(builder), "two")->size, ==, strlen(data));
    }
}

static void refuse_tar(Store *store, const char *work, const char *script)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autofree char *path = g_build_filename(work, "t.tar", NULL);
    auto_fd int fd = -1;

    g_assert_cmpint(support_sh("cd %s && rm -f t.tar && %s", work, script), ==, 0);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, NULL));
    g_assert_true(tree_builder_new(writer, &builder, NULL));
    g_assert_false(tree_read_tar(builder, fd, NULL, NULL, NULL, &error));
    g_assert_nonnull(error);
}

static void test_tar_hostile(void)
{
    g_autoptr(SupportStore) support = support_store(); /* first, so it goes last */
    g_autofree char *work = g_dir_make_tmp("kiln-test-XXXXXX", NULL);
    Store *store = support->store;

    refuse_tar(store, work, "touch f && tar -P --transform 's,f,a/../../f,' -cf t.tar f");
    refuse_tar(store, work, "touch g && ln -f g h && tar -P --transform 's,^g,../g,' -cf t.tar g h");
    refuse_tar(store, work, "head -c 100000 /dev/urandom > big && tar -cf - big | head -c 50000 > t.tar");
    refuse_tar(store, work, "echo this is no archive at all, only words > t.tar");
    (void)file_remove_tree(AT_FDCWD, work, NULL);
}

static void fill_twins(TreeBuilder *builder)
{
    static uint8_t data[9000] = {1, 2, 3};

    support_add_file(builder, "z/one", data, sizeof data);
    support_add_file(builder, "b", "small", 5);
    support_add_file(builder, "a", data, sizeof data);
    support_add_file(builder, "empty", "", 0);
}

static void test_store_and_load(void)
{
    g_autoptr(SupportStore) support = support_store(); /* first, so it goes last */
    g_autoptr(Tree) tree = NULL, loaded = NULL;
    g_autoptr(StoreMap) files = NULL, space_map = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    g_autoptr(GError) error = NULL;
    TreeStored stored;
    MapResult result;
    Store *store = support->store;

    support_tree(store, fill_twins, &tree, &files);
    g_assert_cmpint((int)store_map_size(files), ==, 12288 + 4096); /* the twins lie there once */
    tree_remove(tree, "a");
    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, NULL));
    (void)tree_store(store, writer, tree, files, &space, &error);
    g_assert_no_error(error);
    g_clear_pointer(&space_map, store_map_unref);
    space_map = support_commit(store, writer, space, &result);
    (void)tree_stored_result(store, tree, space, &stored, &error);
    g_assert_no_error(error);
    g_assert_true(digest_equal(&stored.files, &result.digest));
    g_clear_pointer(&files, store_map_unref);
    (void)tree_load(store, &stored, &loaded, &files, &error);
    g_assert_no_error(error);
    for (size_t i = 0; i < tree_count(loaded); i++) {
        const TreeEntry *entry = tree_nth(loaded, i);
        g_autoptr(GBytes) bytes = NULL;
        Digest digest;

        g_assert_cmpint((int)entry->data_offset, ==, (int)tree_nth(tree, i)->data_offset);
        if (entry->type != 'f')
            continue;
        g_assert_true(tree_read_file(loaded, files, entry->path, 1 << 20, &bytes, NULL));
        digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &digest);
        g_assert_true(digest_equal(&digest, &entry->sha256));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/tree/tar-without-its-padding-is-whole", test_tar_without_its_padding);
    g_test_add_func("/tree/text-round-trip", test_text_round_trip);
    g_test_add_func("/tree/text-refuses-what-it-would-not-write", test_text_refuses_what_it_would_not_write);
    g_test_add_func("/tree/many-xattrs-are-refused", test_many_xattrs_are_refused);
    g_test_add_func("/tree/removed-leader-hands-over", test_removed_leader_hands_over);
    g_test_add_func("/tree/remove-takes-only-what-is-below", test_remove_takes_only_what_is_below);
    g_test_add_func("/tree/links-settle-on-first-path", test_links_settle_on_first_path);
    g_test_add_func("/tree/diff-in-path-order", test_diff);
    g_test_add_func("/tree/tar", test_tar);
    g_test_add_func("/tree/tar-name-that-is-no-utf8", test_tar_name_that_is_no_utf8);
    g_test_add_func("/tree/hostile-tar-is-refused", test_tar_hostile);
    g_test_add_func("/tree/store-and-load", test_store_and_load);
    return g_test_run();
}
