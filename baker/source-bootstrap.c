/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bootstrap source: a root made from a distribution's packages.
 *
 * Identity. The suite's release files are fetched at every bake (tenths of a second); only when one changed, or the
 * request is new, mmdebstrap resolves again (seconds). The identity names the resolved packages and versions, so an
 * archive that changed elsewhere costs nobody a new root.
 *
 * Time. SOURCE_DATE_EPOCH of the bootstrap is the template's or the environment's, else the date of the suite's own
 * release file, which for a stable suite moves only with a point release. Nothing in the root is younger.
 *
 * Sharing. The bare root is remembered without NAME: every template with the same packages starts from one root, and
 * only the few files below (finish_root) and the rendering are its own.
 */
#include "baker/source-apt.h"
#include "baker/source-common.h"
#include "baker/source-mmdebstrap.h"

#include "base/error.h"
#include "base/file.h"
#include "base/http.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"
#include "base/units.h"
#include "provisioner/provisioner.h"

#include <fcntl.h>
#include <string.h>

#define BARE_ROOT_RECIPE 1 /* raised when what is kept of mmdebstrap's tar changes */
#define FINISH_RECIPE 1    /* raised when what kiln adds changes */
#define RELEASE_MAX (8 << 20)
#define PACKAGES_MAX 4096

static const char *const bootstrap_arguments[] = {"suite",        "size",       "packages", "sources", "variant",
                                                  "architecture", "components", "grow", "kernel_arguments", NULL};
static const char *const string_arguments[] = {"suite", "variant", "architecture", "kernel_arguments", NULL};
static const char *const variants[] = {"essential", "apt",       "required", "minbase",
                                       "buildd",    "important", "standard", NULL};
static const char *const base_packages[] = {"systemd-sysv", "linux-image-cloud-amd64", "udev", "netbase",
                                            "ca-certificates", NULL};

/* A word for mmdebstrap's command line and for apt: no option, no pattern ("?essential"), no second word. */
static bool plain_word(const char *text, const char *extra)
{
    if (!g_ascii_isalnum(text[0]) || strlen(text) > 200)
        return false;
    for (const char *c = text; *c; c++)
        if (!g_ascii_isalnum(*c) && !strchr(extra, *c))
            return false;
    return true;
}

static bool check_words(const json_t *args, const char *name, const char *extra, const char *what, GError **error)
{
    g_auto(GStrv) words = NULL;

    if (!json_get_strings(args, name, &words, error))
        return false;
    if (g_strv_length(words) > PACKAGES_MAX)
        return fail_code(error, KILN_ERROR_USAGE, "%s has more than %d entries", name, PACKAGES_MAX);
    for (char **word = words; *word; word++)
        if (!plain_word(*word, extra))
            return fail_code(error, KILN_ERROR_USAGE, "'%s' is not the name of a %s", *word, what);
    return true;
}

static char **strings_of(const json_t *args, const char *key)
{
    char **words = NULL;

    if (!json_get_strings(args, key, &words, NULL))
        return g_new0(char *, 1); /* bootstrap_check has refused it already */
    return words;
}

static const char *string_of(const json_t *args, const char *key, const char *otherwise)
{
    const char *text = otherwise;

    return json_get_string(args, key, otherwise, &text, NULL) && text ? text : otherwise;
}

static char **source_lines(const json_t *args, GError **error)
{
    const char *suite = string_of(args, "suite", "");
    g_auto(GStrv) components = strings_of(args, "components");
    g_auto(GStrv) given = strings_of(args, "sources");
    const char *const *wanted = components[0] ? (const char *const *)components : NULL;
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);

    if (!given[0]) {
        g_autoptr(GPtrArray) entries = apt_read_folder("/etc/apt");

        return apt_lines_for_suite(entries, suite, wanted);
    }
    for (char **text = given; *text; text++) {
        char *line;

        if (!apt_line_from_template(*text, suite, wanted, &line, error))
            return NULL;
        g_ptr_array_add(lines, line);
    }
    g_ptr_array_add(lines, NULL);
    return (char **)g_ptr_array_steal(lines, NULL);
}

static bool check_lists(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(GStrv) lines = NULL, given = NULL;

    *ret_argument = "packages";
    if (!check_words(args, "packages", "+-.:=~_", "package", error))
        return false;
    *ret_argument = "components";
    if (!check_words(args, "components", "-./", "component", error))
        return false;
    *ret_argument = "sources";
    if (!json_get_strings(args, "sources", &given, error))
        return false;
    lines = source_lines(args, error);
    return lines != NULL;
}

/* One line, as the kernel takes it; render-grub.c says what GRUB cannot carry. */
static bool check_machine(const json_t *args, const char **ret_argument, GError **error)
{
    const char *line = string_of(args, "kernel_arguments", "");
    const json_t *grow = json_object_get(args, "grow");

    *ret_argument = "kernel_arguments";
    if (!render_kernel_arguments_check(line, error))
        return false;
    *ret_argument = "grow";
    if (grow && !json_is_boolean(grow))
        return fail_code(error, KILN_ERROR_USAGE, "grow is true or false");
    return true;
}

static bool bootstrap_check(const json_t *args, const char **ret_argument, GError **error)
{
    uint64_t size;
    const char *suite, *variant;

    if (!source_check_strings(args, string_arguments, ret_argument, error) ||
        !source_size_argument(args, "2G", &size, ret_argument, error))
        return false;
    suite = string_of(args, "suite", NULL);
    variant = string_of(args, "variant", "minbase");
    if (!suite)
        return fail_code(error, KILN_ERROR_USAGE, "a bootstrap source needs a suite, for example suite = \"bookworm\"");
    *ret_argument = "suite";
    if (!plain_word(suite, "-."))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is not the name of a suite", suite);
    *ret_argument = "variant";
    if (!g_strv_contains(variants, variant))
        return fail_code(error, KILN_ERROR_USAGE, "the variant '%s' is not known; there are essential, apt, required, "
                         "minbase, buildd, important and standard", variant);
    return check_machine(args, ret_argument, error) && check_lists(args, ret_argument, error);
}

static bool host_architecture(char **ret, GError **error)
{
    const char *const argv[] = {"dpkg", "--print-architecture", NULL};

    if (!process_capture(argv, 256, ret, error))
        return false;
    g_strstrip(*ret);
    return true;
}

static int compare_words(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Debian 13 took it out of systemd's own package. */
static bool repart_is_apart(const char *suite)
{
    static const char *const suites[] = {"trixie", "forky", "testing", "sid", "unstable", NULL};

    return g_strv_contains(suites, suite);
}

/* What kiln adds and what the template asks for, sorted, each once. */
static json_t *all_packages(const json_t *args)
{
    g_auto(GStrv) given = strings_of(args, "packages");
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    json_t *list = json_array();
    const char *last = "";

    for (const char *const *name = base_packages; *name; name++)
        g_ptr_array_add(all, (gpointer)*name);
    /* DHCP's name servers reach resolv.conf through resolved, a package of its own since Debian 12. */
    if (!g_str_has_prefix(string_of(args, "suite", ""), "bullseye"))
        g_ptr_array_add(all, (gpointer)"systemd-resolved");
    if (json_is_true(json_object_get(args, "grow")) && repart_is_apart(string_of(args, "suite", "")))
        g_ptr_array_add(all, (gpointer)"systemd-repart");
    for (char **name = given; *name; name++)
        g_ptr_array_add(all, *name);
    g_ptr_array_sort(all, compare_words);
    for (guint i = 0; i < all->len; i++) {
        if (strcmp(last, all->pdata[i]) != 0)
            json_array_append_new(list, json_string(all->pdata[i]));
        last = all->pdata[i];
    }
    return list;
}

static json_t *json_of_strings(char **strings)
{
    json_t *list = json_array();

    for (; *strings; strings++)
        json_array_append_new(list, json_string(*strings));
    return list;
}

/* Everything the template and this host's tools decide; nothing of the archive yet. */
static bool make_request(const SourceContext *context, const json_t *args, json_t **ret, GError **error)
{
    g_autofree char *version = NULL, *host = NULL;
    g_auto(GStrv) lines = source_lines(args, error);
    const char *architecture;

    if (!lines || !mmdebstrap_version(&version, error) || !host_architecture(&host, error))
        return false;
    architecture = string_of(args, "architecture", host);
    if (strcmp(architecture, host) != 0 || strcmp(host, "amd64") != 0)
        return fail(error, "a bootstrap for '%s' on this '%s' machine is not in this version; only amd64 on amd64 is",
                    architecture, host);
    *ret = json_pack("{ss si ss ss ss so so ss}", "type", "bootstrap", "recipe", BARE_ROOT_RECIPE, "suite",
                     string_of(args, "suite", ""), "variant", string_of(args, "variant", "minbase"), "architecture",
                     architecture, "packages", all_packages(args), "sources", json_of_strings(lines), "mmdebstrap",
                     version);
    if (context->epoch >= 0)
        json_object_set_new(*ret, "source_date_epoch", json_integer(context->epoch));
    return true;
}

/* Fetches one release file; its digest goes to @digests, its date to @ret_date. */
static bool fetch_release(const char *line, const char *suite, const char *tmpdir, json_t *digests, int64_t *ret_date,
                          GError **error)
{
    g_autofree char *url = apt_release_url(line), *path = g_build_filename(tmpdir, "InRelease", NULL);
    auto_fd int dirfd = open(tmpdir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    HttpDownload request = {.url = url, .max_size = RELEASE_MAX};
    g_autoptr(GBytes) bytes = NULL;
    char oci[DIGEST_OCI_SIZE];
    Digest digest;

    (void)unlink(path); /* of the entry before; else it would count as a download to go on with */
    (void)unlinkat(dirfd, "InRelease.validator", 0);
    if (dirfd < 0)
        return fail_errno(error, "open '%s'", tmpdir);
    if (!http_download(&request, dirfd, "InRelease", error))
        return fail_prefix(error, "cannot read the release file of suite '%s' (--offline uses the last known one)", suite);
    if (!file_load(dirfd, "InRelease", RELEASE_MAX, &bytes, error))
        return false;
    digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &digest);
    json_object_set_new(digests, url, json_string(digest_to_oci(&digest, oci)));
    *ret_date = apt_release_date(g_bytes_get_data(bytes, NULL));
    return true;
}

static bool fetch_releases(const SourceContext *context, const json_t *request, json_t **ret_digests, int64_t *ret_date,
                           GError **error)
{
    const json_t *lines = json_object_get(request, "sources");
    const char *suite = json_string_value(json_object_get(request, "suite"));
    g_autoptr(json_t) digests = json_object();
    g_autofree char *tmpdir = NULL;
    bool ok = true;

    if (!store_make_tmpdir(context->store, &tmpdir, error))
        return false;
    for (size_t i = 0; ok && i < json_array_size(lines); i++) {
        int64_t date = -1;

        ok = fetch_release(json_string_value(json_array_get(lines, i)), suite, tmpdir, digests, &date, error);
        if (i == 0)
            *ret_date = date; /* the suite's own: apt_lines_for_suite puts it first */
    }
    (void)file_remove_tree(AT_FDCWD, tmpdir, NULL); /* recovery removes what stays */
    if (!ok)
        return false;
    if (*ret_date < 0)
        return fail(error, "the release file of suite '%s' has no date", suite);
    *ret_digests = g_steal_pointer(&digests);
    return true;
}

/* A request as mmdebstrap takes it; strings are borrowed from @request. */
typedef struct Command {
    Mmdebstrap spec;
    const char **packages, **lines;
} Command;

static const char **borrow_strings(const json_t *list)
{
    const char **strings = g_new0(const char *, json_array_size(list) + 1);

    for (size_t i = 0; i < json_array_size(list); i++)
        strings[i] = json_string_value(json_array_get(list, i));
    return strings;
}

static void command_init(Command *command, const json_t *request, int64_t epoch)
{
    command->packages = borrow_strings(json_object_get(request, "packages"));
    command->lines = borrow_strings(json_object_get(request, "sources"));
    command->spec = (Mmdebstrap){.suite = json_string_value(json_object_get(request, "suite")),
                                 .variant = json_string_value(json_object_get(request, "variant")),
                                 .architecture = json_string_value(json_object_get(request, "architecture")),
                                 .packages = command->packages,
                                 .lines = command->lines,
                                 .epoch = epoch};
}

static void command_clear(Command *command)
{
    g_free(command->packages);
    g_free(command->lines);
}

/* The resolved packages, from memory when this archive was seen before. */
static bool resolve(const SourceContext *context, const json_t *request, const json_t *releases, int64_t epoch,
                    json_t **ret, GError **error)
{
    g_autoptr(json_t) asked = json_pack("{sO sO}", "request", request, "releases", releases);
    g_autofree char *key = NULL;
    g_auto(GStrv) resolved = NULL;
    char hex[DIGEST_HEX_SIZE];
    Command command;
    Digest digest;
    bool ok;

    json_digest(asked, &digest);
    key = g_strconcat("bootstrap-resolved:", digest_to_hex(&digest, hex), NULL);
    if (!source_memo_get(context->store, key, ret, error))
        return false;
    if (json_is_array(*ret))
        return true;
    log_info("resolving packages of '%s'", json_string_value(json_object_get(request, "suite")));
    command_init(&command, request, epoch);
    ok = mmdebstrap_resolve(&command.spec, &resolved, error);
    command_clear(&command);
    if (!ok)
        return false;
    *ret = json_of_strings(resolved);
    return source_memo_put(context->store, key, *ret, NULL, error);
}

static char *request_key(const json_t *request)
{
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    json_digest(request, &digest);
    return g_strconcat("bootstrap:", digest_to_hex(&digest, hex), NULL);
}

/* The root's identity online: {request, resolved, count, epoch}; remembered for --offline with the time. */
static bool identify_online(const SourceContext *context, const json_t *request, json_t **ret, GError **error)
{
    g_autofree char *key = request_key(request);
    g_autoptr(json_t) releases = NULL, resolved = NULL, memo = NULL, root = NULL;
    char oci[DIGEST_OCI_SIZE];
    int64_t date = -1, epoch;
    Digest digest;

    if (!fetch_releases(context, request, &releases, &date, error))
        return false;
    epoch = context->epoch >= 0 ? context->epoch : date;
    if (!resolve(context, request, releases, epoch, &resolved, error))
        return false;
    json_digest(resolved, &digest);
    root = json_pack("{sO ss sI sI}", "request", request, "resolved", digest_to_oci(&digest, oci), "count",
                     (json_int_t)json_array_size(resolved), "epoch", (json_int_t)epoch);
    memo = json_pack("{sO sI}", "root", root, "fetched", (json_int_t)(g_get_real_time() / G_USEC_PER_SEC));
    if (!source_memo_put(context->store, key, memo, NULL, error))
        return false;
    *ret = g_steal_pointer(&root);
    return true;
}

static bool identify_offline(const SourceContext *context, const json_t *request, json_t **ret, GError **error)
{
    g_autofree char *key = request_key(request), *age = NULL;
    g_autoptr(json_t) memo = NULL;
    json_t *root;

    if (!source_memo_get(context->store, key, &memo, error))
        return false;
    root = json_object_get(memo, "root");
    if (!root)
        return fail(error, "suite '%s' was never bootstrapped like this into this store, and --offline forbids to look it up",
                    json_string_value(json_object_get(request, "suite")));
    age = units_format_duration((double)g_get_real_time() / 1e6 -
                                (double)json_integer_value(json_object_get(memo, "fetched")));
    log_info("offline: package lists of '%s' are %s old", json_string_value(json_object_get(request, "suite")), age);
    *ret = json_incref(root);
    return true;
}

static bool bootstrap_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    g_autoptr(json_t) request = NULL, root = NULL;
    const char *argument;
    uint64_t size;

    if (!source_size_argument(args, "2G", &size, &argument, error) || !make_request(context, args, &request, error))
        return false;
    if (!(context->offline ? identify_offline : identify_online)(context, request, &root, error))
        return false;
    *ret_identity = json_pack("{ss sO si ss sI}", "type", "bootstrap", "root", root, "finish", FINISH_RECIPE, "name",
                              context->name, "size", (json_int_t)size);
    if (json_is_true(json_object_get(args, "grow")))
        json_object_set_new(*ret_identity, "grow", json_true());
    if (json_object_get(args, "kernel_arguments"))
        json_object_set(*ret_identity, "kernel_arguments", json_object_get(args, "kernel_arguments"));
    return true;
}

/* The tar of a bootstrap on its way into the store. */
typedef struct Reading {
    Store *store;
    int64_t epoch;
    StoreWriter *writer;
    TreeBuilder *builder;
    Tree *tree;
    MapWriter *space;
} Reading;

static void reading_clear(Reading *reading)
{
    tree_builder_free(reading->builder);
    map_writer_free(reading->space);
    tree_free(reading->tree);
    store_writer_free(reading->writer);
}

/* mmdebstrap copies the host's resolv.conf and name into the root, and makes device nodes that devtmpfs will make. */
static bool skip_path(const char *path, void *arg)
{
    return g_str_has_prefix(path, "dev/") || strcmp(path, "etc/resolv.conf") == 0 || strcmp(path, "etc/hostname") == 0 ||
           (provisioner_sysprep_verdict(path, 'f', NULL) == SYSPREP_DROP && provisioner_sysprep_verdict(path, 'd', NULL) == SYSPREP_DROP);
}

static void make_empty(Tree *tree, const char *path)
{
    TreeEntry *entry = tree_find_mutable(tree, path);

    if (entry->type != 'f')
        return;
    entry->size = 0;
    entry->data_offset = 0;
    digest_of("", 0, &entry->sha256);
}

static void remove_below(Tree *tree, const char *path)
{
    g_autofree char *prefix = g_strconcat(path, "/", NULL);
    g_autoptr(GPtrArray) below = g_ptr_array_new_with_free_func(g_free);

    for (size_t i = 0; i < tree_count(tree); i++)
        if (g_str_has_prefix(tree_nth(tree, i)->path, prefix))
            g_ptr_array_add(below, g_strdup(tree_nth(tree, i)->path));
    for (guint i = 0; i < below->len; i++)
        tree_remove(tree, below->pdata[i]);
}

/* The seal's rules on a tree, so that a bare root holds nothing that a sealed one would not, and its times end at @epoch. */
static void clean_root(Tree *tree, int64_t epoch)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);

    for (size_t i = 0; i < tree_count(tree); i++)
        g_ptr_array_add(paths, g_strdup(tree_nth(tree, i)->path));
    for (guint i = 0; i < paths->len; i++) {
        const char *path = paths->pdata[i];
        TreeEntry *entry = tree_find_mutable(tree, path);

        if (!entry)
            continue;
        entry->mtime = MIN(entry->mtime, epoch);
        switch (provisioner_sysprep_verdict(path, entry->type, NULL)) {
        case SYSPREP_DROP:
            tree_remove(tree, path);
            break;
        case SYSPREP_EMPTY:
            make_empty(tree, path);
            break;
        case SYSPREP_EMPTY_DIR:
            remove_below(tree, path);
            break;
        case SYSPREP_KEEP:
            break;
        }
    }
}

/* Cleaned before it is laid out: what goes never reaches the store. */
static bool finish_reading(Reading *reading, GError **error)
{
    clean_root(tree_builder_tree(reading->builder), reading->epoch);
    return tree_builder_finish(reading->builder, &reading->tree, &reading->space, error) &&
           tree_check(reading->tree, error);
}

static bool read_root(int fd, void *arg, GError **error)
{
    Reading *reading = arg;

    return store_writer_open(reading->store, BLOCK_PUBLIC, &reading->writer, error) &&
           tree_builder_new(reading->writer, &reading->builder, error) &&
           tree_read_tar(reading->builder, fd, skip_path, NULL, reading, error) && finish_reading(reading, error);
}

static bool bootstrap_root(const SourceContext *context, const json_t *request, int64_t epoch, TreeStored *ret,
                           GError **error)
{
    Reading reading = {.store = context->store, .epoch = epoch};
    Command command;
    bool ok;

    command_init(&command, request, epoch);
    ok = mmdebstrap_run(&command.spec, read_root, &reading, error) && store_writer_commit(reading.writer, error) &&
         tree_stored_result(context->store, reading.tree, reading.space, ret, error);
    command_clear(&command);
    reading_clear(&reading);
    return ok;
}

/* The bare root, from the store when a bake of any name made it before. */
static bool bare_root(const SourceContext *context, const json_t *root, TreeStored *ret, GError **error)
{
    g_autoptr(json_t) known = NULL;
    g_autofree char *key = NULL;
    char tree_hex[DIGEST_HEX_SIZE], files_hex[DIGEST_HEX_SIZE];
    Digest digest;

    json_digest(root, &digest);
    key = g_strconcat("bootstrap-root:", digest_to_hex(&digest, tree_hex), NULL);
    if (!context->anew && !source_memo_get(context->store, key, &known, error))
        return false;
    if (known && digest_parse(string_of(known, "tree", ""), &ret->tree) &&
        digest_parse(string_of(known, "files", ""), &ret->files) && store_blob_has(context->store, &ret->tree) &&
        store_blob_has(context->store, &ret->files))
        return true;
    if (context->kept)
        return fail(error, "the archive has other packages now than this root was made of, and the store does not have the root any more");
    if (!bootstrap_root(context, json_object_get(root, "request"),
                        json_integer_value(json_object_get(root, "epoch")), ret, error))
        return false;
    if (context->anew)
        return true;
    g_clear_pointer(&known, json_decref);
    known = json_pack("{ss ss}", "tree", digest_to_hex(&ret->tree, tree_hex), "files",
                      digest_to_hex(&ret->files, files_hex));
    return source_memo_put(context->store, key, known, ret, error);
}

#define UNITS "/lib/systemd/system/"
#define FSTAB(options) "# made by kiln; the boot loader names the root file system\n/dev/root / ext4 " options " 0 1\n"
#define WANTS "etc/systemd/system/"

static char *host_name(const char *name)
{
    char *host = g_strndup(name, 63); /* set names may be longer, and may hold an underscore */

    for (char *c = host; *c; c++)
        if (!g_ascii_isalnum(*c) && *c != '.')
            *c = '-';
    return host;
}

static bool has_any(Tree *tree, const char *a, const char *b)
{
    return tree_find(tree, a) || tree_find(tree, b);
}

/* systemd-repart takes the space behind the root's partition, which is the last one, and systemd-growfs what the partition has. */
static bool check_grow(Tree *tree, GError **error)
{
    if (!has_any(tree, "usr/bin/systemd-repart", "bin/systemd-repart") ||
        !has_any(tree, "usr/lib/systemd/systemd-growfs", "lib/systemd/systemd-growfs"))
        return fail(error, "grow needs systemd-repart and systemd-growfs, which this root does not have; name the package that has them in `packages`");
    return true;
}

/* What makes a bare root a machine: a name, a root file system, DHCP on every Ethernet card, a login on the serial line. */
static bool finish_root(const SourceContext *context, const json_t *identity, Tree *tree, StoreMap *files, int64_t epoch, TreeStored *ret,
                        GError **error)
{
    bool grow = json_is_true(json_object_get(identity, "grow"));
    g_autofree char *cmdline = g_strconcat(string_of(identity, "kernel_arguments", ""), "\n", NULL);
    g_autofree char *host = host_name(context->name);
    g_autofree char *hostname = g_strdup_printf("%s\n", host);
    g_autofree char *hosts = g_strdup_printf("127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\t\tlocalhost ip6-localhost "
                                             "ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n",
                                             host);
    const SourceAddition additions[] = {
        {"etc/hostname", 'f', hostname},
        {"etc/hosts", 'f', hosts},
        {"etc/machine-id", 'f', ""},
        /* The kernel is told the root; this line is for its options and for the check at boot. */
        {"etc/fstab", 'f', grow ? FSTAB("defaults,errors=remount-ro,x-systemd.growfs") : FSTAB("defaults,errors=remount-ro")},
        {"etc/systemd/network/80-kiln-dhcp.network", 'f', "[Match]\nName=e*\n\n[Network]\nDHCP=yes\n"},
        {WANTS "multi-user.target.wants/systemd-networkd.service", 'l', UNITS "systemd-networkd.service"},
        {WANTS "sockets.target.wants/systemd-networkd.socket", 'l', UNITS "systemd-networkd.socket"},
        {WANTS "dbus-org.freedesktop.network1.service", 'l', UNITS "systemd-networkd.service"},
        {WANTS "getty.target.wants/serial-getty@ttyS0.service", 'l', UNITS "serial-getty@.service"},
    };
    /* Each with what must be so. */
    const struct {
        bool wanted;
        SourceAddition addition;
    } more[] = {
        {tree_find(tree, "usr/lib/systemd/system/systemd-resolved.service") != NULL,
         {"etc/resolv.conf", 'l', "../run/systemd/resolve/stub-resolv.conf"}},
        {grow, {"etc/repart.d/50-kiln-root.conf", 'f', "# made by kiln: the root takes what a larger disk has\n[Partition]\nType=root\n"}},
        {json_object_get(identity, "kernel_arguments") != NULL, {"etc/kernel/cmdline", 'f', cmdline}},
    };
    SourceAddition all_additions[G_N_ELEMENTS(additions) + G_N_ELEMENTS(more)];
    size_t count = G_N_ELEMENTS(additions);
    g_autoptr(StoreMap) all = NULL;

    memcpy(all_additions, additions, sizeof(additions));
    for (size_t i = 0; i < G_N_ELEMENTS(more); i++)
        if (more[i].wanted)
            all_additions[count++] = more[i].addition;
    return (!grow || check_grow(tree, error)) && source_add_files(context->store, tree, files, all_additions, count, epoch, &all, error) &&
           source_store_tree(context->store, tree, all, ret, NULL, error);
}

static bool bootstrap_prepare(const SourceContext *context, const json_t *args, const json_t *identity, SourceState *ret,
                              GError **error)
{
    const json_t *root = json_object_get(identity, "root");
    RenderSpec spec = {.name = context->name, .other_order = context->other_order,
                       .size = json_object_get(args, "size") ? (uint64_t)json_integer_value(json_object_get(identity, "size")) : 0,
                       .epoch = json_integer_value(json_object_get(root, "epoch")),
                       .bootable = true};
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    TreeStored bare;
    SourceState state = {.epoch = spec.epoch};

    if (!bare_root(context, root, &bare, error) || !tree_load(context->store, &bare, &tree, &files, error) ||
        !finish_root(context, identity, tree, files, spec.epoch, &state.tree, error) ||
        !source_render(context, &spec, &state, error))
        return false;
    state.info = json_pack("{sO}", "bootstrap", root);
    *ret = state;
    return true;
}

const SourceOps source_bootstrap_ops = {
    .type = "bootstrap",
    .arguments = bootstrap_arguments,
    .check = bootstrap_check,
    .identify = bootstrap_identify,
    .prepare = bootstrap_prepare,
    .default_output = "disk",
};
