/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root's file system takes all of its partition, mounted as it is. The kernel does that itself for ext4, xfs and btrfs, so no tool
 * of the guest is asked. Runs in a step, whose /sys tells how large the partition is.
 */
#include "provisioner/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define XFS_MAGIC 0x58465342
#define EXT4_RESIZE _IOW('f', 16, uint64_t)

/* As fs/xfs/libxfs/xfs_fs.h of the kernel has them; their layout is fixed. */
struct xfs_geometry {
    uint32_t blocksize, rtextsize, agblocks, agcount, logblocks, sectsize, inodesize, imaxpct;
    uint64_t datablocks, rtblocks, rtextents, logstart;
    uint8_t uuid[16];
    uint32_t sunit, swidth;
    int32_t version;
    uint32_t flags, logsectsize, rtsectsize, dirblocksize;
};
struct xfs_growth {
    uint64_t newblocks;
    uint32_t imaxpct;
};
#define XFS_GEOMETRY _IOR('X', 100, struct xfs_geometry)
#define XFS_GROW _IOW('X', 110, struct xfs_growth)

/* Bytes of the block device that holds "/"; 0: it is none, or not known. */
static uint64_t device_size(void)
{
    struct stat st;
    char path[64];
    unsigned long long sectors = 0;
    FILE *f;

    if (stat("/", &st) < 0)
        return 0;
    (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u/size", major(st.st_dev), minor(st.st_dev));
    f = fopen(path, "re");
    if (!f)
        return 0;
    if (fscanf(f, "%llu", &sectors) != 1)
        sectors = 0;
    fclose(f);
    return (uint64_t)sectors * 512;
}

static uint64_t blocks_of(const char *path)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 ? (uint64_t)fs.f_blocks : 0;
}

static int grow_ext4(int fd, uint32_t block_size)
{
    uint64_t blocks = device_size() / block_size;

    return blocks == 0 || ioctl(fd, EXT4_RESIZE, &blocks) == 0 ? 0 : errno;
}

static int grow_xfs(int fd)
{
    struct xfs_geometry geometry = {0};
    struct xfs_growth growth = {0};

    if (ioctl(fd, XFS_GEOMETRY, &geometry) < 0 || !geometry.blocksize)
        return errno;
    growth.newblocks = device_size() / geometry.blocksize;
    growth.imaxpct = geometry.imaxpct;
    return growth.newblocks <= geometry.datablocks || ioctl(fd, XFS_GROW, &growth) == 0 ? 0 : errno;
}

static int grow_btrfs(int fd)
{
    struct btrfs_ioctl_vol_args args = {.name = "max"};

    return ioctl(fd, BTRFS_IOC_RESIZE, &args) == 0 ? 0 : errno;
}

void grow_answer(Wire *wire)
{
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
    uint64_t before = blocks_of("/");
    struct statfs fs;

    if (fd < 0 || fstatfs(fd, &fs) < 0)
        err = errno;
    else if (fs.f_type == EXT4_SUPER_MAGIC)
        err = grow_ext4(fd, (uint32_t)fs.f_bsize);
    else if (fs.f_type == XFS_MAGIC)
        err = grow_xfs(fd);
    else if (fs.f_type == BTRFS_SUPER_MAGIC)
        err = grow_btrfs(fd);
    if (fd >= 0)
        close(fd);
    if (err)
        wire_err(wire, err, "cannot grow the root's file system");
    else
        wire_ok_number(wire, blocks_of("/") > before);
}
