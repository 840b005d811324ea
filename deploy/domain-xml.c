/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing libvirt's XML: domains, and the small documents around them. Reading it back is domain-view.c.
 */
#include "deploy/domain-xml.h"

#include "base/error.h"

#include <ctype.h>
#include <string.h>

bool domain_text_is_fit(const char *text)
{
    if (strlen(text) > 1024 || !g_utf8_validate(text, -1, NULL))
        return false;
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return true;
}

void domain_mac(const InstanceId *id, char ret[18])
{
    char name[96];
    Digest digest;
    const uint8_t *b = digest.bytes;

    instance_name(id, name);
    digest_of_string(name, &digest);
    (void)g_snprintf(ret, 18, "52:54:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3]);
}

static void add(GString *xml, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void add(GString *xml, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list arguments;

    va_start(arguments, format);
    text = g_markup_vprintf_escaped(format, arguments);
    va_end(arguments);
    g_string_append(xml, text);
}

static char *forward_text(const DomainSpec *spec)
{
    if (spec->port == 0 || !spec->address)
        return g_strdup("user,id=kiln0");
    if (strchr(spec->address, ':'))
        return g_strdup_printf("user,id=kiln0,hostfwd=tcp:[%s]:%u-:%u", spec->address, spec->port, spec->port);
    return g_strdup_printf("user,id=kiln0,hostfwd=tcp:%s:%u-:%u", spec->address, spec->port, spec->port);
}

static char *network_text(const DomainSpec *spec)
{
    if (spec->bridge)
        return g_strdup_printf("bridge %s", spec->bridge);
    if (spec->network)
        return g_strdup_printf("network %s", spec->network);
    return spec->test ? g_strdup("") : forward_text(spec);
}

/* Everything that domain_drift() compares, by the names that it uses in its sentences. */
static json_t *made_of(const DomainSpec *spec)
{
    g_autofree char *network = network_text(spec);
    json_t *made = json_pack("{s:I, s:I, s:s, s:s, s:s, s:I}", "memory", (json_int_t)spec->memory, "cpus", (json_int_t)spec->cpus, "base",
                             spec->base, "network", network, "filter", spec->filter ? spec->filter : "", "disks",
                             (json_int_t)(1 + (spec->seed ? 1 : 0) + (spec->volumes ? spec->volumes->len : 0)));
    char mac[18];

    domain_mac(&spec->id, mac);
    json_object_set_new(made, "mac", json_string(*network && (spec->bridge || spec->network) ? mac : ""));
    return made;
}

void domain_mark_sum(const json_t *mark, char ret[DIGEST_HEX_SIZE])
{
    g_autoptr(json_t) rest = json_copy((json_t *)mark);
    Digest digest;

    (void)json_object_del(rest, "sum");
    json_digest(rest, &digest);
    digest_to_hex(&digest, ret);
}

static char *mark_text(const DomainSpec *spec)
{
    g_autoptr(json_t) mark = json_pack("{s:o, s:o, s:I}", "instance", instance_id_json(&spec->id), "made", made_of(spec), "created",
                                       (json_int_t)spec->created);
    char hex[DIGEST_HEX_SIZE];

    if (spec->address)
        json_object_set_new(mark, "address", json_string(spec->address));
    domain_mark_sum(mark, hex);
    json_object_set_new(mark, "sum", json_string(hex));
    return json_canonical(mark);
}

static void add_head(GString *xml, const DomainSpec *spec)
{
    g_autofree char *mark = mark_text(spec);
    char name[96], uuid[37];

    instance_name(&spec->id, name);
    instance_uuid(&spec->id, uuid);
    add(xml, "<domain type='%s'>\n<name>%s</name>\n<uuid>%s</uuid>\n", spec->test ? "test" : spec->type, name, uuid);
    add(xml, "<metadata><" DOMAIN_PREFIX ":instance xmlns:" DOMAIN_PREFIX "='" DOMAIN_NAMESPACE "'>%s</" DOMAIN_PREFIX ":instance></metadata>\n",
        mark);
    add(xml, "<memory unit='KiB'>%" G_GUINT64_FORMAT "</memory>\n<vcpu>%u</vcpu>\n<os><type", spec->memory / 1024, spec->cpus);
    if (spec->arch && !spec->test)
        add(xml, " arch='%s'", spec->arch);
    if (spec->machine && !spec->test)
        add(xml, " machine='%s'", spec->machine);
    add(xml, ">hvm</type><boot dev='hd'/></os>\n<features><acpi/></features>\n");
    if (g_strcmp0(spec->cpu, "host") == 0)
        add(xml, "<cpu mode='host-passthrough'/>\n");
    else if (spec->cpu)
        add(xml, "<cpu mode='custom' match='exact'><model>%s</model></cpu>\n", spec->cpu);
    add(xml, "<on_poweroff>destroy</on_poweroff>\n<on_reboot>destroy</on_reboot>\n<on_crash>destroy</on_crash>\n");
}

static void add_disks(GString *xml, const DomainSpec *spec)
{
    add(xml,
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'><seclabel model='dac' relabel='no'/></source>"
        "<target dev='vda' bus='virtio'/><transient shareBacking='yes'/></disk>\n",
        spec->base);
    for (guint i = 0; spec->volumes && i < spec->volumes->len; i++) {
        const DomainVolume *volume = g_ptr_array_index(spec->volumes, i);

        add(xml,
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='vd%c' bus='virtio'/>"
            "<serial>%s</serial></disk>\n",
            volume->path, 'b' + (char)i, volume->serial);
    }
    if (spec->seed) /* found by its label, whatever it is attached as; virtio needs no driver that the image lacks */
        add(xml,
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='vdz' bus='virtio'/>"
            "<readonly/></disk>\n",
            spec->seed);
}

static void add_network(GString *xml, const DomainSpec *spec)
{
    char mac[18];

    if (!spec->bridge && !spec->network)
        return;
    domain_mac(&spec->id, mac);
    add(xml, "<interface type='%s'><mac address='%s'/><source %s='%s'/><model type='virtio'/>", spec->bridge ? "bridge" : "network", mac,
        spec->bridge ? "bridge" : "network", spec->bridge ? spec->bridge : spec->network);
    if (spec->filter)
        add(xml, "<filterref filter='%s'/>", spec->filter);
    add(xml, "</interface>\n");
}

static void add_serial(GString *xml, const DomainSpec *spec)
{
    if (spec->console_log)
        add(xml, "<serial type='pty'><log file='%s' append='off'/><target port='0'/></serial>\n", spec->console_log);
    else
        add(xml, "<serial type='pty'><target port='0'/></serial>\n");
    if (spec->agent)
        add(xml, "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n");
    add(xml, "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n<memballoon model='none'/>\n");
}

/*
 * libvirt's own user-mode interface cannot forward a port (9.0: only through passt), so the card is given to qemu directly, in a PCI slot
 * that libvirt, which counts from below, does not reach.
 */
static void add_user_network(GString *xml, const DomainSpec *spec)
{
    g_autofree char *forward = forward_text(spec);
    char mac[18];

    domain_mac(&spec->id, mac);
    add(xml,
        "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:arg value='-netdev'/><qemu:arg value='%s'/>"
        "<qemu:arg value='-device'/><qemu:arg value='virtio-net-pci,netdev=kiln0,addr=0x1d,mac=%s'/></qemu:commandline>\n",
        forward, mac);
}

char *domain_xml(const DomainSpec *spec)
{
    GString *xml = g_string_new(NULL);

    add_head(xml, spec);
    g_string_append(xml, "<devices>\n");
    if (spec->emulator && !spec->test)
        add(xml, "<emulator>%s</emulator>\n", spec->emulator);
    add_disks(xml, spec);
    add_network(xml, spec);
    add_serial(xml, spec);
    g_string_append(xml, "</devices>\n");
    if (!spec->test && !spec->bridge && !spec->network)
        add_user_network(xml, spec);
    g_string_append(xml, "</domain>\n");
    return g_string_free(xml, FALSE);
}

char *domain_reservation_xml(const InstanceId *id, const char *address)
{
    char name[96], mac[18];

    instance_name(id, name);
    domain_mac(id, mac);
    return g_markup_printf_escaped("<host mac='%s' name='%s' ip='%s'/>", mac, name, address);
}

char *domain_volume_xml(const char *name, uint64_t capacity, unsigned mode)
{
    return g_markup_printf_escaped("<volume><name>%s</name><capacity unit='bytes'>%" G_GUINT64_FORMAT "</capacity><allocation>0</allocation>"
                                   "<target><format type='raw'/><permissions><mode>0%o</mode></permissions></target></volume>",
                                   name, capacity, mode);
}

char *domain_pool_xml(const char *name, const char *folder)
{
    return g_markup_printf_escaped("<pool type='dir'><name>%s</name><target><path>%s</path><permissions><mode>0711</mode></permissions>"
                                   "</target></pool>",
                                   name, folder);
}

/* --- the network filter --- */

/*
 * Two layers, and a packet has to pass both. libvirt hands rules of "tcp", "all" and the like to iptables, which knows connections but sees only what is
 * forwarded, and on a bridge only where br_netfilter is loaded. Rules of "ip" and "ipv6" go to ebtables on the guest's own card, which sees every packet,
 * also the host's, and knows no connections: there, ports from 32768 are left open for answers to what the guest has begun.
 */
#define ANSWER_PORTS_FIRST 32768

static void add_accept(GString *xml, const char *protocol, unsigned first, unsigned last)
{
    static const char *const frames[] = {"ip", "ipv6"}, *const suffixes[] = {"", "-ipv6"};

    for (size_t i = 0; i < 2; i++) {
        g_string_append_printf(xml, "<rule action='accept' direction='in' priority='400'><%s%s dstportstart='%u' dstportend='%u'/></rule>\n",
                               protocol, suffixes[i], first, last);
        g_string_append_printf(xml, "<rule action='accept' direction='in' priority='400'><%s protocol='%s' dstportstart='%u' dstportend='%u'/></rule>\n",
                               frames[i], protocol, first, last);
    }
}

/* "tcp/80", "udp/53-60", "icmp" */
static bool add_rule(GString *xml, const char *rule, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(rule, "/", 2);
    char *end = NULL;
    guint64 first, last;

    if (g_str_equal(rule, "icmp")) {
        g_string_append(xml, "<rule action='accept' direction='in' priority='400'><icmp/></rule>\n");
        return true;
    }
    if ((g_strcmp0(parts[0], "tcp") != 0 && g_strcmp0(parts[0], "udp") != 0) || !parts[1] || !g_ascii_isdigit(parts[1][0]))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no firewall rule; write tcp/PORT, udp/PORT, tcp/FIRST-LAST or icmp", rule);
    first = last = g_ascii_strtoull(parts[1], &end, 10);
    if (*end == '-' && g_ascii_isdigit(end[1]))
        last = g_ascii_strtoull(end + 1, &end, 10);
    if (*end != '\0' || first < 1 || last > 65535 || last < first)
        return fail_code(error, KILN_ERROR_USAGE, "'%s' names no ports of 1 to 65535", rule);
    add_accept(xml, parts[0], (unsigned)first, (unsigned)last);
    return true;
}

/* What the guest itself begins may go out and be answered; so may DHCP and IPv6's neighbours, without which there is no network. */
static void add_answers(GString *xml)
{
    static const char *const protocols[] = {"tcp", "udp"}, *const frames[] = {"ip", "ipv6"};

    g_string_append(xml, "<rule action='accept' direction='out' priority='300'><all state='NEW,ESTABLISHED,RELATED'/></rule>\n"
                         "<rule action='accept' direction='in' priority='300'><all state='ESTABLISHED,RELATED'/></rule>\n"
                         "<rule action='accept' direction='out' priority='300'><all-ipv6 state='NEW,ESTABLISHED,RELATED'/></rule>\n"
                         "<rule action='accept' direction='in' priority='300'><all-ipv6 state='ESTABLISHED,RELATED'/></rule>\n"
                         "<rule action='accept' direction='inout' priority='300'><icmpv6/></rule>\n"
                         "<rule action='accept' direction='in' priority='300'><udp srcportstart='67' dstportstart='68'/></rule>\n"
                         "<rule action='accept' direction='in' priority='300'><ip protocol='udp' srcportstart='67' dstportstart='68'/></rule>\n"
                         "<rule action='accept' direction='in' priority='300'><ip protocol='udp' srcportstart='123' dstportstart='123'/></rule>\n"
                         "<rule action='accept' direction='in' priority='300'><ip protocol='icmp'/></rule>\n"
                         "<rule action='accept' direction='in' priority='300'><ipv6 protocol='icmpv6'/></rule>\n");
    for (size_t i = 0; i < 4; i++)
        g_string_append_printf(xml, "<rule action='accept' direction='in' priority='300'><%s protocol='%s' dstportstart='%d' dstportend='65535'/></rule>\n",
                               frames[i / 2], protocols[i % 2], ANSWER_PORTS_FIRST);
}

bool domain_filter_xml(const char *group, char *const *allow, char **ret_name, char **ret_xml, GError **error)
{
    g_autoptr(GString) rules = g_string_new(NULL);
    g_autofree char *name = NULL;
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    add_answers(rules);
    for (; *allow; allow++)
        if (!add_rule(rules, *allow, error))
            return false;
    g_string_append(rules, "<rule action='drop' direction='in' priority='900'><all/></rule>\n"
                           "<rule action='drop' direction='in' priority='900'><all-ipv6/></rule>\n"
                           "<rule action='drop' direction='in' priority='900'><ip/></rule>\n"
                           "<rule action='drop' direction='in' priority='900'><ipv6/></rule>\n");
    digest_of_string(rules->str, &digest);
    digest_to_hex(&digest, hex);
    name = g_strdup_printf("kiln-%s-%.8s", group, hex);
    *ret_xml = g_strdup_printf("<filter name='%s' chain='root'>\n%s</filter>\n", name, rules->str);
    *ret_name = g_steal_pointer(&name);
    return true;
}
