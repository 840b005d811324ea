/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An fstab is hostile text: a line counts only when it is understood whole, and a folder only when it could not lead out of the root.
 */
#include "baker/guest-mounts.h"

#include "base/error.h"

#include <string.h>

#define FSTAB_MAX ((size_t)1 << 20)
#define MOUNTS_MAX 32

typedef struct Search {
    GArray *partitions; /* of DiskPartition */
    GPtrArray *mounts;
    bool unknown; /* something that only libguestfs can find */
} Search;

static void mount_free(gpointer data)
{
    GuestMount *mount = data;

    g_free(mount->folder);
    g_free(mount);
}

static void add_mount(Search *search, uint64_t offset, const char *folder)
{
    GuestMount *mount = g_new0(GuestMount, 1);

    mount->offset = offset;
    mount->folder = g_strdup(folder);
    g_ptr_array_add(search->mounts, mount);
}

/* "/dev/sda2", "/dev/vda2", "/dev/xvda2", "/dev/nvme0n1p2": the number, where it is the first disk's; else 0. */
static unsigned number_of_device(const char *spec)
{
    static const char *const disks[] = {"/dev/sda", "/dev/vda", "/dev/hda", "/dev/xvda", "/dev/nvme0n1p", "/dev/mmcblk0p"};
    guint64 number;

    for (size_t i = 0; i < G_N_ELEMENTS(disks); i++)
        if (g_str_has_prefix(spec, disks[i]) && g_ascii_string_to_unsigned(spec + strlen(disks[i]), 10, 1, 1024, &number, NULL))
            return (unsigned)number;
    return 0;
}

/* Case counts in labels alone. */
static bool is_meant(const DiskPartition *partition, const char *spec)
{
    static const struct {
        const char *prefix;
        size_t field;
        bool exact;
    } names[] = {
        {"UUID=", offsetof(DiskPartition, uuid), false},
        {"/dev/disk/by-uuid/", offsetof(DiskPartition, uuid), false},
        {"PARTUUID=", offsetof(DiskPartition, partuuid), false},
        {"/dev/disk/by-partuuid/", offsetof(DiskPartition, partuuid), false},
        {"LABEL=", offsetof(DiskPartition, label), true},
        {"/dev/disk/by-label/", offsetof(DiskPartition, label), true},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        const char *value = spec + strlen(names[i].prefix), *name = (const char *)partition + names[i].field;

        if (g_str_has_prefix(spec, names[i].prefix))
            return *name && (names[i].exact ? strcmp(value, name) == 0 : g_ascii_strcasecmp(value, name) == 0);
    }
    return partition->number > 0 && number_of_device(spec) == partition->number;
}

static const DiskPartition *find_partition(const Search *search, const char *spec)
{
    const DiskPartition *found = NULL;

    for (guint i = 0; i < search->partitions->len; i++) {
        const DiskPartition *partition = &g_array_index(search->partitions, DiskPartition, i);

        if (!is_meant(partition, spec))
            continue;
        if (found)
            return NULL; /* two of one name: whoever mounts decides */
        found = partition;
    }
    return found;
}

/* Is it a file system of a disk at all? Those of the kernel, of networks and of discs are nobody's business here. */
static bool is_on_disk(const char *type)
{
    static const char *const others[] = {"swap", "proc", "sysfs", "tmpfs", "devpts", "devtmpfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs",
                                         "hugetlbfs", "mqueue", "binfmt_misc", "iso9660", "udf", "nfs", "nfs4", "cifs", "9p", "virtiofs", "none", "ignore",
                                         "efivarfs", "configfs", "fusectl", "ramfs", "overlay", "squashfs", NULL};

    g_auto(GStrv) types = g_strsplit(type, ",", -1);
    bool any = false;

    for (char **one = types; *one && !any; one++)
        any = !g_strv_contains(others, *one);
    return any;
}

static bool is_folder(const char *folder)
{
    return *folder == '/' && !strchr(folder, '\\') && !strstr(folder, "/../") && !g_str_has_suffix(folder, "/..");
}

static void read_line(Search *search, const char *line)
{
    g_auto(GStrv) split = g_strsplit_set(line, " \t", -1);
    const char *words[4] = {"", "", "", ""};
    size_t count = 0;
    const DiskPartition *partition;

    for (char **word = split; *word && count < G_N_ELEMENTS(words); word++)
        if (**word)
            words[count++] = *word;
    if (count < 3 || *words[0] == '#' || strcmp(words[1], "/") == 0 || !is_on_disk(words[2]) || strcmp(words[1], "none") == 0)
        return;
    partition = is_folder(words[1]) ? find_partition(search, words[0]) : NULL;
    if (!partition || strstr(words[3], "bind") || search->mounts->len >= MOUNTS_MAX ||
        (strcmp(partition->fs, "ext4") != 0 && strcmp(partition->fs, "vfat") != 0)) {
        search->unknown = true;
        return;
    }
    add_mount(search, partition->offset, words[1]);
}

static gint parents_first(gconstpointer a, gconstpointer b)
{
    const GuestMount *x = *(GuestMount *const *)a, *y = *(GuestMount *const *)b;
    size_t nx = strlen(x->folder), ny = strlen(y->folder);

    return nx != ny ? (nx < ny ? -1 : 1) : strcmp(x->folder, y->folder);
}

bool guest_mounts_find(StoreMap *disk, uint64_t root_offset, uint64_t root_size, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) mounts = g_ptr_array_new_with_free_func(mount_free);
    g_autoptr(GArray) partitions = NULL;
    g_autoptr(Ext4Root) root = NULL;
    g_autoptr(GBytes) fstab = NULL;
    g_auto(GStrv) lines = NULL;
    Search search = {.mounts = mounts};

    *ret = NULL;
    if (!disk_partitions(disk, &partitions, error) || !ext4_root_open(disk, root_offset, root_size, &root, error) ||
        !ext4_root_read(root, "/etc/fstab", FSTAB_MAX, &fstab, error))
        return false;
    search.partitions = partitions;
    add_mount(&search, root_offset, "/");
    lines = g_strsplit(fstab ? g_bytes_get_data(fstab, NULL) : "", "\n", -1);
    for (char **line = lines; *line; line++)
        read_line(&search, g_strstrip(*line));
    if (search.unknown)
        return true;
    g_ptr_array_sort(mounts, parents_first);
    *ret = g_steal_pointer(&mounts);
    return true;
}
