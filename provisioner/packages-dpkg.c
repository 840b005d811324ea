/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays a transaction that the host resolved: dpkg gets the packages in the recorded order, without network and without
 * asking apt a second time.
 *
 * The packages lie on the step's tmpfs while dpkg reads them, so that they never reach the working disk; only a transaction
 * that is too large for memory goes through the guest's own package cache, and is removed from there.
 * Triggers wait until the end, as with apt: one update of the linker's cache for all packages instead of one for each.
 */
#include "base/error.h"
#include "base/units.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/packages-dpkg.h"

#include <string.h>
#include <unistd.h>

#define TMPFS_FOLDER "/run/kiln-packages"
#define DISK_FOLDER "/var/cache/apt/archives/kiln"
#define TMPFS_MAX ((uint64_t)192 << 20)
#define EXTENDED "/var/lib/apt/extended_states"
#define EXTENDED_MAX ((size_t)64 << 20)
#define KEPT_MAX ((size_t)1 << 20)
#define FREE_FILE "/run/kiln-free"
#define FREE_TEXT_MAX ((size_t)4096)
#define GROWTH_ASKED ((int64_t)16 << 20) /* a root that is too small for less fails by itself, and asking costs a moment */

typedef struct Dpkg {
    const ProvisionerHost *host;
    Guest *guest;
    const json_t *transaction;
    const char *const *env;
    const char *folder;
} Dpkg;

static const json_t *install_at(const Dpkg *dpkg, const json_t *number)
{
    return json_array_get(json_object_get(dpkg->transaction, "install"), (size_t)json_integer_value(number));
}

/* dpkg goes by the package's own words, but people read names. */
static char *path_of(const Dpkg *dpkg, size_t number, const json_t *one)
{
    g_autofree char *name = g_strdelimit(g_strdup(json_text(one, "name")), "/:", '_');

    return g_strdup_printf("%s/%zu-%s.deb", dpkg->folder, number, name);
}

static bool put_packages(const Dpkg *dpkg, GError **error)
{
    const GuestFile meta = {.mode = 0644}, folder = {.mode = 0755};
    size_t i;
    json_t *one;

    if (!dpkg->guest->ops->mkdir(dpkg->guest, dpkg->folder, &folder, error))
        return false;
    json_array_foreach (json_object_get(dpkg->transaction, "install"), i, one) {
        g_autofree char *path = path_of(dpkg, i, one);
        Digest digest;
        int fd = -1;
        bool ok;

        if (!digest_parse(json_text(one, "sha256"), &digest))
            return fail(error, "package '%s' has no SHA-256", json_text(one, "name"));
        if (!dpkg->host->open_blob(&digest, &fd, dpkg->host->arg, error))
            return fail_prefix(error, "package '%s'", json_text(one, "name"));
        ok = dpkg->guest->ops->put(dpkg->guest, fd, path, &meta, error);
        (void)close(fd);
        if (!ok)
            return fail_prefix(error, "package '%s'", json_text(one, "name"));
    }
    return true;
}

static uint64_t total_size(const json_t *transaction)
{
    uint64_t sum = 0;
    size_t i;
    json_t *one;

    json_array_foreach (json_object_get(transaction, "install"), i, one)
        sum += (uint64_t)json_integer_value(json_object_get(one, "size"));
    return sum;
}

/* The last words before dpkg gave up name the package and what its script said. */
typedef struct LastWords {
    void (*say)(const char *line, bool is_stderr, void *arg);
    void *arg;
    char *package, *last;
} LastWords;

static void listen(const char *line, bool is_stderr, void *arg)
{
    LastWords *words = arg;
    static const char failing[] = "dpkg: error processing ";

    if (g_str_has_prefix(line, failing) && !words->package)
        words->package = g_strdup(line + strlen(failing));
    else if (*line && !words->package && !g_str_has_prefix(line, "dpkg: ")) {
        g_free(words->last);
        words->last = g_strdup(line);
    }
    words->say(line, is_stderr, words->arg);
}

static bool tell_failure(const LastWords *words, const char *verb, int code, GError **error)
{
    g_autofree char *package = g_strdup(words->package ? words->package : "");
    char *colon = strstr(package, " (--");

    if (colon)
        *colon = '\0';
    if (g_str_has_prefix(package, "package "))
        memmove(package, package + 8, strlen(package + 8) + 1);
    if (*package)
        return fail(error, "dpkg --%s failed for package '%s': %s", verb, package, words->last ? words->last : "no reason given");
    return fail(error, "dpkg --%s failed with exit code %d%s%s", verb, code, words->last ? ": " : "",
                words->last ? words->last : "");
}

/* ucf keeps configuration files of its own kind; it is told the same as dpkg. */
static char **environment_of(const Dpkg *dpkg, bool keep)
{
    char **env = g_strdupv((char **)dpkg->env);

    for (char **one = env; *one && !keep; one++)
        if (strcmp(*one, "UCF_FORCE_CONFFOLD=1") == 0) {
            g_free(*one);
            *one = g_strdup("UCF_FORCE_CONFFNEW=1");
        }
    return env;
}

static bool run_dpkg(const Dpkg *dpkg, const char *verb, GPtrArray *what, GError **error)
{
    const bool keep = strcmp(json_text(dpkg->transaction, "conffiles"), "new") != 0;
    const bool last = what->len == 1 && strcmp(what->pdata[0], "--pending") == 0;
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autofree char *option = g_strconcat("--", verb, NULL);
    g_auto(GStrv) env = environment_of(dpkg, keep);
    LastWords words = {.say = dpkg->host->say, .arg = dpkg->host->arg};
    ProvisionerHost host = *dpkg->host;
    int code = 0;
    bool ok;

    g_ptr_array_add(argv, (void *)"--force-unsafe-io");
    g_ptr_array_add(argv, (void *)(keep ? "--force-confdef" : "--force-confnew"));
    if (keep)
        g_ptr_array_add(argv, (void *)"--force-confold");
    if (!last)
        g_ptr_array_add(argv, (void *)"--no-triggers");
    if (strcmp(verb, "unpack") == 0)
        g_ptr_array_add(argv, (void *)"--auto-deconfigure");
    if (strcmp(verb, "remove") == 0 || strcmp(verb, "purge") == 0)
        g_ptr_array_add(argv, (void *)"--force-depends"); /* apt's order breaks dependencies for a moment */
    g_ptr_array_add(argv, option);
    for (guint i = 0; i < what->len; i++)
        g_ptr_array_add(argv, what->pdata[i]);
    g_ptr_array_add(argv, NULL);
    host.say = listen;
    host.arg = &words;
    ok = guest_sh(dpkg->guest, &host, "exec dpkg \"$@\" 2>&1", (const char *const *)argv->pdata, (const char *const *)env, &code,
                  error);
    if (ok && code != 0)
        ok = tell_failure(&words, verb, code, error);
    g_free(words.package);
    g_free(words.last);
    return ok;
}

static bool run_group(const Dpkg *dpkg, const json_t *group, GError **error)
{
    const char *verb = json_string_value(json_array_get(group, 0));
    g_autoptr(GPtrArray) what = g_ptr_array_new_with_free_func(g_free);

    for (size_t i = 1; i < json_array_size(group); i++) {
        const json_t *one = json_array_get(group, i);

        if (json_is_string(one))
            g_ptr_array_add(what, g_strdup(json_string_value(one)));
        else
            g_ptr_array_add(what, path_of(dpkg, (size_t)json_integer_value(one), install_at(dpkg, one)));
    }
    return run_dpkg(dpkg, verb ? verb : "", what, error);
}

/* All but the last `configure`, which the final one does together with the triggers. */
static bool run_groups(const Dpkg *dpkg, GError **error)
{
    const json_t *groups = json_object_get(dpkg->transaction, "operations");
    size_t count = json_array_size(groups);
    g_autoptr(GPtrArray) pending = g_ptr_array_new();

    for (size_t i = 0; i < count; i++) {
        const json_t *group = json_array_get(groups, i);

        if (i + 1 == count && strcmp(json_string_value(json_array_get(group, 0)), "configure") == 0)
            break;
        if (!run_group(dpkg, group, error))
            return false;
    }
    g_ptr_array_add(pending, (void *)"--pending");
    return count == 0 || run_dpkg(dpkg, "configure", pending, error);
}

/* ---- room ---- */

/* Runs @script in the guest; the number that it writes into FREE_FILE, or @otherwise when that is none. */
static bool ask_number(const Dpkg *dpkg, const char *script, uint64_t otherwise, uint64_t *ret, GError **error)
{
    const char *const none[] = {NULL};
    g_autoptr(GBytes) text = NULL;
    g_autofree char *number = NULL;
    int code = 0;

    if (!guest_sh(dpkg->guest, dpkg->host, script, none, dpkg->env, &code, error) ||
        !guest_get_bytes(dpkg->guest, FREE_FILE, FREE_TEXT_MAX, &text, error))
        return false;
    number = g_strstrip(g_strdup(text ? g_bytes_get_data(text, NULL) : ""));
    if (!g_ascii_string_to_unsigned(number, 10, 0, G_MAXINT64, ret, NULL))
        *ret = otherwise;
    return true;
}

static unsigned new_kernels(const json_t *transaction)
{
    unsigned count = 0;
    size_t i;
    json_t *one;

    json_array_foreach (json_object_get(transaction, "install"), i, one)
        count += !json_object_get(one, "from") && g_str_has_prefix(json_text(one, "name"), "linux-image-") &&
                 g_ascii_isdigit(json_text(one, "name")[strlen("linux-image-")]);
    return count;
}

/* The last line of df: device, blocks, used, free. */
#define FREE_SCRIPT(folder) "set -- $(df -Pk " folder " 2>/dev/null | tail -n 1); echo $((${4} * 1024)) > " FREE_FILE " 2>/dev/null; :"

/* As much as the largest kernel that is there takes, with its initramfs twice: a new one is written beside the old. */
static const char kernel_script[] =
    "sum=0; for name in vmlinuz System.map config initrd.img initrd.img; do\n"
    "size=$(stat -c %s /boot/$name-* 2>/dev/null | sort -n | tail -n 1); sum=$((sum + ${size:-0}))\n"
    "done; echo $sum > " FREE_FILE;

static bool check_boot(const Dpkg *dpkg, unsigned kernels, GError **error)
{
    uint64_t available, needed;
    g_autofree char *has = NULL, *needs = NULL;

    if (!ask_number(dpkg, kernel_script, 0, &needed, error) || !ask_number(dpkg, FREE_SCRIPT("/boot"), G_MAXUINT64, &available, error))
        return false;
    if (available >= kernels * needed)
        return true;
    has = units_format_size(available);
    needs = units_format_size(kernels * needed);
    return fail(error, "/boot is too full for a new kernel: it has %s free, and %s are needed; remove older kernels first or give the disk a "
                       "larger /boot", has, needs);
}

static bool check_root(const Dpkg *dpkg, uint64_t growth, GError **error)
{
    uint64_t available;
    g_autofree char *has = NULL, *needs = NULL;

    if (!ask_number(dpkg, FREE_SCRIPT("/"), G_MAXUINT64, &available, error))
        return false;
    if (available >= growth)
        return true;
    has = units_format_size(available);
    needs = units_format_size(growth);
    return fail(error, "the root is too full for the packages: it has %s free, and %s are needed; give the source a larger size", has, needs);
}

/*
 * A root that fills up in the middle leaves packages half unpacked, and a /boot that does leaves a machine without an
 * initramfs, which nobody sees before it boots. So both are measured before the first package is touched.
 */
static bool check_room(const Dpkg *dpkg, GError **error)
{
    int64_t growth = json_integer_value(json_object_get(dpkg->transaction, "growth"));
    unsigned kernels = new_kernels(dpkg->transaction);

    return (growth < GROWTH_ASKED || check_root(dpkg, (uint64_t)growth, error)) && (kernels == 0 || check_boot(dpkg, kernels, error));
}

/* ---- answers, marks, what was kept ---- */

/* true is an answer, too. */
static char *answer(const json_t *value)
{
    if (json_is_string(value) || json_is_null(value))
        return g_strdup(json_is_string(value) ? json_string_value(value) : "");
    return json_dumps(value, JSON_ENCODE_ANY);
}

static bool set_answers(const Dpkg *dpkg, GError **error)
{
    static const char path[] = "/run/kiln-debconf";
    const GuestFile meta = {.mode = 0600};
    g_autoptr(GString) text = g_string_new(NULL);
    const char *const args[] = {path, NULL};
    json_t *answers = json_object_get(dpkg->transaction, "debconf"), *value;
    const char *key;
    int code = 0;

    json_object_foreach (answers, key, value) {
        g_autofree char *said = answer(value);

        g_string_append_printf(text, "%s %s\n", key, said);
    }
    if (text->len == 0)
        return true;
    if (!guest_put_bytes(dpkg->guest, path, text->str, text->len, &meta, error) ||
        !guest_sh(dpkg->guest, dpkg->host, "exec debconf-set-selections \"$1\"", args, dpkg->env, &code, error))
        return false;
    return code == 0 || fail(error, "debconf: debconf-set-selections refuses the answers (exit code %d)", code);
}

/* Stanzas of extended_states without those of @names. */
static void drop_marks(GString *text, GHashTable *names)
{
    g_auto(GStrv) stanzas = g_strsplit(text->str, "\n\n", -1);

    g_string_truncate(text, 0);
    for (char **stanza = stanzas; *stanza; stanza++) {
        const char *start = strstr(*stanza, "Package: ");
        g_autofree char *name = start ? g_strndup(start + 9, strcspn(start + 9, "\n")) : NULL;

        g_strstrip(*stanza);
        if (name && !g_hash_table_contains(names, name))
            g_string_append_printf(text, "%s\n\n", *stanza);
    }
}

/* What apt would have noted: who came only because somebody else needs it. */
static bool write_marks(const Dpkg *dpkg, GError **error)
{
    const GuestFile meta = {.mode = 0644};
    g_autoptr(GBytes) before = NULL;
    g_autoptr(GString) text = NULL;
    g_autoptr(GHashTable) gone = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    static const char *const lists[] = {"remove", "install"};
    size_t i;
    json_t *one;

    if (!guest_get_bytes(dpkg->guest, EXTENDED, EXTENDED_MAX, &before, error))
        return false;
    text = g_string_new(before ? g_bytes_get_data(before, NULL) : "");
    for (size_t l = 0; l < G_N_ELEMENTS(lists); l++)
        json_array_foreach (json_object_get(dpkg->transaction, lists[l]), i, one)
            if (l == 0 || !json_object_get(one, "from"))
                g_hash_table_add(gone, g_strndup(json_text(one, "name"), strcspn(json_text(one, "name"), ":")));
    json_array_foreach (json_object_get(dpkg->transaction, "manual"), i, one)
        g_hash_table_add(gone, g_strdup(json_string_value(one)));
    drop_marks(text, gone);
    json_array_foreach (json_object_get(dpkg->transaction, "install"), i, one)
        if (json_is_true(json_object_get(one, "auto")))
            g_string_append_printf(text, "Package: %.*s\nArchitecture: %s\nAuto-Installed: 1\n\n",
                                   (int)strcspn(json_text(one, "name"), ":"), json_text(one, "name"),
                                   json_text(one, "architecture"));
    if (before ? strcmp(text->str, g_bytes_get_data(before, NULL)) == 0 : text->len == 0)
        return true;
    return dpkg->guest->ops->mkdir(dpkg->guest, "/var/lib/apt", NULL, error) &&
           guest_put_bytes(dpkg->guest, EXTENDED, text->str, text->len, &meta, error);
}

/* A kept configuration file is the one thing of an upgrade that nobody sees until it hurts: each is told. */
static bool tell_kept(const Dpkg *dpkg, GError **error)
{
    /* By the time of the rename: dpkg gives the file the time it has in its package. */
    static const char script[] = "find /etc \\( -name '*.dpkg-dist' -o -name '*.ucf-dist' \\) -cnewer /run/kiln-packages-start "
                                 "> /run/kiln-kept 2>/dev/null; :";
    g_autoptr(GBytes) kept = NULL;
    g_auto(GStrv) lines = NULL;
    const char *const none[] = {NULL};
    int code = 0;

    if (!guest_sh(dpkg->guest, dpkg->host, script, none, dpkg->env, &code, error) ||
        !guest_get_bytes(dpkg->guest, "/run/kiln-kept", KEPT_MAX, &kept, error))
        return false;
    lines = g_strsplit(kept ? g_bytes_get_data(kept, NULL) : "", "\n", -1);
    for (char **line = lines; *line; line++)
        if (g_str_has_suffix(*line, "-dist")) {
            g_autofree char *said = g_strdup_printf("kept the guest's own %.*s; the package's is %s",
                                                    (int)(strrchr(*line, '.') - *line), *line, *line);
            dpkg->host->say(said, true, dpkg->host->arg);
        }
    return true;
}

bool packages_dpkg_run(const ProvisionerHost *host, Guest *guest, const char *const *env, GError **error)
{
    const json_t *transaction = host->transaction;
    Dpkg dpkg = {.host = host, .guest = guest, .transaction = transaction, .env = env,
                 .folder = total_size(transaction) > TMPFS_MAX ? DISK_FOLDER : TMPFS_FOLDER};
    bool upgrades = false;
    size_t i;
    json_t *one;

    json_array_foreach (json_object_get(transaction, "install"), i, one)
        upgrades = upgrades || json_object_get(one, "from");
    if (!check_room(&dpkg, error) || !put_packages(&dpkg, error) || !set_answers(&dpkg, error) ||
        (upgrades && !guest_put_bytes(guest, "/run/kiln-packages-start", "", 0, NULL, error)) ||
        !run_groups(&dpkg, error) || !write_marks(&dpkg, error) || (upgrades && !tell_kept(&dpkg, error)))
        return false;
    return guest->ops->remove(guest, dpkg.folder, error);
}
