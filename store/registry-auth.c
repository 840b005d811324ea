/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passwords for registries. What is read here never goes into a message or a trace.
 */
#include "store/registry-auth.h"

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"
#include "store/registry.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_MAX (1u << 20)
#define AUTH_MAX 65536
#define HEADER_MAX 16384
#define HELPER_SECONDS 60

void registry_login_clear(RegistryLogin *login)
{
    g_free(login->user);
    g_free(login->password);
    g_free(login->identity);
    *login = (RegistryLogin){0};
}

void registry_challenge_clear(RegistryChallenge *challenge)
{
    g_free(challenge->realm);
    g_free(challenge->service);
    g_free(challenge->scope);
    *challenge = (RegistryChallenge){0};
}

char *registry_basic(const RegistryLogin *login)
{
    g_autofree char *pair = g_strconcat(login->user, ":", login->password, NULL);
    g_autofree char *text = g_base64_encode((const guchar *)pair, strlen(pair));

    return g_strconcat("Basic ", text, NULL);
}

/* --- one file --- */

static const char *text_in(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text && *text ? text : NULL;
}

static bool decode_pair(const char *auth, RegistryLogin *ret)
{
    g_autofree guchar *bytes = NULL;
    g_autofree char *pair = NULL;
    char *colon;
    gsize size;

    if (strlen(auth) > AUTH_MAX)
        return false;
    bytes = g_base64_decode(auth, &size);
    pair = g_strndup((const char *)bytes, size);
    colon = strchr(pair, ':');
    if (!colon || colon == pair || strlen(pair) < strcspn(pair, "\r\n"))
        return false;
    ret->user = g_strndup(pair, (gsize)(colon - pair));
    ret->password = g_strdup(colon + 1);
    return true;
}

static bool read_entry(const json_t *entry, RegistryLogin *ret)
{
    const char *auth = text_in(entry, "auth"), *identity = text_in(entry, "identitytoken");
    const char *user = text_in(entry, "username"), *password = text_in(entry, "password");

    if (auth)
        (void)decode_pair(auth, ret);
    if (!ret->user && user && password) {
        ret->user = g_strdup(user);
        ret->password = g_strdup(password);
    }
    ret->identity = g_strdup(identity);
    return ret->user || ret->identity;
}

/* "https://index.docker.io/v1/" and "index.docker.io" are both old ways to write docker.io. */
static char *plain_key(const char *key)
{
    const char *scheme = strstr(key, "://");
    bool url = scheme != NULL;
    char *plain = g_strdup(url ? scheme + 3 : key), *slash = strchr(plain, '/');

    if (slash && (url || strcmp(slash, "/v1/") == 0 || strcmp(slash, "/v2/") == 0 || strcmp(slash, "/v1") == 0 || strcmp(slash, "/") == 0))
        *slash = '\0';
    if (strcmp(plain, "index.docker.io") == 0 || strcmp(plain, "registry-1.docker.io") == 0) {
        g_free(plain);
        plain = g_strdup("docker.io");
    }
    return plain;
}

/* How much of HOST/REPOSITORY the key covers; 0: none. */
static size_t fit(const char *key, const char *whole, const char *host)
{
    g_autofree char *plain = plain_key(key);
    size_t size = strlen(plain);

    if (g_ascii_strcasecmp(plain, host) == 0)
        return size;
    return g_str_has_prefix(whole, plain) && (whole[size] == '/' || whole[size] == '\0') && size > strlen(host) ? size : 0;
}

bool registry_login_in(const json_t *config, const char *host, const char *repository, RegistryLogin *ret, char **ret_helper)
{
    g_autofree char *whole = g_strconcat(host, "/", repository, NULL);
    json_t *auths = json_object_get(config, "auths"), *helpers = json_object_get(config, "credHelpers"), *value;
    const json_t *best = NULL;
    const char *key;
    size_t best_fit = 0;

    *ret_helper = NULL;
    json_object_foreach(helpers, key, value) {
        if (fit(key, whole, host) > best_fit && json_is_string(value)) {
            best_fit = fit(key, whole, host);
            g_free(*ret_helper);
            *ret_helper = g_strdup(json_string_value(value));
        }
    }
    if (*ret_helper)
        return true;
    json_object_foreach(auths, key, value) {
        if (fit(key, whole, host) > best_fit && json_is_object(value) && (text_in(value, "auth") || text_in(value, "identitytoken") || text_in(value, "username"))) {
            best_fit = fit(key, whole, host);
            best = value;
        }
    }
    if (best && read_entry(best, ret))
        return true;
    *ret_helper = g_strdup(text_in(config, "credsStore"));
    return *ret_helper != NULL;
}

/* --- helpers --- */

static bool feed(const char *text, int *ret_fd, GError **error)
{
    int pipe_fds[2];
    bool ok;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return fail_errno(error, "make a pipe");
    ok = file_write_full(pipe_fds[1], text, strlen(text), "a pipe", error);
    (void)close(pipe_fds[1]);
    if (!ok)
        (void)close(pipe_fds[0]);
    else
        *ret_fd = pipe_fds[0];
    return ok;
}

static void helper_line(const char *line, bool is_stderr, void *arg)
{
    GString *out = arg;

    if (!is_stderr && out->len < AUTH_MAX)
        g_string_append(out, line);
}

static bool take_helper_answer(const char *text, RegistryLogin *ret)
{
    g_autoptr(json_t) answer = NULL;
    const char *user, *secret;

    if (!json_parse(text, strlen(text), AUTH_MAX, "a credential helper's answer", &answer, NULL))
        return false;
    user = text_in(answer, "Username");
    secret = text_in(answer, "Secret");
    if (!user || !secret)
        return false;
    if (strcmp(user, "<token>") == 0) {
        ret->identity = g_strdup(secret);
    } else {
        ret->user = g_strdup(user);
        ret->password = g_strdup(secret);
    }
    return true;
}

/* One that knows nothing says so on its standard output, with an exit code. */
static bool ask_helper(const char *name, const char *host, RegistryLogin *ret, GError **error)
{
    g_autofree char *program = g_strconcat("docker-credential-", name, NULL);
    const char *argv[] = {program, "get", NULL};
    g_autoptr(GString) out = g_string_new(NULL);
    ProcessSpec spec = {.argv = argv, .on_line = helper_line, .arg = out, .timeout = HELPER_SECONDS};
    auto_fd int in = -1;
    int code = 0;

    if (strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != strlen(name))
        return fail(error, "the credential helper's name '%s' is none", name);
    if (!process_have(program))
        return fail(error, "the credential helper '%s' is not installed", program);
    if (!feed(strcmp(host, "docker.io") == 0 ? "https://index.docker.io/v1/" : host, &in, error))
        return false;
    spec.stdin_fd = in;
    if (!process_run(&spec, &code, error))
        return false;
    if (code != 0 && strstr(out->str, "not found"))
        return true;
    return (code == 0 && take_helper_answer(out->str, ret)) || fail(error, "the credential helper '%s' gave no login for %s (exit code %d)", program, host, code);
}

/* --- given ones --- */

static GMutex given_lock;
static GHashTable *given_logins; /* host -> RegistryLogin*; lives as long as the process */

static void free_login(gpointer data)
{
    registry_login_clear(data);
    g_free(data);
}

void registry_login_add(const char *server, const char *user, const char *password)
{
    RegistryLogin *login = g_new0(RegistryLogin, 1);
    g_autofree char *plain = plain_key(server);

    login->user = g_strdup(user);
    login->password = g_strdup(password);
    AUTO_LOCK(&given_lock);
    if (!given_logins)
        given_logins = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_login);
    g_hash_table_replace(given_logins, g_ascii_strdown(plain, -1), login);
}

static bool find_given(const char *host, RegistryLogin *ret)
{
    const RegistryLogin *login;

    AUTO_LOCK(&given_lock);
    login = given_logins ? g_hash_table_lookup(given_logins, host) : NULL;
    if (login)
        *ret = (RegistryLogin){.user = g_strdup(login->user), .password = g_strdup(login->password)};
    return login != NULL;
}

/* --- all files --- */

static bool look_into(const char *path, const char *host, const char *repository, RegistryLogin *ret, bool *ret_found, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) config = NULL;
    g_autofree char *helper = NULL;

    *ret_found = false;
    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        return true;
    if (!file_load(AT_FDCWD, path, CONFIG_MAX, &bytes, error))
        return false;
    if (!json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), CONFIG_MAX, path, &config, error))
        return false;
    if (!registry_login_in(config, host, repository, ret, &helper))
        return true;
    if (helper && !ask_helper(helper, host, ret, error))
        return false;
    *ret_found = ret->user || ret->identity;
    return true;
}

bool registry_login_find(const char *host, const char *repository, RegistryLogin *ret, GError **error)
{
    g_auto(RegistryLogin) login = {0};
    const char *given = g_getenv("REGISTRY_AUTH_FILE"), *runtime = g_getenv("XDG_RUNTIME_DIR"), *docker = g_getenv("DOCKER_CONFIG");
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
    bool found = false;

    if (find_given(host, ret))
        return true;
    if (given && *given)
        g_ptr_array_add(files, g_strdup(given));
    if (runtime && *runtime)
        g_ptr_array_add(files, g_build_filename(runtime, "containers", "auth.json", NULL));
    g_ptr_array_add(files, g_build_filename(g_get_user_config_dir(), "containers", "auth.json", NULL));
    g_ptr_array_add(files, docker && *docker ? g_build_filename(docker, "config.json", NULL) : g_build_filename(g_get_home_dir(), ".docker", "config.json", NULL));
    for (guint i = 0; i < files->len && !found; i++)
        if (!look_into(files->pdata[i], host, repository, &login, &found, error))
            return false;
    *ret = login;
    login = (RegistryLogin){0};
    return true;
}

/* --- challenges --- */

static char *take_word(const char **at)
{
    const char *start = *at;

    while (**at && !strchr(" \t,=\"", **at))
        (*at)++;
    return g_strndup(start, (gsize)(*at - start));
}

static char *take_value(const char **at)
{
    g_autoptr(GString) text = g_string_new(NULL);

    if (**at != '"')
        return take_word(at);
    for ((*at)++; **at && **at != '"'; (*at)++) {
        if (**at == '\\' && (*at)[1])
            (*at)++;
        g_string_append_c(text, **at);
    }
    if (**at)
        (*at)++;
    return g_strdup(text->str);
}

static void take_parameter(RegistryChallenge *challenge, const char *name, char *value)
{
    char **slot = g_ascii_strcasecmp(name, "realm") == 0     ? &challenge->realm
                  : g_ascii_strcasecmp(name, "service") == 0 ? &challenge->service
                  : g_ascii_strcasecmp(name, "scope") == 0   ? &challenge->scope
                                                             : NULL;

    if (slot && !*slot)
        *slot = value;
    else
        g_free(value);
}

/* A word with '=' behind it belongs to the scheme before; one without begins another. */
void registry_challenge_parse(const char *header, RegistryChallenge *ret)
{
    const char *at = header;
    bool in_bearer = false;

    *ret = (RegistryChallenge){0};
    if (strlen(header) > HEADER_MAX)
        return;
    while (*at) {
        g_autofree char *word = NULL;

        at += strspn(at, " \t,");
        word = take_word(&at);
        if (*at == '=') {
            at++;
            if (in_bearer)
                take_parameter(ret, word, take_value(&at));
            else
                g_free(take_value(&at));
        } else if (*word) {
            in_bearer = g_ascii_strcasecmp(word, "Bearer") == 0 && !ret->bearer;
            ret->bearer = ret->bearer || in_bearer;
            ret->basic = ret->basic || g_ascii_strcasecmp(word, "Basic") == 0;
        } else if (*at) {
            at++; /* what nothing begins with */
        }
    }
}
