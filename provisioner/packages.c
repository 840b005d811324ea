/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "packages": install, remove, upgrade.
 *
 * Where the host resolved the step (guests with dpkg), packages-dpkg.c plays what it found. Else the guest's own package
 * manager, apt, dnf or apk, runs in the guest with network. Everything that package managers
 * would ask is answered beforehand (keep the guest's configuration files where they were changed, the
 * maintainer's otherwise), and what makes them lie is turned off: apt-get update succeeds by default when
 * half of its lists could not be fetched.
 *
 * stderr goes through a file in the step's /tmp, so that a failure can be told in one sentence ("package 'x'
 * does not exist ..."). It is not piped: a daemon that a maintainer script leaves behind would hold the pipe
 * open for ever.
 */
#include "base/error.h"
#include "provisioner/apt-sources.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/members.h"
#include "provisioner/packages-dpkg.h"

#include <string.h>

#define ERRORS_PATH "/tmp/kiln-packages-errors"
#define ERRORS_MAX (4u << 20)
#define SECURITY_LIST "/tmp/kiln-security.list"
#define SECURITY_PARTS "/tmp/kiln-security.d"

#define PACKAGES_ARGUMENTS(X)                                                                                          \
    X(install, TEXTS) X(remove, TEXTS) X(upgrade, TEXT) X(recommends, BOOL) X(purge, BOOL) X(autoremove, BOOL)        \
    X(hold, TEXTS) X(exclude, TEXTS) X(conffiles, TEXT) X(default_release, TEXT) X(repositories, TEXTS)               \
    X(repository_keys, TEXTS) X(debconf, MAP)
ARGUMENTS_DEFINE(PACKAGES_ARGUMENTS);

/* ---- arguments ---- */

static const char *skip_class(const char *p, const char *also)
{
    while (g_ascii_isalnum(*p) || (*p && strchr(also, *p)))
        p++;
    return p;
}

/*
 * NAME[:ARCH][=VERSION|/SUITE]. What it keeps out: options (a leading dash), and apt's trailing dash,
 * which would turn an installation into a removal.
 */
static bool name_is_valid(const char *name)
{
    const char *p = skip_class(name, "+._-");

    if (!g_ascii_isalnum(*name) || p - name > 200 || p[-1] == '-')
        return false;
    if (*p == ':') {
        const char *arch = p + 1;
        p = skip_class(arch, "-");
        if (p == arch)
            return false;
    }
    if (*p == '=' || *p == '/') {
        const char *version = p + 1;
        p = skip_class(version, "+._~:-");
        if (p == version || p - version > 200)
            return false;
    }
    return *p == '\0';
}

static bool check_names(const json_t *args, const char *argument, const char **ret_argument, GError **error)
{
    g_auto(GStrv) names = argument_texts(args, argument);

    for (char **name = names; *name; name++)
        if (!name_is_valid(*name)) {
            *ret_argument = argument;
            return fail_code(error, KILN_ERROR_USAGE, "'%s': \"%s\" is no package name", argument, *name);
        }
    return true;
}

static const char *const conffiles_words[] = {"keep", "new", NULL};

static bool check_word(const json_t *args, const char *argument, const char *const *allowed, const char **ret_argument,
                       GError **error)
{
    g_autofree char *text = argument_text(args, argument, NULL), *list = NULL;

    if (!text || g_strv_contains(allowed, text))
        return true;
    list = g_strjoinv("\" or \"", (char **)allowed);
    *ret_argument = argument;
    return fail_code(error, KILN_ERROR_USAGE, "'%s' must be \"%s\", not \"%s\"", argument, list, text);
}

/* One `deb` line each; what goes into apt's configuration must not bring lines or quotes of its own. */
static bool check_repositories(const json_t *args, const char **ret_argument, GError **error)
{
    g_auto(GStrv) lines = argument_texts(args, "repositories");
    g_autofree char *release = argument_text(args, "default_release", NULL);

    for (char **line = lines; *line; line++)
        if (!g_str_has_prefix(*line, "deb ") || strchr(*line, '\n') || (!strstr(*line, " http://") && !strstr(*line, " https://"))) {
            *ret_argument = "repositories";
            return fail_code(error, KILN_ERROR_USAGE,
                             "'repositories': \"%s\" is no line like \"deb https://example.org/debian bookworm main\"", *line);
        }
    if (release && (!*release || *skip_class(release, "+._-/"))) {
        *ret_argument = "default_release";
        return fail_code(error, KILN_ERROR_USAGE, "'default_release': \"%s\" is no release", release);
    }
    return true;
}

/* What a transaction can do and a package manager in the guest is not asked for. */
static bool needs_transaction(const json_t *args, const char **ret)
{
    static const char *const names[] = {"purge", "autoremove", "hold", "exclude", "conffiles", "default_release", "repositories",
                                        "repository_keys", "debconf", NULL};

    for (const char *const *name = names; *name; name++)
        if (argument_given(args, *name)) {
            *ret = *name;
            return true;
        }
    return false;
}

static bool packages_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *upgrade = argument_text(args, "upgrade", NULL);

    if (!arguments_check(args, argument_specs, ret_argument, error) ||
        !check_names(args, "install", ret_argument, error) ||
        !check_names(args, "remove", ret_argument, error))
        return false;
    if (!check_names(args, "hold", ret_argument, error) || !check_names(args, "exclude", ret_argument, error) ||
        !check_word(args, "conffiles", conffiles_words, ret_argument, error) ||
        !check_repositories(args, ret_argument, error))
        return false;
    if (upgrade && strcmp(upgrade, "all") != 0 && strcmp(upgrade, "security") != 0) {
        *ret_argument = "upgrade";
        return fail_code(error, KILN_ERROR_USAGE, "'upgrade' must be \"all\" or \"security\", not \"%s\"",
                         upgrade);
    }
    if (!upgrade && !argument_given(args, "install") && !argument_given(args, "remove"))
        return fail_code(error, KILN_ERROR_USAGE, "one of install, remove, upgrade is needed");
    return true;
}

static bool packages_wants_network(const json_t *args)
{
    return argument_given(args, "install") || argument_given(args, "upgrade");
}

/* ---- one call of a package manager ---- */

typedef struct Call {
    const ProvisionerHost *host;
    Guest *guest;
    const char *manager; /* "apt-get" */
} Call;

static const char *const environment[] = {
    "DEBIAN_FRONTEND=noninteractive",
    "DEBIAN_PRIORITY=critical",
    "DEBCONF_NONINTERACTIVE_SEEN=true",
    "APT_LISTCHANGES_FRONTEND=none",
    "NEEDRESTART_MODE=l",
    "NEEDRESTART_SUSPEND=1",
    "UCF_FORCE_CONFFOLD=1",
    NULL,
};

/* The rest of @line behind @before, up to @after ("" is the end of the line); NULL when it does not match. */
static char *between(const char *line, const char *before, const char *after)
{
    const char *start = strstr(line, before), *end;

    if (!start)
        return NULL;
    start += strlen(before);
    end = *after ? strstr(start, after) : start + strlen(start);
    return end && end > start ? g_strndup(start, (gsize)(end - start)) : NULL;
}

/* The name of a package that the manager's message says does not exist. */
static char *missing_package(const char *line)
{
    static const struct {
        const char *before, *after;
    } messages[] = {
        {"E: Unable to locate package ", ""},
        {"E: Couldn't find any package by glob '", "'"},
        {"E: Couldn't find any package by regex '", "'"},
        {"E: Package '", "' has no installation candidate"},
        {"No match for argument: ", ""},
        {"Unable to find a match: ", ""},
        {"  ", " (no such package)"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(messages); i++) {
        char *name = between(line, messages[i].before, messages[i].after);
        if (name)
            return g_strstrip(name);
    }
    return NULL;
}

static bool tell_failure(const Call *call, const char *what, int code, const char *errors, GError **error)
{
    g_auto(GStrv) lines = g_strsplit(errors, "\n", -1);
    const char *first = NULL, *last = NULL;

    for (char **line = lines; *line; line++) {
        g_autofree char *name = missing_package(*line);
        if (name)
            return fail(error, "package '%s' does not exist in the guest's package sources", name);
        if (g_str_has_prefix(*line, "E: ") && !first)
            first = *line + 3;
        if (**line)
            last = *line;
    }
    first = first ? first : last;
    if (strcmp(what, "update") == 0)
        return fail(error, "cannot fetch the guest's package lists%s%s%s", first ? ": " : "",
                    first ? first : "", call->host->network ? "" : " (this step has no network)");
    return fail(error, "%s %s failed with exit code %d%s%s", call->manager, what, code, first ? ": " : "",
                first ? first : "");
}

/* @what: the verb, for messages. @argv without the redirection. */
static bool run_manager(const Call *call, const char *what, GPtrArray *argv, GError **error)
{
    static const char script[] =
        "errors=$1; shift; \"$@\" 2>\"$errors\"; code=$?; cat \"$errors\" >&2; exit $code";
    g_autoptr(GBytes) errors = NULL;
    int code = 0;

    g_ptr_array_insert(argv, 0, (void *)ERRORS_PATH);
    g_ptr_array_add(argv, NULL);
    if (!guest_sh(call->guest, call->host, script, (const char *const *)argv->pdata, environment, &code,
                  error))
        return false;
    if (code == 0)
        return call->guest->ops->remove(call->guest, ERRORS_PATH, error);
    if (!guest_get_bytes(call->guest, ERRORS_PATH, ERRORS_MAX, &errors, NULL))
        errors = NULL; /* the exit code must do */
    return tell_failure(call, what, code, errors ? g_bytes_get_data(errors, NULL) : "", error);
}

static void add_words(GPtrArray *argv, const char *const *words)
{
    for (; *words; words++)
        g_ptr_array_add(argv, (void *)*words);
}

/* ---- apt ---- */

static const char *const apt_options[] = {
    "-q", "-y",
    "-o", "APT::Update::Error-Mode=any",
    "-o", "APT::Color=0",
    "-o", "APT::Get::Show-User-Simulation-Note=false",
    "-o", "APT::Get::Always-Include-Phased-Updates=true", /* else the machine-id decides what is installed */
    "-o", "Acquire::Retries=3",
    "-o", "Acquire::Languages=none", /* descriptions for people: a third of the download, and nobody reads them here */
    "-o", "Dpkg::Use-Pty=0",
    "-o", "Dpkg::Options::=--force-confdef",
    "-o", "Dpkg::Options::=--force-confold",
    "-o", "Dpkg::Options::=--force-unsafe-io",
    NULL,
};

/* Restricted to the list that put_security_sources() wrote; the other lists that are there stay. */
static const char *const apt_security[] = {
    "-o", "Dir::Etc::sourcelist=" SECURITY_LIST,
    "-o", "Dir::Etc::sourceparts=" SECURITY_PARTS,
    "-o", "APT::Get::List-Cleanup=0",
    NULL,
};

static bool apt(const Call *call, const char *verb, bool recommends, const char *const *extra, char **names,
                GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    g_ptr_array_add(argv, (void *)"apt-get");
    add_words(argv, apt_options);
    g_ptr_array_add(argv, (void *)"-o");
    g_ptr_array_add(argv,
                    (void *)(recommends ? "APT::Install-Recommends=true" : "APT::Install-Recommends=false"));
    if (extra)
        add_words(argv, extra);
    if (strcmp(verb, "upgrade") == 0)
        g_ptr_array_add(argv, (void *)"--with-new-pkgs");
    g_ptr_array_add(argv, (void *)verb);
    if (names) {
        g_ptr_array_add(argv, (void *)"--");
        add_words(argv, (const char *const *)names);
    }
    return run_manager(call, verb, argv, error);
}

static bool read_sources_file(Guest *guest, const char *path, GString *list, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;

    if (!guest_get_bytes(guest, path, APT_SOURCES_SIZE_MAX, &bytes, error))
        return false;
    if (bytes)
        apt_sources_security(g_bytes_get_data(bytes, NULL), g_str_has_suffix(path, ".sources"), list);
    return true;
}

/* Collects the security entries of all of the guest's sources in one file of the step's /tmp. */
static bool put_security_sources(Guest *guest, GError **error)
{
    static const char parts[] = "/etc/apt/sources.list.d";
    const GuestFile meta = {.mode = 0644}, folder = {.mode = 0755};
    g_autoptr(GString) list = g_string_new(NULL);
    g_auto(GStrv) names = NULL;
    char type;

    if (!read_sources_file(guest, "/etc/apt/sources.list", list, error) ||
        !guest_type(guest, parts, &type, error))
        return false;
    if (type == 'd' && !guest->ops->list(guest, parts, &names, error))
        return false;
    for (char **name = names; name && *name; name++) {
        g_autofree char *path = g_build_filename(parts, *name, NULL);
        if ((g_str_has_suffix(*name, ".list") || g_str_has_suffix(*name, ".sources")) &&
            !strchr(*name, '/') && !read_sources_file(guest, path, list, error))
            return false;
    }
    if (!list->len)
        return fail(
            error,
            "upgrade = \"security\": no package source of the guest has a suite that ends in -security");
    return guest->ops->mkdir(guest, SECURITY_PARTS, &folder, error) &&
           guest_put_bytes(guest, SECURITY_LIST, list->str, list->len, &meta, error);
}

static bool apt_upgrade(const Call *call, const char *upgrade, bool recommends, GError **error)
{
    if (strcmp(upgrade, "all") == 0)
        return apt(call, "upgrade", recommends, NULL, NULL, error);
    return put_security_sources(call->guest, error) &&
           (!call->host->network || apt(call, "update", recommends, apt_security, NULL, error)) &&
           apt(call, "upgrade", recommends, apt_security, NULL, error);
}

static bool run_apt(const Call *call, char **install, char **remove, const char *upgrade, bool recommends,
                    GError **error)
{
    bool wants_lists = *install || (upgrade && strcmp(upgrade, "all") == 0);

    if (wants_lists && call->host->network && !apt(call, "update", recommends, NULL, NULL, error))
        return false;
    if (*install && !apt(call, "install", recommends, NULL, install, error))
        return false;
    if (*remove && !apt(call, "remove", recommends, NULL, remove, error))
        return false;
    return upgrade ? apt_upgrade(call, upgrade, recommends, error) : true;
}

/* ---- dnf and apk ---- */

static bool manager_call(const Call *call, const char *what, const char *const *words, char **names,
                         GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    add_words(argv, words);
    if (names)
        add_words(argv, (const char *const *)names);
    return run_manager(call, what, argv, error);
}

static bool run_dnf(const Call *call, char **install, char **remove, const char *upgrade, bool recommends,
                    GError **error)
{
    const char *weak = recommends ? "--setopt=install_weak_deps=True" : "--setopt=install_weak_deps=False";
    const char *const add[] = {"dnf", "-y", weak, "install", NULL};
    const char *const del[] = {"dnf", "-y", "remove", NULL};
    const char *const all[] = {"dnf", "-y", weak, "upgrade", NULL};
    const char *const security[] = {"dnf", "-y", weak, "--security", "upgrade", NULL};

    if ((*install && !manager_call(call, "install", add, install, error)) ||
        (*remove && !manager_call(call, "remove", del, remove, error)))
        return false;
    return !upgrade ||
           manager_call(call, "upgrade", strcmp(upgrade, "all") == 0 ? all : security, NULL, error);
}

static bool run_apk(const Call *call, char **install, char **remove, const char *upgrade, bool recommends,
                    GError **error)
{
    static const char *const add[] = {"apk", "add", "--no-cache", "--no-progress", NULL};
    static const char *const del[] = {"apk", "del", "--no-progress", NULL};
    static const char *const all[] = {"apk", "upgrade", "--no-cache", "--no-progress", NULL};

    if (upgrade && strcmp(upgrade, "security") == 0)
        return fail(error,
                    "upgrade = \"security\": apk does not know which updates are for security; use \"all\"");
    if ((*install && !manager_call(call, "add", add, install, error)) ||
        (*remove && !manager_call(call, "del", del, remove, error)))
        return false;
    return !upgrade || manager_call(call, "upgrade", all, NULL, error);
}

/* ---- the step ---- */

typedef bool ManagerFn(const Call *call, char **install, char **remove, const char *upgrade, bool recommends,
                       GError **error);

static const struct Manager {
    const char *paths[3];
    const char *name;
    ManagerFn *run;
} managers[] = {
    {{"/usr/bin/apt-get", NULL}, "apt-get", run_apt},
    {{"/usr/bin/dnf", NULL}, "dnf", run_dnf},
    {{"/sbin/apk", "/usr/bin/apk", NULL}, "apk", run_apk},
};

static bool find_manager(Guest *guest, const struct Manager **ret, GError **error)
{
    const char *path = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(managers); i++) {
        if (!guest_first(guest, managers[i].paths, &path, error))
            return false;
        if (path) {
            *ret = &managers[i];
            return true;
        }
    }
    return fail(error, "packages provisioner: the guest has none of apt-get, dnf, apk");
}

static bool packages_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_auto(GStrv) install = argument_texts(args, "install"), remove = argument_texts(args, "remove");
    g_autofree char *upgrade = argument_text(args, "upgrade", NULL);
    const struct Manager *manager = NULL;

    const char *beyond = NULL;

    if (host->transaction)
        return packages_dpkg_run(host, guest, environment, error);
    if (!*install && !*remove && !upgrade)
        return true; /* lists that a template computed and that came out empty */
    if (needs_transaction(args, &beyond))
        return fail(error, "'%s' needs a guest whose packages can be resolved on the host: dpkg on ext4", beyond);
    if (!find_manager(guest, &manager, error))
        return false;
    const Call call = {.host = host, .guest = guest, .manager = manager->name};
    return manager->run(&call, install, remove, upgrade, argument_bool(args, "recommends", false), error);
}

const ProvisionerOps provisioner_packages = {
    .type = "packages",
    .arguments = argument_names,
    .needs_guest = true,
    .wants_network = packages_wants_network,
    .check = packages_check,
    .run = packages_run,
    .volatile_with_network = true,
};
