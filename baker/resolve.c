/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front of package resolution: what is known already, what has to be asked again, and what comes out.
 *
 *     content -> its sources            memo "apt-sources:CONTENT": URLs of the release files
 *     release files -> digests          memo "release:URL"; asked at each plan (one small request each, all at once)
 *     H(content, arguments)             memo "resolve:KEY": the transaction, and the digests that it holds for
 *     SHA-256 of a package              memo "package:SHA256": its blob
 *
 * When no release file changed and the guest is the same, nothing of the guest is read and apt is not started. The
 * content stands for all that resolution reads of the guest (status, sources, pins, keys), so it needs no digests of its own.
 */
#include "baker/resolve-parts.h"

#include "baker/memos.h"
#include "baker/render-parts.h"
#include "base/debian-version.h"
#include "base/error.h"
#include "base/file.h"
#include "base/http.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Raised when the same memo key would hold another transaction. */
#define RESOLVER 2
#define RELEASE_MAX ((uint64_t)8 << 20)
#define TRANSACTION_MAX ((size_t)64 << 20)
#define DOWNLOADS 4

/* ---- memos ---- */

static bool memo_get(Store *store, const char *prefix, const char *rest, json_t **ret, GError **error)
{
    g_autofree char *key = g_strconcat(prefix, rest, NULL), *text = NULL;

    *ret = NULL;
    if (!store_memo_get(store, key, &text, error))
        return false;
    if (text && !json_parse(text, strlen(text), TRANSACTION_MAX, key, ret, NULL))
        *ret = NULL; /* as good as none */
    return true;
}

static bool memo_put(Store *store, const char *prefix, const char *rest, const json_t *value, const Digest *blob,
                     GError **error)
{
    g_autofree char *key = g_strconcat(prefix, rest, NULL), *text = json_canonical(value);

    return store_memo_put(store, key, text, blob, NULL, error);
}

/* ---- release files ---- */

typedef struct Release {
    const char *url;
    char *folder, *etag, *name;
    char sha256[DIGEST_HEX_SIZE];
    bool known, unchanged; /* an earlier digest is there; the server says it still holds */
    GError *error;
} Release;

static bool fetch_one(Release *release, const char *url, GError **error)
{
    g_autofree char *etag = NULL;
    HttpDownload request = {.url = url, .max_size = RELEASE_MAX, .etag = release->known ? release->etag : NULL,
                            .ret_unchanged = &release->unchanged, .ret_etag = &etag};
    auto_fd int folder = open(release->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    Digest digest;

    if (folder < 0)
        return fail_errno(error, "open '%s'", release->folder);
    if (!http_download(&request, folder, release->name, error))
        return false;
    if (release->unchanged)
        return true;
    if (!digest_of_file(folder, release->name, &digest, NULL, error))
        return false;
    digest_to_hex(&digest, release->sha256);
    g_free(release->etag);
    release->etag = g_steal_pointer(&etag);
    return true;
}

/* Some repositories have no InRelease, but the older Release with its signature beside it. */
static gpointer fetch_release(gpointer data)
{
    Release *release = data;
    g_autoptr(GError) problem = NULL;

    if (fetch_one(release, release->url, &release->error))
        return NULL;
    if (g_str_has_suffix(release->url, "/InRelease") && !interrupt_requested()) {
        g_autofree char *base = g_strndup(release->url, strlen(release->url) - strlen("InRelease"));
        g_autofree char *url = g_strconcat(base, "Release", NULL);

        if (fetch_one(release, url, &problem))
            g_clear_error(&release->error);
    }
    return NULL;
}

static void release_free(gpointer data)
{
    Release *release = data;

    g_free(release->etag);
    g_free(release->name);
    g_free(release->folder);
    g_clear_error(&release->error);
    g_free(release);
}

/* Once for each file, however many steps and builds take it; the caller lets in one at a time. */
static void tell_age(const char *url, int64_t fetched)
{
    static GHashTable *told;
    double age = (double)(g_get_real_time() / G_USEC_PER_SEC - fetched);
    g_autofree char *text = units_format_duration(MAX(age, 0));

    if (!told)
        told = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    if (g_hash_table_add(told, g_strdup(url)))
        log_info("offline: '%s' is taken as it was %s ago", url, text);
}

/* URLs that this process has asked for; the caller of whoever uses it lets in one at a time. */
static GHashTable *asked_here(void)
{
    static GHashTable *urls;

    if (!urls)
        urls = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    return urls;
}

/*
 * Within the second in which a call began, what an earlier one had fetched may be older than the call: only this process knows
 * better then. Without it a repository that changes right after a plan would be overlooked by the next one.
 */
static bool is_fresh(const ResolveRequest *request, const Release *release, int64_t fetched)
{
    if (!release->known || request->fresh_since <= 0)
        return false;
    return fetched > request->fresh_since ||
           (fetched == request->fresh_since && g_hash_table_contains(asked_here(), release->url));
}

/* What is known of @release; *ret_ask: it has to be asked for. */
static bool recall(const ResolveRequest *request, Release *release, bool *ret_ask, GError **error)
{
    g_autoptr(json_t) memo = NULL;
    const char *sha256 = NULL, *etag = NULL;
    int64_t fetched = 0;

    if (!memo_get(request->store, "release:", release->url, &memo, error))
        return false;
    if (memo && json_get_string(memo, "sha256", NULL, &sha256, NULL) && json_get_string(memo, "etag", NULL, &etag, NULL) &&
        json_get_int(memo, "fetched", 0, &fetched, NULL) && sha256 && strlen(sha256) == DIGEST_HEX_SIZE - 1) {
        memcpy(release->sha256, sha256, DIGEST_HEX_SIZE);
        release->etag = g_strdup(etag);
        release->known = true;
    }
    if (request->offline && !release->known)
        return fail(error, "'%s' was never fetched, and --offline allows no request; run once without it", release->url);
    if (request->offline)
        tell_age(release->url, fetched);
    *ret_ask = !request->offline && !is_fresh(request, release, fetched);
    return true;
}

static bool remember_release(const ResolveRequest *request, const Release *release, GError **error)
{
    g_autoptr(json_t) memo = json_object();

    (void)g_hash_table_add(asked_here(), g_strdup(release->url));
    json_object_set_new(memo, "sha256", json_string(release->sha256));
    json_object_set_new(memo, "etag", release->etag ? json_string(release->etag) : json_null());
    json_object_set_new(memo, "fetched", json_integer(g_get_real_time() / G_USEC_PER_SEC));
    return memo_put(request->store, "release:", release->url, memo, NULL, error);
}

/* Asks for all at once: a plan waits for the slowest of them, not for their sum. */
static bool ask_all(const ResolveRequest *request, GPtrArray *asked, GError **error)
{
    g_autofree char *folder = NULL;
    g_autofree GThread **threads = g_new0(GThread *, asked->len + 1);
    bool ok = true;

    if (asked->len == 0)
        return true;
    if (!store_make_tmpdir(request->store, &folder, error))
        return false;
    for (guint i = 0; i < asked->len; i++) {
        Release *release = asked->pdata[i];

        release->folder = g_strdup(folder);
        release->name = g_strdup_printf("%u", i);
        threads[i] = g_thread_new("release", fetch_release, release);
    }
    for (guint i = 0; i < asked->len; i++) {
        Release *release = asked->pdata[i];

        (void)g_thread_join(threads[i]);
        if (release->error && ok) {
            g_propagate_prefixed_error(error, g_steal_pointer(&release->error),
                                       "cannot ask for news of the guest's packages (--offline takes what is known): ");
            ok = false;
        }
    }
    (void)file_remove_tree(AT_FDCWD, folder, NULL); /* recovery would remove it too */
    for (guint i = 0; ok && i < asked->len; i++)
        ok = remember_release(request, asked->pdata[i], error);
    return ok;
}

/* *ret: {URL: SHA-256} of the release files behind @urls. One at a time: what one bake of a batch fetched is fresh for the next. */
static bool releases_of(const ResolveRequest *request, const json_t *urls, json_t **ret, GError **error)
{
    static GMutex one_at_a_time;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&one_at_a_time);
    g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func(release_free), asked = g_ptr_array_new();
    g_autoptr(json_t) digests = json_object();
    size_t i;
    json_t *url;

    json_array_foreach (urls, i, url) {
        Release *release = g_new0(Release, 1);
        bool ask = false;

        release->url = json_string_value(url);
        g_ptr_array_add(all, release);
        if (!recall(request, release, &ask, error))
            return false;
        if (ask)
            g_ptr_array_add(asked, release);
    }
    if (!ask_all(request, asked, error))
        return false;
    for (guint j = 0; j < all->len; j++) {
        const Release *release = all->pdata[j];

        json_object_set_new(digests, release->url, json_string(release->sha256));
    }
    *ret = g_steal_pointer(&digests);
    return true;
}

/* ---- sources of a guest ---- */

static void add_url(json_t *urls, const AptEntry *entry)
{
    g_autofree char *url = apt_entry_release_url(entry);
    size_t i;
    json_t *known;

    json_array_foreach (urls, i, known)
        if (strcmp(json_string_value(known), url) == 0)
            return;
    json_array_append_new(urls, json_string(url));
}

/* *ret: list of URLs, or JSON null where nothing can be resolved; *ret_guest may stay NULL when the memo knew. */
static bool sources_of(const ResolveRequest *request, json_t **ret, ResolveGuest **ret_guest, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    digest_to_hex(request->content, hex);
    if (!memo_get(request->store, "apt-sources:", hex, ret, error))
        return false;
    if (*ret)
        return true;
    if (!resolve_guest_read(request, ret_guest, error))
        return false;
    *ret = *ret_guest ? json_array() : json_object();
    for (guint i = 0; *ret_guest && i < (*ret_guest)->entries->len; i++)
        add_url(*ret, (*ret_guest)->entries->pdata[i]);
    return memo_put(request->store, "apt-sources:", hex, *ret, NULL, error);
}

/* The template's own repositories; their keys are files of the host, which the memo must see. */
static bool add_own(const ResolveRequest *request, json_t *urls, json_t *key, GError **error)
{
    g_auto(GStrv) lines = NULL, names = NULL;
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)apt_entry_free);
    json_t *keys = json_array();

    json_object_set_new(key, "keys", keys);
    if (!json_get_strings(request->args, "repositories", &lines, error) ||
        !json_get_strings(request->args, "repository_keys", &names, error))
        return false;
    for (char **line = lines; *line; line++)
        apt_parse_one_line(*line, entries);
    for (guint i = 0; i < entries->len; i++)
        add_url(urls, entries->pdata[i]);
    for (char **name = names; *name; name++) {
        g_autofree char *path = g_path_is_absolute(*name) || !request->template_dir
                                    ? g_strdup(*name) : g_build_filename(request->template_dir, *name, NULL);
        Digest digest;
        char hex[DIGEST_HEX_SIZE];

        if (!digest_of_file(AT_FDCWD, path, &digest, NULL, error))
            return fail_prefix(error, "repository_keys");
        json_array_append_new(keys, json_string(digest_to_hex(&digest, hex)));
    }
    return true;
}

/* ---- the transaction ---- */

static void add_words(GPtrArray *words, char **names, const char *suffix)
{
    for (char **name = names; *name; name++)
        g_ptr_array_add(words, g_strconcat(*name, suffix, NULL));
}

static bool is_kernel(const char *name)
{
    return g_str_has_prefix(name, "linux-image-") && g_ascii_isdigit(name[strlen("linux-image-")]) &&
           !g_str_has_suffix(name, "-dbg");
}

static gint newer_first(gconstpointer a, gconstpointer b)
{
    return debian_version_compare(*(const char *const *)b, *(const char *const *)a);
}

/* "linux-image-6.1.0-56-cloud-amd64" -> "cloud-amd64": what stands behind the parts that start with a digit. */
static const char *flavour(const char *kernel)
{
    const char *at = kernel + strlen("linux-image-");

    while (g_ascii_isdigit(*at)) {
        at += strcspn(at, "-");
        at += *at == '-';
    }
    return at;
}

/* A patch night that only adds kernels fills /boot some day: of each flavour all but the newest and one before it go. */
static bool add_old_kernels(const ResolveGuest *guest, GPtrArray *operations, GPtrArray *words)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autoptr(GHashTable) kept = g_hash_table_new(g_str_hash, g_str_equal); /* flavour -> how many */
    bool added = false;

    for (guint i = 0; i < guest->installed->len; i++) {
        const ResolvePackage *package = guest->installed->pdata[i];

        if (is_kernel(package->name))
            g_ptr_array_add(names, package->name);
    }
    for (guint i = 0; i < operations->len; i++) {
        const AptOperation *operation = operations->pdata[i];

        if (operation->kind == 'i' && !operation->from && is_kernel(operation->name))
            g_ptr_array_add(names, operation->name);
    }
    g_ptr_array_sort(names, newer_first);
    for (guint i = 0; i < names->len; i++) {
        char *name = names->pdata[i];
        guint before = GPOINTER_TO_UINT(g_hash_table_lookup(kept, flavour(name)));

        g_hash_table_insert(kept, (gpointer)flavour(name), GUINT_TO_POINTER(before + 1));
        if (before >= 2 && resolve_guest_find(guest, name)) {
            g_ptr_array_add(words, g_strconcat(name, "-", NULL));
            added = true;
        }
    }
    return added;
}

static bool is_removed(GPtrArray *operations, const char *name)
{
    for (guint i = 0; i < operations->len; i++) {
        const AptOperation *operation = operations->pdata[i];

        if ((operation->kind == 'r' || operation->kind == 'p') && strcmp(operation->name, name) == 0)
            return true;
    }
    return false;
}

/* Whatever else goes with the kernels, somebody wants. */
static bool takes_others_along(GPtrArray *before, GPtrArray *after)
{
    for (guint i = 0; i < after->len; i++) {
        const AptOperation *operation = after->pdata[i];

        if ((operation->kind == 'r' || operation->kind == 'p') && !is_kernel(operation->name) && !is_removed(before, operation->name))
            return true;
    }
    return false;
}

static GPtrArray *terminated(GPtrArray *words)
{
    GPtrArray *copy = g_ptr_array_new();

    for (guint i = 0; i < words->len; i++)
        g_ptr_array_add(copy, words->pdata[i]);
    g_ptr_array_add(copy, NULL);
    return copy;
}

static bool simulate(AptSpace *space, GPtrArray *words, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) argv = terminated(words);

    return apt_space_simulate(space, (const char *const *)argv->pdata, ret, error);
}

/*
 * upgrade = "security": what a full upgrade would take from suites that end in -security, in those versions, even where another
 * suite has a newer one.
 */
static bool add_security(AptSpace *space, GPtrArray *words, GError **error)
{
    static const char *const everything[] = {"dist-upgrade", "-oDir::Etc::preferences=" APT_SECURITY_PINS, NULL};
    g_autoptr(GPtrArray) operations = NULL;

    if (!apt_space_simulate(space, everything, &operations, error))
        return false;
    for (guint i = 0; i < operations->len; i++) {
        const AptOperation *operation = operations->pdata[i];

        if (operation->kind == 'i' && operation->security && operation->from)
            g_ptr_array_add(words, g_strdup_printf("%s=%s", operation->name, operation->version));
    }
    return true;
}

/* apt's words for the step: verb, packages, packages to remove with a dash. */
static bool choose_words(const ResolveRequest *request, AptSpace *space, GPtrArray *words, GError **error)
{
    g_auto(GStrv) install = NULL, remove = NULL;
    const char *upgrade = NULL;
    bool purge;

    if (!json_get_strings(request->args, "install", &install, error) ||
        !json_get_strings(request->args, "remove", &remove, error) ||
        !json_get_string(request->args, "upgrade", NULL, &upgrade, error) ||
        !json_get_bool(request->args, "purge", false, &purge, error))
        return false;
    g_ptr_array_add(words, g_strdup(g_strcmp0(upgrade, "all") == 0 ? "dist-upgrade" : "install"));
    if (purge)
        g_ptr_array_add(words, g_strdup("--purge"));
    add_words(words, install, "");
    add_words(words, remove, "-");
    return g_strcmp0(upgrade, "security") != 0 || add_security(space, words, error);
}

static const AptUri *find_uri(GPtrArray *uris, const AptOperation *operation)
{
    size_t length = strcspn(operation->name, ":");

    for (guint i = 0; i < uris->len; i++) {
        const AptUri *uri = uris->pdata[i];

        if (strlen(uri->name) == length && strncmp(uri->name, operation->name, length) == 0 &&
            strcmp(uri->version, operation->version) == 0 && strcmp(uri->architecture, operation->architecture) == 0)
            return uri;
    }
    return NULL;
}

/* Named by the template, not brought in by a dependency. */
static bool is_asked_for(GPtrArray *words, const char *name)
{
    size_t length = strcspn(name, ":");

    for (guint i = 1; i < words->len; i++) {
        const char *word = words->pdata[i];

        if (strcspn(word, ":=/") == length && strncmp(word, name, length) == 0)
            return true;
    }
    return false;
}

static bool add_install(json_t *list, const AptOperation *operation, GPtrArray *uris, GPtrArray *words, GError **error)
{
    const AptUri *uri = find_uri(uris, operation);
    json_t *one = json_object();
    char hex[DIGEST_HEX_SIZE];

    json_array_append_new(list, one);
    if (!uri)
        return fail(error, "the package lists name no SHA-256 for package '%s' %s", operation->name, operation->version);
    json_object_set_new(one, "name", json_string(operation->name));
    json_object_set_new(one, "version", json_string(operation->version));
    if (operation->from)
        json_object_set_new(one, "from", json_string(operation->from));
    json_object_set_new(one, "architecture", json_string(operation->architecture));
    json_object_set_new(one, "sha256", json_string(digest_to_hex(&uri->sha256, hex)));
    json_object_set_new(one, "size", json_integer((json_int_t)uri->size));
    json_object_set_new(one, "auto", json_boolean(!operation->from && !is_asked_for(words, operation->name)));
    json_object_set_new(one, "uri", json_string(uri->uri));
    return true;
}

/* Neighbours of one kind make one call of dpkg. */
static void add_to_group(json_t *groups, char kind, json_t *what)
{
    const char *word = kind == 'i' ? "unpack" : kind == 'c' ? "configure" : kind == 'r' ? "remove" : "purge";
    json_t *last = json_array_get(groups, json_array_size(groups) - 1);

    if (!last || strcmp(json_string_value(json_array_get(last, 0)), word) != 0) {
        last = json_array();
        json_array_append_new(last, json_string(word));
        json_array_append_new(groups, last);
    }
    json_array_append_new(last, what);
}

static void add_manual(json_t *transaction, const ResolveGuest *guest, char **install)
{
    json_t *list = json_array();

    for (char **name = install; *name; name++) {
        g_autofree char *bare = g_strndup(*name, strcspn(*name, ":=/"));

        if (g_hash_table_contains(guest->automatic, bare) && resolve_guest_find(guest, bare))
            json_array_append_new(list, json_string(bare));
    }
    json_object_set_new(transaction, "manual", list);
}

static bool assemble(const ResolveRequest *request, const ResolveGuest *guest, GPtrArray *operations, GPtrArray *uris,
                     GPtrArray *words, int64_t growth, json_t **ret, GError **error)
{
    g_autoptr(json_t) transaction = json_object();
    json_t *install = json_array(), *remove = json_array(), *groups = json_array();
    json_t *debconf = json_object_get(request->args, "debconf");
    const char *conffiles = NULL;
    g_auto(GStrv) names = NULL;

    json_object_set_new(transaction, "manager", json_string("apt"));
    json_object_set_new(transaction, "growth", json_integer(growth));
    json_object_set_new(transaction, "install", install);
    json_object_set_new(transaction, "remove", remove);
    json_object_set_new(transaction, "operations", groups);
    for (guint i = 0; i < operations->len; i++) {
        const AptOperation *operation = operations->pdata[i];
        json_t *what = operation->kind == 'i' ? json_integer((json_int_t)json_array_size(install)) : json_string(operation->name);

        add_to_group(groups, operation->kind, what);
        if (operation->kind == 'i' && !add_install(install, operation, uris, words, error))
            return false;
        if (operation->kind == 'r' || operation->kind == 'p')
            json_array_append_new(remove, json_pack("{s:s, s:s, s:b}", "name", operation->name, "version",
                                                    operation->from ? operation->from : "", "purge", operation->kind == 'p'));
    }
    if (!json_get_string(request->args, "conffiles", "keep", &conffiles, error) ||
        !json_get_strings(request->args, "install", &names, error))
        return false;
    json_object_set_new(transaction, "conffiles", json_string(conffiles));
    json_object_set_new(transaction, "debconf", debconf ? json_incref(debconf) : json_object());
    add_manual(transaction, guest, names);
    *ret = g_steal_pointer(&transaction);
    return true;
}

static bool drop_old_kernels(const ResolveGuest *guest, AptSpace *space, GPtrArray *words, GPtrArray **operations, GError **error)
{
    g_autoptr(GPtrArray) without = NULL;
    guint count = words->len;

    if (!add_old_kernels(guest, *operations, words))
        return true;
    if (!simulate(space, words, &without, error))
        return false;
    if (takes_others_along(*operations, without)) {
        g_ptr_array_set_size(words, (gint)count);
        return true;
    }
    g_ptr_array_unref(*operations);
    *operations = g_steal_pointer(&without);
    return true;
}

/* With apt: simulate, drop old kernels, ask for the files' digests. */
static bool resolve_with_apt(const ResolveRequest *request, const ResolveGuest *guest, const json_t *releases, json_t **ret,
                             GError **error)
{
    g_autoptr(AptSpace) space = NULL;
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free), operations = NULL, uris = NULL, argv = NULL;
    int64_t growth = 0;

    if (!apt_space_open(request, guest, &space, error) || !apt_space_update(space, releases, request->offline, error) ||
        !choose_words(request, space, words, error) || !simulate(space, words, &operations, error))
        return false;
    if (json_object_get(request->args, "upgrade") && !drop_old_kernels(guest, space, words, &operations, error))
        return false;
    if (operations->len == 0) {
        uris = g_ptr_array_new();
    } else {
        argv = terminated(words);
        if (!apt_space_uris(space, (const char *const *)argv->pdata, &uris, &growth, error))
            return false;
    }
    return assemble(request, guest, operations, uris, words, growth, ret, error);
}

/* ---- locks ---- */

static bool group_is_sound(const json_t *group, size_t installs)
{
    static const char *const verbs[] = {"configure", "remove", "purge", NULL};
    const char *verb = json_string_value(json_array_get(group, 0));
    bool unpack = g_strcmp0(verb, "unpack") == 0, sound = unpack || (verb && g_strv_contains(verbs, verb));

    for (size_t i = 1; sound && i < json_array_size(group); i++) {
        const json_t *one = json_array_get(group, i);

        sound = unpack ? json_is_integer(one) && json_integer_value(one) >= 0 && (size_t)json_integer_value(one) < installs
                       : resolve_plain_word(json_string_value(one));
    }
    return sound;
}

static bool are_plain_words(const json_t *list)
{
    size_t i;
    json_t *one;

    json_array_foreach (list, i, one)
        if (!resolve_plain_word(json_string_value(one)))
            return false;
    return true;
}

static bool package_is_sound(const json_t *one, const char *const *words)
{
    for (; *words; words++)
        if (!resolve_plain_word(json_string_value(json_object_get(one, *words))))
            return false;
    return true;
}

static bool packages_are_sound(const json_t *install, const json_t *remove)
{
    static const char *const installed[] = {"name", "version", "architecture", NULL}, *const removed[] = {"name", NULL};
    size_t i;
    json_t *one;
    Digest digest;

    json_array_foreach (install, i, one) {
        const char *sha256 = json_string_value(json_object_get(one, "sha256"));

        if (!package_is_sound(one, installed) || !sha256 || !digest_parse(sha256, &digest))
            return false;
    }
    json_array_foreach (remove, i, one)
        if (!package_is_sound(one, removed))
            return false;
    return true;
}

bool resolve_lock_is_sound(const json_t *locked)
{
    static const char *const lists[] = {"install", "remove", "manual", "operations"};
    const json_t *install = json_object_get(locked, "install");
    size_t i;
    json_t *one;

    for (i = 0; i < G_N_ELEMENTS(lists); i++)
        if (!json_is_array(json_object_get(locked, lists[i])))
            return false;
    if (!packages_are_sound(install, json_object_get(locked, "remove")) || !are_plain_words(json_object_get(locked, "manual")))
        return false;
    json_array_foreach (json_object_get(locked, "operations"), i, one)
        if (!group_is_sound(one, json_array_size(install)))
            return false;
    return g_strcmp0(json_string_value(json_object_get(locked, "manager")), "apt") == 0;
}

static bool lock_fits(const ResolveGuest *guest, const json_t *locked, GError **error)
{
    size_t i;
    json_t *one;

    if (!resolve_lock_is_sound(locked))
        return fail(error, "the lock holds no whole transaction for this step; bake with --lock to make a new one");
    json_array_foreach (json_object_get(locked, "install"), i, one) {
        const char *name = NULL, *from = NULL;
        const ResolvePackage *package;

        if (!json_get_string(one, "name", "", &name, error) || !json_get_string(one, "from", NULL, &from, error))
            return false;
        package = resolve_guest_find(guest, name);
        if (g_strcmp0(from, package ? package->version : NULL) != 0)
            return fail(error, "the lock does not fit: it starts from package '%s' %s, the guest has %s; bake with --lock to make "
                        "a new one", name, from ? from : "not installed", package ? package->version : "none");
    }
    json_array_foreach (json_object_get(locked, "remove"), i, one) {
        const char *name = NULL;

        if (!json_get_string(one, "name", "", &name, error))
            return false;
        if (!resolve_guest_find(guest, name))
            return fail(error, "the lock does not fit: it removes package '%s', which the guest has not", name);
    }
    return true;
}

/* ---- the face ---- */

bool resolve_is_possible(const ResolveRequest *request, bool *ret, GError **error)
{
    g_autoptr(json_t) urls = NULL;
    g_autoptr(ResolveGuest) guest = NULL;

    if (!sources_of(request, &urls, &guest, error))
        return false;
    *ret = json_is_array(urls);
    return true;
}

/*
 * Without the releases' digests: they stand beside the transaction, so that a repository that is signed anew each night leaves one
 * memo, not one a night.
 */
static void resolution_key(const ResolveRequest *request, json_t *key, char hex[DIGEST_HEX_SIZE])
{
    Digest digest;

    json_object_set_new(key, "resolver", json_integer(RESOLVER));
    json_object_set_new(key, "content", json_string(digest_to_hex(request->content, hex)));
    json_object_set(key, "args", (json_t *)request->args);
    json_digest(key, &digest);
    digest_to_hex(&digest, hex);
}

/* *ret is NULL when the last resolution was for other releases. */
static bool recall_resolution(const ResolveRequest *request, const char *key, const json_t *releases, json_t **ret, GError **error)
{
    g_autoptr(json_t) memo = NULL;

    *ret = NULL;
    if (!memo_get(request->store, "resolve:", key, &memo, error))
        return false;
    if (memo && json_equal(json_object_get(memo, "releases"), releases) && json_is_object(json_object_get(memo, "transaction")))
        *ret = json_incref(json_object_get(memo, "transaction"));
    return true;
}

static bool remember_resolution(const ResolveRequest *request, const char *key, const json_t *releases, const json_t *transaction,
                                GError **error)
{
    g_autoptr(json_t) memo = json_object();

    json_object_set(memo, "releases", (json_t *)releases);
    json_object_set(memo, "transaction", (json_t *)transaction);
    return memo_put(request->store, "resolve:", key, memo, NULL, error);
}

bool resolve_packages(const ResolveRequest *request, json_t **ret, char **ret_note, GError **error)
{
    g_autoptr(json_t) urls = NULL, releases = NULL, key = json_object();
    g_autoptr(ResolveGuest) guest = NULL;
    char hex[DIGEST_HEX_SIZE];

    *ret = NULL;
    if (!sources_of(request, &urls, &guest, error))
        return false;
    if (!json_is_array(urls)) {
        if (ret_note)
            *ret_note = g_strdup("this guest has no dpkg database: its own package manager resolves");
        return true;
    }
    if (request->locked) {
        if ((!guest && !resolve_guest_read(request, &guest, error)) || !guest || !lock_fits(guest, request->locked, error))
            return false;
        *ret = json_incref((json_t *)request->locked);
        return true;
    }
    if (!add_own(request, urls, key, error) || !releases_of(request, urls, &releases, error))
        return false;
    resolution_key(request, key, hex);
    if (!recall_resolution(request, hex, releases, ret, error))
        return false;
    if (*ret)
        return true;
    if (!guest && !resolve_guest_read(request, &guest, error))
        return false;
    return resolve_with_apt(request, guest, releases, ret, error) &&
           remember_resolution(request, hex, releases, *ret, error);
}

bool resolve_is_empty(const json_t *transaction)
{
    return json_array_size(json_object_get(transaction, "operations")) == 0 &&
           json_array_size(json_object_get(transaction, "manual")) == 0;
}

void resolve_digest(const json_t *transaction, Digest *ret)
{
    g_autoptr(json_t) copy = json_deep_copy(transaction);
    size_t i;
    json_t *one;

    json_array_foreach (json_object_get(copy, "install"), i, one)
        json_object_del(one, "uri");
    json_object_del(copy, "growth");
    json_digest(copy, ret);
}

char *resolve_summary(const json_t *transaction)
{
    g_autoptr(GString) text = g_string_new(NULL), names = g_string_new(NULL);
    unsigned fresh = 0, changed = 0;
    size_t removed = json_array_size(json_object_get(transaction, "remove")), i;
    uint64_t bytes = 0;
    json_t *one;

    if (resolve_is_empty(transaction))
        return g_strdup("nothing to do");
    json_array_foreach (json_object_get(transaction, "install"), i, one) {
        const char *from = json_string_value(json_object_get(one, "from"));

        bytes += (uint64_t)json_integer_value(json_object_get(one, "size"));
        fresh += !from;
        changed += from != NULL;
        if (from && changed <= 3)
            g_string_append_printf(names, "%s%s %s -> %s", changed > 1 ? ", " : "",
                                   json_string_value(json_object_get(one, "name")), from,
                                   json_string_value(json_object_get(one, "version")));
    }
    if (fresh)
        g_string_append_printf(text, "%u new, ", fresh);
    if (changed)
        g_string_append_printf(text, "%u upgraded (%s%s), ", changed, names->str, changed > 3 ? ", ..." : "");
    if (removed)
        g_string_append_printf(text, "%zu removed, ", removed);
    if (bytes) {
        g_autofree char *size = units_format_size(bytes);

        g_string_append_printf(text, "%s, ", size);
    }
    if (text->len == 0)
        return g_strdup("only marks change");
    g_string_truncate(text, text->len - 2);
    return g_string_free(g_steal_pointer(&text), FALSE);
}

/* ---- fetching ---- */

typedef struct Fetch {
    const char *name, *uri, *sha256;
    uint64_t size;
    char *file;
    int folder;
    GError *error;
} Fetch;

static void fetch_package(gpointer data, gpointer unused)
{
    Fetch *fetch = data;
    HttpDownload request = {.url = fetch->uri, .max_size = fetch->size + 1};
    Digest digest, wanted;

    (void)unused;
    if (!fetch->uri || !*fetch->uri) {
        fail(&fetch->error, "nobody knows where to fetch it from: the lock has no \"uri\" for it");
        return;
    }
    if (!http_download(&request, fetch->folder, fetch->file, &fetch->error) ||
        !digest_of_file(fetch->folder, fetch->file, &digest, NULL, &fetch->error))
        return;
    if (!digest_parse(fetch->sha256, &wanted) || !digest_equal(&digest, &wanted))
        fail(&fetch->error, "'%s' is not what the package lists say: its SHA-256 differs", fetch->uri);
}

static bool keep_package(const ResolveRequest *request, Fetch *fetch, GError **error)
{
    auto_fd int fd = -1;
    g_autofree char *key = g_strconcat(MEMO_PACKAGE, fetch->sha256, NULL);
    Digest digest;

    if (fetch->error) {
        g_propagate_prefixed_error(error, g_steal_pointer(&fetch->error), "package '%s': ", fetch->name);
        return false;
    }
    fd = openat(fetch->folder, fetch->file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(error, "open package '%s'", fetch->name);
    return store_blob_put_file(request->store, fd, &digest, NULL, error) &&
           store_memo_put(request->store, key, fetch->name, &digest, NULL, error) &&
           (unlinkat(fetch->folder, fetch->file, 0) == 0 || fail_errno(error, "remove a fetched package"));
}

static bool is_kept(const ResolveRequest *request, const char *sha256, bool *ret, GError **error)
{
    g_autofree char *key = g_strconcat(MEMO_PACKAGE, sha256, NULL), *value = NULL;
    Digest digest;

    *ret = false;
    if (!digest_parse(sha256, &digest))
        return fail(error, "'%s' is no SHA-256", sha256);
    if (!store_memo_get(request->store, key, &value, error))
        return false;
    *ret = value && store_blob_has(request->store, &digest);
    return true;
}

static bool collect_missing(const ResolveRequest *request, const json_t *transaction, int folder, GArray *ret, GError **error)
{
    size_t i;
    json_t *one;

    json_array_foreach (json_object_get(transaction, "install"), i, one) {
        Fetch fetch = {.folder = folder};
        int64_t size;
        bool kept;

        if (!json_get_string(one, "name", "", &fetch.name, error) || !json_get_string(one, "uri", NULL, &fetch.uri, error) ||
            !json_get_string(one, "sha256", "", &fetch.sha256, error) || !json_get_int(one, "size", 0, &size, error) ||
            !is_kept(request, fetch.sha256, &kept, error))
            return false;
        if (kept)
            continue;
        if (request->offline)
            return fail(error, "package '%s' is not in the store, and --offline allows no download", fetch.name);
        fetch.size = (uint64_t)MAX(size, 0);
        fetch.file = g_strdup_printf("%zu", i);
        g_array_append_val(ret, fetch);
    }
    return true;
}

static void fetch_clear(gpointer data)
{
    Fetch *fetch = data;

    g_free(fetch->file);
    g_clear_error(&fetch->error);
}

bool resolve_fetch(const ResolveRequest *request, const json_t *transaction, GError **error)
{
    g_autoptr(GArray) missing = g_array_new(FALSE, FALSE, sizeof(Fetch));
    g_autofree char *path = NULL;
    auto_fd int folder = -1;
    GThreadPool *pool;
    uint64_t bytes = 0;
    bool ok = true;

    g_array_set_clear_func(missing, fetch_clear);
    if (!store_make_tmpdir(request->store, &path, error))
        return false;
    folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ok = folder >= 0 ? collect_missing(request, transaction, folder, missing, error) : fail_errno(error, "open '%s'", path);
    for (guint i = 0; i < missing->len; i++)
        bytes += g_array_index(missing, Fetch, i).size;
    if (ok && missing->len) {
        g_autofree char *size = units_format_size(bytes);

        log_info("    fetching %u package%s, %s", missing->len, missing->len == 1 ? "" : "s", size);
        pool = g_thread_pool_new(fetch_package, NULL, DOWNLOADS, FALSE, NULL);
        for (guint i = 0; i < missing->len; i++)
            (void)g_thread_pool_push(pool, &g_array_index(missing, Fetch, i), NULL);
        g_thread_pool_free(pool, FALSE, TRUE);
        ok = interrupt_check(error);
    }
    for (guint i = 0; ok && i < missing->len; i++)
        ok = keep_package(request, &g_array_index(missing, Fetch, i), error);
    (void)file_remove_tree(AT_FDCWD, path, NULL); /* recovery would remove it too */
    return ok;
}
