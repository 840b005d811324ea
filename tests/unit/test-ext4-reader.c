/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store/ext4-session.c against readers that went wrong, base/confine.c, and file systems that debugfs damaged on purpose. A reader that goes
 * wrong is a script by its name in $KILN_LIBEXEC_DIR.
 */
#include "tree-support.h"

#include "base/confine.h"
#include "base/file.h"
#include "store/ext4-session.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEMORY ((uint64_t)512 << 20)

static SupportStore *support;
static char *image;

static StoreMap *make_disk(const char *script)
{
    g_assert_cmpint(support_sh("cd %s && rm -f fs.img && %s", support->dir, script), ==, 0);
    return support_import(support->store, image);
}

static char *try_to_read(StoreMap *disk)
{
    g_autoptr(Tree) tree = NULL;
    g_autoptr(GError) error = NULL;

    if (tree_read_ext4(support->store, disk, 0, store_map_size(disk), NULL, NULL, &tree, NULL, &error))
        return NULL;
    g_assert_nonnull(error);
    return g_strdup(error->message);
}

static void assert_says(const char *text, const char *words)
{
    if (!text || !strstr(text, words))
        g_error("'%s' does not say '%s'", text ? text : "(read)", words);
}

/* --- readers that go wrong --- */

static void expect_of_reader(StoreMap *disk, const char *script, const char *words)
{
    g_autofree char *dir = g_build_filename(support->dir, "libexec", NULL), *program = g_build_filename(dir, "kiln-ext4", NULL), *said = NULL;
    g_autofree char *text = g_strdup_printf("#!/bin/sh\n%s\n", script);

    g_assert_true(file_make_dirs(dir, 0755, NULL));
    g_assert_true(file_replace(AT_FDCWD, program, text, strlen(text), 0755, FILE_SYNC_NO, NULL));
    g_setenv("KILN_LIBEXEC_DIR", dir, TRUE);
    said = try_to_read(disk);
    g_unsetenv("KILN_LIBEXEC_DIR");
    assert_says(said, words);
    assert_says(said, "the ext4 file system of the disk cannot be read");
}

static void test_ends(void)
{
    g_autoptr(StoreMap) disk = make_disk("mke2fs -q -t ext4 fs.img 8M");

    expect_of_reader(disk, "kill -SEGV $$", "crashed (Segmentation fault)");
    expect_of_reader(disk, "kill -SYS $$", "tried what it may not do");
    expect_of_reader(disk, "kill -ABRT $$", "want of memory");
    expect_of_reader(disk, "kill -XCPU $$", "seconds of processor time");
    expect_of_reader(disk, "exit 3", "could not be confined");
    expect_of_reader(disk, "exit 0", "its reader ended");
}

static void test_silence(void)
{
    g_autoptr(StoreMap) disk = make_disk("mke2fs -q -t ext4 fs.img 8M");

    ext4_session_set_patience(300);
    expect_of_reader(disk, "exec sleep 100", "does not answer");
    /* asks without end and never listens: kiln must not wait for it either */
    expect_of_reader(disk, "while :; do printf '\\1\\0\\0\\0\\20\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\0\\0'; done", "does not answer");
    ext4_session_set_patience(60000);
}

/* What comes before the answer that a test is about: INFO of 8192 blocks of 1 KiB and DONE, as printf(1) takes it. */
#define U32(x) "\\" #x "\\0\\0\\0"
#define U64(x) "\\" #x "\\0\\0\\0\\0\\0\\0\\0"
#define INFO U32(2) U32(40) "\\0\\40\\0\\0\\0\\0\\0\\0" U64(1) U64(177) "\\0\\4\\0\\0" U32(13)
#define ROOT U32(7) U32(60) U64(0) U64(0) U32(2) U32(0) U32(0) U32(0) U32(0) "\\355\\101\\2\\0\\0\\0\\0\\0" U32(0)

static void expect_of_words(StoreMap *disk, const char *words, const char *sentence)
{
    g_autofree char *script = g_strdup_printf("printf '" INFO U32(14) U32(0) "%s'; exec sleep 5", words);

    expect_of_reader(disk, script, sentence);
}

static void test_nonsense(void)
{
    g_autoptr(StoreMap) disk = make_disk("mke2fs -q -t ext4 fs.img 8M");

    expect_of_reader(disk, "exec yes", "nonsense");
    expect_of_reader(disk, "printf '\\15\\0\\0\\0\\0\\0\\0\\377'; exec sleep 5", "nonsense");                            /* a word of 4 GiB */
    expect_of_reader(disk, "printf '\\1\\0\\0\\0\\20\\0\\0\\0\\377\\377\\377\\377\\377\\377\\377\\377\\1\\0\\0\\0\\0\\0\\0\\0'; exec sleep 5", "nonsense"); /* far outside */
    expect_of_words(disk, "\\14\\0\\0\\0\\0\\0\\0\\0", "nonsense");               /* a tree without a root */
    expect_of_words(disk, "\\3\\0\\0\\0\\4\\0\\0\\0\\5\\0\\0\\0", "nonsense");    /* a folder nobody told of */
    expect_of_words(disk, "\\10\\0\\0\\0\\5\\0\\0\\0\\5\\0\\0\\0a", "nonsense");  /* a further name of nothing */
    expect_of_words(disk, ROOT U32(3) U32(4) U32(0) U32(10) U32(2) "\\0\\0", "nonsense"); /* a further name that is cut off */
    expect_of_words(disk, "\\4\\0\\0\\0\\30\\0\\0\\0" U64(0) "\\377\\377\\0\\0\\0\\0\\0\\0" U64(1), "nonsense"); /* blocks outside */
    expect_of_words(disk, "\\4\\0\\0\\0\\60\\0\\0\\0" U64(1) U64(5) U64(1) U64(1) U64(6) U64(1), "nonsense");    /* overlapping */
    expect_of_words(disk, "\\6\\0\\0\\0\\3\\0\\0\\0abc", "nonsense");             /* an attribute without a value */
}

/* --- confinement --- */

/* How a child that is confined and does @what ends. */
static int confined(void (*what)(void), unsigned seconds)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        if (!confine_self(MEMORY, seconds))
            _exit(99);
        what();
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    return status;
}

static void does_nothing(void)
{
}

static void opens_a_file(void)
{
    (void)open("/etc/passwd", O_RDONLY);
}

static void makes_a_socket(void)
{
    (void)socket(AF_INET, SOCK_STREAM, 0);
}

static void starts_a_process(void)
{
    (void)fork();
}

static void kills(void)
{
    (void)kill(getppid(), 0);
}

static void makes_code(void)
{
    (void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void takes_memory(void)
{
    _exit(mmap(NULL, 2 * MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? 7 : 0);
}

static void runs_in_circles(void)
{
    for (volatile unsigned i = 0;; i++)
        ;
}

static void test_confined(void)
{
    static void (*const forbidden[])(void) = {opens_a_file, makes_a_socket, starts_a_process, kills, makes_code};
    int status;

#if defined(__SANITIZE_ADDRESS__)
    g_test_skip("the sanitizers need more than a confined process has");
    return;
#endif
    g_assert_cmpint(confined(does_nothing, 5), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(forbidden); i++) {
        status = confined(forbidden[i], 5);
        g_assert_true(WIFSIGNALED(status));
        g_assert_cmpint(WTERMSIG(status), ==, SIGSYS);
    }
    status = confined(takes_memory, 5);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 7);
    status = confined(runs_in_circles, 1);
    g_assert_true(WIFSIGNALED(status));
}

/* --- file systems that lie --- */

#define MAKE "mkdir -p r/d/e && echo one > r/d/f && ln -sf f r/d/l && mke2fs -q -t ext4 -b 1024 -O ^metadata_csum,^has_journal -d r fs.img 8M && "

/* @words NULL: any answer will do, as long as the reader gives it. */
static void expect_refused(const char *commands, const char *words)
{
    g_autofree char *script = g_strdup_printf(MAKE "printf '%s' | debugfs -w fs.img >/dev/null 2>&1", commands);
    g_autoptr(StoreMap) disk = make_disk(script);
    g_autofree char *said = try_to_read(disk);

    if (words)
        assert_says(said, words);
    if (said && strstr(said, "its reader"))
        g_error("'%s' did harm to the reader: %s", commands, said);
}

static void test_lies(void)
{
    expect_refused("link d d/e/loop\\n", "two names");
    expect_refused("link d/e d\\n", NULL);
    expect_refused("sif d/f size 9000000000000000\\n", "claims more bytes than a disk of this size should hold");
    expect_refused("sif d/f links_count 0\\n", "an unused inode");
    expect_refused("sif d/f mode 0\\n", "an unused inode");
    expect_refused("sif d/l size 5000\\n", "impossible length");
    expect_refused("sif d/l size 0\\n", "impossible length");
    expect_refused("sif d block[2] 0xffffff\\n", NULL);
    expect_refused("set_block_group 0 inode_table 0xfffff0\\n", NULL);
    expect_refused("ssv inodes_count 0xffffffff\\n", NULL);
    expect_refused("ssv inodes_per_group 1\\n", NULL);
    expect_refused("ssv blocks_per_group 0\\n", NULL);
    expect_refused("ssv inode_size 0xfff0\\n", NULL);
    expect_refused("ssv log_block_size 40\\n", "superblock is damaged");
    expect_refused("ssv blocks_count 0xffffffff\\n", "larger than its partition");
    expect_refused("sif d/f file_acl 0xffffff\\n", "extended attributes");
    expect_refused("clri d/f\\n", "an unused inode");
    expect_refused("clri d\\n", "an unused inode");
    expect_refused("clri <2>\\n", NULL);
    expect_refused("sif <2> mode 0100644\\n", "root that is no folder");
}

/* A file in many pieces: more than one message tells of. */
static void test_pieces(void)
{
    g_autoptr(StoreMap) disk = NULL;
    g_autofree char *said = NULL;

    disk = make_disk("rm -rf r && mkdir -p r && perl -e 'open F, q(>), q(r/holes); for (0 .. 3000) { seek F, $_ * 3072, 0; print F q(x) }' && "
                     "mke2fs -q -t ext4 -b 1024 -d r fs.img 24M");
    said = try_to_read(disk);
    g_assert_cmpstr(said, ==, NULL);
}

static bool go_on(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    (void)what, (void)a, (void)b, (void)arg;
    return true;
}

/* What lies behind a hole would be taken for another place of the log; the journal says that it is short, so that its length does not tell. */
static void test_journal_with_hole(void)
{
    g_autoptr(StoreMap) disk = NULL;
    g_autoptr(GError) error = NULL;
    uint64_t left;

    disk = make_disk("mke2fs -q -t ext4 -b 1024 fs.img 16M && J=$(debugfs -R 'bmap <8> 0' fs.img 2>/dev/null) && "
                     "printf 'punch <8> 5 5\\nfeature needs_recovery\\n' | debugfs -w fs.img >/dev/null 2>&1 && "
                     "printf '\\0\\0\\1\\0' | dd of=fs.img bs=1 seek=$((J * 1024 + 16)) conv=notrunc status=none");
    g_assert_false(tree_diff_ext4(disk, 0, store_map_size(disk), disk, 0, store_map_size(disk), go_on, NULL, &left, &error));
    assert_says(error->message, "journal is damaged");
}

int main(int argc, char **argv)
{
    int rc;

    g_test_init(&argc, &argv, NULL);
    support = support_store();
    image = g_build_filename(support->dir, "fs.img", NULL);
    g_test_add_func("/ext4-reader/an-end-is-a-sentence", test_ends);
    g_test_add_func("/ext4-reader/a-silence-has-an-end", test_silence);
    g_test_add_func("/ext4-reader/nonsense-is-refused", test_nonsense);
    g_test_add_func("/ext4-reader/confined", test_confined);
    g_test_add_func("/ext4-reader/lies-are-refused", test_lies);
    g_test_add_func("/ext4-reader/many-pieces", test_pieces);
    g_test_add_func("/ext4-reader/a-journal-with-a-hole-is-refused", test_journal_with_hole);
    rc = g_test_run();
    g_free(image);
    support_store_free(support);
    return rc;
}
