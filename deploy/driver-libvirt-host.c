/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libvirt host: its connection, its events, and what kind it is.
 *
 * Connections are kept and opened again when they are lost. Keepalive messages tell within 12 seconds that a host is gone; that needs libvirt's
 * event loop, which one thread of the process runs for all hosts from the first on.
 *
 * A host is ours when its URI names no server and its libvirt shows us a file that we have just put into the image folder: a libvirtd in a mount
 * namespace of its own is reached by a unix socket, too, and sees other files.
 */
#include "base/accel.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/scope.h"
#include "deploy/driver-libvirt.h"

#include <fcntl.h>
#include <string.h>

enum { KEEPALIVE_SECONDS = 3, KEEPALIVE_COUNT = 3 };

/* --- shared things --- */

LvConfig *lv_config_ref(LvConfig *config)
{
    g_atomic_int_inc(&config->refs);
    return config;
}

void lv_config_unref(LvConfig *config)
{
    if (!config || !g_atomic_int_dec_and_test(&config->refs))
        return;
    g_free(config->group);
    g_free(config->image_dir);
    g_free(config->volume_dir);
    g_free(config->pool);
    g_free(config->machine);
    g_free(config->emulator);
    g_free(config->cpu);
    g_free(config->type);
    g_free(config);
}

LvBell *lv_bell_new(void)
{
    LvBell *bell = g_new0(LvBell, 1);

    bell->refs = 1;
    g_mutex_init(&bell->lock);
    g_cond_init(&bell->rung);
    return bell;
}

LvBell *lv_bell_ref(LvBell *bell)
{
    g_atomic_int_inc(&bell->refs);
    return bell;
}

void lv_bell_unref(LvBell *bell)
{
    if (!bell || !g_atomic_int_dec_and_test(&bell->refs))
        return;
    g_mutex_clear(&bell->lock);
    g_cond_clear(&bell->rung);
    g_free(bell);
}

void lv_bell_ring(LvBell *bell)
{
    AUTO_LOCK(&bell->lock);

    bell->count++;
    g_cond_signal(&bell->rung);
}

/* In short pieces, since a signal wakes no condition. */
void lv_bell_wait(LvBell *bell, double seconds)
{
    gint64 end = g_get_monotonic_time() + (gint64)(seconds * G_USEC_PER_SEC), now;
    AUTO_LOCK(&bell->lock);

    while (bell->count == bell->heard && !interrupt_requested() && (now = g_get_monotonic_time()) < end)
        (void)g_cond_wait_until(&bell->rung, &bell->lock, MIN(end, now + G_USEC_PER_SEC / 5));
    bell->heard = bell->count;
}

/* --- the library --- */

static void say_nothing(void *arg, virErrorPtr error)
{
    trace("deploy.libvirt", "%s", error && error->message ? error->message : "an error without words");
}

static gpointer run_events(gpointer arg)
{
    while (virEventRunDefaultImpl() == 0)
        ;
    log_warning("libvirt's event loop ended: %s", virGetLastErrorMessage());
    return NULL;
}

void lv_start(void)
{
    static gsize started;

    if (!g_once_init_enter(&started))
        return;
    (void)virInitialize();
    virSetErrorFunc(NULL, say_nothing);
    if (virEventRegisterDefaultImpl() == 0)
        g_thread_unref(g_thread_new("libvirt events", run_events, NULL));
    g_once_init_leave(&started, 1);
}

bool lv_fail(LvHost *host, GError **error, const char *format, ...)
{
    g_autofree char *what = NULL, *why = printable_line(virGetLastErrorMessage());
    va_list arguments;

    va_start(arguments, format);
    what = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    return fail(error, "cannot %s on %s: %s", what, host->uri, why);
}

/* --- connections --- */

LvHost *lv_host_new(const char *uri, LvConfig *config, LvBell *bell)
{
    LvHost *host = g_new0(LvHost, 1);

    host->uri = g_strdup(uri);
    host->config = lv_config_ref(config);
    host->bell = lv_bell_ref(bell);
    for (size_t i = 0; i < G_N_ELEMENTS(host->callbacks); i++)
        host->callbacks[i] = -1;
    return host;
}

static void disconnect(LvHost *host)
{
    if (!host->connection)
        return;
    for (size_t i = 0; i < G_N_ELEMENTS(host->callbacks); i++) {
        if (host->callbacks[i] >= 0)
            (void)virConnectDomainEventDeregisterAny(host->connection, host->callbacks[i]);
        host->callbacks[i] = -1;
    }
    (void)virConnectClose(host->connection);
    host->connection = NULL;
    host->kind_known = false;
    g_clear_pointer(&host->type, g_free);
}

void lv_host_free(LvHost *host)
{
    if (!host)
        return;
    disconnect(host);
    lv_config_unref(host->config);
    lv_bell_unref(host->bell);
    g_free(host->uri);
    g_free(host);
}

static void free_bell(void *bell)
{
    lv_bell_unref(bell);
}

static int on_lifecycle(virConnectPtr connection, virDomainPtr domain, int event, int detail, void *bell)
{
    lv_bell_ring(bell);
    return 0;
}

static void on_agent(virConnectPtr connection, virDomainPtr domain, int state, int reason, void *bell)
{
    lv_bell_ring(bell);
}

static void on_metadata(virConnectPtr connection, virDomainPtr domain, int type, const char *uri, void *bell)
{
    lv_bell_ring(bell);
}

/* Without events one looks less often; nothing else is lost. */
static void listen(LvHost *host)
{
    const struct {
        int id;
        virConnectDomainEventGenericCallback fn;
    } wanted[] = {
        {VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle)},
        {VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_agent)},
        {VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_metadata)},
    };

    G_STATIC_ASSERT(G_N_ELEMENTS(wanted) == G_N_ELEMENTS(host->callbacks));
    for (size_t i = 0; i < G_N_ELEMENTS(wanted); i++) {
        host->callbacks[i] =
            virConnectDomainEventRegisterAny(host->connection, NULL, wanted[i].id, wanted[i].fn, lv_bell_ref(host->bell), free_bell);
        if (host->callbacks[i] < 0)
            lv_bell_unref(host->bell);
    }
}

bool lv_uri_is_test(const char *uri)
{
    return g_str_has_prefix(uri, "test:") || g_str_has_prefix(uri, "test+");
}

bool lv_uri_has_server(const char *uri)
{
    g_autofree char *server = NULL;

    return g_uri_split(uri, G_URI_FLAGS_NON_DNS, NULL, NULL, &server, NULL, NULL, NULL, NULL, NULL) && server && *server;
}

/* ssh must not ask for a password on a terminal that is not its own. */
static char *quiet_uri(const char *uri)
{
    const char *scheme_end = strstr(uri, "://");
    g_autofree char *scheme = scheme_end ? g_strndup(uri, (gsize)(scheme_end - uri)) : g_strdup("");

    if (!strstr(scheme, "+ssh") || strstr(uri, "no_tty="))
        return g_strdup(uri);
    return g_strdup_printf("%s%sno_tty=1", uri, strchr(uri, '?') ? "&" : "?");
}

bool lv_connect(LvHost *host, GError **error)
{
    g_autofree char *uri = quiet_uri(host->uri), *why = NULL;

    if (host->connection && virConnectIsAlive(host->connection) == 1)
        return true;
    disconnect(host);
    host->connection = virConnectOpen(uri);
    if (!host->connection) {
        why = printable_line(virGetLastErrorMessage());
        return fail(error, "host %s does not answer: %s", host->uri, why);
    }
    /* Not every driver has a connection that could be lost. */
    (void)virConnectSetKeepAlive(host->connection, KEEPALIVE_SECONDS, KEEPALIVE_COUNT);
    listen(host);
    return true;
}

/* --- what kind of host --- */

/* libvirt's view of a folder of ours: a pool for a moment. */
static bool sees_file(LvHost *host, const char *folder, const char *name)
{
    g_autofree char *pool_name = g_strdup_printf("kiln-probe-%08x%08x", g_random_int(), g_random_int());
    g_autofree char *xml = domain_pool_xml(pool_name, folder);
    auto_pool pool = virStoragePoolCreateXML(host->connection, xml, 0);
    auto_vol volume = NULL;

    if (!pool)
        return virGetLastErrorCode() == VIR_ERR_NO_SUPPORT; /* no storage driver: it must be this machine's own */
    volume = virStorageVolLookupByName(pool, name);
    (void)virStoragePoolDestroy(pool);
    return volume != NULL;
}

static bool shares_our_files(LvHost *host)
{
    g_autofree char *folder = NULL, *name = g_strdup_printf("probe-%08x%08x", g_random_int(), g_random_int()), *path = NULL;
    bool sees;

    if (!file_make_dirs(host->config->image_dir, 0755, NULL))
        return false;
    folder = g_strdup_printf("%s/.probe-XXXXXX", host->config->image_dir);
    if (!g_mkdtemp_full(folder, 0755))
        return false;
    path = g_build_filename(folder, name, NULL);
    sees = g_file_set_contents(path, "kiln", 4, NULL) && sees_file(host, folder, name);
    (void)file_remove_tree(AT_FDCWD, folder, NULL);
    return sees;
}

bool lv_kind(LvHost *host, HostKind *ret, GError **error)
{
    if (!lv_connect(host, error))
        return false;
    if (!host->kind_known) {
        if (lv_uri_is_test(host->uri))
            host->kind = HOST_TEST;
        else
            host->kind = !lv_uri_has_server(host->uri) && shares_our_files(host) ? HOST_LOCAL : HOST_REMOTE;
        host->kind_known = true;
        trace("deploy.libvirt", "%s: %s", host->uri, host->kind == HOST_LOCAL ? "sees our files" : "has files of its own");
    }
    *ret = host->kind;
    return true;
}

/* "type" of the driver block, else KILN_ACCEL, else KVM where the host offers it and, on this machine, a machine that uses it boots (base/accel.h). */
static const char *choose_type(LvHost *host, const char *arch)
{
    const char *accel = g_getenv("KILN_ACCEL");
    auto_text *capabilities = NULL;

    if (host->config->type)
        return host->config->type;
    if (g_strcmp0(accel, "kvm") == 0)
        return "kvm";
    if (g_strcmp0(accel, "tcg") == 0 || (host->kind == HOST_LOCAL && accel_find() != ACCEL_KVM))
        return "qemu";
    capabilities = virConnectGetCapabilities(host->connection);
    return capabilities && domain_capabilities_offer(capabilities, arch, "kvm") ? "kvm" : "qemu";
}

bool lv_type(LvHost *host, const char *arch, const char **ret, GError **error)
{
    HostKind kind;

    if (!lv_kind(host, &kind, error))
        return false;
    if (!host->type)
        host->type = g_strdup(choose_type(host, arch));
    *ret = host->type;
    return true;
}
