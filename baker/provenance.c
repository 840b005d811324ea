/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provenance: who, when, where and from what, for one published set.
 */
#include "baker/provenance.h"

#include <pwd.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static void set_text(json_t *object, const char *key, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text ? text : "", -1);

    json_object_set_new(object, key, json_string(valid));
}

json_t *provenance_make(const TemplateBuild *build, const json_t *identity, int64_t epoch, const json_t *steps, const json_t *tests)
{
    json_t *provenance = json_object();
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *when = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
    struct utsname host = {0};
    const struct passwd *user = getpwuid(getuid());

    (void)uname(&host);
    set_text(provenance, "built_at", when);
    set_text(provenance, "host", host.nodename);
    set_text(provenance, "kernel", host.release);
    set_text(provenance, "arch", host.machine);
    set_text(provenance, "user", user ? user->pw_name : NULL);
    set_text(provenance, "build", build->name);
    set_text(provenance, "source_type", build->source->type);
    json_object_set_new(provenance, "source_date_epoch", json_integer(epoch));
    json_object_set_new(provenance, "source", json_deep_copy(identity));
    json_object_set_new(provenance, "steps", json_deep_copy(steps));
    json_object_set_new(provenance, "tests", json_deep_copy(tests));
    return provenance;
}
