/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The step "first boot": what a cloud image does when it boots for the first time, and templates count on, done in the guest that never boots.
 *
 *     the root's file system takes all of its partition   (growpart, resize_rootfs)
 *     the seed is applied                                  (cloud-init), in cloud-init's order
 *
 * The guest's cloud-init is not run: what it leaves behind of a boot (keys, logs, marks of what was done, a network) has no place in an image, and
 * differs from one time to the next. Arguments: "grow", "user_data", "vendor_data", "meta_data", "network_config" (there is one), "files" (where all that was read).
 */
#include "provisioner/first-boot.h"

#include "base/error.h"
#include "base/yaml.h"
#include "provisioner/arguments.h"
#include "provisioner/host-file.h"
#include "provisioner/members.h"

#include <string.h>

#define TEXT_MAX ((size_t)8 << 20)
#define CLOUD_CFG "/etc/cloud/cloud.cfg"
#define WRITE_FILES_MAX 4096u

#define FIRST_BOOT_ARGUMENTS(X)                                                                             \
    X(grow, BOOL) X(user_data, TEXT) X(vendor_data, TEXT) X(meta_data, TEXT) X(network_config, BOOL)         \
    X(files, TEXTS)
ARGUMENTS_DEFINE(FIRST_BOOT_ARGUMENTS);

const json_t *first_boot_said(const FirstBoot *boot, const char *key)
{
    const json_t *value = json_object_get(boot->seed->config, key);

    return json_is_null(value) ? NULL : value;
}

bool first_boot_flag(const json_t *value, bool otherwise)
{
    const char *text = json_string_value(value);

    if (json_is_boolean(value))
        return json_is_true(value);
    if (json_is_integer(value))
        return json_integer_value(value) != 0;
    if (!text)
        return otherwise;
    return g_ascii_strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0 || g_ascii_strcasecmp(text, "on") == 0 || g_ascii_strcasecmp(text, "yes") == 0;
}

bool first_boot_sh(const FirstBoot *boot, const char *what, const char *script, const char *const *args, GError **error)
{
    int code = 0;

    return guest_sh(boot->guest, boot->host, script, args, NULL, &code, error) &&
           (code == 0 || fail(error, "the seed: %s: exit status %d", what, code));
}

bool first_boot_read(const FirstBoot *boot, const char *path, char **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;

    *ret = NULL;
    if (!guest_get_bytes(boot->guest, path, TEXT_MAX, &bytes, error))
        return false;
    if (bytes)
        *ret = g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
    return true;
}

bool first_boot_write(const FirstBoot *boot, const char *path, const char *text, uint16_t mode, GError **error)
{
    const GuestFile meta = {.mode = mode, .mtime = boot->host->epoch};

    return guest_put_bytes(boot->guest, path, text, strlen(text), &meta, error);
}

/* --- write_files --- */

/* Octal as text ("0644", "0o644"), a number as it is. */
static uint16_t permissions(const json_t *value)
{
    const char *text = json_string_value(value);
    guint64 mode;

    if (json_is_integer(value))
        return (uint16_t)(json_integer_value(value) & 07777);
    if (text && g_ascii_string_to_unsigned(text + (g_ascii_strncasecmp(text, "0o", 2) == 0 ? 2 : 0), 8, 0, 07777, &mode, NULL))
        return (uint16_t)mode;
    return 0644;
}

static bool put_content(const FirstBoot *boot, const json_t *file, const char *path, GError **error)
{
    static const char *const gz[] = {"gz", "gzip", "gz+base64", "gzip+base64", "gz+b64", "gzip+b64", NULL};
    static const char *const b64[] = {"b64", "base64", "gz+base64", "gzip+base64", "gz+b64", "gzip+b64", NULL};
    const json_t *content = json_object_get(file, "content");
    g_autofree char *said = seed_text(json_object_get(file, "encoding")), *encoding = said ? g_strstrip(g_ascii_strdown(said, -1)) : NULL, *text = seed_text(content);
    const GuestFile meta = {.mode = 0600, .mtime = boot->host->epoch};
    gsize size = json_is_string(content) ? json_string_length(content) : text ? strlen(text) : 0;
    const void *data = json_is_string(content) ? json_string_value(content) : text ? text : "";
    g_autofree guchar *decoded = NULL;
    const char *const args[] = {path, NULL};

    if (encoding && g_strv_contains(b64, encoding))
        data = decoded = g_base64_decode(data, &size);
    if (!encoding || !g_strv_contains(gz, encoding))
        return guest_put_bytes(boot->guest, path, data, size, &meta, error);
    return guest_put_bytes(boot->guest, "/run/kiln-seed.gz", data, size, &meta, error) &&
           first_boot_sh(boot, "write_files", "gzip -dc /run/kiln-seed.gz >\"$1\" && rm /run/kiln-seed.gz", args, error);
}

/* Through a file beside it, so that appending and owners are the guest's own tools' business. */
static bool write_file(const FirstBoot *boot, const json_t *file, GError **error)
{
    static const char script[] = "if [ -n \"$3\" ]; then cat /run/kiln-seed-file >>\"$1\"; else cat /run/kiln-seed-file >\"$1\"; fi &&\n"
                                 "rm /run/kiln-seed-file && chmod \"$4\" \"$1\" && chown \"$2\" \"$1\" && touch -d \"@$SOURCE_DATE_EPOCH\" \"$1\"";
    const char *path = json_string_value(json_object_get(file, "path"));
    g_autofree char *owner = seed_text(json_object_get(file, "owner")), *folder = NULL, *mode = NULL, *what = NULL;

    if (!path || *path != '/') {
        seed_ignore(boot->seed, "write_files without an absolute path");
        return true;
    }
    if (json_object_get(file, "source") && !json_object_get(file, "content")) {
        seed_ignore(boot->seed, "write_files of %s, which comes from a URL", path);
        return true;
    }
    folder = g_path_get_dirname(path);
    mode = g_strdup_printf("%04o", permissions(json_object_get(file, "permissions")));
    what = g_strdup_printf("write_files '%s'", path);
    return boot->guest->ops->mkdir(boot->guest, folder, NULL, error) && put_content(boot, file, "/run/kiln-seed-file", error) &&
           first_boot_sh(boot, what, script,
                         (const char *const[]){path, owner ? owner : "root:root", first_boot_flag(json_object_get(file, "append"), false) ? "append" : "", mode, NULL},
                         error);
}

static bool write_files(FirstBoot *boot, bool deferred, GError **error)
{
    const json_t *list = first_boot_said(boot, "write_files"), *file;
    unsigned count = 0;
    size_t i;

    if (json_array_size(list) > WRITE_FILES_MAX)
        return fail(error, "the seed writes more than %u files", WRITE_FILES_MAX);
    json_array_foreach (list, i, file)
        if (first_boot_flag(json_object_get(file, "defer"), false) == deferred) {
            if (!write_file(boot, file, error))
                return false;
            count++;
        }
    if (count)
        g_ptr_array_add(boot->done, g_strdup_printf("%u file%s", count, count == 1 ? "" : "s"));
    return true;
}

/* --- programs --- */

/* On the step's tmpfs. As with cloud-init a script that fails is told of, and that is all. */
static bool run_script(FirstBoot *boot, const char *what, const char *text, GError **error)
{
    static const char path[] = "/run/kiln-seed-script";
    int code = 0;

    if (!first_boot_write(boot, path, text, 0700, error) || !guest_sh(boot->guest, boot->host, path, NULL, NULL, &code, error) ||
        !boot->guest->ops->remove(boot->guest, path, error))
        return false;
    if (code != 0) {
        g_autofree char *line = g_strdup_printf("seed: %s exited with %d; cloud-init goes on, too", what, code);

        boot->host->say(line, true, boot->host->arg);
    }
    g_ptr_array_add(boot->done, g_strdup(what));
    return true;
}

static bool run_commands(FirstBoot *boot, const char *key, GError **error)
{
    const json_t *commands = first_boot_said(boot, key);
    g_autofree char *script = commands ? seed_script(commands) : NULL;

    return !script || run_script(boot, key, script, error);
}

static bool run_scripts(FirstBoot *boot, const GPtrArray *scripts, const char *what, GError **error)
{
    for (guint i = 0; i < scripts->len; i++)
        if (!run_script(boot, what, scripts->pdata[i], error))
            return false;
    return true;
}

/* --- the whole --- */

static bool add_guest_config(FirstBoot *boot, const char *path, GError **error)
{
    g_autofree char *text = NULL;
    g_autoptr(json_t) own = NULL;
    g_autoptr(GError) problem = NULL;

    if (!first_boot_read(boot, path, &text, error))
        return false;
    if (!text || !yaml_parse(text, strlen(text), path, &own, &problem) || !json_is_object(own))
        return true; /* cloud-init goes on without one that it cannot read, too */
    seed_merge(boot->config, own);
    return true;
}

/* The guest's own settings: its default user is one of them. */
static bool read_guest_config(FirstBoot *boot, GError **error)
{
    g_auto(GStrv) names = NULL;
    char type = 0;

    if (!add_guest_config(boot, CLOUD_CFG, error) || !guest_type(boot->guest, CLOUD_CFG ".d", &type, error) ||
        (type == 'd' && !boot->guest->ops->list(boot->guest, CLOUD_CFG ".d", &names, error)))
        return false;
    for (char **name = names; name && *name; name++) {
        g_autofree char *path = g_build_filename(CLOUD_CFG ".d", *name, NULL);

        if (g_str_has_suffix(*name, ".cfg") && !add_guest_config(boot, path, error))
            return false;
    }
    seed_merge(boot->config, boot->seed->config);
    return true;
}

static bool apply(FirstBoot *boot, GError **error)
{
    return run_scripts(boot, boot->seed->boothooks, "a boothook", error) && run_commands(boot, "bootcmd", error) && write_files(boot, false, error) &&
           first_boot_names(boot, error) && first_boot_users(boot, error) && first_boot_clock_and_language(boot, error) && first_boot_passwords(boot, error) &&
           first_boot_packages(boot, error) && write_files(boot, true, error) && run_scripts(boot, boot->seed->scripts, "a script", error) &&
           run_commands(boot, "runcmd", error);
}

static void tell(const FirstBoot *boot, const char *before, GPtrArray *texts)
{
    g_autofree char *list = NULL, *line = NULL;

    if (texts->len == 0)
        return;
    g_ptr_array_add(texts, NULL);
    list = g_strjoinv(", ", (char **)texts->pdata);
    line = g_strconcat(before, list, NULL);
    boot->host->say(line, false, boot->host->arg);
}

/* Packer's disk has grown by then, and the file system in it with that. */
static void note_growth(Seed *seed)
{
    const json_t *how = json_object_get(seed->config, "growpart"), *mode = json_object_get(how, "mode");

    if (json_is_false(how) || json_is_false(mode) || g_strcmp0(json_string_value(mode), "off") == 0)
        seed_ignore(seed, "growpart: off (skip_resize_disk = true in the template leaves the disk as it is)");
}

static bool parse_seed(const json_t *args, Seed **ret, GError **error)
{
    g_autofree char *user = argument_text(args, "user_data", NULL), *vendor = argument_text(args, "vendor_data", NULL);
    g_autofree char *meta = argument_text(args, "meta_data", NULL);

    if (!seed_parse(user, vendor, meta, ret, error))
        return false;
    if (argument_bool(args, "grow", false))
        note_growth(*ret);
    if (argument_bool(args, "network_config", false))
        seed_ignore(*ret, "network-config (it was for the machine that Packer boots; the image finds its network when it boots)");
    return true;
}

static bool apply_seed(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_autoptr(GPtrArray) done = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(Seed) seed = NULL;
    FirstBoot boot = {.host = host, .guest = guest, .done = done};
    char type = 0;
    bool ok;

    if (!parse_seed(args, &seed, error) || !guest_type(guest, "/bin/sh", &type, error))
        return false;
    if (!type)
        return fail(error, "the seed cannot be applied: the guest has no /bin/sh");
    boot.seed = seed;
    boot.config = json_object();
    ok = read_guest_config(&boot, error) && apply(&boot, error);
    json_decref(boot.config);
    if (!ok)
        return false;
    tell(&boot, "seed: ", done);
    tell(&boot, "seed: not applied: ", seed->ignored);
    return true;
}

static bool grow(const ProvisionerHost *host, Guest *guest, GError **error)
{
    bool grown = false;

    if (!guest->ops->grow)
        return true;
    if (!guest->ops->grow(guest, &grown, error))
        return false;
    if (grown)
        host->say("the root's file system grew to the size of its partition", false, host->arg);
    return true;
}

static bool first_boot_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    bool seeded = argument_given(args, "user_data") || argument_given(args, "vendor_data") || argument_given(args, "meta_data");

    return (!argument_bool(args, "grow", false) || grow(host, guest, error)) && (!seeded || apply_seed(args, host, guest, error));
}

static bool first_boot_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_autoptr(Seed) seed = NULL;

    return arguments_check(args, argument_specs, ret_argument, error) && parse_seed(args, &seed, error);
}

static bool first_boot_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    g_auto(GStrv) files = argument_texts(args, "files");

    for (char **file = files; *file; file++)
        if (!host_file_add_inputs("seed", *file, host, inputs, error))
            return false;
    return true;
}

static bool first_boot_wants_network(const json_t *args)
{
    g_autoptr(Seed) seed = NULL;

    return parse_seed(args, &seed, NULL) && seed_wants_network(seed);
}

static const ProvisionerOps ops = {
    .type = "first boot",
    .arguments = argument_names,
    .needs_guest = true,
    .wants_network = first_boot_wants_network,
    .check = first_boot_check,
    .inputs = first_boot_inputs,
    .run = first_boot_run,
    .volatile_with_network = true,
};

const ProvisionerOps *provisioner_first_boot(void)
{
    return &ops;
}
