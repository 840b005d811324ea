/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packer's qemu source with disk_image = true: a vendor's disk image, grown to disk_size, with its seed applied, and the file that Packer would leave.
 *
 *   iso_url, iso_urls -> checked against iso_checksum -> the disk source's own way (source-disk.c) -> "first boot" -> the template's steps
 *                                                                                                  -> output_directory/vm_name
 *
 * An installer's ISO would have to boot, so disk_image = false is refused.
 */
#include "baker/source-common.h"
#include "baker/source-packer.h"
#include "baker/source-seed.h"

#include "base/error.h"
#include "base/file.h"
#include "base/http.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <string.h>

#define SUMS_MAX ((size_t)16 << 20)
#define SIZE_DEFAULT "40960M"
#define MEBI ((uint64_t)1 << 20)
#define DISK_MAX ((uint64_t)16 << 40)

#define QEMU_SCHEMA(X)                                                                                       \
    PACKER_CORE(X) PACKER_COMMUNICATOR(X)                                                                    \
    X(http_directory, TEXT, true) X(http_content, MAP, true) X(http_port_min, NUMBER, false) X(http_port_max, NUMBER, false) X(http_bind_address, TEXT, false)             \
    X(http_interface, TEXT, false) X(http_network_protocol, TEXT, false) X(iso_checksum, TEXT, true) X(iso_url, TEXT, true) X(iso_urls, TEXTS, true)                       \
    X(iso_target_path, TEXT, false) X(iso_target_extension, TEXT, false) X(iso_skip_cache, BOOL, true) X(boot_keygroup_interval, TEXT, false)                              \
    X(boot_key_interval, TEXT, false) X(boot_wait, TEXT, false) X(boot_command, TEXTS, false) X(boot_steps, LISTS, false) X(disable_vnc, BOOL, false)                      \
    X(shutdown_command, TEXT, true) X(shutdown_timeout, TEXT, false) X(host_port_min, NUMBER, false) X(host_port_max, NUMBER, false) X(skip_nat_mapping, BOOL, false)     \
    X(ssh_host_port_min, NUMBER, false) X(ssh_host_port_max, NUMBER, false) X(floppy_files, TEXTS, true) X(floppy_dirs, TEXTS, true) X(floppy_content, MAP, true)          \
    X(floppy_label, TEXT, true) X(cd_files, TEXTS, true) X(cd_content, MAP, true) X(cd_label, TEXT, true) X(accelerator, TEXT, false)                                      \
    X(disk_additional_size, TEXTS, false) X(cpus, NUMBER, false) X(sockets, NUMBER, false) X(cores, NUMBER, false) X(threads, NUMBER, false) X(cpu_model, TEXT, false)     \
    X(efi_boot, BOOL, false) X(efi_firmware_code, TEXT, false) X(efi_firmware_vars, TEXT, false) X(efi_drop_efivars, BOOL, false) X(firmware, TEXT, false)                 \
    X(use_pflash, BOOL, false) X(vtpm, BOOL, false) X(use_tpm1, BOOL, false) X(tpm_device_type, TEXT, false) X(disk_interface, TEXT, false) X(disk_size, TEXT, true)                                \
    X(skip_resize_disk, BOOL, true) X(disk_cache, TEXT, false) X(disk_discard, TEXT, false) X(disk_detect_zeroes, TEXT, false) X(skip_compaction, BOOL, true)              \
    X(disk_compression, BOOL, true) X(format, TEXT, true) X(headless, BOOL, false) X(disk_image, BOOL, true) X(use_backing_file, BOOL, true)                               \
    X(machine_type, TEXT, false) X(memory, NUMBER, false) X(net_device, TEXT, false) X(net_bridge, TEXT, false) X(output_directory, TEXT, true)                            \
    X(qemuargs, LISTS, true) X(qemu_img_args, BLOCK, false) X(qemu_binary, TEXT, false) X(qmp_enable, BOOL, false) X(qmp_socket_path, TEXT, false)                         \
    X(use_default_display, BOOL, false) X(display, TEXT, false) X(vga, TEXT, false) X(vnc_bind_address, TEXT, false) X(vnc_use_password, BOOL, false)                      \
    X(vnc_password, TEXT, false) X(vnc_port_min, NUMBER, false) X(vnc_port_max, NUMBER, false) X(vm_name, TEXT, true) X(cdrom_interface, TEXT, false)                      \
    X(run_once, BOOL, false)
PACKER_SCHEMA(QEMU_SCHEMA);

static const PackerReason reasons[] = {
    {" disk_additional_size ", "the image is one disk, and only that is written"},
    {" efi_drop_efivars ", "no efivars.fd is written beside the disk"},
    {" iso_target_path iso_target_extension ", "what was downloaded is kept in the store"},
    {" qemu_img_args ", "the file is not written by qemu-img"},
    {0},
};

/* --- check --- */

typedef struct Words {
    const char *argument, *words; /* with a blank on both sides */
} Words;

static const Words words[] = {
    {"format", " qcow2 raw "},
    {"accelerator", " none kvm tcg xen hax hvf whpx "},
    {"disk_interface", " ide sata scsi sd virtio virtio-scsi "},
    {"disk_cache", " writethrough writeback none unsafe directsync "},
    {"disk_discard", " unmap ignore "},
    {"disk_detect_zeroes", " unmap on off "},
};

static bool check_words(const json_t *args, const char **ret_argument, GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        g_autofree char *text = packer_raw(args, words[i].argument), *padded = NULL;

        if (!text || !*text)
            continue;
        padded = g_strdup_printf(" %s ", text);
        *ret_argument = words[i].argument;
        if (!strstr(words[i].words, padded))
            return fail_code(error, KILN_ERROR_USAGE, "'%s' is one of%s, not \"%s\"", words[i].argument, words[i].words, text);
    }
    return true;
}

/* "10G", "40960M", "5000": mebibytes where no unit is said; whole mebibytes in any case. */
static bool parse_disk_size(const json_t *args, uint64_t *ret, bool *ret_given, GError **error)
{
    g_autofree char *text = packer_raw(args, "disk_size"), *whole = NULL;
    uint64_t bytes;

    *ret_given = text && *text && strcmp(text, "0") != 0;
    if (!*ret_given)
        return units_parse_size(SIZE_DEFAULT, ret, error);
    if (!g_regex_match_simple("^[0-9]{1,15}[bkmgt]?$", text, G_REGEX_CASELESS | G_REGEX_DOLLAR_ENDONLY, 0))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no disk size; write \"20G\", or a number of megabytes", text);
    whole = g_strconcat(text, g_ascii_isdigit(text[strlen(text) - 1]) ? "M" : "", NULL);
    if (!units_parse_size(whole, &bytes, NULL) || bytes > DISK_MAX)
        return fail_code(error, KILN_ERROR_USAGE, "a disk has at most 16T, not %s", text);
    *ret = (bytes + MEBI - 1) / MEBI * MEBI;
    return true;
}

static bool check_iso(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *sum = packer_raw(args, "iso_checksum");
    bool one = packer_given(args, "iso_url"), several = json_array_size(json_object_get(args, "iso_urls")) > 0;
    SourceChecksum checksum;

    *ret_argument = one ? "iso_url" : NULL;
    if (one && several)
        return fail_code(error, KILN_ERROR_USAGE, "'iso_url' and 'iso_urls' cannot both stand here");
    if (!one && !several)
        return fail_code(error, KILN_ERROR_USAGE, "one of 'iso_url' and 'iso_urls' must be given");
    *ret_argument = NULL;
    if (packer_bool(args, "iso_skip_cache"))
        return true;
    if (!packer_given(args, "iso_checksum"))
        return fail_code(error, KILN_ERROR_USAGE, "'iso_checksum' must be given; \"none\" trusts whoever answers");
    *ret_argument = "iso_checksum";
    return g_str_has_prefix(sum, "file:") || strstr(sum, "{{") || source_checksum_parse(sum, &checksum, error);
}

static bool check_http(const json_t *args, const char **ret_argument, GError **error)
{
    if (packer_given(args, "http_directory") && json_object_size(json_object_get(args, "http_content")) > 0) {
        *ret_argument = "http_content";
        return fail_code(error, KILN_ERROR_USAGE, "'http_content' and 'http_directory' cannot both stand here");
    }
    return true;
}

static bool check_disk(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *format = packer_raw(args, "format");
    uint64_t size;
    bool given;

    *ret_argument = "disk_size";
    if (!parse_disk_size(args, &size, &given, error))
        return false;
    *ret_argument = "use_backing_file";
    if (packer_bool(args, "use_backing_file") && (!packer_bool(args, "disk_image") || g_strcmp0(format, "raw") == 0))
        return fail_code(error, KILN_ERROR_USAGE, "'use_backing_file' needs disk_image = true and format = \"qcow2\"");
    *ret_argument = "skip_resize_disk";
    if (packer_bool(args, "skip_resize_disk") && !packer_bool(args, "disk_image"))
        return fail_code(error, KILN_ERROR_USAGE, "'skip_resize_disk' needs disk_image = true");
    *ret_argument = json_object_get(args, "disk_image") ? "disk_image" : NULL;
    return packer_bool(args, "disk_image") ||
           fail_code(error, KILN_ERROR_USAGE,
                     "this source boots an installer's ISO, and nothing boots in a bake: with disk_image = true 'iso_url' is a disk image, and with -rebase "
                     "'qemu.NAME=image:REF' (or =FILE) its steps are baked on another base");
}

static bool qemu_check(const json_t *args, const char **ret_argument, GError **error)
{
    return packer_check(args, arguments, ret_argument, error) && check_iso(args, ret_argument, error) && check_words(args, ret_argument, error) &&
           check_http(args, ret_argument, error) && packer_check_communicator(args, "ssh", ret_argument, error) && check_disk(args, ret_argument, error);
}

/* --- identify --- */

/* The file of sums: at a URL (asked every time; --offline and -pull=never take the last answer), or beside the template. */
static bool load_sums(const SourceContext *context, const char *url, GBytes **ret, GError **error)
{
    g_autofree char *key = g_strconcat("sums:", url, NULL), *known = NULL, *folder = NULL, *path = NULL, *text = NULL;
    auto_fd int dirfd = -1;
    gsize size;
    bool ok;

    if (!strstr(url, "://")) {
        path = source_find_file(context, url);
        return file_load(AT_FDCWD, path, SUMS_MAX, ret, error);
    }
    if (source_keeps_still(context)) {
        if (!store_memo_get(context->store, key, &known, error))
            return false;
        if (!known)
            return fail(error, "'%s' was not read yet, and %s forbids to fetch it", url, source_keeps_still(context));
        *ret = g_bytes_new(known, strlen(known));
        return true;
    }
    if (!store_make_tmpdir(context->store, &folder, error))
        return false;
    dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ok = http_download(&(HttpDownload){.url = url, .max_size = SUMS_MAX}, dirfd, "sums", error) && file_load(dirfd, "sums", SUMS_MAX, ret, error);
    (void)file_remove_tree(AT_FDCWD, folder, NULL);
    if (!ok)
        return false;
    text = g_strndup(g_bytes_get_data(*ret, &size), g_bytes_get_size(*ret));
    return !g_utf8_validate(text, -1, NULL) || store_memo_put(context->store, key, text, NULL, NULL, error);
}

/* The last part of a URL's path. */
static char *file_name(const char *url)
{
    g_autofree char *path = g_strndup(url, strcspn(url, "?#"));

    return g_path_get_basename(path);
}

static bool find_checksum(const SourceContext *context, const json_t *args, const char *url, SourceChecksum *ret, GError **error)
{
    g_autofree char *text = NULL, *name = file_name(url);
    g_autoptr(GBytes) sums = NULL;
    const char *from;
    bool found;

    *ret = (SourceChecksum){0};
    if (packer_bool(args, "iso_skip_cache"))
        return true;
    if (!packer_text(context, args, "iso_checksum", "none", &text, error))
        return false;
    if (!g_str_has_prefix(text, "file:"))
        return source_checksum_parse(text, ret, error);
    from = text + strlen("file:");
    if (g_str_has_prefix(from, "file://") && from[strlen("file://")] != '/')
        from += strlen("file://"); /* Packer's file://./path */
    else if (g_str_has_prefix(from, "//") && from[2] == '.')
        from += 2;
    if (!load_sums(context, from, &sums, error))
        return fail_prefix(error, "iso_checksum");
    source_checksum_find(g_bytes_get_data(sums, NULL), g_bytes_get_size(sums), name, ret, &found);
    return found || fail(error, "iso_checksum: '%s' has no checksum of '%s'", from, name);
}

/* Those of iso_urls, or the one. */
static bool list_urls(const SourceContext *context, const json_t *args, GPtrArray *urls, GError **error)
{
    g_autofree char *one = packer_raw(args, "iso_url");
    json_t *item;
    size_t i;
    char *text;

    if (one && *one) {
        if (!packer_expand(context, one, &text, error))
            return false;
        g_ptr_array_add(urls, text);
    }
    json_array_foreach (json_object_get(args, "iso_urls"), i, item) {
        if (!json_is_string(item))
            continue;
        if (!packer_expand(context, json_string_value(item), &text, error))
            return false;
        g_ptr_array_add(urls, text);
    }
    for (i = 0; i < urls->len; i++) { /* file://./path and file://path are relative ones in Packer */
        const char *url = urls->pdata[i], *path = g_str_has_prefix(url, "file://") ? url + strlen("file://") : NULL;

        if (path && *path != '/' && !g_str_has_prefix(path, "localhost/")) {
            text = g_strdup(path);
            g_free(urls->pdata[i]);
            urls->pdata[i] = text;
        }
    }
    return true;
}

/* The first that gives the file. */
static bool find_image(const SourceContext *context, const json_t *args, char **ret_from, Digest *ret, GError **error)
{
    g_autoptr(GPtrArray) urls = g_ptr_array_new_with_free_func(g_free);

    if (!list_urls(context, args, urls, error))
        return false;
    for (guint i = 0; i < urls->len; i++) {
        const char *url = urls->pdata[i];
        g_autoptr(GError) problem = NULL;
        SourceChecksum wanted;

        if (find_checksum(context, args, url, &wanted, &problem) && source_disk_identify(context, url, &wanted, ret, &problem)) {
            *ret_from = g_strdup(url);
            return true;
        }
        if (i + 1 == urls->len || error_exit_status(problem) == 130) {
            g_propagate_error(error, g_steal_pointer(&problem));
            return false;
        }
        log_warning("%s; the next of iso_urls is tried", problem->message);
    }
    return fail(error, "iso_urls is empty");
}

/* Bytes the disk is to have; 0: as it is. Packer's default is no reason to refuse a larger image. */
static bool wanted_size(const SourceContext *context, const json_t *args, const Digest *file, uint64_t *ret, GError **error)
{
    uint64_t size, now;
    bool given;

    *ret = 0;
    if (packer_bool(args, "skip_resize_disk"))
        return true;
    if (!parse_disk_size(args, &size, &given, error) || !source_disk_size(context, file, &now, error))
        return false;
    if (now == 0 || size > now || (given && size < now))
        *ret = size;
    return true;
}

static bool qemu_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    g_autofree char *from = NULL;
    Digest digest;
    uint64_t size;

    if (!find_image(context, args, &from, &digest, error) || !source_disk_import(context, from, &digest, error) ||
        !wanted_size(context, args, &digest, &size, error))
        return false;
    *ret_identity = source_disk_identity("disk", &digest, size);
    return true;
}

static bool qemu_prepare(const SourceContext *context, const json_t *args, const json_t *identity, SourceState *ret, GError **error)
{
    g_autoptr(GPtrArray) urls = g_ptr_array_new_with_free_func(g_free);

    packer_tell_unused(context, args, arguments, "nothing boots", reasons);
    return list_urls(context, args, urls, error) && urls->len > 0 && source_disk_prepare(context, urls->pdata[0], identity, ret, error);
}

static bool qemu_first_boot(const SourceContext *context, const json_t *args, json_t **ret, GError **error)
{
    if (!source_seed(context, args, ret, error))
        return false;
    if (packer_bool(args, "skip_resize_disk"))
        return true;
    if (!*ret)
        *ret = json_object();
    json_object_set_new(*ret, "grow", json_true());
    return true;
}

/* --- shutdown_command --- */

/* Does nothing else than switching the machine off; a password that is piped into sudo may be any word. */
static bool only_shuts_down(const char *command)
{
    static const char *const words[] = {"sudo", "su", "sh", "bash", "sbin", "bin", "usr", "env", "shutdown", "poweroff", "halt", "reboot", "systemctl", "init",
                                        "now", "nohup", "sync", "true", "root", "exit", "sleep", NULL};
    g_autoptr(GRegex) echo = g_regex_new("\\b(echo|printf)\\s+(\"[^\"]*\"|'[^']*'|[^\\s|;&]+)\\s*\\|", 0, 0, NULL), option = g_regex_new("(?<!\\S)[-+][^\\s;&|]*", 0, 0, NULL);
    g_autofree char *silent = g_regex_replace_literal(echo, command, -1, 0, " ", 0, NULL), *plain = silent ? g_regex_replace_literal(option, silent, -1, 0, " ", 0, NULL) : NULL;
    g_auto(GStrv) parts = g_strsplit_set(plain ? plain : command, " \t\n;&|\"'()/", -1);

    for (char **part = parts; *part; part++)
        if (**part && strspn(*part, "0123456789") != strlen(*part) && !g_strv_contains(words, *part))
            return false;
    return true;
}

/* Packer waits for the machine to be off, and for no exit status: what is to be off already fails. */
static bool qemu_last_script(const SourceContext *context, const json_t *args, char **ret, GError **error)
{
    g_autofree char *command = NULL;

    if (!packer_text(context, args, "shutdown_command", NULL, &command, error))
        return false;
    *ret = !command || only_shuts_down(command)
               ? NULL
               : g_strdup_printf("( %s\n"
                                 ") || echo 'it ended with an error; Packer would not know'",
                                 command);
    return true;
}

/* --- the file that Packer leaves --- */

static bool qemu_deliver(const SourceContext *context, const json_t *args, const GPtrArray *images, GPtrArray *files, GError **error)
{
    g_autofree char *folder_name = g_strconcat("output-", context->build_name, NULL), *file_name = g_strconcat("packer-", context->build_name, NULL);
    g_autofree char *folder = NULL, *name = NULL, *format = NULL, *path = NULL;
    OutputFile file = {.image = store_images_find(images, "disk")};

    if (!file.image)
        return true;
    if (!packer_text(context, args, "output_directory", folder_name, &folder, error) || !packer_text(context, args, "vm_name", file_name, &name, error) ||
        !packer_text(context, args, "format", "qcow2", &format, error))
        return false;
    if (strchr(name, '/'))
        return fail(error, "'vm_name' is the name of a file, not a path: \"%s\"", name);
    path = g_build_filename(folder, name, NULL);
    file.path = path;
    file.form = strcmp(format, "raw") == 0 ? OUTPUT_RAW : OUTPUT_QCOW2;
    if (!output_file_write(context->store, &file, NULL, error))
        return false;
    g_ptr_array_add(files, g_steal_pointer(&path));
    return true;
}

const SourceOps source_qemu_ops = {
    .type = "qemu",
    .arguments = argument_names,
    .check = qemu_check,
    .identify = qemu_identify,
    .prepare = qemu_prepare,
    .first_boot = qemu_first_boot,
    .last_script = qemu_last_script,
    .deliver = qemu_deliver,
    .default_output = "disk",
    .packers = true,
};
