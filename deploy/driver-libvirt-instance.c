/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Domains: made, looked at, proven and ended; and what stands around one: its seed, its volumes, its reservation in a libvirt network, its filter.
 *
 * Order of a create: what is there already with this identity is left as it is; the image's file is compared; what stands around is made;
 * the domain comes last, and when it does not come the rest is taken away again. So whatever a crash leaves behind is found by the instance's
 * name and goes with the next try or with destroy.
 */
#include "base/log.h"
#include "base/scope.h"
#include "deploy/driver-libvirt.h"
#include "deploy/seed-iso.h"

#include <string.h>

enum { DOMAINS_MAX = 20000, AGENT_SECONDS = 2 };

#define POLL_USEC 200000

/* --- looking --- */

static bool view_of(LvHost *host, virDomainPtr domain, DomainView **ret, GError **error)
{
    auto_text *xml = virDomainGetXMLDesc(domain, 0);

    return xml ? domain_view_parse(xml, ret, error) : lv_fail(host, error, "look at '%s'", virDomainGetName(domain));
}

bool lv_view(LvHost *host, const char *name, virDomainPtr *ret_domain, DomainView **ret, GError **error)
{
    auto_domain domain = NULL;

    if (!lv_connect(host, error))
        return false;
    domain = virDomainLookupByName(host->connection, name);
    if (!domain && virGetLastErrorCode() == VIR_ERR_NO_DOMAIN)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "there is no instance '%s' on %s", name, host->uri);
    if (!domain)
        return lv_fail(host, error, "look for '%s'", name);
    if (!view_of(host, domain, ret, error))
        return false;
    if (ret_domain)
        *ret_domain = g_steal_pointer(&domain);
    return true;
}

static Life life_of(int state, int reason)
{
    switch (state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
        return LIFE_RUNNING;
    case VIR_DOMAIN_NOSTATE:
        return LIFE_STARTING;
    case VIR_DOMAIN_PAUSED: /* a moment's pause while its disk is read is no death; one that nobody will end is */
        if (reason == VIR_DOMAIN_PAUSED_STARTING_UP)
            return LIFE_STARTING;
        return reason == VIR_DOMAIN_PAUSED_IOERROR || reason == VIR_DOMAIN_PAUSED_WATCHDOG || reason == VIR_DOMAIN_PAUSED_CRASHED ? LIFE_DEAD
                                                                                                                                 : LIFE_RUNNING;
    default:
        return LIFE_DEAD;
    }
}

static char *first_address(virDomainPtr domain, unsigned source)
{
    virDomainInterfacePtr *interfaces = NULL;
    int count = virDomainInterfaceAddresses(domain, &interfaces, source, 0);
    char *found = NULL;

    for (int i = 0; i < count; i++) {
        for (unsigned k = 0; k < interfaces[i]->naddrs && !found; k++) {
            const char *text = interfaces[i]->addrs[k].addr;

            if (interfaces[i]->addrs[k].type == VIR_IP_ADDR_TYPE_IPV4 && text && strlen(text) < 46 && !g_str_has_prefix(text, "127.") &&
                domain_text_is_fit(text))
                found = g_strdup(text);
        }
        virDomainInterfaceFree(interfaces[i]);
    }
    free(interfaces);
    return found;
}

/* The list, the agent, the leases, ARP: the first that knows. */
static char *address_of(virDomainPtr domain, const DomainView *view, const DomainMark *mark)
{
    char *address = g_strdup(mark->address);

    if (!address && view->agent_connected) {
        (void)virDomainAgentSetResponseTimeout(domain, AGENT_SECONDS, 0);
        address = first_address(domain, VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT);
    }
    if (!address && view->interfaces > 0)
        address = first_address(domain, VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE);
    if (!address && view->interfaces > 0)
        address = first_address(domain, VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP);
    return address;
}

/* By its name where that is an instance's, else by the mark in its metadata. */
static bool is_of_group(LvHost *host, virDomainPtr domain)
{
    auto_text *metadata = NULL;
    g_autoptr(DomainView) view = NULL;
    g_auto(DomainMark) mark = {.address = NULL};
    InstanceId id;

    if (instance_name_parse(virDomainGetName(domain), &id))
        return g_str_equal(id.group, host->config->group);
    metadata = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, DOMAIN_NAMESPACE, 0);
    return metadata && view_of(host, domain, &view, NULL) && view->metadata && domain_mark_parse(view->metadata, &mark) &&
           g_str_equal(mark.id.group, host->config->group);
}

/* The element's text and its name agree, and it is the identity that the name is derived from. */
static bool is_itself(const DomainView *view, const DomainMark *mark)
{
    char name[96], uuid[37];

    instance_name(&mark->id, name);
    instance_uuid(&mark->id, uuid);
    return g_str_equal(name, view->name) && g_strcmp0(uuid, view->uuid) == 0;
}

static DriverInstance *instance_of(LvHost *host, virDomainPtr domain, const DomainView *view)
{
    DriverInstance *instance = g_new0(DriverInstance, 1);
    g_auto(DomainMark) mark = {.address = NULL};
    bool marked = view->metadata && domain_mark_parse(view->metadata, &mark);
    int state = VIR_DOMAIN_NOSTATE, reason = 0;

    instance->name = g_strdup(view->name);
    instance->life = virDomainGetState(domain, &state, &reason, 0) == 0 ? life_of(state, reason) : LIFE_DEAD;
    instance->known = marked && is_itself(view, &mark) && g_str_equal(mark.id.group, host->config->group);
    if (instance->known) {
        instance->id = mark.id;
        instance->started = mark.created;
        instance->address = address_of(domain, view, &mark);
        instance->drift = domain_drift(view, &mark);
        return instance;
    }
    if (!instance_name_parse(view->name, &instance->id) || !g_str_equal(instance->id.group, host->config->group))
        instance->id = (InstanceId){.group = ""};
    (void)g_strlcpy(instance->id.group, host->config->group, sizeof instance->id.group);
    instance->drift = g_strdup(!view->metadata ? "it has the name of an instance and no identity"
                               : !marked       ? "its identity cannot be read"
                                               : "its identity does not fit its name");
    return instance;
}

/* All domains of the host, to be freed one by one and then the list; -1 with an error. */
static int list_domains(LvHost *host, virDomainPtr **ret, GError **error)
{
    virDomainPtr *domains = NULL;
    int count;

    if (!lv_connect(host, error))
        return -1;
    count = virConnectListAllDomains(host->connection, &domains, 0);
    if (count < 0) {
        (void)lv_fail(host, error, "list domains");
        return -1;
    }
    if (count > DOMAINS_MAX) {
        (void)fail(error, "%s has %d domains, which is over %d", host->uri, count, DOMAINS_MAX);
        for (int i = 0; i < count; i++)
            (void)virDomainFree(domains[i]);
        free(domains);
        return -1;
    }
    *ret = domains;
    return count;
}

bool lv_observe(LvHost *host, GPtrArray *instances, BoundedCall *call, GError **error)
{
    virDomainPtr *domains = NULL;
    int count = list_domains(host, &domains, error);
    bool ok = count >= 0;

    for (int i = 0; i < count; i++) {
        g_autoptr(DomainView) view = NULL;
        g_autoptr(GError) why = NULL;

        if (ok && !bounded_call_given_up(call) && is_of_group(host, domains[i])) {
            if (view_of(host, domains[i], &view, &why))
                g_ptr_array_add(instances, instance_of(host, domains[i], view));
            else if (virConnectIsAlive(host->connection) != 1) /* else it has gone in the meantime */
                ok = fail(error, "%s", why->message);
        }
        bounded_call_tick(call);
        (void)virDomainFree(domains[i]);
    }
    free(domains);
    return ok;
}

bool lv_used_files(LvHost *host, GHashTable *ret_files, GHashTable *ret_names, BoundedCall *call, GError **error)
{
    virDomainPtr *domains = NULL;
    int count = list_domains(host, &domains, error);
    bool ok = count >= 0;

    for (int i = 0; i < count; i++) {
        g_autoptr(DomainView) view = NULL;

        ok = ok && view_of(host, domains[i], &view, error); /* what cannot be read may use anything */
        for (unsigned k = 0; ok && k < view->disk_count; k++)
            for (unsigned j = 0; j < MIN(view->disks[k].depth, DOMAIN_CHAIN_MAX); j++)
                if (view->disks[k].files[j])
                    g_hash_table_add(ret_files, g_strdup(view->disks[k].files[j]));
        g_hash_table_add(ret_names, g_strdup(virDomainGetName(domains[i])));
        bounded_call_tick(call);
        (void)virDomainFree(domains[i]);
    }
    free(domains);
    return ok;
}

/* --- around a domain --- */

static char *seed_name(const char *name)
{
    return g_strdup_printf("%s.seed.iso", name);
}

static bool make_seed(LvHost *host, const LvCreate *create, const char *name, char **ret_path, GError **error)
{
    const InstanceShape *shape = create->shape;
    g_autofree char *file = seed_name(name);
    g_autoptr(GBytes) iso = NULL;
    char mac[18];
    SeedSpec spec = {.name = name, .user_data = shape->user_data, .mac = mac, .gateway = shape->gateway, .prefix_length = create->prefix_length};

    spec.address = shape->bridge ? create->address : NULL; /* a libvirt network gives it by DHCP, the user-mode one forwards from it */
    if (host->kind == HOST_TEST || (!spec.user_data && !spec.address))
        return true;
    domain_mac(&create->id, mac);
    return seed_iso(&spec, &iso, error) && lv_file_put(host, file, g_bytes_get_data(iso, NULL), g_bytes_get_size(iso), ret_path, error);
}

static void free_volume(gpointer p)
{
    DomainVolume *volume = p;

    g_free(volume->path);
    g_free(volume->serial);
    g_free(volume);
}

static bool make_volumes(LvHost *host, const LvCreate *create, GPtrArray *volumes, GError **error)
{
    for (guint i = 0; create->shape->volumes && i < create->shape->volumes->len; i++) {
        const VolumeSpec *spec = g_ptr_array_index(create->shape->volumes, i);
        DomainVolume *volume = g_new0(DomainVolume, 1);

        g_ptr_array_add(volumes, volume);
        volume->serial = g_strndup(spec->name, 20); /* what virtio carries */
        if (!lv_volume_make(host, spec->name, create->id.slot, spec->size, &volume->path, error))
            return false;
    }
    return true;
}

/* One instance at a time: qemu's own lock on the file tells for this host; nothing else may name it. */
static bool volumes_are_free(LvHost *host, const GPtrArray *volumes, BoundedCall *call, GError **error)
{
    g_autoptr(GHashTable) files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    if (volumes->len == 0)
        return true;
    if (!lv_used_files(host, files, names, call, error))
        return false;
    for (guint i = 0; i < volumes->len; i++) {
        const DomainVolume *volume = g_ptr_array_index(volumes, i);

        if (g_hash_table_contains(files, volume->path))
            return fail(error, "the volume '%s' is still attached to another domain of %s", volume->path, host->uri);
    }
    return true;
}

static bool update_reservation(LvHost *host, const char *network_name, const InstanceId *id, const char *address, bool add, GError **error)
{
    g_autofree char *xml = domain_reservation_xml(id, address);
    auto_network network = virNetworkLookupByName(host->connection, network_name);
    unsigned flags = VIR_NETWORK_UPDATE_AFFECT_LIVE;
    int done;

    if (!network)
        return lv_fail(host, error, "find the network '%s'", network_name);
    if (virNetworkIsPersistent(network) == 1)
        flags |= VIR_NETWORK_UPDATE_AFFECT_CONFIG;
    done = virNetworkUpdate(network, add ? VIR_NETWORK_UPDATE_COMMAND_ADD_LAST : VIR_NETWORK_UPDATE_COMMAND_DELETE,
                            VIR_NETWORK_SECTION_IP_DHCP_HOST, -1, xml, flags);
    return done == 0 || lv_fail(host, error, "%s %s in the network '%s'", add ? "reserve" : "give back", address, network_name);
}

/* One that an earlier try has left is the same one. */
static bool reserve(LvHost *host, const LvCreate *create, GError **error)
{
    if (!create->shape->libvirt_network || !create->address || host->kind == HOST_TEST)
        return true;
    (void)update_reservation(host, create->shape->libvirt_network, &create->id, create->address, false, NULL);
    return update_reservation(host, create->shape->libvirt_network, &create->id, create->address, true, error);
}

static bool needs_filter(const LvHost *host, const InstanceShape *shape)
{
    return shape->allow && (shape->bridge || shape->libvirt_network) && host->kind != HOST_TEST && host->config->nwfilter;
}

static bool make_filter(LvHost *host, const InstanceShape *shape, char **ret_name, GError **error)
{
    g_autofree char *name = NULL, *xml = NULL;
    virNWFilterPtr filter;

    if (!needs_filter(host, shape))
        return true;
    if (!domain_filter_xml(host->config->group, shape->allow, &name, &xml, error))
        return false;
    filter = virNWFilterLookupByName(host->connection, name); /* the name says what is in it */
    if (!filter)
        filter = virNWFilterDefineXML(host->connection, xml);
    if (!filter)
        return lv_fail(host, error, "make the network filter '%s'", name);
    (void)virNWFilterFree(filter);
    *ret_name = g_steal_pointer(&name);
    return true;
}

/* Refused by libvirt as long as a domain uses it. */
static void drop_filter(LvHost *host, const char *name)
{
    g_autofree char *prefix = g_strdup_printf("kiln-%s-", host->config->group);
    virNWFilterPtr filter;

    if (!name || !g_str_has_prefix(name, prefix))
        return;
    filter = virNWFilterLookupByName(host->connection, name);
    if (filter)
        (void)virNWFilterUndefine(filter);
    if (filter)
        (void)virNWFilterFree(filter);
}

/* --- create --- */

/* What people meet first on a machine without a bridge. */
static bool explain_failure(LvHost *host, const DomainSpec *spec, const char *name, GError **error)
{
    bool forwards = !spec->bridge && !spec->network && spec->port > 0;

    if (!forwards || !strstr(virGetLastErrorMessage(), "host forwarding"))
        return lv_fail(host, error, "start '%s'", name);
    if (spec->port < 1024)
        return fail(error, "cannot start '%s' on %s: qemu may not listen on port %u; set net.ipv4.ip_unprivileged_port_start to %u there, or use a bridge",
                    name, host->uri, spec->port, spec->port);
    return fail(error, "cannot start '%s' on %s: %s:%u cannot be forwarded; is the address the host's, and the port free?", name, host->uri,
                spec->address, spec->port);
}

static bool start_domain(LvHost *host, const DomainSpec *spec, const char *name, GError **error)
{
    g_autofree char *xml = domain_xml(spec);
    unsigned flags = spec->test ? 0 : VIR_DOMAIN_START_VALIDATE;
    auto_domain domain = virDomainCreateXML(host->connection, xml, flags);

    trace("deploy.libvirt", "%s: %s", host->uri, xml);
    /* An overlay whose domain is gone, together with the libvirtd that would have removed it. */
    if (!domain && lv_overlay_remove(host, spec->base, name))
        domain = virDomainCreateXML(host->connection, xml, flags);
    return domain || explain_failure(host, spec, name, error);
}

static void undo_create(LvHost *host, const LvCreate *create, const char *name, const char *filter)
{
    g_autofree char *seed = seed_name(name);

    (void)lv_file_remove(host, seed, NULL);
    if (create->shape->libvirt_network && create->address && host->kind != HOST_TEST)
        (void)update_reservation(host, create->shape->libvirt_network, &create->id, create->address, false, NULL);
    drop_filter(host, filter);
}

static void describe(LvHost *host, const LvCreate *create, DomainSpec *spec)
{
    const InstanceShape *shape = create->shape;

    spec->id = create->id;
    spec->test = host->kind == HOST_TEST;
    spec->arch = create->want.arch[0] ? create->want.arch : NULL;
    spec->machine = host->config->machine;
    spec->emulator = host->config->emulator;
    spec->cpu = host->config->cpu;
    spec->memory = shape->memory - shape->memory % 1024; /* libvirt counts in KiB */
    spec->cpus = shape->cpus;
    spec->bridge = shape->bridge;
    spec->network = shape->libvirt_network;
    spec->address = create->address;
    spec->port = shape->port;
    spec->agent = shape->agent;
    spec->created = g_get_real_time() / G_USEC_PER_SEC;
}

static bool make_instance(LvHost *host, const LvCreate *create, const char *name, BoundedCall *call, GError **error)
{
    g_autoptr(GPtrArray) volumes = g_ptr_array_new_with_free_func(free_volume);
    g_autofree char *base = NULL, *seed = NULL, *filter = NULL, *log = NULL;
    DomainSpec spec = {.volumes = volumes};

    if (!lv_image_check(host, &create->want, call, &base, error))
        return fail_prefix(error, "'%s' is not created", name);
    bounded_call_tick(call);
    describe(host, create, &spec);
    if (!lv_type(host, spec.arch, &spec.type, error) || !make_volumes(host, create, volumes, error) ||
        !volumes_are_free(host, volumes, call, error) || !make_seed(host, create, name, &seed, error) || !reserve(host, create, error) ||
        !make_filter(host, create->shape, &filter, error))
        goto rollback;
    if (host->config->console_log)
        log = g_strdup_printf("/var/log/libvirt/qemu/%s.console.log", name);
    spec.base = base;
    spec.seed = seed;
    spec.filter = filter;
    spec.console_log = log;
    bounded_call_tick(call);
    if (start_domain(host, &spec, name, error))
        return true;
rollback:
    undo_create(host, create, name, filter);
    return false;
}

/* Everything but the epoch: an earlier controller may have made it. */
static bool same_instance(const InstanceId *a, const InstanceId *b)
{
    return g_str_equal(a->group, b->group) && a->revision == b->revision && a->slot == b->slot && a->attempt == b->attempt &&
           digest_equal(&a->image, &b->image);
}

void lv_create(LvHost *host, LvCreate *create, BoundedCall *call)
{
    g_autoptr(DomainView) view = NULL;
    g_autoptr(GError) why = NULL;
    g_auto(DomainMark) mark = {.address = NULL};
    HostKind kind;
    char name[96];

    instance_name(&create->id, name);
    if (!lv_kind(host, &kind, &create->error))
        return;
    if (!lv_view(host, name, NULL, &view, &why)) {
        if (g_error_matches(why, KILN_ERROR, KILN_ERROR_NOT_FOUND))
            (void)make_instance(host, create, name, call, &create->error);
        else
            g_propagate_error(&create->error, g_steal_pointer(&why));
    } else if (!view->metadata || !domain_mark_parse(view->metadata, &mark) || !is_itself(view, &mark) || !same_instance(&mark.id, &create->id)) {
        (void)fail(&create->error, "%s already has a domain '%s' that is another one; it is left as it is", host->uri, name);
    }
    bounded_call_tick(call);
}

/* --- destroy --- */

typedef struct Leaving {
    virDomainPtr domain;
    DomainView *view; /* NULL: absent, or not to be read */
} Leaving;

static void clean_up(LvHost *host, const char *name, const DomainView *view)
{
    g_autofree char *seed = seed_name(name);
    g_auto(DomainMark) mark = {.address = NULL};
    const char *base = view ? domain_base_file(view, NULL) : NULL;

    (void)lv_file_remove(host, seed, NULL);
    if (!view)
        return;
    if (base)
        (void)lv_overlay_remove(host, base, name);
    if (view->metadata && domain_mark_parse(view->metadata, &mark) && mark.address && view->network_source &&
        g_str_has_prefix(view->network_source, "network ") && host->kind != HOST_TEST)
        (void)update_reservation(host, view->network_source + strlen("network "), &mark.id, mark.address, false, NULL);
    drop_filter(host, view->filter);
}

static bool is_active(virDomainPtr domain)
{
    return virDomainIsActive(domain) == 1;
}

static void ask_to_leave(Leaving *leaving, unsigned count, double grace, BoundedCall *call)
{
    gint64 end = g_get_monotonic_time() + (gint64)(grace * G_USEC_PER_SEC);
    bool waits = true;

    for (unsigned i = 0; i < count; i++) {
        if (!leaving[i].domain || !is_active(leaving[i].domain))
            continue;
        (void)virDomainAgentSetResponseTimeout(leaving[i].domain, AGENT_SECONDS, 0);
        (void)virDomainShutdownFlags(leaving[i].domain, leaving[i].view && leaving[i].view->agent_connected ? VIR_DOMAIN_SHUTDOWN_GUEST_AGENT
                                                                                                        : VIR_DOMAIN_SHUTDOWN_DEFAULT);
        bounded_call_tick(call);
    }
    while (waits && g_get_monotonic_time() < end && !bounded_call_given_up(call)) {
        waits = false;
        for (unsigned i = 0; i < count; i++)
            waits = waits || (leaving[i].domain && is_active(leaving[i].domain));
        bounded_call_tick(call);
        if (waits)
            g_usleep(POLL_USEC);
    }
}

static bool end_domain(LvHost *host, virDomainPtr domain, const char *name, GError **error)
{
    const unsigned remains = VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;

    /* Errors are judged by what is left: it may have ended by itself in between. */
    if (is_active(domain) && virDomainDestroy(domain) < 0 && is_active(domain))
        return lv_fail(host, error, "end '%s'", name);
    if (virDomainIsPersistent(domain) == 1 && virDomainUndefineFlags(domain, remains) < 0)
        return lv_fail(host, error, "undefine '%s'", name);
    return true;
}

static void find_leaving(LvHost *host, const char *name, Leaving *ret, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (lv_view(host, name, &ret->domain, &ret->view, &why) || g_error_matches(why, KILN_ERROR, KILN_ERROR_NOT_FOUND))
        return;
    ret->domain = host->connection ? virDomainLookupByName(host->connection, name) : NULL; /* what cannot be read can still be ended */
    if (!ret->domain)
        g_propagate_error(error, g_steal_pointer(&why));
}

void lv_destroy(LvHost *host, char *const *names, unsigned count, double grace, GError **errors, BoundedCall *call)
{
    g_autofree Leaving *leaving = g_new0(Leaving, count);
    g_autoptr(GError) why = NULL;
    HostKind kind;

    if (!lv_kind(host, &kind, &why)) {
        for (unsigned i = 0; i < count; i++)
            errors[i] = g_error_copy(why);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        find_leaving(host, names[i], &leaving[i], &errors[i]);
        bounded_call_tick(call);
    }
    if (grace > 0 && kind != HOST_TEST)
        ask_to_leave(leaving, count, grace, call);
    for (unsigned i = 0; i < count; i++) {
        if (!errors[i] && (!leaving[i].domain || end_domain(host, leaving[i].domain, names[i], &errors[i])))
            clean_up(host, names[i], leaving[i].view);
        if (leaving[i].domain)
            (void)virDomainFree(leaving[i].domain);
        domain_view_free(leaving[i].view);
        bounded_call_tick(call);
    }
}

/* --- attest --- */

static bool same_image_and_place(const DomainMark *mark, const InstanceId *id, const HostImageWant *want, GError **error)
{
    if (!same_instance(&mark->id, id))
        return fail(error, "its identity is not the one that was observed");
    if (!digest_equal(&mark->id.image, &want->id))
        return fail(error, "its identity names another image");
    return true;
}

static bool attest_view(LvHost *host, const DomainView *view, const InstanceId *id, const HostImageWant *want, BoundedCall *call,
                        unsigned *ret_flags, GError **error)
{
    g_auto(DomainMark) mark = {.address = NULL};
    g_autofree char *drift = NULL, *file = NULL;
    const char *base;

    if (!view->metadata || !domain_mark_parse(view->metadata, &mark) || !is_itself(view, &mark))
        return fail(error, "it carries no identity that fits its name");
    if (!same_image_and_place(&mark, id, want, error))
        return false;
    drift = domain_drift(view, &mark);
    if (drift)
        return fail(error, "%s", drift);
    base = domain_base_file(view, error);
    if (!base || !lv_image_check(host, want, call, &file, error))
        return false;
    if (!g_str_equal(base, file))
        return fail(error, "it runs from '%s', and the image's file is '%s'", base, file);
    *ret_flags = PROVEN_METADATA | PROVEN_CHAIN | PROVEN_DIGEST;
    return true;
}

bool lv_attest(LvHost *host, const char *name, const InstanceId *id, const HostImageWant *want, BoundedCall *call, unsigned *ret_flags, GError **error)
{
    g_autoptr(DomainView) view = NULL;
    HostKind kind;

    if (!lv_kind(host, &kind, error) || !lv_view(host, name, NULL, &view, error))
        return false;
    bounded_call_tick(call);
    return attest_view(host, view, id, want, call, ret_flags, error) || fail_prefix(error, "'%s'", name);
}

/* --- what it has written --- */

/* Paused, qemu writes out what it holds. The pause lasts as long as the copy, and ends whatever happens to it. */
static bool copy_paused(LvHost *host, virDomainPtr domain, const char *overlay, BoundedCall *call, int *ret_fd, GError **error)
{
    int state = VIR_DOMAIN_NOSTATE, reason = 0;
    bool ran, copied;

    if (virDomainGetState(domain, &state, &reason, 0) < 0)
        return lv_fail(host, error, "look at '%s'", virDomainGetName(domain));
    ran = state == VIR_DOMAIN_RUNNING || state == VIR_DOMAIN_BLOCKED;
    if (ran && virDomainSuspend(domain) < 0)
        return lv_fail(host, error, "pause '%s'", virDomainGetName(domain));
    copied = lv_overlay_copy(host, overlay, call, ret_fd, error);
    if (ran && virDomainResume(domain) < 0)
        return copied ? lv_fail(host, error, "let '%s' go on", virDomainGetName(domain)) : false;
    return copied;
}

bool lv_snapshot(LvHost *host, const char *name, BoundedCall *call, int *ret_fd, char **ret_base, GError **error)
{
    g_autoptr(DomainView) view = NULL;
    auto_domain domain = NULL;
    g_autofree char *overlay = NULL;
    const char *base;
    HostKind kind;

    if (!lv_kind(host, &kind, error) || !lv_view(host, name, &domain, &view, error))
        return false;
    if (kind == HOST_TEST)
        return true; /* where nothing runs nothing is written */
    if (kind != HOST_LOCAL)
        return fail(error, "the disks of %s cannot be read from this host", host->uri);
    base = domain_base_file(view, error);
    overlay = base ? g_strdup_printf("%s.TRANSIENT-%s", base, view->name) : NULL; /* as domain_base_file() has seen it */
    if (!base || !copy_paused(host, domain, overlay, call, ret_fd, error))
        return fail_prefix(error, "'%s'", name);
    *ret_base = g_strdup(base);
    return true;
}
