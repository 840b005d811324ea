/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine calls itself, its time zone and its language, as a seed sets them.
 */
#include "provisioner/first-boot.h"

#include <string.h>

static bool is_host_name(const char *name)
{
    return g_regex_match_simple("^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$", name, G_REGEX_DOLLAR_ENDONLY, 0);
}

static char *first_text(const FirstBoot *boot, const char *const *keys, const char *const *meta_keys)
{
    for (; *keys; keys++) {
        char *text = seed_text(first_boot_said(boot, *keys));

        if (text)
            return text;
    }
    for (; *meta_keys; meta_keys++) {
        char *text = seed_text(json_object_get(boot->seed->meta, *meta_keys));

        if (text)
            return text;
    }
    return NULL;
}

static bool write_hosts(FirstBoot *boot, const char *full, const char *name, GError **error)
{
    static const char script[] =
        "touch /etc/hosts && if grep -q '^127\\.0\\.1\\.1[[:space:]]' /etc/hosts; then\n"
        "sed -i \"s/^127\\.0\\.1\\.1[[:space:]].*/127.0.1.1 $1 $2/\" /etc/hosts; else echo \"127.0.1.1 $1 $2\" >>/etc/hosts; fi";
    g_autofree char *manage = seed_text(first_boot_said(boot, "manage_etc_hosts"));

    if (!manage || (strcmp(manage, "localhost") != 0 && strcmp(manage, "template") != 0 && !first_boot_flag(first_boot_said(boot, "manage_etc_hosts"), false)))
        return true;
    return first_boot_sh(boot, "manage_etc_hosts", script, (const char *const[]){full, name, NULL}, error);
}

bool first_boot_names(FirstBoot *boot, GError **error)
{
    static const char *const full_keys[] = {"fqdn", "hostname", NULL}, *const short_keys[] = {"hostname", "fqdn", NULL};
    static const char *const meta_keys[] = {"local-hostname", "local_hostname", "hostname", NULL};
    g_autofree char *full = first_text(boot, full_keys, meta_keys), *text = first_text(boot, short_keys, meta_keys);
    bool whole = first_boot_flag(json_object_get(boot->config, "prefer_fqdn_over_hostname"), false);
    g_autofree char *name = text ? g_strndup(text, strcspn(text, ".")) : NULL, *line = NULL;

    if (!name || first_boot_flag(json_object_get(boot->config, "preserve_hostname"), false))
        return true;
    if (!is_host_name(full) || !is_host_name(name)) {
        seed_ignore(boot->seed, "hostname, which is no name of a host");
        return true;
    }
    line = g_strconcat(whole ? full : name, "\n", NULL);
    g_ptr_array_add(boot->done, g_strdup_printf("hostname %s", whole ? full : name));
    return first_boot_write(boot, "/etc/hostname", line, 0644, error) && write_hosts(boot, full, name, error);
}

static bool set_zone(FirstBoot *boot, GError **error)
{
    g_autofree char *zone = seed_text(first_boot_said(boot, "timezone")), *path = NULL, *line = NULL;
    char type = 0, debian = 0;

    if (!zone)
        return true;
    path = g_build_filename("/usr/share/zoneinfo", zone, NULL);
    if (strstr(zone, "..") || !guest_type(boot->guest, path, &type, error)) {
        g_clear_error(error);
        type = 0;
    }
    if (type != 'f') {
        seed_ignore(boot->seed, "timezone (the guest does not know %s)", zone);
        return true;
    }
    line = g_strconcat(zone, "\n", NULL);
    g_ptr_array_add(boot->done, g_strdup_printf("time zone %s", zone));
    return boot->guest->ops->symlink(boot->guest, path, "/etc/localtime", error) && guest_type(boot->guest, "/etc/debian_version", &debian, error) &&
           (!debian || first_boot_write(boot, "/etc/timezone", line, 0644, error));
}

/* Made where the guest makes its locales itself; named where its programs find it. */
static bool set_locale(FirstBoot *boot, GError **error)
{
    static const char script[] =
        "if [ -f /etc/locale.gen ] && command -v locale-gen >/dev/null; then\n"
        "    charset=${1#*.}; [ \"$charset\" != \"$1\" ] || charset=ISO-8859-1\n"
        "    grep -qx \"$1 $charset\" /etc/locale.gen || echo \"$1 $charset\" >>/etc/locale.gen\n"
        "    locale-gen >/dev/null || exit\n"
        "fi\n"
        "if [ -d /etc/default ] && [ -f /etc/debian_version ]; then file=/etc/default/locale; else file=/etc/locale.conf; fi\n"
        "{ [ ! -f \"$file\" ] || grep -v '^LANG=' \"$file\"; echo \"LANG=$1\"; } >/run/kiln-locale\n"
        "cat /run/kiln-locale >\"$file\"";
    g_autofree char *locale = seed_text(first_boot_said(boot, "locale"));

    if (!locale || strcmp(locale, "false") == 0)
        return true;
    if (!g_regex_match_simple("^[A-Za-z0-9_.@-]{1,64}$", locale, G_REGEX_DOLLAR_ENDONLY, 0)) {
        seed_ignore(boot->seed, "locale, which is no name of one");
        return true;
    }
    g_ptr_array_add(boot->done, g_strdup_printf("locale %s", locale));
    return first_boot_sh(boot, "locale", script, (const char *const[]){locale, NULL}, error);
}

bool first_boot_clock_and_language(FirstBoot *boot, GError **error)
{
    return set_locale(boot, error) && set_zone(boot, error);
}
