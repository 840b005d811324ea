/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Amazon's variables and files. Secrets are read, never shown.
 */
#include "store/s3-account.h"

#include "base/error.h"
#include "base/file.h"

#include <fcntl.h>
#include <string.h>

#define FILE_MAX ((size_t)1 << 20)

void s3_account_clear(S3Account *account)
{
    g_free(account->access_key);
    g_free(account->secret_key);
    g_free(account->session_token);
    g_free(account->region);
    g_free(account->endpoint);
    g_free(account->ca_file);
    *account = (S3Account){0};
}

/* "[profile  name]" is how the second of the two files calls what the first calls "[name]". */
static bool is_section(const char *line, const char *section)
{
    g_autofree char *name = g_strndup(line + 1, strcspn(line + 1, "]"));

    g_strstrip(name);
    if (g_str_has_prefix(name, "profile ") || g_str_has_prefix(name, "profile\t"))
        return strcmp(g_strchug(name + strlen("profile ")), section) == 0;
    return strcmp(name, section) == 0;
}

char *s3_profile_value(const char *text, const char *section, const char *name)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    bool inside = false;

    for (char **line = lines; *line; line++) {
        char *equals;

        if (g_ascii_isspace(**line)) /* belongs to the setting above */
            continue;
        g_strstrip(*line);
        if (**line == '[')
            inside = is_section(*line, section);
        if (!inside || strchr("#;[", **line) || !(equals = strchr(*line, '=')))
            continue;
        *equals = '\0';
        if (g_ascii_strcasecmp(g_strchomp(*line), name) == 0 && *g_strchug(equals + 1))
            return g_strdup(equals + 1);
    }
    return NULL;
}

typedef struct Files {
    char *credentials, *config; /* their text; NULL: none */
    const char *profile;
} Files;

static char *load(const char *variable, const char *usual)
{
    g_autofree char *path = g_getenv(variable) ? g_strdup(g_getenv(variable)) : g_build_filename(g_get_home_dir(), ".aws", usual, NULL);
    g_autoptr(GBytes) bytes = NULL;

    /* Who has no such file has variables, or is told what is lacking. */
    if (!file_load(AT_FDCWD, path, FILE_MAX, &bytes, NULL))
        return NULL;
    return g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
}

static char *from_files(const Files *files, const char *name)
{
    char *value = files->credentials ? s3_profile_value(files->credentials, files->profile, name) : NULL;

    return value || !files->config ? value : s3_profile_value(files->config, files->profile, name);
}

static char *find(const Files *files, const char *variable, const char *other, const char *name)
{
    const char *value = g_getenv(variable);

    if ((!value || !*value) && other)
        value = g_getenv(other);
    return value && *value ? g_strdup(value) : from_files(files, name);
}

static void find_keys(const Files *files, S3Account *ret)
{
    const char *key = g_getenv("AWS_ACCESS_KEY_ID");

    if (key && *key) { /* never half of one and half of the other */
        ret->access_key = g_strdup(key);
        ret->secret_key = g_strdup(g_getenv("AWS_SECRET_ACCESS_KEY"));
        ret->session_token = g_strdup(g_getenv("AWS_SESSION_TOKEN"));
    } else {
        ret->access_key = from_files(files, "aws_access_key_id");
        ret->secret_key = from_files(files, "aws_secret_access_key");
        ret->session_token = from_files(files, "aws_session_token");
    }
    if (ret->session_token && !*ret->session_token)
        g_clear_pointer(&ret->session_token, g_free);
}

bool s3_account_find(S3Account *ret, GError **error)
{
    const char *profile = g_getenv("AWS_PROFILE");
    Files files = {.credentials = load("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
                   .config = load("AWS_CONFIG_FILE", "config"),
                   .profile = profile && *profile ? profile : "default"};

    find_keys(&files, ret);
    ret->region = find(&files, "AWS_REGION", "AWS_DEFAULT_REGION", "region");
    if (!ret->region)
        ret->region = g_strdup("us-east-1");
    ret->endpoint = find(&files, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "endpoint_url");
    ret->ca_file = find(&files, "AWS_CA_BUNDLE", NULL, "ca_bundle");
    g_free(files.credentials);
    g_free(files.config);
    if (!ret->access_key || !ret->secret_key || !*ret->secret_key)
        return fail_code(error, KILN_ERROR_USAGE,
                         "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or have them in ~/.aws/credentials (profile '%s')",
                         files.profile);
    if (strpbrk(ret->region, ": \t/") || strchr(ret->access_key, ':'))
        return fail_code(error, KILN_ERROR_USAGE, "the region or the access key for S3 has characters that none can have");
    return true;
}
