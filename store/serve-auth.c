/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashes are made to be slow, and a client proves itself with every request: what was proved is remembered for some minutes, as a keyed hash of
 * name and password. One hash is computed at a time, so that strangers who guess take one core at most. A name that is not in the file
 * costs as much as one that is.
 */
#include "store/serve-auth.h"

#include "base/digest.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/serve-target.h"

#include <crypt.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define BCRYPT_COST_MAX 16
#define SHA_ROUNDS_MAX 5000000
#define SCRYPT_LOG_MAX 17 /* of its memory, in blocks; yescrypt too */
#define PROVED_FOR (5 * 60 * G_USEC_PER_SEC)
#define PROVED_MAX 1024
#define LOOK_EVERY G_USEC_PER_SEC

typedef struct Proof {
    int64_t until; /* monotonic */
} Proof;

struct ServeAuth {
    char *file;
    GHashTable *writers; /* of char * */
    bool all_write, anonymous;

    GMutex lock;
    GHashTable *users;  /* user -> hash */
    GHashTable *proofs; /* Digest* -> Proof* */
    struct stat seen;
    int64_t looked;
    Digest secret;

    GMutex slow; /* held while a hash is computed */
};

/* --- the file ------------------------------------------------------------------------- */

/* DES and the unsalted kinds are told by a glance; htpasswd's own MD5 is nothing that libcrypt knows. */
static bool hash_is_good(const char *hash)
{
    return hash[0] == '$' && strlen(hash) < CRYPT_OUTPUT_SIZE && !g_str_has_prefix(hash, "$1$") && !g_str_has_prefix(hash, "$apr1$") &&
           (g_str_has_prefix(hash, "$5$") || crypt_checksalt(hash) == CRYPT_SALT_OK);
}

/* One that takes minutes would hold everybody else up, and our end. */
static bool hash_is_quick(const char *hash)
{
    static const char digits[] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const char *memory = g_str_has_prefix(hash, "$y$") ? hash + 4 : g_str_has_prefix(hash, "$gy$") ? hash + 5 : NULL, *at;

    if (g_str_has_prefix(hash, "$7$"))
        memory = hash + 3;
    if (hash[1] == '2' && hash[2])
        return strlen(hash) > 4 && g_ascii_strtoull(hash + 4, NULL, 10) <= BCRYPT_COST_MAX;
    if (g_str_has_prefix(hash, "$5$rounds=") || g_str_has_prefix(hash, "$6$rounds="))
        return g_ascii_strtoull(hash + strlen("$6$rounds="), NULL, 10) <= SHA_ROUNDS_MAX;
    at = memory && *memory ? strchr(digits, *memory) : NULL;
    return !memory || (at && at - digits < SCRYPT_LOG_MAX);
}

static bool take_line(const char *line, unsigned number, const char *what, GHashTable *users, GError **error)
{
    const char *colon = strchr(line, ':');
    g_autofree char *user = NULL;

    if (!*line || *line == '#')
        return true;
    if (!colon || colon == line || strchr(colon + 1, ':') || !g_utf8_validate(line, -1, NULL))
        return fail(error, "line %u of '%s' is no USER:HASH", number, what);
    user = g_strndup(line, (gsize)MIN(colon - line, 64));
    if (!hash_is_good(colon + 1))
        return fail(error, "line %u of '%s': the hash of '%s' is of a kind that is not taken; make it with htpasswd -B", number, what, user);
    if (!hash_is_quick(colon + 1))
        return fail(error, "line %u of '%s': the hash of '%s' would take minutes to try; make it with htpasswd -B", number, what, user);
    if (!g_hash_table_insert(users, g_strndup(line, (gsize)(colon - line)), g_strdup(colon + 1)))
        return fail(error, "line %u of '%s': the user is there twice", number, what);
    return true;
}

bool serve_htpasswd_parse(const char *text, const char *what, GHashTable **ret, GError **error)
{
    g_autoptr(GHashTable) users = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (unsigned i = 0; lines[i]; i++) {
        g_strchomp(lines[i]);
        if (!take_line(lines[i], i + 1, what, users, error))
            return false;
    }
    *ret = g_steal_pointer(&users);
    return true;
}

static bool load(ServeAuth *auth, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GHashTable) users = NULL;
    gsize size;
    const char *text;

    if (stat(auth->file, &auth->seen) < 0)
        return fail_errno(error, "read '%s'", auth->file);
    if (!file_load(AT_FDCWD, auth->file, SERVE_HTPASSWD_MAX, &bytes, error))
        return false;
    text = g_bytes_get_data(bytes, &size);
    if (memchr(text, '\0', size))
        return fail(error, "'%s' is no text", auth->file);
    if (!serve_htpasswd_parse(text, auth->file, &users, error))
        return false;
    g_clear_pointer(&auth->users, g_hash_table_unref);
    auth->users = g_steal_pointer(&users);
    g_hash_table_remove_all(auth->proofs);
    return true;
}

/* Under the lock. A file that is no good any more leaves the users who were there, and is told once. */
static void follow_file(ServeAuth *auth)
{
    g_autoptr(GError) error = NULL;
    int64_t now = g_get_monotonic_time();
    struct stat st;

    if (now - auth->looked < LOOK_EVERY)
        return;
    auth->looked = now;
    if (stat(auth->file, &st) < 0 || (st.st_mtim.tv_sec == auth->seen.st_mtim.tv_sec && st.st_mtim.tv_nsec == auth->seen.st_mtim.tv_nsec &&
                                      st.st_size == auth->seen.st_size && st.st_ino == auth->seen.st_ino))
        return;
    if (!load(auth, &error))
        log_warning("the users stay as they were: %s", error->message);
}

bool serve_auth_new(const char *file, const char *const *writers, bool anonymous, ServeAuth **ret, GError **error)
{
    g_autoptr(ServeAuth) auth = g_new0(ServeAuth, 1);

    g_mutex_init(&auth->lock);
    g_mutex_init(&auth->slow);
    auth->file = g_strdup(file);
    auth->anonymous = anonymous;
    auth->writers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    auth->proofs = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, g_free);
    for (; writers && *writers; writers++) {
        auth->all_write = auth->all_write || strcmp(*writers, "*") == 0;
        g_hash_table_add(auth->writers, g_strdup(*writers));
    }
    if (getrandom(auth->secret.bytes, DIGEST_SIZE, 0) != DIGEST_SIZE)
        return fail_errno(error, "get random bytes");
    if (file && !load(auth, error))
        return false;
    *ret = g_steal_pointer(&auth);
    return true;
}

void serve_auth_free(ServeAuth *auth)
{
    if (!auth)
        return;
    g_clear_pointer(&auth->users, g_hash_table_unref);
    g_clear_pointer(&auth->proofs, g_hash_table_unref);
    g_clear_pointer(&auth->writers, g_hash_table_unref);
    g_mutex_clear(&auth->lock);
    g_mutex_clear(&auth->slow);
    g_free(auth->file);
    g_free(auth);
}

bool serve_auth_asks(const ServeAuth *auth)
{
    return auth->file != NULL;
}

/* --- proving ----------------------------------------------------------------------------- */

/* Takes as long whatever differs. */
static bool is_same(const char *a, const char *b)
{
    size_t size = strlen(a);
    unsigned char differs = strlen(b) != size;

    for (size_t i = 0; i < size && !(differs && i >= strlen(b)); i++)
        differs |= (unsigned char)(a[i] ^ b[i]);
    return !differs;
}

static bool password_fits(ServeAuth *auth, const char *password, const char *hash)
{
    g_autofree struct crypt_data *data = g_new0(struct crypt_data, 1);
    const char *made;
    bool fits;

    g_mutex_lock(&auth->slow);
    made = crypt_r(password, hash, data);
    fits = made && made[0] != '*' && is_same(hash, made);
    g_mutex_unlock(&auth->slow);
    explicit_bzero(data, sizeof(*data));
    return fits;
}

static void proof_key(const ServeAuth *auth, const char *user, const char *password, Digest *ret)
{
    g_autoptr(DigestStream) stream = digest_stream_new();

    digest_stream_update(stream, auth->secret.bytes, DIGEST_SIZE);
    digest_stream_update(stream, user, strlen(user) + 1);
    digest_stream_update(stream, password, strlen(password));
    digest_stream_final(stream, ret);
}

static bool is_proved(ServeAuth *auth, const Digest *key)
{
    const Proof *proof = g_hash_table_lookup(auth->proofs, key);

    if (proof && proof->until > g_get_monotonic_time())
        return true;
    (void)g_hash_table_remove(auth->proofs, key);
    return false;
}

static void remember(ServeAuth *auth, const Digest *key, GHashTable *users)
{
    Proof *proof;

    AUTO_LOCK(&auth->lock);
    if (auth->users != users)
        return; /* the file has changed since */
    if (g_hash_table_size(auth->proofs) >= PROVED_MAX)
        g_hash_table_remove_all(auth->proofs);
    proof = g_new0(Proof, 1);
    proof->until = g_get_monotonic_time() + PROVED_FOR;
    g_hash_table_insert(auth->proofs, g_memdup2(key, sizeof(*key)), proof);
}

/* Whose hash an unknown user's password is held against: any of the file's, so that it costs as much. */
static const char *some_hash(GHashTable *users)
{
    GHashTableIter iter;
    gpointer hash = NULL;

    g_hash_table_iter_init(&iter, users);
    return g_hash_table_iter_next(&iter, NULL, &hash) ? hash : NULL;
}

static bool prove(ServeAuth *auth, const char *user, const char *password)
{
    g_autoptr(GHashTable) users = NULL;
    const char *hash;
    bool known;
    Digest key;

    proof_key(auth, user, password, &key);
    g_mutex_lock(&auth->lock);
    follow_file(auth);
    known = is_proved(auth, &key);
    users = g_hash_table_ref(auth->users);
    g_mutex_unlock(&auth->lock);
    if (known)
        return true;
    hash = g_hash_table_lookup(users, user);
    known = hash != NULL;
    if (!hash)
        hash = some_hash(users);
    if (!hash || !password_fits(auth, password, hash) || !known)
        return false;
    remember(auth, &key, users);
    return true;
}

ServeVerdict serve_auth_check(ServeAuth *auth, const char *authorization, bool write, char **ret_user)
{
    g_autofree char *user = NULL, *password = NULL;
    bool proved;

    *ret_user = NULL;
    if (!auth->file)
        return write ? SERVE_DENIED : SERVE_ALLOWED;
    if (!authorization)
        return !write && auth->anonymous ? SERVE_ALLOWED : SERVE_UNKNOWN;
    proved = serve_basic_parse(authorization, &user, &password) && prove(auth, user, password);
    if (password)
        explicit_bzero(password, strlen(password));
    if (!proved)
        return SERVE_UNKNOWN;
    *ret_user = g_steal_pointer(&user);
    return !write || auth->all_write || g_hash_table_contains(auth->writers, *ret_user) ? SERVE_ALLOWED : SERVE_DENIED;
}
