/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Group files: what they become, and where and how each mistake is told.
 *
 * The tables of members are this program's own, so that nothing here depends on which drivers and balancers there are.
 */
#include "base/error.h"
#include "base/file.h"
#include "deploy/deploy.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* --- members --- */

static bool check_hosts(const json_t *arguments, const InstanceShape *shape, const char **ret_argument, GError **error)
{
    const json_t *hosts = json_object_get(arguments, "hosts");

    *ret_argument = "hosts";
    return !hosts || json_array_size(hosts) > 0 || fail(error, "the list of hosts is empty");
}

static bool check_sockets(const json_t *arguments, Strategy strategy, const char **ret_argument, GError **error)
{
    *ret_argument = NULL;
    return json_object_get(arguments, "sockets") || fail(error, "a balancer needs sockets");
}

static bool do_ping(Driver *driver, const DriverInstance *instance, GError **error)
{
    return true;
}
static bool do_destroy_volumes(Driver *driver, GError **error)
{
    return true;
}
static bool do_switch(Balancer *balancer, uint32_t color, GError **error)
{
    return true;
}
static bool do_counters(Balancer *balancer, uint32_t color, uint32_t place, BalancerCounters *ret, GError **error)
{
    return true;
}
static bool check_nothing(const json_t *arguments, Strategy strategy, const char **ret_argument, GError **error)
{
    return true;
}

static const DriverOps vms = {.name = "vms", .kind = "disk", .check = check_hosts, .ping = do_ping, .destroy_volumes = do_destroy_volumes};
static const DriverOps cans = {.name = "cans", .kind = "oci", .check = check_hosts};
static const BalancerOps proxy = {.name = "proxy", .check = check_sockets, .switch_color = do_switch, .counters = do_counters, .weighs = true};
static const BalancerOps none = {.name = "none", .check = check_nothing};

const DriverOps *driver_find(const char *name, char **ret_names)
{
    if (ret_names)
        *ret_names = g_strdup("vms, cans");
    return strcmp(name, "vms") == 0 ? &vms : strcmp(name, "cans") == 0 ? &cans : NULL;
}

const BalancerOps *balancer_find(const char *name, char **ret_names)
{
    if (ret_names)
        *ret_names = g_strdup("proxy, none");
    return strcmp(name, "proxy") == 0 ? &proxy : strcmp(name, "none") == 0 ? &none : NULL;
}

/* --- help --- */

static GPtrArray *load_with(const char *text, const char *const *vars)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *files = NULL;

    g_assert_true(g_file_set_contents("t.group.hcl", text, -1, NULL));
    (void)group_load("t.group.hcl", vars, NULL, &files, &error);
    g_assert_no_error(error);
    g_assert_nonnull(files);
    return files;
}

#define START "group \"web\" {\n  image = \"web:prod\"\n  driver \"vms\" {}\n"

/* The body stands from line 4 on. */
static GPtrArray *load_body(const char *body)
{
    g_autofree char *text = g_strconcat(START, body, "\n}\n", NULL);

    return load_with(text, NULL);
}

static const GroupSpec *first(const GPtrArray *files)
{
    return ((GroupFile *)files->pdata[0])->spec;
}

static char *load_fails(const char *text)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *files = NULL;

    g_assert_true(g_file_set_contents("t.group.hcl", text, -1, NULL));
    if (group_load("t.group.hcl", NULL, NULL, &files, &error))
        g_error("this is accepted:\n%s", text);
    g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
    return g_strdup(error->message);
}

/* --- good files --- */

static const char whole[] =
    "variable \"size\" {\n  type = number\n  default = 4\n}\n"
    "locals {\n  port = 80\n}\n"
    "group \"web\" {\n"
    "  size  = var.size\n  image = \"web/disk:prod\"\n  approval = \"another person\"\n  require_test = true\n  deadline = \"30m\"\n  host_lost_after = \"10m\"\n"
    "  instance {\n    memory = \"256M\"\n    cpus = 2\n    user_data = \"#cloud-config\\n\"\n    environment = { B = \"2\", A = 1 }\n  }\n"
    "  driver \"vms\" {\n    hosts = [\"qemu:///system\", \"qemu+ssh://b/system\"]\n    pool { name = \"x\" }\n  }\n"
    "  network {\n    bridge = \"br0\"\n    addresses = [\"10.0.0.10-10.0.0.14\", \"10.0.0.20/23\"]\n    gateway = \"10.0.0.1\"\n  }\n"
    "  balancer \"proxy\" {\n    sockets = [\"/run/haproxy/admin.sock\"]\n  }\n"
    "  health {\n    http = \"/ready?x=1\"\n    port = local.port\n    interval = \"500ms\"\n    rise = 3\n    fall = 4\n    start_timeout = \"2m\"\n  }\n"
    "  drain {\n    deadline = \"10s\"\n  }\n"
    "  firewall {\n    allow = [\"tcp/80\", \"tcp/8000-8100\", \"udp/53\", \"icmp\"]\n  }\n"
    "  strategy \"canary\" {\n    steps = [{ count = 1 }, 50]\n    hold = \"1m\"\n    gate = \"manual\"\n    sticky = true\n    max_unavailable = \"30%\"\n"
    "    analysis \"balancer\" {\n      samples = 60\n      interval = 2\n    }\n"
    "    analysis \"prometheus\" {\n      url = \"http://127.0.0.1:9090\"\n      query_canary = \"a\"\n      query_baseline = \"b\"\n    }\n"
    "    analysis \"command\" {\n      command = [\"/bin/check\", \"-x\"]\n    }\n  }\n"
    "  rollback {\n    keep = \"1h\"\n  }\n  phoenix {\n    max_age = \"7d\"\n  }\n"
    "  drift {\n    ignore = [\"/var/cache/**\"]\n    cure = \"replace\"\n  }\n}\n";

static void test_whole(void)
{
    const char *const vars[] = {"size=5", NULL};
    g_autoptr(GPtrArray) files = load_with(whole, NULL), bigger = NULL;
    const GroupFile *file = files->pdata[0];
    const GroupSpec *spec = file->spec;
    const AnalysisSpec *analysis = spec->analyses->pdata[0];

    g_assert_cmpuint(files->len, ==, 1);
    g_assert_true(file->size_given && file->size == 4);
    g_assert_cmpstr(spec->name, ==, "web");
    g_assert_cmpstr(spec->image_ref, ==, "web/disk:prod");
    g_assert_cmpstr(spec->driver, ==, "vms");
    g_assert_cmpuint(json_array_size(json_object_get(spec->driver_arguments, "hosts")), ==, 2);
    g_assert_cmpuint(json_object_size(spec->driver_arguments), ==, 2);
    g_assert_true(spec->approval && spec->needs_test && !spec->ephemeral && spec->cure_replace && spec->sticky);
    g_assert_cmpfloat(spec->deadline, ==, 1800);
    g_assert_cmpfloat(spec->host_lost_after, ==, 600);
    g_assert_cmpuint(spec->shape.memory, ==, 256 << 20);
    g_assert_cmpstr(spec->shape.environment[0], ==, "A=1");
    g_assert_cmpstr(spec->shape.environment[1], ==, "B=2");
    g_assert_cmpuint(spec->shape.port, ==, 80);
    g_assert_cmpstr(spec->shape.bridge, ==, "br0");
    g_assert_cmpstr(spec->balancer, ==, "proxy");
    g_assert_cmpstr(spec->health_http, ==, "/ready?x=1");
    g_assert_cmpfloat(spec->health_interval, ==, 0.5);
    g_assert_cmpuint(spec->rise + spec->fall, ==, 7);
    g_assert_cmpuint(g_strv_length(spec->shape.allow), ==, 4);
    g_assert_cmpuint(spec->rules.strategy, ==, STRATEGY_CANARY);
    g_assert_cmpuint(spec->rules.step_count, ==, 3);
    g_assert_cmpuint(spec->rules.steps[0].count, ==, 1);
    g_assert_cmpuint(spec->rules.steps[2].percent, ==, 100);
    g_assert_true(spec->rules.gate && spec->rules.analysis && spec->rules.baseline && spec->rules.weighted && !spec->rules.exclusive);
    g_assert_cmpuint(spec->rules.max_surge, ==, 2); /* the baseline of the step of 50 percent */
    g_assert_cmpuint(spec->rules.max_unavailable, ==, 1);
    g_assert_cmpuint(spec->analyses->len, ==, 3);
    g_assert_cmpuint(analysis->samples, ==, 60);
    g_assert_cmpfloat(analysis->interval, ==, 2);
    g_assert_cmpfloat(analysis->confidence, ==, 0.98);
    g_assert_cmpfloat(spec->rollback_keep, ==, 3600);
    g_assert_cmpfloat(spec->max_age, ==, 7 * 86400);
    g_assert_cmpfloat(spec->canary_hold, ==, 60);
    g_assert_cmpstr(spec->drift_ignore[0], ==, "/var/cache/**");
    g_assert_true(g_file_set_contents("t.group.hcl", whole, -1, NULL));
    g_assert_false(group_load("t.group.hcl", vars, NULL, &bigger, NULL)); /* a canary's baseline no longer fits the 6 addresses */
}

static void test_defaults(void)
{
    g_autoptr(GPtrArray) files = load_body("");
    const GroupFile *file = files->pdata[0];
    const GroupSpec *spec = file->spec;

    g_assert_true(!file->size_given && file->size == 1);
    g_assert_cmpstr(spec->balancer, ==, "none");
    g_assert_cmpuint(spec->rules.strategy, ==, STRATEGY_ROLLING);
    g_assert_cmpuint(spec->rules.max_surge, ==, 1);
    g_assert_cmpuint(spec->rules.max_unavailable, ==, 0);
    g_assert_cmpuint(spec->rules.start_retries, ==, 2);
    g_assert_cmpuint(spec->shape.memory, ==, 512 << 20);
    g_assert_cmpuint(spec->shape.cpus, ==, 1);
    g_assert_true(!spec->health_http && !spec->health_tcp && !spec->health_agent && spec->health_port == 0);
    g_assert_cmpfloat(spec->health_interval, ==, 1);
    g_assert_cmpfloat(spec->start_timeout, ==, 90);
    g_assert_cmpfloat(spec->drain_deadline, ==, 30);
    g_assert_cmpfloat(spec->rollback_keep, ==, 1800);
    g_assert_true(spec->deadline == 0 && spec->max_age == 0 && spec->host_lost_after == 0);
    g_assert_null(spec->shape.allow);
    g_assert_null(spec->shape.addresses);
    g_assert_cmpuint(spec->analyses->len, ==, 0);
}

static void test_images(void)
{
    static const char *const good[] = {"web:prod", "web/disk:prod", "0123456789ab", "web.one-two:a.b",
                                       "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"};

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *text = g_strdup_printf("group \"a\" {\n  image = \"%s\"\n  driver \"vms\" {}\n}\n", good[i]);
        g_autoptr(GPtrArray) files = load_with(text, NULL);

        g_assert_cmpstr(first(files)->image_ref, ==, good[i]);
    }
}

static void test_volumes(void)
{
    g_autoptr(GPtrArray) files = load_body("volume \"data\" {\n size = \"10G\"\n mount = \"/srv\"\n}\nvolume \"logs\" {\n size = \"1M\"\n mount = \"/var/log\"\n}");
    const GroupSpec *spec = first(files);
    const VolumeSpec *volume = spec->shape.volumes->pdata[0];

    g_assert_true(spec->rules.exclusive);
    g_assert_cmpuint(spec->rules.max_surge, ==, 0);
    g_assert_cmpuint(spec->rules.max_unavailable, ==, 1);
    g_assert_cmpuint(spec->shape.volumes->len, ==, 2);
    g_assert_cmpstr(volume->name, ==, "data");
    g_assert_cmpstr(volume->mount, ==, "/srv");
    g_assert_cmpuint(volume->size, ==, (uint64_t)10 << 30);
}

static void test_dynamic(void)
{
    g_autoptr(GPtrArray) files = load_body("dynamic \"volume\" {\n for_each = { a = \"/a\", b = \"/b\" }\n labels = [volume.key]\n"
                                           " content {\n size = \"1G\"\n mount = volume.value\n }\n}");
    g_autofree char *message = load_fails(START "dynamic \"volume\" {\n for_each = [\"a\"]\n labels = [volume.value]\n content {\n size = \"1G\"\n mount = \"a\"\n }\n}\n}\n");

    g_assert_cmpstr(((VolumeSpec *)first(files)->shape.volumes->pdata[1])->mount, ==, "/b");
    g_assert_nonnull(strstr(message, "t.group.hcl:9:10: 'mount' must be"));
}

static void test_several(void)
{
    g_autoptr(GPtrArray) files = load_with(START "}\ngroup \"api\" {\n  image = \"api:prod\"\n  driver \"cans\" {}\n}\n", NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) all = NULL;

    g_assert_cmpuint(files->len, ==, 2);
    g_assert_cmpstr(((GroupFile *)files->pdata[1])->spec->name, ==, "api");
    g_assert_true(file_make_dirs("folder", 0755, NULL));
    g_assert_true(g_file_set_contents("folder/b.group.hcl", "group \"b\" {\n  image = local.image\n  driver \"vms\" {}\n}\n", -1, NULL));
    g_assert_true(g_file_set_contents("folder/a.group.hcl", "locals {\n  image = \"x:prod\"\n}\ngroup \"a\" {\n  image = local.image\n  driver \"vms\" {}\n}\n", -1, NULL));
    g_assert_true(g_file_set_contents("folder/t.pkr.hcl", "not read", -1, NULL));
    g_assert_true(group_file_is("folder") && group_file_is("x.group.hcl") && !group_file_is("x.pkr.hcl") && !group_file_is("absent"));
    (void)group_load("folder", NULL, NULL, &all, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(all->len, ==, 2);
    g_assert_cmpstr(first(all)->name, ==, "a");
}

/* --- percentages --- */

static void test_percent(void)
{
    static const struct {
        unsigned size;
        const char *surge, *unavailable;
        unsigned want_surge, want_unavailable;
    } cases[] = {
        {3, "25%", "25%", 1, 0}, {4, "25%", "25%", 1, 1},     {5, "25%", "25%", 2, 1},      {10, "0%", "15%", 0, 1},   {10, "100%", "100%", 10, 10},
        {1, "1%", "99%", 1, 0},  {7, "50%", "50%", 4, 3},     {10000, "1%", "1%", 100, 100}, {3, "34%", "34%", 2, 1},  {3, "33%", "33%", 1, 0},
        {200, "1%", "0%", 2, 0}, {199, "1%", "1%", 2, 1},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *body = g_strdup_printf("size = %u\nstrategy \"rolling\" {\n max_surge = \"%s\"\n max_unavailable = \"%s\"\n}", cases[i].size, cases[i].surge,
                                                cases[i].unavailable);
        g_autoptr(GPtrArray) files = load_body(body);

        g_assert_cmpuint(first(files)->rules.max_surge, ==, cases[i].want_surge);
        g_assert_cmpuint(first(files)->rules.max_unavailable, ==, cases[i].want_unavailable);
    }
}

static void test_steps(void)
{
    g_autoptr(GPtrArray) files = load_body("size = 10\nstrategy \"canary\" {\n steps = [10, { percent = 25 }, { count = 5 }, 100]\n}");
    g_autoptr(GPtrArray) plain = load_body("size = 3\nstrategy \"canary\" {\n steps = [10, 80]\n}");

    g_assert_cmpuint(first(files)->rules.step_count, ==, 4);
    g_assert_cmpuint(first(files)->rules.steps[2].count, ==, 5);
    g_assert_cmpuint(first(files)->rules.max_surge, ==, 1);
    g_assert_false(first(files)->rules.analysis);
    g_assert_cmpfloat(first(files)->canary_hold, ==, 300);
    g_assert_cmpuint(first(plain)->rules.step_count, ==, 3); /* 100 is added; without an analysis a step may be above a half */
}

/* --- addresses --- */

static void test_addresses(void)
{
    g_autoptr(GPtrArray) files = load_body("network {\n addresses = [\"10.1.0.254-10.1.1.1\", \"10.1.2.9/22\"]\n}"), list = NULL;
    InstanceShape dhcp = {0};
    g_autoptr(GPtrArray) empty = NULL;
    g_autoptr(GError) error = NULL;
    unsigned prefix;

    g_assert_true(group_addresses(&first(files)->shape, &list, &prefix, &error));
    g_assert_cmpuint(prefix, ==, 22);
    g_assert_cmpuint(list->len, ==, 5);
    g_assert_cmpstr(list->pdata[0], ==, "10.1.0.254");
    g_assert_cmpstr(list->pdata[2], ==, "10.1.1.0");
    g_assert_cmpstr(list->pdata[4], ==, "10.1.2.9");
    g_assert_true(group_addresses(&dhcp, &empty, &prefix, &error));
    g_assert_cmpuint(empty->len, ==, 0);
}

/* --- mistakes --- */

typedef struct Mistake {
    const char *body;  /* after START: its first line is line 4 */
    const char *place; /* "LINE:COLUMN" */
    const char *sentence;
} Mistake;

#define PROXY "balancer \"proxy\" { sockets = [\"/x\"] }\nhealth {\n tcp = true\n port = 80\n}\n" /* five lines */

static const Mistake mistakes[] = {
    {"sise = 3", "4:8", "group \"web\" has no 'sise'; did you mean 'size'?"},
    {"colour = 3", "4:10", "group \"web\" has no 'colour'"},
    {"size = -1", "4:8", "'size' must be a whole number from 0 to 10000"},
    {"size = 10001", "4:8", "'size' must be a whole number from 0 to 10000"},
    {"size = 1.5", "4:8", "'size' must be a whole number from 0 to 10000"},
    {"size = [1]", "4:8", "'size' must be a whole number from 0 to 10000"},
    {"ephemeral = \"perhaps\"", "4:13", "'ephemeral' must be true or false"},
    {"approval = \"another persn\"", "4:12", "did you mean 'another person'?"},
    {"deadline = \"soon\"", "4:12", "'deadline' must be a duration, like \"90s\" or \"5m\""},
    {"deadline = \"1s\"", "4:12", "'deadline' must be a duration of at least 10.0s"},
    {"deadline = 1e300", "4:12", "'deadline' must be a duration of at most"},
    {"host_lost_after = \"1s\"", "4:19", "must be a duration of at least 30.0s"},
    {"instance {\n memroy = \"1G\"\n}", "5:11", "'instance' has no 'memroy'; did you mean 'memory'?"},
    {"instance {\n memory = \"1K\"\n}", "5:11", "'memory' must be a size from 16.0 MiB"},
    {"instance {\n memory = \"much\"\n}", "5:11", "'memory' must be a size, like"},
    {"instance {\n cpus = 0\n}", "5:9", "'cpus' must be a whole number from 1 to 1024"},
    {"instance {\n environment = { \"a b\" = 1 }\n}", "5:16", "'a b' cannot be the name"},
    {"instance {\n environment = [1]\n}", "5:16", "must be an object of texts"},
    {"instance {}\ninstance {}", "5:1", "has one block 'instance', and this is a second one"},
    {"instance = 4", "4:12", "'instance' is a block, written instance { ... }"},
    {"network {\n bridge = \"br0\"\n libvirt_network = \"default\"\n}", "6:20", "a bridge or a libvirt network, not both"},
    {"network {\n bridge = \"br0; rm -rf\"\n}", "5:11", "cannot be a name of a bridge"},
    {"network {\n addresses = []\n}", "5:14", "the list of addresses is empty"},
    {"network {\n addresses = [\"10.0.0.10\", \"10.0.0.x\"]\n}", "5:28", "'10.0.0.x' is no address"},
    {"network {\n addresses = [\"10.0.0.10-10.0.0.9\"]\n}", "5:15", "ends before it begins"},
    {"network {\n addresses = [\"10.0.0.10-10.0.0.11\", \"10.0.0.11\"]\n}", "5:38", "the address 10.0.0.11 is listed twice"},
    {"network {\n addresses = [\"10.0.0.250-10.0.1.3\"]\n}", "5:15", "10.0.0.255 is the last address of its /24 network"},
    {"network {\n addresses = [\"10.0.0.9\", \"10.0.1.9\"]\n}", "5:27", "leaves the /24 network"},
    {"network {\n addresses = [\"10.0.0.9/24\", \"10.0.0.10/25\"]\n}", "5:30", "another prefix length"},
    {"network {\n addresses = [\"10.0.0.9/99\"]\n}", "5:15", "a prefix length that is not from 8 to 30"},
    {"network {\n addresses = [\"0.0.0.1-255.255.255.255\"]\n}", "5:15", "holds more than 4096 addresses"},
    {"size = 3\nnetwork {\n addresses = [\"10.0.0.10-10.0.0.12\"]\n}", "6:14", "3 addresses, but while this group is rolled out 4 instances may exist: list 1 more"},
    {"size = 3\n" PROXY "strategy \"bluegreen\" {}\nnetwork {\n addresses = [\"10.0.0.10-10.0.0.14\"]\n}", "12:14", "5 addresses, but while this group is rolled out 6"},
    {"network {\n gateway = \"10.0.0.1\"\n}", "5:12", "a gateway is told to instances with fixed addresses"},
    {"network {\n addresses = [\"10.0.0.9-10.0.0.10\"]\n gateway = \"10.0.1.1\"\n}", "6:12", "10.0.1.1 is not in the /24 network"},
    {"network {\n addresses = [\"10.0.0.9-10.0.0.10\"]\n gateway = \"10.0.0.9\"\n}", "6:12", "is listed as an instance's address, too"},
    {"balancer \"prxy\" {}", "4:1", "there is no balancer \"prxy\"; there are proxy, none; did you mean 'proxy'?"},
    {"balancer \"proxy\" { sockets = [] }", "4:1", "a balancer needs the port that instances listen on"},
    {"balancer \"proxy\" {}\nhealth {\n port = 80\n}", "4:1", "a balancer needs sockets"},
    {"balancer {}", "4:1", "this block is written balancer \"NAME\" { ... }"},
    {"health {\n http = \"/\"\n tcp = true\n port = 80\n}", "6:8", "health is one of http, tcp and agent"},
    {"health {\n http = \"/\"\n}", "5:9", "this needs the port that instances listen on: port = 80"},
    {"health {\n http = \"ready\"\n port = 80\n}", "5:9", "'http' must be a path that begins with '/'"},
    {"health {\n http = \"/a\\r\\nb\"\n port = 80\n}", "5:9", "'http' must be a path"},
    {"health {\n port = 65536\n}", "5:9", "'port' must be a whole number from 1 to 65535"},
    {"health {\n port = 0\n}", "5:9", "'port' must be a whole number from 1 to 65535"},
    {"health {\n rise = 0\n}", "5:9", "'rise' must be a whole number from 1 to 100"},
    {"health {\n fall = 101\n}", "5:9", "'fall' must be a whole number from 1 to 100"},
    {"health {\n interval = \"0s\"\n}", "5:13", "'interval' must be a duration of at least 0.1s"},
    {"health {\n interval = \"20s\"\n start_timeout = \"30s\"\n}", "6:18", "2 good checks 20 seconds apart do not fit into the start timeout of 30 seconds"},
    {"health {\n intervall = \"20s\"\n}", "5:14", "did you mean 'interval'?"},
    {"drain {\n deadline = \"0s\"\n}", "5:13", "'deadline' must be a duration of at least 0.1s"},
    {"firewall {\n allow = [\"tcp/80\", \"tcp/99999\"]\n}", "5:21", "'tcp/99999' is no rule"},
    {"firewall {\n allow = [\"tcp/90-80\"]\n}", "5:11", "'tcp/90-80' is no rule"},
    {"firewall {\n allow = [\"sctp/1\"]\n}", "5:11", "is no rule"},
    {"firewall {\n allow = [\"tcp/80; drop\"]\n}", "5:11", "is no rule"},
    {"firewall {\n allow = \"tcp/80\"\n}", "5:10", "'allow' must be a list of texts"},
    {"health {\n tcp = true\n port = 81\n}\nfirewall {\n allow = [\"tcp/80\", \"udp/81\"]\n}", "9:10", "port 81, which health and balancer talk to, is not let in: add \"tcp/81\""},
    {"firewall {}\nhealth {\n port = 80\n}", "4:1", "is not let in"},
    {"strategy \"roling\" {}", "4:1", "a strategy is \"rolling\", \"bluegreen\" or \"canary\", not \"roling\"; did you mean 'rolling'?"},
    {"strategy \"rolling\" {\n steps = [10]\n}", "5:10", "strategy \"rolling\" has no 'steps'"},
    {"strategy \"rolling\" {\n max_surg = 1\n}", "5:13", "did you mean 'max_surge'?"},
    {"strategy \"rolling\" {\n max_surge = 0\n}", "5:14", "max_surge is 0 and max_unavailable is 0: then no instance can ever be replaced"},
    {"size = 3\nstrategy \"rolling\" {\n max_surge = 0\n max_unavailable = \"30%\"\n}", "7:20", "max_unavailable is 0 when it is rounded"},
    {"strategy \"rolling\" {\n max_surge = \"30%\"\n}", "5:14", "a percentage is one of the size in this file"},
    {"size = 3\nstrategy \"rolling\" {\n max_surge = \"130%\"\n}", "6:14", "a percentage from \"0%\" to \"100%\""},
    {"size = 3\nstrategy \"rolling\" {\n max_surge = \"a%\"\n}", "6:14", "a percentage from"},
    {"size = 3\nstrategy \"rolling\" {\n max_unavailable = 4\n}", "6:20", "4 instances may not be missing from a group of 3"},
    {"strategy \"bluegreen\" {}", "4:1", "blue/green needs a balancer that can switch all traffic at once, and \"none\" can not"},
    {"strategy \"canary\" {}", "4:1", "strategy \"canary\" needs steps, like steps = [10, 50, 100]"},
    {"strategy \"canary\" {\n steps = [100]\n}", "5:10", "a canary has a step before the one of 100 percent"},
    {"strategy \"canary\" {\n steps = [10, 10, 100]\n}", "5:15", "steps rise, but this one is not above the one before it"},
    {"strategy \"canary\" {\n steps = [10, \"x\"]\n}", "5:15", "a step is a percentage from 1 to 100"},
    {"strategy \"canary\" {\n steps = [0]\n}", "5:11", "a step is a percentage from 1 to 100"},
    {"strategy \"canary\" {\n steps = [101]\n}", "5:11", "a step is a percentage from 1 to 100"},
    {"strategy \"canary\" {\n steps = [{ count = 1 }]\n}", "5:11", "a step by count needs the group's `size`"},
    {"size = 3\nstrategy \"canary\" {\n steps = [{ count = 4 }]\n}", "6:11", "a step of 4 instances is more than the group's size, 3"},
    {"size = 10\nstrategy \"canary\" {\n steps = [{ count = 4 }, 40]\n}", "6:26", "steps rise"},
    {"strategy \"canary\" {\n steps = [10]\n gate = \"manuel\"\n}", "6:9", "did you mean 'manual'?"},
    {"strategy \"canary\" {\n steps = [10]\n sticky = true\n}", "6:11", "no balancer that could keep clients"},
    {"strategy \"canary\" {\n steps = [10]\n baseline = true\n}", "6:13", "this strategy has no analysis"},
    {"strategy \"canary\" {\n steps = [10]\n analysis \"balancer\" {}\n}", "6:2", "balancer \"none\" counts nothing that could be judged"},
    {"strategy \"canary\" {\n steps = [10]\n analysis \"balncer\" {}\n}", "6:2", "did you mean 'balancer'?"},
    {"strategy \"canary\" {\n steps = [10]\n analysis \"prometheus\" {}\n}", "6:2", "analysis \"prometheus\" needs 'url'"},
    {"strategy \"canary\" {\n steps = [10]\n analysis \"prometheus\" {\n url = \"ftp://x\"\n query_canary = \"a\"\n query_baseline = \"b\"\n }\n}", "7:8", "'url' must be the server's"},
    {"strategy \"canary\" {\n steps = [10]\n analysis \"command\" {}\n}", "6:2", "analysis \"command\" needs 'command'"},
    {"strategy \"canary\" {\n steps = [10]\n analysis \"command\" {\n command = []\n }\n}", "7:12", "'command' must be a list of the program"},
    {PROXY "strategy \"canary\" {\n steps = [10]\n analysis \"balancer\" {\n samples = 4\n }\n}", "12:12", "'samples' must be a whole number from 5"},
    {PROXY "strategy \"canary\" {\n steps = [10]\n analysis \"balancer\" {\n pass_score = 50\n marginal_score = 60\n }\n}", "13:19", "is above pass_score"},
    {PROXY "strategy \"canary\" {\n steps = [10, 60]\n analysis \"balancer\" {}\n}", "10:15", "a step that is compared with a baseline is at most 50 percent"},
    {PROXY "strategy \"canary\" {\n steps = [10]\n baseline = false\n analysis \"balancer\" {}\n}", "11:13", "compares canaries with a baseline"},
    {"size = 10\n" PROXY "strategy \"canary\" {\n steps = [10, 50]\n max_surge = 2\n analysis \"balancer\" {}\n}", "12:14", "5 canaries and needs as many baseline instances above the size: max_surge = 5"},
    {"rollback {\n keep = \"-1s\"\n}", "5:9", "'keep' must be a duration"},
    {"phoenix {\n max_age = \"59s\"\n}", "5:12", "'max_age' must be a duration of at least 1m 00s"},
    {"phoenix {}", "4:1", "'phoenix' needs max_age"},
    {"drift {\n cure = \"repair\"\n}", "5:9", "'cure' is 'report' or 'replace', not 'repair'"},
    {"drift {\n ignore = [\"/a\", \"tmp\"]\n}", "5:18", "'ignore' lists absolute paths"},
    {"volume \"data\" {\n mount = \"/a\"\n}", "4:1", "volume \"data\" needs a size"},
    {"volume \"data\" {\n size = \"1G\"\n}", "4:1", "needs the folder that it is mounted on"},
    {"volume \"data\" {\n size = \"1G\"\n mount = \"/a/../b\"\n}", "6:10", "'mount' must be an absolute path"},
    {"volume \"a\" {\n size = \"1G\"\n mount = \"/a\"\n}\nvolume \"a\" {\n size = \"1G\"\n mount = \"/b\"\n}", "8:1", "the volume \"a\" is there twice"},
    {"volume \"a\" {\n size = \"1G\"\n mount = \"/a\"\n}\nvolume \"b\" {\n size = \"1\"\n mount = \"/b\"\n}", "9:9", "'size' must be a size from 1.0 MiB"},
    {"volume \"a\" {\n size = \"1G\"\n mount = \"/a\"\n}\nvolume \"b\" {\n size = \"1G\"\n mount = \"/a\"\n}", "10:10", "the volume \"a\" is mounted there already"},
    {"volume \"A B\" {\n size = \"1G\"\n mount = \"/a\"\n}", "4:1", "a volume's name is a letter"},
    {"volume \"a\" {\n size = \"1G\"\n mount = \"/a\"\n}\nstrategy \"rolling\" {\n max_surge = 1\n}", "9:14", "a group with volumes has max_surge = 0"},
    {"volume \"a\" {\n size = \"1G\"\n mount = \"/a\"\n}\n" PROXY "strategy \"bluegreen\" {}", "13:1", "blue/green has two instances of each slot"},
    {"ephemeral = true\nvolume \"a\" {\n size = \"1G\"\n mount = \"/a\"\n}", "4:13", "a group with volumes is not ephemeral"},
    {"volume \"data\" \"more\" {}", "4:1", "this block is written volume \"NAME\" { ... }"},
    {"health \"x\" {}", "4:1", "the block 'health' has no label here"},
};

static void assert_mistake(const char *text, const Mistake *mistake)
{
    g_autofree char *message = load_fails(text);
    g_autofree char *place = g_strdup_printf("t.group.hcl:%s: ", mistake->place);
    const char *at = strstr(message, mistake->sentence);

    if (!at || !strstr(message, place) || !strchr(message, '^'))
        g_error("expected '%s' and '%s' in:\n%s", place, mistake->sentence, message);
}

static void test_mistakes(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(mistakes); i++) {
        g_autofree char *text = g_strconcat(START, mistakes[i].body, "\n}\n", NULL);

        assert_mistake(text, &mistakes[i]);
    }
}

/* The whole file is the text. */
static const Mistake top_mistakes[] = {
    {"group \"web\" {\n  driver \"vms\" {}\n}\n", "1:1", "group \"web\" needs an image"},
    {"group \"web\" {\n  image = \"a:b\"\n}\n", "1:1", "group \"web\" needs a driver"},
    {"group \"web\" {\n  image = \"a:b\"\n  driver \"vmx\" {}\n}\n", "3:3", "there is no driver \"vmx\"; there are vms, cans; did you mean 'vms'?"},
    {"group \"web\" {\n  image = \"a:b\"\n  driver \"vms\" {\n    hosts = []\n  }\n}\n", "4:13", "the list of hosts is empty"},
    {"group \"web\" {\n  image = \"web\"\n  driver \"vms\" {}\n}\n", "2:11", "write a channel, \"web:prod\", or an image ID"},
    {"group \"web\" {\n  image = \"web/oci\"\n  driver \"cans\" {}\n}\n", "2:11", "write a channel, \"web/oci:prod\""},
    {"group \"web\" {\n  image = \"web/oci:prod\"\n  driver \"vms\" {}\n}\n", "2:11", "driver \"vms\" runs disk images, and this is oci"},
    {"group \"web\" {\n  image = \"web/dsk:prod\"\n  driver \"vms\" {}\n}\n", "2:11", "the kind after '/' must be disk or oci"},
    {"group \"web\" {\n  image = \"web@sha256:00\"\n  driver \"vms\" {}\n}\n", "2:11", "groups take a channel"},
    {"group \"web\" {\n  image = \"sha256:00\"\n  driver \"vms\" {}\n}\n", "2:11", "groups take a channel"},
    {"group \"web\" {\n  image = \"web:PROD\"\n  driver \"vms\" {}\n}\n", "2:11", "PROD"},
    {"group \"web\" {\n  image = 5\n  driver \"vms\" {}\n}\n", "2:11", "'image' must be a text"},
    {"group \"web\" {\n  image = \"a:b\"\n  driver \"cans\" {}\n  health {\n    agent = true\n  }\n}\n", "5:13", "instances of driver \"cans\" have no guest agent"},
    {"group \"web\" {\n  image = \"a:b\"\n  driver \"cans\" {}\n  volume \"v\" {\n    size = \"1G\"\n    mount = \"/v\"\n  }\n}\n", "4:3", "driver \"cans\" has no volumes"},
    {"group \"Web\" {\n  image = \"a:b\"\n  driver \"vms\" {}\n}\n", "1:1", "a group's name is a letter"},
    {"group \"../x\" {\n  image = \"a:b\"\n  driver \"vms\" {}\n}\n", "1:1", "a group's name is a letter"},
    {START "}\n" START "}\n", "5:1", "the group \"web\" is there twice"},
    {START "}\ngrup \"x\" {}\n", "5:1", "a file *.group.hcl has no block 'grup'; did you mean 'group'?"},
    {START "}\nbuild {}\n", "5:1", "a file *.group.hcl has no block 'build'"},
    {START "}\nsize = 3\n", "5:1", "the argument 'size' stands in no block"},
    {"variable \"p\" {\n  default = \"secret\"\n  sensitive = true\n}\n" START "  instance {\n    user_data = \"x ${var.p}\"\n  }\n}\n", "8:3", "a sensitive value stands in 'instance'"},
};

static void test_top_mistakes(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(top_mistakes); i++)
        assert_mistake(top_mistakes[i].body, &top_mistakes[i]);
}

static void test_all_are_told(void)
{
    g_autofree char *message = load_fails(START "  size = -1\n  health {\n    rise = 0\n    fall = 0\n  }\n}\ngroup \"b\" {\n  driver \"vms\" {}\n}\n");
    unsigned carets = 0;

    for (const char *at = message; *at; at++)
        carets += *at == '^' && (at == message || at[-1] == ' ');
    g_assert_cmpuint(carets, ==, 4);
}

static void test_diagnostics(void)
{
    g_autoptr(json_t) found = json_array();
    g_autoptr(GBytes) text = g_bytes_new_static(START "  size = -1\n}\n", strlen(START "  size = -1\n}\n"));
    TemplateOptions options = {.input = text, .diagnostics = found};
    GPtrArray *files;

    g_assert_false(group_load_with("x.group.hcl", &options, &files, NULL));
    g_assert_cmpuint(json_array_size(found), ==, 1);
}

static void test_no_file(void)
{
    g_autoptr(GError) error = NULL, other = NULL, empty = NULL;
    GPtrArray *files;

    g_assert_false(group_load("absent.group.hcl", NULL, NULL, &files, &error));
    g_assert_cmpstr(error->message, ==, "there is no file 'absent.group.hcl'");
    g_assert_true(g_file_set_contents("t.pkr.hcl", "", -1, NULL));
    g_assert_false(group_load("t.pkr.hcl", NULL, NULL, &files, &other));
    g_assert_nonnull(strstr(other->message, ".group.hcl"));
    g_assert_true(g_file_set_contents("e.group.hcl", "", -1, NULL));
    g_assert_false(group_load("e.group.hcl", NULL, NULL, &files, &empty));
    g_assert_nonnull(strstr(empty->message, "'e.group.hcl' holds no group; write group \"NAME\""));
}

/* --- JSON --- */

static void assert_round_trip(const GroupSpec *spec)
{
    g_autoptr(json_t) json = group_spec_json(spec), again = NULL;
    g_autofree char *text = json_canonical(json), *text_again = NULL;
    g_autoptr(json_t) parsed = NULL;
    g_autoptr(GroupSpec) back = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(json_parse(text, strlen(text), 1 << 20, "spec", &parsed, &error));
    (void)group_spec_from_json(parsed, &back, &error);
    g_assert_no_error(error);
    again = group_spec_json(back);
    text_again = json_canonical(again);
    g_assert_cmpstr(text, ==, text_again);
    g_assert_cmpuint(back->shape.port, ==, spec->shape.port);
    g_assert_cmpint(back->shape.agent, ==, spec->shape.agent);
}

static void test_round_trip(void)
{
    g_autoptr(GPtrArray) files = load_with(whole, NULL), small = load_body(""), volumes = load_body("volume \"a\" {\n size = \"1G\"\n mount = \"/a\"\n}"),
                         closed = load_body("firewall {}");
    g_autoptr(json_t) json = group_spec_json(first(closed));

    assert_round_trip(first(files));
    assert_round_trip(first(small));
    assert_round_trip(first(volumes));
    assert_round_trip(first(closed));
    g_assert_true(json_is_array(json_object_get(json, "allow"))); /* a firewall that lets nothing in is not none */
}

/* One key after the other is removed, and given each wrong kind of value: refused or harmless, never a crash. */
static void test_hostile_json(void)
{
    g_autoptr(GPtrArray) files = load_with(whole, NULL);
    g_autoptr(json_t) json = group_spec_json(first(files));
    const char *key;
    json_t *value;

    json_object_foreach (json, key, value) {
        json_t *const wrong[] = {json_null(), json_integer(-1), json_integer(G_MAXINT64), json_real(1e308), json_string("x"), json_array(), json_object(),
                                 json_pack("[i]", 1), json_pack("[{s:i}]", "x", 1), json_true()};

        for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
            g_autoptr(json_t) copy = json_deep_copy(json);
            GroupSpec *spec = NULL;

            (void)json_object_set_new(copy, key, wrong[i]);
            if (group_spec_from_json(copy, &spec, NULL))
                group_spec_free(spec);
        }
    }
}

static void test_json_is_strict(void)
{
    g_autoptr(GPtrArray) files = load_with(whole, NULL);
    g_autoptr(json_t) json = group_spec_json(first(files)), newer = json_deep_copy(json), odd = json_deep_copy(json), less = json_deep_copy(json);
    g_autoptr(GError) error = NULL, second = NULL, third = NULL;
    GroupSpec *spec;

    (void)json_object_set_new(newer, "color", json_string("red"));
    g_assert_false(group_spec_from_json(newer, &spec, &error));
    g_assert_nonnull(strstr(error->message, "'color', which this version of kiln does not know"));
    (void)json_object_set_new(odd, "cpus", json_integer(5000));
    g_assert_false(group_spec_from_json(odd, &spec, &second));
    g_assert_nonnull(strstr(second->message, "'cpus' is missing or wrong"));
    (void)json_object_del(less, "name");
    g_assert_false(group_spec_from_json(less, &spec, &third));
}

/* --- hostile texts --- */

static void test_hostile_text(void)
{
    g_autoptr(GString) many = g_string_new(START), deep = g_string_new(START);
    g_autofree char *message = NULL, *other = NULL, *nul = load_fails(START "instance {\n user_data = \"a\\u0000b\"\n}\n}\n");

    for (unsigned i = 0; i < 2000; i++)
        g_string_append_printf(many, "  wrong%u = 1\n", i);
    g_string_append(many, "}\n");
    message = load_fails(many->str);
    g_assert_cmpuint(strlen(message), <, 20000);
    g_assert_nonnull(strstr(message, "(more mistakes are not shown)"));
    for (unsigned i = 0; i < 3000; i++)
        g_string_append(deep, "  health {\n");
    other = load_fails(deep->str);
    g_assert_nonnull(strchr(other, '^'));
}

/* --- images --- */

static void make_tree(Store *store, const char *folder, TreeStored *ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(MapWriter) space = NULL;

    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) && tree_builder_new(writer, &builder, &error));
    g_assert_true(tree_builder_add(builder, tree_entry_new("var/lib", 'd'), &error) && tree_builder_add(builder, tree_entry_new(folder, 'd'), &error));
    g_assert_true(tree_builder_finish(builder, &tree, &space, &error) && store_writer_commit(writer, &error));
    g_assert_true(tree_stored_result(store, tree, space, ret, &error));
}

/* NULL: the image is taken; else the sentence. */
static char *check_image(Store *store, const char *body, const char *config, const char *folder)
{
    g_autoptr(GPtrArray) files = load_body(body);
    g_autoptr(StoreImage) image = store_image_new("oci", "db");
    g_autoptr(GError) error = NULL;

    g_assert_true(store_blob_put(store, config, strlen(config), &image->id, NULL));
    if (folder)
        make_tree(store, folder, &image->tree);
    if (group_check_image(store, first(files), image, &error)) {
        g_assert_no_error(error);
        return NULL;
    }
    return g_strdup(error->message);
}

#define VOLUME_CONFIG "{\"config\":{\"Volumes\":{\"/da\\u001bta\":{}}}}"

static void test_check_image(StoreFixture *f, gconstpointer data)
{
    static const char volume[] = "volume \"d\" {\n size = \"1G\"\n mount = \"/d\"\n}";
    g_autofree char *declared = check_image(f->store, "", VOLUME_CONFIG, NULL), *folder = check_image(f->store, "", "{}", "var/lib/postgresql"),
                    *broken = check_image(f->store, "", "{", NULL);

    g_assert_cmpstr(declared, ==, "the image of group 'web' declares the volume /da\\033ta, and what is written there is lost with each instance: give the group a block volume, "
                                  "or write ephemeral = true where nothing needs to stay");
    g_assert_nonnull(strstr(folder, "holds a database in /var/lib/postgresql, and what"));
    g_assert_nonnull(strstr(broken, "group 'web': the image's config is not valid JSON"));
    g_assert_null(check_image(f->store, "", "{\"config\":{\"Volumes\":null}}", "var/lib/apt"));
    g_assert_null(check_image(f->store, "", "[1]", NULL));
    g_assert_null(check_image(f->store, "ephemeral = true", VOLUME_CONFIG, "var/lib/mysql"));
    g_assert_null(check_image(f->store, volume, VOLUME_CONFIG, "var/lib/mysql"));
}

int main(int argc, char **argv)
{
    g_autofree char *dir = g_dir_make_tmp("kiln-group-XXXXXX", NULL);
    int status;

    g_assert_cmpint(chdir(dir), ==, 0);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/group/whole-file", test_whole);
    g_test_add_func("/group/defaults", test_defaults);
    g_test_add_func("/group/channels-and-ids", test_images);
    g_test_add_func("/group/volumes-mean-no-surge", test_volumes);
    g_test_add_func("/group/dynamic-blocks", test_dynamic);
    g_test_add_func("/group/several-in-files-and-folders", test_several);
    g_test_add_func("/group/percent-rounding", test_percent);
    g_test_add_func("/group/canary-steps", test_steps);
    g_test_add_func("/group/addresses", test_addresses);
    g_test_add_func("/group/mistakes-have-place-and-sentence", test_mistakes);
    g_test_add_func("/group/mistakes-of-the-file", test_top_mistakes);
    g_test_add_func("/group/all-mistakes-are-told", test_all_are_told);
    g_test_add_func("/group/mistakes-as-json", test_diagnostics);
    g_test_add_func("/group/no-such-file", test_no_file);
    g_test_add_func("/group/json-round-trip", test_round_trip);
    g_test_add_func("/group/json-is-strict", test_json_is_strict);
    g_test_add_func("/group/json-hostile", test_hostile_json);
    g_test_add_func("/group/text-hostile", test_hostile_text);
    g_test_add("/group/images-that-would-lose-data", StoreFixture, NULL, store_fixture_setup, test_check_image, store_fixture_teardown);
    status = g_test_run();
    (void)file_remove_tree(AT_FDCWD, dir, NULL);
    return status;
}
