/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of what is in registries, as docker and podman write them. No I/O.
 */
#include "store/registry.h"

#include "base/error.h"
#include "base/log.h"
#include "base/printable.h"

#include <string.h>

#define TEXT_MAX 1024
#define HOST_MAX 260
#define REPOSITORY_MAX 255
#define TAG_MAX 128

void registry_ref_clear(RegistryRef *ref)
{
    g_free(ref->host);
    g_free(ref->repository);
    g_free(ref->tag);
    *ref = (RegistryRef){0};
}

char *registry_ref_place(const RegistryRef *ref)
{
    return g_strconcat(ref->host, "/", ref->repository, NULL);
}

char *registry_ref_version(const RegistryRef *ref)
{
    char oci[DIGEST_OCI_SIZE];

    if (!digest_is_none(&ref->digest))
        return g_strdup(digest_to_oci(&ref->digest, oci));
    return g_strdup(ref->tag ? ref->tag : "latest");
}

static bool refuse(const char *text, const char *why, GError **error)
{
    g_autofree char *shown = g_strndup(text, 100), *clean = printable_line(shown);

    return fail_code(error, KILN_ERROR_USAGE, "'%s' names nothing in a registry: %s; it is docker://HOST/REPOSITORY[:TAG][@sha256:...]", clean, why);
}

static bool is_tag(const char *tag)
{
    size_t size = strlen(tag);

    return size >= 1 && size <= TAG_MAX && (g_ascii_isalnum(tag[0]) || tag[0] == '_') &&
           strspn(tag, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == size;
}

static bool is_port(const char *text)
{
    size_t size = strlen(text);

    return size >= 1 && size <= 5 && strspn(text, "0123456789") == size && atoi(text) >= 1 && atoi(text) <= 65535;
}

static bool is_host(const char *host)
{
    const char *colon = *host == '[' ? strchr(host, ']') : strchr(host, ':');
    g_autofree char *name = NULL;

    if (*host == '[') {
        if (!colon || (colon[1] && colon[1] != ':'))
            return false;
        name = g_strndup(host + 1, (gsize)(colon - host - 1));
        return *name && strspn(name, "0123456789abcdefABCDEF:.") == strlen(name) && (!colon[1] || is_port(colon + 2));
    }
    name = colon ? g_strndup(host, (gsize)(colon - host)) : g_strdup(host);
    return *name && g_ascii_isalnum(*name) && strlen(host) <= HOST_MAX && !strstr(name, "..") &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-") == strlen(name) && (!colon || is_port(colon + 1));
}

/* [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* with slashes between. */
static bool is_component(const char *text, size_t size)
{
    size_t i = 0;

    for (;;) {
        size_t start = i, gap;

        while (i < size && (g_ascii_islower(text[i]) || g_ascii_isdigit(text[i])))
            i++;
        if (i == start)
            return false;
        if (i == size)
            return true;
        gap = i;
        while (i < size && strchr("._-", text[i]))
            i++;
        if (i == gap)
            return false;
        if (text[gap] != '-' && i - gap > (text[gap] == '_' ? 2u : 1u))
            return false;
        for (size_t j = gap; j < i; j++)
            if (text[j] != text[gap])
                return false;
    }
}

static bool is_repository(const char *text)
{
    if (strlen(text) > REPOSITORY_MAX)
        return false;
    for (;;) {
        size_t size = strcspn(text, "/");

        if (!is_component(text, size))
            return false;
        if (!text[size])
            return true;
        text += size + 1;
    }
}

static bool take_digest(char *rest, RegistryRef *ret, const char *text, GError **error)
{
    char *at = strchr(rest, '@');

    if (!at)
        return true;
    *at++ = '\0';
    if (g_str_has_prefix(at, "sha512:"))
        return refuse(text, "kiln reads sha256 digests only", error);
    return (g_str_has_prefix(at, "sha256:") && digest_parse(at, &ret->digest)) || refuse(text, "what follows '@' is no digest", error);
}

/* A tag's colon comes after the last slash. */
static bool take_tag(char *rest, RegistryRef *ret, const char *text, GError **error)
{
    char *slash = strrchr(rest, '/'), *colon = strchr(slash ? slash : rest, ':');

    if (!colon)
        return true;
    *colon++ = '\0';
    if (!is_tag(colon))
        return refuse(text, "that is no tag", error);
    ret->tag = g_strdup(colon);
    return true;
}

static void split_host(const char *rest, RegistryRef *ret)
{
    const char *slash = strchr(rest, '/');
    g_autofree char *first = slash ? g_strndup(rest, (gsize)(slash - rest)) : NULL;

    if (first && (strpbrk(first, ".:[") || g_ascii_strcasecmp(first, "localhost") == 0)) {
        ret->host = g_ascii_strdown(first, -1);
        ret->repository = g_strdup(slash + 1);
        if (strcmp(ret->host, "index.docker.io") == 0 || strcmp(ret->host, "registry-1.docker.io") == 0) {
            g_free(ret->host);
            ret->host = g_strdup("docker.io");
        }
    } else {
        ret->host = g_strdup("docker.io");
        ret->repository = g_strdup(rest);
    }
    if (strcmp(ret->host, "docker.io") == 0 && !strchr(ret->repository, '/')) {
        char *whole = g_strconcat("library/", ret->repository, NULL);

        g_free(ret->repository);
        ret->repository = whole;
    }
}

bool registry_ref_parse(const char *text, RegistryRef *ret, GError **error)
{
    g_auto(RegistryRef) ref = {0};
    const char *start = g_str_has_prefix(text, REGISTRY_SCHEME) ? text + strlen(REGISTRY_SCHEME) : text;
    g_autofree char *rest = NULL;
    char *tail;

    if (strlen(start) > TEXT_MAX)
        return refuse(text, "it is too long", error);
    rest = g_strdup(start);
    if (!take_digest(rest, &ref, text, error))
        return false;
    /* A port's colon is not a tag's: it stands before the first slash. */
    tail = strchr(rest, '/');
    if (!take_tag(tail ? tail : rest, &ref, text, error))
        return false;
    split_host(rest, &ref);
    if (!is_host(ref.host))
        return refuse(text, "that is no host", error);
    if (!is_repository(ref.repository))
        return refuse(text, "repositories are lower-case words with slashes between", error);
    *ret = ref;
    ref = (RegistryRef){0};
    return true;
}
