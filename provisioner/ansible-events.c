/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services at boot, and the task that failed.
 *
 * The lines come from a process on the host or out of the guest: every length is bounded, what is no event is passed over.
 */
#include "provisioner/ansible-events.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "provisioner/guest-units.h"

#include <fcntl.h>
#include <string.h>

#define LINE_MAX_SIZE (64u << 10)
#define NAME_MAX_SIZE 256u
#define MESSAGE_MAX 500u

struct AnsibleEvents {
    GHashTable *services; /* names */
    char *task, *message; /* of the last failure; NULL: none was told */
};

void ansible_events_free(AnsibleEvents *events)
{
    if (!events)
        return;
    g_hash_table_unref(events->services);
    g_free(events->task);
    g_free(events->message);
    g_free(events);
}

static void set_text(char **to, const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));

    g_free(*to);
    *to = g_strndup(text ? text : "", MESSAGE_MAX);
    *to = g_strdelimit(*to, "\n\r\t", ' ');
    if (!g_utf8_validate(*to, -1, NULL)) {
        char *valid = g_utf8_make_valid(*to, -1);

        g_free(*to);
        *to = valid;
    }
    (void)g_strstrip(*to);
}

static void take(AnsibleEvents *events, const char *line)
{
    g_autoptr(json_t) event = NULL;
    const char *kind, *name;

    if (!*line || !json_parse(line, strlen(line), LINE_MAX_SIZE, "an event", &event, NULL))
        return;
    kind = json_string_value(json_object_get(event, "event"));
    name = json_string_value(json_object_get(event, "name"));
    if (g_strcmp0(kind, "service") == 0 && name && strlen(name) < NAME_MAX_SIZE)
        g_hash_table_add(events->services, g_strdup(name));
    if (g_strcmp0(kind, "failed") == 0) {
        set_text(&events->task, event, "task");
        set_text(&events->message, event, "message");
    }
}

AnsibleEvents *ansible_events_parse(const char *text)
{
    AnsibleEvents *events = g_new0(AnsibleEvents, 1);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    events->services = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (char **line = lines; *line; line++)
        take(events, *line);
    return events;
}

AnsibleEvents *ansible_events_load(const char *path)
{
    g_autoptr(GBytes) bytes = NULL;

    (void)file_load(AT_FDCWD, path, ANSIBLE_EVENTS_MAX, &bytes, NULL); /* nothing was told */
    return ansible_events_parse(bytes ? g_bytes_get_data(bytes, NULL) : "");
}

/* All of them in one text, sorted. */
static char *join(GHashTable *names)
{
    g_autoptr(GList) sorted = g_list_sort(g_hash_table_get_keys(names), (GCompareFunc)strcmp);
    GString *text = g_string_new(NULL);

    for (const GList *at = sorted; at; at = at->next)
        g_string_append_printf(text, "%s%s", text->len ? ", " : "", (const char *)at->data);
    return g_string_free(text, FALSE);
}

bool ansible_events_tell(const AnsibleEvents *events, const ProvisionerHost *host, Guest *guest,
                         GError **error)
{
    return guest_units_tell(guest, events->services, true, host, error);
}

bool ansible_events_fail(const AnsibleEvents *events, const char *playbook, int code, GError **error)
{
    g_autofree char *names = join(events->services);
    g_autofree char *services =
        *names ? g_strdup_printf(" (no service runs in a bake: %s will, at boot)", names) : g_strdup("");

    if (events->task)
        return fail(error, "playbook \"%s\": task \"%s\" failed: %s%s", playbook, events->task,
                    events->message, services);
    return fail(error, "playbook \"%s\" failed: ansible-playbook exited with %d%s", playbook, code, services);
}
