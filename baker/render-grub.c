/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The boot loader: GRUB for BIOS and for UEFI, written as plain files, without grub-install, mount or root.
 *
 *     MBR          boot.img, told where the next stage lies     (LBA at 0x5c)
 *     BIOS boot    core.img: diskboot.img, told where its rest lies (block list at 0x1f4),
 *                  kernel, modules and an early configuration
 *     root         /boot/grub/grub.cfg, found by the file system's UUID
 *
 * The image carries no GRUB modules: all that grub.cfg uses is inside core.img.
 */
#include "baker/render-parts.h"

#include "base/debian-version.h"
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define GRUB_DIR "/usr/lib/grub/"
#define GRUB_BIOS "i386-pc"
#define GRUB_EFI "x86_64-efi"
#define GRUB_CORE_MAX ((size_t)16 << 20)
#define KERNELS_MAX 64
#define CMDLINE_FILE "etc/kernel/cmdline"
#define CMDLINE_MAX 2048 /* what the kernel takes */

#define BOOT_IMG_KERNEL_SECTOR 0x5c
#define BOOT_IMG_DRIVE_CHECK 0x66
#define DISKBOOT_BLOCKLIST 0x1f4
#define DISKBOOT_SEGMENT 0x820

/* What grub.cfg needs, and a few commands for whoever stands at the prompt. */
#define GRUB_MODULES "part_gpt", "part_msdos", "ext2", "search", "search_fs_uuid", "normal", "configfile", "linux", "echo", "test", \
                     "serial", "terminal", "minicmd", "ls", "cat", "reboot", "halt", "sleep", "true", "regexp"

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static void keep_last_line(const char *line, bool is_stderr, void *arg)
{
    char **last = arg;

    if (!is_stderr || !*line)
        return;
    g_free(*last);
    *last = g_strdup(line);
}

static bool run_mkimage(const char *const *argv, GError **error)
{
    g_autofree char *last = NULL;
    ProcessSpec spec = {.argv = argv, .on_line = keep_last_line, .arg = &last, .timeout = 120};
    int status;

    if (!process_run(&spec, &status, error))
        return false;
    if (status != 0)
        return fail(error, "grub-mkimage failed (exit %d): %s", status, last ? last : "it gave no reason");
    return true;
}

/* The early configuration finds the root wherever the firmware has put the disk. */
static bool write_early_config(const char *dir, const uint8_t root_uuid[16], char **ret_path, GError **error)
{
    char uuid[37];
    g_autofree char *text = NULL, *path = g_build_filename(dir, "early.cfg", NULL);

    digest_uuid_text(root_uuid, uuid);
    text = g_strdup_printf("search.fs_uuid %s root\nset prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n",
                           uuid);
    if (!file_replace(AT_FDCWD, path, text, strlen(text), 0600, FILE_SYNC_NO, error))
        return false;
    *ret_path = g_steal_pointer(&path);
    return true;
}

static bool make_core(const char *dir, const char *config, GBytes **ret, GError **error)
{
    g_autofree char *path = g_build_filename(dir, "core.img", NULL);
    const char *const argv[] = {"grub-mkimage", "-O", GRUB_BIOS, "-d", GRUB_DIR GRUB_BIOS, "-p", "/boot/grub", "-c", config,
                                "-o", path, "biosdisk", GRUB_MODULES, NULL};

    return run_mkimage(argv, error) && file_load(AT_FDCWD, path, GRUB_CORE_MAX, ret, error);
}

static bool make_efi(const char *dir, const char *config, GBytes **ret, GError **error)
{
    g_autofree char *path = g_build_filename(dir, "bootx64.efi", NULL);
    const char *const argv[] = {"grub-mkimage", "-O", GRUB_EFI, "-d", GRUB_DIR GRUB_EFI, "-p", "/boot/grub", "-c", config,
                                "-o", path, "fat", GRUB_MODULES, NULL};

    /* Needed everywhere, though a BIOS would do without: an ESP that depends on the host would give two image IDs. */
    if (access(GRUB_DIR GRUB_EFI "/kernel.img", R_OK) != 0)
        return fail(error, "GRUB for UEFI is not installed; install the package grub-efi-amd64-bin");
    return run_mkimage(argv, error) && file_load(AT_FDCWD, path, GRUB_CORE_MAX, ret, error);
}

/* Writes into core.img's first sector where the rest of it lies. */
static bool patch_core(GBytes *raw, GBytes **ret, GError **error)
{
    size_t size, padded, sectors;
    const uint8_t *data = g_bytes_get_data(raw, &size);
    uint8_t *core;

    padded = (size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
    sectors = (size + SECTOR - 1) / SECTOR;
    if (size < 2 * SECTOR || padded > BIOS_BOOT_SIZE || sectors - 1 > UINT16_MAX)
        return fail(error, "GRUB's core image has an unexpected size (%zu bytes)", size);
    core = g_malloc0(padded);
    memcpy(core, data, size);
    put_le(core + DISKBOOT_BLOCKLIST, BIOS_BOOT_OFFSET / SECTOR + 1, 8);
    put_le(core + DISKBOOT_BLOCKLIST + 8, sectors - 1, 2);
    put_le(core + DISKBOOT_BLOCKLIST + 10, DISKBOOT_SEGMENT, 2);
    *ret = g_bytes_new_take(core, padded);
    return true;
}

static bool load_mbr_code(uint8_t code[440], GError **error)
{
    g_autoptr(GBytes) boot = NULL;

    if (!file_load(AT_FDCWD, GRUB_DIR GRUB_BIOS "/boot.img", 4096, &boot, error))
        return fail_prefix(error, "GRUB for BIOS is not installed (package grub-pc-bin)");
    if (g_bytes_get_size(boot) < SECTOR)
        return fail(error, "GRUB's boot.img is damaged");
    memcpy(code, g_bytes_get_data(boot, NULL), 440);
    put_le(code + BOOT_IMG_KERNEL_SECTOR, BIOS_BOOT_OFFSET / SECTOR, 8);
    memset(code + BOOT_IMG_DRIVE_CHECK, 0x90, 2); /* trust the drive number that the BIOS gives */
    return true;
}

bool render_grub_make(Store *store, const uint8_t root_uuid[16], RenderGrub *ret, GError **error)
{
    g_autofree char *dir = NULL, *config = NULL;
    g_autoptr(GBytes) raw = NULL, core = NULL, efi = NULL;
    RenderGrub grub = {0};
    bool ok;

    if (!load_mbr_code(grub.mbr_code, error) || !store_make_tmpdir(store, &dir, error))
        return false;
    ok = write_early_config(dir, root_uuid, &config, error) && make_core(dir, config, &raw, error) &&
         patch_core(raw, &core, error) && make_efi(dir, config, &efi, error);
    (void)file_remove_tree(AT_FDCWD, dir, NULL); /* recovery removes what stays */
    if (!ok)
        return fail_prefix(error, "make the boot loader");
    grub.core = g_steal_pointer(&core);
    grub.efi = g_steal_pointer(&efi);
    *ret = grub;
    return true;
}

void render_grub_clear(RenderGrub *grub)
{
    g_clear_pointer(&grub->core, g_bytes_unref);
    g_clear_pointer(&grub->efi, g_bytes_unref);
}

/* --- kernels --- */

static int newest_first(const void *a, const void *b)
{
    const char *va = *(char *const *)a, *vb = *(char *const *)b;
    int order = debian_version_compare(vb, va);

    return order ? order : strcmp(va, vb);
}

/* Names go into a script that GRUB runs: only what package names may hold. */
static bool version_is_plain(const char *version)
{
    if (!*version)
        return false;
    for (const char *p = version; *p; p++)
        if (!g_ascii_isalnum(*p) && !strchr(".+-_~", *p))
            return false;
    return true;
}

static bool check_kernel(Tree *tree, StoreMap *files, const TreeEntry *entry, GError **error)
{
    const TreeEntry *content = tree_content_entry(tree, entry);
    uint8_t head[0x206];

    if (!content || content->type != 'f' || content->size < 64 * 1024)
        return fail(error, "kernel image '/%s' is not a bootable Linux kernel: it is too small", entry->path);
    if (!store_map_pread(files, head, sizeof head, content->data_offset, error))
        return fail_prefix(error, "kernel image '/%s'", entry->path);
    if (memcmp(head + 0x202, "HdrS", 4) != 0)
        return fail(error, "kernel image '/%s' is not a bootable Linux kernel: it has no boot header", entry->path);
    return true;
}

/* Versions of /boot/vmlinuz-*, newest first. */
static bool find_kernels(Tree *tree, StoreMap *files, GPtrArray **ret, GError **error)
{
    static const char prefix[] = "boot/vmlinuz-";
    g_autoptr(GPtrArray) versions = g_ptr_array_new_with_free_func(g_free);

    for (size_t i = 0; i < tree_count(tree); i++) {
        const TreeEntry *entry = tree_nth(tree, i);
        const char *version = entry->path + strlen(prefix);

        if (!g_str_has_prefix(entry->path, prefix) || (entry->type != 'f' && entry->type != 'h') ||
            !version_is_plain(version) || versions->len >= KERNELS_MAX)
            continue;
        if (!check_kernel(tree, files, entry, error))
            return false;
        g_ptr_array_add(versions, g_strdup(version));
    }
    if (versions->len == 0)
        return fail(error, "there is no kernel in /boot: install a kernel package, for example linux-image-cloud-amd64");
    g_ptr_array_sort(versions, newest_first);
    *ret = g_steal_pointer(&versions);
    return true;
}

/* Only an initrd knows file systems by their UUID; a kernel that has none finds a partition by the table's. */
static void put_entry(GString *out, Tree *tree, const char *version, const char *uuid, const char *partition, const char *cmdline)
{
    g_autofree char *initrd = g_strconcat("boot/initrd.img-", version, NULL);
    const TreeEntry *entry = tree_find(tree, initrd);
    bool has_initrd = entry && (entry->type == 'f' || entry->type == 'h');

    g_string_append_printf(out, "menuentry 'Linux %s' {\n    linux /boot/vmlinuz-%s root=%s=%s ro %s\n", version, version,
                           has_initrd ? "UUID" : "PARTUUID", has_initrd ? uuid : partition, cmdline);
    if (has_initrd)
        g_string_append_printf(out, "    initrd /%s\n", initrd);
    g_string_append(out, "}\n");
}

/* The arguments stand in a line of a script: one line, and none of GRUB's own signs. */
bool render_kernel_arguments_check(const char *cmdline, GError **error)
{
    for (const char *p = cmdline; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f || strchr(";|&<>{}$\\'\"`#", *p))
            return fail(error, "the kernel arguments hold the character '%c', which GRUB's configuration cannot carry",
                        isprint((unsigned char)*p) ? *p : '?');
    return true;
}

/* The words of the root's own /etc/kernel/cmdline but for those that this file writes itself: where the root is, and how it is mounted. */
static bool own_cmdline(Tree *tree, StoreMap *files, char **ret, GError **error)
{
    static const char *const ours[] = {"root=", "BOOT_IMAGE=", "initrd=", NULL};
    const TreeEntry *named = tree_find(tree, CMDLINE_FILE), *entry = named ? tree_content_entry(tree, named) : NULL;
    g_autoptr(GBytes) text = NULL;
    g_auto(GStrv) words = NULL;
    g_autoptr(GString) line = g_string_new(NULL);

    if (!entry || entry->type != 'f')
        return true;
    if (!tree_read_file(tree, files, CMDLINE_FILE, CMDLINE_MAX, &text, error))
        return false;
    words = g_strsplit_set(g_bytes_get_data(text, NULL), " \t\r\n", -1);
    for (char **word = words; *word; word++) {
        bool skip = !**word || strcmp(*word, "ro") == 0 || strcmp(*word, "rw") == 0;

        for (const char *const *prefix = ours; *prefix; prefix++)
            skip = skip || g_str_has_prefix(*word, *prefix);
        if (!skip)
            g_string_append_printf(line, "%s%s", line->len ? " " : "", *word);
    }
    if (!render_kernel_arguments_check(line->str, error))
        return fail_prefix(error, "'/%s'", CMDLINE_FILE);
    *ret = g_string_free(g_steal_pointer(&line), FALSE);
    return true;
}

bool render_grub_config(Tree *tree, StoreMap *files, const uint8_t root_uuid[16], const uint8_t partition_uuid[16], const char *cmdline, char **ret,
                        GError **error)
{
    g_autoptr(GPtrArray) versions = NULL;
    g_autofree char *own = NULL;
    g_autoptr(GString) out = NULL;
    char uuid[37], partition[37];

    if (!cmdline && !own_cmdline(tree, files, &own, error))
        return false;
    if (!cmdline)
        cmdline = own ? own : "console=tty0 console=ttyS0,115200";
    if (!render_kernel_arguments_check(cmdline, error) || !find_kernels(tree, files, &versions, error))
        return false;
    digest_uuid_text(root_uuid, uuid);
    digest_uuid_text(partition_uuid, partition);
    out = g_string_new("# Written by kiln for the kernels in /boot; changes here last until the next bake.\n"
                       "serial --unit=0 --speed=115200\n"
                       "terminal_input console serial\n"
                       "terminal_output console serial\n"
                       "set default=0\n"
                       "set timeout=0\n"
                       "set gfxpayload=text\n");
    for (guint i = 0; i < versions->len; i++)
        put_entry(out, tree, versions->pdata[i], uuid, partition, cmdline);
    *ret = g_string_free(g_steal_pointer(&out), FALSE);
    return true;
}
