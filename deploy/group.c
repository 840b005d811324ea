/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Group files: read by the templates' parser, so that variables, locals, functions and messages are those of templates.
 *
 * Nothing is asked of the world here, neither the store nor a host: what is read twice is the same twice. What needs the world is
 * checked by `plan`. Defaults are those of kiln-group(5).
 */
#include "deploy/group-private.h"

#include "base/error.h"
#include "base/units.h"

#include <string.h>

enum { PREFIX_MIN = 12, SECRET_MIN = 4 /* shorter ones count as whole texts only */ };

#define NAME_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789-"

void group_file_free(GroupFile *file)
{
    if (!file)
        return;
    group_spec_free(file->spec);
    g_free(file);
}

void volume_spec_free(VolumeSpec *spec)
{
    if (!spec)
        return;
    g_free(spec->name);
    g_free(spec->mount);
    g_free(spec);
}

/* --- the group's own arguments --- */

static void read_name(const GroupPart *group)
{
    const char *name = group->reader->block->name;

    group->reader->spec->name = g_strdup(name);
    if (!g_ascii_islower(name[0]) || strspn(name, NAME_LETTERS) != strlen(name) || strlen(name) > GROUP_NAME_MAX)
        part_wrong(group, NULL, "a group's name is a letter and then letters, digits and '-', all lower-case, at most %d: not \"%.64s\"", GROUP_NAME_MAX, name);
}

static void read_size(const GroupPart *group)
{
    GroupFile *file = group->reader->file;

    file->size_given = part_has(group, "size");
    file->size = part_count(group, "size", 1, 0, GROUP_SIZE_MAX);
}

static bool is_image_id(const char *ref)
{
    const char *hex = g_str_has_prefix(ref, "sha256:") ? ref + 7 : ref;
    size_t length = strlen(hex);

    return (hex != ref ? length == 64 : length >= PREFIX_MIN && length <= 64) && strspn(hex, "0123456789abcdef") == length;
}

/* NAME:CHANNEL or NAME/KIND:CHANNEL; @ret_kind "disk", "oci" or NULL. */
static bool check_channel_ref(const char *ref, const char **ret_kind, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(ref, ":", 2);
    char *slash = strchr(parts[0], '/');

    if (slash) {
        *slash = '\0';
        *ret_kind = strcmp(slash + 1, "disk") == 0 ? "disk" : strcmp(slash + 1, "oci") == 0 ? "oci" : NULL;
        if (!*ret_kind)
            return fail_code(error, KILN_ERROR_USAGE, "the kind after '/' must be disk or oci");
    }
    if (!store_name_check(parts[0], error))
        return false;
    if (!parts[1])
        return fail_code(error, KILN_ERROR_USAGE,
                         "a bare name would change its meaning with every bake: write a channel, \"%s%s%s:prod\", or an image ID, \"sha256:...\"", parts[0],
                         *ret_kind ? "/" : "", *ret_kind ? *ret_kind : "");
    return store_channel_check(parts[1], error);
}

static void read_image(const GroupPart *group)
{
    GroupReader *reader = group->reader;
    const char *ref = part_string(group, "image", NULL), *kind = NULL;
    g_autoptr(GError) problem = NULL;

    reader->spec->image_ref = g_strdup(ref ? ref : "");
    if (!part_has(group, "image")) {
        part_wrong(group, NULL, "group \"%s\" needs an image, like image = \"web:prod\"", reader->spec->name);
        return;
    }
    if (!ref || is_image_id(ref))
        return;
    if (strchr(ref, '@') || g_str_has_prefix(ref, "sha256:"))
        part_wrong(group, "image", "groups take a channel, \"web:prod\", or an image ID, \"sha256:\" and 64 hex digits, and not '%.100s'", ref);
    else if (!check_channel_ref(ref, &kind, &problem))
        part_wrong(group, "image", "%s", problem->message);
    else if (kind && reader->driver && strcmp(kind, reader->driver->kind) != 0)
        part_wrong(group, "image", "driver \"%s\" runs %s images, and this is %s", reader->driver->name, reader->driver->kind, kind);
}

static void read_promises(const GroupPart *group)
{
    static const char *const approvals[] = {"none", "another person", NULL};
    GroupSpec *spec = group->reader->spec;

    spec->ephemeral = part_bool(group, "ephemeral", false);
    spec->approval = part_word(group, "approval", approvals, 0) == 1;
    spec->needs_test = part_bool(group, "require_test", false);
    spec->deadline = part_duration(group, "deadline", 0, 10, GROUP_DURATION_MAX);
    spec->host_lost_after = part_duration(group, "host_lost_after", 0, 30, GROUP_DURATION_MAX);
}

/* --- instance --- */

static bool is_variable_name(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";

    return *name && !g_ascii_isdigit(*name) && strspn(name, letters) == strlen(name) && strlen(name) <= 256;
}

static gint compare_texts(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* An object of texts (and numbers, as HCL converts them), sorted so that equal ones are equal. */
static char **read_environment(const GroupPart *part)
{
    const json_t *object = json_object_get(part->object, "environment");
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    const char *key;
    json_t *value;

    if (!object)
        return NULL;
    if (!json_is_object(object) || json_object_size(object) > GROUP_LIST_MAX) {
        part_wrong(part, "environment", "'environment' must be an object of texts, like { MODE = \"fast\" }, at most %d", GROUP_LIST_MAX);
        return NULL;
    }
    json_object_foreach ((json_t *)object, key, value) {
        if (!is_variable_name(key))
            part_wrong(part, "environment", "'%.64s' cannot be the name of an environment variable", key);
        else if (json_is_integer(value))
            g_ptr_array_add(list, g_strdup_printf("%s=%" JSON_INTEGER_FORMAT, key, json_integer_value(value)));
        else if (json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value))
            g_ptr_array_add(list, g_strdup_printf("%s=%s", key, json_string_value(value)));
        else
            part_wrong(part, "environment", "the value of '%.64s' must be a text", key);
    }
    g_ptr_array_sort(list, compare_texts);
    g_ptr_array_add(list, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&list), FALSE);
}

static void read_instance(const GroupPart *group)
{
    static const char *const known[] = {"memory", "cpus", "user_data", "environment", NULL};
    InstanceShape *shape = &group->reader->spec->shape;
    GroupPart part;

    part_block(group, "instance", false, &part);
    part_only(&part, known);
    shape->memory = part_size(&part, "memory", (uint64_t)512 << 20, GROUP_MEMORY_MIN, GROUP_MEMORY_MAX);
    shape->cpus = part_count(&part, "cpus", 1, 1, 1024);
    shape->user_data = g_strdup(part_string(&part, "user_data", NULL));
    shape->environment = read_environment(&part);
    if (shape->user_data && strlen(shape->user_data) > GROUP_USER_DATA_MAX)
        part_wrong(&part, "user_data", "'user_data' is larger than %d KiB", GROUP_USER_DATA_MAX / 1024);
}

/* --- health, drain --- */

static void check_health_kinds(const GroupPart *part)
{
    GroupSpec *spec = part->reader->spec;
    unsigned kinds = (spec->health_http != NULL) + spec->health_tcp + spec->health_agent;

    if (kinds > 1)
        part_wrong(part, spec->health_agent ? "agent" : "tcp", "health is one of http, tcp and agent, and this is another one");
    else if ((spec->health_http || spec->health_tcp) && !spec->health_port && !part_has(part, "port"))
        part_wrong(part, spec->health_http ? "http" : "tcp", "this needs the port that instances listen on: port = 80");
    if (spec->health_http && (spec->health_http[0] != '/' || strchr(spec->health_http, ' ') || !group_text_is_plain(spec->health_http, 1000)))
        part_wrong(part, "http", "'http' must be a path that begins with '/'");
    if (spec->health_agent && part->reader->driver && !part->reader->driver->ping)
        part_wrong(part, "agent", "instances of driver \"%s\" have no guest agent", part->reader->driver->name);
}

static void read_health(const GroupPart *group)
{
    static const char *const known[] = {"http", "tcp", "agent", "port", "interval", "rise", "fall", "start_timeout", NULL};
    GroupSpec *spec = group->reader->spec;
    GroupPart part;

    part_block(group, "health", false, &part);
    part_only(&part, known);
    spec->health_http = g_strdup(part_string(&part, "http", NULL));
    spec->health_tcp = part_bool(&part, "tcp", false);
    spec->health_agent = part_bool(&part, "agent", false);
    spec->health_port = part_count(&part, "port", 0, 1, 65535);
    spec->health_interval = part_duration(&part, "interval", 1, 0.1, 3600);
    spec->rise = part_count(&part, "rise", 2, 1, 100);
    spec->fall = part_count(&part, "fall", 3, 1, 100);
    spec->start_timeout = part_duration(&part, "start_timeout", 90, 1, 86400);
    check_health_kinds(&part);
    if (spec->health_interval * spec->rise > spec->start_timeout)
        part_wrong(&part, part_has(&part, "start_timeout") ? "start_timeout" : "interval",
                   "%u good checks %g seconds apart do not fit into the start timeout of %g seconds", spec->rise, spec->health_interval, spec->start_timeout);
    spec->shape.port = spec->health_port;
    spec->shape.agent = spec->health_agent;
}

static void read_times(const GroupPart *group)
{
    static const char *const drain_known[] = {"deadline", NULL}, *const rollback_known[] = {"keep", NULL}, *const phoenix_known[] = {"max_age", NULL};
    GroupSpec *spec = group->reader->spec;
    GroupPart part;

    part_block(group, "drain", false, &part);
    part_only(&part, drain_known);
    spec->drain_deadline = part_duration(&part, "deadline", 30, 0.1, 86400);
    part_block(group, "rollback", false, &part);
    part_only(&part, rollback_known);
    spec->rollback_keep = part_duration(&part, "keep", 1800, 0, GROUP_DURATION_MAX);
    part_block(group, "phoenix", false, &part);
    part_only(&part, phoenix_known);
    spec->max_age = part_duration(&part, "max_age", 0, 60, GROUP_DURATION_MAX);
    if (part.object && !part_has(&part, "max_age"))
        part_wrong(&part, NULL, "'phoenix' needs max_age, like max_age = \"7d\"");
}

static void read_drift(const GroupPart *group)
{
    static const char *const known[] = {"ignore", "cure", NULL}, *const cures[] = {"report", "replace", NULL};
    GroupSpec *spec = group->reader->spec;
    GroupPart part;

    part_block(group, "drift", false, &part);
    part_only(&part, known);
    spec->drift_ignore = part_strings(&part, "ignore");
    spec->cure_replace = part_word(&part, "cure", cures, 0) == 1;
    for (unsigned i = 0; spec->drift_ignore && spec->drift_ignore[i]; i++) {
        g_autofree char *place = g_strdup_printf("ignore[%u]", i);

        if (spec->drift_ignore[i][0] != '/' || strlen(spec->drift_ignore[i]) > 4000)
            part_wrong(&part, place, "'ignore' lists absolute paths, in which *, ? and ** stand for others");
    }
}

/* --- volumes --- */

static bool is_mount(const char *path)
{
    g_autofree char *canonical = path[0] == '/' ? g_canonicalize_filename(path, "/") : NULL;

    return canonical && group_text_is_plain(path, 255) && strcmp(path, canonical) == 0 && strcmp(path, "/") != 0;
}

static void check_volume_twice(const GroupPart *part, const VolumeSpec *volume)
{
    const GPtrArray *volumes = part->reader->spec->shape.volumes;

    for (guint i = 0; i < volumes->len; i++) {
        const VolumeSpec *other = volumes->pdata[i];

        if (strcmp(other->name, volume->name) == 0)
            part_wrong(part, NULL, "the volume \"%s\" is there twice", volume->name);
        else if (g_strcmp0(other->mount, volume->mount) == 0 && volume->mount)
            part_wrong(part, "mount", "the volume \"%s\" is mounted there already", other->name);
    }
}

static void read_volume(const GroupPart *part)
{
    static const char *const known[] = {"size", "mount", NULL};
    VolumeSpec *volume = g_new0(VolumeSpec, 1);

    part_only(part, known);
    volume->name = g_strdup(part->label);
    volume->mount = g_strdup(part_string(part, "mount", NULL));
    volume->size = part_size(part, "size", GROUP_VOLUME_MIN, GROUP_VOLUME_MIN, GROUP_VOLUME_MAX);
    if (!g_ascii_islower(part->label[0]) || strspn(part->label, NAME_LETTERS) != strlen(part->label) || strlen(part->label) > 32)
        part_wrong(part, NULL, "a volume's name is a letter and then letters, digits and '-', all lower-case, at most 32");
    if (!part_has(part, "size"))
        part_wrong(part, NULL, "%s needs a size, like size = \"10G\"", part->name);
    if (!part_has(part, "mount"))
        part_wrong(part, NULL, "%s needs the folder that it is mounted on: mount = \"/var/lib/data\"", part->name);
    else if (volume->mount && !is_mount(volume->mount))
        part_wrong(part, "mount", "'mount' must be an absolute path below '/', without '.', '..' or a final '/'");
    check_volume_twice(part, volume);
    g_ptr_array_add(part->reader->spec->shape.volumes, volume);
}

static void read_volumes(const GroupPart *group)
{
    size_t count = part_blocks(group, "volume", true);
    GroupPart one;

    if (count > GROUP_VOLUMES_MAX)
        part_wrong(group, "volume", "a group has at most %d volumes", GROUP_VOLUMES_MAX);
    for (size_t i = 0; i < MIN(count, (size_t)GROUP_VOLUMES_MAX); i++) {
        part_block_at(group, "volume", i, &one);
        read_volume(&one);
    }
    if (count > 0 && group->reader->spec->ephemeral)
        part_wrong(group, "ephemeral", "a group with volumes is not ephemeral: leave out one of them");
    if (count > 0 && group->reader->driver && !group->reader->driver->destroy_volumes)
        part_wrong(group, "volume", "driver \"%s\" has no volumes", group->reader->driver->name);
}

/* --- driver and balancer --- */

static json_t *own_arguments(const GroupPart *part)
{
    json_t *arguments = part->object ? json_deep_copy(part->object) : json_object();

    (void)json_object_del(arguments, TEMPLATE_LABEL);
    return arguments;
}

static void unknown_member(const GroupPart *part, const char *what, const char *names)
{
    g_auto(GStrv) list = g_strsplit(names, ", ", -1);
    const char *near = units_nearest(part->label, (const char *const *)list);

    part_wrong(part, NULL, "there is no %s \"%.32s\"; there %s %s%s%s%s", what, part->label, strchr(names, ',') ? "are" : "is", *names ? names : "none",
               near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static void find_driver(const GroupPart *group)
{
    GroupSpec *spec = group->reader->spec;
    g_autofree char *names = NULL;
    GroupPart part;

    part_block(group, "driver", true, &part);
    spec->driver = g_strdup(part.label ? part.label : "");
    spec->driver_arguments = own_arguments(&part);
    if (!part.object && !json_object_get(group->object, "driver"))
        part_wrong(group, NULL, "group \"%s\" needs a driver, like driver \"libvirt\" { hosts = [\"qemu:///system\"] }", spec->name);
    if (!part.object)
        return;
    group->reader->driver = driver_find(spec->driver, &names);
    if (!group->reader->driver)
        unknown_member(&part, "driver", names);
}

static void find_balancer(const GroupPart *group)
{
    GroupSpec *spec = group->reader->spec;
    g_autofree char *names = NULL;
    GroupPart part;

    part_block(group, "balancer", true, &part);
    spec->balancer = g_strdup(part.object ? part.label : "none");
    spec->balancer_arguments = own_arguments(&part);
    group->reader->balancer = balancer_find(spec->balancer, &names);
    if (!group->reader->balancer && part.object)
        unknown_member(&part, "balancer", names);
    if (part.object && strcmp(spec->balancer, "none") != 0 && !spec->health_port)
        part_wrong(&part, NULL, "a balancer needs the port that instances listen on: port = 80 in the block 'health'");
}

/* What only the members know: after everything else, as they look at the shape, too. */
static void check_members(const GroupPart *group)
{
    const GroupReader *reader = group->reader;
    GroupSpec *spec = reader->spec;
    g_autoptr(GError) driver_problem = NULL, balancer_problem = NULL;
    const char *argument = NULL;
    GroupPart part;

    part_block_at(group, "driver", 0, &part);
    if (reader->driver && !reader->driver->check(spec->driver_arguments, &spec->shape, &argument, &driver_problem))
        part_wrong(&part, argument, "%s", driver_problem->message);
    argument = NULL;
    part_block_at(group, "balancer", 0, &part);
    if (reader->balancer && part.object && reader->balancer->check &&
        !reader->balancer->check(spec->balancer_arguments, spec->rules.strategy, &argument, &balancer_problem))
        part_wrong(&part, argument, "%s", balancer_problem->message);
}

/* --- one group --- */

static unsigned ceiling_of(const GroupFile *file)
{
    return file->size + (file->spec->rules.strategy == STRATEGY_BLUEGREEN ? file->size : file->spec->rules.max_surge);
}

static void read_group(GroupReader *reader)
{
    static const char *const known[] = {"size", "image", "ephemeral", "approval", "require_test", "deadline", "host_lost_after", "instance", "driver", "network",
                                        "balancer", "health", "drain", "firewall", "strategy", "rollback", "phoenix", "drift", "volume", NULL};
    GroupPart group = {.reader = reader, .object = reader->block->args};

    (void)g_snprintf(group.name, sizeof group.name, "group \"%.48s\"", reader->block->name);
    part_only(&group, known);
    read_name(&group);
    read_size(&group);
    find_driver(&group);
    read_image(&group);
    read_promises(&group);
    read_instance(&group);
    read_health(&group);
    find_balancer(&group);
    group_read_network(&group);
    group_read_firewall(&group);
    read_times(&group);
    read_drift(&group);
    read_volumes(&group);
    group_read_strategy(&group);
    group_check_addresses(&group, ceiling_of(reader->file));
    if (reader->count == 0)
        check_members(&group);
}

/* A journal keeps the spec in clear for ever, and metadata on hosts shows parts of it: what is marked sensitive has no place in it. */
static bool holds_secret(const json_t *value, const GPtrArray *secrets)
{
    const char *key, *text = json_string_value(value);
    size_t index;
    json_t *inner;

    for (guint i = 0; text && i < secrets->len; i++) {
        const char *secret = secrets->pdata[i];

        if (*secret && (strlen(secret) < SECRET_MIN ? strcmp(text, secret) == 0 : strstr(text, secret) != NULL))
            return true;
    }
    json_array_foreach (value, index, inner)
        if (holds_secret(inner, secrets))
            return true;
    json_object_foreach ((json_t *)value, key, inner)
        if (holds_secret(inner, secrets))
            return true;
    return false;
}

static void check_secrets(GroupReader *reader, const GPtrArray *secrets)
{
    GroupPart group = {.reader = reader, .object = reader->block->args};
    const char *key;
    json_t *value;

    json_object_foreach (reader->block->args, key, value)
        if (holds_secret(value, secrets))
            part_wrong(&group, key, "a sensitive value stands in '%s', and a group's journal would keep it in clear: let instances fetch it themselves", key);
}

static void check_named_twice(GroupReader *reader, const GPtrArray *files)
{
    GroupPart group = {.reader = reader};

    for (guint i = 0; i < files->len; i++)
        if (strcmp(((GroupFile *)files->pdata[i])->spec->name, reader->spec->name) == 0)
            part_wrong(&group, NULL, "the group \"%s\" is there twice", reader->spec->name);
}

static GroupFile *file_new(void)
{
    GroupFile *file = g_new0(GroupFile, 1);

    file->spec = g_new0(GroupSpec, 1);
    file->spec->analyses = g_ptr_array_new_with_free_func((GDestroyNotify)analysis_spec_free);
    file->spec->shape.volumes = g_ptr_array_new_with_free_func((GDestroyNotify)volume_spec_free);
    return file;
}

static void add_group(const TemplateBlock *block, const GPtrArray *secrets, GPtrArray *files, GString *mistakes)
{
    GroupFile *file = file_new();
    GroupReader reader = {.block = block, .file = file, .spec = file->spec, .mistakes = mistakes};

    read_group(&reader);
    check_secrets(&reader, secrets);
    check_named_twice(&reader, files);
    g_ptr_array_add(files, file);
    if (reader.count > GROUP_MISTAKES_MAX)
        g_string_append(mistakes, "\n(more mistakes are not shown)");
}

/* --- files --- */

bool group_load_with(const char *path, const TemplateOptions *options, GPtrArray **ret, GError **error)
{
    static const char *const labelled[] = {"driver", "balancer", "strategy", "volume", "analysis", NULL};
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func((GDestroyNotify)group_file_free), secrets = NULL, blocks = NULL;
    g_autoptr(GString) mistakes = g_string_new(NULL);
    g_autoptr(Template) template = NULL;
    TemplateOptions mine = *options;

    mine.list_block = "group";
    mine.list_labels = labelled;
    mine.list_suffix = GROUP_SUFFIX;
    if (!template_load(path, &mine, &template, error))
        return false;
    blocks = g_ptr_array_ref(template_list_blocks(template));
    secrets = template_sensitive(template);
    for (guint i = 0; i < blocks->len && i < GROUP_LIST_MAX; i++)
        add_group(blocks->pdata[i], secrets, files, mistakes);
    if (mistakes->len > 0)
        return fail_code(error, KILN_ERROR_USAGE, "%s", mistakes->str);
    if (blocks->len == 0 || blocks->len > GROUP_LIST_MAX)
        return fail_code(error, KILN_ERROR_USAGE,
                         blocks->len ? "'%s' holds more groups than can be" : "'%s' holds no group; write group \"NAME\" { image = \"NAME:CHANNEL\" ... }", path);
    *ret = g_steal_pointer(&files);
    return true;
}

bool group_load(const char *path, const char *const *vars, const char *const *var_files, GPtrArray **ret, GError **error)
{
    TemplateOptions options = {.vars = vars, .var_files = var_files};

    return group_load_with(path, &options, ret, error);
}

bool group_file_is(const char *path)
{
    g_autoptr(GDir) dir = NULL;
    const char *name;

    if (g_str_has_suffix(path, GROUP_SUFFIX))
        return true;
    dir = g_dir_open(path, 0, NULL);
    while (dir && (name = g_dir_read_name(dir)))
        if (name[0] != '.' && g_str_has_suffix(name, GROUP_SUFFIX))
            return true;
    return false;
}
