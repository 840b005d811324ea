/* SPDX-License-Identifier: Apache-2.0 */
/*
 * baker/guest-mounts.c: what an fstab says of the partitions of a disk, and when it says too much. sfdisk and mke2fs make the disks.
 */
#include "tree-support.h"

#include "baker/guest-mounts.h"

#include <string.h>

#define ROOT_AT ((uint64_t)1 << 20)
#define ROOT_SIZE ((uint64_t)8 << 20)
#define BOOT_AT ((uint64_t)9 << 20)
#define ROOT_UUID "11111111-2222-3333-4444-555555555555"
#define BOOT_UUID "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

static SupportStore *support;

/* A disk with a root, which has @fstab, and a second partition labelled "boot" of 8 MiB; GPT unless @dos. */
static StoreMap *make_disk(const char *fstab, bool dos)
{
    g_autofree char *image = g_build_filename(support->dir, "disk.img", NULL), *file = g_build_filename(support->dir, "root", "etc", "fstab", NULL);

    g_assert_cmpint(support_sh("cd %s && rm -rf root disk.img && mkdir -p root/etc && truncate -s 18M disk.img", support->dir), ==, 0);
    g_assert_true(g_file_set_contents(file, fstab, -1, NULL));
    g_assert_cmpint(support_sh("cd %s && printf 'label: %s\nlabel-id: %s\nstart=2048, size=16384, %s\nstart=18432, size=16384, %s\n' | "
                               "/usr/sbin/sfdisk -q disk.img && mke2fs -q -t ext4 -U " ROOT_UUID " -d root -E offset=1048576 disk.img 8M && "
                               "mke2fs -q -t ext2 -U " BOOT_UUID " -L boot -E offset=9437184 disk.img 8M",
                               support->dir, dos ? "dos" : "gpt", dos ? "0x1234abcd" : "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
                               dos ? "type=83" : "uuid=00000000-0000-0000-0000-0000000000AA", dos ? "type=83" : "uuid=00000000-0000-0000-0000-0000000000BB"),
                    ==, 0);
    return support_import(support->store, image);
}

static void assert_mounts(const char *fstab, bool dos, const char *expected)
{
    g_autoptr(StoreMap) disk = make_disk(fstab, dos);
    g_autoptr(GPtrArray) mounts = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GError) error = NULL;

    (void)guest_mounts_find(disk, ROOT_AT, ROOT_SIZE, &mounts, &error);
    g_assert_no_error(error);
    for (guint i = 0; mounts && i < mounts->len; i++) {
        const GuestMount *mount = mounts->pdata[i];

        g_string_append_printf(text, "%s%s=%s", i ? " " : "", mount->folder, mount->offset == ROOT_AT ? "root" : mount->offset == BOOT_AT ? "boot" : "?");
    }
    g_assert_cmpstr(mounts ? text->str : "look", ==, expected);
}

static void test_names(void)
{
    assert_mounts("", false, "/=root");
    assert_mounts("# nothing\n\nUUID=" ROOT_UUID " / ext4 defaults 0 1\nproc /proc proc defaults 0 0\n/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n"
                  "UUID=0000 none swap sw 0 0\ntmpfs /tmp tmpfs size=1G\n", false, "/=root");
    assert_mounts("UUID=" BOOT_UUID " /boot ext2 defaults 0 2\n", false, "/=root /boot=boot");
    assert_mounts("UUID=AAAAAAAA-bbbb-cccc-dddd-eeeeeeeeeeee\t/boot\text2\tnofail\n", false, "/=root /boot=boot");
    assert_mounts("/dev/disk/by-uuid/" BOOT_UUID " /boot auto defaults", false, "/=root /boot=boot");
    assert_mounts("LABEL=boot /boot ext2 defaults\nUUID=" ROOT_UUID " / ext4", false, "/=root /boot=boot");
    assert_mounts("PARTUUID=00000000-0000-0000-0000-0000000000bb /boot ext2 defaults", false, "/=root /boot=boot");
    assert_mounts("PARTUUID=1234abcd-02 /boot ext2 defaults", true, "/=root /boot=boot");
    assert_mounts("/dev/vda2 /boot ext2 defaults", true, "/=root /boot=boot");
    assert_mounts("/dev/nvme0n1p2 /srv ext2 defaults\n", false, "/=root /srv=boot");
}

static void test_order(void)
{
    assert_mounts("LABEL=boot /boot/efi/deep ext2 x\nUUID=" BOOT_UUID " /boot ext2 x\n", false, "/=root /boot=boot /boot/efi/deep=boot");
}

static void test_what_libguestfs_has_to_find(void)
{
    assert_mounts("/dev/mapper/vg-home /home ext4 defaults\n", false, "look");
    assert_mounts("LABEL=absent /srv ext4 defaults\n", false, "look");
    assert_mounts("LABEL=BOOT /srv ext4 defaults\n", false, "look");
    assert_mounts("/dev/sdb1 /srv ext4 defaults\n", false, "look");
    assert_mounts("/dev/sda2 /srv btrfs subvol=home\n", false, "/=root /srv=boot"); /* the partition's own word counts */
    assert_mounts("/home /srv none bind\n", false, "/=root");
    assert_mounts("/home /srv ext4 bind\n", false, "look");
    assert_mounts("LABEL=boot /../../etc ext2 defaults\n", false, "look");
    assert_mounts("LABEL=boot /a\\040b ext2 defaults\n", false, "look");
    assert_mounts("LABEL=boot relative ext2 defaults\n", false, "look");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    support = support_store();
    g_test_add_func("/guest-mounts/every-way-to-name-a-partition", test_names);
    g_test_add_func("/guest-mounts/parents-come-first", test_order);
    g_test_add_func("/guest-mounts/what-is-not-plain-is-left-to-libguestfs", test_what_libguestfs_has_to_find);

    int status = g_test_run();

    support_store_free(support);
    return status;
}
