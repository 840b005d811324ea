/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups, users, their passwords and keys, as a seed sets them; by the guest's own useradd and usermod.
 *
 * Passwords reach the guest as hashes only, whose salt comes from the seed: equal seeds give equal bytes. Nothing here expires by the host's clock.
 */
#include "provisioner/first-boot.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

#define SUDOERS "/etc/sudoers.d/90-cloud-init-users"
#define USERS_MAX 1000u

/* What useradd takes, and nothing that could be an option or a path. */
static bool is_name(const char *name)
{
    return name && g_regex_match_simple("^[A-Za-z_][A-Za-z0-9_.@-]{0,63}\\$?$", name, G_REGEX_DOLLAR_ENDONLY, 0);
}

/* --- passwd --- */

typedef struct Account {
    guint32 uid, gid;
    char *home; /* NULL: there is no such account */
} Account;

static void account_clear(Account *account)
{
    g_free(account->home);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Account, account_clear)

/* Of the line "name:x:1000:1000:gecos:/home/name:/bin/sh". */
static bool find_account(const FirstBoot *boot, const char *name, Account *ret, GError **error)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!first_boot_read(boot, "/etc/passwd", &text, error))
        return false;
    lines = g_strsplit(text ? text : "", "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, ":", -1);
        guint64 uid, gid;

        if (g_strv_length(fields) < 7 || strcmp(fields[0], name) != 0 || !g_ascii_string_to_unsigned(fields[2], 10, 0, G_MAXUINT32, &uid, NULL) ||
            !g_ascii_string_to_unsigned(fields[3], 10, 0, G_MAXUINT32, &gid, NULL))
            continue;
        *ret = (Account){(guint32)uid, (guint32)gid, g_strdup(fields[5])};
        break;
    }
    return true;
}

/* Of a name that is one. */
static bool group_exists(const FirstBoot *boot, const char *name, bool *ret, GError **error)
{
    g_autofree char *text = NULL, *line = g_strconcat("\n", name, ":", NULL), *all = NULL;

    if (!first_boot_read(boot, "/etc/group", &text, error))
        return false;
    all = g_strconcat("\n", text, NULL);
    *ret = strstr(all, line) != NULL;
    return true;
}

static bool make_group(const FirstBoot *boot, const char *name, GError **error)
{
    g_autofree char *what = g_strdup_printf("make the group '%s'", name);

    return first_boot_sh(boot, what, "grep -q \"^$1:\" /etc/group || groupadd \"$1\"", (const char *const[]){name, NULL}, error);
}

/* --- users --- */

static void add_option(GPtrArray *argv, const json_t *user, const char *key, const char *option)
{
    char *text = seed_text(json_object_get(user, key));

    if (!text)
        return;
    g_ptr_array_add(argv, g_strdup(option));
    g_ptr_array_add(argv, text);
}

static void add_flag(GPtrArray *argv, const json_t *user, const char *key, const char *option)
{
    if (first_boot_flag(json_object_get(user, key), false))
        g_ptr_array_add(argv, g_strdup(option));
}

static char **groups_of(const json_t *user)
{
    const json_t *groups = json_object_get(user, "groups");
    json_t *names = NULL;
    const char *key;
    char **list;
    json_t *value;

    if (!json_is_object(groups))
        return seed_texts(groups, ", ");
    names = json_array();
    json_object_foreach ((json_t *)groups, key, value)
        json_array_append_new(names, json_string(key));
    list = seed_texts(names, ",");
    json_decref(names);
    return list;
}

static bool add_groups(FirstBoot *boot, const json_t *user, GPtrArray *argv, GError **error)
{
    g_auto(GStrv) groups = groups_of(user);
    g_autofree char *list = NULL;
    bool create = first_boot_flag(json_object_get(user, "create_groups"), true);

    for (char **group = groups; *group; group++)
        if (!is_name(g_strstrip(*group)))
            return fail(error, "the seed: '%s' is no name of a group", *group);
        else if (create && !make_group(boot, *group, error))
            return false;
    if (!*groups)
        return true;
    list = g_strjoinv(",", groups);
    g_ptr_array_add(argv, g_strdup("--groups"));
    g_ptr_array_add(argv, g_steal_pointer(&list));
    return true;
}

/* Where a group of the user's name is there already (Debian's "operator") it is the user's, as with adduser: useradd alone would refuse. */
static bool add_primary_group(FirstBoot *boot, const json_t *user, const char *name, GPtrArray *argv, GError **error)
{
    g_autofree char *primary = seed_text(json_object_get(user, "primary_group"));
    bool exists = false;

    if (primary && !is_name(primary))
        return fail(error, "the seed: '%s' is no name of a group", primary);
    if (primary && !make_group(boot, primary, error))
        return false;
    if (!primary && !first_boot_flag(json_object_get(user, "no_user_group"), false) && !group_exists(boot, name, &exists, error))
        return false;
    if (primary || exists) {
        g_ptr_array_add(argv, g_strdup("--gid"));
        g_ptr_array_add(argv, g_strdup(primary ? primary : name));
    }
    return true;
}

static bool make_user(FirstBoot *boot, const json_t *user, const char *name, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *what = g_strdup_printf("make the user '%s' with useradd", name);
    bool system = first_boot_flag(json_object_get(user, "system"), false);

    add_option(argv, user, "gecos", "--comment");
    add_option(argv, user, json_object_get(user, "homedir") ? "homedir" : "home", "--home-dir");
    add_option(argv, user, "shell", "--shell");
    add_option(argv, user, "uid", "--uid");
    add_option(argv, user, "expiredate", "--expiredate");
    add_option(argv, user, "inactive", "--inactive");
    add_option(argv, user, "selinux_user", "--selinux-user");
    add_flag(argv, user, "system", "--system");
    add_flag(argv, user, "no_user_group", "--no-user-group");
    add_flag(argv, user, "no_log_init", "--no-log-init");
    if (!add_primary_group(boot, user, name, argv, error) || !add_groups(boot, user, argv, error))
        return false;
    g_ptr_array_add(argv, g_strdup(first_boot_flag(json_object_get(user, "no_create_home"), false) || system ? "-M" : "-m"));
    g_ptr_array_add(argv, g_strdup("--"));
    g_ptr_array_add(argv, g_strdup(name));
    g_ptr_array_add(argv, NULL);
    return first_boot_sh(boot, what, "exec useradd \"$@\"", (const char *const *)argv->pdata, error);
}

static bool set_hash(const FirstBoot *boot, const char *name, const char *hash, GError **error)
{
    g_autofree char *what = g_strdup_printf("set the password of '%s'", name);

    if (strpbrk(hash, ":\n"))
        return fail(error, "the seed: the password of '%s' is no hash", name);
    return first_boot_sh(boot, what, "usermod -p \"$2\" -- \"$1\"", (const char *const[]){name, hash, NULL}, error);
}

static bool set_password(const FirstBoot *boot, const char *name, const char *password, GError **error)
{
    g_autofree char *salt_of = g_strconcat(boot->host->build_name, "\n", name, NULL), *hash = seed_hash_password(password, salt_of);

    return hash ? set_hash(boot, name, hash, error) : fail(error, "the seed: this machine's libcrypt cannot hash a password");
}

static bool user_password(FirstBoot *boot, const json_t *user, const char *name, bool is_new, GError **error)
{
    g_autofree char *hash = seed_text(json_object_get(user, "passwd")), *always = seed_text(json_object_get(user, "hashed_passwd"));
    g_autofree char *plain = seed_text(json_object_get(user, "plain_text_passwd"));

    if (hash && is_new && !set_hash(boot, name, hash, error))
        return false;
    if (always && !set_hash(boot, name, always, error))
        return false;
    if (plain && !set_password(boot, name, plain, error))
        return false;
    return !first_boot_flag(json_object_get(user, "lock_passwd"), true) ||
           first_boot_sh(boot, "lock a password", "usermod -L -- \"$1\"", (const char *const[]){name, NULL}, error);
}

/* Each key once; the folder and the file are the user's. */
static bool add_keys(FirstBoot *boot, const char *name, char **keys, GError **error)
{
    g_auto(Account) account = {0};
    g_autofree char *folder = NULL, *path = NULL, *before = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    GuestFile meta = {.mode = 0600, .mtime = boot->host->epoch}, folder_meta = {.mode = 0700, .mtime = boot->host->epoch};

    if (!*keys)
        return true;
    if (!find_account(boot, name, &account, error))
        return false;
    if (!account.home || *account.home != '/')
        return fail(error, "the seed gives keys to '%s', who has no home in /etc/passwd", name);
    meta.uid = folder_meta.uid = account.uid;
    meta.gid = folder_meta.gid = account.gid;
    folder = g_build_filename(account.home, ".ssh", NULL);
    path = g_build_filename(folder, "authorized_keys", NULL);
    if (!boot->guest->ops->mkdir(boot->guest, folder, &folder_meta, error) || !first_boot_read(boot, path, &before, error))
        return false;
    g_string_append(text, before ? before : "");
    if (text->len && text->str[text->len - 1] != '\n')
        g_string_append_c(text, '\n');
    for (char **key = keys; *key; key++)
        if (*g_strstrip(*key) && !strstr(text->str, *key))
            g_string_append_printf(text, "%s\n", *key);
    return guest_put_bytes(boot->guest, path, text->str, text->len, &meta, error);
}

static bool add_sudo(FirstBoot *boot, const json_t *user, const char *name, GError **error)
{
    const json_t *value = json_object_get(user, "sudo");
    g_auto(GStrv) rules = json_is_boolean(value) ? g_new0(char *, 1) : seed_texts(value, "\n");
    const GuestFile folder = {.mode = 0750, .mtime = boot->host->epoch};
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *before = NULL;

    if (!*rules)
        return true;
    if (!first_boot_read(boot, SUDOERS, &before, error) || !boot->guest->ops->mkdir(boot->guest, "/etc/sudoers.d", &folder, error))
        return false;
    g_string_append(text, before ? before : "# Users of the seed that this image was baked with\n");
    for (char **rule = rules; *rule; rule++)
        if (!strchr(*rule, '\n'))
            g_string_append_printf(text, "%s %s\n", name, *rule);
    return first_boot_write(boot, SUDOERS, text->str, 0440, error);
}

/* What is not in this list is nothing that is applied; "default" is who it is. */
static void name_the_rest(FirstBoot *boot, const json_t *user, const char *name, bool is_new)
{
    static const char *const applied[] = {"name",          "gecos",           "home",   "homedir",       "shell",         "uid",           "expiredate",
                                          "inactive",      "selinux_user",    "system", "no_user_group", "no_log_init",   "groups",        "primary_group",
                                          "create_groups", "no_create_home",  "passwd", "hashed_passwd", "lock_passwd",   "sudo",          "plain_text_passwd",
                                          "ssh_authorized_keys", "default",   NULL};
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)user, key, value)
        if (!g_strv_contains(applied, key))
            seed_ignore(boot->seed, "%s of %s", key, name);
    if (!is_new && json_object_get(user, "passwd"))
        seed_ignore(boot->seed, "passwd of %s, who was there before (hashed_passwd is for such)", name);
}

static bool add_user(FirstBoot *boot, const json_t *user, GError **error)
{
    g_autofree char *name = seed_text(json_object_get(user, "name"));
    g_auto(GStrv) keys = seed_texts(json_object_get(user, "ssh_authorized_keys"), "\n");
    g_auto(Account) account = {0};
    bool is_new;

    if (!is_name(name))
        return fail(error, "the seed: '%s' is no name of a user", name ? name : "");
    if (json_object_get(user, "snapuser"))
        return seed_ignore(boot->seed, "the snap user %s", name), true;
    if (!find_account(boot, name, &account, error))
        return false;
    is_new = !account.home;
    name_the_rest(boot, user, name, is_new);
    if ((is_new && !make_user(boot, user, name, error)) || !user_password(boot, user, name, is_new, error) || !add_keys(boot, name, keys, error) ||
        !add_sudo(boot, user, name, error))
        return false;
    g_ptr_array_add(boot->done, g_strdup_printf("user %s", name));
    return true;
}

/* --- who they are --- */

/* With '-' in its keys as '_'. New reference. */
static json_t *plain_user(const json_t *one)
{
    json_t *user = json_object(), *value;
    const char *key;

    json_object_foreach ((json_t *)one, key, value) {
        g_autofree char *plain = g_strdelimit(g_strdup(key), "-", '_');

        json_object_set(user, plain, value);
    }
    return user;
}

/* The guest's default user with what the seed says of it; NULL where nobody says a name. New reference. */
static json_t *default_user(const FirstBoot *boot)
{
    const json_t *own = json_object_get(json_object_get(boot->config, "system_info"), "default_user"), *said = json_object_get(boot->config, "user");
    json_t *user = json_is_object(own) ? json_deep_copy(own) : json_object();

    if (json_is_string(said))
        json_object_set(user, "name", (json_t *)said);
    else if (json_is_object(said)) {
        g_autoptr(json_t) plain = plain_user(said);

        seed_merge(user, plain);
    }
    if (json_is_string(json_object_get(user, "name")))
        return user;
    json_decref(user);
    return NULL;
}

/* "default", or one without a name. */
static bool is_default(const json_t *one)
{
    const json_t *name = json_is_object(one) ? json_object_get(one, "name") : one;

    return (json_is_object(one) && !name) || g_strcmp0(json_string_value(name), "default") == 0;
}

/* A list, a text of names, or { NAME = { ... } }: as a list. New reference. */
static json_t *users_as_list(const json_t *users)
{
    json_t *list = json_array(), *one;
    const char *key;

    if (json_is_string(users)) {
        g_auto(GStrv) names = seed_texts(users, ", ");

        for (char **name = names; *name; name++)
            json_array_append_new(list, json_string(*name));
    }
    json_object_foreach ((json_t *)users, key, one) {
        json_t *user = json_is_object(one) ? json_copy(one) : json_object();

        json_object_set_new(user, "name", json_string(key));
        if (json_is_object(one) || first_boot_flag(one, false))
            json_array_append(list, user);
        json_decref(user);
    }
    if (json_is_array(users))
        json_array_extend(list, (json_t *)users);
    return list;
}

/* The default user goes by that word, by `user`, or without a name; what is said of it there is over what the guest says. */
static void add_default(json_t *list, json_t *base, const json_t *one, bool *added)
{
    g_autoptr(json_t) said = plain_user(one);

    (void)json_object_del(said, "name"); /* may be absent */
    seed_merge(base, said);
    if (!*added)
        json_array_append(list, base);
    *added = true;
}

/* Users as objects. New reference. */
static json_t *list_users(FirstBoot *boot, json_t *base /* the default one, or NULL */)
{
    g_autoptr(json_t) users = users_as_list(json_object_get(boot->config, "users"));
    json_t *list = json_array(), *one;
    bool added = false;
    size_t i;

    json_array_foreach (users, i, one) {
        if (is_default(one) && base)
            add_default(list, base, one, &added);
        else if (json_is_string(one) && !is_default(one))
            json_array_append_new(list, json_pack("{s:O}", "name", one));
        else if (json_is_object(one) && !is_default(one))
            json_array_append_new(list, plain_user(one));
    }
    if (base && first_boot_said(boot, "user"))
        add_default(list, base, NULL, &added);
    return list;
}

static bool add_named_groups(FirstBoot *boot, GError **error)
{
    const json_t *groups = first_boot_said(boot, "groups"), *one;
    g_autoptr(json_t) all = json_object();
    const char *key;
    json_t *members;
    size_t i;

    if (json_is_object(groups))
        json_object_update(all, (json_t *)groups);
    if (json_is_string(groups)) {
        g_auto(GStrv) names = seed_texts(groups, ", ");

        for (char **name = names; *name; name++)
            json_object_set_new(all, *name, json_null());
    }
    json_array_foreach (groups, i, one) {
        if (json_is_object(one))
            json_object_update(all, (json_t *)one);
        else if (json_is_string(one))
            json_object_set_new(all, json_string_value(one), json_null());
    }
    json_object_foreach (all, key, members) {
        g_auto(GStrv) names = seed_texts(members, ", ");

        if (!is_name(key))
            return fail(error, "the seed: '%s' is no name of a group", key);
        if (!make_group(boot, key, error))
            return false;
        for (char **name = names; *name; name++)
            if (is_name(*name) && !first_boot_sh(boot, "add a member to a group", "! grep -q \"^$2:\" /etc/passwd || usermod -a -G \"$1\" -- \"$2\"",
                                                 (const char *const[]){key, *name, NULL}, error))
                return false;
    }
    return true;
}

/* The one that `password` and `ssh_authorized_keys` of the whole are for: the default user, where it is one of @users. */
static char *main_user(const json_t *users, const json_t *base)
{
    json_t *one, *name = json_object_get(base, "name");
    size_t i;

    json_array_foreach ((json_t *)users, i, one)
        if (name && json_equal(json_object_get(one, "name"), name))
            return seed_text(name);
    return NULL;
}

/* What cloud-init gives to the default user, and where root may log in (disable_root: false) to root. */
static bool add_main_keys(FirstBoot *boot, const char *main, GError **error)
{
    g_auto(GStrv) keys = seed_texts(first_boot_said(boot, "ssh_authorized_keys"), "\n");
    g_auto(GStrv) meta_keys = seed_texts(json_object_get(boot->seed->meta, "public-keys"), "\n");
    bool root = !first_boot_flag(json_object_get(boot->config, "disable_root"), true);

    if ((*keys || *meta_keys) && !main && !root)
        seed_ignore(boot->seed, "ssh_authorized_keys (neither the seed nor the guest's cloud.cfg has a default user to have them)");
    return (!main || (add_keys(boot, main, keys, error) && add_keys(boot, main, meta_keys, error))) &&
           (!root || (add_keys(boot, "root", keys, error) && add_keys(boot, "root", meta_keys, error)));
}

bool first_boot_users(FirstBoot *boot, GError **error)
{
    g_autoptr(json_t) base = default_user(boot), users = list_users(boot, base);
    g_autofree char *main = main_user(users, base);
    json_t *one;
    size_t i;

    if (json_array_size(users) > USERS_MAX)
        return fail(error, "the seed has more than %u users", USERS_MAX);
    if (!add_named_groups(boot, error))
        return false;
    json_array_foreach (users, i, one)
        if (!add_user(boot, one, error))
            return false;
    return add_main_keys(boot, main, error);
}

/* --- passwords --- */

static bool change_password(FirstBoot *boot, const char *name, const char *password, bool hashed, bool expire, GError **error)
{
    g_auto(Account) account = {0};

    if (!is_name(name))
        return fail(error, "the seed: chpasswd names no user");
    if (!find_account(boot, name, &account, error))
        return false;
    if (!account.home)
        return fail(error, "the seed: chpasswd names the user '%s', whom the guest does not have", name);
    if (!(hashed ? set_hash(boot, name, password, error) : set_password(boot, name, password, error)))
        return false;
    g_ptr_array_add(boot->done, g_strdup_printf("password of %s", name));
    return !expire || first_boot_sh(boot, "expire a password", "chage -d 0 -- \"$1\"", (const char *const[]){name, NULL}, error);
}

static bool listed_password(FirstBoot *boot, const char *line, bool expire, GError **error)
{
    const char *colon = strchr(line, ':');
    g_autofree char *name = colon ? g_strndup(line, (gsize)(colon - line)) : NULL;

    if (!colon)
        return true;
    if (strcmp(colon + 1, "R") == 0 || strcmp(colon + 1, "RANDOM") == 0)
        return seed_ignore(boot->seed, "a random password for %s", name), true;
    return change_password(boot, g_strstrip(name), colon + 1, seed_is_hash(colon + 1), expire, error);
}

static bool user_entry(FirstBoot *boot, const json_t *entry, bool expire, GError **error)
{
    g_autofree char *name = seed_text(json_object_get(entry, "name")), *password = seed_text(json_object_get(entry, "password"));
    const char *type = json_string_value(json_object_get(entry, "type"));

    if (!name)
        return true;
    if (g_strcmp0(type, "RANDOM") == 0 || !password)
        return seed_ignore(boot->seed, "a random password for %s", name), true;
    return change_password(boot, name, password, !type || strcmp(type, "hash") == 0, expire, error);
}

static bool set_pwauth(FirstBoot *boot, GError **error)
{
    static const char script[] =
        "if grep -Eqi '^[[:space:]]*Include[[:space:]]+/etc/ssh/sshd_config.d/' /etc/ssh/sshd_config; then\n"
        "    mkdir -p /etc/ssh/sshd_config.d && echo \"PasswordAuthentication $1\" >/etc/ssh/sshd_config.d/50-cloud-init.conf &&\n"
        "    chmod 600 /etc/ssh/sshd_config.d/50-cloud-init.conf\n"
        "elif grep -Eqi '^[[:space:]]*PasswordAuthentication' /etc/ssh/sshd_config; then\n"
        "    sed -i -E \"s/^[[:space:]]*PasswordAuthentication.*/PasswordAuthentication $1/I\" /etc/ssh/sshd_config\n"
        "else\n"
        "    echo \"PasswordAuthentication $1\" >>/etc/ssh/sshd_config\n"
        "fi";
    const json_t *said = first_boot_said(boot, "ssh_pwauth");
    char type = 0;

    if (!said || g_strcmp0(json_string_value(said), "unchanged") == 0)
        return true;
    if (!guest_type(boot->guest, "/etc/ssh/sshd_config", &type, error))
        return false;
    if (!type)
        return seed_ignore(boot->seed, "ssh_pwauth (the guest has no sshd)"), true;
    return first_boot_sh(boot, "ssh_pwauth", script, (const char *const[]){first_boot_flag(said, false) ? "yes" : "no", NULL}, error);
}

bool first_boot_passwords(FirstBoot *boot, GError **error)
{
    const json_t *chpasswd = first_boot_said(boot, "chpasswd"), *one;
    bool expire = first_boot_flag(json_object_get(chpasswd, "expire"), true);
    g_auto(GStrv) lines = seed_texts(json_object_get(chpasswd, "list"), "\n");
    g_autoptr(json_t) base = default_user(boot), users = list_users(boot, base);
    g_autofree char *password = seed_text(first_boot_said(boot, "password")), *main = password ? main_user(users, base) : NULL;
    size_t i;

    for (char **line = lines; *line; line++)
        if (!listed_password(boot, *line, expire, error))
            return false;
    json_array_foreach (json_object_get(chpasswd, "users"), i, one)
        if (!user_entry(boot, one, expire, error))
            return false;
    if (password && !main)
        seed_ignore(boot->seed, "password (neither the seed nor the guest's cloud.cfg has a default user to have it)");
    if (main && !change_password(boot, main, password, seed_is_hash(password), expire, error))
        return false;
    return set_pwauth(boot, error);
}
