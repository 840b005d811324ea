/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libvirt's XML, written and read back: what a domain is made of, what its host says about it, and text that nobody should have written.
 */
#include "base/error.h"
#include "deploy/domain-xml.h"

#include <string.h>

static DomainSpec spec_of(unsigned slot)
{
    DomainSpec spec = {.id = {.group = "web", .revision = 3, .slot = slot, .attempt = 2, .epoch = 5},
                       .type = "qemu",
                       .arch = "x86_64",
                       .memory = 256 << 20,
                       .cpus = 2,
                       .base = "/var/lib/kiln/images/a&b.raw",
                       .created = 1700000000};

    digest_of_string("image", &spec.id.image);
    return spec;
}

static DomainView *view_of(const char *xml)
{
    g_autoptr(GError) error = NULL;
    DomainView *view = NULL;

    (void)domain_view_parse(xml, &view, &error);
    g_assert_no_error(error);
    return view;
}

/* What libvirt makes of our XML once the domain runs: an overlay over the base. */
static char *as_running(const DomainSpec *spec)
{
    GString *xml = g_string_new(NULL);
    char *text = domain_xml(spec);

    g_string_assign(xml, text);
    g_free(text);
    g_assert_cmpuint(g_string_replace(xml,
                                      "<driver name='qemu' type='raw'/><source file='/var/lib/kiln/images/a&amp;b.raw'><seclabel model='dac' "
                                      "relabel='no'/></source>",
                                      "<driver name='qemu' type='qcow2'/><source file='/var/lib/kiln/images/a&amp;b.raw.TRANSIENT-web-r3-1-a2' index='2'/>"
                                      "<backingStore type='file' index='1'><format type='raw'/><source file='/var/lib/kiln/images/a&amp;b.raw'>"
                                      "<seclabel model='dac' relabel='no'/></source><backingStore/></backingStore>",
                                      1),
                     ==, 1);
    return g_string_free(xml, FALSE);
}

static void test_round_trip(void)
{
    DomainSpec spec = spec_of(1);
    g_autofree char *xml = as_running(&spec), *drift = NULL;
    g_autoptr(DomainView) view = view_of(xml);
    g_auto(DomainMark) mark = {.address = NULL};
    char uuid[37];

    instance_uuid(&spec.id, uuid);
    g_assert_cmpstr(view->name, ==, "web-r3-1-a2");
    g_assert_cmpstr(view->uuid, ==, uuid);
    g_assert_cmpuint(view->memory, ==, 256 << 20);
    g_assert_cmpuint(view->cpus, ==, 2);
    g_assert_cmpuint(view->disk_count, ==, 1);
    g_assert_cmpuint(view->disks[0].depth, ==, 2);
    g_assert_cmpstr(domain_base_file(view, NULL), ==, "/var/lib/kiln/images/a&b.raw");
    g_assert_nonnull(view->metadata);
    g_assert_true(domain_mark_parse(view->metadata, &mark));
    g_assert_cmpstr(mark.id.group, ==, "web");
    g_assert_cmpuint(mark.id.slot, ==, 1);
    g_assert_cmpint(mark.id.epoch, ==, 5);
    g_assert_cmpint(mark.created, ==, 1700000000);
    g_assert_true(digest_equal(&mark.id.image, &spec.id.image));
    drift = domain_drift(view, &mark);
    g_assert_cmpstr(drift, ==, NULL);
}

/* The base must not become the property of the user that guests run as, and must not be what they write to. */
static void test_promises(void)
{
    DomainSpec spec = spec_of(0);
    g_autofree char *xml = domain_xml(&spec);

    g_assert_nonnull(strstr(xml, "<transient shareBacking='yes'/>"));
    g_assert_nonnull(strstr(xml, "<seclabel model='dac' relabel='no'/>"));
    g_assert_nonnull(strstr(xml, "<on_reboot>destroy</on_reboot>"));
    g_assert_nonnull(strstr(xml, "<on_crash>destroy</on_crash>"));
    g_assert_null(strstr(xml, "guest_agent"));
    g_assert_nonnull(strstr(xml, "'user,id=kiln0'"));
}

static void test_networks(void)
{
    DomainSpec spec = spec_of(1);
    g_autofree char *forward = NULL, *bridge = NULL, *network = NULL, *plain = NULL;
    g_autoptr(DomainView) view = NULL;

    spec.port = 80;
    spec.address = "127.0.2.1";
    forward = domain_xml(&spec);
    g_assert_nonnull(strstr(forward, "'user,id=kiln0,hostfwd=tcp:127.0.2.1:80-:80'"));
    g_assert_null(strstr(forward, "<interface"));
    spec.bridge = "br0";
    spec.filter = "kiln-web-12345678";
    bridge = domain_xml(&spec);
    g_assert_nonnull(strstr(bridge, "<source bridge='br0'/>"));
    g_assert_null(strstr(bridge, "qemu:commandline"));
    view = view_of(bridge);
    g_assert_cmpstr(view->network_source, ==, "bridge br0");
    g_assert_cmpstr(view->filter, ==, "kiln-web-12345678");
    spec.bridge = NULL;
    spec.network = "default";
    network = domain_xml(&spec);
    g_assert_nonnull(strstr(network, "<source network='default'/>"));
    spec.test = true;
    spec.network = NULL;
    plain = domain_xml(&spec);
    g_assert_null(strstr(plain, "qemu:"));
}

static void assert_drift(const char *from, const char *to, const char *sentence)
{
    DomainSpec spec = spec_of(1);
    g_autofree char *xml = as_running(&spec), *drift = NULL;
    GString *text = g_string_new(xml);
    g_autoptr(DomainView) view = NULL;
    g_auto(DomainMark) mark = {.address = NULL};

    g_assert_cmpuint(g_string_replace(text, from, to, 0), >=, 1);
    view = view_of(text->str);
    g_assert_true(domain_mark_parse(view->metadata, &mark));
    drift = domain_drift(view, &mark);
    if (!drift || !strstr(drift, sentence))
        g_error("'%s' does not say '%s'", drift, sentence);
    (void)g_string_free(text, TRUE);
}

static void test_drift(void)
{
    assert_drift("<memory unit='KiB'>262144", "<memory unit='KiB'>262145", "memory");
    assert_drift("<vcpu>2", "<vcpu>3", "processors is 3 where it was created with 2");
    assert_drift("<source file='/var/lib/kiln/images/a&amp;b.raw", "<source file='/srv/x.raw", "it runs from '/srv/x.raw'");
    assert_drift(".TRANSIENT-web-r3-1-a2'", ".TRANSIENT-web-r3-0-a2'", "not the one that was made for it");
    assert_drift("<format type='raw'/>", "<format type='qcow2'/>", "not one overlay on one raw file");
    assert_drift("<backingStore/></backingStore>",
                 "<backingStore type='file'><format type='raw'/><source file='/x'/></backingStore></backingStore>", "a chain of 3");
    assert_drift("<transient shareBacking='yes'/>", "", "throw-away");
    assert_drift("value='user,id=kiln0'", "value='user,id=kiln0,hostfwd=tcp:0.0.0.0:22-:22'", "network");
    assert_drift("<rng", "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface><rng", "network");
    assert_drift("<on_crash>destroy", "<on_crash>restart", "come back");
}

static void refuse(const char *xml, const char *sentence)
{
    g_autoptr(GError) error = NULL;
    DomainView *view = NULL;

    g_assert_false(domain_view_parse(xml, &view, &error));
    if (!strstr(error->message, sentence))
        g_error("'%s' does not say '%s'", error->message, sentence);
}

static void test_hostile(void)
{
    g_autofree char *large = g_strnfill(DOMAIN_XML_MAX + 10, ' ');
    GString *deep = g_string_new("<domain>"), *disks = g_string_new("<domain><name>a</name><uuid>b</uuid><devices>"),
            *layers = g_string_new("<domain><name>a</name><uuid>b</uuid><devices><disk device='disk'><driver type='qcow2'/><source file='/0'/>");
    g_autoptr(DomainView) many = NULL, chained = NULL;

    refuse("", "cannot be read");
    refuse("<domain>", "cannot be read");
    refuse("<network><name>a</name></network>", "not that of a domain");
    refuse(large, "over");
    for (int i = 0; i < 2000; i++)
        g_string_append(deep, "<deeper>");
    refuse(deep->str, "cannot be read");
    for (int i = 0; i < 500; i++)
        g_string_append(disks, "<disk type='file' device='disk'><source file='/x'/></disk>");
    g_string_append(disks, "</devices></domain>");
    many = view_of(disks->str);
    g_assert_cmpuint(many->disk_count, ==, DOMAIN_DISKS_MAX);
    for (int i = 0; i < 100; i++)
        g_string_append(layers, "<backingStore type='file'><format type='raw'/><source file='/y'/>");
    for (int i = 0; i < 100; i++)
        g_string_append(layers, "</backingStore>");
    g_string_append(layers, "<target dev='vda'/><transient/></disk></devices></domain>");
    chained = view_of(layers->str);
    g_assert_cmpuint(chained->disks[0].depth, ==, DOMAIN_CHAIN_MAX + 1);
    g_assert_null(domain_base_file(chained, NULL));
    (void)g_string_free(deep, TRUE);
    (void)g_string_free(disks, TRUE);
    (void)g_string_free(layers, TRUE);
}

/* An element of the same name in another name space, or elsewhere, is no mark. */
static void test_marks(void)
{
    g_autoptr(DomainView) other = view_of("<domain><name>a</name><uuid>b</uuid><metadata><k:instance xmlns:k='urn:other'>{}</k:instance></metadata></domain>");
    g_autoptr(DomainView) elsewhere =
        view_of("<domain><name>a</name><uuid>b</uuid><metadata><x><k:instance xmlns:k='" DOMAIN_NAMESPACE "'>{}</k:instance></x></metadata></domain>");
    g_autoptr(DomainView) renamed =
        view_of("<domain><name>a</name><uuid>b</uuid><metadata><z:instance xmlns:z='" DOMAIN_NAMESPACE "'>{}</z:instance></metadata></domain>");
    DomainMark mark;
    const char *bad[] = {"", "{}", "[]", "{\"instance\":{},\"made\":{}}",
                         "{\"created\":-1,\"instance\":{\"attempt\":1,\"epoch\":1,\"group\":\"web\",\"image\":\"sha256:x\",\"revision\":1,\"slot\":1},\"made\":{}}"};

    g_assert_null(other->metadata);
    g_assert_null(elsewhere->metadata);
    g_assert_cmpstr(renamed->metadata, ==, "{}");
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_false(domain_mark_parse(bad[i], &mark));
}

static void test_capabilities(void)
{
    const char *xml = "<capabilities><host><cpu/></host><guest><os_type>hvm</os_type><arch name='i686'><domain type='qemu'/><domain type='kvm'/></arch></guest>"
                      "<guest><os_type>hvm</os_type><arch name='x86_64'><domain type='qemu'/></arch></guest>"
                      "<guest><os_type>linux</os_type><arch name='x86_64'><domain type='kvm'/></arch></guest></capabilities>";

    g_assert_true(domain_capabilities_offer(xml, "x86_64", "qemu"));
    g_assert_false(domain_capabilities_offer(xml, "x86_64", "kvm"));
    g_assert_true(domain_capabilities_offer(xml, "i686", "kvm"));
    g_assert_true(domain_capabilities_offer(xml, NULL, "kvm"));
    g_assert_false(domain_capabilities_offer("<capab", NULL, "kvm"));
}

static void test_filter(void)
{
    char *rules[] = {(char *)"tcp/80", (char *)"udp/53-60", (char *)"icmp", NULL}, *other[] = {(char *)"tcp/81", NULL};
    const char *bad[] = {"80", "tcp/", "tcp/0", "tcp/70000", "tcp/9-1", "tcp/80x", "sctp/1", "tcp/-1", "'/>"};
    g_autofree char *name = NULL, *xml = NULL, *again = NULL, *same = NULL, *second = NULL, *unused = NULL;

    g_assert_true(domain_filter_xml("web", rules, &name, &xml, NULL) && domain_filter_xml("web", rules, &again, &same, NULL) &&
                  domain_filter_xml("web", other, &second, &unused, NULL));
    g_assert_true(g_str_has_prefix(name, "kiln-web-"));
    g_assert_cmpstr(name, ==, again);
    g_assert_cmpstr(name, !=, second);
    g_assert_nonnull(strstr(xml, "<tcp dstportstart='80' dstportend='80'/>"));
    g_assert_nonnull(strstr(xml, "<tcp-ipv6 dstportstart='80'"));
    g_assert_nonnull(strstr(xml, "<udp dstportstart='53' dstportend='60'/>"));
    g_assert_nonnull(strstr(xml, "<ip protocol='tcp' dstportstart='80' dstportend='80'/>"));
    g_assert_nonnull(strstr(xml, "<all-ipv6/>"));
    g_assert_nonnull(strstr(xml, "<ip/>"));
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        char *one[] = {(char *)bad[i], NULL}, *ignored;

        g_assert_false(domain_filter_xml("web", one, &ignored, &ignored, NULL));
    }
}

static void test_volumes(void)
{
    const char *xml = "<volume type='file'><name>x</name><capacity unit='bytes'>4194304</capacity><allocation unit='bytes'>274432</allocation><target>"
                      "<path>/srv/x</path><timestamps><atime>1.2</atime><mtime>3.4</mtime><ctime>5.6</ctime></timestamps></target></volume>";
    DomainVolumeStamp stamp;

    g_assert_true(domain_volume_stamp_parse(xml, &stamp));
    g_assert_cmpuint(stamp.capacity, ==, 4194304);
    g_assert_cmpuint(stamp.allocation, ==, 274432);
    g_assert_cmpstr(stamp.path, ==, "/srv/x");
    g_assert_cmpstr(stamp.mtime, ==, "3.4");
    g_assert_cmpstr(stamp.ctime, ==, "5.6");
    g_assert_false(domain_volume_stamp_parse("<volume><target><path>/x</path></target></volume>", &stamp));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/domain-xml/comes-back-as-it-went", test_round_trip);
    g_test_add_func("/domain-xml/promises", test_promises);
    g_test_add_func("/domain-xml/networks", test_networks);
    g_test_add_func("/domain-xml/drift-is-told", test_drift);
    g_test_add_func("/domain-xml/hostile", test_hostile);
    g_test_add_func("/domain-xml/marks", test_marks);
    g_test_add_func("/domain-xml/capabilities", test_capabilities);
    g_test_add_func("/domain-xml/filter", test_filter);
    g_test_add_func("/domain-xml/volumes", test_volumes);
    return g_test_run();
}
