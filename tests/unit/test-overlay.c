/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deploy/overlay.c over disks as guests leave them: a GPT with an ESP, a small ext4 and a root is imported, changed by debugfs or by this
 * host's kernel, and the differences become a qcow2 overlay. Overlays that lie, and the list of what is expected to change.
 */
#include "tree-support.h"

#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "deploy/drift-ignore.h"
#include "deploy/overlay.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define DISK_SIZE (64u << 20)
#define ESP_AT (1u << 20)
#define BOOT_AT (8u << 20)
#define ROOT_AT (16u << 20)
#define ROOT_END (60u << 20)
#define CLUSTER 65536u

typedef struct Fixture {
    SupportStore *support;
    const char *dir;
    StoreImage *image;
    char *base, *now, *overlay; /* raw, raw, qcow2 */
    bool missing;
} Fixture;

static Fixture fixture;

static void take_image(Fixture *f, const char *path)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    g_autoptr(StoreMap) opened = NULL;
    g_autoptr(GError) error = NULL;
    MapResult result;

    (void)(store_writer_open(f->support->store, BLOCK_PUBLIC, &writer, &error) &&
           disk_import_file(f->support->store, writer, path, path, &map, &error));
    g_assert_no_error(error);
    opened = support_commit(f->support->store, writer, map, &result);
    store_image_free(f->image);
    f->image = store_image_new("disk", "drift");
    f->image->map = result.digest;
    f->image->size = result.size;
}

/* The root has what a guest may change in all the ways that are told apart. */
static void make_base(Fixture *f)
{
    g_assert_cmpint(
        support_sh("set -e; cd %s; mkdir -p r/etc r/var/log r/usr/bin r/srv b/grub; echo web > r/etc/hostname; "
                   "seq 1 20000 > r/usr/bin/tool; seq 1 9000 > r/etc/large; echo same > r/etc/same; echo gone > r/etc/gone; "
                   "ln -s /usr/bin/tool r/etc/link; ln r/etc/same r/etc/twin; for i in $(seq 1 200); do echo $i > r/srv/$i; done; echo a=b > b/grub/grub.cfg; "
                   "truncate -s %u base.raw; printf 'label: gpt\\nunit: sectors\\nstart=%u,size=%u\\nstart=%u,size=%u\\nstart=%u,size=%u\\n' | sfdisk -q base.raw; "
                   "mkfs.vfat -F 12 -C esp.img 4096 >/dev/null; dd if=esp.img of=base.raw bs=1M seek=1 conv=notrunc status=none; "
                   "mke2fs -q -t ext4 -b 1024 -d b boot.img 8M; dd if=boot.img of=base.raw bs=1M seek=8 conv=notrunc status=none; "
                   "mke2fs -q -t ext4 -b 4096 -d r root.img %uM; dd if=root.img of=base.raw bs=1M seek=16 conv=notrunc,sparse status=none; rm *.img",
                   f->dir, DISK_SIZE, ESP_AT / 512, 8192, BOOT_AT / 512, 16384, ROOT_AT / 512, (ROOT_END - ROOT_AT) / 512, (ROOT_END - ROOT_AT) >> 20),
        ==, 0);
    take_image(f, f->base);
}

static bool have_tools(void)
{
    static const char *const tools[] = {"sfdisk", "mke2fs", "mkfs.vfat", "debugfs"};

    for (size_t i = 0; i < G_N_ELEMENTS(tools); i++)
        if (support_sh("command -v %s >/dev/null", tools[i]) != 0) {
            g_test_message("%s is not installed", tools[i]);
            return false;
        }
    return true;
}

static Fixture *setup(void)
{
    Fixture *f = &fixture;

    if (!f->support) {
        g_autofree char *path = g_strconcat(g_getenv("PATH"), ":/usr/sbin:/sbin", NULL);

        g_setenv("PATH", path, TRUE);
        f->support = support_store();
        f->dir = f->support->dir;
        f->base = g_build_filename(f->dir, "base.raw", NULL);
        f->now = g_build_filename(f->dir, "now.raw", NULL);
        f->overlay = g_build_filename(f->dir, "overlay.qcow2", NULL);
        f->missing = !have_tools();
        if (!f->missing)
            make_base(f);
    }
    if (f->missing) {
        g_test_skip("sfdisk, mke2fs, mkfs.vfat or debugfs is not installed");
        return NULL;
    }
    g_assert_cmpint(support_sh("cp --sparse=always %s %s", f->base, f->now), ==, 0);
    return f;
}

/* --- overlays of our own making --- */

static void put_be(uint8_t *p, uint64_t value, size_t size)
{
    for (size_t i = size; i-- > 0; value >>= 8)
        p[i] = (uint8_t)value;
}

/* Header, one L1 table, one L2 table, then clusters: enough for 512 MiB. */
static GByteArray *overlay_new(const char *base, uint64_t size)
{
    GByteArray *file = g_byte_array_new();

    g_assert_cmpuint(size, <=, 512u << 20);
    g_byte_array_set_size(file, 3 * CLUSTER);
    memset(file->data, 0, file->len);
    memcpy(file->data, "QFI\xfb", 4);
    put_be(file->data + 4, 3, 4);
    put_be(file->data + 8, 1024, 8);
    put_be(file->data + 16, strlen(base), 4);
    put_be(file->data + 20, 16, 4);
    put_be(file->data + 24, size, 8);
    put_be(file->data + 36, 1, 4);
    put_be(file->data + 40, CLUSTER, 8);
    put_be(file->data + 96, 4, 4);
    put_be(file->data + 100, 104, 4);
    memcpy(file->data + 1024, base, strlen(base));
    put_be(file->data + CLUSTER, 2 * CLUSTER, 8);
    return file;
}

static void overlay_put(GByteArray *file, uint64_t cluster, const uint8_t *data)
{
    guint at = file->len;

    g_byte_array_append(file, data, CLUSTER);
    put_be(file->data + 2 * CLUSTER + cluster * 8, (uint64_t)at | 1ull << 63, 8);
}

static void overlay_write(const Fixture *f, const GByteArray *file)
{
    g_assert_true(file_replace(AT_FDCWD, f->overlay, file->data, file->len, 0600, FILE_SYNC_NO, NULL));
}

static uint8_t *map_file(const char *path, uint64_t size)
{
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);

    g_assert_true(data != MAP_FAILED);
    return data;
}

/* The clusters in which now.raw, of @size bytes, and base.raw differ, and with @equal every @equal-th of the others. */
static void make_large_overlay(const Fixture *f, unsigned equal, uint64_t size)
{
    g_autoptr(GByteArray) file = overlay_new(f->base, size);
    uint8_t *before = map_file(f->base, DISK_SIZE), *now = map_file(f->now, size);

    for (uint64_t i = 0; i < size / CLUSTER; i++)
        if (i >= DISK_SIZE / CLUSTER ? !bytes_are_zero(now + i * CLUSTER, CLUSTER)
                                     : memcmp(before + i * CLUSTER, now + i * CLUSTER, CLUSTER) != 0 || (equal && i % equal == 0))
            overlay_put(file, i, now + i * CLUSTER);
    overlay_write(f, file);
    munmap(before, DISK_SIZE);
    munmap(now, size);
}

static void make_overlay(const Fixture *f, unsigned equal)
{
    make_large_overlay(f, equal, DISK_SIZE);
}

static char *changes(const Fixture *f, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;
    GString *text = g_string_new(NULL);

    if (!overlay_changes(f->support->store, f->overlay, f->base, f->image, &entries, error))
        return g_string_free(text, TRUE);
    for (guint i = 0; i < entries->len; i++) {
        const DriftEntry *entry = g_ptr_array_index(entries, i);

        g_string_append_printf(text, "%s: %s\n", entry->path, entry->what);
    }
    return g_string_free(text, FALSE);
}

static void expect(const Fixture *f, const char *expected)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = changes(f, &error);

    g_assert_no_error(error);
    g_assert_cmpstr(text, ==, expected);
}

static void expect_refusal(const Fixture *f, const char *words)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = changes(f, &error);

    g_assert_null(text);
    g_assert_nonnull(error);
    if (!strstr(error->message, words))
        g_error("'%s' does not say '%s'", error->message, words);
}

static void poke(const Fixture *f, const char *path, uint64_t at, const void *data, size_t size)
{
    auto_fd int fd = open(path, O_RDWR | O_CLOEXEC);

    (void)f;
    g_assert_true(file_pwrite_full(fd, data, size, at, path, NULL));
}

static void debugfs(const Fixture *f, unsigned at, const char *commands)
{
    g_assert_cmpint(support_sh("cd %s && printf '%s' > commands && debugfs -w -f commands 'now.raw?offset=%u'", f->dir, commands, at), ==,
                    0);
}

/* --- what is told --- */

static void test_nothing(void)
{
    Fixture *f = setup();

    if (!f)
        return;
    make_overlay(f, 0);
    expect(f, "");
    make_overlay(f, 1); /* the whole disk was written again as it was */
    expect(f, "");
}

static void test_files(void)
{
    Fixture *f = setup();

    if (!f)
        return;
    g_assert_cmpint(support_sh("cd %s && echo new > new && seq 2 20001 > tool && cp r/etc/large large", f->dir), ==, 0);
    debugfs(f, ROOT_AT,
            "cd /etc\\nwrite new added\\nrm gone\\nsif hostname mode 0100600\\nsif hostname uid 7\\nrm large\\nwrite large large\\n"
            "mkdir folder\\nrm link\\nsymlink link /bin/sh\\nea_set same user.a b\\ncd /usr/bin\\nrm tool\\nwrite tool tool\\n");
    make_overlay(f, 7);
    expect(f, "/etc/added: added\n/etc/folder: added\n/etc/gone: removed\n/etc/hostname: mode changed, owner changed\n/etc/link: changed\n"
              "/etc/same: attributes changed\n/usr/bin/tool: changed\n");
}

/* A kernel may leave anything behind the end of a file: blocks differ, the content does not. */
static void test_tail(void)
{
    static const char end[] = "\n8999\n9000\n";
    Fixture *f = setup();
    uint8_t *now, *found;
    uint64_t at;

    if (!f)
        return;
    now = map_file(f->now, DISK_SIZE);
    found = memmem(now + ROOT_AT, DISK_SIZE - ROOT_AT, end, sizeof end); /* with the NUL */
    g_assert_nonnull(found);
    at = (uint64_t)(found - now) + sizeof end - 1;
    munmap(now, DISK_SIZE);
    poke(f, f->now, at + 10, "rest", 4);
    make_overlay(f, 0);
    expect(f, "");
    poke(f, f->now, at - 2, "1", 1);
    make_overlay(f, 0);
    expect(f, "/etc/large: changed\n");
}

/* What would take hours to read is not read. */
static void test_sparse(void)
{
    Fixture *f = setup();

    if (!f)
        return;
    debugfs(f, ROOT_AT, "write r/etc/large /srv/huge\\nsif /srv/huge size 17000000000000\\nrm /etc/gone\\n");
    make_overlay(f, 0);
    expect(f, "/etc/gone: removed\n/srv/huge: added\n");
}

static void test_names(void)
{
    Fixture *f = setup();

    if (!f)
        return;
    g_assert_cmpint(support_sh("cd %s && echo x > $'a\\nb' && echo x > $'\\e[2J\\xff' && "
                               "mkdir -p m && cp -r r/. m/ && mv $'a\\nb' $'\\e[2J\\xff' m/etc/ && mke2fs -q -t ext4 -b 4096 -d m root.img %uM && "
                               "dd if=root.img of=now.raw bs=1M seek=16 conv=notrunc status=none && rm -r m root.img",
                               f->dir, (ROOT_END - ROOT_AT) >> 20),
                    ==, 0);
    make_overlay(f, 0);
    expect(f, "/etc/\\x1b[2J\\xff: added\n/etc/a\\x0ab: added\n"); /* and that a file system made anew is the same but for these */
}

static void test_partitions(void)
{
    Fixture *f = setup();
    uint8_t sector[512];
    auto_fd int fd = -1;

    if (!f)
        return;
    fd = open(f->now, O_RDWR | O_CLOEXEC);
    g_assert_true(file_pread_full(fd, sector, sizeof sector, ESP_AT, "now", NULL));
    sector[37] |= 1; /* as mounted */
    g_assert_true(file_pwrite_full(fd, sector, sizeof sector, ESP_AT, "now", NULL));
    make_overlay(f, 0);
    expect(f, "");
    poke(f, f->now, ESP_AT + 3 * 4096, "x", 1);
    poke(f, f->now, ESP_AT + 9 * 4096, "x", 1);
    poke(f, f->now, 0, "x", 1);
    poke(f, f->now, DISK_SIZE - 5000, "xxxx", 4);
    debugfs(f, BOOT_AT, "cd /grub\\nwrite r/etc/gone grubenv\\n");
    make_overlay(f, 0);
    expect(f, "(partition table, 2 blocks): changed\n(partition 1, 2 blocks): changed\n(partition 2) /grub/grubenv: added\n");
}

static void test_unreadable(void)
{
    Fixture *f = setup();
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;

    if (!f)
        return;
    debugfs(f, ROOT_AT, "feature -metadata_csum\\nlink /srv /etc/loop\\n"); /* a circle */
    make_overlay(f, 0);
    text = changes(f, &error);
    g_assert_no_error(error);
    g_assert_true(g_str_has_prefix(text, "(root, "));
    g_assert_nonnull(strstr(text, " blocks of 4 KiB changed): unreadable: "));
}

/* A root that grew into a larger disk at the first boot. */
static void test_grown(void)
{
    Fixture *f = setup();

    if (!f)
        return;
    if (support_sh("command -v sgdisk >/dev/null") != 0) {
        g_test_skip("sgdisk is not installed");
        return;
    }
    g_assert_cmpint(support_sh("set -e; cd %s; truncate -s 96M now.raw; sgdisk -e -d 3 -n 3:%u:0 now.raw >/dev/null; "
                               "dd if=now.raw of=root.img bs=1M skip=16 count=44 status=none; truncate -s 79M root.img; e2fsck -fp root.img >/dev/null; "
                               "resize2fs -f root.img >/dev/null 2>&1; debugfs -w -R 'rm /etc/gone' root.img 2>/dev/null; "
                               "dd if=root.img of=now.raw bs=1M seek=16 conv=notrunc status=none; rm root.img",
                               f->dir, ROOT_AT / 512),
                    ==, 0);
    make_large_overlay(f, 0, 96u << 20);
    expect(f, "(partition table, 1 block): changed\n(beyond the image's end, 1 block): changed\n/etc/gone: removed\n");
}

/* Roots that are no ext4, and disks without a table that we can read. */
static void expect_root_blocks(Fixture *f, const char *change, const char *expected)
{
    g_autofree char *base = g_build_filename(f->dir, "other.raw", NULL);
    char *keep = f->base;

    g_assert_cmpint(support_sh("cd %s && cp --sparse=always base.raw other.raw && %s", f->dir, change), ==, 0);
    take_image(f, base);
    g_assert_cmpint(support_sh("cd %s && cp --sparse=always other.raw now.raw && printf x | dd of=now.raw bs=1 seek=40000000 conv=notrunc status=none", f->dir), ==,
                    0);
    f->base = base;
    make_overlay(f, 0);
    expect(f, expected);
    f->base = keep;
    take_image(f, f->base);
}

static void test_other_roots(void)
{
    Fixture *f = setup();

    if (!f)
        return;
    expect_root_blocks(f, "dd if=/dev/zero of=other.raw bs=1M seek=16 count=1 conv=notrunc status=none && "
                          "printf XFSB | dd of=other.raw bs=1M seek=16 conv=notrunc status=none",
                       "(root, 1 block of 4 KiB changed): unreadable\n");
    expect_root_blocks(f, "printf x | dd of=other.raw bs=1 seek=1060 conv=notrunc status=none",
                       "(root, 1 block of 4 KiB changed): unreadable: the disk's GPT table is damaged (wrong checksum)\n");
}

/* --- a file system that is mounted --- */

/*
 * This host's kernel makes the changes; now.raw is copied while it is mounted. fsync commits to the journal and leaves the old blocks at home,
 * so nothing of this is seen without a replay: a folder's block that is freed and becomes a file's (revoked), a block that begins as the journal's
 * own do (escaped; contents are in the journal with data=journal only).
 */
static bool use_mounted(Fixture *f, const char *options)
{
    if (support_sh("cd %s && mkdir -p mnt && cp --sparse=always base.raw live.raw && mount -o loop,offset=%u,%s live.raw mnt 2>/dev/null", f->dir, ROOT_AT, options)) {
        g_test_skip("loop devices cannot be mounted here");
        return false;
    }
    g_assert_cmpint(support_sh("cd %s && trap 'umount mnt; rm live.raw' EXIT && mkdir mnt/opt && (cd mnt/opt && seq 1 3000 | xargs touch) && sync mnt/opt && rm -r mnt/opt && "
                               "sync mnt/etc && yes fill | head -c 30M > mnt/home && sync mnt/home && echo changed > mnt/etc/hostname && rm mnt/etc/gone && "
                               "(printf '\\xc0\\x3b\\x39\\x98' && head -c 5000 /dev/zero) > mnt/magic && chmod 700 mnt/srv && sync mnt/magic mnt/etc/hostname mnt/home mnt/srv mnt && "
                               "cp --sparse=always live.raw now.raw",
                               f->dir),
                    ==, 0);
    g_assert_cmpint(support_sh("dumpe2fs -h '%s?offset=%u' 2>/dev/null | grep -q needs_recovery", f->now, ROOT_AT), ==, 0);
    return true;
}

/* e2fsprogs' own replay is the base; the same disk before it, seen as an overlay over that, must show nothing. */
static void check_replay(Fixture *f)
{
    g_autofree char *replayed = g_build_filename(f->dir, "replayed.raw", NULL);
    char *keep = f->base;

    g_assert_cmpint(support_sh("set -e; cd %s; dd if=now.raw of=root.img bs=1M skip=16 count=44 status=none; e2fsck -E journal_only -y root.img >/dev/null 2>&1 || [ $? = 1 ]; "
                               "cp --sparse=always now.raw replayed.raw; dd if=root.img of=replayed.raw bs=1M seek=16 conv=notrunc status=none; rm root.img; "
                               "! cmp -s now.raw replayed.raw",
                               f->dir),
                    ==, 0);
    take_image(f, replayed);
    f->base = replayed;
    make_overlay(f, 0);
    expect(f, "");
    f->base = keep;
    take_image(f, f->base);
}

static void check_journal(const char *options)
{
    Fixture *f = setup();

    if (!f || !use_mounted(f, options))
        return;
    make_overlay(f, 0);
    expect(f, "/etc/gone: removed\n/etc/hostname: changed\n/home: added\n/magic: added\n/srv: mode changed\n");
    check_replay(f);
}

static void test_journal(void)
{
    check_journal("data=ordered");
}

static void test_journal_of_data(void)
{
    check_journal("data=journal");
}

/* Fast commits are not read, and said to be there. */
static void test_fast_commits(void)
{
    Fixture *f = setup();
    g_autofree char *base = NULL;
    char *keep;

    if (!f)
        return;
    if (support_sh("set -e; cd %s; mkdir -p mnt; cp --sparse=always base.raw fast.raw; mke2fs -q -t ext4 -b 4096 -O fast_commit -d r root.img 44M; "
                   "dd if=root.img of=fast.raw bs=1M seek=16 conv=notrunc status=none; cp fast.raw live.raw; mount -o loop,offset=%u live.raw mnt; "
                   "trap 'umount mnt; rm live.raw' EXIT; for i in 1 2 3; do echo $i > mnt/etc/$i; sync mnt/etc/$i; done; cp --sparse=always live.raw now.raw; rm root.img",
                   f->dir, ROOT_AT) != 0 ||
        support_sh("debugfs -R 'logdump -O' '%s?offset=%u' 2>/dev/null | grep -q 'tag TAIL'", f->now, ROOT_AT) != 0) {
        g_test_skip("this host's kernel makes no fast commits");
        return;
    }
    base = g_build_filename(f->dir, "fast.raw", NULL);
    keep = f->base;
    take_image(f, base);
    f->base = base;
    make_overlay(f, 0);
    expect(f, "/etc/1: added\n(the journal holds 2 blocks of fast commits): unreadable\n");
    f->base = keep;
    take_image(f, f->base);
}

/* --- overlays that lie --- */

static void test_hostile(void)
{
    static const struct {
        uint32_t at, size;
        uint64_t value;
        const char *words;
    } cases[] = {
        {0, 4, 1, "no qcow2"},
        {8, 8, 0, "no backing file"},
        {8, 8, 1u << 30, "damaged"},
        {16, 4, 1u << 30, "damaged"},
        {24, 8, 4096, "smaller disk"},
        {24, 8, 1ull << 60, "claims"},
        {20, 4, 9, "smaller than 4 KiB"},
        {20, 4, 60, "damaged"},
        {32, 4, 1, "encrypted"},
        {36, 4, 0xffffffff, "damaged"},
        {40, 8, 1ull << 62, "damaged"},
        {72, 8, 4, "another file"},
        {72, 8, 1ull << 30, "not know"},
        {1024, 4, 0x2f657463, "another file"},
        {CLUSTER, 8, 1ull << 40, "outside"},
        {CLUSTER, 8, 2 * CLUSTER + 512, "outside"},
        {2 * CLUSTER, 8, 1ull << 40, "outside"},
        {2 * CLUSTER, 8, 512, "askew"},
        {2 * CLUSTER, 8, 1ull << 62 | 512, "compressed"},
    };
    Fixture *f = setup();
    g_autoptr(GByteArray) file = NULL;

    if (!f)
        return;
    file = overlay_new(f->base, DISK_SIZE);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) copy = g_byte_array_new();

        g_byte_array_append(copy, file->data, file->len);
        put_be(copy->data + cases[i].at, cases[i].value, cases[i].size);
        overlay_write(f, copy);
        expect_refusal(f, cases[i].words);
    }
    for (guint size = 0; size < 3 * CLUSTER; size += 21845) { /* truncated */
        g_assert_true(file_replace(AT_FDCWD, f->overlay, file->data, size, 0600, FILE_SYNC_NO, NULL));
        expect_refusal(f, "");
    }
    for (uint64_t i = 0; i < DISK_SIZE / CLUSTER; i++) /* every cluster is the header's */
        put_be(file->data + 2 * CLUSTER + i * 8, CLUSTER, 8);
    overlay_write(f, file);
    expect_refusal(f, "twice");
}

/* A file may end in its last cluster, and zero clusters are zeroes. */
static void test_odd_overlays(void)
{
    Fixture *f = setup();
    g_autoptr(GByteArray) file = NULL;
    g_autofree uint8_t *data = g_malloc0(CLUSTER);
    uint8_t *before;

    if (!f)
        return;
    file = overlay_new(f->base, DISK_SIZE);
    before = map_file(f->base, DISK_SIZE);
    memcpy(data, before + ESP_AT + CLUSTER * 5ull, CLUSTER);
    data[0] ^= 1;
    munmap(before, DISK_SIZE);
    overlay_put(file, ESP_AT / CLUSTER + 5, data);
    put_be(file->data + 2 * CLUSTER + 63 * 1024 * 1024 / CLUSTER * 8, 1, 8); /* zeroes over zeroes */
    g_byte_array_set_size(file, file->len - CLUSTER + 100);
    overlay_write(f, file);
    expect(f, "(partition 1, 1 block): changed\n");
}

/* Any damage to the file system that a guest can do: an answer or a sentence, soon. */
static void test_damage(void)
{
    Fixture *f = setup();
    uint8_t *before;
    unsigned rounds = g_test_slow() ? 1500 : 12;

    if (!f)
        return;
    before = map_file(f->base, DISK_SIZE);
    for (unsigned round = 0; round < rounds; round++) {
        g_autoptr(GByteArray) file = overlay_new(f->base, DISK_SIZE);
        g_autoptr(GError) error = NULL;
        g_autofree char *text = NULL;

        for (unsigned i = 0; i < 12; i++) {
            g_autofree uint8_t *data = g_memdup2(before + ROOT_AT + i * CLUSTER, CLUSTER);

            for (unsigned k = 0; k < 20; k++)
                data[g_test_rand_int_range(i ? 0 : 2048, CLUSTER)] = (uint8_t)g_test_rand_int();
            if (i == 0 && round % 2) /* as mounted */
                data[1024 + 0x60] |= 4;
            overlay_put(file, ROOT_AT / CLUSTER + i, data);
        }
        overlay_write(f, file);
        text = changes(f, &error);
        g_assert_no_error(error);
    }
    munmap(before, DISK_SIZE);
}

/* --- the same by another way --- */

/* Each file is somebody's once: debugfs is no file system. */
static void random_change(GString *commands, unsigned number)
{
    int victim = (int)number * 3 + g_test_rand_int_range(0, 3);

    switch (g_test_rand_int_range(0, 7)) {
    case 0:
        g_string_append_printf(commands, "rm /srv/%d\\n", victim);
        break;
    case 1:
        g_string_append_printf(commands, "write tool /srv/new-%u\\n", number);
        break;
    case 2:
        g_string_append_printf(commands, "rm /srv/%d\\nwrite r/srv/%d /srv/%d\\n", victim, victim, victim); /* as it was */
        break;
    case 3:
        g_string_append_printf(commands, "rm /srv/%d\\nwrite large /srv/%d\\n", victim, victim);
        break;
    case 4:
        g_string_append_printf(commands, "sif /srv/%d mode 0100%03o\\n", victim, g_test_rand_int_range(0, 01000));
        break;
    case 5:
        g_string_append_printf(commands, "mkdir /srv/folder-%u\\nsymlink /srv/folder-%u/l %d\\n", number, number, victim);
        break;
    default:
        g_string_append_printf(commands, "rm /srv/%d\\nsymlink /srv/%d away\\n", victim, victim);
    }
}

static bool note_diff(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    GString *text = arg;
    const char *word = "mode changed";

    if (what != '~')
        word = what == '+' ? "added" : "removed";
    else if (a->type != b->type)
        word = "type changed";
    else if (a->size != b->size || !digest_equal(&a->sha256, &b->sha256) || g_strcmp0(a->target, b->target) != 0)
        word = "changed";
    else if (a->mode == b->mode)
        return true; /* times */
    g_string_append_printf(text, "/%s: %s\n", (b ? b : a)->path, word);
    return true;
}

static Tree *read_whole(const Fixture *f, const char *path)
{
    g_autoptr(StoreMap) map = support_import(f->support->store, path);
    g_autoptr(GError) error = NULL;
    Tree *tree = NULL;

    (void)tree_read_ext4(f->support->store, map, ROOT_AT, ROOT_END - ROOT_AT, NULL, NULL, &tree, NULL, &error);
    g_assert_no_error(error);
    return tree;
}

/* Random changes: what the overlay tells is what two trees, read whole, differ in. */
static void test_random_changes(void)
{
    for (unsigned round = 0; round < (g_test_slow() ? 300 : 3); round++) {
        Fixture *f = setup();
        g_autoptr(GString) commands = g_string_new(NULL), expected = g_string_new(NULL);
        g_autoptr(Tree) before = NULL, now = NULL;

        if (!f)
            return;
        g_assert_cmpint(support_sh("cd %s && seq 2 20001 > tool && cp r/etc/large large", f->dir), ==, 0);
        for (int i = g_test_rand_int_range(1, 60); i > 0; i--)
            random_change(commands, (unsigned)i);
        debugfs(f, ROOT_AT, commands->str);
        make_overlay(f, (unsigned)g_test_rand_int_range(0, 30));
        before = read_whole(f, f->base);
        now = read_whole(f, f->now);
        tree_diff(before, now, note_diff, expected);
        expect(f, expected->str);
    }
}

/* --- a large disk --- */

static void test_speed(void)
{
    Fixture *f = setup();
    gint64 start;
    g_autofree char *base = NULL, *keep = NULL;
    struct rusage usage;

    if (!f)
        return;
    base = g_build_filename(f->dir, "large.raw", NULL);
    g_assert_cmpint(support_sh("cd %s && mkdir -p l/etc && for d in $(seq 1 60); do mkdir l/$d && for i in $(seq 1 100); do echo $i; done | "
                               "(cd l/$d && xargs touch); done && truncate -s 2G large.raw && mke2fs -q -t ext4 -b 4096 -d l large.raw && rm -r l",
                               f->dir),
                    ==, 0);
    take_image(f, base);
    if (support_sh("cd %s && qemu-img create -q -f qcow2 -b large.raw -F raw overlay.qcow2 && qemu-io -f qcow2 -c 'write -P 7 1900M 8M' overlay.qcow2 >/dev/null", f->dir) == 0) {
        keep = g_steal_pointer(&f->base);
        f->base = base;
        start = g_get_monotonic_time();
        expect(f, "");
        g_test_message("2 GiB, 6000 files, 8 MiB of overlay: %.3f s", (double)(g_get_monotonic_time() - start) / 1e6);
        g_assert_cmpint(g_get_monotonic_time() - start, <, 3 * G_USEC_PER_SEC); /* 1 s on a machine that does nothing else */
        (void)getrusage(RUSAGE_SELF, &usage);
        g_test_message("%ld KiB", usage.ru_maxrss);
        f->base = keep;
        keep = NULL;
    } else {
        g_test_skip("qemu-img or qemu-io is not installed");
    }
    g_assert_cmpint(support_sh("rm -f %s", base), ==, 0);
    take_image(f, f->base);
}

/* --- what is expected to change --- */

static void test_ignore(void)
{
    static const char *const ignored[] = {"/var/log/syslog",     "/var/log/journal/a/b", "/run", "/tmp/x/y", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub",
                                          "/var/lib/dhcp/a.leases", "/data", "/data/x/y", "/srv/app/cache/1", "(swap on partition 3, 9 blocks)", "/opt/own", "/var/lib/systemd/linger"};
    static const char *const told[] = {"/etc/hosts", "/etc/ssh/sshd_config", "/usr/bin/tool", "/database", "/srv/app/code", "/srv/cache", "/etc/machine-id2",
                                       "/var/spool/cron/crontabs/root", "(partition 15, 3 blocks)", "(root, 9 blocks of 4 KiB changed)", "/", "/var/lib/systemd",
                                       "/root/.ssh/authorized_keys", "/var/lib/systemd/linger/bob"};
    char *globs[] = {(char *)"/srv/*/cache", (char *)"/opt/own", NULL};
    VolumeSpec volume = {.name = (char *)"data", .mount = (char *)"/data/"};
    g_autoptr(GPtrArray) volumes = g_ptr_array_new();
    GroupSpec spec = {.shape = {.volumes = volumes}, .drift_ignore = globs};
    GroupSpec plain = {.name = NULL};

    g_ptr_array_add(volumes, &volume);
    for (size_t i = 0; i < G_N_ELEMENTS(ignored); i++)
        if (!drift_ignored(&spec, ignored[i]))
            g_error("'%s' is not ignored", ignored[i]);
    for (size_t i = 0; i < G_N_ELEMENTS(told); i++)
        if (drift_ignored(&spec, told[i]))
            g_error("'%s' is ignored", told[i]);
    g_assert_false(drift_ignored(&plain, "/data/x"));
    g_assert_false(drift_ignored(&plain, "/opt/own"));
    for (const DriftIgnore *entry = drift_ignore_shipped(); entry->glob; entry++)
        g_assert_cmpint((int)strlen(entry->reason), >, 3);
}

/* The page shows the very list. */
static void test_manual(void)
{
    g_autofree char *page = NULL;
    size_t lines = 0;

    if (!g_file_get_contents("packaging/manual/kiln-drift.7.md", &page, NULL, NULL)) {
        g_test_skip("the manual is not here");
        return;
    }
    for (const DriftIgnore *entry = drift_ignore_shipped(); entry->glob; entry++, lines++) {
        g_autofree char *line = g_strdup_printf("\n| `%s` | %s%s |\n", entry->glob, entry->reason, entry->alone ? " (the folder alone)" : "");

        if (!strstr(page, line))
            g_error("the manual lacks '%s'", entry->glob);
    }
    for (const char *row = strstr(page, "## What is expected"); (row = strstr(row, "\n| `")); row++)
        lines--;
    g_assert_cmpuint(lines, ==, 0);
}

int main(int argc, char **argv)
{
    int rc;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/overlay/what-was-written-again-is-no-change", test_nothing);
    g_test_add_func("/overlay/tells-files-and-how-they-changed", test_files);
    g_test_add_func("/overlay/what-is-behind-a-file-is-no-change", test_tail);
    g_test_add_func("/overlay/huge-sparse-files-cost-nothing", test_sparse);
    g_test_add_func("/overlay/names-are-escaped", test_names);
    g_test_add_func("/overlay/partitions-are-told-by-blocks", test_partitions);
    g_test_add_func("/overlay/an-unreadable-root-is-told-by-blocks", test_unreadable);
    g_test_add_func("/overlay/a-grown-root-is-read", test_grown);
    g_test_add_func("/overlay/other-roots-are-told-by-blocks", test_other_roots);
    g_test_add_func("/overlay/a-journal-is-replayed-in-memory", test_journal);
    g_test_add_func("/overlay/a-journal-of-data-is-replayed", test_journal_of_data);
    g_test_add_func("/overlay/fast-commits-are-said-to-be-there", test_fast_commits);
    g_test_add_func("/overlay/hostile-tables-are-refused", test_hostile);
    g_test_add_func("/overlay/odd-overlays-are-read", test_odd_overlays);
    g_test_add_func("/overlay/random-damage-is-survived", test_damage);
    g_test_add_func("/overlay/random-changes-as-whole-trees-differ", test_random_changes);
    g_test_add_func("/overlay/is-fast", test_speed);
    g_test_add_func("/drift-ignore/lists-and-volumes", test_ignore);
    g_test_add_func("/drift-ignore/the-manual-shows-it", test_manual);
    rc = g_test_run();
    support_store_free(fixture.support);
    store_image_free(fixture.image);
    g_free(fixture.base);
    g_free(fixture.now);
    g_free(fixture.overlay);
    return rc;
}
