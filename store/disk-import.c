/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk images from files. The format is told by the file's bytes, its header is
 * judged by us, and only then may qemu-img see it, with the format given: a raw disk whose
 * first bytes say "qcow2, backing file /etc/shadow" must never be believed.
 */
#include "store/disk-file.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/process.h"
#include "base/scope.h"
#include "base/units.h"
#include "store/ingest.h"
#include "store/qcow2.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define PROBE_SIZE 69632u /* as far as btrfs' superblock */

typedef struct Magic {
    size_t offset;
    const char *bytes;
    size_t size;
    const char *name;
} Magic;
#define MAGIC(offset, text, name)                                                                            \
    {                                                                                                        \
        offset, text, sizeof(text) - 1, name                                                                 \
    }

static bool magic_fits(const Magic *magic, const uint8_t *head, size_t size)
{
    return magic->offset + magic->size <= size &&
           memcmp(head + magic->offset, magic->bytes, magic->size) == 0;
}

/* Formats we can name but do not read. */
static const char *foreign_format(const uint8_t *head, size_t size)
{
    static const Magic table[] = {
        MAGIC(0, "KDMV", "a VMDK image; convert it with qemu-img convert -O qcow2"),
        MAGIC(0, "COWD", "a VMDK image; convert it with qemu-img convert -O qcow2"),
        MAGIC(0, "# Disk DescriptorFile", "a VMDK description; convert it with qemu-img convert -O qcow2"),
        MAGIC(0x40, "\x7f\x10\xda\xbe", "a VDI image; convert it with qemu-img convert -O qcow2"),
        MAGIC(0, "vhdxfile", "a VHDX image; convert it with qemu-img convert -O qcow2"),
        MAGIC(0, "conectix", "a VHD image; convert it with qemu-img convert -O qcow2"),
        MAGIC(0, "QED\0", "a QED image; convert it with qemu-img convert -O qcow2"),
        MAGIC(0, "\x1f\x8b", "compressed with gzip; decompress it first"),
        MAGIC(0,
              "\xfd"
              "7zXZ",
              "compressed with xz; decompress it first"),
        MAGIC(0, "\x28\xb5\x2f\xfd", "compressed with zstd; decompress it first"),
        MAGIC(0, "BZh", "compressed with bzip2; decompress it first"),
        MAGIC(257, "ustar", "a tar archive"),
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
        if (magic_fits(&table[i], head, size))
            return table[i].name;
    return NULL;
}

/* A boot sector whose partition entries make sense. */
static bool has_mbr(const uint8_t *head, size_t size)
{
    bool any = false;

    if (size < 512 || head[510] != 0x55 || head[511] != 0xaa)
        return false;
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *entry = head + 446 + 16 * i;

        if (entry[0] != 0 && entry[0] != 0x80)
            return false;
        any = any || entry[4] != 0;
    }
    return any;
}

static bool is_disk(const uint8_t *head, size_t size)
{
    static const Magic table[] = {
        MAGIC(512, "EFI PART", "GPT"),     MAGIC(4096, "EFI PART", "GPT"),
        MAGIC(1080, "\x53\xef", "ext"),    MAGIC(0, "XFSB", "xfs"),
        MAGIC(65600, "_BHRfS_M", "btrfs"), MAGIC(4086, "SWAPSPACE2", "swap"),
        MAGIC(512, "LABELONE", "lvm"),     MAGIC(0, "LUKS\xba\xbe", "luks"),
        MAGIC(0, "hsqs", "squashfs"),      MAGIC(54, "FAT", "vfat"),
        MAGIC(82, "FAT32", "vfat"),        MAGIC(3, "NTFS", "ntfs"),
        MAGIC(0x8001, "CD001", "iso9660"), MAGIC(1024, "\x10\x20\xf5\xf2", "f2fs"),
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++)
        if (magic_fits(&table[i], head, size))
            return true;
    return has_mbr(head, size);
}

static bool read_head(int fd, const char *what, uint8_t *head, size_t *ret_size, uint64_t *ret_file_size,
                      GError **error)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return fail_errno(error, "read '%s'", what);
    if (!S_ISREG(st.st_mode))
        return fail(error, "'%s' is no regular file", what);
    *ret_file_size = (uint64_t)st.st_size;
    *ret_size = (size_t)MIN(*ret_file_size, PROBE_SIZE);
    return file_pread_full(fd, head, *ret_size, 0, what, error);
}

/* @raw holds the disk itself; @what is what the user named. */
static bool import_raw(StoreWriter *writer, int raw, const char *what, StoreMap *parent, MapWriter **ret, GError **error)
{
    g_autofree uint8_t *head = g_malloc0(PROBE_SIZE);
    g_autoptr(Progress) progress = NULL;
    g_autoptr(SourceBytes) bytes = NULL;
    g_autoptr(MapWriter) map = NULL;
    uint64_t size;
    size_t head_size;

    if (!read_head(raw, what, head, &head_size, &size, error))
        return false;
    if (!is_disk(head, head_size))
        return fail(
            error,
            "'%s' is no disk image: it has neither a partition table nor a file system that kiln knows",
            what);
    progress = progress_new("import", size, true);
    if (!map_writer_new(writer, size, parent, &map, error))
        return fail_prefix(error, "'%s'", what);
    bytes = source_bytes_new(raw, size);
    map_writer_set_source(map, bytes);
    if (!map_writer_write_file(map, 0, raw, size, progress, error) || !map_writer_finish(map, error))
        return fail_prefix(error, "'%s'", what);
    progress_done(progress);
    *ret = g_steal_pointer(&map);
    return true;
}

static void keep_line(const char *line, bool is_stderr, void *arg)
{
    GString *last = arg;

    if (is_stderr && *line)
        g_string_assign(last, line);
}

/* Through /proc/self/fd, so that qemu-img reads the very file we judged and no name is parsed as a protocol.
 */
static bool convert(int from, const char *to, const char *what, GError **error)
{
    g_autofree char *source = g_strdup_printf("/proc/self/fd/%d", from);
    const char *argv[] = {"qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-S", "4k", source, to, NULL};
    g_autoptr(GString) last = g_string_new(NULL);
    ProcessSpec spec = {.argv = argv, .keep_fds = (const int[]){from, -1}, .on_line = keep_line, .arg = last};
    int code = 0;

    if (!process_run(&spec, &code, error))
        return fail_prefix(error, "'%s'", what);
    if (code != 0) {
        g_autofree char *said = printable_line(last->str);

        return fail(error, "'%s' cannot be converted: %s", what,
                    *said ? said : "qemu-img failed without a word");
    }
    return true;
}

static bool import_qcow2(Store *store, StoreWriter *writer, int fd, const char *what, StoreMap *parent, MapWriter **ret,
                         GError **error)
{
    g_autofree char *folder = NULL, *path = NULL, *size_text = NULL;
    auto_fd int raw = -1;
    uint64_t size;
    bool ok;

    if (!qcow2_check_header(fd, what, &size, error) || !store_make_tmpdir(store, &folder, error))
        return false;
    path = g_build_filename(folder, "disk.raw", NULL);
    size_text = units_format_size(size);
    log_verbose("converting '%s' (qcow2, %s) to raw", what, size_text);
    ok = convert(fd, path, what, error);
    if (ok && (raw = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        ok = fail_errno(error, "open '%s'", path);
    ok = ok && import_raw(writer, raw, what, parent, ret, error);
    (void)file_remove_tree(AT_FDCWD, folder, NULL); /* recovery removes what stays */
    return ok;
}

/* --- overlays --- */

typedef struct OverlayImport {
    int fd, base; /* @base: -1 when only what the overlay holds is read */
    MapWriter *map;
    Ingest *ingest, *rest; /* of the overlay; of the base */
    uint64_t at;           /* up to here all was handed over or left to the parent */
} OverlayImport;

/* Files end where their last cluster was written to: what is not there reads as zero. */
static bool read_overlay(void *buf, size_t size, uint64_t offset, void *arg, GError **error)
{
    return file_pread_padded(((const OverlayImport *)arg)->fd, buf, size, offset, "the overlay", error);
}

static bool read_base(void *buf, size_t size, uint64_t offset, void *arg, GError **error)
{
    return file_pread_padded(((const OverlayImport *)arg)->base, buf, size, offset, "the overlay", error);
}

static bool leave_until(OverlayImport *import, uint64_t end, GError **error)
{
    uint64_t from = import->at;

    import->at = MAX(end, from);
    return !import->rest || end <= from || ingest_check(import->rest, from, end - from, from, error);
}

static bool overlay_range(uint64_t at, uint64_t size, uint64_t host, void *arg, GError **error)
{
    OverlayImport *import = arg;

    if (at % STORE_BLOCK_SIZE)
        return fail(error, "the overlay's clusters are smaller than 4 KiB, which kiln does not look into");
    if (!leave_until(import, at, error))
        return false;
    import->at = at + size;
    return host == QCOW2_ZERO ? map_writer_zero(import->map, at, size, error) : ingest_range(import->ingest, at, size, host, error);
}

static bool walk_overlay(OverlayImport *import, const Qcow2Overlay *header, GError **error)
{
    g_autoptr(Ingest) ingest = ingest_new(import->map, read_overlay, import), rest = NULL;

    if (import->base >= 0)
        import->rest = rest = ingest_new(import->map, read_base, import);
    import->ingest = ingest;
    return qcow2_overlay_each(header, overlay_range, import, error) && leave_until(import, header->size, error) &&
           ingest_finish(ingest, error) && (!rest || ingest_finish(rest, error));
}

static bool open_base(const char *base, uint64_t size, int *ret, GError **error)
{
    auto_fd int fd = open(base, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(error, "open '%s'", base);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < size || (uint64_t)st.st_size - size >= STORE_BLOCK_SIZE)
        return fail(error, "'%s' is not the raw disk of the parent: it has another size", base);
    *ret = g_steal_fd(&fd);
    return true;
}

static bool import_overlay(StoreWriter *writer, int fd, const char *what, StoreMap *parent, const char *base, MapWriter **ret, GError **error)
{
    g_auto(Qcow2Overlay) header = {.fd = -1};
    g_autoptr(MapWriter) map = NULL;
    auto_fd int base_fd = -1;
    OverlayImport import = {.fd = fd, .base = -1};

    if (!qcow2_overlay_header(fd, what, &header, error))
        return false;
    if (header.size < store_map_size(parent))
        return fail(error, "the overlay '%s' shows a smaller disk than its parent", what);
    if (base && !open_base(base, store_map_size(parent), &base_fd, error))
        return false;
    if (!map_writer_new(writer, header.size, parent, &map, error))
        return false;
    import.base = base_fd;
    import.map = map;
    if (!walk_overlay(&import, &header, error) || !map_writer_finish(map, error))
        return fail_prefix(error, "'%s'", what);
    *ret = g_steal_pointer(&map);
    return true;
}

/* --- the face --- */

bool disk_import_file(Store *store, StoreWriter *writer, const char *path, const char *what, MapWriter **ret, GError **error)
{
    return disk_import_over(store, writer, path, what, NULL, NULL, ret, error);
}

bool disk_import_over(Store *store, StoreWriter *writer, const char *path, const char *what, StoreMap *parent, const char *base, MapWriter **ret,
                      GError **error)
{
    g_autofree uint8_t *head = g_malloc0(PROBE_SIZE);
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not hang us */
    const char *foreign;
    uint64_t size;
    size_t head_size;

    if (fd < 0)
        return fail_errno(error, "open '%s'", what);
    if (!read_head(fd, what, head, &head_size, &size, error))
        return false;
    if (size == 0)
        return fail(error, "'%s' is no disk image: it is empty", what);
    if (parent && qcow2_is_overlay(head, head_size))
        return import_overlay(writer, fd, what, parent, base, ret, error);
    if (base)
        return fail(error, "'%s' is no overlay: it is read from end to end anyway", what);
    if (head_size >= 4 && memcmp(head, "QFI\xfb", 4) == 0)
        return import_qcow2(store, writer, fd, what, parent, ret, error);
    foreign = foreign_format(head, head_size);
    if (foreign && !is_disk(head, head_size))
        return fail(error, "'%s' is no disk image that kiln reads: it is %s", what, foreign);
    return import_raw(writer, fd, what, parent, ret, error);
}
