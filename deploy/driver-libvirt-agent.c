/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's agent, as far as we use it: is it there, and what do a few files hold. Nothing is written or run through it.
 *
 * Its answers are the guest's, which is hostile: sizes are bounded, and what it says can only take a proof away or add the weakest one.
 */
#include "base/json.h"
#include "base/scope.h"
#include "deploy/driver-libvirt.h"

#include <libvirt/libvirt-qemu.h>
#include <string.h>

enum { AGENT_SECONDS = 2, READ_SIZE = 64 << 10, FILE_SIZE_MAX = 4 << 20 };
#define ANSWER_MAX ((size_t)READ_SIZE * 2)

/* *ret: the member "return" of the answer. */
static bool ask(LvHost *host, virDomainPtr domain, const char *command, json_t *arguments /* taken, may be NULL */, json_t **ret, GError **error)
{
    g_autoptr(json_t) question = json_pack("{s:s}", "execute", command), answer = NULL;
    g_autofree char *text = NULL;
    auto_text *reply = NULL;
    json_t *result;

    if (arguments)
        json_object_set_new(question, "arguments", arguments);
    text = json_canonical(question);
    reply = virDomainQemuAgentCommand(domain, text, AGENT_SECONDS, 0);
    if (!reply)
        return lv_fail(host, error, "ask the agent of '%s'", virDomainGetName(domain));
    if (!json_parse(reply, strnlen(reply, ANSWER_MAX + 1), ANSWER_MAX, "the agent's answer", &answer, error))
        return false;
    result = json_object_get(answer, "return");
    if (!result)
        return fail(error, "the agent of '%s' gave no answer", virDomainGetName(domain));
    *ret = json_incref(result);
    return true;
}

static bool find(LvHost *host, const char *name, virDomainPtr *ret, GError **error)
{
    if (!lv_connect(host, error))
        return false;
    *ret = virDomainLookupByName(host->connection, name);
    return *ret || lv_fail(host, error, "find '%s'", name);
}

bool lv_ping(LvHost *host, const char *name, GError **error)
{
    auto_domain domain = NULL;
    g_autoptr(json_t) pong = NULL;

    return find(host, name, &domain, error) && ask(host, domain, "guest-ping", NULL, &pong, error);
}

static bool open_file(LvHost *host, virDomainPtr domain, const char *path, json_int_t *ret_handle)
{
    g_autofree char *absolute = g_strdup_printf("/%s", path);
    g_autoptr(json_t) handle = NULL;

    if (!ask(host, domain, "guest-file-open", json_pack("{s:s, s:s}", "path", absolute, "mode", "r"), &handle, NULL) || !json_is_integer(handle))
        return false;
    *ret_handle = json_integer_value(handle);
    return true;
}

/* *ret_size 0 at the end. */
static bool read_piece(LvHost *host, virDomainPtr domain, json_int_t handle, guchar **ret, gsize *ret_size)
{
    g_autoptr(json_t) piece = NULL;
    const char *text;

    if (!ask(host, domain, "guest-file-read", json_pack("{s:I, s:i}", "handle", handle, "count", READ_SIZE), &piece, NULL))
        return false;
    text = json_string_value(json_object_get(piece, "buf-b64"));
    if (!text)
        return false;
    *ret = g_base64_decode(text, ret_size);
    return true;
}

/* False: it could not be read, whatever the reason; that proves nothing. */
static bool digest_inside(LvHost *host, virDomainPtr domain, const char *path, BoundedCall *call, Digest *ret)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    g_autoptr(json_t) closed = NULL;
    json_int_t handle;
    gsize size = 1, total = 0;
    bool ok = true;

    if (!open_file(host, domain, path, &handle))
        return false;
    while (ok && size > 0 && total <= FILE_SIZE_MAX && !bounded_call_given_up(call)) {
        g_autofree guchar *data = NULL;

        ok = read_piece(host, domain, handle, &data, &size);
        if (ok)
            digest_stream_update(stream, data, size);
        total += ok ? size : 0;
        bounded_call_tick(call);
    }
    (void)ask(host, domain, "guest-file-close", json_pack("{s:I}", "handle", handle), &closed, NULL);
    digest_stream_final(stream, ret);
    return ok && size == 0;
}

bool lv_guest_compare(LvHost *host, const char *name, GHashTable *digests, BoundedCall *call, bool *ret_proven, GError **error)
{
    auto_domain domain = NULL;
    g_autoptr(json_t) pong = NULL;
    GHashTableIter each;
    gpointer path, expected;
    Digest found;

    *ret_proven = false;
    if (!find(host, name, &domain, NULL) || !ask(host, domain, "guest-ping", NULL, &pong, NULL))
        return true; /* no agent (yet): no proof */
    g_hash_table_iter_init(&each, digests);
    while (g_hash_table_iter_next(&each, &path, &expected)) {
        if (!digest_inside(host, domain, path, call, &found))
            continue;
        if (!digest_equal(&found, expected))
            return fail(error, "'%s': /%s inside the guest is not the image's", name, (const char *)path);
        *ret_proven = true;
    }
    return true;
}
