/* SPDX-License-Identifier: Apache-2.0 */
/*
 * baker/guest-tree.c: the tree that a walk gives, and guests that tell impossible things. The guest here is a list of words; the runner that
 * really walks is tested in test-guest.c.
 */
#include "tree-support.h"

#include "baker/guest-tree.h"
#include "base/error.h"

#include <string.h>
#include <sys/stat.h>

typedef struct Word {
    enum { ENTRY, AGAIN, XATTR, PIECE, LAST } kind;
    const char *text;     /* path; name of an xattr; bytes */
    uint32_t mode;
    uint64_t number;      /* inode; offset */
    uint64_t size;
    const char *more;     /* target; value of an xattr */
} Word;

typedef struct WordGuest {
    Guest guest;
    const Word *words;
} WordGuest;

static bool say_word(const Word *word, const GuestWalk *walk, GError **error)
{
    GuestEntry entry = {.path = word->text, .target = word->more ? word->more : "", .again = word->kind == AGAIN, .mode = word->mode, .mtime = 7, .uid = 1,
                        .gid = 2, .device = 3, .inode = word->number, .size = word->size, .major = 8, .minor = 9};

    if (word->kind == XATTR)
        return walk->xattr(word->text, word->more, strlen(word->more), walk->arg, error);
    if (word->kind == PIECE)
        return !walk->contents || walk->piece(word->number, word->text, strlen(word->text), walk->arg, error);
    return walk->entry(&entry, walk->arg, error);
}

static bool say_all(Guest *guest, const GuestWalk *walk, GError **error)
{
    for (const Word *word = ((WordGuest *)guest)->words; word->kind != LAST; word++)
        if (!say_word(word, walk, error))
            return false;
    return true;
}

static const GuestOps word_ops = {.name = "words", .walk = say_all};

static bool read_words(Store *store, const Word *words, Tree **ret, StoreMap **ret_files, GError **error)
{
    WordGuest guest = {{&word_ops}, words};
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    GuestOutline *outline = NULL;

    g_assert_true(store_writer_open(store, BLOCK_PRIVATE, &writer, NULL));
    if (!guest_tree_read(&guest.guest, writer, (uint64_t)1 << 20, NULL, ret, &space, &outline, error))
        return false;
    g_hash_table_unref(outline);
    *ret_files = support_commit(store, writer, space, NULL);
    return true;
}

#define ROOT {ENTRY, "", S_IFDIR | 0755, 2, 0, NULL}

static void test_all_kinds(void)
{
    static const Word words[] = {
        ROOT,
        {ENTRY, "b", S_IFDIR | 01777, 3, 0, NULL},
        {XATTR, "system.posix_acl_default", 0, 0, 0, "acl"},
        {XATTR, "btrfs.compression", 0, 0, 0, "zstd"},
        {ENTRY, "b/z", S_IFREG | 04755, 4, 9000, NULL},
        {XATTR, "security.capability", 0, 0, 0, "cap"},
        {PIECE, "abc", 0, 0, 0, NULL},
        {PIECE, "xyz", 0, 8997, 0, NULL},
        {AGAIN, "a", S_IFREG | 04755, 4, 9000, NULL},
        {ENTRY, "l", S_IFLNK | 0777, 5, 0, "b/z"},
        {AGAIN, "l2", S_IFLNK | 0777, 5, 0, "b/z"},
        {ENTRY, "n", S_IFCHR | 0600, 6, 0, NULL},
        {ENTRY, "e", S_IFREG | 0600, 7, 0, NULL},
        {ENTRY, "hole", S_IFREG | 0600, 8, 5000, NULL},
        {ENTRY, "s", S_IFSOCK | 0600, 9, 0, NULL},
        {LAST, NULL, 0, 0, 0, NULL},
    };
    g_autoptr(SupportStore) support = support_store();
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL, *expected = NULL;
    char hex[2][DIGEST_HEX_SIZE];
    uint8_t content[9000] = "abc";
    Digest digest, zeroes;
    size_t size;

    memcpy(content + 8997, "xyz", 3);
    digest_of(content, sizeof content, &digest);
    digest_of((uint8_t[5000]){0}, 5000, &zeroes);
    g_assert_true(read_words(support->store, words, &tree, &files, &error));
    g_assert_no_error(error);
    text = tree_to_text(tree, &size);
    expected = g_strdup_printf("kiln-tree 1\n"
                               "d 0755 1 2 7 /\n"
                               "f 4755 1 2 7 a size=9000 sha256=%s x:security.capability=636170\n"
                               "d 1777 1 2 7 b x:system.posix_acl_default=61636c\n"
                               "h b/z leader=a\n"
                               "f 0600 1 2 7 e size=0 sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
                               "f 0600 1 2 7 hole size=5000 sha256=%s\n"
                               "l 0777 1 2 7 l target=b/z\n"
                               "h l2 leader=l\n"
                               "c 0600 1 2 7 n major=8 minor=9\n"
                               "s 0600 1 2 7 s\n",
                               digest_to_hex(&digest, hex[0]), digest_to_hex(&zeroes, hex[1]));
    g_assert_cmpstr(text, ==, expected);
    g_assert_true(tree_read_file(tree, files, "b/z", 10000, &bytes, &error));
    g_assert_cmpmem(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), content, sizeof content);
}

/* @a and @b after the root. */
static void refused(Word a, Word b, const char *sentence)
{
    const Word words[] = {ROOT, a, b, {LAST, NULL, 0, 0, 0, NULL}};
    g_autoptr(SupportStore) support = support_store();
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_false(read_words(support->store, words, &tree, &files, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, sentence))
        g_error("'%s' is not in: %s", sentence, error->message);
}

static void test_nonsense_is_refused(void)
{
    const Word nothing = {LAST, NULL, 0, 0, 0, NULL}, file = {ENTRY, "f", S_IFREG, 4, 10, NULL};

    refused((Word){ENTRY, "a/b", S_IFREG, 4, 0, NULL}, nothing, "impossible name");
    refused(file, (Word){ENTRY, "f/x", S_IFREG, 5, 0, NULL}, "impossible name");
    refused(file, file, "impossible name");
    refused((Word){AGAIN, "f", S_IFREG, 4, 0, NULL}, nothing, "further name of nothing");
    refused((Word){AGAIN, "d", S_IFDIR, 2, 0, NULL}, nothing, "further name of nothing");
    refused((Word){ENTRY, "f", 0, 4, 0, NULL}, nothing, "impossible type");
    refused((Word){ENTRY, "l", S_IFLNK, 4, 0, ""}, nothing, "impossible symbolic link");
    refused((Word){PIECE, "x", 0, 0, 0, NULL}, nothing, "content out of turn");
    refused(file, (Word){PIECE, "x", 0, 10, 0, NULL}, "impossible length");
    refused(file, (Word){PIECE, "x", 0, UINT64_MAX, 0, NULL}, "impossible length");
    refused((Word){ENTRY, "f", S_IFREG, 4, (uint64_t)1 << 50, NULL}, nothing, "claims more bytes");
}

/* A tree with more could be written, and not be read again. */
static void test_many_xattrs_are_refused(void)
{
    g_autofree Word *words = g_new0(Word, TREE_XATTRS_MAX + 4);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(SupportStore) support = support_store();
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(GError) error = NULL;
    Tree *tree = NULL;

    words[0] = (Word)ROOT;
    words[1] = (Word){ENTRY, "f", S_IFREG, 4, 0, NULL};
    for (guint i = 0; i <= TREE_XATTRS_MAX; i++) {
        g_ptr_array_add(names, g_strdup_printf("user.%u", i));
        words[2 + i] = (Word){XATTR, names->pdata[i], 0, 0, 0, "v"};
    }
    words[TREE_XATTRS_MAX + 3].kind = LAST;
    g_assert_false(read_words(support->store, words, &tree, &files, &error));
    g_assert_cmpstr(error->message, ==, "'/f' has more xattrs than kiln keeps");
    words[TREE_XATTRS_MAX + 2].kind = LAST;
    g_clear_error(&error);
    g_assert_true(read_words(support->store, words, &tree, &files, &error));
    tree_free(tree);
}

/* What was written over, replaced or given another owner is another; what was labelled is not. */
static void test_outlines(void)
{
    static const Word before[] = {
        ROOT,
        {ENTRY, "gone", S_IFREG | 0644, 3, 1, NULL},
        {ENTRY, "labelled", S_IFREG | 0644, 4, 1, NULL},
        {ENTRY, "mode", S_IFREG | 0644, 5, 1, NULL},
        {ENTRY, "replaced", S_IFREG | 0644, 6, 1, NULL},
        {ENTRY, "xattr", S_IFREG | 0644, 7, 1, NULL},
        {LAST, NULL, 0, 0, 0, NULL},
    };
    static const Word after[] = {
        ROOT,
        {ENTRY, "labelled", S_IFREG | 0644, 4, 1, NULL},
        {XATTR, "security.selinux", 0, 0, 0, "label"},
        {ENTRY, "mode", S_IFREG | 0600, 5, 1, NULL},
        {ENTRY, "new one", S_IFREG | 0644, 9, 1, NULL},
        {ENTRY, "replaced", S_IFREG | 0644, 8, 1, NULL},
        {ENTRY, "xattr", S_IFREG | 0644, 7, 1, NULL},
        {XATTR, "user.k", 0, 0, 0, "v"},
        {LAST, NULL, 0, 0, 0, NULL},
    };
    WordGuest one = {{&word_ops}, before}, two = {{&word_ops}, after};
    GuestOutline *a = NULL, *b = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(json_t) changes = NULL;
    g_autofree char *text = NULL;

    g_assert_true(guest_outline_read(&one.guest, &a, &error));
    g_assert_true(guest_outline_read(&two.guest, &b, &error));
    changes = guest_outline_diff(a, b);
    text = json_canonical(changes);
    g_assert_cmpstr(text, ==, "{\"+\":[\"mode\",\"new%20one\",\"replaced\",\"xattr\"],\"-\":[\"gone\"]}");
    g_hash_table_unref(a);
    g_hash_table_unref(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-tree/all-kinds", test_all_kinds);
    g_test_add_func("/guest-tree/nonsense-is-refused", test_nonsense_is_refused);
    g_test_add_func("/guest-tree/many-xattrs-are-refused", test_many_xattrs_are_refused);
    g_test_add_func("/guest-tree/outlines", test_outlines);
    return g_test_run();
}
