/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading libvirt's XML: one pass, without a tree. The place in the document is kept as a path of element names ("domain/devices/disk/source"),
 * and each value is taken at the path where it stands; what stands elsewhere is passed over.
 *
 * The text is hostile: sizes are bounded by domain-xml.h, nesting by the path's own length.
 */
#include "base/error.h"
#include "base/log.h"
#include "base/printable.h"
#include "deploy/domain-xml.h"

#include <string.h>

#define PATH_MAX_BYTES 1024

typedef struct Reader {
    GString *path;    /* where we are, from "domain" on, backingStore left out */
    unsigned layer;   /* of a disk's chain: how many backingStore we are in */
    GString *text;    /* of the element that is open */
    DomainView *view;
    char *unit;       /* of memory */
    bool in_mark;
    bool capable;     /* capabilities: an answer to the question asked */
    const char *arch, *type;
    bool arch_fits, hvm;
} Reader;

static const char *attribute(const char *const *names, const char *const *values, const char *name)
{
    for (size_t i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0)
            return values[i];
    return NULL;
}

static DomainDisk *last_disk(DomainView *view)
{
    return view->disk_count > 0 ? &view->disks[view->disk_count - 1] : NULL;
}

static void take(char **where, const char *value)
{
    if (!*where)
        *where = g_strdup(value);
}

static void start_disk(Reader *reader, const char *path, const char *const *names, const char *const *values)
{
    DomainDisk *disk = last_disk(reader->view);
    const char *value;

    if (!disk)
        return;
    if (g_str_equal(path, "source")) {
        value = attribute(names, values, "file");
        if (reader->layer < DOMAIN_CHAIN_MAX && !disk->files[reader->layer])
            disk->files[reader->layer] = g_strdup(value);
        disk->depth = MAX(disk->depth, MIN(reader->layer, DOMAIN_CHAIN_MAX) + 1);
    } else if (g_str_equal(path, "driver") || g_str_equal(path, "format")) {
        value = attribute(names, values, "type");
        if (reader->layer == 0)
            take(&disk->format, value);
        g_free(disk->base_format);
        disk->base_format = g_strdup(value);
    } else if (reader->layer == 0 && g_str_equal(path, "target")) {
        take(&disk->target, attribute(names, values, "dev"));
    } else if (reader->layer == 0 && g_str_equal(path, "transient")) {
        disk->transient = true;
    } else if (reader->layer == 0 && g_str_equal(path, "readonly")) {
        disk->read_only = true;
    }
}

static void start_interface(DomainView *view, const char *path, const char *const *names, const char *const *values)
{
    const char *value;

    if (view->interfaces != 1)
        return;
    if (g_str_equal(path, "mac")) {
        take(&view->mac, attribute(names, values, "address"));
    } else if (g_str_equal(path, "filterref")) {
        take(&view->filter, attribute(names, values, "filter"));
    } else if (g_str_equal(path, "source") && !view->network_source) {
        if ((value = attribute(names, values, "network"))) /* a network's own bridge may stand beside it */
            view->network_source = g_strdup_printf("network %s", value);
        else if ((value = attribute(names, values, "bridge")))
            view->network_source = g_strdup_printf("bridge %s", value);
    }
}

/* <PREFIX:instance xmlns:PREFIX="our namespace">, whatever the prefix. */
static bool is_mark(const char *name, const char *const *names, const char *const *values)
{
    const char *colon = strchr(name, ':');
    g_autofree char *declaration = NULL;

    if (!colon || strcmp(colon, ":instance") != 0)
        return false;
    declaration = g_strdup_printf("xmlns:%.*s", (int)(colon - name), name);
    return g_strcmp0(attribute(names, values, declaration), DOMAIN_NAMESPACE) == 0;
}

static void start_device(Reader *reader, const char *path, const char *const *names, const char *const *values)
{
    DomainView *view = reader->view;

    if (g_str_equal(path, "disk")) {
        if (view->disk_count < DOMAIN_DISKS_MAX) {
            view->disk_count++;
            last_disk(view)->device = g_strdup(attribute(names, values, "device"));
        }
    } else if (g_str_has_prefix(path, "disk/")) {
        start_disk(reader, path + 5, names, values);
    } else if (g_str_equal(path, "interface")) {
        view->interfaces++;
    } else if (g_str_has_prefix(path, "interface/")) {
        start_interface(view, path + 10, names, values);
    } else if (g_str_equal(path, "channel/target") && g_strcmp0(attribute(names, values, "name"), "org.qemu.guest_agent.0") == 0) {
        view->agent_connected = g_strcmp0(attribute(names, values, "state"), "connected") == 0;
    }
}

static void start_domain(Reader *reader, const char *name, const char *const *names, const char *const *values)
{
    const char *path = reader->path->str, *value;

    if (g_str_has_prefix(path, "domain/devices/")) {
        start_device(reader, path + 15, names, values);
    } else if (g_str_has_prefix(path, "domain/metadata/") && is_mark(name, names, values)) {
        reader->in_mark = strchr(path + 16, '/') == NULL;
    } else if (g_str_equal(path, "domain/memory")) {
        g_free(reader->unit);
        reader->unit = g_strdup(attribute(names, values, "unit"));
    } else if (g_str_equal(path, "domain/qemu:commandline/qemu:arg")) {
        value = attribute(names, values, "value");
        if (value && g_str_has_prefix(value, "user,"))
            take(&reader->view->network_source, value);
    }
}

static void start_capabilities(Reader *reader, const char *const *names, const char *const *values)
{
    const char *path = reader->path->str;

    if (g_str_equal(path, "capabilities/guest"))
        reader->arch_fits = reader->hvm = false;
    else if (g_str_equal(path, "capabilities/guest/arch"))
        reader->arch_fits = !reader->arch || g_strcmp0(attribute(names, values, "name"), reader->arch) == 0;
    else if (g_str_equal(path, "capabilities/guest/arch/domain") && reader->arch_fits && reader->hvm)
        reader->capable = reader->capable || g_strcmp0(attribute(names, values, "type"), reader->type) == 0;
}

static void on_start(GMarkupParseContext *context, const char *name, const char **names, const char **values, gpointer arg, GError **error)
{
    Reader *reader = arg;

    if (strlen(name) + reader->path->len + 1 > PATH_MAX_BYTES) {
        g_set_error(error, G_MARKUP_ERROR, G_MARKUP_ERROR_INVALID_CONTENT, "it is nested too deeply");
        return;
    }
    g_string_truncate(reader->text, 0);
    if (g_str_equal(name, "backingStore")) {
        reader->layer++;
        return;
    }
    g_string_append_printf(reader->path, "%s%s", reader->path->len > 0 ? "/" : "", name);
    if (!reader->view)
        start_capabilities(reader, names, values);
    else
        start_domain(reader, name, names, values);
}

static uint64_t in_bytes(uint64_t number, const char *unit)
{
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"b", 0}, {"bytes", 0}, {"k", 10}, {"KiB", 10}, {"M", 20}, {"MiB", 20}, {"G", 30}, {"GiB", 30}};

    for (size_t i = 0; unit && i < G_N_ELEMENTS(units); i++)
        if (strcmp(unit, units[i].unit) == 0)
            return number > G_MAXUINT64 >> units[i].shift ? G_MAXUINT64 : number << units[i].shift;
    return number > G_MAXUINT64 >> 10 ? G_MAXUINT64 : number << 10;
}

static void end_domain(Reader *reader)
{
    DomainView *view = reader->view;
    const char *path = reader->path->str, *text = reader->text->str;

    if (reader->in_mark)
        take(&view->metadata, text);
    else if (g_str_equal(path, "domain/name"))
        take(&view->name, text);
    else if (g_str_equal(path, "domain/uuid"))
        take(&view->uuid, text);
    else if (g_str_equal(path, "domain/memory"))
        view->memory = in_bytes(g_ascii_strtoull(text, NULL, 10), reader->unit);
    else if (g_str_equal(path, "domain/vcpu"))
        view->cpus = (unsigned)MIN(g_ascii_strtoull(text, NULL, 10), 1u << 20);
    else if (g_str_equal(path, "domain/on_reboot"))
        take(&view->on_reboot, text);
    else if (g_str_equal(path, "domain/on_crash"))
        take(&view->on_crash, text);
}

static void on_end(GMarkupParseContext *context, const char *name, gpointer arg, GError **error)
{
    Reader *reader = arg;
    char *slash;

    if (g_str_equal(name, "backingStore")) {
        reader->layer--;
        return;
    }
    if (!reader->view && g_str_equal(reader->path->str, "capabilities/guest/os_type"))
        reader->hvm = g_str_equal(reader->text->str, "hvm");
    else if (reader->view)
        end_domain(reader);
    reader->in_mark = false;
    slash = strrchr(reader->path->str, '/');
    g_string_truncate(reader->path, slash ? (gsize)(slash - reader->path->str) : 0);
    g_string_truncate(reader->text, 0);
}

static void on_text(GMarkupParseContext *context, const char *text, gsize size, gpointer arg, GError **error)
{
    Reader *reader = arg;

    if (reader->text->len + size <= DOMAIN_METADATA_MAX)
        g_string_append_len(reader->text, text, (gssize)size);
}

static bool read_xml(Reader *reader, const char *xml, GError **error)
{
    static const GMarkupParser parser = {.start_element = on_start, .end_element = on_end, .text = on_text};
    GMarkupParseContext *context;
    size_t size = strnlen(xml, DOMAIN_XML_MAX + 1);
    bool ok;

    if (size > DOMAIN_XML_MAX)
        return fail(error, "the host's XML has over %u bytes", DOMAIN_XML_MAX);
    reader->path = g_string_new(NULL);
    reader->text = g_string_new(NULL);
    context = g_markup_parse_context_new(&parser, G_MARKUP_TREAT_CDATA_AS_TEXT, reader, NULL);
    ok = g_markup_parse_context_parse(context, xml, (gssize)size, error) && g_markup_parse_context_end_parse(context, error);
    g_markup_parse_context_free(context);
    (void)g_string_free(reader->path, TRUE);
    (void)g_string_free(reader->text, TRUE);
    g_free(reader->unit);
    return ok;
}

void domain_view_free(DomainView *view)
{
    if (!view)
        return;
    for (unsigned i = 0; i < view->disk_count; i++) {
        DomainDisk *disk = &view->disks[i];

        g_free(disk->device);
        g_free(disk->target);
        g_free(disk->format);
        g_free(disk->base_format);
        for (size_t k = 0; k < DOMAIN_CHAIN_MAX; k++)
            g_free(disk->files[k]);
    }
    g_free(view->name);
    g_free(view->uuid);
    g_free(view->metadata);
    g_free(view->on_reboot);
    g_free(view->on_crash);
    g_free(view->mac);
    g_free(view->network_source);
    g_free(view->filter);
    g_free(view);
}

bool domain_view_parse(const char *xml, DomainView **ret, GError **error)
{
    g_autoptr(DomainView) view = g_new0(DomainView, 1);
    Reader reader = {.view = view};
    GError *why = NULL;

    if (!read_xml(&reader, xml, &why)) {
        (void)fail(error, "the host's XML of a domain cannot be read: %s", why->message);
        g_error_free(why);
        return false;
    }
    if (!view->name || !view->uuid)
        return fail(error, "the host's XML is not that of a domain");
    *ret = g_steal_pointer(&view);
    return true;
}

bool domain_capabilities_offer(const char *xml, const char *arch, const char *type)
{
    Reader reader = {.arch = arch, .type = type};

    return read_xml(&reader, xml, NULL) && reader.capable;
}

/* --- the mark --- */

void domain_mark_clear(DomainMark *mark)
{
    g_free(mark->address);
    json_decref(mark->made);
    *mark = (DomainMark){.address = NULL};
}

bool domain_mark_parse(const char *metadata, DomainMark *ret)
{
    g_autoptr(json_t) json = NULL;
    json_t *made;
    const char *address = NULL;
    char sum[DIGEST_HEX_SIZE];
    DomainMark mark = {.address = NULL};

    if (!json_parse(metadata, strlen(metadata), DOMAIN_METADATA_MAX, "metadata", &json, NULL) || !json_is_object(json) ||
        !instance_id_parse(json_object_get(json, "instance"), &mark.id) || !json_get_int(json, "created", 0, &mark.created, NULL) ||
        !json_get_string(json, "address", NULL, &address, NULL) || mark.created < 0)
        return false;
    made = json_object_get(json, "made");
    domain_mark_sum(json, sum);
    if (!json_is_object(made) || g_strcmp0(json_string_value(json_object_get(json, "sum")), sum) != 0 || (address && (strlen(address) > 64 || !domain_text_is_fit(address))))
        return false;
    mark.address = g_strdup(address);
    mark.made = json_incref(made);
    *ret = mark;
    return true;
}

/* --- what differs --- */

static const DomainDisk *find_disk(const DomainView *view, const char *target)
{
    for (unsigned i = 0; i < view->disk_count; i++)
        if (g_strcmp0(view->disks[i].target, target) == 0)
            return &view->disks[i];
    return NULL;
}

static char *number_differs(const json_t *made, const char *key, uint64_t now, const char *what)
{
    int64_t then = 0;

    if (json_get_int(made, key, -1, &then, NULL) && then >= 0 && (uint64_t)then == now)
        return NULL;
    return g_strdup_printf("%s %" G_GUINT64_FORMAT " where it was created with %" G_GINT64_FORMAT, what, now, then);
}

static char *text_differs(const json_t *made, const char *key, const char *now, const char *what)
{
    const char *then = NULL;
    g_autofree char *shown = NULL, *shown_then = NULL;

    if (json_get_string(made, key, "", &then, NULL) && g_strcmp0(then, now ? now : "") == 0)
        return NULL;
    shown = printable_line(now && *now ? now : "nothing");
    shown_then = printable_line(then && *then ? then : "nothing");
    return g_strdup_printf("%s '%.200s' where it was created with '%.200s'", what, shown, shown_then);
}

const char *domain_base_file(const DomainView *view, GError **error)
{
    const DomainDisk *disk = find_disk(view, "vda");
    g_autofree char *overlay = NULL;

    if (!disk || disk->depth == 0 || !disk->files[0] || g_strcmp0(disk->device, "disk") != 0) {
        (void)fail(error, "it has no disk vda of a file");
        return NULL;
    }
    if (!disk->transient) {
        (void)fail(error, "its disk is not a throw-away overlay");
        return NULL;
    }
    if (disk->depth == 1 && g_strcmp0(disk->format, "raw") == 0)
        return disk->files[0]; /* as the test driver, which starts nothing, tells it */
    if (disk->depth != 2 || !disk->files[1] || g_strcmp0(disk->base_format, "raw") != 0) {
        (void)fail(error, "its disk is not one overlay on one raw file (a chain of %u)", disk->depth);
        return NULL;
    }
    overlay = g_strdup_printf("%s.TRANSIENT-%s", disk->files[1], view->name);
    if (!g_str_equal(overlay, disk->files[0])) {
        (void)fail(error, "its overlay is '%.200s', which is not the one that was made for it", disk->files[0]);
        return NULL;
    }
    return disk->files[1];
}

/* A reboot that is not the end would keep a written disk. */
static char *fate_differs(const DomainView *view)
{
    if (g_strcmp0(view->on_reboot, "destroy") == 0 && g_strcmp0(view->on_crash, "destroy") == 0)
        return NULL;
    return g_strdup("it would come back after a reboot or a crash, with the disk that was written");
}

char *domain_drift(const DomainView *view, const DomainMark *mark)
{
    g_autoptr(GError) why = NULL;
    const char *base = domain_base_file(view, &why);
    const char *mac = view->interfaces > 0 ? view->mac : NULL;
    char *drift;

    if (!base)
        return g_strdup(why->message);
    if ((drift = text_differs(mark->made, "base", base, "it runs from")) ||
        (drift = number_differs(mark->made, "memory", view->memory, "its memory in bytes is")) ||
        (drift = number_differs(mark->made, "cpus", view->cpus, "its number of processors is")) ||
        (drift = number_differs(mark->made, "disks", view->disk_count, "its number of disks is")) ||
        (drift = text_differs(mark->made, "network", view->network_source, "its network is")) ||
        (drift = text_differs(mark->made, "mac", mac, "its network card's address is")) ||
        (drift = text_differs(mark->made, "filter", view->filter, "its filter is")))
        return drift;
    return fate_differs(view);
}

/* --- volumes --- */

typedef struct VolumeReader {
    GString *path, *text;
    DomainVolumeStamp *stamp;
    char *unit;
    unsigned seen;
} VolumeReader;

static void volume_start(GMarkupParseContext *context, const char *name, const char **names, const char **values, gpointer arg, GError **error)
{
    VolumeReader *reader = arg;

    if (strlen(name) + reader->path->len + 1 > PATH_MAX_BYTES) {
        g_set_error(error, G_MARKUP_ERROR, G_MARKUP_ERROR_INVALID_CONTENT, "it is nested too deeply");
        return;
    }
    g_string_append_printf(reader->path, "%s%s", reader->path->len > 0 ? "/" : "", name);
    g_string_truncate(reader->text, 0);
    g_free(reader->unit);
    reader->unit = g_strdup(attribute(names, values, "unit"));
}

static void volume_end(GMarkupParseContext *context, const char *name, gpointer arg, GError **error)
{
    VolumeReader *reader = arg;
    const char *path = reader->path->str, *text = reader->text->str;
    const char *unit = reader->unit ? reader->unit : "bytes";
    char *slash;

    if (g_str_equal(path, "volume/capacity"))
        reader->stamp->capacity = in_bytes(g_ascii_strtoull(text, NULL, 10), unit);
    else if (g_str_equal(path, "volume/allocation"))
        reader->stamp->allocation = in_bytes(g_ascii_strtoull(text, NULL, 10), unit);
    else if (g_str_equal(path, "volume/target/path"))
        reader->seen += g_strlcpy(reader->stamp->path, text, sizeof reader->stamp->path) < sizeof reader->stamp->path;
    else if (g_str_equal(path, "volume/target/timestamps/mtime"))
        reader->seen += g_strlcpy(reader->stamp->mtime, text, sizeof reader->stamp->mtime) < sizeof reader->stamp->mtime;
    else if (g_str_equal(path, "volume/target/timestamps/ctime"))
        reader->seen += g_strlcpy(reader->stamp->ctime, text, sizeof reader->stamp->ctime) < sizeof reader->stamp->ctime;
    slash = strrchr(path, '/');
    g_string_truncate(reader->path, slash ? (gsize)(slash - path) : 0);
    g_string_truncate(reader->text, 0);
}

static void volume_text(GMarkupParseContext *context, const char *text, gsize size, gpointer arg, GError **error)
{
    VolumeReader *reader = arg;

    if (reader->text->len + size <= 4096)
        g_string_append_len(reader->text, text, (gssize)size);
}

bool domain_volume_stamp_parse(const char *xml, DomainVolumeStamp *ret)
{
    static const GMarkupParser parser = {.start_element = volume_start, .end_element = volume_end, .text = volume_text};
    VolumeReader reader = {.path = g_string_new(NULL), .text = g_string_new(NULL), .stamp = ret};
    GMarkupParseContext *context = g_markup_parse_context_new(&parser, 0, &reader, NULL);
    size_t size = strnlen(xml, DOMAIN_XML_MAX + 1);
    bool ok;

    *ret = (DomainVolumeStamp){.capacity = 0};
    ok = size <= DOMAIN_XML_MAX && g_markup_parse_context_parse(context, xml, (gssize)size, NULL) &&
         g_markup_parse_context_end_parse(context, NULL) && reader.seen == 3;
    g_markup_parse_context_free(context);
    (void)g_string_free(reader.path, TRUE);
    (void)g_string_free(reader.text, TRUE);
    g_free(reader.unit);
    return ok;
}

json_t *domain_volume_stamp_json(const DomainVolumeStamp *stamp)
{
    return json_pack("{s:I, s:I, s:s, s:s, s:s}", "capacity", (json_int_t)stamp->capacity, "allocation", (json_int_t)stamp->allocation, "path",
                     stamp->path, "mtime", stamp->mtime, "ctime", stamp->ctime);
}
