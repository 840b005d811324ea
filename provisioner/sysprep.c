/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sysprep: what an image must not carry, because it belongs to one machine, or differs between two equal
 * bakes.
 *
 *   identity   machine-id, ssh host keys, NVMe and network identities, cloud-init's and DHCP's state
 *   secrets    random seeds, credential keys, shell histories, mail, the backups of shadow
 *   noise      logs, caches and package lists, stamps, "-old" files: different in every bake, useful in none
 *
 * One table says it all, and one function judges a path by it. It serves trees read on the host, and guests:
 * there two commands of the guest's own find and xargs list what lies below the table's folders and remove
 * what the function says. So both ways cannot disagree. Guests without find are walked through the guest
 * port, which takes longer.
 *
 * The commands use paths relative to the guest's root folder, never absolute ones: if the root is ever not
 * where we believe (a guest that is a folder), nothing outside of it is touched.
 *
 * Not cleaned, though other tools do it: users' ~/.ssh and crontabs, firewall rules, certificates, a seed for
 * cloud-init. Templates put them there on purpose.
 */
#include "base/error.h"
#include "base/interrupt.h"
#include "provisioner/guest-file.h"
#include "provisioner/provisioner.h"
#include "provisioner/selinux.h"

#include <fnmatch.h>
#include <string.h>

#define LIST_SIZE_MAX (256u << 20)
#define WALK_DEPTH_MAX 64

/* ---- the table ---- */

/*
 * A pattern is a path whose components are globs; a last component "**" stands for everything below, at any
 * depth, and "** /GLOB" for every entry of that name below. @types: the letters it applies to. The first rule
 * that fits decides.
 */
typedef struct Rule {
    const char *pattern;
    const char *types;
    SysprepVerdict verdict;
} Rule;

static const Rule rules[] = {
    /* identity */
    {"etc/machine-id", "f", SYSPREP_EMPTY},
    {"var/lib/dbus/machine-id", "f", SYSPREP_DROP}, /* usually a link to the first: that one stays */
    {"etc/ssh/ssh_host_*", "fl", SYSPREP_DROP},
    {"etc/dropbear/dropbear_*_host_key", "f", SYSPREP_DROP},
    {"etc/udev/rules.d/70-persistent-*.rules", "f", SYSPREP_DROP},
    {"etc/nvme/hostid", "f", SYSPREP_DROP},
    {"etc/nvme/hostnqn", "f", SYSPREP_DROP},
    {"etc/sysconfig/rhn/systemid", "f", SYSPREP_DROP},
    {"var/lib/yum/uuid", "f", SYSPREP_DROP},
    {"var/lib/libuuid/clock.txt", "f", SYSPREP_DROP},
    {"etc/blkid.tab*", "f", SYSPREP_DROP},
    {"etc/blkid/blkid.tab*", "f", SYSPREP_DROP},
    {"var/lib/cloud/instance", "fdl", SYSPREP_DROP},
    {"var/lib/cloud/instances", "d", SYSPREP_DROP},
    {"var/lib/cloud/data", "d", SYSPREP_DROP},
    {"var/lib/cloud/sem", "d", SYSPREP_DROP},
    {"var/lib/dhcp/*", "f", SYSPREP_DROP},
    {"var/lib/dhclient/*", "f", SYSPREP_DROP},
    {"var/lib/dhcpcd/*", "f", SYSPREP_DROP},
    {"var/lib/misc/dnsmasq.leases", "f", SYSPREP_DROP},
    {"var/lib/NetworkManager/secret_key", "f", SYSPREP_DROP},
    {"var/lib/NetworkManager/*.lease", "f", SYSPREP_DROP},
    {"var/lib/NetworkManager/timestamps", "f", SYSPREP_DROP},
    {"var/lib/NetworkManager/seen-bssids", "f", SYSPREP_DROP},

    /* secrets */
    {"var/lib/systemd/random-seed", "f", SYSPREP_DROP},
    {"var/lib/systemd/credential.secret", "f", SYSPREP_DROP},
    {"var/lib/urandom/random-seed", "f", SYSPREP_DROP},
    {"boot/efi/loader/random-seed", "f", SYSPREP_DROP},
    {"efi/loader/random-seed", "f", SYSPREP_DROP},
    {"boot/loader/random-seed", "f", SYSPREP_DROP},
    {"etc/passwd-", "f", SYSPREP_DROP},
    {"etc/group-", "f", SYSPREP_DROP},
    {"etc/shadow-", "f", SYSPREP_DROP},
    {"etc/gshadow-", "f", SYSPREP_DROP},
    {"etc/subuid-", "f", SYSPREP_DROP},
    {"etc/subgid-", "f", SYSPREP_DROP},
    {"var/backups/passwd.bak*", "f", SYSPREP_DROP},
    {"var/backups/group.bak*", "f", SYSPREP_DROP},
    {"var/backups/shadow.bak*", "f", SYSPREP_DROP},
    {"var/backups/gshadow.bak*", "f", SYSPREP_DROP},
    {"root/.*_history", "f", SYSPREP_DROP},
    {"home/*/.*_history", "f", SYSPREP_DROP},
    {"root/.lesshst", "f", SYSPREP_DROP},
    {"root/.viminfo", "f", SYSPREP_DROP},
    {"root/.wget-hsts", "f", SYSPREP_DROP},
    {"root/.rnd", "f", SYSPREP_DROP},
    {"var/mail/*", "f", SYSPREP_DROP},
    {"var/spool/mail/*", "f", SYSPREP_DROP},

    /* logs: rotated ones and journals go, the rest is emptied, since some daemons want their file with its
       owner */
    {"var/log/journal", "d", SYSPREP_EMPTY_DIR},
    {"var/log/**/*.gz", "f", SYSPREP_DROP},
    {"var/log/**/*.xz", "f", SYSPREP_DROP},
    {"var/log/**/*.bz2", "f", SYSPREP_DROP},
    {"var/log/**/*.zst", "f", SYSPREP_DROP},
    {"var/log/**/*.old", "f", SYSPREP_DROP},
    {"var/log/**/*.[0-9]", "f", SYSPREP_DROP},
    {"var/log/**/*.[0-9][0-9]", "f", SYSPREP_DROP},
    {"var/log/**/*-[12][0-9][0-9][0-9][01][0-9][0-3][0-9]", "f", SYSPREP_DROP},
    {"var/log/installer", "d", SYSPREP_DROP},
    {"var/log/**", "f", SYSPREP_EMPTY},
    {"var/account/pacct", "f", SYSPREP_EMPTY},

    /* caches, lists, stamps */
    {"var/cache/apt/**", "f", SYSPREP_DROP}, /* folders stay: apt complains without archives/partial */
    {"var/lib/apt/lists/**", "f", SYSPREP_DROP},
    {"var/lib/apt/periodic/*", "f", SYSPREP_DROP},
    {"var/lib/apt/daily_lock", "f", SYSPREP_DROP},
    {"var/lib/apt/listchanges.db", "f", SYSPREP_DROP},
    {"var/cache/dnf", "d", SYSPREP_EMPTY_DIR},
    {"var/cache/libdnf5", "d", SYSPREP_EMPTY_DIR},
    {"var/cache/yum", "d", SYSPREP_EMPTY_DIR},
    {"var/cache/zypp", "d", SYSPREP_EMPTY_DIR},
    {"var/cache/apk/*", "f", SYSPREP_DROP},
    {"var/lib/rpm/__db.*", "f", SYSPREP_DROP},
    {"var/cache/ldconfig/aux-cache", "f", SYSPREP_DROP},
    {"var/cache/debconf/*-old", "f", SYSPREP_DROP},
    {"var/cache/man/**", "f", SYSPREP_DROP},
    {"var/cache/fontconfig/*", "f", SYSPREP_DROP},
    {"var/lib/dpkg/*-old", "f", SYSPREP_DROP},
    {"var/backups/dpkg.*", "f", SYSPREP_DROP},
    {"var/backups/apt.*", "f", SYSPREP_DROP},
    {"var/backups/alternatives.*", "f", SYSPREP_DROP},
    {"var/lib/systemd/timers/*", "f", SYSPREP_DROP},
    {"var/lib/systemd/timesync/clock", "f", SYSPREP_DROP},
    {"var/lib/systemd/coredump/*", "f", SYSPREP_DROP},
    {"var/lib/private/systemd/timesync/clock", "f", SYSPREP_DROP},
    {"var/lib/logrotate/status", "f", SYSPREP_DROP},
    {"var/lib/logrotate.status", "f", SYSPREP_DROP},
    {"var/lib/faillock/*", "f", SYSPREP_DROP},
    {"var/lib/sudo/ts/*", "f", SYSPREP_DROP},
    {"var/crash/*", "fdl", SYSPREP_DROP},
    {"tmp", "d", SYSPREP_EMPTY_DIR},
    {"var/tmp", "d", SYSPREP_EMPTY_DIR},
    {"run", "d", SYSPREP_EMPTY_DIR},
};

/*
 * Debian's openssh makes host keys when it is installed, and never again. With the keys gone, sshd would not
 * start; so the first boot makes new ones.
 */
static const char ssh_unit[] =
    "# Written by kiln: every machine gets host keys of its own at its first boot.\n"
    "[Unit]\n"
    "Description=Generate SSH host keys\n"
    "ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n"
    "Before=ssh.service\n"
    "\n"
    "[Service]\n"
    "Type=oneshot\n"
    "RemainAfterExit=yes\n"
    "ExecStart=/usr/bin/ssh-keygen -A\n"
    "\n"
    "[Install]\n"
    "WantedBy=ssh.service\n";

#define SSHD "usr/sbin/sshd"
#define SSH_SERVICE "lib/systemd/system/ssh.service|usr/lib/systemd/system/ssh.service"

static const SysprepExtra extras[] = {
    {"etc/systemd/system/kiln-ssh-host-keys.service", 'f', ssh_unit, {SSHD, SSH_SERVICE, NULL}},
    {"etc/systemd/system/ssh.service.wants/kiln-ssh-host-keys.service",
     'l',
     "/etc/systemd/system/kiln-ssh-host-keys.service",
     {SSHD, SSH_SERVICE, NULL}},
    {NULL, 0, NULL, {NULL}},
};

const SysprepExtra *provisioner_sysprep_extras(void)
{
    return extras;
}

/* ---- the judge ---- */

/* The part of @pattern before "**", without its slash, and what follows it ("" for everything below). NULL
 * without "**". */
static const char *deep_split(const char *pattern, size_t *ret_base)
{
    const char *stars = strstr(pattern, "/**");

    if (!stars)
        return NULL;
    *ret_base = (size_t)(stars - pattern);
    return stars[3] == '/' ? stars + 4 : "";
}

static bool pattern_fits(const char *pattern, const char *path)
{
    size_t base;
    const char *name = deep_split(pattern, &base), *last = strrchr(path, '/');

    if (!name)
        return fnmatch(pattern, path, FNM_PATHNAME) ==
               0; /* a leading dot is matched by *, as we clean files of all names */
    if (base > 0 && (strncmp(path, pattern, base) != 0 || path[base] != '/'))
        return false;
    return !*name || fnmatch(name, last ? last + 1 : path, 0) == 0;
}

/* A template's pattern as a rule: it starts with a slash, so that "/" + "**" is split as any other. */
static Rule rule_of(const char *more)
{
    return (Rule){g_str_has_prefix(more, "/**") ? more : more + 1, "fdl", SYSPREP_DROP};
}

SysprepVerdict provisioner_sysprep_verdict(const char *path, char type, const char *const *more)
{
    if (type == 'h') /* a tree's further names of one file */
        type = 'f';
    for (; more && *more && *path; more++) {
        Rule rule = rule_of(*more);
        if (strchr(rule.types, type) && pattern_fits(rule.pattern, path))
            return rule.verdict;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++)
        if (strchr(rules[i].types, type) && pattern_fits(rules[i].pattern, path))
            return rules[i].verdict;
    return SYSPREP_KEEP;
}

/* ---- what templates add ---- */

static bool has_odd_component(const char *pattern)
{
    g_auto(GStrv) parts = g_strsplit(pattern + 1, "/", -1);

    for (char **part = parts; *part; part++)
        if (!**part || strcmp(*part, ".") == 0 || strcmp(*part, "..") == 0)
            return true;
    return false;
}

/* The base of "**" is compared as it is written, and what follows it with one name. */
static bool has_odd_stars(const char *pattern)
{
    const char *stars = strstr(pattern, "**");
    size_t base;

    if (!stars)
        return false;
    const char *name = deep_split(pattern, &base);
    return !name || (name[0] == '\0' && stars[2]) || strchr(name, '/') || strstr(name, "**") ||
           strcspn(pattern, "*?[") < base;
}

/* Patterns become words of a script in the guest: no quotes, no control characters. */
bool provisioner_sysprep_check(const char *pattern, GError **error)
{
    bool plain = true;

    for (const char *p = pattern; *p; p++)
        plain = plain && (unsigned char)*p >= 0x20 && *p != 0x7f && *p != '\'' && *p != '\\';
    if (*pattern != '/' || !plain || has_odd_component(pattern))
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is no absolute path or pattern; \"/var/lib/app/*.cache\" would be one", pattern);
    if (has_odd_stars(pattern))
        return fail_code(error, KILN_ERROR_USAGE, "'%s': ** stands alone behind plain folders, at the end or before one last name", pattern);
    if (pattern[strspn(pattern, "/*?[]")] == '\0')
        return fail_code(error, KILN_ERROR_USAGE, "'%s' stands for the whole image", pattern);
    return true;
}

/* ---- what a guest has ---- */

/*
 * Where to look: the part of each pattern before its first wildcard, and how deep. Roots inside of deeper
 * roots are kept: looking twice is harmless, and the table is short.
 */
typedef struct Root {
    char *path;
    int depth; /* find's -maxdepth; WALK_DEPTH_MAX for "**" */
} Root;

static void root_clear(gpointer root)
{
    g_free(((Root *)root)->path);
}

static Root root_of(const Rule *rule)
{
    const char *wild = strpbrk(rule->pattern, "*[?");
    size_t base;
    Root root = {.depth = 0};

    if (deep_split(rule->pattern, &base) && base < (size_t)(wild - rule->pattern)) {
        root.path = base ? g_strndup(rule->pattern, base) : g_strdup(".");
        root.depth = WALK_DEPTH_MAX;
        return root;
    }
    if (!wild) {
        root.path = g_strdup(rule->pattern);
        root.depth = rule->verdict == SYSPREP_EMPTY_DIR ? 1 : 0;
        return root;
    }
    while (wild > rule->pattern && wild[-1] != '/')
        wild--;
    root.path = wild > rule->pattern ? g_strndup(rule->pattern, (gsize)(wild - rule->pattern - 1)) : g_strdup(".");
    for (const char *p = wild; p; p = strchr(p + 1, '/'))
        root.depth++;
    return root;
}

static void add_root(GArray *roots, const Rule *rule)
{
    Root root = root_of(rule);

    for (guint i = 0; i < roots->len; i++) {
        Root *other = &g_array_index(roots, Root, i);
        if (strcmp(other->path, root.path) == 0) {
            other->depth = MAX(other->depth, root.depth);
            root_clear(&root);
            return;
        }
    }
    g_array_append_val(roots, root);
}

static GArray *all_roots(const char *const *more)
{
    GArray *roots = g_array_new(FALSE, FALSE, sizeof(Root));

    g_array_set_clear_func(roots, root_clear);
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++)
        add_root(roots, &rules[i]);
    for (; more && *more; more++) {
        Rule rule = rule_of(*more);
        add_root(roots, &rule);
    }
    return roots;
}

/* path -> type letter, sorted, so that a folder comes before what is in it */
typedef struct Found {
    GTree *entries;
    const char *const *more; /* the template's patterns */
} Found;

/* '/' before all other bytes, so that nothing stands between a folder and its content. */
static int compare_paths(const void *a, const void *b, void *arg)
{
    const unsigned char *p = a, *q = b;

    for (; *p && *p == *q; p++, q++)
        ;
    return (*p == '/' ? 1 : *p ? *p + 1 : 0) - (*q == '/' ? 1 : *q ? *q + 1 : 0);
}

#define WORK                                                                                                 \
    "run/.kiln-sysprep" /* relative to the guest's root; on a tmpfs, so it leaves no trace on the disk */

/* A tmpfs while a step runs: what is in it then belongs to the step and not to the image. */
static bool is_step_mount(const char *path)
{
    return strcmp(path, "run") == 0;
}

/* The roots that are looked at @depth deep, as words of a shell; none of them holds a single quote. */
static char *roots_at_depth(const GArray *roots, int depth)
{
    GString *list = g_string_new(NULL);

    for (guint i = 0; i < roots->len; i++) {
        const Root *root = &g_array_index(roots, Root, i);
        if (root->depth == depth && !is_step_mount(root->path))
            g_string_append_printf(list, " '%s'", root->path);
    }
    return g_string_free(list, FALSE);
}

/*
 * One find for each depth where find can print the type (GNU's), else one for each depth and type (busybox has nothing better): a process costs much where
 * there is no KVM. From the root on, -xdev keeps find out of /run while it is a mount.
 */
static char *find_script(const GArray *roots)
{
    GString *script = g_string_new(
        "umask 022; set -f; rm -rf " WORK "; mkdir -p " WORK " || exit 1\n"
        "if find . -maxdepth 0 -printf '' 2>/dev/null; then\n"
        "look() { depth=$1; filter=$2; shift 2; find \"$@\" -xdev -maxdepth $depth $filter -printf '%y%p\\0' >>" WORK "/all; }\n"
        "else\n"
        "look() { depth=$1; filter=$2; shift 2\n"
        "for t in f d l; do find \"$@\" -xdev -maxdepth $depth $filter -type $t -print0 >>" WORK "/$t; done; }\n"
        "fi\n");
    g_autofree char *single = roots_at_depth(roots, 0);

    g_string_append_printf(
        script,
        "for p in%s; do\n"
        "if [ -h \"$p\" ]; then t=l; elif [ -f \"$p\" ]; then t=f; elif [ -d \"$p\" ]; then t=d; else continue; fi\n"
        "printf '%%s\\0' \"$p\" >>" WORK "/$t\n"
        "done\n",
        single);
    for (int depth = 1; depth <= WALK_DEPTH_MAX; depth++) {
        g_autofree char *list = roots_at_depth(roots, depth);
        if (*list)
            g_string_append_printf(script,
                                   "set --; for r in%s; do [ -d \"$r\" ] && set -- \"$@\" \"$r\"; done\n"
                                   "[ $# = 0 ] || look %d '' \"$@\"\n",
                                   list, depth);
    }
    g_string_append(script, "look 2 '( -path ./tmp -o -path ./tmp/* -o -path ./run -o -path ./run/* )' .\n"
                            "exit 0\n");
    return g_string_free(script, FALSE);
}

/* @type 0: each path has its type in front. */
static bool read_list(Guest *guest, char type, Found *found, GError **error)
{
    const char name[] = {type, '\0'};
    g_autofree char *path = g_strconcat("/" WORK "/", type ? name : "all", NULL);
    g_autoptr(GBytes) bytes = NULL;
    gsize size;

    if (!guest_get_bytes(guest, path, LIST_SIZE_MAX, &bytes, error))
        return false;
    const char *p = bytes ? g_bytes_get_data(bytes, &size) : "";
    for (const char *end = bytes ? p + size : p; p < end;
         p += strlen(p) + 1) { /* guest_get_bytes() adds a NUL at the end */
        char kind = type ? type : *p;
        const char *listed = type || !*p ? p : p + 1, *path = g_str_has_prefix(listed, "./") ? listed + 2 : listed;

        if (kind && strchr("fdl", kind) && !g_str_has_prefix(path, WORK) && *path && *path != '/' && !strstr(path, "../"))
            g_tree_insert(found->entries, g_strdup(path), GINT_TO_POINTER((int)kind));
    }
    return true;
}

static bool find_by_commands(const ProvisionerHost *host, Guest *guest, const GArray *roots, Found *found,
                             GError **error)
{
    g_autofree char *script = find_script(roots);
    int code = 0;

    if (!guest_sh(guest, host, script, NULL, NULL, &code, error))
        return false;
    if (code)
        return fail(error, "cleaning the guest: listing its files failed with %d", code);
    for (const char *type = "fdl"; *type; type++)
        if (!read_list(guest, *type, found, error))
            return false;
    return read_list(guest, 0, found, error);
}

/* The same through the port. Links are seen as what they lead to, so nothing is entered that a rule would not
 * remove. */
static bool find_by_port(Guest *guest, const char *path, int depth, Found *found, GError **error)
{
    bool top = strcmp(path, ".") == 0;
    g_autofree char *absolute = top ? g_strdup("/") : g_strconcat("/", path, NULL);
    g_auto(GStrv) names = NULL;
    char type;

    if (!interrupt_check(error) || !guest_type(guest, absolute, &type, error))
        return false;
    if (!type || is_step_mount(path))
        return true;
    if (!top)
        g_tree_insert(found->entries, g_strdup(path), GINT_TO_POINTER((int)type));
    if (type != 'd' || depth == 0 || provisioner_sysprep_verdict(path, type, found->more) == SYSPREP_DROP)
        return true;
    if (!guest->ops->list(guest, absolute, &names, error))
        return false;
    for (char **name = names; *name; name++) {
        g_autofree char *child = top ? g_strdup(*name) : g_build_filename(path, *name, NULL);
        if (!find_by_port(guest, child, depth - 1, found, error))
            return false;
    }
    return true;
}

/* ---- what is done about it ---- */

typedef struct Plan {
    GString *remove; /* NUL-separated, relative */
    GString *empty;
    const char
        *inside; /* a folder that goes, or whose content goes: what follows in it needs no word of its own */
    const char *const *more;
} Plan;

static bool is_inside(const char *path, const char *folder)
{
    size_t n = folder ? strlen(folder) : 0;
    return n && strncmp(path, folder, n) == 0 && path[n] == '/';
}

static void append_item(GString *list, const char *path)
{
    g_string_append_len(list, path, (gssize)strlen(path) + 1);
}

static gboolean judge(gpointer key, gpointer value, gpointer arg)
{
    Plan *plan = arg;
    const char *path = key;
    SysprepVerdict verdict;

    if (is_inside(path, plan->inside)) {
        /* an emptied folder's direct children are removed with all below them */
        if (provisioner_sysprep_verdict(plan->inside, 'd', plan->more) == SYSPREP_EMPTY_DIR &&
            !strchr(path + strlen(plan->inside) + 1, '/'))
            append_item(plan->remove, path);
        return FALSE;
    }
    verdict = provisioner_sysprep_verdict(path, (char)GPOINTER_TO_INT(value), plan->more);
    if (verdict == SYSPREP_EMPTY_DIR || (verdict == SYSPREP_DROP && GPOINTER_TO_INT(value) == 'd'))
        plan->inside = path;
    if (verdict == SYSPREP_DROP)
        append_item(plan->remove, path);
    else if (verdict == SYSPREP_EMPTY)
        append_item(plan->empty, path);
    return FALSE;
}

static bool apply_by_commands(const ProvisionerHost *host, Guest *guest, const Plan *plan, GError **error)
{
    static const char script[] =
        "[ ! -s " WORK "/remove ] || xargs -0 rm -rf -- <" WORK "/remove || exit 1\n"
        "[ ! -s " WORK "/empty ] || xargs -0 sh -c 'for f do : >\"$f\" || exit 1; done' sh <" WORK
        "/empty || exit 1\n"
        "rm -rf " WORK "\n";
    const GuestFile meta = {.mode = 0600, .mtime = host->epoch};
    int code = 0;

    if (!guest_put_bytes(guest, "/" WORK "/remove", plan->remove->str, plan->remove->len, &meta, error) ||
        !guest_put_bytes(guest, "/" WORK "/empty", plan->empty->str, plan->empty->len, &meta, error) ||
        !guest_sh(guest, host, script, NULL, NULL, &code, error))
        return false;
    return code ? fail(error, "cleaning the guest failed with %d", code) : true;
}

/* put() gives the file root as its owner: in a guest without a shell no log has another one. */
static bool apply_by_port(const ProvisionerHost *host, Guest *guest, const Plan *plan, GError **error)
{
    const GuestFile meta = {.mode = 0644, .mtime = host->epoch};
    const char *end = plan->remove->str + plan->remove->len;

    for (const char *p = plan->remove->str; p < end; p += strlen(p) + 1) {
        g_autofree char *path = g_strconcat("/", p, NULL);
        if (!guest->ops->remove(guest, path, error))
            return false;
    }
    end = plan->empty->str + plan->empty->len;
    for (const char *p = plan->empty->str; p < end; p += strlen(p) + 1) {
        g_autofree char *path = g_strconcat("/", p, NULL);
        if (!guest_put_bytes(guest, path, "", 0, &meta, error))
            return false;
    }
    return true;
}

static bool needs_are_met(Guest *guest, const SysprepExtra *extra, bool *ret, GError **error)
{
    *ret = true;
    for (size_t i = 0; *ret && i < G_N_ELEMENTS(extra->needs) && extra->needs[i]; i++) {
        g_auto(GStrv) ways = g_strsplit(extra->needs[i], "|", -1);
        bool any = false;
        for (char **way = ways; !any && *way; way++) {
            g_autofree char *path = g_strconcat("/", *way, NULL);
            char type;
            if (!guest_type(guest, path, &type, error))
                return false;
            any = type != 0;
        }
        *ret = any;
    }
    return true;
}

static bool add_extra(const ProvisionerHost *host, Guest *guest, const SysprepExtra *extra, GError **error)
{
    const GuestFile meta = {.mode = 0644, .mtime = host->epoch},
                    folder = {.mode = 0755, .mtime = host->epoch};
    g_autofree char *path = g_strconcat("/", extra->path, NULL), *parent = g_path_get_dirname(path);
    bool wanted;
    char type;

    if (!needs_are_met(guest, extra, &wanted, error))
        return false;
    if (!wanted)
        return true;
    if (!guest_type(guest, path, &type, error))
        return false;
    if (type)
        return true;
    if (!guest->ops->mkdir(guest, parent, &folder, error))
        return false;
    return extra->type == 'f' ? guest_put_bytes(guest, path, extra->text, strlen(extra->text), &meta, error)
                              : guest->ops->symlink(guest, extra->text, path, error);
}

static bool has_commands(Guest *guest, bool *ret, GError **error)
{
    static const char *const find[] = {"/usr/bin/find", "/bin/find", NULL},
                             *const xargs[] = {"/usr/bin/xargs", "/bin/xargs", NULL},
                             *const sh[] = {"/bin/sh", NULL};
    const char *path = NULL;

    *ret = false;
    if (!guest_first(guest, sh, &path, error) || (path && !guest_first(guest, find, &path, error)) ||
        (path && !guest_first(guest, xargs, &path, error)))
        return false;
    *ret = path != NULL;
    return true;
}

bool provisioner_sysprep(const ProvisionerHost *host, const char *const *more, Guest *guest, GError **error)
{
    g_autoptr(GArray) roots = all_roots(more);
    g_autoptr(GTree) entries = g_tree_new_full(compare_paths, NULL, g_free, NULL);
    g_autoptr(GString) remove = g_string_new(NULL), empty = g_string_new(NULL);
    Found found = {.entries = entries, .more = more};
    Plan plan = {.remove = remove, .empty = empty, .more = more};
    bool commands;

    if (!has_commands(guest, &commands, error))
        return false;
    if (commands && !find_by_commands(host, guest, roots, &found, error))
        return false;
    for (guint i = 0; !commands && i < roots->len; i++) {
        const Root *root = &g_array_index(roots, Root, i);
        if (is_step_mount(root->path)) /* the port cannot tell a mount */
            continue;
        if (!find_by_port(guest, root->path, root->depth, &found, error))
            return false;
    }
    g_tree_foreach(entries, judge, &plan);
    if (!(commands ? apply_by_commands(host, guest, &plan, error) : apply_by_port(host, guest, &plan, error)))
        return false;
    for (const SysprepExtra *extra = extras; extra->path; extra++)
        if (!add_extra(host, guest, extra, error))
            return false;
    return selinux_relabel(host, guest, error); /* last: all that is there now gets its label */
}
