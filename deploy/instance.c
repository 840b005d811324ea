/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identities of instances: derived from group, revision, slot and attempt, so that asking for the same one twice gives one.
 */
#include "base/error.h"
#include "deploy/balancer.h"
#include "deploy/driver.h"

#include <stdio.h>

void instance_name(const InstanceId *id, char ret[96])
{
    (void)g_snprintf(ret, 96, "%s-r%u-%u-a%u", id->group, id->revision, id->slot, id->attempt);
}

void instance_uuid(const InstanceId *id, char ret[37])
{
    char name[96];
    uint8_t b[16];

    instance_name(id, name);
    digest_uuid5(name, "instance", b);
    digest_uuid_text(b, ret);
}

bool instance_name_parse(const char *name, InstanceId *ret)
{
    InstanceId id = {.group = ""};
    g_autofree char *again = g_malloc0(96);
    const char *end = name + strlen(name);
    int dashes = 0;

    if (end - name > 90)
        return false;
    while (end > name && dashes < 3)
        if (*--end == '-')
            dashes++;
    if (dashes != 3 || end == name || end - name >= (ptrdiff_t)sizeof id.group ||
        sscanf(end, "-r%9u-%9u-a%9u", &id.revision, &id.slot, &id.attempt) != 3)
        return false;
    memcpy(id.group, name, (size_t)(end - name));
    instance_name(&id, again); /* one spelling only: no leading zeros, nothing behind */
    if (strcmp(again, name) != 0)
        return false;
    *ret = id;
    return true;
}

json_t *instance_id_json(const InstanceId *id)
{
    char image[DIGEST_OCI_SIZE];

    return json_pack("{s:s, s:I, s:I, s:I, s:s, s:I}", "group", id->group, "revision", (json_int_t)id->revision, "slot", (json_int_t)id->slot,
                     "attempt", (json_int_t)id->attempt, "image", digest_to_oci(&id->image, image), "epoch", (json_int_t)id->epoch);
}

static bool get_number(const json_t *json, const char *key, int64_t max, int64_t *ret)
{
    return json_get_int(json, key, -1, ret, NULL) && *ret >= 0 && *ret <= max;
}

bool instance_id_parse(const json_t *json, InstanceId *ret)
{
    InstanceId id = {.group = ""};
    int64_t revision, slot, attempt, epoch;
    const char *group, *image;

    if (!json_is_object(json) || !json_get_string(json, "group", NULL, &group, NULL) || !json_get_string(json, "image", NULL, &image, NULL) ||
        !group || !image || !*group || strlen(group) >= sizeof id.group || !digest_parse(image, &id.image) ||
        !get_number(json, "revision", 999999999, &revision) || !get_number(json, "slot", 999999999, &slot) ||
        !get_number(json, "attempt", 999999999, &attempt) || !get_number(json, "epoch", G_MAXINT64, &epoch))
        return false;
    (void)g_strlcpy(id.group, group, sizeof id.group);
    id.revision = (uint32_t)revision;
    id.slot = (uint32_t)slot;
    id.attempt = (uint32_t)attempt;
    id.epoch = epoch;
    *ret = id;
    return true;
}

void driver_instance_free(DriverInstance *instance)
{
    if (!instance)
        return;
    g_free(instance->name);
    g_free(instance->address);
    g_free(instance->drift);
    g_free(instance);
}

void drift_entry_free(DriftEntry *entry)
{
    if (!entry)
        return;
    g_free(entry->path);
    g_free(entry->what);
    g_free(entry);
}

void balancer_entry_free(BalancerEntry *entry)
{
    if (!entry)
        return;
    g_free(entry->address);
    g_free(entry);
}

void balancer_view_clear(BalancerView *view)
{
    if (view->entries)
        g_ptr_array_unref(view->entries);
    g_free(view->problem);
    *view = (BalancerView){.color = -1};
}
